//! `utilization-filter`: endpoints within limits of requests, queue or KV cache.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::EndpointState;
use crate::epp::plugin::{Context, Filter, Notes, parameters};

/// Parameters of `utilization-filter`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// All must hold; at least one.
    conditions: Vec<Condition>,
    /// Whether all are kept when none would be.
    fallback_on_empty: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Condition {
    /// `active-requests`, `running-requests`, `waiting-queue` or `kv-cache-utilization`.
    metric: String,
    /// The largest value that is kept; required.
    max_value: Option<f64>,
}

/// A metric that a condition limits.
const IN_FLIGHT_METRIC: &str = "active-requests";

type Read = fn(&EndpointState) -> f64;

/// Keeps endpoints whose metrics do not exceed their limits (inclusive). Metrics that are missing count as 0.
/// Source: llm-d-router filter/utilization.
pub(super) struct Utilization {
    limits: Vec<(Read, f64)>,
    fallback_on_empty: bool,
}

impl Utilization {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let Parameters { conditions, fallback_on_empty } = parameters(value)?;
        if conditions.is_empty() {
            return Err("utilization filter requires at least one condition".to_owned());
        }
        let limits = conditions.iter().map(limit).collect::<Result<_, _>>()?;
        Ok(Self { limits, fallback_on_empty })
    }
}

fn limit(condition: &Condition) -> Result<(Read, f64), String> {
    let Condition { metric, max_value } = condition;
    let read: Read = match metric.as_str() {
        IN_FLIGHT_METRIC => |state| state.in_flight.map_or(0.0, |load| f64::from(load.requests)),
        "running-requests" => |state| f64::from(state.metrics.running),
        "waiting-queue" => |state| f64::from(state.metrics.waiting),
        "kv-cache-utilization" => |state| state.metrics.kv_usage,
        other => {
            return Err(format!(
                "utilization filter condition metric must be one of \"active-requests\", \"running-requests\", \
                 \"waiting-queue\", \"kv-cache-utilization\", got {other:?}"
            ));
        }
    };
    let Some(max) = *max_value else {
        return Err(format!("utilization filter condition for {metric:?} requires maxValue"));
    };
    if max.is_nan() || max < 0.0 {
        return Err(format!(
            "utilization filter condition for {metric:?} requires a non-negative maxValue, got {max}"
        ));
    }
    if metric == "kv-cache-utilization" && max > 1.0 {
        return Err(format!(
            "utilization filter maxValue for {metric:?} is a fraction and must be at most 1, got {max}"
        ));
    }
    Ok((read, max))
}

impl Filter for Utilization {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        let within = |&endpoint: &u32| {
            let state = context.endpoint(endpoint);
            self.limits.iter().all(|&(read, max)| read(state) <= max)
        };
        if !self.fallback_on_empty || candidates.iter().any(within) {
            candidates.retain(within);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    #[test]
    fn limits_are_inclusive_and_the_fallback_keeps_all() {
        let scene = Scene::of(&[0, 3, 4], |state, waiting| state.metrics.waiting = waiting);
        let kept = |max, fallback| {
            let condition = json!({"metric": "waiting-queue", "maxValue": max});
            let parameters = json!({"conditions": [condition], "fallbackOnEmpty": fallback});
            scene.kept("utilization-filter", &parameters)
        };
        assert_eq!(kept(3.0, false), [0, 1]);
        assert_eq!(kept(2.5, true), [0]);
        let busy = Scene::of(&[5, 6], |state, running| state.metrics.running = running);
        for (fallback, kept) in [(false, [].as_slice()), (true, &[0, 1])] {
            let condition = json!({"metric": "running-requests", "maxValue": 1});
            let parameters = json!({"conditions": [condition], "fallbackOnEmpty": fallback});
            assert_eq!(busy.kept("utilization-filter", &parameters), kept);
        }
    }
}
