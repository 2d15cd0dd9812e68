//! The first pass over a trace: it checks every row and learns what the replay needs to know.

use std::path::Path;

use forerun_sim::time::{Span, Time};
use rustc_hash::{FxHashMap, FxHashSet};

use super::grid::GridFinder;
use super::input::no_rows;
use super::order::ROWS_MAX;
use super::row::{Names, Prefix, Row, Rows, Turn, read_checked};
use crate::error::WorkloadError;
use crate::record::Start;

/// What the first pass learns.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) rows: u64,
    arrivals: Option<(Time, Time)>,
    latest: Time,
    pub(super) unsorted: bool,
    /// Rows that follow their previous turn, with their lines.
    pub(super) followers: Vec<(u64, Turn)>,
    turns: FxHashSet<Turn>,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    /// Rows that recorded no output.
    pub(super) silent: u64,
    /// Whether any row says what its prompt shares.
    pub(super) prefixes: bool,
    /// What is learnt in order of time: right only when the file is sorted.
    pub(super) passage: Passage,
}

impl Survey {
    /// Reads all rows of `source`.
    pub(super) fn of(source: &mut dyn Rows, path: &Path) -> Result<Self, WorkloadError> {
        let mut survey = Self::default();
        let mut row = Row::default();
        while read_checked(source, &mut row, path)? {
            survey.see(&row, source.names(), path)?;
        }
        survey.check_followers(source.names(), path)?;
        if survey.rows == 0 {
            return Err(no_rows(path));
        }
        Ok(survey)
    }

    fn see(&mut self, row: &Row, names: &Names, path: &Path) -> Result<(), WorkloadError> {
        self.rows += 1;
        self.input_tokens += u64::from(row.input_tokens);
        self.output_tokens += u64::from(row.output_tokens.max(1));
        self.silent += u64::from(row.output_tokens == 0);
        self.prefixes |= row.prefix != Prefix::Unknown;
        if let Some(turn) = row.session {
            self.see_turn(turn, row, names, path)?;
        }
        if let Start::At(at) = row.start {
            let (first, last) = self.arrivals.unwrap_or((at, at));
            self.arrivals = Some((first.min(at), last.max(at)));
            self.unsorted |= at < self.latest;
            self.latest = at;
        }
        if !self.unsorted {
            self.passage.see(row);
        }
        Ok(())
    }

    fn see_turn(&mut self, turn: Turn, row: &Row, names: &Names, path: &Path) -> Result<(), WorkloadError> {
        if !self.turns.insert(turn) {
            let what = format!(
                "turn {} of session `{}` is there twice",
                turn.turn,
                names.session_name(turn.session)
            );
            return Err(WorkloadError::row(path, row.line, what));
        }
        if self.turns.len() > ROWS_MAX {
            let what = format!("more than {ROWS_MAX} rows with sessions; split the trace");
            return Err(WorkloadError::row(path, row.line, what));
        }
        if let Start::AfterPrevious(_) = row.start {
            self.followers.push((row.line, turn));
        }
        Ok(())
    }

    /// Every row that follows its previous turn has one.
    fn check_followers(&self, names: &Names, path: &Path) -> Result<(), WorkloadError> {
        for &(line, turn) in &self.followers {
            let previous = Turn { turn: turn.turn - 1, ..turn };
            if !self.turns.contains(&previous) {
                let what = format!(
                    "turn {} of session `{}` starts `think_s` after turn {}, which the trace lacks; \
                     give it an arrival instead",
                    turn.turn,
                    names.session_name(turn.session),
                    previous.turn
                );
                return Err(WorkloadError::row(path, line, what));
            }
        }
        Ok(())
    }

    /// Whether rows must be put in order before they can be replayed.
    pub(super) fn needs_order(&self) -> bool {
        self.unsorted || !self.followers.is_empty()
    }

    pub(super) fn sessions(&self) -> bool {
        !self.turns.is_empty()
    }

    /// The first arrival, and the time from it to the last.
    pub(super) fn arrivals(&self) -> (Time, Span) {
        let (first, last) = self.arrivals.unwrap_or_default();
        (first, last.since(first))
    }
}

/// What a pass in order of replay learns.
#[derive(Debug, Default)]
pub(super) struct Passage {
    pub(super) grid: GridFinder,
    /// The last turn of each session, and how many tokens its prompt and answer have.
    contexts: FxHashMap<u32, (u32, u64)>,
    /// Turns replayed before an earlier turn of their session.
    pub(super) out_of_turn: u64,
    /// Turns whose prompt is shorter than what was said before.
    pub(super) shortened: u64,
}

impl Passage {
    /// The passage of `rows`, which are in order.
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut passage = Self::default();
        rows.iter().for_each(|row| passage.see(row));
        passage
    }

    fn see(&mut self, row: &Row) {
        if let Start::At(at) = row.start {
            self.grid.see(at);
        }
        let Some(Turn { session, turn }) = row.session else {
            return;
        };
        let context = u64::from(row.input_tokens) + u64::from(row.output_tokens.max(1));
        let Some((last, before)) = self.contexts.insert(session, (turn, context)) else {
            return;
        };
        let known = matches!(row.prefix, Prefix::Blocks { .. });
        if turn < last {
            self.out_of_turn += 1;
        } else if !known && u64::from(row.input_tokens) < before {
            self.shortened += 1;
        }
    }
}
