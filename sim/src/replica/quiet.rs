//! Steps that change nothing but the counters of decodes in lockstep: taken in one loop, or foreseen.

use super::{Flight, Replica, step_span};
use crate::cost::StepShape;
use crate::engine::CohortShare;
use crate::event::Rank;
use crate::kv::Pool;
use crate::observer::{Observer, QuietSteps};
use crate::request::ReplicaId;
use crate::time::{Span, Time};

/// How many steps are reported together at most.
const REPORT_STEPS: usize = 64;

impl<P: Pool> Replica<P> {
    /// When something happens next that is more than a decode step: exactly, or a bound before it.
    pub(crate) fn next_event(&mut self) -> Option<(Time, Rank)> {
        if let Some(wake) = self.wake {
            return Some((wake, Rank::Wake));
        }
        let (_, end) = self.flights.front()?.running?;
        let steps = self.assured_quiet_steps();
        let bound = if steps == 0 { end } else { end + self.least_quiet_span(steps).times(steps) };
        Some((bound, Rank::StepDone))
    }

    /// How many steps from the one that runs on change nothing but the counters of the decodes in lockstep, as long
    /// as there are blocks for them.
    fn quiet_steps(&self) -> u64 {
        let steps = self.engine.quiet_steps();
        if steps == 0 || self.stirred || !self.revisit.is_empty() || !self.dissolved.is_empty() {
            return 0;
        }
        let depth = if self.engine.config().async_scheduling { 2 } else { 1 };
        let decodes = self.engine.num_running();
        let pure = |flight: &Flight| {
            flight.batch.cohort.decodes == decodes && flight.batch.scheduled.is_empty() && !flight.moves
        };
        if self.flights.len() != depth
            || !self.flights.iter().all(pure)
            || !self.engine.stays_blocked(self.blocked)
        {
            return 0;
        }
        steps
    }

    /// Of the quiet steps, those for which there are blocks whatever happens: each decode takes at most one block in
    /// as many steps as a block has tokens.
    fn assured_quiet_steps(&self) -> u64 {
        match self.quiet_steps() {
            0 => 0,
            steps => {
                let rounds = self.engine.kv().pool().free() / self.engine.num_running();
                steps.min(u64::from(rounds) * u64::from(self.engine.config().block_size))
            }
        }
    }

    /// What each of the next `steps` quiet steps takes at least. They never become shorter as their context grows,
    /// up to the rounding where a piece of the cost model ends.
    fn least_quiet_span(&mut self, steps: u64) -> Span {
        let share = self.quiet_share(0);
        let prepared = self.prepare_decodes(share);
        let time = prepared.step(share.context, share.longest);
        let first = step_span(time, self.engine.config().async_scheduling);
        if steps <= prepared.steps(share) { first } else { first.saturating_sub(Span::from_nanos(1)) }
    }

    /// The decodes of the step that starts when `ahead` quiet steps and the running one have ended.
    fn quiet_share(&self, ahead: u64) -> CohortShare {
        let running = self.flights.front().map_or(0, |flight| flight.batch.step);
        self.engine.quiet_share(running + 1 + ahead)
    }

    /// Takes all quiet steps that end before `until` (or at it), and returns how many.
    pub(crate) fn run_quiet<O: Observer>(
        &mut self,
        id: ReplicaId,
        until: Time,
        inclusive: bool,
        observer: &mut O,
    ) -> u64 {
        let Some((span, end)) = self.flights.front().and_then(|flight| flight.running) else {
            return 0;
        };
        let limit = Time::from_nanos(until.as_nanos().saturating_add(u64::from(inclusive)));
        if end >= limit {
            return 0;
        }
        match self.quiet_steps() {
            0 => 0,
            quiet => self.take_quiet_steps(id, (span, end), quiet, limit, observer),
        }
    }

    /// Takes quiet steps, at most `quiet`, from the one that runs on, as long as they end before `limit` and there
    /// are blocks for them.
    fn take_quiet_steps<O: Observer>(
        &mut self,
        id: ReplicaId,
        (mut span, mut end): (Span, Time),
        quiet: u64,
        limit: Time,
        observer: &mut O,
    ) -> u64 {
        let overlapped = self.engine.config().async_scheduling;
        let mut share = self.quiet_share(0);
        let mut prepared = self.prepare_decodes(share);
        let mut covered = prepared.steps(share);
        let decodes = share.decodes;
        let pool = self.engine.kv().pool();
        let (free, used) = (pool.free(), pool.usable() - pool.free());
        let mut phase = (self.engine.next_step() % self.engine.quiet_blocks().len() as u64) as usize;
        let busy_from = Time::from_nanos(end.as_nanos() - span.as_nanos()).max(self.observed_from);
        let mut gaps = [Span::ZERO; REPORT_STEPS];
        let (mut from, mut until, mut gap_count) = (self.last_result, self.last_result, 0);
        let (mut steps, mut blocks, mut needed) = (0, 0, 0);
        while steps < quiet && end < limit {
            let needs = self.engine.quiet_blocks();
            let taken = needs[phase];
            phase = if phase + 1 == needs.len() { 0 } else { phase + 1 };
            if blocks + taken > free {
                break;
            }
            needed = taken;
            if needed > 0 {
                blocks += needed;
                self.blocks_used.set(end, u64::from(used + blocks));
            }
            gaps[gap_count] = end.since(until);
            gap_count += 1;
            self.totals.steps += u64::from(end >= self.observed_from);
            until = end;
            if covered == 0 {
                prepared = self.prepare_decodes(share);
                covered = prepared.steps(share);
            }
            span = step_span(prepared.step(share.context, share.longest), overlapped);
            end = end + span;
            share.context += u64::from(decodes);
            share.longest += 1;
            steps += 1;
            covered -= 1;
            // Where a piece of the cost model ends, a step may be shorter than the one before it.
            if gap_count == REPORT_STEPS || covered == 0 {
                QuietSteps { replica: id, decodes, from, until, gaps: &gaps[..gap_count] }.report(observer);
                (from, gap_count) = (until, 0);
            }
        }
        QuietSteps { replica: id, decodes, from, until, gaps: &gaps[..gap_count] }.report(observer);
        self.last_result = until;
        self.totals.busy += until.saturating_since(busy_from);
        if let Some(published) = self.published.as_mut().filter(|_| steps > 0) {
            // The result of a step is published before the next batch takes its blocks.
            published.blocks_used = used + blocks - needed;
        }
        self.skip_quiet(steps, blocks, (span, end));
        steps
    }

    /// The counters after quiet steps, the next of which ends as `running` says.
    fn skip_quiet(&mut self, steps: u64, blocks: u32, running: (Span, Time)) {
        self.engine.skip_quiet(steps, blocks);
        for flight in &mut self.flights {
            flight.batch.step += steps;
            flight.batch.cohort = self.engine.quiet_share(flight.batch.step);
            flight.shape = StepShape::default();
            flight.shape.add_cohort(flight.batch.cohort);
            flight.overlapped = self.engine.config().async_scheduling;
        }
        if let Some(flight) = self.flights.front_mut() {
            flight.running = Some(running);
        }
    }
}
