//! `endpoint-attribute-scorer`: any custom metric of the endpoints, scaled to 0..1.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Names, Notes, Scorer, parameters, range};

/// Parameters of `endpoint-attribute-scorer`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The metric; required.
    attribute_key: String,
    /// Who publishes it; required when the key contains a slash.
    producer: String,
    algorithm: Algorithm,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Algorithm {
    /// `linear_lower_is_better` or `linear_higher_is_better`.
    r#type: String,
    normalization: Normalization,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Normalization {
    fixed_range: Option<FixedRange>,
    adaptive_range: Option<AdaptiveRange>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FixedRange {
    min: f64,
    max: f64,
}

/// The candidates' own range: no parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptiveRange {}

/// y = (x - min) / (max - min), in a fixed range clamped to 0..1, else over the candidates (all equal: 1); the score is
/// y, or 1 - y where lower is better; 0 without the metric. Source: llm-d-router scorer/endpointattribute.
pub(super) struct EndpointAttribute {
    attribute: usize,
    lower_is_better: bool,
    fixed: Option<FixedRange>,
}

impl EndpointAttribute {
    pub(super) fn new(value: &Value, names: &mut Names) -> Result<Self, String> {
        let Parameters { attribute_key: key, producer, algorithm } = parameters(value)?;
        let wrong = |reason: String| Err(format!("endpoint attribute scorer{reason}"));
        if key.is_empty() {
            return wrong(" requires a non-empty attributeKey".to_owned());
        }
        if key.contains('/') && producer.is_empty() {
            return wrong(format!(": attribute {key:?} contains \"/\" but no producer is set"));
        }
        let lower_is_better = match algorithm.r#type.as_str() {
            "linear_lower_is_better" => true,
            "linear_higher_is_better" => false,
            other => {
                return wrong(format!(
                    " algorithm.type must be \"linear_lower_is_better\" or \"linear_higher_is_better\", got {other:?}"
                ));
            }
        };
        let Normalization { fixed_range: fixed, adaptive_range } = algorithm.normalization;
        if fixed.is_some() && adaptive_range.is_some() {
            return wrong(
                " allows at most one normalization strategy, got both fixedRange and adaptiveRange"
                    .to_owned(),
            );
        }
        if let Some(FixedRange { min, max }) = fixed
            && min >= max
        {
            return wrong(format!(" normalization.fixedRange requires min < max, got min {min}, max {max}"));
        }
        Ok(Self { attribute: names.attribute(&key), lower_is_better, fixed })
    }
}

impl Scorer for EndpointAttribute {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let value = |&endpoint: &u32| context.endpoint(endpoint).attribute(self.attribute);
        let (min, max) = match self.fixed {
            Some(FixedRange { min, max }) => (min, max),
            None => range(candidates.iter().filter_map(value)),
        };
        for (score, endpoint) in scores.iter_mut().zip(candidates) {
            let Some(value) = value(endpoint) else { continue };
            // Only the candidates' own range can be empty.
            *score = if min >= max {
                1.0
            } else {
                let scaled = ((value - min) / (max - min)).clamp(0.0, 1.0);
                if self.lower_is_better { 1.0 - scaled } else { scaled }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    fn scores(values: &[Option<f64>], kind: &str, normalization: &serde_json::Value) -> Vec<f64> {
        let parameters =
            json!({"attributeKey": "x", "algorithm": {"type": kind, "normalization": normalization}});
        Scene::of(values, |state, value| state.attributes = vec![value])
            .scores("endpoint-attribute-scorer", &parameters)
    }

    #[test]
    fn values_are_scaled_within_their_own_or_a_fixed_range() {
        let values = [Some(0.0), Some(30.0), Some(40.0), None];
        let lower = "linear_lower_is_better";
        assert_eq!(scores(&values, lower, &json!({})), [1.0, 0.25, 0.0, 0.0]);
        assert_eq!(scores(&values, "linear_higher_is_better", &json!({})), [0.0, 0.75, 1.0, 0.0]);
        let fixed = json!({"fixedRange": {"min": 20, "max": 40}});
        assert_eq!(scores(&values, lower, &fixed), [1.0, 0.5, 0.0, 0.0]);
        assert_eq!(scores(&[Some(5.0), Some(5.0), None], lower, &json!({})), [1.0, 1.0, 0.0]);
    }
}
