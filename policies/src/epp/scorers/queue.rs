//! `queue-scorer` and `running-requests-size-scorer`: fewer requests are better.

use crate::epp::plugin::{Context, Notes, Scorer};
use crate::epp::state::Metrics;

/// score = (max - n) / (max - min) over the candidates; 1 when all are equal.
///
/// n is `vllm:num_requests_waiting` for `queue-scorer`, `vllm:num_requests_running` for
/// `running-requests-size-scorer`. No parameters. Source: llm-d-router scorer/queuedepth, scorer/runningrequests.
pub(super) struct FewestRequests {
    pub(super) count: fn(&Metrics) -> u32,
}

impl Scorer for FewestRequests {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let count = |&endpoint: &u32| (self.count)(&context.endpoint(endpoint).metrics);
        let (mut low, mut high) = (u32::MAX, 0);
        for requests in candidates.iter().map(count) {
            low = low.min(requests);
            high = high.max(requests);
        }
        if low >= high {
            scores.fill(1.0);
            return;
        }
        let width = f64::from(high - low);
        for (score, endpoint) in scores.iter_mut().zip(candidates) {
            *score = f64::from(high - count(endpoint)) / width;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::Value;

    #[test]
    fn the_shortest_queue_scores_1_the_longest_0_and_equals_1() {
        let cases: [(&[u32], &[f64]); 4] = [
            (&[0, 2, 3, 3], &[1.0, 1.0 / 3.0, 0.0, 0.0]),
            (&[5, 5], &[1.0, 1.0]),
            (&[7], &[1.0]),
            (&[], &[]),
        ];
        for (counts, scores) in cases {
            let waiting = Scene::of(counts, |state, count| state.metrics.waiting = count);
            assert_eq!(waiting.scores("queue-scorer", &Value::Null), scores, "{counts:?}");
            let running = Scene::of(counts, |state, count| state.metrics.running = count);
            assert_eq!(running.scores("running-requests-size-scorer", &Value::Null), scores, "{counts:?}");
        }
    }
}
