//! `load-aware-scorer`: half a point for an empty queue, less for a longer one.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Notes, Scorer, parameters};

/// Parameters of `load-aware-scorer`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Waiting requests at which the score reaches 0. What is not positive stands for the default.
    threshold: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { threshold: THRESHOLD_DEFAULT }
    }
}

const THRESHOLD_DEFAULT: i64 = 128;

/// score = 0.5 * (1 - min(waiting, threshold) / threshold); 0.5 for an empty queue.
/// Source: llm-d-router scorer/loadaware.
pub(super) struct LoadAware {
    threshold: f64,
}

impl LoadAware {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let Parameters { threshold } = parameters(value)?;
        Ok(Self { threshold: if threshold <= 0 { THRESHOLD_DEFAULT } else { threshold } as f64 })
    }
}

impl Scorer for LoadAware {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            let waiting = f64::from(context.endpoint(endpoint).metrics.waiting).min(self.threshold);
            *score = 0.5 * (1.0 - waiting / self.threshold);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    #[test]
    fn an_empty_queue_scores_half_and_the_threshold_0() {
        let scene = Scene::of(&[0, 4, 8, 900], |state, waiting| state.metrics.waiting = waiting);
        assert_eq!(scene.scores("load-aware-scorer", &json!({"threshold": 8})), [0.5, 0.25, 0.0, 0.0]);
        for default in [json!({"threshold": 0}), json!({"threshold": -5}), json!(null)] {
            assert_eq!(scene.scores("load-aware-scorer", &default)[2..3], [0.5 * (1.0 - 8.0 / 128.0)]);
        }
    }
}
