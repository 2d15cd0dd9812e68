//! When each replica has something to do: the earliest of their next events, kept as they change.
//!
//! Every replica has at most one pending event. Ties of time and rank are won by the lower index, so that the
//! order does not depend on when an event was announced.

use crate::event::Rank;
use crate::request::ReplicaId;
use crate::time::Time;

/// Nothing is pending.
const NEVER: u64 = Time::NEVER.as_nanos();

/// How many times are compared at once.
const GROUP: usize = 8;

/// The next event of every replica.
#[derive(Debug)]
pub(crate) struct Agenda {
    /// When steps end, in groups; then the earliest of each group, in groups; and so on, up to a single group.
    groups: Vec<Group>,
    /// Where the groups of each level begin.
    levels: Vec<usize>,
    /// The earliest step's end.
    first: (u64, u32),
    /// Idle replicas that wake, in order: few, and soon over.
    wakes: Vec<(Time, ReplicaId)>,
}

/// Times and whose they are, in order of the replicas.
#[derive(Clone, Copy, Debug)]
struct Group {
    times: [u64; GROUP],
    replicas: [u32; GROUP],
}

impl Group {
    const EMPTY: Self = Self { times: [NEVER; GROUP], replicas: [0; GROUP] };

    /// The earliest, and of equals the first.
    #[inline]
    fn first(&self) -> (u64, u32) {
        let (mut earliest, mut whose) = (self.times[0], self.replicas[0]);
        for place in 1..GROUP {
            let sooner = self.times[place] < earliest;
            whose = if sooner { self.replicas[place] } else { whose };
            earliest = earliest.min(self.times[place]);
        }
        (earliest, whose)
    }
}

impl Agenda {
    /// An agenda for so many replicas, all without an event.
    pub(crate) fn new(replicas: usize) -> Self {
        let (mut levels, mut groups, mut size) = (Vec::new(), 0, replicas.max(1));
        while size > 1 || levels.is_empty() {
            size = size.div_ceil(GROUP);
            levels.push(groups);
            groups += size;
        }
        Self { groups: vec![Group::EMPTY; groups], levels, first: (NEVER, 0), wakes: Vec::new() }
    }

    /// The next event of `replica`: a step that ends, or a wake.
    pub(crate) fn set(&mut self, replica: ReplicaId, event: Option<(Time, Rank)>) {
        if !self.wakes.is_empty() {
            self.wakes.retain(|&(_, other)| other != replica);
        }
        let time = match event {
            Some((time, Rank::Wake)) => {
                let place = self.wakes.partition_point(|&other| other < (time, replica));
                self.wakes.insert(place, (time, replica));
                NEVER
            }
            Some((time, _)) => time.as_nanos(),
            None => NEVER,
        };
        let (mut place, mut first) = (replica.0 as usize, (time, replica.0));
        for &level in &self.levels {
            let group = &mut self.groups[level + place / GROUP];
            (group.times[place % GROUP], group.replicas[place % GROUP]) = first;
            first = group.first();
            place /= GROUP;
        }
        self.first = first;
    }

    /// The earliest event of all.
    pub(crate) fn first(&self) -> Option<(Time, Rank, ReplicaId)> {
        let (earliest, replica) = self.first;
        match self.wakes.first() {
            Some(&(time, replica)) if time.as_nanos() < earliest => Some((time, Rank::Wake, replica)),
            _ if earliest == NEVER => None,
            _ => Some((Time::from_nanos(earliest), Rank::StepDone, ReplicaId(replica))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_earliest_event_is_first_and_ties_go_by_rank_and_index() {
        let mut agenda = Agenda::new(5);
        assert_eq!(agenda.first(), None);
        let at = |nanos| Time::from_nanos(nanos);
        agenda.set(ReplicaId(4), Some((at(7), Rank::StepDone)));
        agenda.set(ReplicaId(1), Some((at(7), Rank::Wake)));
        agenda.set(ReplicaId(2), Some((at(7), Rank::StepDone)));
        assert_eq!(agenda.first(), Some((at(7), Rank::StepDone, ReplicaId(2))));
        agenda.set(ReplicaId(2), None);
        agenda.set(ReplicaId(4), Some((at(8), Rank::StepDone)));
        assert_eq!(agenda.first(), Some((at(7), Rank::Wake, ReplicaId(1))));
    }

    #[test]
    fn a_single_replica_has_its_event() {
        let mut agenda = Agenda::new(1);
        agenda.set(ReplicaId(0), Some((Time::ZERO, Rank::Wake)));
        assert_eq!(agenda.first(), Some((Time::ZERO, Rank::Wake, ReplicaId(0))));
        agenda.set(ReplicaId(0), None);
        assert_eq!(agenda.first(), None);
    }

    proptest! {
        #[test]
        fn the_first_is_the_least_of_all_that_are_pending(
            replicas in 1u32..600,
            changes in prop::collection::vec((any::<u32>(), 0u64..50, 0u8..4), 1..300),
        ) {
            let mut agenda = Agenda::new(replicas as usize);
            let mut pending = std::collections::BTreeMap::new();
            for (replica, nanos, kind) in changes {
                let replica = ReplicaId(replica % replicas);
                let rank = if kind == 1 { Rank::Wake } else { Rank::StepDone };
                let event = (kind > 0).then_some((Time::from_nanos(nanos), rank));
                agenda.set(replica, event);
                pending.insert(replica, event);
                let all = pending.iter().filter_map(|(&id, event)| event.map(|(at, rank)| (at, rank, id)));
                prop_assert_eq!(agenda.first(), all.min());
            }
        }
    }
}
