//! `kv-cache-utilization-scorer`: a free KV cache is better.

use crate::epp::plugin::{Context, Notes, Scorer};

/// score = 1 - `vllm:kv_cache_usage_perc`. No parameters. Source: llm-d-router scorer/kvcacheutilization.
pub(super) struct KvCacheUtilization;

impl Scorer for KvCacheUtilization {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = 1.0 - context.endpoint(endpoint).metrics.kv_usage;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::Value;

    #[test]
    fn the_score_is_the_free_share() {
        let scene = Scene::of(&[0.0, 0.25, 1.0], |state, usage| state.metrics.kv_usage = usage);
        assert_eq!(scene.scores("kv-cache-utilization-scorer", &Value::Null), [1.0, 0.75, 0.0]);
    }
}
