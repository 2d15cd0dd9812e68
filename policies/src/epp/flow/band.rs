//! The requests of one priority that wait, by flow.

use std::collections::BTreeMap;

use forerun_sim::time::Time;

use super::controller::Waiting;
use super::fairness::{Fairness, Programs};
use super::ordering::Ordering;

/// Limits and policies of a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandConfig {
    /// Bytes that may wait.
    pub max_bytes: u64,
    /// Requests that may wait.
    pub max_requests: u64,
    /// Which flow is next.
    pub fairness: Fairness,
    /// Which of its requests is next.
    pub ordering: Ordering,
}

impl Default for BandConfig {
    fn default() -> Self {
        let (fairness, ordering) = (Fairness::default(), Ordering::default());
        Self { max_bytes: 1_000_000_000, max_requests: 5_000, fairness, ordering }
    }
}

/// A place in a queue: the ordering policy's key, then the order of arrival.
pub(super) type Key = (Time, u64);

/// A request in its queue.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) request: Waiting,
    pub(super) received: Time,
    pub(super) deadline: Time,
}

/// The requests of one flow in order.
pub(super) type Queue = BTreeMap<Key, Queued>;

/// One priority.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) config: BandConfig,
    /// Flows with waiting requests, by name.
    pub(super) flows: BTreeMap<String, Queue>,
    bytes: u64,
    requests: u64,
    /// The flow that round robin served last.
    last_flow: Option<String>,
}

impl Band {
    pub(super) fn new(config: BandConfig) -> Self {
        Self { config, flows: BTreeMap::new(), bytes: 0, requests: 0, last_flow: None }
    }

    /// Whether a request of `bytes` does not fit.
    pub(super) fn is_full(&self, bytes: u64) -> bool {
        self.requests >= self.config.max_requests || self.bytes.saturating_add(bytes) > self.config.max_bytes
    }

    pub(super) fn insert(&mut self, key: Key, queued: Queued) {
        self.requests += 1;
        self.bytes += queued.request.bytes;
        // A flow's name is copied when it begins to wait only.
        match self.flows.get_mut(&queued.request.flow) {
            Some(queue) => drop(queue.insert(key, queued)),
            None => drop(self.flows.insert(queued.request.flow.clone(), Queue::from([(key, queued)]))),
        }
    }

    pub(super) fn remove(&mut self, flow: &str, key: Key) -> Option<Queued> {
        let queue = self.flows.get_mut(flow)?;
        let queued = queue.remove(&key)?;
        if queue.is_empty() {
            self.flows.remove(flow);
        }
        self.requests -= 1;
        self.bytes -= queued.request.bytes;
        Some(queued)
    }

    /// The place of the request that is dispatched next, if any waits.
    pub(super) fn next(&mut self, now: Time, programs: &mut Programs) -> Option<(String, Key)> {
        let flow = match self.config.fairness {
            Fairness::GlobalStrict => {
                let head =
                    |(name, queue): (&String, &Queue)| Some((*queue.first_key_value()?.0, name.clone()));
                self.flows.iter().filter_map(head).min()?.1
            }
            Fairness::RoundRobin => self.in_turn()?,
            Fairness::ProgramAware => programs.pick(now, &self.flows)?,
        };
        let key = *self.flows.get(&flow)?.first_key_value()?.0;
        Some((flow, key))
    }

    /// The flow behind the one that was served last, by name. An empty band forgets which one that was.
    fn in_turn(&mut self) -> Option<String> {
        let behind = |last: &String| self.flows.keys().find(|name| *name > last);
        let next = self.last_flow.as_ref().and_then(behind).or_else(|| self.flows.keys().next()).cloned();
        self.last_flow.clone_from(&next);
        next
    }

    pub(super) fn len(&self) -> u64 {
        self.requests
    }
}
