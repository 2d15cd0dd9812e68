//! The engine of one replica: vLLM 0.32's scheduler, step by step.
//!
//! [`Engine::schedule`] forms a batch as `Scheduler.schedule` does; [`Engine::update`] takes its result as
//! `Scheduler.update_from_output` does. Both are checked field by field against recordings of the real
//! scheduler. The engine knows order and blocks, not time: the replica around it gives steps their duration.
//!
//! | rule | file |
//! |---|---|
//! | arguments and defaults | `config` |
//! | who is in the next batch, with how many tokens; preemption | `schedule` |
//! | what a finished batch changes | `update` |
//! | order of the waiting queue | `queue` |
//! | decodes that need no listing | `cohort`, `longest` |
//! | tokens that a draft guesses ahead | `speculation` |
//! | where LoRA adapters are, and what loading one costs | `adapters` |
//! | KV from other engines and from host memory | `connector` |
//! | blocks, prefix hits, eviction | [`crate::kv`] |

pub mod adapters;
mod cohort;
pub mod config;
pub mod connector;
mod longest;
mod queue;
mod schedule;
pub mod speculation;
mod update;

use slab::Slab;

use crate::kv::block_pool::{BlockId, BlockPool};
use crate::kv::manager::{Holding, KvManager};
use crate::kv::{Pool, TokenSource};
use crate::prompt::{Content, Prompt};
use crate::request::{Cause, Label, Request, RequestId, Stop};
pub use cohort::CohortShare;
use cohort::{Cohort, Tenure};
use config::{EngineConfig, Policy};
use connector::{Connector, RemoteKv, Transfers};
use queue::{PriorityKey, WaitingQueue};
use speculation::Verdicts;

/// Index of a request in the engine.
type Slot = u32;

/// What the engine must know of a request.
#[derive(Clone, Debug)]
pub struct EngineRequest {
    /// The number by which its caller knows it; that of a live request at a time.
    pub id: RequestId,
    /// Its prompt, shorter than `max_model_len`.
    pub prompt: Prompt,
    /// Identity of what it generates.
    pub output: Content,
    /// Tokens after which it really stops.
    pub output_tokens: u32,
    /// Tokens after which the scheduler knows that it stops.
    pub max_tokens: u32,
    /// Lower is served first under the priority policy.
    pub priority: i32,
    /// LoRA adapter.
    pub adapter: Option<u32>,
    /// Requests of different salts share no cache.
    pub cache_salt: u64,
    /// Whether another engine computes its prompt or its answer.
    pub remote: Option<RemoteKv>,
}

impl EngineRequest {
    /// What the engine must know of `request`, which its caller knows by `id`, given the server's `max_model_len`.
    #[must_use]
    pub fn new(id: RequestId, request: &Request, max_model_len: u32) -> Self {
        let room = max_model_len.saturating_sub(request.prompt.tokens());
        let limit = request.max_tokens.unwrap_or(room).min(room);
        let output_tokens = request.output_tokens.min(limit);
        Self {
            id,
            prompt: request.prompt.clone(),
            output: request.output,
            output_tokens,
            max_tokens: match request.stop {
                Stop::Length => output_tokens,
                Stop::Eos => limit,
            },
            priority: request.priority,
            adapter: request.adapter.is_some().then_some(request.adapter.0),
            cache_salt: 0,
            remote: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Preempted,
    Running,
    /// Holds blocks into which its KV is being copied (vLLM's `WAITING_FOR_REMOTE_KVS`).
    Loading,
    /// That KV has arrived; the scheduler has not looked yet.
    Loaded,
    /// Finished; its blocks are held until another engine has read them.
    Sending,
    /// Aborted while its KV was being copied: its blocks are held until that is over.
    Draining,
    /// Finished or aborted with a batch still in flight: its last outputs are dropped.
    Gone,
}

/// A request inside the engine. Counts are tokens.
#[derive(Clone, Debug)]
struct Entry<P: Pool> {
    request: EngineRequest,
    /// Order of arrival at this engine.
    arrival: u64,
    /// Order of the last admission: running requests are sorted by it.
    admission: u64,
    /// Its tenure in the cohort; the counters below are then those at its beginning.
    tenure: Option<Tenure>,
    state: State,
    /// Whether it is in the queue of those that hold blocks without running.
    holds: bool,
    emitted: u32,
    computed: u32,
    /// Async scheduling: output tokens that batches in flight will have produced.
    placeholders: u32,
    /// Tokens scheduled in batches not yet updated.
    inflight: u32,
    /// Of those, tokens scheduled before the last preemption.
    stale: u32,
    /// Whether those tokens are dropped when they arrive.
    drops_stale: bool,
    /// Whether the last batch left prompt tokens uncomputed.
    chunk: bool,
    /// Guesses that its next batch verifies.
    guesses: u32,
    preemptions: u32,
    holding: Holding<P>,
}

impl<P: Pool> Entry<P> {
    /// Prompt plus emitted tokens.
    fn known(&self) -> u32 {
        self.request.prompt.tokens() + self.emitted
    }

    fn key(&self) -> PriorityKey {
        (self.request.priority, self.arrival)
    }

    /// Whether it is out of the scheduler's hands: what batches in flight bring for it is dropped.
    fn has_ended(&self) -> bool {
        matches!(self.state, State::Sending | State::Draining | State::Gone)
    }
}

/// One request's part in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Which request.
    pub id: RequestId,
    slot: Slot,
    /// Tokens computed before this step.
    pub computed: u32,
    /// Tokens computed in this step.
    pub new: u32,
    /// Whether its last known token is computed in this step, so that it samples a token.
    pub samples: bool,
    /// Whether this step only extends its output: by a token, and by guesses that turn out right.
    pub decode: bool,
    /// Of the new tokens, guesses that are verified, or room for such.
    pub guesses: u32,
}

/// A request admitted to the batch in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Which request.
    pub id: RequestId,
    /// Tokens found in the prefix cache.
    pub hit_tokens: u32,
    /// Whether it had been preempted before.
    pub resumed: bool,
}

/// One batch: what a step computes.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Number of the step, counted over the batches that were not empty when they were formed.
    pub step: u64,
    /// Whether it was not empty then; it may have become so, when the cohort was dissolved after a finish.
    counted: bool,
    /// Requests that are listed one by one, in batch order.
    pub scheduled: Vec<Scheduled>,
    /// All others: decodes in lockstep.
    pub cohort: CohortShare,
    /// Requests admitted, in order.
    pub admitted: Vec<Admission>,
    /// Requests preempted, in order.
    pub preempted: Vec<RequestId>,
    /// Waiting requests passed over because `max_loras` other adapters run.
    pub lora_skipped: Vec<RequestId>,
    /// Why the requests that still wait were not admitted.
    pub blocked: Option<Cause>,
    /// Transfers of KV that start with this step.
    pub transfers: Transfers,
}

impl Batch {
    /// Whether the step computes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scheduled.is_empty() && self.cohort.decodes == 0
    }

    /// Tokens computed in this step.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.scheduled.iter().map(|part| part.new).sum::<u32>() + self.cohort.decodes
    }

    fn clear(&mut self) {
        self.scheduled.clear();
        self.counted = false;
        self.cohort = CohortShare::default();
        self.admitted.clear();
        self.preempted.clear();
        self.lora_skipped.clear();
        self.blocked = None;
        self.transfers.clear();
    }
}

/// A token delivered by a batch, with those that were guessed before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub id: RequestId,
    /// How many tokens the request has emitted, this one included.
    pub emitted: u32,
    /// How many tokens came together: 1 without speculation.
    pub together: u32,
    /// Whether it was the last one.
    pub last: bool,
    /// Whether it is one of the cohort's tokens, which are counted together.
    pub lockstep: bool,
}

/// vLLM's scheduler and KV cache manager of one replica.
#[derive(Clone, Debug)]
pub struct Engine<P: Pool = BlockPool> {
    config: EngineConfig,
    kv: KvManager<P>,
    requests: Slab<Entry<P>>,
    running: Vec<Slot>,
    waiting: WaitingQueue,
    /// Requests that hold blocks and do not run; admitted before those that wait (vLLM's `kv_holding`).
    holding: WaitingQueue,
    connector: Option<Connector>,
    arrivals: u64,
    /// `arrivals` when the scheduler last looked, and how many of those that came since are still here.
    looked: u64,
    unseen: u32,
    admissions: u64,
    /// Steps formed and steps whose results are in.
    formed: u64,
    updated: u64,
    /// Running requests in lockstep, and those that are listed one by one, in order of admission. Without
    /// lockstep all are listed, and `listed` is not kept.
    cohort: Cohort,
    listed: Vec<Slot>,
    /// Requests that finish with the result being taken; kept to reuse its memory.
    finished: Vec<(Slot, Token)>,
    /// Which guesses are right, where there are some.
    verdicts: Option<Verdicts>,
    /// Adapters of the batch being formed; kept to reuse its memory. So for `skipped`.
    adapters: Vec<u32>,
    skipped: Vec<Slot>,
    skipped_holding: Vec<Slot>,
}

impl<P: Pool> Engine<P> {
    /// An idle engine. `config` has been checked with [`EngineConfig::check`].
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let waiting = match config.policy {
            Policy::Fcfs => WaitingQueue::Fcfs(Default::default()),
            Policy::Priority => WaitingQueue::Priority(Default::default()),
        };
        let cohort = Cohort::new(config.block_size);
        let kv = KvManager::new(
            config.num_gpu_blocks,
            config.block_size,
            config.prefix_caching,
            config.max_model_len,
        );
        Self {
            verdicts: config.speculation.as_ref().map(Verdicts::new),
            config,
            kv,
            requests: Slab::new(),
            running: Vec::new(),
            holding: waiting.clone(),
            waiting,
            connector: None,
            arrivals: 0,
            looked: 0,
            unseen: 0,
            admissions: 0,
            formed: 0,
            updated: 0,
            cohort,
            listed: Vec::new(),
            finished: Vec::new(),
            adapters: Vec::new(),
            skipped: Vec::new(),
            skipped_holding: Vec::new(),
        }
    }

    /// The engine's arguments.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The engine's KV cache.
    #[must_use]
    pub fn kv(&self) -> &KvManager<P> {
        &self.kv
    }

    /// Puts a request into the waiting queue and returns its handle, valid until it finishes or is aborted.
    pub fn add(&mut self, request: EngineRequest) -> Handle {
        debug_assert!(
            request.prompt.tokens() > 0 && request.output_tokens > 0,
            "prompt and output are not empty"
        );
        debug_assert!(
            request.prompt.tokens() < self.config.max_model_len,
            "the server rejects longer prompts"
        );
        let tokens = TokenSource {
            prompt: request.prompt.clone(),
            output: request.output,
            adapter: request.adapter,
            salt: request.cache_salt,
        };
        let entry = Entry {
            holding: self.kv.holding(&tokens),
            request,
            arrival: self.arrivals,
            admission: 0,
            tenure: None,
            state: State::Waiting,
            holds: false,
            emitted: 0,
            computed: 0,
            placeholders: 0,
            inflight: 0,
            stale: 0,
            drops_stale: false,
            chunk: false,
            guesses: 0,
            preemptions: 0,
        };
        self.arrivals += 1;
        self.unseen += 1;
        let key = entry.key();
        let slot = self.requests.insert(entry) as Slot;
        if let Some(offload) = self.connector.as_mut().and_then(|connector| connector.offload.as_mut()) {
            offload.add(slot, &self.requests[slot as usize].request);
        }
        self.waiting.push(key, slot);
        Handle(slot)
    }

    /// Drops a request, wherever it is; its blocks are free at once (vLLM `finish_requests`, aborted). The cohort
    /// must have been [dissolved](Self::dissolve).
    pub fn abort(&mut self, handle: Handle) {
        let slot = handle.0;
        self.unseen -= u32::from(self.is_unseen(slot));
        match self.requests[slot as usize].state {
            State::Running => self.leave_running(slot),
            State::Waiting | State::Preempted | State::Loading | State::Loaded => self.leave_queue(slot),
            State::Sending | State::Draining | State::Gone => unreachable!("aborted after its end"),
        }
        let loading = self.requests[slot as usize].state == State::Loading;
        self.retire(slot, if loading { State::Draining } else { State::Gone });
    }

    /// Whether any request waits or runs.
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.running.is_empty() || self.num_waiting() > 0
    }

    /// Number of running requests.
    #[must_use]
    pub fn num_running(&self) -> u32 {
        self.running.len() as u32
    }

    /// Number of waiting requests, those included whose KV is being loaded.
    #[must_use]
    pub fn num_waiting(&self) -> u32 {
        (self.waiting.len() + self.holding.len()) as u32
    }

    /// Of those that wait, the ones that the scheduler has seen, as vLLM's gauge `num_requests_waiting` counts them:
    /// it is set with a step's result, and what arrives during a step stays in an input queue until the step is over
    /// (v1/engine/core.py, `run_busy_loop`).
    #[must_use]
    pub fn num_waiting_seen(&self) -> u32 {
        self.num_waiting() - self.unseen
    }

    fn is_unseen(&self, slot: Slot) -> bool {
        self.requests[slot as usize].arrival >= self.looked
    }

    /// Running requests, in order of admission.
    pub fn running(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.running.iter().map(|&slot| self.requests[slot as usize].request.id)
    }

    /// Waiting requests, in queue order.
    pub fn waiting(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.waiting.iter().map(|slot| self.requests[slot as usize].request.id)
    }

    /// The KV blocks of a live request.
    #[must_use]
    pub fn chain(&self, handle: Handle) -> &P::Chain {
        self.requests[handle.0 as usize].holding.chain()
    }

    /// The chain of a request that is not here (yet).
    pub(crate) fn chain_of(&mut self, request: &EngineRequest) -> P::Chain {
        let tokens = TokenSource {
            prompt: request.prompt.clone(),
            output: request.output,
            adapter: request.adapter,
            salt: request.cache_salt,
        };
        self.kv.holding(&tokens).chain().clone()
    }

    /// Leading tokens of `chain`'s `tokens` whose blocks are cached here: whole blocks.
    pub(crate) fn cached_tokens(&self, chain: &P::Chain, tokens: u32) -> u32 {
        let block_size = self.config.block_size;
        self.kv.pool().cached(chain, 0, tokens / block_size) * block_size
    }

    /// The adapters of running requests and of those that are seen to wait, each once, in order of their first request.
    pub(crate) fn adapters(&self, running: &mut Vec<Label>, waiting: &mut Vec<Label>) {
        let distinct = |slots: &mut dyn Iterator<Item = Slot>, out: &mut Vec<Label>| {
            out.clear();
            for adapter in slots.filter_map(|slot| self.requests[slot as usize].request.adapter) {
                if !out.contains(&Label(adapter)) {
                    out.push(Label(adapter));
                }
            }
        };
        distinct(&mut self.running.iter().copied(), running);
        distinct(&mut self.waiting.iter().filter(|&slot| !self.is_unseen(slot)), waiting);
    }

    /// The distinct adapters of the batch that was just formed, in order of their numbers.
    pub(crate) fn batch_adapters(&self, batch: &Batch, adapters: &mut Vec<u32>) {
        adapters.clear();
        adapters.extend(self.cohort.adapters());
        let listed = batch.scheduled.iter();
        adapters.extend(listed.filter_map(|part| self.requests[part.slot as usize].request.adapter));
        adapters.sort_unstable();
        adapters.dedup();
    }

    /// The prompt of a request in a batch that was just formed, and its adapter.
    pub(crate) fn prompt_of(&self, part: &Scheduled) -> (&Prompt, Option<u32>) {
        let request = &self.requests[part.slot as usize].request;
        (&request.prompt, request.adapter)
    }

    /// How often a live request was preempted.
    #[must_use]
    pub fn preemptions(&self, handle: Handle) -> u32 {
        self.requests[handle.0 as usize].preemptions
    }

    /// Takes a request out of the running ones, which are in order of admission.
    fn leave_running(&mut self, slot: Slot) {
        let admission = |slot: Slot| self.requests[slot as usize].admission;
        let own = admission(slot);
        let position = self.running.partition_point(|&other| admission(other) < own);
        debug_assert_eq!(self.running[position], slot);
        self.running.remove(position);
        if P::LOCKSTEP {
            self.listed.retain(|&other| other != slot);
        }
    }

    /// Takes a request out of the queue that it is in.
    fn leave_queue(&mut self, slot: Slot) {
        let entry = &self.requests[slot as usize];
        let queue = if entry.holds { &mut self.holding } else { &mut self.waiting };
        queue.remove(entry.key(), slot);
    }

    /// Ends a request's life in the engine, in the state `last`: its blocks are free now, unless somebody still
    /// copies them.
    fn retire(&mut self, slot: Slot, last: State) {
        self.note_end(slot);
        self.requests[slot as usize].state = last;
        if last == State::Gone {
            self.vacate(slot);
        }
    }

    /// Checks the conservation laws of the engine's state.
    ///
    /// # Panics
    /// When one is broken.
    pub fn assert_consistent(&self) {
        let chains = self.requests.iter().map(|(_, entry)| entry.holding.chain());
        self.kv.pool().assert_consistent(chains);
        if let Some(connector) = &self.connector {
            connector.assert_consistent();
        }
        assert!(self.running.len() <= self.config.active_seqs() as usize, "|running| <= max_num_active_seqs");
        for (_, entry) in self.requests.iter().filter(|(_, entry)| entry.tenure.is_none()) {
            let guessed = if entry.inflight > 0 { self.config.guesses() } else { 0 };
            assert!(entry.computed <= entry.known() + entry.placeholders + guessed, "computed <= known");
            let held = self.kv.pool().held(entry.holding.chain()) * self.config.block_size;
            assert!(entry.state != State::Running || held >= entry.computed, "computed tokens have blocks");
            let may_hold = entry.state != State::Gone && (entry.computed > 0 || entry.holds);
            assert!(may_hold || held == 0, "who has computed nothing holds no blocks");
        }
    }
}

impl Engine<BlockPool> {
    /// The block ids that a request of the last batch holds.
    #[must_use]
    pub fn block_table(&self, part: &Scheduled) -> &[BlockId] {
        self.requests[part.slot as usize].holding.chain().table()
    }
}

/// A live request's place in its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(Slot);
