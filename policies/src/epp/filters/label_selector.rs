//! `label-selector-filter` (once `by-label-selector`): a Kubernetes label selector.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::epp::EndpointInfo;
use crate::epp::plugin::{Context, Filter, Notes, parameters};

/// Parameters of `label-selector-filter`: all conditions must hold.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expression {
    key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    operator: String,
    values: Vec<String>,
}

enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

/// Keeps endpoints that match. `NotIn` holds for an absent label. Source: llm-d-router filter/bylabel (selector),
/// Kubernetes' label selector semantics.
pub(super) struct LabelSelector {
    requirements: Vec<Requirement>,
    kept: Vec<bool>,
}

impl LabelSelector {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let Parameters { match_labels, match_expressions } = parameters(value)?;
        let equal = match_labels.into_iter().map(|(key, value)| Ok(Requirement::In(key, vec![value])));
        let requirements: Vec<_> =
            equal.chain(match_expressions.into_iter().map(requirement)).collect::<Result<_, String>>()?;
        for requirement in &requirements {
            check_key(requirement.key())?;
        }
        Ok(Self { requirements, kept: Vec::new() })
    }
}

fn requirement(expression: Expression) -> Result<Requirement, String> {
    let Expression { key, operator, values } = expression;
    let made: fn(String, Vec<String>) -> Requirement = match operator.as_str() {
        "In" => Requirement::In,
        "NotIn" => Requirement::NotIn,
        "Exists" => |key, _| Requirement::Exists(key),
        "DoesNotExist" => |key, _| Requirement::DoesNotExist(key),
        other => return Err(format!("{other:?} is not a valid label selector operator")),
    };
    if matches!(operator.as_str(), "In" | "NotIn") == values.is_empty() {
        return Err(if values.is_empty() {
            "values: for 'in', 'notin' operators, values set can't be empty".to_owned()
        } else {
            "values: values set must be empty for exists and does not exist".to_owned()
        });
    }
    Ok(made(key, values))
}

/// Kubernetes' syntax of a label key: an optional DNS prefix and a name.
fn check_key(key: &str) -> Result<(), String> {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if name.len() <= 63 && inner && edge(name.chars().next()) && edge(name.chars().next_back()) {
        return Ok(());
    }
    Err(format!(
        "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must \
         start and end with an alphanumeric character"
    ))
}

impl Requirement {
    fn key(&self) -> &str {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::DoesNotExist(key) => key,
        }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(self.key());
        match self {
            Self::In(_, values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(_, values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists(_) => value.is_some(),
            Self::DoesNotExist(_) => value.is_none(),
        }
    }
}

impl Filter for LabelSelector {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        self.kept.push(self.requirements.iter().all(|requirement| requirement.holds(&info.labels)));
    }

    fn filter(&mut self, _: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        candidates.retain(|&endpoint| self.kept[endpoint as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    #[test]
    fn operators_follow_kubernetes() {
        let scene = Scene::labelled("a", &[Some("1"), Some("2"), None]);
        let expression = |operator, values: &[&str]| json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]});
        let cases = [
            (json!({"matchLabels": {"a": "1"}}), [0].as_slice()),
            (expression("In", &["1", "2"]), &[0, 1]),
            (expression("NotIn", &["1"]), &[1, 2]),
            (expression("Exists", &[]), &[0, 1]),
            (expression("DoesNotExist", &[]), &[2]),
            (json!(null), &[0, 1, 2]),
        ];
        for (parameters, kept) in cases {
            assert_eq!(scene.kept("label-selector-filter", &parameters), kept, "{parameters}");
        }
    }

    #[test]
    fn selectors_that_kubernetes_refuses_are_refused() {
        for wrong in [
            json!({"matchExpressions": [{"key": "a", "operator": "Foo"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]}),
            json!({"matchLabels": {"a b": "1"}}),
        ] {
            assert!(LabelSelector::new(&wrong).is_err(), "{wrong}");
        }
    }
}
