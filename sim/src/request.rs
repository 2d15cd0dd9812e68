//! Requests and what became of them.

use std::sync::Arc;

use crate::prompt::{Content, Prompt};
use crate::time::{Span, Time};

/// A number given to every request of a run, in the order in which the source made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An index into the run's [`Labels`]: a tenant, class, model or adapter name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u32);

/// Names that occur many times in a run, each stored once.
///
/// Index 0 is the empty name: "none given".
#[derive(Clone, Debug)]
pub struct Labels {
    names: Vec<Arc<str>>,
    index: rustc_hash::FxHashMap<Arc<str>, Label>,
}

impl Label {
    /// No name was given.
    pub const NONE: Self = Self(0);

    /// Whether a name was given.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl Default for Labels {
    fn default() -> Self {
        let mut labels = Self { names: Vec::new(), index: rustc_hash::FxHashMap::default() };
        labels.intern("");
        labels
    }
}

impl Labels {
    /// The label of `name`, made on first use.
    pub fn intern(&mut self, name: &str) -> Label {
        if let Some(&label) = self.index.get(name) {
            return label;
        }
        let label = Label(u32::try_from(self.names.len()).expect("fewer than 2^32 names"));
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        self.index.insert(name, label);
        label
    }

    /// The label of `name`, if it was ever interned.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Label> {
        self.index.get(name).copied()
    }

    /// The name behind a label.
    #[must_use]
    pub fn name(&self, label: Label) -> &str {
        &self.names[label.0 as usize]
    }

    /// How many names there are, the empty one included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: the empty name is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Place of a request in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Number of the session in this run.
    pub id: u64,
    /// The session's name in the trace, where it has one.
    pub name: Option<Arc<str>>,
    /// 1 for the first turn.
    pub turn: u32,
}

/// Whether the engine can foresee the end of a request's output (it plans async batches by it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The client's `max_tokens` ends it: benchmarks that force the output length.
    Length,
    /// An end-of-sequence token ends it, unforeseen: recorded traffic.
    Eos,
}

/// One request as its client sends it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number in this run.
    pub id: RequestId,
    /// Its id in the trace, where it has one.
    pub name: Option<Box<str>>,
    /// When the client sends it.
    pub arrival: Time,
    /// What it asks.
    pub prompt: Prompt,
    /// Identity of what it generates.
    pub output: Content,
    /// Tokens that it generates when nothing cuts it short; at least 1.
    pub output_tokens: u32,
    /// Who foresees the end of the output.
    pub stop: Stop,
    /// The client's `max_tokens`, if it sets one. With [`Stop::Length`] the output length stands in for it.
    pub max_tokens: Option<u32>,
    /// vLLM priority: lower is served first.
    pub priority: i32,
    /// Who pays.
    pub tenant: Label,
    /// SLO class.
    pub class: Label,
    /// The model asked for; [`Label::NONE`] asks for whatever is served.
    pub model: Label,
    /// LoRA adapter; [`Label::NONE`] is the base model.
    pub adapter: Label,
    /// Its place in a conversation.
    pub session: Option<Session>,
}

impl Request {
    /// Whether this is its id in outcome files: its name in the trace, or its number.
    #[must_use]
    pub fn is_called(&self, id: &str) -> bool {
        self.name.as_deref().map_or_else(|| id.parse() == Ok(self.id.0), |name| name == id)
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// All output tokens were delivered.
    Completed,
    /// Accepted, but not finished.
    Failed(Failure),
    /// Turned away before any work.
    Rejected(Rejection),
    /// Still in flight at the horizon of the run.
    Unfinished,
}

/// Why an accepted request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The client gave up waiting.
    Timeout,
    /// The KV of its prompt was gone when it was to be pulled.
    Transfer,
    /// The replica that had it died.
    Fault,
    /// The router took it back to make room for a request of higher priority: HTTP 429.
    Evicted,
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// Prompt not shorter than `max_model_len`.
    TooLong,
    /// `max_num_queued_reqs` of its replica reached: HTTP 503.
    QueueFull,
    /// No pool serves the model that it names.
    NoSuchModel,
    /// The router turned it away.
    Router(Refusal),
}

/// Why a router turned a request away; what the client is answered is llm-d's (pkg/epp, v0.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No endpoint passed the filters: HTTP 429.
    NoEndpoint,
    /// The pool is saturated and the request's priority is negative: HTTP 429.
    Saturated,
    /// An admission plugin denied it: HTTP 500.
    Denied,
    /// The queue of its priority band, or the router's whole queue, is full: HTTP 429.
    BandFull,
    /// It waited in the router's queue for longer than its time to live: HTTP 429.
    Expired,
    /// It was in flight, and is taken back to make room for one of higher priority: HTTP 429.
    Evicted,
}

impl Status {
    /// The word used in outcome files: completed, failed, rejected, unfinished.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed(_) => "failed",
            Self::Rejected(_) => "rejected",
            Self::Unfinished => "unfinished",
        }
    }

    /// Why, in one word; empty when completed or unfinished.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Failed(Failure::Timeout) => "timeout",
            Self::Failed(Failure::Transfer) => "transfer",
            Self::Failed(Failure::Fault) => "fault",
            Self::Failed(Failure::Evicted) | Self::Rejected(Rejection::Router(Refusal::Evicted)) => "evicted",
            Self::Rejected(Rejection::TooLong) => "too_long",
            Self::Rejected(Rejection::QueueFull) => "queue_full",
            Self::Rejected(Rejection::NoSuchModel) => "no_such_model",
            Self::Rejected(Rejection::Router(Refusal::NoEndpoint)) => "no_endpoint",
            Self::Rejected(Rejection::Router(Refusal::Saturated)) => "saturated",
            Self::Rejected(Rejection::Router(Refusal::Denied)) => "denied",
            Self::Rejected(Rejection::Router(Refusal::BandFull)) => "band_full",
            Self::Rejected(Rejection::Router(Refusal::Expired)) => "ttl",
            Self::Completed | Self::Unfinished => "",
        }
    }
}

/// Where a request's time went. The causes of one request add up to its end-to-end time, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Fixed costs before the engine: gateway, endpoint picker, API server, tokenizer.
    Overhead,
    /// Held in the router's own queue.
    RouterQueue,
    /// In the engine's queue until the step in flight ends and the scheduler looks.
    EngineQueueStep,
    /// In the engine's queue because `max_num_seqs` requests run.
    EngineQueueSlots,
    /// In the engine's queue because KV blocks are short; includes the wait after a preemption.
    EngineQueueKv,
    /// In the engine's queue because a step's token budget was spent.
    EngineQueueBudget,
    /// In the engine's queue because `max_loras` other adapters run.
    EngineQueueLora,
    /// From admission to the first token, and recomputation after a preemption.
    OwnPrefill,
    /// KV transfer between replicas, or from host memory.
    Transfer,
    /// Steps that generate its tokens, at the pace they would have without others' prefills.
    Decode,
    /// What those steps took longer because they also computed others' prefills.
    StalledByOthersPrefill,
}

impl Cause {
    /// All causes, in the order in which a request meets them.
    pub const ALL: [Self; 11] = [
        Self::Overhead,
        Self::RouterQueue,
        Self::EngineQueueStep,
        Self::EngineQueueSlots,
        Self::EngineQueueKv,
        Self::EngineQueueBudget,
        Self::EngineQueueLora,
        Self::OwnPrefill,
        Self::Transfer,
        Self::Decode,
        Self::StalledByOthersPrefill,
    ];

    /// The key used in summaries.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Overhead => "overhead",
            Self::RouterQueue => "router_queue",
            Self::EngineQueueStep => "engine_queue_step",
            Self::EngineQueueSlots => "engine_queue_slots",
            Self::EngineQueueKv => "engine_queue_kv",
            Self::EngineQueueBudget => "engine_queue_budget",
            Self::EngineQueueLora => "engine_queue_lora",
            Self::OwnPrefill => "own_prefill",
            Self::Transfer => "transfer",
            Self::Decode => "decode",
            Self::StalledByOthersPrefill => "stalled_by_others_prefill",
        }
    }
}

/// Time by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakdown([Span; Cause::ALL.len()]);

impl Breakdown {
    /// Adds `span` to `cause`.
    pub fn add(&mut self, cause: Cause, span: Span) {
        self.0[cause as usize] += span;
    }

    /// Moves up to `span` from one cause to another, and says how much.
    pub fn shift(&mut self, from: Cause, to: Cause, span: Span) {
        let moved = span.min(self.0[from as usize]);
        self.0[from as usize] -= moved;
        self.0[to as usize] += moved;
    }

    /// Time spent on `cause`.
    #[must_use]
    pub fn get(&self, cause: Cause) -> Span {
        self.0[cause as usize]
    }

    /// All causes together.
    #[must_use]
    pub fn total(&self) -> Span {
        self.0.iter().copied().sum()
    }
}

/// Index of a replica in its fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u32);

/// What became of one request: one line of the outcomes file, the source of all reported figures.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request itself.
    pub request: Request,
    /// How it ended.
    pub status: Status,
    /// The replica that served it (the last one, when it was sent again).
    pub replica: Option<ReplicaId>,
    /// The replica that computed its prompt, when that was another one.
    pub prefill_replica: Option<ReplicaId>,
    /// When the engine received it.
    pub queued: Option<Time>,
    /// First admission to a batch.
    pub scheduled: Option<Time>,
    /// First output token at the client.
    pub first_token: Option<Time>,
    /// When it ended, however it ended.
    pub ended: Time,
    /// Output tokens delivered.
    pub emitted: u32,
    /// Prompt tokens that were cached at first admission, in whichever tier.
    pub cached_tokens: u32,
    /// Those of them that were loaded from host memory.
    pub cached_cpu_tokens: u32,
    /// Those of them that came from the replica's disk.
    pub cached_disk_tokens: u32,
    /// Those of them that came from the file system that replicas share.
    pub cached_shared_tokens: u32,
    /// Prompt tokens computed although another replica held them at that moment.
    pub duplicate_tokens: u32,
    /// How often it was preempted.
    pub preemptions: u32,
    /// How often the client sent it again after a timeout.
    pub retries: u32,
    /// How often it was sent again because its replica died.
    pub restarts: u32,
    /// Where its time went, from its arrival to its end; time of earlier attempts included.
    pub spent: Breakdown,
}

impl Outcome {
    /// The outcome of a request just sent, of which nothing is known yet.
    pub(crate) fn open(request: Request) -> Self {
        Self {
            status: Status::Unfinished,
            replica: None,
            prefill_replica: None,
            queued: None,
            scheduled: None,
            first_token: None,
            ended: request.arrival,
            emitted: 0,
            cached_tokens: 0,
            cached_cpu_tokens: 0,
            cached_disk_tokens: 0,
            cached_shared_tokens: 0,
            duplicate_tokens: 0,
            preemptions: 0,
            retries: 0,
            restarts: 0,
            spent: Breakdown::default(),
            request,
        }
    }

    /// Tokens of it that were on the GPU.
    #[must_use]
    pub fn cached_gpu_tokens(&self) -> u32 {
        self.cached_tokens - self.cached_cpu_tokens - self.cached_disk_tokens - self.cached_shared_tokens
    }

    /// Of the tokens that were loaded, at most so many count as cached: the slowest tier's last.
    pub(crate) fn limit_loaded(&mut self, most: u32) {
        self.cached_cpu_tokens = self.cached_cpu_tokens.min(most);
        self.cached_disk_tokens = self.cached_disk_tokens.min(most - self.cached_cpu_tokens);
        let others = self.cached_cpu_tokens + self.cached_disk_tokens;
        self.cached_shared_tokens = self.cached_shared_tokens.min(most - others);
    }

    /// Time to first token.
    #[must_use]
    pub fn ttft(&self) -> Option<Span> {
        self.first_token.map(|at| at.since(self.request.arrival))
    }

    /// Mean time per output token after the first; `None` for a single token or an unfinished answer.
    /// In nanoseconds, unrounded.
    #[must_use]
    pub fn tpot_nanos(&self) -> Option<f64> {
        let first = self.first_token?;
        (self.status == Status::Completed && self.emitted > 1)
            .then(|| self.ended.since(first).as_nanos() as f64 / f64::from(self.emitted - 1))
    }

    /// Arrival to last token, for completed requests.
    #[must_use]
    pub fn e2e(&self) -> Option<Span> {
        (self.status == Status::Completed).then(|| self.ended.since(self.request.arrival))
    }

    /// Arrival at the engine to first admission.
    #[must_use]
    pub fn queue(&self) -> Option<Span> {
        Some(self.scheduled?.since(self.queued?))
    }
}
