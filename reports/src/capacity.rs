//! How much context the KV memory of a fleet has room for, tier by tier.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::{Cell, KeyValue};

/// The KV memory of a replica of one pool.
///
/// A request runs with all of its KV on the GPUs: tiers below them make no longer context possible, they keep more
/// sessions. Each keeps copies of what those above it have, so that a replica keeps as many sessions as its largest tier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PoolCapacity {
    /// The pool.
    pub pool: String,
    /// The longest prompt and answer that a replica serves: what its KV memory holds, at most `max_model_len`.
    pub longest_context_tokens: u64,
    /// Tokens of the sessions that are counted: the mean of the completed requests' prompts and answers. Absent without
    /// any.
    pub session_tokens: Option<u64>,
    /// The tiers, from the GPUs down.
    pub tiers: Vec<TierCapacity>,
}

/// One tier of a replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TierCapacity {
    /// gpu, cpu, disk, or shared: one for all replicas together.
    pub tier: String,
    /// Tokens that it holds; absent when it has no limit.
    pub tokens: Option<u64>,
    /// Sessions whose KV it holds; absent without a limit, or without sessions.
    pub sessions: Option<u64>,
    /// Sessions whose KV is kept with this tier and those above it; absent likewise.
    pub resident_sessions: Option<u64>,
}

impl PoolCapacity {
    /// The capacity of tiers of so many tokens, from the GPUs down, which keep blocks or chunks of so many tokens.
    #[must_use]
    pub fn new(
        pool: &str,
        longest_context_tokens: u64,
        session_tokens: Option<u64>,
        tiers: &[(&str, Option<u64>, u64)],
    ) -> Self {
        let mut resident = Some(0);
        let tier = |&(tier, tokens, piece): &(&str, Option<u64>, u64)| {
            let each = session_tokens.map(|length| length.next_multiple_of(piece.max(1)).max(1));
            let sessions = tokens.zip(each).map(|(tokens, each)| tokens / each);
            resident = resident.zip(sessions).map(|(above, own)| above.max(own));
            TierCapacity { tier: tier.to_owned(), tokens, sessions, resident_sessions: resident }
        };
        let tiers = tiers.iter().map(tier).collect();
        Self { pool: pool.to_owned(), longest_context_tokens, session_tokens, tiers }
    }

    pub(crate) fn line(&self) -> KeyValue {
        let mut cells = vec![Cell::count(self.longest_context_tokens, "tokens of context at most")];
        if let (Some(length), Some(gpu)) = (self.session_tokens, self.tiers.first()) {
            cells.push(Cell::count(
                gpu.sessions.unwrap_or(0),
                &format!("sessions of {length} tokens on each {} replica", self.pool),
            ));
        }
        for tier in self.tiers.iter().skip(1) {
            match tier.resident_sessions {
                Some(sessions) => cells.push(Cell::count(sessions, &format!("with {}", tier.tier))),
                None => cells.push(Cell::text(format!("any number with {}", tier.tier))),
            }
        }
        KeyValue::new("KV room", cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(session_tokens: Option<u64>, tiers: &[(&str, Option<u64>, u64)]) -> Vec<Option<u64>> {
        let capacity = PoolCapacity::new("pool", 1000, session_tokens, tiers);
        capacity.tiers.iter().map(|tier| tier.resident_sessions).collect()
    }

    #[test]
    fn sessions_take_whole_blocks_and_the_largest_tier_counts() {
        let tiers = [("gpu", Some(1000), 16), ("cpu", Some(5000), 64), ("disk", Some(100), 64)];
        assert_eq!(resident(Some(100), &tiers), [Some(8), Some(39), Some(39)], "112 and 128 tokens each");
    }

    #[test]
    fn a_tier_without_a_limit_keeps_them_all() {
        let tiers = [("gpu", Some(1000), 16), ("shared", None, 16)];
        assert_eq!(resident(Some(100), &tiers), [Some(8), None]);
        assert_eq!(resident(None, &tiers), [None, None], "no session is known");
    }
}
