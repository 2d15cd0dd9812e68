//! `prefix-cache-scorer`: more of the prompt in the cache is better.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Names, Notes, Scorer, parameters};
use crate::epp::prefix::PrefixMatch;

/// Parameters of `prefix-cache-scorer`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The producer whose matches count; empty for the approximate one.
    prefix_match_info_producer_name: String,
    /// Weight w of the match's length, 0 to 1; the rest weighs its share.
    match_length_weight: f64,
    /// Length S in tokens at which a match counts in full.
    match_length_scale_tokens: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            match_length_weight: 0.0,
            match_length_scale_tokens: 8192,
        }
    }
}

/// score = w * min(1, matched tokens / S)^2 + (1 - w) * matched blocks / blocks; 0 without a match.
/// Source: llm-d-router scorer/prefix.
pub(super) struct PrefixCache {
    producer: usize,
    length_weight: f64,
    scale_tokens: f64,
}

impl PrefixCache {
    pub(super) fn new(value: &Value, names: &mut Names) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let weight = parameters.match_length_weight;
        if !(0.0..=1.0).contains(&weight) {
            return Err(format!("matchLengthWeight must be between 0.0 and 1.0, got {weight:.6}"));
        }
        let scale = parameters.match_length_scale_tokens;
        if weight > 0.0 && scale <= 0 {
            return Err(format!(
                "matchLengthScaleTokens must be greater than 0 when matchLengthWeight is greater than 0, got {scale}"
            ));
        }
        let producer = names.producer(&parameters.prefix_match_info_producer_name);
        Ok(Self { producer, length_weight: weight, scale_tokens: scale as f64 })
    }

    fn rate(&self, prefix: PrefixMatch) -> f64 {
        if prefix.total_blocks == 0 {
            return 0.0;
        }
        let mut length = 0.0;
        if self.length_weight > 0.0 && prefix.block_tokens > 0 {
            let tokens = f64::from(prefix.matched_blocks) * f64::from(prefix.block_tokens);
            let reach = (tokens / self.scale_tokens).min(1.0);
            length = reach * reach;
        }
        self.length_weight * length + (1.0 - self.length_weight) * prefix.share()
    }
}

impl Scorer for PrefixCache {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = context.prefix(self.producer, endpoint).map_or(0.0, |prefix| self.rate(prefix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    fn scene() -> Scene {
        let matched = |matched_blocks, total_blocks| {
            Some(PrefixMatch {
                matched_blocks,
                cached_blocks: matched_blocks,
                total_blocks,
                block_tokens: 64,
            })
        };
        let mut scene = Scene::of(&[(); 4], |_, ()| ());
        scene.matches = vec![vec![matched(2, 4), matched(4, 4), matched(0, 0), None]];
        scene
    }

    #[test]
    fn the_score_is_the_matched_share() {
        assert_eq!(scene().scores("prefix-cache-scorer", &json!(null)), [0.5, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_length_weight_squares_the_matched_length() {
        let parameters = json!({"matchLengthWeight": 0.5, "matchLengthScaleTokens": 256});
        let half = 0.5 * 0.25 + 0.5 * 0.5;
        assert_eq!(scene().scores("prefix-cache-scorer", &parameters), [half, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn a_scale_of_nothing_matters_only_with_a_length_weight() {
        let make = |value| PrefixCache::new(&value, &mut Names::default()).err();
        assert!(make(json!({"matchLengthScaleTokens": 0})).is_none());
        assert!(make(json!({"matchLengthScaleTokens": 0, "matchLengthWeight": 0.1})).is_some());
        assert!(make(json!({"matchLengthWeight": 1.5})).unwrap().contains("got 1.500000"));
        assert!(make(json!({"maxPrefixBlocksToMatch": 256})).unwrap().contains("unknown field"));
    }
}
