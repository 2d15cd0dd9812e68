//! Coarse timestamps: finding their grid, and spreading rows over it.
//!
//! Some exports round arrivals to seconds, so that ten requests seem to arrive at once. Queues then look
//! several times as long as they were: Mooncake's conversation trace sits on a grid of 3.000 s.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use forerun_sim::rng::Stream;
use forerun_sim::time::{Span, Time};

use super::order::Budget;
use super::row::{Names, Row, Rows};
use crate::error::WorkloadError;
use crate::record::Start;

/// Finer stamps are taken at their word.
const FINEST: Span = Span::from_secs(1);

/// Finds the grid of a sorted sequence of timestamps.
#[derive(Clone, Debug, Default)]
pub(super) struct GridFinder {
    rows: u64,
    stamps: u64,
    first: Time,
    last: Time,
    smallest_gap: Option<Span>,
}

impl GridFinder {
    /// Takes the next timestamp, not earlier than the one before.
    pub(super) fn see(&mut self, at: Time) {
        if self.rows == 0 {
            self.first = at;
            self.stamps = 1;
        } else if at > self.last {
            let gap = at.since(self.last);
            self.smallest_gap = Some(self.smallest_gap.map_or(gap, |smallest| smallest.min(gap)));
            self.stamps += 1;
        }
        self.last = at;
        self.rows += 1;
    }

    /// The step of the grid, if there is one: at least two rows per stamp, no two stamps closer than a
    /// second, and most steps taken. Stamps need not be exact multiples: exporters' timers drift.
    pub(super) fn step(&self) -> Option<Span> {
        let step = self.smallest_gap.filter(|&gap| gap >= FINEST)?;
        let steps = self.last.since(self.first).as_nanos() / step.as_nanos();
        let regular = self.stamps >= 3 && steps <= 3 * (self.stamps - 1);
        (regular && self.rows >= 2 * self.stamps).then_some(step)
    }
}

/// Sorted rows, each moved by a uniform part of the step of their grid, and sorted again.
pub(super) struct Spread<R> {
    rows: R,
    step: Span,
    stream: Stream,
    /// The rows of one stamp, the earliest last.
    group: Vec<Row>,
    /// The first row of the next stamp.
    ahead: Option<Row>,
    path: PathBuf,
}

impl<R: Rows> Spread<R> {
    pub(super) fn new(rows: R, step: Span, seed: u64, path: &Path) -> Self {
        Self {
            rows,
            step,
            stream: Stream::new(seed, "dequantise"),
            group: Vec::new(),
            ahead: None,
            path: path.to_owned(),
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, WorkloadError> {
        match self.ahead.take() {
            Some(row) => Ok(Some(row)),
            None => {
                let mut row = Row::default();
                Ok(self.rows.read(&mut row)?.then_some(row))
            }
        }
    }

    /// Reads all rows of the next stamp. Groups never overlap, because no gap is smaller than the step.
    fn fill(&mut self) -> Result<(), WorkloadError> {
        let Some(first) = self.next_row()? else {
            return Ok(());
        };
        let stamp = first.start;
        let mut budget = Budget::default();
        let mut next = Some(first);
        while let Some(mut row) = next.take() {
            if row.start != stamp {
                self.ahead = Some(row);
                break;
            }
            budget.spend(&row, &self.path, "one timestamp")?;
            let shift = self.stream.uniform() * self.step.as_nanos() as f64;
            if let Start::At(at) = stamp {
                row.start = Start::At(at + Span::from_nanos(shift as u64));
            }
            self.group.push(row);
            next = self.next_row()?;
        }
        self.group.sort_by_key(|row| {
            let at = match row.start {
                Start::At(at) => at,
                Start::AfterPrevious(_) => Time::NEVER,
            };
            Reverse((at, row.number))
        });
        Ok(())
    }
}

impl<R: Rows> Rows for Spread<R> {
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError> {
        if self.group.is_empty() {
            self.fill()?;
        }
        match self.group.pop() {
            Some(next) => {
                *row = next;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn names(&self) -> &Names {
        self.rows.names()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(millis: impl IntoIterator<Item = u64>) -> Option<Span> {
        let mut finder = GridFinder::default();
        for at in millis {
            finder.see(Time::ZERO + Span::from_millis(at));
        }
        finder.step()
    }

    #[test]
    fn bulk_arrivals_every_three_seconds_are_a_grid() {
        let stamps = (0..100).map(|row| row / 10 * 3000);
        assert_eq!(step(stamps), Some(Span::from_secs(3)));
    }

    #[test]
    fn a_drifting_timer_is_a_grid_of_its_smallest_gap() {
        let stamps = (0..100).map(|row| row / 10 * 3053 + row / 10 % 2);
        assert_eq!(step(stamps), Some(Span::from_millis(3052)));
    }

    #[test]
    fn single_arrivals_fine_stamps_and_irregular_batches_are_no_grid() {
        assert_eq!(step((0..100).map(|row| row * 3000)), None, "one per stamp");
        assert_eq!(step((0..100).map(|row| row / 10 * 500)), None, "half a second");
        assert_eq!(step((0..100u64).map(|row| (row / 10).pow(3) * 1000)), None, "batches");
        assert_eq!(step([0; 100]), None, "one stamp");
        assert_eq!(step([]), None);
    }
}
