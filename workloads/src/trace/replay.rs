//! From rows to records: times from zero, prompts from what is known about them.

use std::path::PathBuf;

use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels};
use forerun_sim::time::Time;
use rustc_hash::FxHashMap;

use super::row::{Names, Prefix, Row, Rows, Turn, read_checked};
use crate::error::WorkloadError;
use crate::record::{Record, Records, SessionTurn, Start};

/// A pass over a trace.
pub(super) struct Replay {
    path: PathBuf,
    rows: Box<dyn Rows>,
    row: Row,
    /// The first arrival: time zero of the records.
    first: Option<Time>,
    last: Time,
    histories: FxHashMap<u32, History>,
}

/// The last turn of a session, which the next one contains.
struct History {
    turn: u32,
    number: u64,
    prompt: Prompt,
    output_tokens: u32,
}

impl Replay {
    pub(super) fn new(rows: Box<dyn Rows>, path: PathBuf) -> Self {
        Self {
            path,
            rows,
            row: Row::default(),
            first: None,
            last: Time::ZERO,
            histories: FxHashMap::default(),
        }
    }

    /// When the current row starts, from the first arrival.
    fn start(&mut self) -> Result<Start, WorkloadError> {
        let Start::At(at) = self.row.start else {
            return Ok(self.row.start);
        };
        let first = *self.first.get_or_insert(at);
        if at < self.last {
            let what = "arrivals run backwards here, unlike when the file was checked: it has changed since";
            return Err(WorkloadError::row(&self.path, self.row.line, what));
        }
        self.last = at;
        Ok(Start::At(Time::ZERO + at.since(first)))
    }

    /// What the current row asks.
    fn prompt(&self) -> Prompt {
        let row = &self.row;
        let mut prompt = Prompt::new();
        let mut push = |content, tokens: u32| {
            let left = row.input_tokens - prompt.tokens();
            prompt.push(content, tokens.min(left));
        };
        let earlier = row.session.and_then(|Turn { session, turn }| {
            let history = self.histories.get(&session);
            history.filter(|history| history.turn < turn)
        });
        match (row.prefix, earlier) {
            (Prefix::Blocks { tokens }, _) => {
                let hashes = row.hashes.iter();
                hashes.for_each(|&hash| push(Content::recorded(hash), tokens));
            }
            (_, Some(history)) => {
                for segment in history.prompt.segments() {
                    push(segment.content, segment.tokens);
                }
                push(Content::generated(history.number), history.output_tokens);
            }
            (Prefix::Group { group, tokens }, None) => push(Content::shared(group), tokens),
            (Prefix::Unknown, None) => {}
        }
        push(Content::private(row.number), row.input_tokens);
        prompt
    }

    fn remember(&mut self, prompt: &Prompt) {
        if let Some(Turn { session, turn }) = self.row.session {
            let history = History {
                turn,
                number: self.row.number,
                prompt: prompt.clone(),
                output_tokens: self.row.output_tokens.max(1),
            };
            self.histories.insert(session, history);
        }
    }
}

impl Records for Replay {
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        if !read_checked(&mut *self.rows, &mut self.row, &self.path)? {
            return Ok(None);
        }
        let start = self.start()?;
        let prompt = self.prompt();
        self.remember(&prompt);
        let (row, names) = (&mut self.row, self.rows.names());
        let mut label = |label| relabelled(label, names, labels);
        Ok(Some(Record {
            number: row.number,
            name: row.name.take(),
            start,
            prompt,
            output_tokens: row.output_tokens.max(1),
            max_tokens: row.max_tokens,
            priority: row.priority,
            tenant: label(row.tenant),
            class: label(row.class),
            model: label(row.model),
            adapter: label(row.adapter),
            session: row.session.map(|Turn { session, turn }| SessionTurn {
                session: u64::from(session),
                name: Some(names.session_name(session).clone()),
                turn,
            }),
        }))
    }
}

/// A label of the file as a label of the run.
fn relabelled(label: Label, names: &Names, labels: &mut Labels) -> Label {
    if label.is_some() { labels.intern(names.labels.name(label)) } else { Label::NONE }
}
