//! Overlaying copies of a trace, each moved around the circle of the recording.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use forerun_sim::request::Labels;
use forerun_sim::rng::Stream;
use forerun_sim::time::{Span, Time};

use super::{ScalePlan, Thinned};
use crate::error::WorkloadError;
use crate::record::{Record, Records, Start};
use crate::trace::Trace;

/// Shifted copies, merged by time.
pub(super) struct Superposed {
    copies: Vec<Ahead>,
    /// The next arrival of every copy that has one.
    due: BinaryHeap<Reverse<(Time, usize)>>,
    started: bool,
    /// The copy whose record came last: its turns that follow by think time come next.
    current: Option<usize>,
}

/// A copy and its next record.
struct Ahead {
    copy: Box<dyn Records>,
    next: Option<Record>,
}

impl Superposed {
    /// Whole copies, and a thinned one for the rest of the factor. The first stays where it was recorded.
    pub(super) fn new(trace: &Trace, plan: &ScalePlan, seed: u64) -> Result<Self, WorkloadError> {
        let mut copies = Vec::new();
        // The remainder that rounding leaves of a whole factor is no copy.
        let count = ((plan.factor - 1e-9).ceil() as u64).max(1);
        for copy in 0..count {
            let mut stream = Stream::new(seed, &format!("superpose/{copy}"));
            let (shift, own_seed) = match copy {
                0 => (Span::ZERO, seed),
                _ => {
                    let shift = stream.uniform() * plan.period.as_nanos() as f64;
                    (Span::from_nanos(shift as u64), stream.bits())
                }
            };
            let shifted = Shifted::new(trace, plan.period, shift, own_seed, copy)?;
            let part = plan.factor - copy as f64;
            let copy: Box<dyn Records> = if part < 1.0 {
                Box::new(Thinned::new(Box::new(shifted), part, seed))
            } else {
                Box::new(shifted)
            };
            copies.push(Ahead { copy, next: None });
        }
        Ok(Self { copies, due: BinaryHeap::new(), started: false, current: None })
    }

    /// Reads the next record of copy `index`, and says whether it follows directly.
    fn advance(&mut self, index: usize, labels: &mut Labels) -> Result<bool, WorkloadError> {
        let ahead = &mut self.copies[index];
        ahead.next = ahead.copy.next(labels)?;
        match ahead.next.as_ref().map(|record| record.start) {
            Some(Start::At(at)) => {
                self.due.push(Reverse((at, index)));
                Ok(false)
            }
            Some(Start::AfterPrevious(_)) => Ok(true),
            None => Ok(false),
        }
    }
}

impl Records for Superposed {
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        if !self.started {
            self.started = true;
            for index in 0..self.copies.len() {
                self.advance(index, labels)?;
            }
        }
        if let Some(index) = self.current
            && self.advance(index, labels)?
        {
            return Ok(self.copies[index].next.take());
        }
        self.current = self.due.pop().map(|Reverse((_, index))| index);
        Ok(self.current.and_then(|index| self.copies[index].next.take()))
    }
}

/// One copy of a trace, moved around the circle of its period: what is pushed out at the end comes in at
/// the beginning, as a second pass over the file. A conversation that is cut there comes back as another
/// one that was already under way.
struct Shifted {
    trace: Trace,
    seed: u64,
    copy: u64,
    shift: Span,
    /// What is recorded from here on comes first.
    cut: Time,
    pass: Box<dyn Records>,
    /// Whether this is the pass over the records that come first.
    wrapped: bool,
    /// The turns that follow by think time go where their first turn goes.
    taken: bool,
}

impl Shifted {
    fn new(trace: &Trace, period: Span, shift: Span, seed: u64, copy: u64) -> Result<Self, WorkloadError> {
        Ok(Self {
            pass: trace.records(seed)?,
            trace: trace.clone(),
            seed,
            copy,
            shift,
            cut: Time::ZERO + (period - shift),
            wrapped: shift > Span::ZERO,
            taken: false,
        })
    }

    /// Where `record` goes; `None` when it belongs to the other pass.
    fn place(&mut self, record: &Record) -> Option<Start> {
        let Start::At(at) = record.start else {
            return self.taken.then_some(record.start);
        };
        self.taken = (at >= self.cut) == self.wrapped;
        self.taken
            .then(|| Start::At(if self.wrapped { Time::ZERO + at.since(self.cut) } else { at + self.shift }))
    }

    /// Gives the copy's record an identity of its own. Shared prefixes stay shared.
    fn resalted(&self, record: Record, start: Start) -> Record {
        // Numbers of rows stay below 2^40, so that copies never meet.
        let salt = self.copy << 40;
        let mut record =
            Record { number: record.number ^ salt, start, prompt: record.prompt.resalted(salt), ..record };
        if self.copy > 0 {
            let name = record.name.take();
            record.name = name.map(|name| format!("{name}+{}", self.copy).into());
        }
        if let Some(turn) = &mut record.session {
            turn.session = turn.session << 1 | u64::from(self.wrapped);
            turn.session ^= salt;
            if self.copy > 0 {
                let half = if self.wrapped { "b" } else { "" };
                let name = turn.name.take();
                turn.name = name.map(|name| format!("{name}+{}{half}", self.copy).into());
            }
        }
        record
    }
}

impl Records for Shifted {
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        loop {
            while let Some(record) = self.pass.next(labels)? {
                if let Some(start) = self.place(&record) {
                    return Ok(Some(self.resalted(record, start)));
                }
                // Arrivals only grow: the pass over the beginning ends at the cut.
                if !self.wrapped && matches!(record.start, Start::At(_)) {
                    return Ok(None);
                }
            }
            if !self.wrapped {
                return Ok(None);
            }
            self.wrapped = false;
            self.pass = self.trace.records(self.seed)?;
        }
    }
}
