//! The longest context among the decodes in lockstep.
//!
//! All members gain one token in every step, so which of two is the longer never changes: each is known by its
//! context less the number of the step, and by the last step that computes it. Those that have left stay in the
//! heap until they come to its top, or outnumber those that have not.

use std::collections::BinaryHeap;

/// Members that have left and are not worth a tidying yet.
const LEFT_MIN: usize = 64;

/// The members by their length.
#[derive(Clone, Debug, Default)]
pub(super) struct Longest {
    /// Context in a step less the step's number; the last step.
    members: BinaryHeap<(i64, u64)>,
}

impl Longest {
    /// A member whose context in step `s` is `anchored + s`, up to step `last`.
    pub(super) fn join(&mut self, anchored: i64, last: u64) {
        self.members.push((anchored, last));
    }

    /// Forgets those that step `step` no longer computes, if it matters; it computes `members` of them.
    pub(super) fn forget_before(&mut self, step: u64, members: u32) {
        while self.members.peek().is_some_and(|&(_, last)| last < step) {
            self.members.pop();
        }
        if self.members.len() > 2 * members as usize + LEFT_MIN {
            self.members.retain(|&(_, last)| last >= step);
        }
    }

    /// Context of the longest in step `step`; 0 without members.
    pub(super) fn context(&self, step: u64) -> u64 {
        self.members.peek().map_or(0, |&(anchored, _)| (anchored + step as i64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_longest_is_the_longest_of_those_that_stay(
            joins in prop::collection::vec((0u64..400, 1u32..2000, 0u64..300), 1..200),
        ) {
            let mut longest = Longest::default();
            for step in 0..800 {
                for &(_, base, stays) in joins.iter().filter(|join| join.0 == step) {
                    longest.join(i64::from(base) - step as i64, step + stays);
                }
                let there = joins.iter().filter(|join| join.0 <= step && step <= join.0 + join.2);
                longest.forget_before(step, there.clone().count() as u32);
                let most = there.clone().map(|join| u64::from(join.1) + step - join.0).max().unwrap_or(0);
                prop_assert_eq!(longest.context(step), most);
                prop_assert!(longest.members.len() <= 2 * there.count() + LEFT_MIN);
            }
        }
    }
}
