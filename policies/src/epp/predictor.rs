//! `predicted-latency-producer`: what a request would take on each endpoint.
//!
//! Upstream asks a service that learns from what it observes (XGBoost; a mean error of about 5 % is claimed for it).
//! Here the step-time model of the endpoint answers in its place, from the same features: metrics as of the last
//! scrape, tokens in flight and the prefix match; its answers are off by a uniform error of 5 % on average.

use forerun_sim::cost::{CostModel, StepShape};
use forerun_sim::rng::Stream;
use std::sync::Arc;

use super::{EndpointState, Latency, RequestView};

/// Largest relative error: uniform between minus and plus this, 5 % on average.
const ERROR_MAX: f64 = 0.1;

/// Prompt tokens of a step for which the rate of prefilling is asked.
const CHUNK_TOKENS: u32 = 2048;

/// The predictor of all endpoints.
pub(super) struct Predictor {
    endpoints: Vec<Predicted>,
    stream: Stream,
}

/// What is known of one endpoint's speed.
struct Predicted {
    cost: Arc<dyn CostModel>,
    kv_tokens: f64,
    prefill_ms_per_token: f64,
}

impl Predictor {
    pub(super) fn new(seed: u64) -> Self {
        Self { endpoints: Vec::new(), stream: Stream::new(seed, "router latency predictor") }
    }

    pub(super) fn add_endpoint(&mut self, cost: Arc<dyn CostModel>, kv_tokens: f64) {
        let tokens = u64::from(CHUNK_TOKENS);
        let chunk = StepShape {
            prefills: 1,
            prefill_tokens: CHUNK_TOKENS,
            prefill_pairs: tokens * (tokens + 1) / 2,
            prefill_context: tokens,
            prefill_longest: CHUNK_TOKENS,
            sampled: 1,
            ..StepShape::default()
        };
        let prefill_ms_per_token = cost.step(&chunk).gpu.as_millis_f64() / f64::from(CHUNK_TOKENS);
        self.endpoints.push(Predicted { cost, kv_tokens, prefill_ms_per_token });
    }

    /// The prediction for `request` on endpoint `number`, given what is known of it and the `uncached` tokens that it
    /// would have to compute.
    pub(super) fn predict(
        &mut self,
        number: usize,
        request: &RequestView<'_>,
        state: &EndpointState,
        uncached: f64,
    ) -> Latency {
        let Predicted { cost, kv_tokens, prefill_ms_per_token } = &self.endpoints[number];
        let running = state.metrics.running + 1;
        let context = (state.metrics.kv_usage * kv_tokens) as u64 + request.prompt_tokens();
        let decodes = StepShape {
            decodes: running,
            decode_context: context,
            decode_longest: request.prompt_tokens().max(context / u64::from(running)),
            sampled: running,
            ..StepShape::default()
        };
        let step_ms = cost.step(&decodes).duration(true).as_millis_f64();
        let ahead = state.in_flight.map_or(0, |in_flight| in_flight.tokens) as f64;
        let ttft = (ahead + uncached) * prefill_ms_per_token + step_ms;
        let ttft = ttft * (1.0 + ERROR_MAX * (2.0 * self.stream.uniform() - 1.0));
        let tpot = step_ms * (1.0 + ERROR_MAX * (2.0 * self.stream.uniform() - 1.0));
        let limit = |name| request.header(name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        Latency {
            ttft_headroom: limit("x-llm-d-slo-ttft-ms") - ttft,
            tpot_headroom: limit("x-llm-d-slo-tpot-ms") - tpot,
            ttft,
            tpot,
            dispatched: state.in_flight.map_or(0, |in_flight| in_flight.requests),
        }
    }
}
