//! `endpoint-attribute-filter`: a threshold on any custom metric.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Filter, Names, Notes, parameters};

/// Parameters of `endpoint-attribute-filter`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The metric; required.
    attribute: String,
    /// Who publishes it.
    producer: String,
    algorithm: Algorithm,
    /// `Pass` (default) or `Fail`: what becomes of endpoints without the metric.
    on_missing: String,
    /// Whether all are kept when none would be.
    fallback_on_empty: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Algorithm {
    /// `threshold`.
    r#type: String,
    threshold: Option<Threshold>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Threshold {
    operator: String,
    value: f64,
}

/// Keeps endpoints whose metric compares with the threshold as asked. Source: llm-d-router filter/endpointattribute.
pub(super) struct EndpointAttribute {
    attribute: usize,
    compare: fn(f64, f64) -> bool,
    threshold: f64,
    passes_missing: bool,
    fallback_on_empty: bool,
}

impl EndpointAttribute {
    pub(super) fn new(value: &Value, names: &mut Names) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let wrong = |reason: String| Err(format!("endpoint attribute filter {reason}"));
        if parameters.attribute.is_empty() {
            return wrong("requires a non-empty attribute".to_owned());
        }
        if parameters.attribute.contains('/') && parameters.producer.is_empty() {
            return wrong(format!(
                "attribute {:?} contains \"/\" but no producer is set",
                parameters.attribute
            ));
        }
        if parameters.algorithm.r#type != "threshold" {
            let kind = &parameters.algorithm.r#type;
            return wrong(format!("algorithm.type must be \"threshold\", got {kind:?}"));
        }
        let Some(Threshold { operator, value: threshold }) = parameters.algorithm.threshold else {
            return wrong("requires algorithm.threshold when algorithm.type is \"threshold\"".to_owned());
        };
        let Some(compare) = comparison(&operator) else {
            return wrong(format!(
                "threshold.operator must be one of \"LessThan\", \"LessThanOrEqual\", \"GreaterThan\", \
                 \"GreaterThanOrEqual\", \"Equal\", \"NotEqual\", got {operator:?}"
            ));
        };
        let passes_missing = match parameters.on_missing.as_str() {
            "" | "Pass" => true,
            "Fail" => false,
            other => return wrong(format!("onMissing must be \"Pass\" or \"Fail\", got {other:?}")),
        };
        Ok(Self {
            attribute: names.attribute(&parameters.attribute),
            compare,
            threshold,
            passes_missing,
            fallback_on_empty: parameters.fallback_on_empty,
        })
    }
}

/// Equality is exact, as upstream's.
#[expect(clippy::float_cmp, reason = "upstream compares floats for equality")]
fn comparison(operator: &str) -> Option<fn(f64, f64) -> bool> {
    Some(match operator {
        "LessThan" => |value, threshold| value < threshold,
        "LessThanOrEqual" => |value, threshold| value <= threshold,
        "GreaterThan" => |value, threshold| value > threshold,
        "GreaterThanOrEqual" => |value, threshold| value >= threshold,
        "Equal" => |value, threshold| value == threshold,
        "NotEqual" => |value, threshold| value != threshold,
        _ => return None,
    })
}

impl Filter for EndpointAttribute {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        let passes = |&endpoint: &u32| match context.endpoint(endpoint).attribute(self.attribute) {
            Some(value) => (self.compare)(value, self.threshold),
            None => self.passes_missing,
        };
        if !self.fallback_on_empty || candidates.iter().any(passes) {
            candidates.retain(passes);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    #[test]
    fn the_operator_decides_and_missing_values_pass_unless_told_otherwise() {
        let scene = Scene::of(&[Some(1.0), Some(2.0), Some(3.0), None], |state, value| {
            state.attributes = vec![value];
        });
        let kept = |operator: &str, on_missing: &str| {
            let threshold = json!({"operator": operator, "value": 2});
            let algorithm = json!({"type": "threshold", "threshold": threshold});
            let parameters = json!({"attribute": "x", "algorithm": algorithm, "onMissing": on_missing});
            scene.kept("endpoint-attribute-filter", &parameters)
        };
        let cases = [
            ("LessThan", [0].as_slice()),
            ("LessThanOrEqual", &[0, 1]),
            ("GreaterThan", &[2]),
            ("GreaterThanOrEqual", &[1, 2]),
            ("Equal", &[1]),
            ("NotEqual", &[0, 2]),
        ];
        for (operator, expected) in cases {
            assert_eq!(kept(operator, "Fail"), expected, "{operator}");
            assert_eq!(kept(operator, ""), [expected, &[3]].concat(), "{operator}");
        }
    }
}
