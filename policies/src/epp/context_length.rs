//! Ranges of context lengths that endpoints are labelled with: `context-length-aware` scores and filters by them.

use serde::Deserialize;
use serde_json::Value;

use super::EndpointInfo;
use super::plugin::{Context, Filter, Notes, Scorer, parameters};

/// Parameters of `context-length-aware`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The label that holds "min-max", in tokens.
    label: String,
    /// Whether endpoints out of range are dropped as well.
    enable_filtering: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { label: "llm-d.ai/context-length-range".to_owned(), enable_filtering: false }
    }
}

#[derive(Clone, Copy)]
enum Range {
    Unlabelled,
    Malformed,
    Of { min: i64, max: i64 },
}

/// For a prompt of L tokens and an endpoint labelled min-max, W = max - min:
/// - in range: 0.3 + 0.7 * (0.7 / (1 + W / 10000) + 0.3 * (max - L) / W); 1 when W is 0;
/// - out of range by d: 0.3 / (1 + d / 1000);
/// - no label: 0.5; a malformed label: 0.
///
/// As a filter, with `enableFiltering`: keeps endpoints in range and those without a label.
/// Source: llm-d-router scorer/contextlengthaware.
pub(super) struct ContextLength {
    label: String,
    filters: bool,
    ranges: Vec<Range>,
}

impl ContextLength {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let Parameters { label, enable_filtering } = parameters(value)?;
        if label.is_empty() {
            return Err("invalid configuration for 'context-length-aware' plugin: 'label' must be specified"
                .to_owned());
        }
        Ok(Self { label, filters: enable_filtering, ranges: Vec::new() })
    }

    fn add(&mut self, info: &EndpointInfo) {
        let range = match info.labels.get(&self.label) {
            None => Range::Unlabelled,
            Some(text) => parse(text).unwrap_or(Range::Malformed),
        };
        self.ranges.push(range);
    }
}

/// "min-max" with min <= max; blanks around the numbers are allowed.
fn parse(text: &str) -> Option<Range> {
    let (min, max) = text.split_once('-')?;
    let (min, max) = (min.trim().parse().ok()?, max.trim().parse().ok()?);
    (!text.contains("--") && min <= max).then_some(Range::Of { min, max })
}

fn rate(range: Range, length: i64) -> f64 {
    let (min, max) = match range {
        Range::Unlabelled => return 0.5,
        Range::Malformed => return 0.0,
        Range::Of { min, max } => (min, max),
    };
    if length < min || length > max {
        let distance = if length > max { length - max } else { min - length };
        return 0.3 / (1.0 + distance as f64 / 1000.0);
    }
    if max == min {
        return 1.0;
    }
    let width = (max - min) as f64;
    let fit = 0.7 * (1.0 / (1.0 + width / 10000.0)) + 0.3 * ((max - length) as f64 / width);
    0.3 + fit * (1.0 - 0.3)
}

impl Scorer for ContextLength {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        self.add(info);
    }

    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let length = context.request.prompt_tokens() as i64;
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = rate(self.ranges[endpoint as usize], length);
        }
    }
}

impl Filter for ContextLength {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        self.add(info);
    }

    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        if !self.filters {
            return;
        }
        let length = context.request.prompt_tokens() as i64;
        candidates.retain(|&endpoint| match self.ranges[endpoint as usize] {
            Range::Unlabelled => true,
            Range::Malformed => false,
            Range::Of { min, max } => (min..=max).contains(&length),
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    #[test]
    fn narrow_ranges_that_fit_score_best() {
        let labels = [Some("0-2048"), Some("100-100"), Some("9-1"), Some("1-2-3"), Some("x"), Some(""), None];
        let scene = Scene::labelled("llm-d.ai/context-length-range", &labels).tokens(100);
        let scores = scene.scores("context-length-aware", &json!(null));
        let wide = 0.3 + (0.7 * (1.0 / (1.0 + 2048.0 / 10000.0)) + 0.3 * (1948.0 / 2048.0)) * (1.0 - 0.3);
        assert_eq!(scores, [wide, 1.0, 0.0, 0.0, 0.0, 0.0, 0.5]);
        let far = Scene::labelled("llm-d.ai/context-length-range", &labels[1..2]).tokens(1100);
        assert_eq!(far.scores("context-length-aware", &json!(null)), [0.15]);
    }

    #[test]
    fn the_filter_keeps_what_is_in_range_or_unlabelled() {
        let labels = [Some(" 0 - 2048 "), Some("2048-4096"), Some("5-6"), Some("junk"), None];
        let scene = Scene::labelled("r", &labels).tokens(2048);
        let kept = |on| scene.kept("context-length-aware", &json!({"label": "r", "enableFiltering": on}));
        assert_eq!(kept(true), [0, 1, 4]);
        assert_eq!(kept(false), [0, 1, 2, 3, 4]);
    }
}
