//! Rows held in memory in the order of replay: for traces that are not sorted, or whose later turns
//! follow the end of earlier ones.

use std::path::Path;
use std::sync::Arc;

use forerun_sim::time::Time;
use rustc_hash::FxHashMap;

use super::row::{Names, Row, Rows, Turn, read_checked};
use crate::error::WorkloadError;
use crate::record::Start;

/// The most rows that are held in memory.
pub(super) const ROWS_MAX: usize = 20_000_000;
/// The most memory that held rows take.
const BYTES_MAX: usize = 6 << 30;

/// How much memory rows may still take.
#[derive(Debug, Default)]
pub(super) struct Budget {
    rows: usize,
    bytes: usize,
}

impl Budget {
    /// Counts `row`, which is about to be held for the sake of `whom`.
    pub(super) fn spend(&mut self, row: &Row, path: &Path, whom: &str) -> Result<(), WorkloadError> {
        self.rows += 1;
        self.bytes += row.bytes();
        if self.rows > ROWS_MAX || self.bytes > BYTES_MAX {
            return Err(WorkloadError::row(
                path,
                row.line,
                format!(
                    "too many rows to hold in memory for {whom} (at most {ROWS_MAX} rows, {} GiB); \
                     a trace that is sorted by arrival, without sessions, is streamed at any length",
                    BYTES_MAX >> 30
                ),
            ));
        }
        Ok(())
    }
}

/// All rows of a trace, in the order of replay.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) rows: Vec<Row>,
    names: Names,
}

impl Held {
    /// Reads all rows and puts them in order.
    pub(super) fn load(source: &mut dyn Rows, path: &Path) -> Result<Self, WorkloadError> {
        let mut rows = Vec::new();
        let mut budget = Budget::default();
        let mut row = Row::default();
        while read_checked(source, &mut row, path)? {
            budget.spend(&row, path, "sorting")?;
            rows.push(row.clone());
        }
        sort(&mut rows);
        let names = source.names().clone();
        Ok(Self { rows, names })
    }
}

/// Where a row is replayed: behind the request (time and number) that its chain of turns hangs on, in order
/// of turns.
type Place = (Time, u64, u32);

/// Sorts by time. A row that follows its previous turn comes directly behind it.
fn sort(rows: &mut [Row]) {
    let mut anchors: FxHashMap<Turn, (Time, u64)> = FxHashMap::default();
    let mut followers = Vec::new();
    for row in rows.iter() {
        match (row.start, row.session) {
            (Start::At(at), Some(turn)) => {
                anchors.insert(turn, (at, row.number));
            }
            (Start::AfterPrevious(_), Some(turn)) => followers.push(turn),
            _ => {}
        }
    }
    followers.sort_unstable();
    for turn in followers {
        let previous = Turn { turn: turn.turn - 1, ..turn };
        if let Some(&anchor) = anchors.get(&previous) {
            anchors.insert(turn, anchor);
        }
    }
    let place = |row: &Row| -> Place {
        let turn = row.session.map_or(0, |turn| turn.turn);
        match (row.start, row.session.and_then(|turn| anchors.get(&turn))) {
            (Start::At(at), _) => (at, row.number, turn),
            (Start::AfterPrevious(_), Some(&(at, number))) => (at, number, turn),
            // The survey has refused such a row.
            (Start::AfterPrevious(_), None) => (Time::NEVER, row.number, turn),
        }
    };
    rows.sort_by_cached_key(place);
}

/// A pass over rows in memory.
pub(super) struct HeldRows {
    held: Arc<Held>,
    next: usize,
}

impl HeldRows {
    pub(super) fn new(held: Arc<Held>) -> Self {
        Self { held, next: 0 }
    }
}

impl Rows for HeldRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError> {
        let Some(next) = self.held.rows.get(self.next) else {
            return Ok(false);
        };
        row.clone_from(next);
        self.next += 1;
        Ok(true)
    }

    fn names(&self) -> &Names {
        &self.held.names
    }
}
