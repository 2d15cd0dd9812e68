//! `session-affinity-filter`: keeps the endpoint that the session is bound to.

use serde_json::Value;

use crate::epp::EndpointInfo;
use crate::epp::plugin::{Context, Dispatch, Filter, Names, Notes};
use crate::epp::session::Affinity;

/// Keeps the bound endpoint alone when it is a candidate, else all. Parameters and binding: [`Affinity`].
/// Source: llm-d-router filter/sessionaffinity.
pub(super) struct SessionAffinity(Affinity);

impl SessionAffinity {
    pub(super) fn new(value: &Value, names: &Names) -> Result<Self, String> {
        Affinity::new("filter", value, names).map(Self)
    }
}

impl Filter for SessionAffinity {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        self.0.add_endpoint(info);
    }

    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, notes: &mut Notes) {
        if let Some(bound) = self.0.bound(context, candidates, notes) {
            candidates.clear();
            candidates.push(bound);
        }
    }

    fn pre_request(&mut self, dispatch: &Dispatch<'_>) {
        self.0.bind(dispatch);
    }
}
