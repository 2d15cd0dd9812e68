//! Deciders: whether a request is prefilled elsewhere than it is decoded.

mod prefix_based;

use serde_json::Value;

use super::plugin::{Context, Names};
use prefix_based::PrefixBased;

/// A decider of the disaggregation handler.
pub struct Decider(Rule);

enum Rule {
    Always,
    PrefixBased(PrefixBased),
    /// `always-disagg-multimodal-decider`: requests with images, which no simulated request has.
    Multimodal,
}

impl Decider {
    /// Whether the request is disaggregated, when `decode` is to decode it.
    #[must_use]
    pub fn disaggregates(&self, context: &Context<'_>, decode: u32) -> bool {
        match &self.0 {
            Rule::Always => true,
            Rule::PrefixBased(rule) => rule.disaggregates(context, decode),
            Rule::Multimodal => false,
        }
    }
}

/// The decider of type `kind` with these parameters; `None` when there is none of that type.
///
/// # Errors
/// When the parameters are not valid.
pub fn make(kind: &str, parameters: &Value, names: &mut Names) -> Result<Option<Decider>, String> {
    Ok(Some(Decider(match kind {
        "always-disagg-pd-decider" => Rule::Always,
        "prefix-based-pd-decider" => Rule::PrefixBased(PrefixBased::new(parameters, names)?),
        "always-disagg-multimodal-decider" => Rule::Multimodal,
        _ => return Ok(None),
    })))
}
