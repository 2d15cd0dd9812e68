//! One model server: an engine whose steps take time.
//!
//! With synchronous scheduling a step is formed, computed and accounted for before the next one. With
//! asynchronous scheduling two batches are in flight (vLLM v1/engine/core.py `step_with_batch_queue`): batch
//! k + 1 is formed when batch k starts, so a request that arrives during step k joins step k + 2, and the
//! order is S0 S1 U0 S2 U1 ...

mod flights;
mod kv_events;
mod quiet;
mod timer;

use std::sync::Arc;

use crate::cost::{CostModel, StepShape, StepTime};
use crate::engine::Engine;
use crate::engine::adapters::{AdapterConfig, AdapterLoads, Adapters};
use crate::engine::connector::{Copy, JobId, Transfers};
use crate::kv::Pool;
use crate::ledger::ReplicaClock;
use crate::observer::{AdapterTotals, GuessTotals, ReplicaTotals};
use crate::request::{Cause, RequestId};
use crate::router::Metrics;
use crate::time::{Span, Time};
pub(crate) use flights::Flight;
use flights::Flights;
pub(crate) use kv_events::KvEvents;
use timer::StepTimer;

/// What a replica publishes at the end of a step.
#[derive(Clone, Copy, Debug)]
struct Published {
    waiting: u32,
    running: u32,
    blocks_used: u32,
}

/// One model server.
#[derive(Debug)]
pub(crate) struct Replica<P: Pool> {
    pub(crate) engine: Engine<P>,
    pub(crate) clock: ReplicaClock,
    /// Waiting requests whose reason to wait changes when the scheduler looks next: those received since it
    /// last looked, and those that it then passed over for their adapter.
    pub(crate) revisit: Vec<RequestId>,
    /// Whether KV has come or gone since the scheduler last looked.
    pub(crate) stirred: bool,
    /// When an idle replica wakes.
    pub(crate) wake: Option<Time>,
    /// Requests that have just left the lockstep of the decodes, with their tokens so far.
    pub(crate) dissolved: Vec<(RequestId, u32)>,
    /// When the result of the last step came in.
    pub(crate) last_result: Time,
    /// When it was scraped last, and what it had published then.
    pub(crate) scraped: Option<(Time, Metrics)>,
    /// What its KV events have not told yet, for a router that wants to know.
    pub(crate) kv_events: Option<KvEvents>,
    /// What it published at the end of its last step; `None` before.
    published: Option<Published>,
    timer: StepTimer,
    /// Its LoRA adapters, where loading them costs time.
    lora: Option<Adapters>,
    /// Adapters of the batch being launched; kept to reuse its memory.
    batch_adapters: Vec<u32>,
    flights: Flights,
    /// Those that are over, to be used again.
    spare: Flights,
    /// Why the requests that wait were not admitted when the scheduler last looked.
    blocked: Option<Cause>,
    totals: ReplicaTotals,
    blocks_used: Gauge,
    /// Time integrals and counters start here.
    observed_from: Time,
    /// How many of the next steps are quiet, as long as nothing else happens; `None` when that must be looked up.
    foreseen: Option<u64>,
    /// Whether other replicas say how long its steps take: it foresees none.
    lock_step: bool,
}

impl<P: Pool> Replica<P> {
    pub(crate) fn new(
        engine: Engine<P>,
        cost: Arc<dyn CostModel>,
        lora: Option<AdapterConfig>,
        totals: ReplicaTotals,
        observed_from: Time,
    ) -> Self {
        Self {
            engine,
            clock: ReplicaClock::default(),
            revisit: Vec::new(),
            stirred: false,
            wake: None,
            dissolved: Vec::new(),
            last_result: Time::ZERO,
            scraped: None,
            kv_events: None,
            published: None,
            blocked: None,
            timer: StepTimer::new(cost),
            lora: lora.map(Adapters::new),
            batch_adapters: Vec::new(),
            flights: Flights::default(),
            spare: Flights::default(),
            totals,
            blocks_used: Gauge::starting(observed_from),
            observed_from,
            foreseen: None,
            lock_step: false,
        }
    }

    /// The same replica, which steps together with others or by itself.
    #[must_use]
    pub(crate) fn in_lock_step(self, lock_step: bool) -> Self {
        Self { lock_step, ..self }
    }

    /// Something changes here that may end its quiet steps.
    pub(crate) fn disturb(&mut self) {
        self.foreseen = None;
    }

    /// Whether no batch is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.flights.is_empty()
    }

    /// Counts a request sent here.
    pub(crate) fn count_request(&mut self, now: Time) {
        self.totals.requests += u64::from(now >= self.observed_from);
    }

    /// How many batches are in flight at most.
    fn depth(&self) -> usize {
        if self.engine.config().async_scheduling { 2 } else { 1 }
    }

    /// Forms the next batch, unless enough are in flight.
    pub(crate) fn form_batch(&mut self, now: Time) -> Option<Box<Flight>> {
        if self.flights.len() == self.depth() {
            return None;
        }
        self.disturb();
        if !self.engine.cohort_holds() {
            self.dissolve();
        }
        let mut flight = self.spare.pop().unwrap_or_default();
        let batch = &mut flight.batch;
        self.engine.schedule(batch);
        self.stirred = false;
        self.blocked = batch.blocked;
        self.clock.block(now, batch.blocked.unwrap_or(Cause::EngineQueueStep));
        if now >= self.observed_from {
            self.totals.preemptions += batch.preempted.len() as u64;
        }
        self.note_blocks(now);
        Some(flight)
    }

    /// Puts a batch in flight behind those that are.
    pub(crate) fn launch(&mut self, mut flight: Box<Flight>) {
        flight.measure();
        flight.overlapped = !self.flights.is_empty();
        let transfers = &flight.batch.transfers;
        flight.moves = !transfers.flush.is_empty() || !transfers.stores.is_empty();
        flight.running = None;
        if let Some(lora) = &mut self.lora {
            self.engine.batch_adapters(&flight.batch, &mut self.batch_adapters);
            flight.loads = lora.bring(&self.batch_adapters);
        }
        if let Some(events) = &mut self.kv_events {
            events.launched(&self.engine, &flight.batch);
        }
        self.flights.push(flight);
    }

    /// The stores of the oldest batch in flight that must be over before it starts: nothing that they copy is still
    /// to be computed.
    pub(crate) fn take_flushed_stores(&mut self) -> Vec<Copy> {
        let Some(Flight { batch, running: None, .. }) = self.flights.front_mut() else {
            return Vec::new();
        };
        let Transfers { stores, flush, .. } = &mut batch.transfers;
        if flush.is_empty() {
            return Vec::new();
        }
        stores.extract_if(.., |store| flush.contains(&store.job)).collect()
    }

    /// A copy is over: whether batches waited for it.
    pub(crate) fn flushed(&mut self, job: JobId) -> bool {
        let mut waited = false;
        for flight in self.flights.iter_mut() {
            let flush = &mut flight.batch.transfers.flush;
            let before = flush.len();
            flush.retain(|&other| other != job);
            waited |= flush.len() < before;
        }
        waited
    }

    /// Whether the running step ends at `now`.
    pub(crate) fn step_ends(&self, now: Time) -> bool {
        self.flights.running().is_some_and(|(_, end)| end == now)
    }

    /// Whether a step is running.
    pub(crate) fn is_stepping(&self) -> bool {
        self.flights.front().is_some_and(|flight| flight.running.is_some())
    }

    /// How long the oldest batch in flight takes, if it may start now; without the adapters that it brings.
    pub(crate) fn ready_span(&mut self) -> Option<Span> {
        let flight = self.flights.front_mut().filter(|flight| flight.may_start())?;
        Some(flight.span(&mut self.timer))
    }

    /// Starts the oldest batch in flight, unless it runs already or there is none: whether it did.
    pub(crate) fn start_step(&mut self, now: Time) -> bool {
        self.start_step_for(now, Span::ZERO)
    }

    /// The same; the step takes at least so long.
    pub(crate) fn start_step_for(&mut self, now: Time, least: Span) -> bool {
        let Some(flight) = self.flights.front_mut().filter(|flight| flight.may_start()) else {
            return false;
        };
        let mut span = flight.span(&mut self.timer).max(least);
        let loads = flight.loads;
        flight.running = Some((span, now + span));
        if loads.to_gpu > 0 {
            span += self.bring_adapters(now, loads);
            self.flights.front_mut().expect("it has just started").running = Some((span, now + span));
        }
        self.totals.steps += u64::from(now >= self.observed_from);
        true
    }

    /// How long a step waits for its adapters, noted.
    fn bring_adapters(&mut self, now: Time, loads: AdapterLoads) -> Span {
        let wait = self.lora.as_ref().map_or(Span::ZERO, |lora| lora.wait(loads));
        if now >= self.observed_from {
            let AdapterTotals { to_gpu, from_disk, waited } = &mut self.totals.adapters;
            *to_gpu += u64::from(loads.to_gpu);
            *from_disk += u64::from(loads.from_disk);
            *waited += wait;
        }
        wait
    }

    /// Takes the step that ends at `now` out of flight. Its result is not yet accounted for.
    pub(crate) fn finish_step(&mut self, now: Time) -> Box<Flight> {
        self.disturb();
        self.last_result = now;
        let flight = self.flights.pop().expect("a step is running");
        let (span, end) = flight.running.expect("the oldest batch has started");
        debug_assert_eq!(end, now);
        if let Some(events) = &mut self.kv_events {
            events.finished(flight.batch.step, now);
        }
        self.totals.busy += span.min(now.saturating_since(self.observed_from));
        let shape = &flight.shape;
        if shape.prefills > 0 && shape.decodes > 0 {
            let alone = self.timer.step(&shape.decodes_only()).duration(flight.overlapped);
            self.clock.stall(span.saturating_sub(alone));
        }
        flight
    }

    /// Of the guesses in a step that has ended, so many stood.
    pub(crate) fn note_guesses(&mut self, now: Time, shape: &StepShape, accepted: u32) {
        if now >= self.observed_from {
            let GuessTotals { decodes, verified, accepted: stood } = &mut self.totals.guesses;
            *decodes += u64::from(shape.decodes);
            *verified += u64::from(shape.guesses);
            *stood += u64::from(accepted);
        }
    }

    /// Makes ordinary requests of the decodes in lockstep.
    pub(crate) fn dissolve(&mut self) {
        self.disturb();
        let batches = self.flights.iter_mut().map(|flight| &mut flight.batch);
        self.engine.dissolve(batches, &mut self.dissolved);
    }

    /// Publishes its metrics, as vLLM does with the result of each step.
    pub(crate) fn publish(&mut self) {
        let pool = self.engine.kv().pool();
        self.published = Some(Published {
            waiting: self.engine.num_waiting_seen(),
            running: self.engine.num_running(),
            blocks_used: pool.usable() - pool.free(),
        });
    }

    /// Whether it ever published anything.
    pub(crate) fn has_published(&self) -> bool {
        self.published.is_some()
    }

    /// What it has published so far.
    pub(crate) fn metrics(&self) -> Metrics {
        let usable = f64::from(self.engine.kv().pool().usable());
        self.published.map_or(Metrics::default(), |Published { waiting, running, blocks_used }| Metrics {
            waiting,
            running,
            kv_usage: f64::from(blocks_used) / usable,
        })
    }

    /// It has died, and starts anew with an engine that holds nothing.
    pub(crate) fn start_anew(&mut self, now: Time, engine: Engine<P>) {
        if let Some((span, end)) = self.flights.running() {
            let started = Time::from_nanos(end.as_nanos() - span.as_nanos()).max(self.observed_from);
            self.totals.busy += now.saturating_since(started);
        }
        self.disturb();
        self.flights.clear();
        self.engine = engine;
        (self.wake, self.blocked, self.stirred) = (None, None, false);
        self.revisit.clear();
        self.dissolved.clear();
        (self.published, self.scraped) = (None, None);
        self.lora.iter_mut().for_each(Adapters::forget);
        self.kv_events.iter_mut().for_each(KvEvents::forget);
        self.last_result = now;
        self.clock.block(now, Cause::EngineQueueStep);
        self.note_blocks(now);
    }

    /// Gives a batch back for reuse.
    pub(crate) fn recycle(&mut self, flight: Box<Flight>) {
        self.spare.push(flight);
    }

    /// Notes how many blocks are in use from `now` on.
    pub(crate) fn note_blocks(&mut self, now: Time) {
        let pool = self.engine.kv().pool();
        self.blocks_used.set(now, u64::from(pool.usable() - pool.free()));
    }

    /// What the replica did until `end`.
    pub(crate) fn totals(&mut self, end: Time) -> ReplicaTotals {
        self.note_blocks(end);
        self.blocks_used.settle(end);
        let usable = f64::from(self.engine.kv().pool().usable());
        let observed = end.saturating_since(self.observed_from);
        let running = self.flights.running();
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

/// A step takes time, however fast the hardware: otherwise a run might never move on.
fn step_span(time: StepTime, overlapped: bool) -> Span {
    time.duration(overlapped).max(Span::from_nanos(1))
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
        if value != self.value {
            self.settle(now);
            self.value = value;
        }
    }

    /// Integrates up to `now`.
    fn settle(&mut self, now: Time) {
        let span = now.saturating_since(self.since.max(self.from));
        self.integral += u128::from(self.value) * u128::from(span.as_nanos());
        self.since = now;
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
        gauge.settle(Time::from_nanos(20));
        assert!((gauge.mean(Span::from_nanos(10)) - 60.0).abs() < 1e-9, "5 ns at 100 and 5 ns at 20");
    }
}
