//! The event queue: by time, then rank, then order of insertion, so that equals stay first in, first out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

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

/// Events in order.
#[derive(Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
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
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }
}

impl<E> EventQueue<E> {
    /// Adds an event.
    pub fn push(&mut self, at: Time, rank: Rank, event: E) {
        self.heap.push(Reverse(Entry::new(at, rank, self.pushed, event)));
        self.pushed += 1;
    }

    /// When and with which rank the next event happens.
    #[must_use]
    pub fn peek(&self) -> Option<(Time, Rank)> {
        self.heap.peek().map(|Reverse(entry)| (entry.time(), entry.rank()))
    }

    /// The next event.
    #[must_use]
    pub fn front(&self) -> Option<&E> {
        self.heap.peek().map(|Reverse(entry)| &entry.event)
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.time(), entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
