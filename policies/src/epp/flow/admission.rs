//! Who is let in at all: the gate that is always there, and the admitters.
//!
//! Source: llm-d-router at ebab6879, `pkg/epp/requestcontrol/admission.go` and `plugins/requestcontrol/admitter`, and
//! its recordings.

use serde::Deserialize;
use thiserror::Error;

use super::saturation::{load, mean};
use crate::epp::{EndpointState, RequestView};

/// The status of what an admitter denies (recorded: not 429).
pub const DENIED_STATUS: u16 = 500;

/// Whether a request is shed where flow control is off: those of negative priority, once the pool is full.
#[must_use]
pub fn is_shed(priority: i32, saturation: f64) -> bool {
    priority < 0 && saturation >= 1.0
}

/// `probabilistic-admitter`: the fuller the pool, the more sheddable requests are denied.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbabilisticAdmitter {
    /// Waiting requests of a full endpoint.
    pub queue_depth_threshold: f64,
    /// KV-cache usage of a full endpoint, 0 to 1.
    pub kv_cache_util_threshold: f64,
    /// Exponent of the saturation.
    pub power: f64,
    /// Factor: with the defaults everything is denied from a saturation of 0.320 up.
    pub k: f64,
}

impl Default for ProbabilisticAdmitter {
    fn default() -> Self {
        Self { queue_depth_threshold: 5.0, kv_cache_util_threshold: 0.8, power: 5.0, k: 300.0 }
    }
}

/// A parameter that must be positive is not.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error("plugin 'probabilistic-admitter': {name} must be > 0, got {value}")]
pub struct AdmitterError {
    name: &'static str,
    value: f64,
}

impl ProbabilisticAdmitter {
    /// Checks the parameters as upstream does.
    ///
    /// # Errors
    /// A parameter that is not positive.
    pub fn check(&self) -> Result<(), AdmitterError> {
        let parameters = [
            ("queueDepthThreshold", self.queue_depth_threshold),
            ("kvCacheUtilThreshold", self.kv_cache_util_threshold),
            ("power", self.power),
            ("k", self.k),
        ];
        match parameters.into_iter().find(|&(_, value)| value.is_nan() || value <= 0.0) {
            Some((name, value)) => Err(AdmitterError { name, value }),
            None => Ok(()),
        }
    }

    /// min(saturation^power * k, 1) for negative priorities, 0 for others. A uniform draw from [0, 1) below it denies.
    ///
    /// Missing metrics count as full, stale ones as they are. Go's `pow` may differ from ours in the last bit.
    #[must_use]
    pub fn reject_probability(&self, priority: i32, endpoints: &[EndpointState]) -> f64 {
        if priority >= 0 || endpoints.is_empty() {
            return 0.0;
        }
        let of = |endpoint: &EndpointState| match endpoint.scraped_at {
            Some(_) => load(endpoint, self.queue_depth_threshold, self.kv_cache_util_threshold),
            None => 1.0,
        };
        let saturation = mean(endpoints.iter().map(of));
        (libm::pow(saturation, self.power) * self.k).min(1.0)
    }
}

/// KV-cache usage below which `latency-slo-admitter` takes an endpoint for empty.
const EMPTY_KV_USAGE: f64 = 0.02;

/// `latency-slo-admitter`: denies a sheddable request with an SLO that no endpoint is predicted to keep, unless one is
/// idle or empty.
#[must_use]
pub fn keeps_latency_slo(request: &RequestView<'_>, endpoints: &[EndpointState]) -> bool {
    let positive = |name| {
        request.header(name).and_then(|value| value.parse().ok()).is_some_and(|limit: f64| limit > 0.0)
    };
    if request.priority >= 0 || !(positive("x-llm-d-slo-ttft-ms") || positive("x-llm-d-slo-tpot-ms")) {
        return true;
    }
    let mut predictions = endpoints.iter().filter_map(|endpoint| endpoint.latency.as_ref()).peekable();
    predictions.peek().is_none()
        || predictions.any(|latency| latency.is_valid())
        || endpoints
            .iter()
            .any(|endpoint| endpoint.metrics.running == 0 || endpoint.metrics.kv_usage < EMPTY_KV_USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::Metrics;
    use forerun_sim::time::Time;

    #[test]
    fn only_sheddable_requests_are_ever_denied() {
        assert!(is_shed(-1, 1.0) && !is_shed(-1, 0.99) && !is_shed(0, 2.0));
        let full = EndpointState {
            metrics: Metrics { waiting: 50, ..Metrics::default() },
            scraped_at: Some(Time::ZERO),
            ..EndpointState::default()
        };
        let admitter = ProbabilisticAdmitter::default();
        let of = |priority, endpoints: &[&EndpointState]| {
            let endpoints: Vec<_> = endpoints.iter().map(|&endpoint| endpoint.clone()).collect();
            admitter.reject_probability(priority, &endpoints)
        };
        assert_eq!([of(-1, &[&full]), of(0, &[&full]), of(-1, &[])].map(|p| p > 0.5), [true, false, false]);
    }

    #[test]
    fn with_the_defaults_everything_sheddable_is_denied_from_a_saturation_of_0_32() {
        let at = |kv_usage| {
            let metrics = Metrics { kv_usage, ..Metrics::default() };
            let endpoint =
                EndpointState { metrics, scraped_at: Some(Time::ZERO), ..EndpointState::default() };
            ProbabilisticAdmitter::default().reject_probability(-1, &[endpoint])
        };
        assert!(at(0.8 * 0.319) < 1.0 && at(0.8 * 0.320) >= 1.0);
    }

    #[test]
    fn parameters_must_be_positive() {
        let error = ProbabilisticAdmitter { k: 0.0, ..ProbabilisticAdmitter::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "plugin 'probabilistic-admitter': k must be > 0, got 0");
    }
}
