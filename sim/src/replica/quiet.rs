//! Steps that change nothing but the counters of decodes in lockstep: taken in one loop, or foreseen.

use super::{Flight, Gauge, Replica, step_span};
use crate::cost::DecodeLine;
use crate::engine::{CohortShare, Engine};
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
        let (_, end) = self.flights.running()?;
        let bound = match self.assured_quiet_steps() {
            0 if self.may_turn_over() => end + self.next_span(),
            0 => end,
            steps => end + self.least_quiet_span(steps).times(steps),
        };
        Some((bound, Rank::StepDone))
    }

    /// How many steps from the one that runs on change nothing but the counters of the decodes in lockstep, as long
    /// as there are blocks for them.
    fn quiet_steps(&self) -> u64 {
        let decodes = self.engine.num_running();
        let pure = |flight: &Flight| flight.batch.cohort.decodes == decodes && flight.is_lockstep();
        let front = self.flights.front().is_some_and(pure);
        let all = front && self.flights.len() == self.depth() && self.flights.behind().is_none_or(pure);
        if all && !self.must_look() { self.engine.quiet_steps() } else { 0 }
    }

    /// Whether the scheduler may find something to change when it looks next, beside what becomes of the decodes; or
    /// others say when the next step starts.
    fn must_look(&self) -> bool {
        self.lock_step
            || self.stirred
            || !self.revisit.is_empty()
            || !self.dissolved.is_empty()
            || !self.engine.stays_blocked(self.blocked)
    }

    /// Of the quiet steps, those for which there are blocks whatever happens: each decode takes at most one block in
    /// as many steps as a block has tokens. The step after all of them counts if it only [turns over](Self::turn_over).
    fn assured_quiet_steps(&mut self) -> u64 {
        let steps = self.quiet_steps();
        self.foreseen = Some(steps);
        if steps == 0 {
            return 0;
        }
        let rounds = self.engine.kv().pool().free() / self.engine.num_running();
        let steps = steps + u64::from(self.turns_over());
        steps.min(u64::from(rounds) * u64::from(self.engine.config().block_size))
    }

    /// Whether a step is worth a look at whether it only [turns over](Self::turn_over).
    fn turns_over(&self) -> bool {
        self.lora.is_none() && self.depth() == 2 && !self.engine.is_connected()
    }

    /// Whether the running step only [turns over](Self::turn_over).
    fn may_turn_over(&self) -> bool {
        let front = self.flights.front().is_some_and(Flight::is_lockstep);
        front
            && self.turns_over()
            && self.flights.len() == 2
            && !self.must_look()
            && self.engine.may_turn_over()
    }

    /// How long the batch behind the running one will take.
    fn next_span(&mut self) -> Span {
        self.flights.behind_mut().map_or(Span::ZERO, |flight| flight.span(&mut self.timer))
    }

    /// What each of the next `steps` quiet steps takes at least. They never become shorter as their context grows,
    /// up to the rounding where a piece of the cost model ends.
    fn least_quiet_span(&mut self, steps: u64) -> Span {
        let share = self.quiet_share(0);
        let prepared = self.timer.decodes(share);
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
    pub(crate) fn run_quiet(
        &mut self,
        id: ReplicaId,
        until: Time,
        inclusive: bool,
        observer: &mut dyn Observer,
    ) -> u64 {
        let limit = Time::from_nanos(until.as_nanos().saturating_add(u64::from(inclusive)));
        let mut steps = 0;
        while let Some(running) = self.flights.running().filter(|&(_, end)| end < limit) {
            let quiet = self.foreseen.take().unwrap_or_else(|| self.quiet_steps());
            debug_assert_eq!(quiet, self.quiet_steps(), "what changes a replica makes it look again");
            let taken = match quiet {
                0 => 0,
                _ => self.take_quiet_steps(id, running, quiet, limit, observer),
            };
            steps += taken;
            self.foreseen = Some(quiet - taken);
            if taken == 0 {
                if !self.may_turn_over() {
                    break;
                }
                self.turn_over(id, running, observer);
                steps += 1;
            }
        }
        steps
    }

    /// Takes the running step, of decodes in lockstep of which none ends with it, and forms the next batch of nothing
    /// else: what [`Fleet`](crate::fleet) does at the end of a step, where the other batch in flight is of any kind
    /// and decodes may have their last token in it.
    fn turn_over(&mut self, id: ReplicaId, (span, end): (Span, Time), observer: &mut dyn Observer) {
        let Some(mut flight) = self.flights.pop() else { return };
        let decodes = flight.batch.cohort.decodes;
        let (from, gap) = (self.last_result, end.since(self.last_result));
        self.report_quiet(QuietSteps { replica: id, decodes, from, until: end, gaps: &[gap] }, observer);
        self.totals.busy += span.min(end.saturating_since(self.observed_from));
        self.last_result = end;
        self.publish();
        self.disturb();
        if self.engine.turn_over(&mut flight.batch) {
            flight.measure();
            (flight.overlapped, flight.running) = (true, None);
            self.flights.push(flight);
        } else {
            self.recycle(flight);
        }
        self.note_blocks(end);
        if let Some(next) = self.flights.front_mut() {
            let span = next.span(&mut self.timer);
            next.running = Some((span, end + span));
        }
    }

    /// Takes quiet steps, at most `quiet`, from the one that runs on, as long as they end before `limit` and there
    /// are blocks for them.
    fn take_quiet_steps(
        &mut self,
        id: ReplicaId,
        (span, end): (Span, Time),
        quiet: u64,
        limit: Time,
        observer: &mut dyn Observer,
    ) -> u64 {
        let overlapped = self.engine.config().async_scheduling;
        let mut share = self.quiet_share(0);
        let decodes = share.decodes;
        let busy_from = Time::from_nanos(end.as_nanos() - span.as_nanos()).max(self.observed_from);
        let mut blocks = BlockPace::new(&self.engine);
        let mut gaps = [Span::ZERO; REPORT_STEPS];
        let (mut from, mut count) = (self.last_result, 0);
        let mut now = Clockwork { until: from, span, end };
        let (mut steps, mut more) = (0, true);
        while more && steps < quiet {
            let prepared = self.timer.decodes(share);
            let covered = prepared.steps(share).min(quiet - steps);
            let room = &mut gaps[count..];
            let length = room.len().min(covered.try_into().unwrap_or(usize::MAX));
            let line = prepared.line(share, overlapped);
            let needs = self.engine.quiet_blocks();
            let taken = now.run(&mut room[..length], line, limit, &mut blocks, needs, &mut self.blocks_used);
            count += taken;
            more = taken == length;
            steps += taken as u64;
            share.context += u64::from(decodes) * taken as u64;
            share.longest += taken as u64;
            // Where a piece of the cost model ends, a step may be shorter than the one before it.
            if count == REPORT_STEPS || taken as u64 == covered {
                self.report_quiet(
                    QuietSteps { replica: id, decodes, from, until: now.until, gaps: &gaps[..count] },
                    observer,
                );
                (from, count) = (now.until, 0);
            }
        }
        self.report_quiet(
            QuietSteps { replica: id, decodes, from, until: now.until, gaps: &gaps[..count] },
            observer,
        );
        self.last_result = now.until;
        self.totals.busy += now.until.saturating_since(busy_from);
        if let Some(published) = self.published.as_mut().filter(|_| steps > 0) {
            published.blocks_used = blocks.published();
            // What came before the first of them is seen by now.
            published.waiting = self.engine.num_waiting_seen();
        }
        self.skip_quiet(steps, blocks.taken, (now.span, now.end));
        steps
    }

    /// Reports quiet steps, and counts those that ended in the observed period.
    fn report_quiet(&mut self, steps: QuietSteps<'_>, observer: &mut dyn Observer) {
        let Some(&first) = steps.gaps.first() else { return };
        let all = steps.from + first >= self.observed_from;
        let observed =
            if all { steps.gaps.len() } else { steps.split_before(self.observed_from).1.gaps.len() };
        self.totals.steps += observed as u64;
        steps.report(observer);
    }

    /// The counters after quiet steps, the next of which ends as `running` says.
    fn skip_quiet(&mut self, steps: u64, blocks: u32, running: (Span, Time)) {
        self.engine.skip_quiet(steps, blocks);
        for flight in self.flights.iter_mut() {
            flight.batch.step += steps;
            flight.batch.cohort = self.engine.quiet_share(flight.batch.step);
            flight.measure();
            flight.overlapped = self.engine.config().async_scheduling;
        }
        if let Some(flight) = self.flights.front_mut() {
            flight.running = Some(running);
        }
    }
}

/// The blocks that quiet steps take.
struct BlockPace {
    /// Free blocks and blocks in use, before the first step.
    free: u32,
    used: u32,
    /// Number of the next step, modulo the block size.
    phase: usize,
    /// Taken in all, and for the last batch.
    taken: u32,
    last: u32,
}

impl BlockPace {
    fn new<P: Pool>(engine: &Engine<P>) -> Self {
        let pool = engine.kv().pool();
        let phase = (engine.next_step() % engine.quiet_blocks().len() as u64) as usize;
        Self { free: pool.free(), used: pool.usable() - pool.free(), phase, taken: 0, last: 0 }
    }

    /// Blocks in use that the last step published: its result comes before the next batch takes its blocks.
    fn published(&self) -> u32 {
        self.used + self.taken - self.last
    }
}

/// The clock of quiet steps.
#[derive(Clone, Copy)]
struct Clockwork {
    /// When the last result came in.
    until: Time,
    /// How long the running step takes, and when it ends.
    span: Span,
    end: Time,
}

impl Clockwork {
    /// Takes a step for each place in `gaps` and notes there how long after the last result its own came in; stops
    /// before a step that ends at `limit` or later, or whose end finds too few free blocks for the next batch.
    /// `needs` are the blocks that batches need, by their number modulo the block size. Returns how many steps it took.
    fn run(
        &mut self,
        gaps: &mut [Span],
        mut line: DecodeLine,
        limit: Time,
        blocks: &mut BlockPace,
        needs: &[u32],
        used: &mut Gauge,
    ) -> usize {
        let mut taken = 0;
        while taken < gaps.len() && self.end < limit {
            let needed = needs[blocks.phase];
            if needed > 0 {
                if blocks.taken + needed > blocks.free {
                    break;
                }
                blocks.taken += needed;
                used.set(self.end, u64::from(blocks.used + blocks.taken));
            }
            // The steps after it whose batches need none.
            let room = (gaps.len() - taken).min(needs.len() - blocks.phase);
            let later = &needs[blocks.phase + 1..blocks.phase + room];
            let alike = 1 + later.iter().take_while(|&&needed| needed == 0).count();
            let passed = self.pass(&mut gaps[taken..taken + alike], &mut line, limit);
            taken += passed;
            blocks.last = if passed == 1 { needed } else { 0 };
            blocks.phase += passed;
            if blocks.phase == needs.len() {
                blocks.phase = 0;
            }
        }
        taken
    }

    /// Takes a step for each place in `gaps`, as [`run`](Self::run) does, where none but the first needs blocks.
    #[inline]
    fn pass(&mut self, gaps: &mut [Span], line: &mut DecodeLine, limit: Time) -> usize {
        let (Self { mut until, mut span, mut end }, mut ahead) = (*self, *line);
        let mut passed = 0;
        while passed < gaps.len() && end < limit {
            gaps[passed] = end.since(until);
            until = end;
            span = ahead.next_span();
            end = end + span;
            passed += 1;
        }
        (*self, *line) = (Self { until, span, end }, ahead);
        passed
    }
}
