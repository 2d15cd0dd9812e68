//! From `speculative:` to what a replica needs of it.

use std::path::Path;

use forerun_sim::catalog::{Model, WeightType};
use forerun_sim::engine::speculation::Speculation;

use crate::error::InputError;
use crate::hardware::find_model;
use crate::scenario::Scenario;

/// Vocabulary of the published EAGLE-3 heads (`draft_vocab_size`, Li et al. 2025; vLLM's speculators): the frequent tokens.
const EAGLE_VOCABULARY: u32 = 32_000;

/// A replica's draft.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) speculation: Speculation,
    /// What computes the guesses; nothing does when they are found in the text.
    pub(crate) model: Option<Model>,
    name: String,
}

impl Draft {
    /// What the scenario says of the draft of `model`.
    ///
    /// # Errors
    /// When a value is out of range, or the draft is no model.
    pub(crate) fn of(scenario: &Scenario, model: &Model, base: &Path) -> Result<Option<Self>, InputError> {
        let Some(spec) = &scenario.speculative else { return Ok(None) };
        let name = spec.draft.clone().unwrap_or_else(|| "eagle".to_owned());
        let draft = match name.as_str() {
            "eagle" => Some(eagle_head(model)),
            "ngram" => None,
            other => Some(find_model(other, base, None).map_err(|e| e.at("speculative.draft"))?),
        };
        let speculation = Speculation {
            tokens: spec.tokens,
            acceptance: spec.acceptance,
            lookahead: if draft.is_some() { spec.tokens } else { 0 },
            draft_slots: u32::from(draft.is_some() && name != "eagle"),
            seed: 0,
        };
        speculation.check().map_err(InputError::new)?;
        Ok(Some(Self { speculation, model: draft, name }))
    }

    /// Whether vLLM schedules asynchronously with it, given what the scenario says: it does not where guesses are found
    /// in the text.
    ///
    /// # Errors
    /// When the scenario asks for what vLLM refuses.
    pub(crate) fn async_scheduling(&self, asked: Option<bool>) -> Result<bool, InputError> {
        match (&self.model, asked) {
            (None, Some(true)) => Err(InputError::new(
                "`async_scheduling: true` and `speculative.draft: ngram` exclude each other in vLLM: remove one",
            )),
            (None, _) => Ok(false),
            (Some(_), asked) => Ok(asked.unwrap_or(true)),
        }
    }

    /// In words.
    pub(crate) fn about(&self) -> String {
        let Speculation { tokens, acceptance, .. } = self.speculation;
        format!(
            "speculative decoding: {tokens} guesses by {}, each right with probability {acceptance}: {:.2} tokens per step and decode (not golden-tested)",
            self.name,
            self.speculation.mean_emitted()
        )
    }
}

/// An EAGLE head: a dense layer as wide as the model's, in 16 bits, with an LM head of its own; the embedding is the
/// model's. Of a mixture, as wide as the experts that a token passes.
fn eagle_head(model: &Model) -> Model {
    let mut head = model.clone();
    let shape = &mut head.shape;
    shape.mlp = match shape.experts {
        Some(experts) => experts.active * experts.width + experts.shared_width,
        None => shape.mlp,
    };
    shape.layers = 1;
    shape.dense_layers = 1;
    shape.experts = None;
    shape.window = None;
    shape.tied_embeddings = true;
    shape.vocabulary = shape.vocabulary.min(EAGLE_VOCABULARY);
    head.with_weights(WeightType::Bf16)
}

#[cfg(test)]
mod tests {
    use forerun_sim::catalog;

    use super::*;

    #[test]
    fn an_eagle_head_is_a_layer_and_a_small_lm_head() {
        let model = catalog::model("llama-3.1-8b").expect("in the catalog");
        let layer = 4096 * (4096 + 1024 + 1024 + 4096) + 3 * 4096 * 14_336;
        assert_eq!(eagle_head(model).parameters(), layer + 32_000 * 4096 + 3 * 4096);
    }

    #[test]
    fn of_a_mixture_it_is_dense() {
        let model = catalog::model("gpt-oss-120b").expect("in the catalog");
        let head = eagle_head(model).shape;
        assert_eq!((head.layers, head.dense_layers, head.experts, head.window), (1, 1, None, None));
        assert!(head.mlp > 0);
    }
}
