//! One request of a workload before it is sent: what trace readers and generators produce.

use std::sync::Arc;

use forerun_sim::prompt::Prompt;
use forerun_sim::request::{Label, Labels};
use forerun_sim::time::{Span, Time};

use crate::error::WorkloadError;

/// The most tokens that one prompt or answer may have: far above any model, far below overflow.
pub const TOKENS_MAX: u32 = 1 << 24;

/// When a record is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this time.
    At(Time),
    /// So long after the previous turn of its session ended.
    AfterPrevious(Span),
}

/// Place of a record in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTurn {
    /// Number of the session in this workload.
    pub session: u64,
    /// The session's name in the trace, where it has one.
    pub name: Option<Arc<str>>,
    /// 1 for the first turn.
    pub turn: u32,
}

/// One request of a workload.
#[derive(Clone, Debug)]
pub struct Record {
    /// Number of the record in its workload, unique: also names what it generates
    /// (`Content::generated(number)`), so that a later turn can contain it.
    pub number: u64,
    /// Its id in the trace, where it has one.
    pub name: Option<Box<str>>,
    /// When it is sent.
    pub start: Start,
    /// What it asks.
    pub prompt: Prompt,
    /// Tokens that it generates; at least 1.
    pub output_tokens: u32,
    /// The client's `max_tokens`, if recorded.
    pub max_tokens: Option<u32>,
    /// vLLM priority: lower first.
    pub priority: i32,
    /// Who pays; [`Label::NONE`] when not given. So for the next three.
    pub tenant: Label,
    /// SLO class.
    pub class: Label,
    /// Model asked for.
    pub model: Label,
    /// LoRA adapter.
    pub adapter: Label,
    /// Its place in a conversation.
    pub session: Option<SessionTurn>,
}

/// A stream of records.
///
/// Records that start [`At`](Start::At) a time come in order of that time. A record that starts
/// [`AfterPrevious`](Start::AfterPrevious) comes after its previous turn and before the next record that
/// starts at a time, so that a driver can hold it until it is due.
pub trait Records: Send {
    /// The next record, or `None` at the end. Names are interned in `labels`.
    ///
    /// # Errors
    /// When the input is wrong or cannot be read.
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError>;
}
