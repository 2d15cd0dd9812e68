//! `prefix-based-pd-decider`: prefill elsewhere when enough of the prompt is not cached here.

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Names, parameters};

/// Parameters of `prefix-based-pd-decider`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Tokens that must not be cached; 0 never disaggregates.
    non_cached_tokens: i64,
    /// Prompts below this length never are.
    prompt_tokens: i64,
    /// The producer of the matches; empty for the approximate one.
    prefix_match_info_producer_name: String,
}

/// Disaggregates when prompt >= promptTokens and prompt - cached blocks (unweighted) * block >= nonCachedTokens. Never
/// for a prompt below nonCachedTokens, or without match information. Source: llm-d-router profilehandler/disagg.
pub(super) struct PrefixBased {
    non_cached_tokens: i64,
    prompt_tokens: i64,
    producer: usize,
}

impl PrefixBased {
    pub(super) fn new(value: &Value, names: &mut Names) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        for (name, tokens) in
            [("nonCachedTokens", parameters.non_cached_tokens), ("promptTokens", parameters.prompt_tokens)]
        {
            if tokens < 0 {
                return Err(format!(
                    "failed to create prefix-based-pd-decider plugin: {name} parameter of prefix disaggregation \
                     decider cannot be negative"
                ));
            }
        }
        Ok(Self {
            non_cached_tokens: parameters.non_cached_tokens,
            prompt_tokens: parameters.prompt_tokens,
            producer: names.producer(&parameters.prefix_match_info_producer_name),
        })
    }

    pub(super) fn disaggregates(&self, context: &Context<'_>, decode: u32) -> bool {
        let prompt = context.request.prompt_tokens() as i64;
        if self.non_cached_tokens == 0 || prompt < self.prompt_tokens || prompt < self.non_cached_tokens {
            return false;
        }
        context.prefix(self.producer, decode).is_some_and(|prefix| {
            let cached = i64::from(prefix.cached_blocks) * i64::from(prefix.block_tokens);
            prompt - cached >= self.non_cached_tokens
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::plugin::testing::Scene;
    use crate::epp::prefix::PrefixMatch;
    use serde_json::json;

    fn decides(non_cached: i64, prompt_min: i64, prompt: u32, cached_blocks: Option<u32>) -> bool {
        let parameters = json!({"nonCachedTokens": non_cached, "promptTokens": prompt_min});
        let rule = PrefixBased::new(&parameters, &mut Names::default()).unwrap();
        let matched = |cached_blocks| PrefixMatch {
            matched_blocks: 0,
            cached_blocks,
            total_blocks: 100,
            block_tokens: 16,
        };
        let mut scene = Scene::of(&[()], |_, ()| ()).tokens(prompt);
        scene.matches = vec![vec![cached_blocks.map(matched)]];
        scene.with(|context| rule.disaggregates(context, 0))
    }

    #[test]
    fn enough_tokens_must_be_missing_and_known_to_be() {
        let cases = [
            ((16, 0, 32, Some(1)), true),
            ((17, 0, 32, Some(1)), false),
            ((0, 0, 1000, Some(0)), false),
            ((16, 100, 99, Some(0)), false),
            ((16, 100, 100, Some(0)), true),
            ((200, 0, 100, Some(0)), false),
            ((16, 0, 1000, None), false),
        ];
        for ((non_cached, prompt_min, prompt, cached), expected) in cases {
            assert_eq!(decides(non_cached, prompt_min, prompt, cached), expected, "{prompt} {cached:?}");
        }
    }
}
