//! Who watches a run: callbacks with no-op defaults.

use std::ops::ControlFlow;

use crate::request::{Labels, Outcome, ReplicaId, Request};
use crate::time::{Span, Time};

/// Watches a run. Every method has an empty default: implement what you need.
///
/// Nothing is reported ahead of the clock: when [`arrived`](Self::arrived) is called, nothing later than that
/// arrival was reported yet.
pub trait Observer {
    /// A client sent `request`. Requests come in order of arrival.
    fn arrived(&mut self, request: &Request) {
        let _ = request;
    }

    /// `count` tokens reached their clients at `at`, each `gap` after the previous token of its request.
    fn token_gaps(&mut self, at: Time, gap: Span, count: u32) {
        let _ = (at, gap, count);
    }

    /// `replica` finished a step at `at`: `prefill_tokens` prompt tokens were computed and `emitted` output
    /// tokens delivered (first tokens included).
    fn step_done(&mut self, at: Time, replica: ReplicaId, prefill_tokens: u32, emitted: u32) {
        let _ = (at, replica, prefill_tokens, emitted);
    }

    /// A request ended, however it ended. Called exactly once per request. `labels` has the names that the
    /// request refers to: its tenant, class, model and adapter.
    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        let _ = (outcome, labels);
    }

    /// Called every few thousand events with the simulated time: for progress bars, and to stop a run.
    fn tick(&mut self, now: Time) -> ControlFlow<()> {
        let _ = now;
        ControlFlow::Continue(())
    }
}

/// Watches nothing.
impl Observer for () {}

/// Two watchers at once.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn arrived(&mut self, request: &Request) {
        self.0.arrived(request);
        self.1.arrived(request);
    }

    fn token_gaps(&mut self, at: Time, gap: Span, count: u32) {
        self.0.token_gaps(at, gap, count);
        self.1.token_gaps(at, gap, count);
    }

    fn step_done(&mut self, at: Time, replica: ReplicaId, prefill_tokens: u32, emitted: u32) {
        self.0.step_done(at, replica, prefill_tokens, emitted);
        self.1.step_done(at, replica, prefill_tokens, emitted);
    }

    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        self.0.ended(outcome, labels);
        self.1.ended(outcome, labels);
    }

    fn tick(&mut self, now: Time) -> ControlFlow<()> {
        self.0.tick(now)?;
        self.1.tick(now)
    }
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn arrived(&mut self, request: &Request) {
        (**self).arrived(request);
    }

    fn token_gaps(&mut self, at: Time, gap: Span, count: u32) {
        (**self).token_gaps(at, gap, count);
    }

    fn step_done(&mut self, at: Time, replica: ReplicaId, prefill_tokens: u32, emitted: u32) {
        (**self).step_done(at, replica, prefill_tokens, emitted);
    }

    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        (**self).ended(outcome, labels);
    }

    fn tick(&mut self, now: Time) -> ControlFlow<()> {
        (**self).tick(now)
    }
}

/// What a run did as a whole, returned when it ends.
#[derive(Clone, Debug, Default)]
pub struct RunTotals {
    /// Simulated time at the last event.
    pub end: Time,
    /// Engine steps simulated, all replicas.
    pub steps: u64,
    /// Each replica, in order.
    pub replicas: Vec<ReplicaTotals>,
}

/// What one replica did, from the end of the warm-up on.
#[derive(Clone, Debug, Default)]
pub struct ReplicaTotals {
    /// Its name, for example `pool-0`.
    pub name: String,
    /// The pool that it belongs to.
    pub pool: String,
    /// GPUs that it occupies.
    pub gpus: u32,
    /// Time with a step in progress.
    pub busy: Span,
    /// The period that is accounted for: warm-up to end.
    pub observed: Span,
    /// Engine steps started.
    pub steps: u64,
    /// Mean share of KV blocks in use (referenced), over the observed period.
    pub kv_usage_mean: f64,
    /// Requests sent to it.
    pub requests: u64,
    /// Preemptions.
    pub preemptions: u64,
}
