//! Host memory as a tier below the GPU: the scheduler's side of vLLM's `OffloadingConnector`
//! (vllm/distributed/kv_transfer/kv_connector/v1/offloading/scheduler.py, 0.32).
//!
//! After every step the chunks that it filled are offered to host memory, and copied there while later steps run. A
//! request that is about to be admitted loads what host memory has after its prefix on the GPU. The blocks of a
//! request that ends are free at once, even while they are copied: who takes such a block must first wait for the
//! copy, which is then flushed.

use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::Transfers;
use super::below::{BelowHost, ByTier, Promotion};
use super::memory::{ChunkId, Eviction, HostMemory, Mark};
use super::remote::External;
use crate::engine::{EngineRequest, Slot};
use crate::kv::Touch;
use crate::prompt::{BlockHash, HashChain};
use crate::request::RequestId;

/// Host memory for KV, by vLLM's names.
#[derive(Clone, Debug, PartialEq)]
pub struct OffloadConfig {
    /// Chunks that fit into host memory.
    pub chunks: u32,
    /// GPU blocks per chunk.
    pub blocks_per_chunk: u32,
    /// Which chunks are evicted first.
    pub eviction: Eviction,
    /// Store what prompts fill, not what answers fill; vLLM's default.
    pub offload_prompt_only: bool,
    /// How often a chunk must have been offered to be stored; 0 and 1 store at once.
    pub store_threshold: u32,
}

/// Number of a copy between GPU and host memory, in order of creation.
pub type JobId = u64;

/// What a request that is about to be admitted found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Which request.
    pub id: RequestId,
    /// Tokens cached on the GPU.
    pub gpu_tokens: u32,
    /// Tokens after those in host memory; `None` when a copy must end before it can be said.
    pub host_tokens: Option<u32>,
}

/// A copy between GPU and host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its number, to be given to [`job_done`](crate::engine::Engine::job_done) at its end.
    pub job: JobId,
    /// Whose KV it is.
    pub id: RequestId,
    /// Places in host memory, one per chunk.
    pub places: Vec<u32>,
    /// Blocks of the request, by position: from each first one up to each last one, excluded.
    pub blocks: SmallVec<[(u32, u32); 1]>,
    /// What is copied to host memory, for the tiers below it, where there are any.
    pub keys: Vec<BlockHash>,
    /// Tokens that are copied from host memory and came there from a tier below, for this request.
    pub promoted: ByTier,
}

/// Number of a request here; it outlives the request in the engine while copies of it are under way.
pub(super) type Key = u32;

#[derive(Clone, Debug)]
pub(super) struct Tiered {
    pub(super) id: RequestId,
    slot: Slot,
    hasher: HashChain,
    /// Names of its full chunks.
    pub(super) keys: Vec<BlockHash>,
    pub(super) marks: Vec<Mark>,
    /// Whether the tiers below have been asked for what it waits for.
    pub(super) promoted: bool,
    /// Chunks that need not be offered any more.
    offered: u32,
    jobs: SmallVec<[JobId; 2]>,
    ended: Option<End>,
}

/// What is left of a request that has ended.
#[derive(Clone, Debug, Default)]
struct End {
    /// Chunks that it may still offer, counted from its first.
    chunks: u32,
    /// Of its blocks, those that somebody has taken since.
    touched: SmallVec<[(u32, u32); 2]>,
    /// Whether its last offer has been made.
    settled: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) request: Key,
    /// Reads host memory, or else writes it.
    pub(super) loads: bool,
    pub(super) chunks: Vec<ChunkId>,
    pub(super) blocks: SmallVec<[(u32, u32); 1]>,
}

/// Host memory, and what is on its way to and from it.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Offload {
    config: OffloadConfig,
    block_tokens: u32,
    pub(super) memory: HostMemory,
    pub(super) below: BelowHost,
    pub(super) requests: Slab<Tiered>,
    /// By slot of the engine.
    of_slot: Vec<Key>,
    jobs: FxHashMap<JobId, Job>,
    next_job: JobId,
    /// Requests that have ended since the last step was formed.
    ended: Vec<Key>,
    /// Copies that the step being formed must wait for.
    flush: Vec<JobId>,
    /// Promotions that start with the step being formed.
    pub(super) promotions: Vec<Promotion>,
}

/// What a request's last step, or its end, lets it offer.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Progress {
    pub(in crate::engine) computed: u32,
    pub(in crate::engine) known: u32,
    pub(in crate::engine) blocks_held: u32,
}

impl Offload {
    pub(super) fn new(config: OffloadConfig, block_tokens: u32) -> Self {
        let memory = HostMemory::new(config.chunks, config.eviction, config.store_threshold);
        Self {
            config,
            block_tokens,
            memory,
            below: BelowHost::default(),
            requests: Slab::new(),
            of_slot: Vec::new(),
            jobs: FxHashMap::default(),
            next_job: 0,
            ended: Vec::new(),
            flush: Vec::new(),
            promotions: Vec::new(),
        }
    }

    pub(super) fn chunk_tokens(&self) -> u32 {
        self.config.blocks_per_chunk * self.block_tokens
    }

    /// A request arrives in the engine.
    pub(in crate::engine) fn add(&mut self, slot: Slot, request: &EngineRequest) {
        let tiered = Tiered {
            id: request.id,
            slot,
            hasher: HashChain::new(self.chunk_tokens(), request.adapter, request.cache_salt),
            keys: Vec::new(),
            marks: Vec::new(),
            promoted: false,
            offered: 0,
            jobs: SmallVec::new(),
            ended: None,
        };
        let at = slot as usize;
        self.of_slot.resize(self.of_slot.len().max(at + 1), Key::MAX);
        self.of_slot[at] = self.requests.insert(tiered) as Key;
    }

    /// Names the chunks that `known` tokens of `request` fill.
    fn learn(&mut self, slot: Slot, request: &EngineRequest, known: u32) -> Key {
        let key = self.of_slot[slot as usize];
        let tiered = &mut self.requests[key as usize];
        tiered.hasher.extend(&mut tiered.keys, &request.prompt, request.output, known);
        tiered.marks.resize(tiered.keys.len(), Mark::default());
        key
    }

    /// How many tokens host memory has after the `local_tokens` that are on the GPU.
    pub(in crate::engine) fn look_up(
        &mut self,
        slot: Slot,
        request: &EngineRequest,
        known: u32,
        local_tokens: u32,
    ) -> External {
        let key = self.learn(slot, request, known);
        let (tiered, chunk_tokens) = (&self.requests[key as usize], self.chunk_tokens());
        if !tiered.jobs.is_empty() {
            return External::Unknown;
        }
        // Less than a chunk is not worth a load.
        let full_tokens = tiered.keys.len() as u32 * chunk_tokens;
        if full_tokens < local_tokens + chunk_tokens {
            return External::Nothing;
        }
        let start = local_tokens / chunk_tokens;
        let mut hits = 0;
        let (mut writing, mut loading) = (false, false);
        for &key in &tiered.keys[start as usize..] {
            let Some(chunk) = self.memory.get(key) else { break };
            hits += 1;
            writing |= self.memory.is_writing(chunk);
            loading |= self.memory.is_loading(chunk);
        }
        let tokens = ((start + hits) * chunk_tokens).saturating_sub(local_tokens);
        if writing || self.promote(key, local_tokens, start + hits) {
            External::Unknown
        } else if tokens < chunk_tokens || !self.load_pays(local_tokens, tokens, ByTier::default()) {
            External::Nothing
        } else if loading {
            External::Unknown
        } else {
            External::Host(tokens)
        }
    }

    /// `slot` loads `tokens` tokens after its first `local_tokens` into blocks that it has been given.
    pub(in crate::engine) fn start_load(&mut self, slot: Slot, local_tokens: u32, tokens: u32) -> Copy {
        let (key, chunk_tokens) = (self.of_slot[slot as usize], self.chunk_tokens());
        let end_tokens = local_tokens + tokens;
        let range = (local_tokens / chunk_tokens) as usize..end_tokens.div_ceil(chunk_tokens) as usize;
        let tiered = &mut self.requests[key as usize];
        let (mut chunks, mut places) = (Vec::new(), Vec::new());
        for (&name, mark) in tiered.keys[range.clone()].iter().zip(&mut tiered.marks[range.clone()]) {
            let chunk = self.memory.get(name).expect("a load follows its lookup at once");
            self.memory.read(chunk, mark);
            places.push(self.memory.place(chunk));
            chunks.push(chunk);
        }
        tiered.offered = range.end as u32;
        let id = tiered.id;
        let promoted = self.promoted_tokens(key, local_tokens, end_tokens);
        let blocks = (local_tokens / self.block_tokens, end_tokens.div_ceil(self.block_tokens));
        let job =
            self.create(Job { request: key, loads: true, chunks, blocks: SmallVec::from_buf([blocks]) });
        Copy { job, id, places, blocks: SmallVec::from_buf([blocks]), keys: Vec::new(), promoted }
    }

    pub(super) fn create(&mut self, job: Job) -> JobId {
        let id = self.next_job;
        self.next_job += 1;
        self.requests[job.request as usize].jobs.push(id);
        self.jobs.insert(id, job);
        id
    }

    /// Whether a running request may have something to offer in a later step.
    pub(in crate::engine) fn may_offer(&self, slot: Slot, request: &EngineRequest) -> bool {
        let tiered = &self.requests[self.of_slot[slot as usize] as usize];
        !self.config.offload_prompt_only || tiered.offered < request.prompt.tokens() / self.chunk_tokens()
    }

    /// Chunks of a request that hold what it may offer: full, computed, on the GPU.
    fn offerable(&self, key: Key, request: &EngineRequest, progress: Progress) -> u32 {
        let mut tokens = progress.computed.min(progress.known);
        if self.config.offload_prompt_only {
            tokens = tokens.min(request.prompt.tokens());
        }
        let named = self.requests[key as usize].keys.len() as u32;
        (tokens / self.chunk_tokens()).min(progress.blocks_held / self.config.blocks_per_chunk).min(named)
    }

    /// Offers what `slot` has filled with the step being formed.
    pub(in crate::engine) fn offer_filled(
        &mut self,
        slot: Slot,
        request: &EngineRequest,
        progress: Progress,
    ) -> Option<Copy> {
        if !self.may_offer(slot, request) {
            return None;
        }
        let key = self.learn(slot, request, progress.known);
        let chunks = self.offerable(key, request, progress);
        self.offer(key, chunks)
    }

    /// Offers the first `chunks` chunks of a request, as far as they were not offered yet. Without room for all that
    /// are not there, nothing is stored, and they are offered again with the next step.
    fn offer(&mut self, key: Key, chunks: u32) -> Option<Copy> {
        let tiered = &mut self.requests[key as usize];
        if tiered.offered >= chunks {
            return None;
        }
        let range = tiered.offered as usize..chunks as usize;
        let placed = self.memory.offer(&tiered.keys[range.clone()], &mut tiered.marks[range])?;
        let first = std::mem::replace(&mut tiered.offered, chunks);
        if placed.is_empty() {
            return None;
        }
        let id = tiered.id;
        let mut blocks: SmallVec<[(u32, u32); 1]> = SmallVec::new();
        for one in &placed {
            let start = (first + one.index) * self.config.blocks_per_chunk;
            let end = start + self.config.blocks_per_chunk;
            match blocks.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => blocks.push((start, end)),
            }
        }
        let chunks = placed.iter().map(|one| one.chunk).collect();
        let places = placed.iter().map(|one| one.place).collect();
        let keys = if self.has_below() {
            let tiered = &self.requests[key as usize];
            placed.iter().map(|one| tiered.keys[(first + one.index) as usize]).collect()
        } else {
            Vec::new()
        };
        let job = self.create(Job { request: key, loads: false, chunks, blocks: blocks.clone() });
        Some(Copy { job, id, places, blocks, keys, promoted: ByTier::default() })
    }

    /// `slot` was preempted: its blocks are free, once they are copied.
    pub(in crate::engine) fn preempted(&mut self, slot: Slot) {
        let tiered = &mut self.requests[self.of_slot[slot as usize] as usize];
        tiered.promoted = false;
        self.flush.extend(&tiered.jobs);
    }

    /// A request ends in the engine, and is about to lose its blocks. Which of them are still to be copied, or may
    /// still be offered: the number under which they are watched, first and last position.
    pub(in crate::engine) fn end(
        &mut self,
        slot: Slot,
        request: &EngineRequest,
        progress: Progress,
    ) -> Option<(u32, u32, u32)> {
        let key = self.learn(slot, request, progress.known);
        // Nobody needed the KV of the last token.
        let useful = request.prompt.tokens().max(progress.known - 1);
        let progress = Progress { computed: progress.computed.min(useful), ..progress };
        let chunks = self.offerable(key, request, progress);
        self.ended.push(key);
        let tiered = &mut self.requests[key as usize];
        tiered.ended = Some(End { chunks, ..End::default() });
        let per_chunk = self.config.blocks_per_chunk;
        let own = (tiered.offered < chunks).then_some((tiered.offered * per_chunk, chunks * per_chunk));
        let copied = tiered.jobs.iter().map(|job| &self.jobs[job]).filter(|job| !job.loads);
        let (from, to) = copied
            .flat_map(|job| job.blocks.iter().copied())
            .chain(own)
            .reduce(|all, range| (all.0.min(range.0), all.1.max(range.1)))?;
        Some((key, from, to))
    }

    /// Somebody takes blocks of a request that has ended.
    pub(in crate::engine) fn touch(&mut self, touch: Touch) {
        let tiered = &mut self.requests[touch.watcher as usize];
        let range = (touch.from, touch.to);
        let copied = |id: &&JobId| !self.jobs[*id].loads && overlap(&self.jobs[*id].blocks, range);
        for &id in tiered.jobs.iter().filter(copied) {
            self.flush.push(id);
        }
        let end = tiered.ended.as_mut().expect("only blocks of ended requests are watched");
        if !end.settled {
            end.touched.push(range);
        }
    }

    /// Makes the last offers of the requests that have ended since the last step; the numbers of those of which then
    /// nothing is left.
    pub(in crate::engine) fn settle_ended(&mut self, stores: &mut Vec<Copy>, gone: &mut Vec<u32>) {
        let ended = std::mem::take(&mut self.ended);
        for &key in &ended {
            let end = self.requests[key as usize].ended.take().expect("it has ended");
            if let Some(store) = self.offer(key, end.chunks) {
                if end.touched.iter().any(|&range| overlap(&store.blocks, range)) {
                    self.flush.push(store.job);
                }
                stores.push(store);
            }
        }
        for key in ended {
            let tiered = &mut self.requests[key as usize];
            tiered.ended = Some(End { settled: true, ..End::default() });
            self.memory.finished(&tiered.keys, &tiered.marks);
            if tiered.jobs.is_empty() {
                self.requests.remove(key as usize);
                gone.push(key);
            }
        }
    }

    /// Copies that the step just formed must wait for, promotions that start with it, and places that lost their chunk.
    pub(in crate::engine) fn take_effects(&mut self, transfers: &mut Transfers) {
        self.flush.sort_unstable();
        self.flush.dedup();
        transfers.flush.append(&mut self.flush);
        transfers.promotions.append(&mut self.promotions);
        transfers.evicted.append(&mut self.memory.evicted);
    }

    /// A copy is over: the slot whose load it was, and the number of a request of which now nothing is left.
    pub(in crate::engine) fn job_done(&mut self, id: JobId) -> (Option<Slot>, Option<u32>) {
        let job = self.jobs.remove(&id).expect("a copy under way");
        for &chunk in &job.chunks {
            if job.loads {
                self.memory.read_done(chunk);
            } else {
                self.memory.write_done(chunk);
            }
        }
        let tiered = &mut self.requests[job.request as usize];
        tiered.jobs.retain(|other| *other != id);
        let landed = job.loads.then_some(tiered.slot);
        let gone = tiered.jobs.is_empty() && tiered.ended.as_ref().is_some_and(|end| end.settled);
        if gone {
            self.requests.remove(job.request as usize);
        }
        (landed, gone.then_some(job.request))
    }

    /// Whether something is to be done with the next step, whatever it computes.
    pub(in crate::engine) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    pub(in crate::engine) fn assert_consistent(&self) {
        self.memory.assert_consistent();
        let known = |(id, job): (&JobId, &Job)| self.requests[job.request as usize].jobs.contains(id);
        assert!(self.jobs.iter().all(known), "a copy belongs to a request");
        let jobs: usize = self.requests.iter().map(|(_, tiered)| tiered.jobs.len()).sum();
        assert_eq!(jobs, self.jobs.len(), "a request's copies are under way");
    }
}

fn overlap(blocks: &[(u32, u32)], range: (u32, u32)) -> bool {
    blocks.iter().any(|&(from, to)| from < range.1 && range.0 < to)
}
