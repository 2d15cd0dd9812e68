//! Flow control as an `EndpointPickerConfig` asks for it, with upstream's defaults.

use serde::Deserialize;

use super::usage_limit::{Holdback, SoftReflective, UsageLimit};
use super::{BandConfig, Fairness, FlowConfig, LasConfig, Ordering};
use crate::epp::config::{Band, Config, Plugin};
use crate::epp::plugin::parameters;

/// Parameters of `static-usage-limit-policy`.
#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Static {
    threshold: f64,
}

impl Default for Static {
    fn default() -> Self {
        Self { threshold: 1.0 }
    }
}

/// Parameters of `priority-holdback-policy`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct HoldbackParameters {
    min_ceiling: Option<f64>,
    max_ceiling: Option<f64>,
    domain: Option<String>,
}

impl FlowConfig {
    /// What `config` asks for.
    ///
    /// # Errors
    /// When it names a policy that the simulator does not have, or parameters that are not valid.
    pub fn of(config: &Config) -> Result<Self, String> {
        let flow = &config.flow_control;
        let defaults = Self::default();
        let request_ttl = flow.default_request_ttl.unwrap_or(defaults.request_ttl);
        let band =
            |spec: &Option<Band>| spec.as_ref().map_or(Ok(BandConfig::default()), |spec| band(config, spec));
        let bands = flow.bands.iter().map(|spec| {
            let priority = i32::try_from(spec.priority)
                .map_err(|_| format!("flowControl: priority {} is not a 32-bit number", spec.priority))?;
            Ok((priority, self::band(config, spec)?))
        });
        let las = config.plugins.iter().find(|plugin| plugin.kind == "program-aware-fairness");
        Ok(Self {
            max_bytes: flow.max_bytes,
            max_requests: flow.max_requests,
            request_ttl,
            no_endpoint_ttl: flow.no_endpoint_request_ttl.unwrap_or(request_ttl),
            bands: bands.collect::<Result<_, String>>()?,
            default_band: band(&flow.default_band)?,
            default_negative_band: band(&flow.default_negative_band)?,
            usage_limit: usage_limit(config, &flow.usage_limit_policy)?,
            las: match las {
                Some(plugin) => read::<LasConfig>(plugin)?,
                None => LasConfig::default(),
            },
        })
    }
}

fn band(config: &Config, spec: &Band) -> Result<BandConfig, String> {
    let defaults = BandConfig::default();
    let unknown = |what: &str, name: &str| format!("flowControl: {what} '{name}' is not simulated");
    let fairness = kind(config, &spec.fairness_policy);
    let ordering = kind(config, &spec.ordering_policy);
    Ok(BandConfig {
        max_bytes: spec.max_bytes.unwrap_or(defaults.max_bytes),
        max_requests: spec.max_requests.unwrap_or(defaults.max_requests),
        fairness: Fairness::find(fairness).ok_or_else(|| unknown("fairness policy", fairness))?,
        ordering: Ordering::find(ordering).ok_or_else(|| unknown("ordering policy", ordering))?,
    })
}

/// The type of the plugin `name`; of one that nobody configured, its name is its type.
fn kind<'a>(config: &'a Config, name: &'a str) -> &'a str {
    config.plugin(name).map_or(name, |plugin| &plugin.kind)
}

fn usage_limit(config: &Config, name: &str) -> Result<UsageLimit, String> {
    let Some(plugin) = config.plugin(name) else { return Ok(UsageLimit::default()) };
    match plugin.kind.as_str() {
        "static-usage-limit-policy" => {
            Ok(UsageLimit::Static { threshold: read::<Static>(plugin)?.threshold })
        }
        "priority-holdback-policy" => {
            let HoldbackParameters { min_ceiling, max_ceiling, domain } = read(plugin)?;
            let holdback = Holdback::new(min_ceiling, max_ceiling, domain.as_deref());
            Ok(UsageLimit::Holdback(holdback.map_err(|error| plugin.wrong(&error.to_string()))?))
        }
        "soft-reflective-ceiling-policy" => Ok(UsageLimit::SoftReflective(SoftReflective::default())),
        _ => Err(plugin.wrong("is no usage limit policy")),
    }
}

fn read<T: Default + serde::de::DeserializeOwned>(plugin: &Plugin) -> Result<T, String> {
    parameters(&plugin.parameters).map_err(|reason| plugin.wrong(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::config::LoadOptions;
    use forerun_sim::time::Span;

    fn of(flow_control: &str) -> Result<FlowConfig, String> {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nplugins: [{{type: queue-scorer}}, {{type: priority-holdback-policy, parameters: {{minCeiling: 0.5}}}}, {{type: round-robin-fairness-policy}}]\nflowControl: {flow_control}\n"
        );
        let options = LoadOptions { allow_experimental: true, ..LoadOptions::default() };
        FlowConfig::of(&Config::load(&text, options).map_err(|error| error.to_string())?)
    }

    #[test]
    fn what_is_absent_has_upstreams_defaults() {
        let config = of("{}").unwrap();
        assert_eq!(config, FlowConfig::default());
    }

    #[test]
    fn times_limits_and_policies_are_taken_over() {
        let config = of("{maxRequests: 7, defaultRequestTTL: 5s, usageLimitPolicyPluginRef: priority-holdback-policy, priorityBands: [{priority: 3, maxRequests: 9, fairnessPolicyRef: round-robin-fairness-policy}]}").unwrap();
        assert_eq!((config.max_requests, config.request_ttl), (Some(7), Span::from_secs(5)));
        assert_eq!(config.no_endpoint_ttl, Span::from_secs(5), "follows the other one");
        assert!(matches!(config.usage_limit, UsageLimit::Holdback(_)));
        let expected =
            BandConfig { max_requests: 9, fairness: Fairness::RoundRobin, ..BandConfig::default() };
        assert_eq!(config.bands, [(3, expected)]);
    }
}
