//! `prefix-cache-affinity-filter`: stay where the prefix is cached, unless that costs too much TTFT.

use forerun_sim::rng::Stream;
use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Filter, Names, Notes, parameters};

/// Parameters of `prefix-cache-affinity-filter`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The matched share from which an endpoint is sticky; nothing is filtered at 0 or below.
    affinity_threshold: f64,
    /// How often a request is not filtered.
    exploration_probability: f64,
    /// By how much the best sticky endpoint's TTFT may exceed the best other one's; 0 is no limit.
    #[serde(rename = "maxTTFTPenaltyMs")]
    max_ttft_penalty_ms: f64,
    /// `prefillThroughput` (default) or `latencyPredictor`.
    ttft_source: String,
    /// Tokens per second of a prefill, for `prefillThroughput`.
    peak_prefill_throughput: f64,
    /// The producer of the matches; empty for the approximate one.
    prefix_match_info_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            affinity_threshold: 0.8,
            exploration_probability: 0.0,
            max_ttft_penalty_ms: 18000.0,
            ttft_source: String::new(),
            peak_prefill_throughput: 15928.0,
            prefix_match_info_producer_name: String::new(),
        }
    }
}

/// Where the filter takes TTFTs from.
const TTFT_FROM_PREDICTOR: &str = "latencyPredictor";

/// Sticky endpoints match at least `affinityThreshold` of the prompt; they alone are kept when there are any, unless
/// min TTFT(sticky) - min TTFT(others) > maxTTFTPenaltyMs. TTFT is tokens in flight / peakPrefillThroughput, or the
/// predicted one. Source: llm-d-router filter/prefixcacheaffinity.
pub(super) struct PrefixAffinity {
    parameters: Parameters,
    predicted: bool,
    producer: usize,
    stream: Stream,
}

impl PrefixAffinity {
    pub(super) fn new(value: &Value, names: &mut Names, stream: Stream) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let wrong = |reason: String| Err(format!("invalid config: {reason}"));
        let Parameters { affinity_threshold: threshold, exploration_probability: exploration, .. } =
            parameters;
        if threshold > 1.0 {
            return wrong(format!("affinityThreshold must be <= 1.0, got {threshold:.6}"));
        }
        if !(0.0..=1.0).contains(&exploration) {
            return wrong(format!("explorationProbability must be in [0, 1], got {exploration:.6}"));
        }
        let penalty = parameters.max_ttft_penalty_ms;
        if penalty < 0.0 {
            return wrong(format!("maxTTFTPenaltyMs must be >= 0, got {penalty:.6}"));
        }
        let predicted = match parameters.ttft_source.as_str() {
            "" | "prefillThroughput" => false,
            TTFT_FROM_PREDICTOR => true,
            other => {
                return wrong(format!(
                    "ttftSource must be \"latencyPredictor\" or \"prefillThroughput\", got {other:?}"
                ));
            }
        };
        if !predicted && penalty > 0.0 && parameters.peak_prefill_throughput <= 0.0 {
            return wrong(
                "peakPrefillThroughput must be > 0 when ttftSource is prefillThroughput".to_owned(),
            );
        }
        let producer = names.producer(&parameters.prefix_match_info_producer_name);
        Ok(Self { parameters, predicted, producer, stream })
    }

    fn ttft_ms(&self, context: &Context<'_>, endpoint: u32) -> f64 {
        let state = context.endpoint(endpoint);
        if self.predicted {
            return state.latency.map_or(f64::MAX, |latency| latency.ttft);
        }
        let tokens = state.in_flight.map_or(0, |load| load.tokens) as f64;
        tokens / self.parameters.peak_prefill_throughput * 1000.0
    }
}

impl Filter for PrefixAffinity {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        let Parameters { affinity_threshold: threshold, exploration_probability: exploration, .. } =
            self.parameters;
        if candidates.len() <= 1 || threshold <= 0.0 || exploration >= 1.0 {
            return;
        }
        if exploration > 0.0 && self.stream.uniform() < exploration {
            return;
        }
        let sticky = |endpoint| {
            context.prefix(self.producer, endpoint).map_or(0.0, |prefix| prefix.share()) >= threshold
        };
        let (mut sticky_count, mut sticky_ms, mut other_ms) = (0, f64::MAX, f64::MAX);
        for &endpoint in candidates.iter() {
            let ttft_ms = self.ttft_ms(context, endpoint);
            if sticky(endpoint) {
                sticky_count += 1;
                sticky_ms = sticky_ms.min(ttft_ms);
            } else {
                other_ms = other_ms.min(ttft_ms);
            }
        }
        if sticky_count == 0 || sticky_count == candidates.len() {
            return;
        }
        let penalty_max = self.parameters.max_ttft_penalty_ms;
        if penalty_max > 0.0 && sticky_ms - other_ms > penalty_max {
            return;
        }
        candidates.retain(|&endpoint| sticky(endpoint));
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use crate::epp::prefix::PrefixMatch;
    use crate::epp::state::InFlight;
    use serde_json::json;

    /// Endpoints with (matched blocks of 10, tokens in flight).
    fn scene(values: &[(u32, u64)]) -> Scene {
        let mut scene = Scene::of(values, |state, (_, tokens)| {
            state.in_flight = Some(InFlight { requests: 1, tokens });
        });
        let matched = |&(matched_blocks, _): &(u32, u64)| {
            Some(PrefixMatch {
                matched_blocks,
                cached_blocks: matched_blocks,
                total_blocks: 10,
                block_tokens: 64,
            })
        };
        scene.matches = vec![values.iter().map(matched).collect()];
        scene
    }

    #[test]
    fn sticky_endpoints_are_kept_alone_until_they_cost_too_much() {
        let cases = [
            ([(8, 0), (7, 0)], [0].as_slice()),
            ([(1, 0), (0, 0)], &[0, 1]),
            ([(10, 1000), (0, 0)], &[0]),    // 1000 ms more, just allowed
            ([(10, 1001), (0, 0)], &[0, 1]), // 1001 ms more
        ];
        let parameters = json!({"maxTTFTPenaltyMs": 1000, "peakPrefillThroughput": 1000});
        for (values, kept) in cases {
            assert_eq!(scene(&values).kept("prefix-cache-affinity-filter", &parameters), kept, "{values:?}");
        }
    }

    #[test]
    fn no_penalty_limit_always_sticks_and_full_exploration_never() {
        let far = scene(&[(10, 1 << 40), (0, 0)]);
        assert_eq!(far.kept("prefix-cache-affinity-filter", &json!({"maxTTFTPenaltyMs": 0})), [0]);
        let all = json!({"maxTTFTPenaltyMs": 0, "explorationProbability": 1});
        assert_eq!(far.kept("prefix-cache-affinity-filter", &all), [0, 1]);
    }
}
