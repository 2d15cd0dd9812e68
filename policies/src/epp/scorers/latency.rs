//! `latency-scorer`: predicted TTFT and TPOT against the request's limits.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Names, Notes, Scorer, parameters, range};
use crate::epp::state::Latency;

/// Parameters of `latency-scorer`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    ttft_weight: f64,
    tpot_weight: f64,
    /// "least": the tightest fit that still meets the limits; "most": the roomiest. Anything else is "least".
    headroom_selection_strategy: String,
    #[serde(rename = "compositeKVWeight")]
    composite_kv_weight: f64,
    composite_queue_weight: f64,
    composite_prefix_weight: f64,
    /// The producer whose matches the composite uses; empty for the approximate one.
    prefix_match_info_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            ttft_weight: 0.8,
            tpot_weight: 0.2,
            headroom_selection_strategy: "least".to_owned(),
            composite_kv_weight: 1.0,
            composite_queue_weight: 1.0,
            composite_prefix_weight: 1.0,
            prefix_match_info_producer_name: String::new(),
        }
    }
}

/// A range of headrooms below which all count as equal.
const EQUAL_MS: f64 = 1e-9;

/// One group of endpoints is rated, the rest scores 0. The groups, the first that is not empty: those that meet
/// both limits or have no prediction; idle ones (nothing dispatched); those that miss TPOT only; TTFT only; both.
///
/// Within the group each |headroom| is scaled to n in 0..1 between the group's minimum and maximum (an equal
/// dimension gives its weight to the other; 0.5 where both are equal), c = a * nTTFT + b * nTPOT and the score is
/// (trunc(100 * (1 - c)) + 1) / 100, or with "most" (trunc(100 * c) + 1) / 100; misses are always rated by "least".
/// Without any prediction: round(100 * composite) / 100 with the composite of free KV cache, queue and prefix.
/// Source: llm-d-router scorer/latency.
pub(super) struct LatencyScorer {
    ttft_weight: f64,
    tpot_weight: f64,
    most: bool,
    /// Weights of KV cache, queue and prefix; they add up to 1.
    composite: [f64; 3],
    producer: usize,
    group: Vec<Rated>,
}

/// A member of the rated group.
#[derive(Clone, Copy)]
struct Rated {
    /// Its place among the candidates.
    place: usize,
    /// |TTFT headroom| in ms.
    ttft: f64,
    /// |TPOT headroom| in ms.
    tpot: f64,
}

impl LatencyScorer {
    pub(super) fn new(value: &Value, names: &mut Names) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let both = parameters.ttft_weight + parameters.tpot_weight;
        let (ttft_weight, tpot_weight) = if both <= 0.0 {
            (1.0, 0.0)
        } else {
            (parameters.ttft_weight / both, parameters.tpot_weight / both)
        };
        let (kv, queue, prefix) = (
            parameters.composite_kv_weight,
            parameters.composite_queue_weight,
            parameters.composite_prefix_weight,
        );
        let all = kv + queue + prefix;
        let composite = if all <= 0.0 { [1.0, 0.0, 0.0] } else { [kv / all, queue / all, prefix / all] };
        Ok(Self {
            ttft_weight,
            tpot_weight,
            most: parameters.headroom_selection_strategy == "most",
            composite,
            producer: names.producer(&parameters.prefix_match_info_producer_name),
            group: Vec::new(),
        })
    }

    fn score_composite(&self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64]) {
        let waiting = |&endpoint: &u32| context.endpoint(endpoint).metrics.waiting;
        let most = candidates.iter().map(waiting).max().unwrap_or(0);
        let [kv_weight, queue_weight, prefix_weight] = self.composite;
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            let queue = if most == 0 { 1.0 } else { f64::from(most - waiting(&endpoint)) / f64::from(most) };
            let prefix = context.prefix(self.producer, endpoint).map_or(0.0, |prefix| prefix.share());
            let kv_free = 1.0 - context.endpoint(endpoint).metrics.kv_usage;
            let composite = kv_weight * kv_free + queue_weight * queue + prefix_weight * prefix;
            *score = (100.0 * composite).round() / 100.0;
        }
    }

    /// Gathers the candidates that `belongs` accepts; whether there are any.
    fn gather(
        &mut self,
        context: &Context<'_>,
        candidates: &[u32],
        belongs: impl Fn(Option<&Latency>) -> bool,
    ) -> bool {
        self.group.clear();
        for (place, &endpoint) in candidates.iter().enumerate() {
            let latency = context.endpoint(endpoint).latency.as_ref();
            if belongs(latency) {
                let (ttft, tpot) = latency.map_or((0.0, 0.0), |l| (l.ttft_headroom, l.tpot_headroom));
                self.group.push(Rated { place, ttft: ttft.abs(), tpot: tpot.abs() });
            }
        }
        !self.group.is_empty()
    }

    fn rate_group(&self, most: bool, scores: &mut [f64]) {
        let (ttft_min, ttft_max) = range(self.group.iter().map(|rated| rated.ttft));
        let (tpot_min, tpot_max) = range(self.group.iter().map(|rated| rated.tpot));
        let (ttft_width, tpot_width) = (ttft_max - ttft_min, tpot_max - tpot_min);
        let (mut ttft_weight, mut tpot_weight) = (self.ttft_weight, self.tpot_weight);
        if ttft_width <= EQUAL_MS && tpot_width > EQUAL_MS {
            (ttft_weight, tpot_weight) = (0.0, 1.0);
        } else if tpot_width <= EQUAL_MS && ttft_width > EQUAL_MS {
            (ttft_weight, tpot_weight) = (1.0, 0.0);
        }
        let scaled = |value: f64, min: f64, width: f64| {
            if width > EQUAL_MS { (value - min) / width } else { 0.5 }
        };
        for rated in &self.group {
            let combined = ttft_weight * scaled(rated.ttft, ttft_min, ttft_width)
                + tpot_weight * scaled(rated.tpot, tpot_min, tpot_width);
            let share = if most { combined } else { 1.0 - combined };
            scores[rated.place] = ((share * 100.0).trunc() + 1.0) / 100.0;
        }
    }
}

impl Scorer for LatencyScorer {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        if candidates.iter().all(|&endpoint| context.endpoint(endpoint).latency.is_none()) {
            self.score_composite(context, candidates, scores);
            return;
        }
        if self.gather(context, candidates, |latency| latency.is_none_or(Latency::is_valid)) {
            self.rate_group(self.most, scores);
            return;
        }
        // From here on every candidate has a prediction and misses at least one limit.
        let misses: [fn(&Latency) -> bool; 4] = [
            |latency| latency.dispatched == 0,
            |latency| latency.ttft_headroom >= 0.0 && latency.tpot_headroom < 0.0,
            |latency| latency.ttft_headroom < 0.0 && latency.tpot_headroom >= 0.0,
            |latency| latency.ttft_headroom < 0.0 && latency.tpot_headroom < 0.0,
        ];
        for group in misses {
            if self.gather(context, candidates, |latency| latency.is_some_and(group)) {
                self.rate_group(false, scores);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    /// Endpoints with (TTFT headroom, TPOT headroom, dispatched); `None` is not predicted.
    fn scene(values: &[Option<(f64, f64, u32)>]) -> Scene {
        Scene::of(values, |state, value| {
            state.latency = value.map(|(ttft_headroom, tpot_headroom, dispatched)| Latency {
                ttft_headroom,
                tpot_headroom,
                ttft: 0.0,
                tpot: 0.0,
                dispatched,
            });
        })
    }

    #[test]
    fn the_tightest_fit_scores_best_and_misses_score_0() {
        let scene = scene(&[Some((10.0, 1.0, 1)), Some((20.0, 1.0, 1)), Some((-5.0, 1.0, 1))]);
        assert_eq!(scene.scores("latency-scorer", &json!(null)), [1.01, 0.01, 0.0]);
        let most = json!({"headroomSelectionStrategy": "most"});
        assert_eq!(scene.scores("latency-scorer", &most), [0.01, 1.01, 0.0]);
    }

    #[test]
    fn endpoints_without_a_prediction_count_as_meeting_the_limits() {
        let scene = scene(&[None, Some((-5.0, 1.0, 1))]);
        assert_eq!(scene.scores("latency-scorer", &json!(null)), [0.51, 0.0]);
    }

    #[test]
    fn idle_endpoints_come_before_tpot_ttft_and_double_misses() {
        let both = Some((-5.0, -1.0, 2));
        let cases = [
            (vec![Some((-9.0, -9.0, 0)), Some((5.0, -1.0, 2)), both], [0.51, 0.0, 0.0]),
            (vec![Some((5.0, -1.0, 2)), Some((-5.0, 1.0, 2)), both], [0.51, 0.0, 0.0]),
            (vec![both, Some((-5.0, 1.0, 2)), both], [0.0, 0.51, 0.0]),
            (vec![both, both, both], [0.51, 0.51, 0.51]),
        ];
        for (values, scores) in cases {
            assert_eq!(scene(&values).scores("latency-scorer", &json!(null)), scores, "{values:?}");
        }
    }

    #[test]
    fn without_predictions_kv_cache_queue_and_prefix_decide() {
        let scene = Scene::of(&[(0, 0.5), (4, 0.0)], |state, (waiting, usage)| {
            state.metrics.waiting = waiting;
            state.metrics.kv_usage = usage;
        });
        assert_eq!(scene.scores("latency-scorer", &json!(null)), [0.5, 0.33]);
        let only_kv = json!({"compositeKVWeight": 0, "compositeQueueWeight": 0, "compositePrefixWeight": 0});
        assert_eq!(scene.scores("latency-scorer", &only_kv), [0.5, 1.0]);
    }
}
