//! One model server: an engine whose steps take time.
//!
//! With synchronous scheduling a step is formed, computed and accounted for before the next one. With
//! asynchronous scheduling two batches are in flight (vLLM v1/engine/core.py `step_with_batch_queue`): batch
//! k + 1 is formed when batch k starts, so a request that arrives during step k joins step k + 2, and the
//! order is S0 S1 U0 S2 U1 ...

use std::collections::VecDeque;
use std::sync::Arc;

use crate::cost::{CostModel, StepShape};
use crate::engine::config::EngineConfig;
use crate::engine::{Batch, Engine};
use crate::kv::Pool;
use crate::ledger::ReplicaClock;
use crate::observer::ReplicaTotals;
use crate::request::{Cause, RequestId};
use crate::time::{Span, Time};

/// A batch in flight.
#[derive(Debug)]
struct Flight {
    batch: Batch,
    shape: StepShape,
    /// Formed while another batch was in flight: its CPU time overlaps.
    overlapped: bool,
    /// Duration and end, once it has started on the GPU.
    running: Option<(Span, Time)>,
}

/// A step that ended.
#[derive(Debug)]
pub(crate) struct DoneStep {
    pub(crate) batch: Batch,
    pub(crate) shape: StepShape,
}

/// One model server.
#[derive(Debug)]
pub(crate) struct Replica<P: Pool> {
    pub(crate) engine: Engine<P>,
    pub(crate) clock: ReplicaClock,
    /// Waiting requests whose reason to wait changes when the scheduler looks next: those received since it
    /// last looked, and those that it then passed over for their adapter.
    pub(crate) revisit: Vec<RequestId>,
    /// Whether a wake is already on its way.
    pub(crate) waking: bool,
    cost: Arc<dyn CostModel>,
    flights: VecDeque<Flight>,
    spare: Vec<Batch>,
    totals: ReplicaTotals,
    blocks_used: Gauge,
    /// Time integrals and counters start here.
    observed_from: Time,
}

impl std::fmt::Debug for dyn CostModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CostModel")
    }
}

impl<P: Pool> Replica<P> {
    pub(crate) fn new(
        config: EngineConfig,
        cost: Arc<dyn CostModel>,
        totals: ReplicaTotals,
        observed_from: Time,
    ) -> Self {
        Self {
            engine: Engine::new(config),
            clock: ReplicaClock::default(),
            revisit: Vec::new(),
            waking: false,
            cost,
            flights: VecDeque::new(),
            spare: Vec::new(),
            totals,
            blocks_used: Gauge::starting(observed_from),
            observed_from,
        }
    }

    /// Whether no batch is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Counts a request sent here.
    pub(crate) fn count_request(&mut self, now: Time) {
        self.totals.requests += u64::from(now >= self.observed_from);
    }

    /// Forms the next batch, unless enough are in flight.
    pub(crate) fn form_batch(&mut self, now: Time) -> Option<Batch> {
        let depth = if self.engine.config().async_scheduling { 2 } else { 1 };
        if self.flights.len() == depth {
            return None;
        }
        let mut batch = self.spare.pop().unwrap_or_default();
        self.engine.schedule(&mut batch);
        self.clock.block(now, batch.blocked.unwrap_or(Cause::EngineQueueStep));
        self.note_blocks(now);
        if now >= self.observed_from {
            self.totals.preemptions += batch.preempted.len() as u64;
        }
        Some(batch)
    }

    /// Puts a batch in flight behind those that are.
    pub(crate) fn launch(&mut self, batch: Batch) {
        let mut shape = StepShape::default();
        batch.scheduled.iter().for_each(|part| shape.add(part));
        let overlapped = !self.flights.is_empty();
        self.flights.push_back(Flight { batch, shape, overlapped, running: None });
    }

    /// Starts the oldest batch in flight, unless it runs already: when it will end.
    pub(crate) fn start_step(&mut self, now: Time) -> Option<Time> {
        let flight = self.flights.front_mut().filter(|flight| flight.running.is_none())?;
        let span = self.cost.step(&flight.shape).duration(flight.overlapped);
        // A step takes time, however fast the hardware: otherwise a run might never move on.
        let span = span.max(Span::from_nanos(1));
        flight.running = Some((span, now + span));
        self.totals.steps += u64::from(now >= self.observed_from);
        Some(now + span)
    }

    /// Takes the step that ends at `now` out of flight. Its result is not yet accounted for.
    pub(crate) fn finish_step(&mut self, now: Time) -> DoneStep {
        let Flight { batch, shape, overlapped, running } =
            self.flights.pop_front().expect("a step is running");
        let (span, end) = running.expect("the oldest batch has started");
        debug_assert_eq!(end, now);
        self.totals.busy += span.min(now.saturating_since(self.observed_from));
        if shape.prefills > 0 && shape.decodes > 0 {
            let alone = self.cost.step(&shape.decodes_only()).duration(overlapped);
            self.clock.stall(span.saturating_sub(alone));
        }
        DoneStep { batch, shape }
    }

    /// Gives a batch back for reuse.
    pub(crate) fn recycle(&mut self, batch: Batch) {
        self.spare.push(batch);
    }

    /// Notes how many blocks are in use from `now` on.
    pub(crate) fn note_blocks(&mut self, now: Time) {
        let pool = self.engine.kv().pool();
        self.blocks_used.set(now, u64::from(pool.usable() - pool.free()));
    }

    /// What the replica did until `end`.
    pub(crate) fn totals(&mut self, end: Time) -> ReplicaTotals {
        self.note_blocks(end);
        let usable = f64::from(self.engine.kv().pool().usable());
        let observed = end.saturating_since(self.observed_from);
        let running = self.flights.front().and_then(|flight| flight.running);
        // A step still in progress at the end was busy up to it.
        let partly = running.map_or(Span::ZERO, |(span, ends)| {
            let started = Time::from_nanos(ends.as_nanos() - span.as_nanos()).max(self.observed_from);
            end.saturating_since(started)
        });
        ReplicaTotals {
            busy: self.totals.busy + partly,
            observed,
            kv_usage_mean: self.blocks_used.mean(observed) / usable,
            ..self.totals.clone()
        }
    }
}

/// A quantity over time and its integral.
#[derive(Clone, Debug)]
struct Gauge {
    value: u64,
    since: Time,
    integral: u128,
    from: Time,
}

impl Gauge {
    /// Integrates from `from` on.
    fn starting(from: Time) -> Self {
        Self { value: 0, since: Time::ZERO, integral: 0, from }
    }

    fn set(&mut self, now: Time, value: u64) {
        let span = now.saturating_since(self.since.max(self.from));
        self.integral += u128::from(self.value) * u128::from(span.as_nanos());
        self.since = now;
        self.value = value;
    }

    fn mean(&self, over: Span) -> f64 {
        if over == Span::ZERO { 0.0 } else { self.integral as f64 / over.as_nanos() as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_averages_over_the_observed_period_only() {
        let mut gauge = Gauge::starting(Time::from_nanos(10));
        gauge.set(Time::from_nanos(0), 100);
        gauge.set(Time::from_nanos(15), 20);
        gauge.set(Time::from_nanos(20), 0);
        assert!((gauge.mean(Span::from_nanos(10)) - 60.0).abs() < 1e-9, "5 ns at 100 and 5 ns at 20");
    }
}
