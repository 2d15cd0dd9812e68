//! What lies below host memory: looked up after it, promoted to it, and from there loaded.
//!
//! vLLM `v1/kv_offload/tiering` (0.32): a chunk that only a tier below has is promoted first, and the request is asked
//! again when that is over. A request is promoted for once in each of its waits: what has left host memory again by
//! then is computed. Not checked against recordings.

use std::fmt::Debug;
use std::sync::Arc;

use super::JobId;
use super::offload::{Job, Key, Offload};
use crate::engine::{Engine, EngineRequest};
use crate::kv::Pool;
use crate::kv::tiers::{SharedShelf, Tier};
use crate::prompt::{BlockHash, HashChain};
use crate::request::RequestId;

/// Chunks of each tier below host memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByTier {
    /// Of the replica's own disk.
    pub disk: u32,
    /// Of the file system that replicas share.
    pub shared: u32,
}

impl ByTier {
    /// Adds so much to a tier.
    pub fn add(&mut self, tier: Tier, count: u32) {
        match tier {
            Tier::Disk => self.disk += count,
            Tier::Shared => self.shared += count,
        }
    }

    /// All tiers together.
    #[must_use]
    pub fn total(self) -> u32 {
        self.disk + self.shared
    }
}

/// Says whether to load KV or to compute it again. vLLM always loads.
pub trait LoadOrCompute: Debug + Send + Sync {
    /// Whether loading `tokens` tokens after the first `local_tokens`, of which `below` chunks must be promoted before,
    /// takes no longer than computing them.
    fn loads(&self, local_tokens: u32, tokens: u32, below: ByTier) -> bool;
}

/// The tiers below an engine's host memory, and how it uses all of them.
#[derive(Clone, Debug, Default)]
pub struct BelowHost {
    /// Engines of the same kind can read one another's chunks.
    pub kind: u32,
    /// The tiers, in the order in which they are asked.
    pub tiers: Vec<(Tier, SharedShelf)>,
    /// Whether to load what is found; always when absent.
    pub choice: Option<Arc<dyn LoadOrCompute>>,
}

/// Chunks on their way to host memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Its number, to be given to [`job_done`](Engine::job_done) at its end.
    pub job: JobId,
    /// For whom.
    pub id: RequestId,
    /// Where they come from.
    pub chunks: ByTier,
}

impl BelowHost {
    fn find(&self, key: BlockHash) -> Option<Tier> {
        let mut tiers = self.tiers.iter();
        tiers.find(|(_, shelf)| shelf.get().contains((self.kind, key))).map(|&(tier, _)| tier)
    }

    fn touch(&self, tier: Tier, key: BlockHash) {
        for (_, shelf) in self.tiers.iter().filter(|(other, _)| *other == tier) {
            shelf.get().touch((self.kind, key));
        }
    }
}

impl<P: Pool> Engine<P> {
    /// This engine, with host memory, and with what lies below it.
    ///
    /// # Panics
    /// When it has no host memory.
    #[must_use]
    pub fn above(mut self, below: BelowHost) -> Self {
        let offload = self.connector.as_mut().and_then(|connector| connector.offload.as_mut());
        offload.expect("host memory is the gateway").below = below;
        self
    }

    /// Tokens of a chunk in host memory, where there is some.
    pub(crate) fn host_chunk_tokens(&self) -> Option<u32> {
        self.connector.as_ref()?.offload.as_ref().map(Offload::chunk_tokens)
    }

    /// Tokens after the first `gpu_tokens` of a prompt with these chunks that host memory holds without a gap.
    pub(crate) fn host_tokens(&self, chunks: &[BlockHash], gpu_tokens: u32) -> u32 {
        let offload = self.connector.as_ref().and_then(|connector| connector.offload.as_ref());
        offload.map_or(0, |offload| {
            let chunk_tokens = offload.chunk_tokens();
            let memory = &offload.memory;
            let held = |key: &&BlockHash| memory.get(**key).is_some_and(|chunk| !memory.is_writing(chunk));
            let start = (gpu_tokens / chunk_tokens) as usize;
            let count = chunks.iter().skip(start).take_while(held).count();
            ((start + count) as u32 * chunk_tokens).saturating_sub(gpu_tokens)
        })
    }
}

impl Offload {
    /// Whether a tier below is there, whose content others change.
    pub(super) fn has_below(&self) -> bool {
        !self.below.tiers.is_empty()
    }

    /// Whether to load what was found.
    pub(super) fn load_pays(&self, local_tokens: u32, tokens: u32, below: ByTier) -> bool {
        self.below.choice.as_ref().is_none_or(|choice| choice.loads(local_tokens, tokens, below))
    }

    /// Promotes what the tiers below have of a request's chunks from its first `missing` one on, which host memory
    /// lacks; whether a promotion has started.
    pub(super) fn promote(&mut self, request: Key, local_tokens: u32, missing: u32) -> bool {
        let tiered = &self.requests[request as usize];
        if tiered.promoted || !self.has_below() {
            return false;
        }
        let names = &tiered.keys[missing as usize..];
        let (mut found, mut chunks) = (Vec::new(), ByTier::default());
        for &name in names {
            let tier = if self.memory.get(name).is_some() { None } else { self.below.find(name) };
            match tier {
                Some(tier) => chunks.add(tier, 1),
                None if self.memory.get(name).is_none() => break,
                None => {}
            }
            found.push(tier);
        }
        let end_tokens = (missing + found.len() as u32) * self.chunk_tokens();
        // Less than a chunk is not worth a load.
        let worth = chunks.total() > 0 && end_tokens >= local_tokens + self.chunk_tokens();
        if !worth || !self.load_pays(local_tokens, end_tokens - local_tokens, chunks) {
            return false;
        }
        let range = 0..missing as usize + found.len();
        let tiered = &mut self.requests[request as usize];
        let placed = self.memory.promote(&tiered.keys[range.clone()], &mut tiered.marks[range], missing);
        let Some(placed) = placed else { return false };
        for one in &placed {
            let tier = found[(one.index - missing) as usize].expect("what host memory has is not placed");
            tiered.marks[one.index as usize].promoted = Some(tier);
            self.below.touch(tier, tiered.keys[one.index as usize]);
        }
        tiered.promoted = true;
        let id = tiered.id;
        let chunk_ids = placed.iter().map(|one| one.chunk).collect();
        let job = Job { request, loads: false, chunks: chunk_ids, blocks: Default::default() };
        let job = self.create(job);
        self.promotions.push(Promotion { job, id, chunks });
        true
    }

    /// Of the tokens from `from` to `until` that a request loads, those that were promoted for it.
    pub(super) fn promoted_tokens(&self, request: Key, from: u32, until: u32) -> ByTier {
        let (tiered, chunk_tokens) = (&self.requests[request as usize], self.chunk_tokens());
        let mut tokens = ByTier::default();
        let range = (from / chunk_tokens) as usize..until.div_ceil(chunk_tokens) as usize;
        for (index, mark) in range.clone().zip(&tiered.marks[range]) {
            if let Some(tier) = mark.promoted {
                let start = (index as u32 * chunk_tokens).max(from);
                tokens.add(tier, ((index as u32 + 1) * chunk_tokens).min(until) - start);
            }
        }
        tokens
    }
}

/// The names of the chunks of `chunk_tokens` tokens that a request's prompt fills.
pub(crate) fn chunk_names(chunk_tokens: u32, request: &EngineRequest) -> Vec<BlockHash> {
    let mut names = Vec::new();
    let mut hasher = HashChain::new(chunk_tokens, request.adapter, request.cache_salt);
    hasher.extend(&mut names, &request.prompt, request.output, request.prompt.tokens());
    names
}
