//! Figures by tenant, class or pool, for at most [`GROUPS_MAX`] of them.

use std::collections::BTreeMap;

use forerun_sim::request::{Outcome, Status};
use forerun_sim::time::Span;

use crate::histogram::{Counter, LatencyHistogram};
use crate::summary::{GroupSummary, share};

/// Groups reported by name. Each keeps three histograms, about a third of a megabyte at latencies of
/// 100 seconds, so the most that one grouping takes is bounded.
pub(crate) const GROUPS_MAX: usize = 512;

/// The name under which the groups beyond [`GROUPS_MAX`] are pooled.
pub(crate) const OTHERS: &str = "(others)";

/// Requests grouped by a small number: the first [`GROUPS_MAX`] groups met, and all others together.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Where the group of each key is in `groups`, plus one; zero when not yet met.
    places: Vec<u16>,
    /// The keys met, and their figures.
    groups: Vec<(u32, Group)>,
    others: Option<Box<Group>>,
}

/// Running figures of one group.
#[derive(Debug, Default)]
struct Group {
    arrived: u64,
    completed: u64,
    good: u64,
    prompt_tokens: u64,
    hit_tokens: u64,
    output_tokens: u64,
    ttft: LatencyHistogram<u32>,
    tpot: LatencyHistogram<u32>,
    e2e: LatencyHistogram<u32>,
}

impl Groups {
    /// Counts a request that ended in the group `key`.
    pub(crate) fn record(&mut self, key: u32, outcome: &Outcome, good: bool) {
        self.group(key).record(outcome, good);
    }

    fn group(&mut self, key: u32) -> &mut Group {
        let key_index = key as usize;
        if key_index >= self.places.len() {
            self.places.resize(key_index + 1, 0);
        }
        if self.places[key_index] == 0 {
            if self.groups.len() == GROUPS_MAX {
                return self.others.get_or_insert_default();
            }
            self.groups.push((key, Group::default()));
            self.places[key_index] = self.groups.len() as u16;
        }
        &mut self.groups[usize::from(self.places[key_index]) - 1].1
    }

    /// Whether some groups had to be pooled.
    pub(crate) fn pooled(&self) -> bool {
        self.others.is_some()
    }

    /// The figures of each group, by name.
    pub(crate) fn finish<'a>(&self, name: impl Fn(u32) -> &'a str) -> BTreeMap<String, GroupSummary> {
        let named = self.groups.iter().map(|(key, group)| (name(*key).to_owned(), group.summary()));
        let others = self.others.iter().map(|group| (OTHERS.to_owned(), group.summary()));
        named.chain(others).collect()
    }
}

impl Group {
    fn record(&mut self, outcome: &Outcome, good: bool) {
        self.arrived += 1;
        self.good += u64::from(good);
        self.output_tokens += u64::from(outcome.emitted);
        if outcome.scheduled.is_some() {
            self.prompt_tokens += u64::from(outcome.request.prompt.tokens());
            self.hit_tokens += u64::from(outcome.cached_tokens);
        }
        if outcome.status == Status::Completed {
            self.completed += 1;
            record_some(&mut self.ttft, outcome.ttft());
            record_some(&mut self.tpot, tpot(outcome));
            record_some(&mut self.e2e, outcome.e2e());
        }
    }

    fn summary(&self) -> GroupSummary {
        GroupSummary {
            arrived: self.arrived,
            completed: self.completed,
            good: self.good,
            attainment: share(self.good, self.arrived),
            ttft_ms: self.ttft.summary(),
            tpot_ms: self.tpot.summary(),
            e2e_ms: self.e2e.summary(),
            hit_rate: share(self.hit_tokens, self.prompt_tokens),
            output_tokens: self.output_tokens,
        }
    }
}

/// Records a value that may be absent.
pub(crate) fn record_some<C: Counter>(histogram: &mut LatencyHistogram<C>, value: Option<Span>) {
    if let Some(value) = value {
        histogram.record(value);
    }
}

/// TPOT to the nearest nanosecond.
pub(crate) fn tpot(outcome: &Outcome) -> Option<Span> {
    outcome.tpot_nanos().map(|nanos| Span::from_nanos(nanos.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::completed;

    #[test]
    fn groups_beyond_the_limit_are_pooled_and_none_is_lost() {
        let mut groups = Groups::default();
        let distinct = GROUPS_MAX as u32 + 3;
        for key in (0..distinct).chain(0..distinct) {
            groups.record(key, &completed(0, 100, 300, 11), true);
        }
        assert!(groups.pooled());
        let names: Vec<String> = (0..distinct).map(|key| format!("tenant-{key}")).collect();
        let summaries = groups.finish(|key| &names[key as usize]);
        assert_eq!(summaries.len(), GROUPS_MAX + 1);
        assert_eq!(summaries["tenant-511"].arrived, 2);
        assert_eq!(summaries[OTHERS].arrived, 6);
    }
}
