//! `header-label-affinity-scorer`: the endpoints whose label equals a header of the request.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::EndpointInfo;
use crate::epp::plugin::{Context, Notes, Scorer, parameters};

/// Parameters of `header-label-affinity-scorer`; both are required.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    header_name: String,
    label_key: String,
}

/// 1 when the label's value equals the header's, else 0; 0 for all without the header.
/// Source: llm-d-router scorer/headerlabelaffinity.
pub(super) struct HeaderLabel {
    header: String,
    label: String,
    values: Vec<String>,
}

impl HeaderLabel {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Err("header-label-affinity-scorer requires parameters".to_owned());
        }
        let Parameters { header_name, label_key } = parameters(value)?;
        for (name, value) in [("headerName", &header_name), ("labelKey", &label_key)] {
            if value.is_empty() {
                return Err(format!("header-label-affinity-scorer {name} is required"));
            }
        }
        Ok(Self { header: header_name.to_lowercase(), label: label_key, values: Vec::new() })
    }
}

impl Scorer for HeaderLabel {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        self.values.push(info.labels.get(&self.label).cloned().unwrap_or_default());
    }

    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let Some(wanted) = context.request.header(&self.header).filter(|value| !value.is_empty()) else {
            return;
        };
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = f64::from(u8::from(self.values[endpoint as usize] == wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    #[test]
    fn only_an_equal_label_scores() {
        let mut scene = Scene::labelled("zone", &[Some("a"), Some("b"), Some(""), None]);
        let parameters = json!({"headerName": "X-Zone", "labelKey": "zone"});
        for (header, scores) in [("a", [1.0, 0.0, 0.0, 0.0]), ("", [0.0; 4]), ("c", [0.0; 4])] {
            scene.headers = vec![("x-zone", header)];
            assert_eq!(scene.scores("header-label-affinity-scorer", &parameters), scores, "{header}");
        }
    }
}
