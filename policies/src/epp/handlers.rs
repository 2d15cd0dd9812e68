//! Profile handlers: which scheduling profiles run for a request, and in which order.

use serde::Deserialize;
use serde_json::Value;

use super::plugin::parameters;

/// Parameters of `disagg-profile-handler`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct DisaggParameters {
    stage_order: String,
    profiles: Stages,
    deciders: StageDeciders,
    /// Older spelling of `deciders.prefill`.
    decider_plugin_name: String,
    /// Older spelling of `deciders.prefill`.
    prefill_decider_plugin_name: String,
    /// Older spelling of `deciders.encode`.
    encode_decider_plugin_name: String,
    /// Older spelling of `profiles.decode`.
    decode_profile: String,
    /// Older spelling of `profiles.prefill`.
    prefill_profile: String,
    /// Older spelling of `profiles.encode`.
    encode_profile: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stages {
    decode: String,
    prefill: String,
    encode: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StageDeciders {
    prefill: String,
    encode: String,
}

/// `disagg-profile-handler` with its defaults filled in.
///
/// Decode first (default): the decode profile runs; then the prefill profile, when there is one and the prefill
/// decider asks for it. A prefill profile that finds no endpoint leaves the request to the decode endpoint alone.
/// Prefill first: the prefill profile always runs, then decode; a prefill decider is an error.
/// Source: llm-d-router profilehandler/disagg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disaggregation {
    /// Whether the prefill profile runs before the decode profile.
    pub prefill_first: bool,
    /// Name of the decode profile.
    pub decode: String,
    /// Name of the prefill profile.
    pub prefill: String,
    /// Name of the prefill decider; without one, nothing is disaggregated.
    pub prefill_decider: Option<String>,
    /// Name of the encode decider.
    pub encode_decider: Option<String>,
}

impl Disaggregation {
    /// From the handler's parameters.
    ///
    /// # Errors
    /// When they are not valid.
    pub fn new(value: &Value) -> Result<Self, String> {
        let parameters: DisaggParameters = parameters(value)?;
        let first =
            |names: &[&String]| names.iter().find(|name| !name.is_empty()).map(|name| (*name).clone());
        let prefill_decider = first(&[
            &parameters.deciders.prefill,
            &parameters.prefill_decider_plugin_name,
            &parameters.decider_plugin_name,
        ]);
        // Case, dashes and underscores do not matter upstream.
        let order = parameters.stage_order.to_lowercase().replace(['-', '_'], "");
        let prefill_first = match order.as_str() {
            "" | "decodefirst" | "decode" => false,
            "prefillfirst" | "prefill" => true,
            _ => {
                return Err(format!(
                    "invalid stage order {:?}, must be \"decode-first\" or \"prefill-first\"",
                    parameters.stage_order
                ));
            }
        };
        if prefill_first && prefill_decider.is_some() {
            return Err("prefill decider is not supported in prefill-first stage order".to_owned());
        }
        let or = |names: &[&String], default: &str| first(names).unwrap_or_else(|| default.to_owned());
        Ok(Self {
            prefill_first,
            decode: or(&[&parameters.profiles.decode, &parameters.decode_profile], "decode"),
            prefill: or(&[&parameters.profiles.prefill, &parameters.prefill_profile], "prefill"),
            prefill_decider,
            encode_decider: first(&[&parameters.deciders.encode, &parameters.encode_decider_plugin_name]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn older_names_of_the_decider_are_understood() {
        for value in [
            json!({"deciders": {"prefill": "d"}}),
            json!({"deciderPluginName": "d"}),
            json!({"prefillDeciderPluginName": "d"}),
        ] {
            assert_eq!(Disaggregation::new(&value).unwrap().prefill_decider.as_deref(), Some("d"), "{value}");
        }
    }

    #[test]
    fn prefill_first_takes_no_prefill_decider() {
        assert!(Disaggregation::new(&json!({"stageOrder": "Prefill_First"})).unwrap().prefill_first);
        let both = json!({"stageOrder": "prefill-first", "deciders": {"prefill": "d"}});
        assert!(Disaggregation::new(&both).unwrap_err().contains("not supported"));
        assert!(Disaggregation::new(&json!({"stageOrder": "sideways"})).is_err());
    }
}
