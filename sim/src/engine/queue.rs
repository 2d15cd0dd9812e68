//! The waiting queue: first come first served, or by priority (vLLM v1/core/sched/request_queue.py).

use std::collections::{BTreeSet, VecDeque};

use super::Slot;

/// Order under the priority policy: lower priority value first, then earlier arrival.
pub(super) type PriorityKey = (i32, u64);

/// Requests that wait for admission, in order.
#[derive(Clone, Debug)]
pub(super) enum WaitingQueue {
    /// Preempted requests return to the front.
    Fcfs(VecDeque<Slot>),
    /// Preempted requests return to their place.
    Priority(BTreeSet<(PriorityKey, Slot)>),
}

impl WaitingQueue {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Fcfs(queue) => queue.len(),
            Self::Priority(queue) => queue.len(),
        }
    }

    pub(super) fn head(&self) -> Option<Slot> {
        match self {
            Self::Fcfs(queue) => queue.front().copied(),
            Self::Priority(queue) => queue.first().map(|&(_, slot)| slot),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        match self {
            Self::Fcfs(queue) => queue.pop_front(),
            Self::Priority(queue) => queue.pop_first().map(|(_, slot)| slot),
        }
    }

    /// A new arrival.
    pub(super) fn push(&mut self, key: PriorityKey, slot: Slot) {
        match self {
            Self::Fcfs(queue) => queue.push_back(slot),
            Self::Priority(queue) => {
                queue.insert((key, slot));
            }
        }
    }

    /// A preempted or skipped request.
    pub(super) fn put_back(&mut self, key: PriorityKey, slot: Slot) {
        match self {
            Self::Fcfs(queue) => queue.push_front(slot),
            Self::Priority(queue) => {
                queue.insert((key, slot));
            }
        }
    }

    pub(super) fn remove(&mut self, key: PriorityKey, slot: Slot) {
        match self {
            Self::Fcfs(queue) => queue.retain(|&other| other != slot),
            Self::Priority(queue) => {
                queue.remove(&(key, slot));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let (arrivals, priorities) = match self {
            Self::Fcfs(queue) => (Some(queue.iter().copied()), None),
            Self::Priority(queue) => (None, Some(queue.iter().map(|&(_, slot)| slot))),
        };
        arrivals.into_iter().flatten().chain(priorities.into_iter().flatten())
    }
}
