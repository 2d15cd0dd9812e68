//! The saturation detectors as filters: `utilization-detector` and `concurrency-detector`.

use forerun_sim::time::Time;
use serde_json::Value;

use crate::epp::flow::saturation::{ConcurrencyDetector, ConcurrencyMode, UtilizationDetector};
use crate::epp::plugin::{Context, Filter, Notes};
use crate::epp::{EndpointState, InFlight};

/// Drops endpoints with stale metrics, and keeps those with waiting < queueDepthThreshold * (1 + headroom) and
/// usage < kvCacheUtilThreshold * (1 + headroom); all, when none is left.
/// Source: llm-d-router saturationdetector/utilization.
pub(super) struct Utilization {
    detector: UtilizationDetector,
    waiting_max: f64,
    kv_usage_max: f64,
}

impl Utilization {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let detector = UtilizationDetector::new(value)?;
        let beyond = 1.0 + detector.headroom;
        let waiting_max = detector.queue_depth_threshold as f64 * beyond;
        let kv_usage_max = detector.kv_cache_util_threshold * beyond;
        Ok(Self { detector, waiting_max, kv_usage_max })
    }

    fn accepts(&self, now: Time, state: &EndpointState) -> bool {
        self.detector.is_fresh(now, state)
            && f64::from(state.metrics.waiting) < self.waiting_max
            && state.metrics.kv_usage < self.kv_usage_max
    }
}

impl Filter for Utilization {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        let accepts = |&endpoint: &u32| self.accepts(context.now, context.endpoint(endpoint));
        if candidates.iter().any(accepts) {
            candidates.retain(accepts);
        }
    }
}

/// Keeps endpoints below trunc(maxConcurrency * (1 + headroom)) requests, the same of tokens, or both. It may keep
/// none. Source: llm-d-router saturationdetector/concurrency.
pub(super) struct Concurrency {
    requests_max: u64,
    tokens_max: u64,
}

impl Concurrency {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let detector = ConcurrencyDetector::new(value)?;
        let limit = |max: i64| (max as f64 * (1.0 + detector.headroom)) as u64;
        let (requests_max, tokens_max) =
            (limit(detector.max_concurrency), limit(detector.max_token_concurrency));
        Ok(match detector.concurrency_mode {
            ConcurrencyMode::Requests => Self { requests_max, tokens_max: u64::MAX },
            ConcurrencyMode::Tokens => Self { requests_max: u64::MAX, tokens_max },
            ConcurrencyMode::Hybrid => Self { requests_max, tokens_max },
        })
    }
}

impl Filter for Concurrency {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        candidates.retain(|&endpoint| {
            let InFlight { requests, tokens } = context.endpoint(endpoint).in_flight.unwrap_or_default();
            u64::from(requests) < self.requests_max && tokens < self.tokens_max
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::plugin::testing::Scene;
    use forerun_sim::time::Span;
    use serde_json::json;

    #[test]
    fn stale_or_busy_endpoints_are_dropped_unless_nothing_is_left() {
        let values = [(4, 0.5), (5, 0.5), (0, 0.8)];
        let mut scene = Scene::of(&values, |state, (waiting, usage)| {
            state.metrics.waiting = waiting;
            state.metrics.kv_usage = usage;
        });
        scene.now = Time::ZERO + Span::from_millis(200);
        assert_eq!(scene.kept("utilization-detector", &json!(null)), [0]);
        assert_eq!(scene.kept("utilization-detector", &json!({"headroom": 0.5})), [0, 1, 2]);
        scene.now = Time::ZERO + Span::from_millis(201);
        assert_eq!(scene.kept("utilization-detector", &json!(null)), [0, 1, 2], "all are stale");
        scene.endpoints[2].scraped_at = Some(scene.now);
        scene.endpoints[2].metrics.kv_usage = 0.1;
        assert_eq!(scene.kept("utilization-detector", &json!(null)), [2]);
    }

    #[test]
    fn concurrency_limits_are_truncated_and_do_not_fail_open() {
        let scene = Scene::of(&[(1, 0), (2, 0), (0, 50)], |state, (requests, tokens)| {
            state.in_flight = Some(InFlight { requests, tokens });
        });
        let kept = |mode: &str| {
            let parameters = json!({"concurrencyMode": mode, "maxConcurrency": 1, "headroom": 0.9,
                                    "maxTokenConcurrency": 20});
            scene.kept("concurrency-detector", &parameters)
        };
        assert_eq!(kept("requests"), [2], "1.9 is cut to 1");
        assert_eq!(kept("tokens"), [0, 1]);
        assert_eq!(kept("hybrid"), [] as [u32; 0]);
    }
}
