//! The event queue: by time, then rank, then order of insertion, so that equals stay first in, first out.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use crate::time::Time;

/// What happens first among events of the same instant: a step that ends publishes its results before anything
/// arrives, and an idle engine wakes after everything of that instant has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A step of a replica ends.
    StepDone,
    /// A request moves on: sent by its client, routed, or received by an engine.
    Arrival,
    /// An idle engine starts a step.
    Wake,
    /// A client looks at its watch.
    Tick,
}

/// How many runs of rising keys are kept.
const RUNS: usize = 4;

/// Events in order.
///
/// Most events follow others after a time that is always the same, so they come in a few rising runs: each is put at the
/// end of a run that it does not precede, and the next event is the first of one of them. Whatever fits no run goes into
/// a heap.
#[derive(Debug)]
pub struct EventQueue<E> {
    runs: [VecDeque<Entry<E>>; RUNS],
    heap: BinaryHeap<Reverse<Entry<E>>>,
    /// Where the next event is: the number of a run, or [`RUNS`] for the heap (or when there is none).
    next: usize,
    pushed: u64,
}

/// An event and what orders it; the event itself takes no part in the order.
#[derive(Debug)]
struct Entry<E> {
    /// Time, then rank, then order of insertion, in one number: quick to compare.
    key: u128,
    event: E,
}

/// Bits of a key for the order of insertion.
const ORDER_BITS: u32 = 56;
/// Ranks by their place in a key.
const RANKS: [Rank; 4] = [Rank::StepDone, Rank::Arrival, Rank::Wake, Rank::Tick];

impl<E> Entry<E> {
    fn new(at: Time, rank: Rank, order: u64, event: E) -> Self {
        let minor = (rank as u64) << ORDER_BITS | order;
        Self { key: u128::from(at.as_nanos()) << 64 | u128::from(minor), event }
    }

    fn time(&self) -> Time {
        Time::from_nanos((self.key >> 64) as u64)
    }

    fn rank(&self) -> Rank {
        RANKS[(self.key as u64 >> ORDER_BITS) as usize & 3]
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { runs: Default::default(), heap: BinaryHeap::new(), next: RUNS, pushed: 0 }
    }
}

impl<E> EventQueue<E> {
    /// Adds an event.
    pub fn push(&mut self, at: Time, rank: Rank, event: E) {
        let entry = Entry::new(at, rank, self.pushed, event);
        self.pushed += 1;
        let is_next = self.first().is_none_or(|first| entry < *first);
        let fits = |run: &VecDeque<Entry<E>>| run.back().is_none_or(|last| *last < entry);
        let place = self.runs.iter().position(fits).unwrap_or(RUNS);
        match self.runs.get_mut(place) {
            Some(run) => run.push_back(entry),
            None => self.heap.push(Reverse(entry)),
        }
        if is_next {
            self.next = place;
        }
    }

    /// When and with which rank the next event happens.
    #[must_use]
    pub fn peek(&self) -> Option<(Time, Rank)> {
        self.first().map(|entry| (entry.time(), entry.rank()))
    }

    /// The next event.
    #[must_use]
    pub fn front(&self) -> Option<&E> {
        self.first().map(|entry| &entry.event)
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        let entry = match self.runs.get_mut(self.next) {
            Some(run) => run.pop_front(),
            None => self.heap.pop().map(|Reverse(entry)| entry),
        }?;
        let mut earliest = self.heap.peek().map_or(u128::MAX, |Reverse(entry)| entry.key);
        self.next = RUNS;
        for (number, run) in self.runs.iter().enumerate() {
            if let Some(first) = run.front()
                && first.key < earliest
            {
                (earliest, self.next) = (first.key, number);
            }
        }
        Some((entry.time(), entry.event))
    }

    fn first(&self) -> Option<&Entry<E>> {
        match self.runs.get(self.next) {
            Some(run) => run.front(),
            None => self.heap.peek().map(|Reverse(entry)| entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn events_come_by_time_then_rank_then_insertion() {
        let mut queue = EventQueue::default();
        let at = Time::from_nanos;
        queue.push(at(2), Rank::Arrival, "second arrival");
        queue.push(at(2), Rank::Arrival, "third arrival");
        queue.push(at(2), Rank::StepDone, "step of the same instant");
        queue.push(at(1), Rank::Tick, "earlier tick");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
        assert_eq!(order, ["earlier tick", "step of the same instant", "second arrival", "third arrival"]);
    }

    proptest! {
        #[test]
        fn whatever_is_added_when_the_next_event_is_the_earliest(
            steps in prop::collection::vec(prop::option::weighted(0.6, 0u64..40), 1..300)
        ) {
            let (mut queue, mut expected) = (EventQueue::default(), Vec::new());
            for (number, step) in steps.into_iter().enumerate() {
                if let Some(nanos) = step {
                    queue.push(Time::from_nanos(nanos), Rank::Arrival, number);
                    expected.push((nanos, number));
                    expected.sort_unstable();
                } else {
                    let first = (!expected.is_empty()).then(|| expected.remove(0));
                    prop_assert_eq!(queue.front().copied(), first.map(|(_, number)| number));
                    prop_assert_eq!(queue.pop().map(|(at, number)| (at.as_nanos(), number)), first);
                }
            }
        }
    }
}
