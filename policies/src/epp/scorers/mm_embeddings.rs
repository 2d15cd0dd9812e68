//! `mm-embeddings-cache-scorer`: the endpoints that hold the embeddings of the request's images.

use crate::epp::plugin::{Context, Notes, Scorer};

/// score = sizes of the items whose embeddings the endpoint holds / sizes of all items; 0 without items.
/// No parameters. Source: llm-d-router scorer/mmcacheaffinity.
pub(super) struct EmbeddingsCache;

impl Scorer for EmbeddingsCache {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = match context.endpoint(endpoint).embeddings {
                Some((held, all)) if all > 0 => held as f64 / all as f64,
                _ => 0.0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::Value;

    #[test]
    fn the_score_is_the_held_share() {
        let values = [Some((576, 576)), Some((0, 576)), Some((144, 576)), Some((0, 0)), None];
        let scene = Scene::of(&values, |state, sizes| state.embeddings = sizes);
        assert_eq!(scene.scores("mm-embeddings-cache-scorer", &Value::Null), [1.0, 0.0, 0.25, 0.0, 0.0]);
    }
}
