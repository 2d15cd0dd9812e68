//! `token-load-scorer`: fewer tokens to prefill are better.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Notes, Scorer, parameters};

/// Parameters of `token-load-scorer`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Tokens at which the score reaches 0. What is not positive stands for the default.
    queue_threshold_tokens: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { queue_threshold_tokens: THRESHOLD_TOKENS_DEFAULT }
    }
}

/// 128 requests of 32 Ki tokens.
const THRESHOLD_TOKENS_DEFAULT: i64 = 128 * 32 * 1024;

/// score = 1 - min(t, threshold) / threshold with t = tokens in flight + what of this request is not cached.
/// Source: llm-d-router scorer/tokenload.
pub(super) struct TokenLoad {
    threshold_tokens: f64,
}

impl TokenLoad {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let threshold = parameters::<Parameters>(value)?.queue_threshold_tokens;
        let threshold = if threshold <= 0 { THRESHOLD_TOKENS_DEFAULT } else { threshold };
        Ok(Self { threshold_tokens: threshold as f64 })
    }
}

impl Scorer for TokenLoad {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            let state = context.endpoint(endpoint);
            let in_flight = state.in_flight.map_or(0, |load| load.tokens);
            let tokens = in_flight + state.uncached_tokens.unwrap_or(0);
            *score = 1.0 - (tokens as f64).min(self.threshold_tokens) / self.threshold_tokens;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use crate::epp::state::InFlight;
    use serde_json::json;

    #[test]
    fn tokens_in_flight_and_of_this_request_count_together() {
        let scene = Scene::of(&[(0, 0), (25, 25), (90, 90)], |state, (in_flight, uncached)| {
            state.in_flight = Some(InFlight { requests: 1, tokens: in_flight });
            state.uncached_tokens = Some(uncached);
        });
        let scores = scene.scores("token-load-scorer", &json!({"queueThresholdTokens": 100}));
        assert_eq!(scores, [1.0, 0.5, 0.0]);
        let default = scene.scores("token-load-scorer", &json!({"queueThresholdTokens": -1}));
        assert_eq!(default[1..2], [1.0 - 50.0 / 4_194_304.0]);
    }
}
