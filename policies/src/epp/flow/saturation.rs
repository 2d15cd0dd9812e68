//! How full a pool is: the saturation detectors.
//!
//! Source: llm-d-router at ebab6879, `plugins/flowcontrol/saturationdetector`, and its recordings.

use std::collections::BTreeMap;

use forerun_sim::time::{Span, Time};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::duration::{go_duration, millis};
use crate::epp::EndpointState;
use crate::epp::plugin::parameters;

/// Metrics older than this say nothing (upstream's `DefaultMetricsStalenessThreshold`).
const STALENESS_DEFAULT: Span = millis(200);

/// The saturation of an endpoint without usable metrics, and of a pool without endpoints.
const UNKNOWN: f64 = 1.0;

/// `utilization-detector`: the fuller of queue and KV cache, as the endpoints report them.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct UtilizationDetector {
    /// Waiting requests of a full endpoint.
    pub queue_depth_threshold: i64,
    /// KV-cache usage of a full endpoint, 0 to 1.
    pub kv_cache_util_threshold: f64,
    /// An endpoint whose metrics are older counts as full.
    #[serde(deserialize_with = "go_duration")]
    pub metrics_staleness_threshold: Span,
    /// Share by which a filter with these parameters goes beyond the thresholds. Saturation does not use it.
    pub headroom: f64,
}

impl Default for UtilizationDetector {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: STALENESS_DEFAULT,
            headroom: 0.0,
        }
    }
}

impl UtilizationDetector {
    /// The detector with these parameters; absent ones are the defaults.
    ///
    /// # Errors
    /// What upstream refuses: unknown fields, thresholds out of range.
    pub fn new(value: &Value) -> Result<Self, String> {
        let detector: Self = parameters(value)?;
        let wrong = |reason: String| Err(format!("invalid utilization detector configuration: {reason}"));
        let Self { queue_depth_threshold: depth, kv_cache_util_threshold: usage, headroom, .. } = detector;
        if depth <= 0 {
            return wrong(format!("queueDepthThreshold must be strictly positive, got {depth}"));
        }
        if usage <= 0.0 || usage > 1.0 {
            return wrong(format!("kvCacheUtilThreshold must be in (0.0, 1.0], got {usage:.6}"));
        }
        if headroom < 0.0 {
            return wrong(format!("headroom must be a non-negative value, got {headroom:.6}"));
        }
        if detector.metrics_staleness_threshold == Span::ZERO {
            return wrong("metricsStalenessThreshold must be strictly positive, got 0s".to_owned());
        }
        Ok(detector)
    }

    /// Whether the endpoint's metrics are young enough to be believed.
    pub(in crate::epp) fn is_fresh(&self, now: Time, endpoint: &EndpointState) -> bool {
        endpoint.scraped_at.is_some_and(|at| now.saturating_since(at) <= self.metrics_staleness_threshold)
    }

    /// Mean over the endpoints of max(waiting / threshold, KV usage / threshold). 1 is full; it has no upper bound.
    #[must_use]
    pub fn saturation<'a>(&self, now: Time, endpoints: impl IntoIterator<Item = &'a EndpointState>) -> f64 {
        mean(endpoints.into_iter().map(|endpoint| self.of_endpoint(now, endpoint)))
    }

    fn of_endpoint(&self, now: Time, endpoint: &EndpointState) -> f64 {
        if self.is_fresh(now, endpoint) {
            load(endpoint, self.queue_depth_threshold as f64, self.kv_cache_util_threshold)
        } else {
            UNKNOWN
        }
    }
}

/// The fuller of queue and KV cache.
pub(super) fn load(endpoint: &EndpointState, queue_threshold: f64, kv_threshold: f64) -> f64 {
    (f64::from(endpoint.metrics.waiting) / queue_threshold).max(endpoint.metrics.kv_usage / kv_threshold)
}

/// The mean, [`UNKNOWN`] of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { UNKNOWN } else { sum / f64::from(count) }
}

/// What the concurrency detector counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConcurrencyMode {
    /// Requests in flight.
    #[default]
    Requests,
    /// Tokens in flight.
    Tokens,
    /// The fuller of both, endpoint by endpoint.
    Hybrid,
}

impl<'de> Deserialize<'de> for ConcurrencyMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" | "requests" => Ok(Self::Requests),
            "tokens" => Ok(Self::Tokens),
            "hybrid" => Ok(Self::Hybrid),
            other => {
                Err(D::Error::custom(format!("{CONCURRENCY_WRONG}unsupported concurrencyMode: {other:?}")))
            }
        }
    }
}

/// What upstream puts in front of its reasons.
const CONCURRENCY_WRONG: &str = "invalid concurrency detector configuration: ";

/// `concurrency-detector`: what this router itself has in flight.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ConcurrencyDetector {
    /// What is counted.
    pub concurrency_mode: ConcurrencyMode,
    /// Requests in flight on a full endpoint.
    pub max_concurrency: i64,
    /// Tokens in flight on a full endpoint.
    pub max_token_concurrency: i64,
    /// Share by which a filter with these parameters goes beyond the limits. Saturation does not use it.
    pub headroom: f64,
    /// The producer that counts what is in flight; empty is the default one.
    pub in_flight_load_producer_name: String,
}

impl Default for ConcurrencyDetector {
    fn default() -> Self {
        Self {
            concurrency_mode: ConcurrencyMode::default(),
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
            headroom: 0.0,
            in_flight_load_producer_name: String::new(),
        }
    }
}

impl ConcurrencyDetector {
    /// The detector with these parameters; absent ones are the defaults.
    ///
    /// # Errors
    /// What upstream refuses: unknown fields and modes, limits out of range.
    pub fn new(value: &Value) -> Result<Self, String> {
        let detector: Self = parameters(value)?;
        let wrong = |reason: String| Err(format!("{CONCURRENCY_WRONG}{reason}"));
        let limits = [
            ("maxConcurrency", detector.max_concurrency),
            ("maxTokenConcurrency", detector.max_token_concurrency),
        ];
        if let Some((name, limit)) = limits.into_iter().find(|&(_, limit)| limit <= 0) {
            return wrong(format!("{name} must be strictly positive, got {limit}"));
        }
        if detector.headroom < 0.0 {
            return wrong(format!("headroom must be a non-negative value, got {:.6}", detector.headroom));
        }
        Ok(detector)
    }

    /// What is in flight over what fits; of both kinds the mean over the endpoints.
    #[must_use]
    pub fn saturation<'a>(&self, endpoints: impl IntoIterator<Item = &'a EndpointState>) -> f64 {
        let of = |endpoint: &EndpointState| {
            let in_flight = endpoint.in_flight.unwrap_or_default();
            (f64::from(in_flight.requests), in_flight.tokens as f64)
        };
        let loads = endpoints.into_iter().map(of);
        let (requests_max, tokens_max) = (self.max_concurrency as f64, self.max_token_concurrency as f64);
        let pooled = |(sum, count): (f64, u32), limit: f64| {
            if count == 0 { UNKNOWN } else { sum / (limit * f64::from(count)) }
        };
        match self.concurrency_mode {
            ConcurrencyMode::Requests => {
                pooled(loads.fold((0.0, 0), |(sum, n), (requests, _)| (sum + requests, n + 1)), requests_max)
            }
            ConcurrencyMode::Tokens => {
                pooled(loads.fold((0.0, 0), |(sum, n), (_, tokens)| (sum + tokens, n + 1)), tokens_max)
            }
            ConcurrencyMode::Hybrid => {
                mean(loads.map(|(requests, tokens)| (requests / requests_max).max(tokens / tokens_max)))
            }
        }
    }
}

/// The detector of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Detector {
    /// `utilization-detector`, the default.
    Utilization(UtilizationDetector),
    /// `concurrency-detector`.
    Concurrency(ConcurrencyDetector),
}

impl Default for Detector {
    fn default() -> Self {
        Self::Utilization(UtilizationDetector::default())
    }
}

impl Detector {
    /// The saturation of these endpoints.
    #[must_use]
    pub fn saturation<'a>(&self, now: Time, endpoints: impl IntoIterator<Item = &'a EndpointState>) -> f64 {
        match self {
            Self::Utilization(detector) => detector.saturation(now, endpoints),
            Self::Concurrency(detector) => detector.saturation(endpoints),
        }
    }
}

/// The stages of a pool, each with the numbers of its endpoints: prefill, then decode. Endpoints that do both are in
/// both, behind the others; those without a role decode. Encoders and unknown roles are in neither. A stage without
/// endpoints is left out; when both are, everything is one stage.
#[must_use]
pub fn stages<'a>(labels: impl IntoIterator<Item = &'a BTreeMap<String, String>>) -> Vec<Vec<u32>> {
    let (mut prefill, mut decode, mut both, mut all) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (endpoint, labels) in (0..).zip(labels) {
        match labels.get("llm-d.ai/role").map_or("", String::as_str) {
            "prefill" | "encode-prefill" => prefill.push(endpoint),
            "decode" | "" => decode.push(endpoint),
            "prefill-decode" | "both" | "encode-prefill-decode" => both.push(endpoint),
            _ => (),
        }
        all.push(endpoint);
    }
    prefill.extend(&both);
    decode.extend(&both);
    let mut stages = vec![prefill, decode];
    stages.retain(|stage| !stage.is_empty());
    if stages.is_empty() {
        stages.push(all);
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::{InFlight, Metrics};

    fn reporting(waiting: u32, kv_usage: f64) -> EndpointState {
        let metrics = Metrics { waiting, kv_usage, ..Metrics::default() };
        EndpointState { metrics, scraped_at: Some(Time::ZERO), ..EndpointState::default() }
    }

    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }

    #[test]
    fn a_pool_is_as_full_as_its_endpoints_on_average() {
        let pool = [reporting(10, 0.0), reporting(0, 0.4)];
        assert_near(UtilizationDetector::default().saturation(Time::ZERO, &pool), (2.0 + 0.5) / 2.0);
    }

    #[test]
    fn stale_metrics_and_empty_pools_are_full() {
        let detector = UtilizationDetector::default();
        let at = |ms: u64| Time::from_nanos(ms * 1_000_000);
        assert_near(detector.saturation(at(200), &[reporting(0, 0.0)]), 0.0);
        assert_near(detector.saturation(at(201), &[reporting(0, 0.0)]), 1.0);
        assert_near(detector.saturation(at(0), &[]), 1.0);
        assert_near(ConcurrencyDetector::default().saturation(&[]), 1.0);
    }

    #[test]
    fn both_kinds_of_concurrency_take_the_fuller_one_of_each_endpoint() {
        let with = |requests, tokens| EndpointState {
            in_flight: Some(InFlight { requests, tokens }),
            ..EndpointState::default()
        };
        let pool = [with(50, 0), with(0, 1_000_000)];
        let of = |concurrency_mode| {
            ConcurrencyDetector { concurrency_mode, ..ConcurrencyDetector::default() }.saturation(&pool)
        };
        assert_near(of(ConcurrencyMode::Requests), 0.25);
        assert_near(of(ConcurrencyMode::Tokens), 0.5);
        assert_near(of(ConcurrencyMode::Hybrid), 0.75);
    }

    #[test]
    fn endpoints_of_both_roles_are_in_both_stages() {
        let roles = ["both", "prefill", "", "encode"];
        let labels: Vec<_> = roles
            .iter()
            .map(|&role| BTreeMap::from([("llm-d.ai/role".to_owned(), role.to_owned())]))
            .collect();
        assert_eq!(stages(&labels), [vec![1, 0], vec![2, 0]]);
        assert_eq!(stages(&labels[3..]), [vec![0]], "without any stage it is one");
    }
}
