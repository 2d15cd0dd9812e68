//! `active-request-scorer`: fewer requests in flight from this router are better.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Notes, Scorer, parameters};

/// Parameters of `active-request-scorer`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Up to so many requests an endpoint is idle and scores 1; a negative number stands for 0.
    idle_threshold: i64,
    /// The best score of an endpoint that is not idle; what is outside 0..1 stands for 1.
    max_busy_score: f64,
    /// The producer that counts; empty for the default one.
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { idle_threshold: 0, max_busy_score: 1.0, in_flight_load_producer_name: String::new() }
    }
}

/// With c requests in flight: 1 when c <= idleThreshold, else (max c - c) / max c * maxBusyScore, the maximum over
/// the candidates. Source: llm-d-router scorer/activerequest.
pub(super) struct ActiveRequest {
    idle_threshold: i64,
    max_busy_score: f64,
}

impl ActiveRequest {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let busy = parameters.max_busy_score;
        Ok(Self {
            idle_threshold: parameters.idle_threshold.max(0),
            max_busy_score: if (0.0..=1.0).contains(&busy) { busy } else { 1.0 },
        })
    }
}

impl Scorer for ActiveRequest {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let count = |&endpoint: &u32| context.endpoint(endpoint).in_flight.map_or(0, |load| load.requests);
        let most = candidates.iter().map(count).max().unwrap_or(0);
        for (score, endpoint) in scores.iter_mut().zip(candidates) {
            let requests = count(endpoint);
            *score = if i64::from(requests) <= self.idle_threshold {
                1.0
            } else {
                f64::from(most - requests) / f64::from(most) * self.max_busy_score
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use crate::epp::state::InFlight;
    use serde_json::json;

    #[test]
    fn idle_endpoints_score_1_and_the_busiest_0() {
        let scene = Scene::of(&[0, 1, 2, 4], |state, requests| {
            state.in_flight = Some(InFlight { requests, tokens: 0 });
        });
        let cases = [
            (json!(null), [1.0, 0.75, 0.5, 0.0]),
            (json!({"idleThreshold": 1, "maxBusyScore": 0.5}), [1.0, 1.0, 0.25, 0.0]),
            (json!({"idleThreshold": -3, "maxBusyScore": 7}), [1.0, 0.75, 0.5, 0.0]),
        ];
        for (parameters, scores) in cases {
            assert_eq!(scene.scores("active-request-scorer", &parameters), scores, "{parameters}");
        }
    }

    #[test]
    fn an_endpoint_without_a_count_is_idle() {
        let scene = Scene::of(&[(), ()], |_, ()| ());
        assert_eq!(scene.scores("active-request-scorer", &json!(null)), [1.0, 1.0]);
    }
}
