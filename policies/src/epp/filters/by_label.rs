//! `by-label`, and the role filters made of it: `decode-filter`, `prefill-filter`, `encode-filter`.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::EndpointInfo;
use crate::epp::plugin::{Context, Filter, Notes, parameters};

/// The label that says what an endpoint does.
pub const ROLE_LABEL: &str = "llm-d.ai/role";

/// Values of [`ROLE_LABEL`] that `prefill-filter` keeps. Source: llm-d-router filter/bylabel.
pub const PREFILL_ROLES: [&str; 5] =
    ["prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"];

/// Parameters of `by-label`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The label; required.
    label: String,
    /// Values that are kept; may be empty only with `allowsNoLabel`.
    valid_values: Vec<String>,
    /// Whether endpoints without the label are kept.
    allows_no_label: bool,
}

/// Keeps endpoints whose label has one of some values. An absent label also counts as the empty value.
/// Source: llm-d-router filter/bylabel.
pub(super) struct ByLabel {
    label: String,
    valid: Vec<String>,
    allows_no_label: bool,
    kept: Vec<bool>,
}

impl ByLabel {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let Parameters { label, valid_values, allows_no_label } = parameters(value)?;
        let wrong = |reason: &str| Err(format!("invalid configuration for 'by-label' filter: {reason}"));
        if label.is_empty() {
            return wrong("'label' must be specified");
        }
        if valid_values.is_empty() && !allows_no_label {
            return wrong("either 'validValues' must be non-empty or 'allowsNoLabel' must be true");
        }
        Ok(Self { label, valid: valid_values, allows_no_label, kept: Vec::new() })
    }

    /// Endpoints that decode. Those without a role do.
    pub(super) fn decode() -> Self {
        Self::role(&["decode", "prefill-decode", "both", "encode-prefill-decode"], true)
    }

    /// Endpoints that prefill. Those without a role do not.
    pub(super) fn prefill() -> Self {
        Self::role(&PREFILL_ROLES, false)
    }

    /// Endpoints that encode images. Those without a role do not.
    pub(super) fn encode() -> Self {
        Self::role(&["encode", "encode-prefill", "encode-prefill-decode"], false)
    }

    fn role(roles: &[&str], allows_no_label: bool) -> Self {
        let valid = roles.iter().map(|&role| role.to_owned()).collect();
        Self { label: ROLE_LABEL.to_owned(), valid, allows_no_label, kept: Vec::new() }
    }
}

impl Filter for ByLabel {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        let value = info.labels.get(&self.label);
        let allowed = self.allows_no_label && value.is_none();
        self.kept.push(allowed || self.valid.iter().any(|valid| valid == value.map_or("", String::as_str)));
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
    fn each_role_filter_keeps_its_roles_and_only_decode_takes_the_unlabelled() {
        let roles =
            [Some("decode"), Some("prefill"), Some("encode"), Some("both"), Some("Decode"), Some(""), None];
        let scene = Scene::labelled(ROLE_LABEL, &roles);
        for (kind, kept) in
            [("decode-filter", [0, 3, 6].as_slice()), ("prefill-filter", &[1, 3]), ("encode-filter", &[2])]
        {
            assert_eq!(scene.kept(kind, &json!(null)), kept, "{kind}");
        }
    }

    #[test]
    fn an_absent_label_counts_as_empty_when_that_is_a_valid_value() {
        let scene = Scene::labelled("a", &[Some("1"), Some(""), None]);
        assert_eq!(scene.kept("by-label", &json!({"label": "a", "validValues": ["", "2"]})), [1, 2]);
        assert_eq!(scene.kept("by-label", &json!({"label": "a", "allowsNoLabel": true})), [2]);
    }
}
