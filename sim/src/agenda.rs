//! When each replica has something to do: a tournament over their next events.
//!
//! Every replica has at most one pending event. Ties of time and rank are won by the lower index, so that the
//! order does not depend on when an event was announced.

use crate::event::Rank;
use crate::request::ReplicaId;
use crate::time::Time;

/// A replica's next event in one number, in order: time, then rank, then index.
type Key = u128;

const NONE: Key = Key::MAX;

/// Ranks by their place in a key.
const RANKS: [Rank; 4] = [Rank::StepDone, Rank::Arrival, Rank::Wake, Rank::Tick];

fn key(time: Time, rank: Rank, replica: ReplicaId) -> Key {
    Key::from(time.as_nanos()) << 64 | (rank as Key) << 32 | Key::from(replica.0)
}

/// The next event of every replica.
#[derive(Debug)]
pub(crate) struct Agenda {
    /// Winner of each match: of all at 1, of 2n and 2n + 1 at n, and the replicas' own keys from `leaves` on.
    winners: Vec<Key>,
    leaves: usize,
}

impl Agenda {
    /// An agenda for so many replicas, all without an event.
    pub(crate) fn new(replicas: usize) -> Self {
        let leaves = replicas.next_power_of_two();
        Self { winners: vec![NONE; 2 * leaves], leaves }
    }

    /// The next event of `replica`.
    pub(crate) fn set(&mut self, replica: ReplicaId, event: Option<(Time, Rank)>) {
        let mut node = self.leaves + replica.0 as usize;
        let mut winner = event.map_or(NONE, |(time, rank)| key(time, rank, replica));
        while self.winners[node] != winner {
            self.winners[node] = winner;
            if node == 1 {
                break;
            }
            winner = winner.min(self.winners[node ^ 1]);
            node /= 2;
        }
    }

    /// The earliest event of all.
    pub(crate) fn first(&self) -> Option<(Time, Rank, ReplicaId)> {
        let key = self.winners[1];
        let rank = RANKS.get((key >> 32) as u32 as usize)?;
        Some((Time::from_nanos((key >> 64) as u64), *rank, ReplicaId(key as u32)))
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

    #[test]
    fn a_single_replica_has_its_event() {
        let mut agenda = Agenda::new(1);
        agenda.set(ReplicaId(0), Some((Time::ZERO, Rank::Wake)));
        assert_eq!(agenda.first(), Some((Time::ZERO, Rank::Wake, ReplicaId(0))));
        agenda.set(ReplicaId(0), None);
        assert_eq!(agenda.first(), None);
    }
}
