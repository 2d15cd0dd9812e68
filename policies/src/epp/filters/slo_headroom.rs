//! `slo-headroom-tier-filter`: endpoints that are predicted to meet the request's limits.

use forerun_sim::rng::Stream;
use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Filter, Notes, parameters};
use crate::epp::state::Latency;

/// Parameters of `slo-headroom-tier-filter`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// How often the negative tier is explored although the positive one is not empty.
    epsilon_explore_neg: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { epsilon_explore_neg: 0.01 }
    }
}

/// The positive tier meets both limits; the negative one is the rest, those without a prediction last. Keeps the
/// positive tier, or with probability epsilon the negative one; all when nothing is predicted.
/// Source: llm-d-router filter/sloheadroomtier.
pub(super) struct SloHeadroom {
    epsilon: f64,
    stream: Stream,
    unpredicted: Vec<u32>,
}

impl SloHeadroom {
    pub(super) fn new(value: &Value, stream: Stream) -> Result<Self, String> {
        let epsilon = parameters::<Parameters>(value)?.epsilon_explore_neg;
        if !(0.0..=1.0).contains(&epsilon) {
            return Err(format!("epsilonExploreNeg must be in [0, 1], got {epsilon:.6}"));
        }
        Ok(Self { epsilon, stream, unpredicted: Vec::new() })
    }
}

impl Filter for SloHeadroom {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        let latency = |&endpoint: &u32| context.endpoint(endpoint).latency;
        let valid = |endpoint: &u32| latency(endpoint).as_ref().is_some_and(Latency::is_valid);
        let predicted = candidates.iter().filter(|endpoint| latency(endpoint).is_some()).count();
        let positive = candidates.iter().filter(|endpoint| valid(endpoint)).count();
        if candidates.len() <= 1 || predicted == 0 || positive == candidates.len() {
            return;
        }
        if positive > 0 && self.stream.uniform() >= self.epsilon {
            candidates.retain(valid);
            return;
        }
        self.unpredicted.clear();
        self.unpredicted.extend(candidates.iter().filter(|endpoint| latency(endpoint).is_none()));
        candidates.retain(|endpoint| latency(endpoint).is_some() && !valid(endpoint));
        candidates.append(&mut self.unpredicted);
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use crate::epp::state::Latency;
    use serde_json::json;

    fn kept(headrooms: &[Option<(f64, f64)>], epsilon: f64) -> Vec<u32> {
        let scene = Scene::of(headrooms, |state, headroom| {
            state.latency = headroom.map(|(ttft_headroom, tpot_headroom)| Latency {
                ttft_headroom,
                tpot_headroom,
                ttft: 0.0,
                tpot: 0.0,
                dispatched: 0,
            });
        });
        scene.kept("slo-headroom-tier-filter", &json!({"epsilonExploreNeg": epsilon}))
    }

    #[test]
    fn the_positive_tier_is_kept_and_the_negative_one_explored() {
        let mixed = [Some((1.0, 0.0)), None, Some((1.0, -1.0)), Some((0.0, 0.0))];
        assert_eq!(kept(&mixed, 0.0), [0, 3]);
        assert_eq!(kept(&mixed, 1.0), [2, 1], "those without a prediction come last");
        assert_eq!(kept(&[None, Some((-1.0, 1.0))], 0.0), [1, 0]);
        assert_eq!(kept(&[None, None], 0.0), [0, 1]);
        assert_eq!(kept(&[Some((-1.0, 1.0))], 0.0), [0]);
    }
}
