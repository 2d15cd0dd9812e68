//! Who watches a run: callbacks with no-op defaults.

use std::ops::ControlFlow;

use crate::fleet::MirrorTotals;
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

    /// A replica took `steps` in which it did nothing but decode. The default reports each of them by
    /// [`step_done`](Self::step_done) and [`token_gaps`](Self::token_gaps): who can add them up at once is faster.
    fn quiet_steps(&mut self, steps: &QuietSteps<'_>) {
        steps.one_by_one(self);
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

/// Consecutive steps of one replica in each of which the same decodes delivered one token and nothing else happened.
#[derive(Clone, Copy, Debug)]
pub struct QuietSteps<'a> {
    /// Which replica.
    pub replica: ReplicaId,
    /// Tokens that each step delivered.
    pub decodes: u32,
    /// When the step before the first one ended.
    pub from: Time,
    /// When the last one ended.
    pub until: Time,
    /// From the end of the step before to the end of each step; none is shorter than the one before it.
    pub gaps: &'a [Span],
}

impl QuietSteps<'_> {
    /// Reports each step by itself.
    pub fn one_by_one<O: Observer + ?Sized>(&self, observer: &mut O) {
        let mut at = self.from;
        for &gap in self.gaps {
            at = at + gap;
            observer.step_done(at, self.replica, 0, self.decodes);
            observer.token_gaps(at, gap, self.decodes);
        }
    }

    /// The steps that end before `at`, and the others.
    #[must_use]
    pub fn split_before(&self, at: Time) -> (Self, Self) {
        let (mut until, mut count) = (self.from, 0);
        for &gap in self.gaps {
            if until + gap >= at {
                break;
            }
            until = until + gap;
            count += 1;
        }
        let (before, after) = self.gaps.split_at(count);
        (Self { until, gaps: before, ..*self }, Self { from: until, gaps: after, ..*self })
    }

    /// Reports the steps, where the first may have come later than the others would have it: it may be the one in
    /// which an idle replica began.
    pub(crate) fn report(self, observer: &mut dyn Observer) {
        let alone = usize::from(self.gaps.len() > 1 && self.gaps[0] > self.gaps[1]);
        let (first, rest) = self.gaps.split_at(alone);
        if let [gap] = *first {
            let between = self.from + gap;
            observer.quiet_steps(&Self { until: between, gaps: first, ..self });
            observer.quiet_steps(&Self { from: between, gaps: rest, ..self });
        } else if !rest.is_empty() {
            observer.quiet_steps(&self);
        }
    }
}

/// Watches nothing.
impl Observer for () {
    fn quiet_steps(&mut self, _: &QuietSteps<'_>) {}
}

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

    fn quiet_steps(&mut self, steps: &QuietSteps<'_>) {
        self.0.quiet_steps(steps);
        self.1.quiet_steps(steps);
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

    fn quiet_steps(&mut self, steps: &QuietSteps<'_>) {
        (**self).quiet_steps(steps);
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
    /// What the tiers below host memory read and wrote.
    pub tiers: TierTotals,
    /// Replicas that died after the warm-up.
    pub deaths: u64,
    /// What became of mirrored requests.
    pub mirrored: MirrorTotals,
}

/// Bytes that tiers below host memory moved, from the start of the run to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierTotals {
    /// Promoted to host memory.
    pub read_bytes: u64,
    /// Written, or on their way.
    pub written_bytes: u64,
    /// Not written, because they would have waited too long.
    pub dropped_bytes: u64,
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
    /// LoRA adapters that it loaded.
    pub adapters: AdapterTotals,
    /// Guesses that its decodes verified.
    pub guesses: GuessTotals,
}

/// Guesses in steps that ended in the observed period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuessTotals {
    /// Decodes that verified some, once for each step.
    pub decodes: u64,
    /// Guesses.
    pub verified: u64,
    /// Of those, guesses that stood.
    pub accepted: u64,
}

/// Loads of LoRA adapters in steps that started in the observed period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterTotals {
    /// Loads to the GPU.
    pub to_gpu: u64,
    /// Of those, from disk.
    pub from_disk: u64,
    /// How long steps waited for them.
    pub waited: Span,
}
