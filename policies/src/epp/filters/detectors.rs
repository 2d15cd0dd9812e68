//! The saturation detectors as filters: `utilization-detector` and `concurrency-detector`.

use forerun_sim::time::{Span, Time};
use serde::Deserialize;
use serde_json::Value;

use crate::epp::flow::parse_go_duration;
use crate::epp::plugin::{Context, Filter, Notes, parameters};
use crate::epp::{EndpointState, InFlight};

/// Parameters of `utilization-detector`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct UtilizationParameters {
    /// Waiting requests of a saturated endpoint.
    queue_depth_threshold: i64,
    /// KV cache usage of a saturated endpoint.
    kv_cache_util_threshold: f64,
    /// Metrics older than this count as saturated: a Go duration.
    metrics_staleness_threshold: String,
    /// By what share the filter's limits exceed the thresholds.
    headroom: f64,
}

impl Default for UtilizationParameters {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: "200ms".to_owned(),
            headroom: 0.0,
        }
    }
}

/// Drops endpoints with stale metrics, and keeps those with waiting < queueDepthThreshold * (1 + headroom) and
/// usage < kvCacheUtilThreshold * (1 + headroom); all, when none is left.
/// Source: llm-d-router saturationdetector/utilization.
pub(super) struct Utilization {
    waiting_max: f64,
    kv_usage_max: f64,
    staleness_max: Span,
}

impl Utilization {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let parameters: UtilizationParameters = parameters(value)?;
        let wrong = |reason: String| Err(format!("invalid utilization detector configuration: {reason}"));
        let UtilizationParameters { queue_depth_threshold, kv_cache_util_threshold, headroom, .. } =
            parameters;
        if queue_depth_threshold <= 0 {
            return wrong(format!(
                "queueDepthThreshold must be strictly positive, got {queue_depth_threshold}"
            ));
        }
        if kv_cache_util_threshold <= 0.0 || kv_cache_util_threshold > 1.0 {
            return wrong(format!(
                "kvCacheUtilThreshold must be in (0.0, 1.0], got {kv_cache_util_threshold:.6}"
            ));
        }
        if headroom < 0.0 {
            return wrong(format!("headroom must be a non-negative value, got {headroom:.6}"));
        }
        let staleness = &parameters.metrics_staleness_threshold;
        let Some(staleness_max) = parse_go_duration(staleness) else {
            return wrong(format!("metricsStalenessThreshold {staleness:?} is not a duration such as 200ms"));
        };
        if staleness_max.as_nanos() == 0 {
            return wrong(format!("metricsStalenessThreshold must be strictly positive, got {staleness}"));
        }
        Ok(Self {
            waiting_max: queue_depth_threshold as f64 * (1.0 + headroom),
            kv_usage_max: kv_cache_util_threshold * (1.0 + headroom),
            staleness_max,
        })
    }

    fn accepts(&self, now: Time, state: &EndpointState) -> bool {
        let fresh = state.scraped_at.is_some_and(|at| now.saturating_since(at) <= self.staleness_max);
        fresh
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

/// Parameters of `concurrency-detector`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct ConcurrencyParameters {
    /// Requests in flight of a saturated endpoint.
    max_concurrency: i64,
    /// Tokens in flight of a saturated endpoint.
    max_token_concurrency: i64,
    /// By what share the filter's limits exceed those.
    headroom: f64,
    /// What is limited: `requests`, `tokens` or both (`hybrid`).
    concurrency_mode: String,
    /// The producer that counts; empty for the default one.
    in_flight_load_producer_name: String,
}

impl Default for ConcurrencyParameters {
    fn default() -> Self {
        Self {
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
            headroom: 0.0,
            concurrency_mode: "requests".to_owned(),
            in_flight_load_producer_name: String::new(),
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
        let parameters: ConcurrencyParameters = parameters(value)?;
        let wrong = |reason: String| Err(format!("invalid concurrency detector configuration: {reason}"));
        let ConcurrencyParameters { max_concurrency, max_token_concurrency, headroom, .. } = parameters;
        for (name, max) in
            [("maxConcurrency", max_concurrency), ("maxTokenConcurrency", max_token_concurrency)]
        {
            if max <= 0 {
                return wrong(format!("{name} must be strictly positive, got {max}"));
            }
        }
        if headroom < 0.0 {
            return wrong(format!("headroom must be a non-negative value, got {headroom:.6}"));
        }
        let limit = |max: i64| (max as f64 * (1.0 + headroom)) as u64;
        let (requests_max, tokens_max) = (limit(max_concurrency), limit(max_token_concurrency));
        Ok(match parameters.concurrency_mode.as_str() {
            "" | "requests" => Self { requests_max, tokens_max: u64::MAX },
            "tokens" => Self { requests_max: u64::MAX, tokens_max },
            "hybrid" => Self { requests_max, tokens_max },
            other => return wrong(format!("unsupported concurrencyMode: {other:?}")),
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
