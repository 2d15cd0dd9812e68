//! The `flowControl` section. Source: llm-d-router apix/config/v1alpha1, docs of its fields.

use forerun_sim::time::Span;
use serde_json::Value;

use super::envelope::{BandSpec, FlowControlSpec};
use super::error::{LoadError, Stage};
use crate::epp::flow::parse_go_duration;

/// Flow control as configured. It works only behind the feature gate `flowControl`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowControl {
    /// Whether the feature gate is on.
    pub enabled: bool,
    /// Bytes of all queued requests; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// All queued requests; `None` is no limit.
    pub max_requests: Option<u64>,
    /// How long a request waits while there are endpoints; zero is for ever. Upstream's default is 60 s.
    pub default_request_ttl: Option<Span>,
    /// How long while there is none; follows the other one when absent.
    pub no_endpoint_request_ttl: Option<Span>,
    /// Template of bands that are not listed.
    pub default_band: Option<Band>,
    /// The same for negative priorities.
    pub default_negative_band: Option<Band>,
    /// Bands that are listed.
    pub bands: Vec<Band>,
    /// Name of the usage limit policy.
    pub usage_limit_policy: String,
    /// Name of the saturation detector; it also guards admission when the gate is off.
    pub saturation_detector: String,
    /// Whether requests in flight may be evicted.
    pub enable_eviction: bool,
}

/// One priority band.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Band {
    /// Higher is served first.
    pub priority: i64,
    /// `None` is upstream's default, 1 GB.
    pub max_bytes: Option<u64>,
    /// `None` is upstream's default, 5000.
    pub max_requests: Option<u64>,
    /// Name of the fairness policy.
    pub fairness_policy: String,
    /// Name of the ordering policy.
    pub ordering_policy: String,
}

/// Names of the policies that upstream falls back on.
pub(super) const DEFAULT_FAIRNESS: &str = "global-strict-fairness-policy";
pub(super) const DEFAULT_ORDERING: &str = "fcfs-ordering-policy";
pub(super) const DEFAULT_USAGE_LIMIT: &str = "static-usage-limit-policy";
pub(super) const DEFAULT_DETECTOR: &str = "utilization-detector";

impl FlowControl {
    pub(super) fn new(spec: &FlowControlSpec, enabled: bool) -> Result<Self, LoadError> {
        let or = |name: &str, default: &str| if name.is_empty() { default } else { name }.to_owned();
        let bands = spec.priority_bands.iter().flatten().map(band).collect::<Result<_, _>>()?;
        let detector = spec.saturation_detector.as_ref().map_or("", |detector| &detector.plugin_ref);
        Ok(Self {
            enabled,
            max_bytes: quantity("maxBytes", &spec.max_bytes)?,
            max_requests: quantity("maxRequests", &spec.max_requests)?,
            default_request_ttl: ttl("defaultRequestTTL", spec.default_request_ttl.as_deref())?,
            no_endpoint_request_ttl: ttl("noEndpointRequestTTL", spec.no_endpoint_request_ttl.as_deref())?,
            default_band: spec.default_priority_band.as_ref().map(band).transpose()?,
            default_negative_band: spec.default_negative_priority_band.as_ref().map(band).transpose()?,
            bands,
            usage_limit_policy: or(&spec.usage_limit_policy_plugin_ref, DEFAULT_USAGE_LIMIT),
            saturation_detector: or(detector, DEFAULT_DETECTOR),
            enable_eviction: spec.enable_eviction,
        })
    }

    /// Plugins that the section names: the place and the name.
    pub(super) fn references(&self) -> Vec<(String, &str)> {
        let mut references = vec![
            ("usageLimitPolicyPluginRef".to_owned(), self.usage_limit_policy.as_str()),
            ("saturationDetector".to_owned(), &self.saturation_detector),
        ];
        for band in self.bands.iter().chain(&self.default_band).chain(&self.default_negative_band) {
            references
                .push((format!("fairnessPolicyRef of priority {}", band.priority), &band.fairness_policy));
            references
                .push((format!("orderingPolicyRef of priority {}", band.priority), &band.ordering_policy));
        }
        references
    }
}

fn band(spec: &BandSpec) -> Result<Band, LoadError> {
    let or = |name: &str, default: &str| if name.is_empty() { default } else { name }.to_owned();
    Ok(Band {
        priority: spec.priority,
        max_bytes: quantity("maxBytes", &spec.max_bytes)?,
        max_requests: quantity("maxRequests", &spec.max_requests)?,
        fairness_policy: or(&spec.fairness_policy_ref, DEFAULT_FAIRNESS),
        ordering_policy: or(&spec.ordering_policy_ref, DEFAULT_ORDERING),
    })
}

fn ttl(name: &str, text: Option<&str>) -> Result<Option<Span>, LoadError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || {
        let reason = format!("{name} `{text}` is not a duration such as 60s or 1m30s");
        LoadError::new(Stage::Decode, None, reason)
    };
    parse_go_duration(text).map(Some).ok_or_else(wrong)
}

/// A Kubernetes quantity that is a whole number: `500`, `"1k"`, `"10Gi"`. Absent or 0 is `None`.
fn quantity(name: &str, value: &Value) -> Result<Option<u64>, LoadError> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: Option<u64> = match &text[digits..] {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1_000_000),
        "G" => Some(1_000_000_000),
        "T" => Some(1_000_000_000_000),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        _ => None,
    };
    let number = text[..digits].parse::<u64>().ok();
    match number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor)) {
        Some(0) => Ok(None),
        Some(amount) => Ok(Some(amount)),
        None => {
            let reason = format!("{name} `{text}` is not a whole quantity such as 500, 1k or 10Gi");
            Err(LoadError::new(Stage::Decode, None, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kubernetes_quantities_are_read_and_zero_is_no_limit() {
        for (value, amount) in [
            (json!("10Gi"), Some(10 << 30)),
            (json!("1k"), Some(1000)),
            (json!(500), Some(500)),
            (json!("0"), None),
            (json!(null), None),
        ] {
            assert_eq!(quantity("maxBytes", &value).unwrap(), amount, "{value}");
        }
        for value in [json!("1.5G"), json!("-1"), json!("x"), json!("99999999999Ti"), json!([])] {
            assert!(quantity("maxBytes", &value).is_err(), "{value}");
        }
    }
}
