//! A row of a trace as its file has it, before it becomes a [`Record`](crate::record::Record).

use std::path::Path;
use std::sync::Arc;

use forerun_sim::request::{Label, Labels};
use forerun_sim::time::Time;
use rustc_hash::FxHashMap;

use crate::error::WorkloadError;
use crate::record::Start;

/// One row. Its names are labels of the reader's [`Names`].
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Place in the file, from 0: names the request whatever the order of replay.
    pub(super) number: u64,
    /// Line in the file, from 1.
    pub(super) line: u64,
    /// When it is sent, on the file's own clock.
    pub(super) start: Start,
    pub(super) input_tokens: u32,
    /// As recorded: zero when nothing was generated.
    pub(super) output_tokens: u32,
    /// What is known about the prompt's text.
    pub(super) prefix: Prefix,
    /// Recorded block hashes, for [`Prefix::Blocks`].
    pub(super) hashes: Vec<u64>,
    pub(super) name: Option<Box<str>>,
    pub(super) session: Option<Turn>,
    pub(super) max_tokens: Option<u32>,
    pub(super) priority: i32,
    pub(super) tenant: Label,
    pub(super) class: Label,
    pub(super) model: Label,
    pub(super) adapter: Label,
}

/// What a row says about the beginning of its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Nothing.
    Unknown,
    /// Its first `tokens` tokens are those of everybody in `group`.
    Group { group: u64, tokens: u32 },
    /// Hashes of blocks of so many tokens, from the first on.
    Blocks { tokens: u32 },
}

/// A row's place in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Turn {
    /// Index into [`Names`].
    pub(super) session: u32,
    /// 1 for the first.
    pub(super) turn: u32,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            number: 0,
            line: 0,
            start: Start::At(Time::ZERO),
            input_tokens: 1,
            output_tokens: 1,
            prefix: Prefix::Unknown,
            hashes: Vec::new(),
            name: None,
            session: None,
            max_tokens: None,
            priority: 0,
            tenant: Label::NONE,
            class: Label::NONE,
            model: Label::NONE,
            adapter: Label::NONE,
        }
    }
}

impl Row {
    /// About how many bytes the row takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, |name| name.len());
        size_of::<Self>() + name + self.hashes.len() * size_of::<u64>()
    }
}

/// The names that rows refer to by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Tenants, classes, models, adapters.
    pub(super) labels: Labels,
    sessions: Vec<Arc<str>>,
    index: FxHashMap<Arc<str>, u32>,
}

impl Names {
    /// The number of session `name`, made on first use.
    pub(super) fn session(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.index.get(name) {
            return number;
        }
        let number = u32::try_from(self.sessions.len()).expect("fewer than 2^32 sessions");
        let name: Arc<str> = name.into();
        self.sessions.push(name.clone());
        self.index.insert(name, number);
        number
    }

    /// The name of session `number`.
    pub(super) fn session_name(&self, number: u32) -> &Arc<str> {
        &self.sessions[number as usize]
    }
}

/// The rows of a trace in some order.
pub(super) trait Rows: Send {
    /// Reads the next row into `row`; `false` at the end.
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError>;

    /// The names that the rows read so far refer to.
    fn names(&self) -> &Names;
}

/// Reads the next row and checks what every format must hold.
pub(super) fn read_checked(rows: &mut dyn Rows, row: &mut Row, path: &Path) -> Result<bool, WorkloadError> {
    if !rows.read(row)? {
        return Ok(false);
    }
    if row.input_tokens == 0 {
        let what = "no input tokens: a prompt has at least one; leave such rows out";
        return Err(WorkloadError::row(path, row.line, what));
    }
    Ok(true)
}

impl<R: Rows + ?Sized> Rows for Box<R> {
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError> {
        (**self).read(row)
    }

    fn names(&self) -> &Names {
        (**self).names()
    }
}
