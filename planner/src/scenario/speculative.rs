//! `speculative:`: a draft that guesses tokens ahead.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Speculative decoding in every pool (not golden-tested).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeculativeSpec {
    /// Guesses for each decode in each step: vLLM's `num_speculative_tokens`.
    pub tokens: u32,
    /// Probability that a guess is right, given that those before it are.
    pub acceptance: f64,
    /// Who guesses (eagle): `eagle`, a head of one layer; `ngram`, text of the prompt, in no time; or a model of the catalog
    /// or a config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
}
