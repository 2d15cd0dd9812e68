//! The file as it is written: `EndpointPickerConfig`, strict. Source: llm-d-router apix/config/v1alpha1.

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::error::{LoadError, Stage};

/// The largest file that is read, in bytes: real ones have a few thousand.
const BYTES_MAX: usize = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Envelope {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) feature_gates: Option<Vec<String>>,
    pub(super) plugins: Vec<Spanned<PluginSpec>>,
    pub(super) scheduling_profiles: Option<Vec<Spanned<ProfileSpec>>>,
    pub(super) data_layer: Option<DataLayer>,
    pub(super) flow_control: Option<FlowControlSpec>,
    pub(super) request_handler: Option<RequestHandler>,
    /// Deprecated: `flowControl.saturationDetector`.
    pub(super) saturation_detector: Option<Reference>,
    /// Deprecated: `requestHandler.parsers`.
    pub(super) parser: Option<Reference>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PluginSpec {
    pub(super) name: String,
    pub(super) r#type: String,
    pub(super) parameters: Value,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ProfileSpec {
    pub(super) name: String,
    pub(super) plugins: Vec<Weighted>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Weighted {
    pub(super) plugin_ref: String,
    pub(super) weight: Option<f64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Reference {
    pub(super) plugin_ref: String,
}

/// Where data comes from. Only the metrics source matters to a simulation.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DataLayer {
    pub(super) inject_defaults: Option<bool>,
    pub(super) sources: Option<Vec<DataSource>>,
    pub(super) discovery: Option<Reference>,
    pub(super) peer_discovery: Option<Reference>,
    pub(super) cross_replica_syncer_plugin_ref: String,
    pub(super) cross_replica_sync_interval: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DataSource {
    pub(super) plugin_ref: String,
    pub(super) extractors: Option<Vec<Reference>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RequestHandler {
    pub(super) parsers: Option<Vec<Reference>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct FlowControlSpec {
    pub(super) max_bytes: Value,
    pub(super) max_requests: Value,
    #[serde(rename = "defaultRequestTTL")]
    pub(super) default_request_ttl: Option<String>,
    #[serde(rename = "noEndpointRequestTTL")]
    pub(super) no_endpoint_request_ttl: Option<String>,
    pub(super) default_priority_band: Option<BandSpec>,
    pub(super) default_negative_priority_band: Option<BandSpec>,
    pub(super) priority_bands: Option<Vec<BandSpec>>,
    pub(super) usage_limit_policy_plugin_ref: String,
    pub(super) saturation_detector: Option<Reference>,
    pub(super) enable_eviction: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct BandSpec {
    pub(super) priority: i64,
    pub(super) max_bytes: Value,
    pub(super) max_requests: Value,
    pub(super) fairness_policy_ref: String,
    pub(super) ordering_policy_ref: String,
}

/// The file's content; only its form is checked.
pub(super) fn decode(text: &str) -> Result<Envelope, LoadError> {
    if text.len() > BYTES_MAX {
        let reason = format!("the file has more than {BYTES_MAX} bytes: it is no EndpointPickerConfig");
        return Err(LoadError::new(Stage::Decode, None, reason));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().map(|at| at.line() as u32);
        // The library appends its own "at line .., column .."; the place in front says it better.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        let reason = message.trim_start_matches("error: ").replace('\n', " ");
        LoadError::new(Stage::Decode, line, reason)
    })
}

/// Parameters as Go sees them: a null is absent, and `2.0` is the integer 2.
pub(super) fn normalized(value: Value) -> Value {
    /// Beyond it not every integer is an f64.
    const EXACT_MAX: f64 = (1u64 << 53) as f64;
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, normalized(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(normalized).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_MAX => {
                Value::from(float as i64)
            }
            _ => Value::Number(number),
        },
        other => other,
    }
}
