//! `session-affinity-scorer`: the endpoint that the session is bound to scores 1, the others 0.

use serde_json::Value;

use crate::epp::EndpointInfo;
use crate::epp::plugin::{Context, Dispatch, Names, Notes, Scorer};
use crate::epp::session::Affinity;

/// 1 for the bound endpoint, 0 for all others. Parameters and binding: [`Affinity`].
/// Source: llm-d-router scorer/sessionaffinity.
pub(super) struct SessionAffinity(Affinity);

impl SessionAffinity {
    pub(super) fn new(value: &Value, names: &Names) -> Result<Self, String> {
        Affinity::new("scorer", value, names).map(Self)
    }
}

impl Scorer for SessionAffinity {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        self.0.add_endpoint(info);
    }

    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], notes: &mut Notes) {
        if let Some(bound) = self.0.bound(context, candidates, notes) {
            for (score, &endpoint) in scores.iter_mut().zip(candidates) {
                *score = f64::from(u8::from(endpoint == bound));
            }
        }
    }

    fn pre_request(&mut self, dispatch: &Dispatch<'_>) {
        self.0.bind(dispatch);
    }
}
