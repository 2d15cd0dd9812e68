//! When each replica has something to do: a tournament over their next events.
//!
//! Every replica has at most one pending event. Ties of time and rank are won by the lower index, so that the
//! order does not depend on when an event was announced.

use crate::event::Rank;
use crate::request::ReplicaId;
use crate::time::Time;

/// Time and rank of a replica's next event; `NEVER` when it has none.
type Key = (Time, Rank);

const NONE: Key = (Time::NEVER, Rank::Tick);

/// The next event of every replica.
#[derive(Debug)]
pub(crate) struct Agenda {
    keys: Vec<Key>,
    /// Winner of each match: `winners[1]` of all, `winners[n]` of `winners[2n]` and `winners[2n + 1]`.
    winners: Vec<u32>,
    leaves: usize,
}

impl Agenda {
    /// An agenda for so many replicas, all without an event.
    pub(crate) fn new(replicas: usize) -> Self {
        let leaves = replicas.next_power_of_two().max(2);
        let mut winners = vec![0; 2 * leaves];
        for (place, winner) in winners[leaves..].iter_mut().enumerate() {
            *winner = place as u32;
        }
        let mut agenda = Self { keys: vec![NONE; leaves], winners, leaves };
        for node in (1..leaves).rev() {
            agenda.play(node);
        }
        agenda
    }

    /// The next event of `replica`.
    pub(crate) fn set(&mut self, replica: ReplicaId, event: Option<Key>) {
        self.keys[replica.0 as usize] = event.unwrap_or(NONE);
        let mut node = (self.leaves + replica.0 as usize) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    /// The earliest event of all.
    pub(crate) fn first(&self) -> Option<(Time, Rank, ReplicaId)> {
        let winner = self.winners[1];
        let (time, rank) = self.keys[winner as usize];
        (time != Time::NEVER).then_some((time, rank, ReplicaId(winner)))
    }

    fn play(&mut self, node: usize) {
        let (left, right) = (self.winners[2 * node], self.winners[2 * node + 1]);
        let wins = self.keys[left as usize] <= self.keys[right as usize];
        self.winners[node] = if wins { left } else { right };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
