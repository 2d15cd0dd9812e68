//! Tiers below host memory, at work: what they hold, when they have read and written it, and whether a load pays.

use std::fmt;
use std::sync::Arc;

use super::config::HostTier;
use super::{FleetConfig, PoolConfig};
use crate::cost::{CostModel, StepShape};
use crate::engine::connector::below::{BelowHost, ByTier, LoadOrCompute};
use crate::kv::tiers::{Channel, SharedShelf, Tier, TierSpec};
use crate::observer::TierTotals;
use crate::prompt::BlockHash;
use crate::time::{Span, Time};

/// A tier at work.
#[derive(Debug)]
struct Working {
    shelf: SharedShelf,
    read: Channel,
    write: Channel,
}

impl Working {
    fn new(spec: &TierSpec) -> Self {
        Self { shelf: SharedShelf::new(spec), read: Channel::new(spec.read), write: Channel::new(spec.write) }
    }
}

/// Chunks that a tier has written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    tier: Tier,
    replica: usize,
    keys: Arc<[BlockHash]>,
}

/// The tiers below host memory, of all replicas.
#[derive(Debug, Default)]
pub(super) struct Below {
    /// By replica.
    disks: Vec<Option<Working>>,
    shared: Option<Working>,
    /// By replica: which others can read its chunks, and the bytes of one.
    kinds: Vec<u32>,
    chunk_bytes: Vec<u64>,
    totals: TierTotals,
}

/// Engines that can read one another's chunks: the same model, cut in the same way.
#[derive(PartialEq)]
struct Kind<'a>(&'a [String], u64, u32);

impl Below {
    pub(super) fn new(config: &FleetConfig) -> Self {
        let mut below = Self::default();
        let spec = &config.below_host;
        let mut kinds = Vec::new();
        for pool in &config.pools {
            let per_chunk = pool.host.as_ref().map_or(1, |host| host.memory.blocks_per_chunk);
            let kind = Kind(
                &pool.model_names,
                pool.kv_block_bytes * u64::from(per_chunk),
                pool.engine.block_size * per_chunk,
            );
            let known = kinds.iter().position(|other| *other == kind).unwrap_or_else(|| {
                kinds.push(kind);
                kinds.len() - 1
            });
            for _ in 0..pool.replicas {
                let disk = spec.disk.as_ref().filter(|_| pool.host.is_some());
                below.disks.push(disk.map(Working::new));
                below.kinds.push(known as u32);
                below.chunk_bytes.push(pool.kv_block_bytes * u64::from(per_chunk));
            }
        }
        below.shared = spec.shared.as_ref().map(Working::new);
        below
    }

    /// Whether there is anything below host memory.
    pub(super) fn any(&self) -> bool {
        self.shared.is_some() || self.disks.iter().any(Option::is_some)
    }

    /// What the engine of a replica sees of it.
    pub(super) fn of_engine(&self, config: &FleetConfig, pool: &PoolConfig, replica: usize) -> BelowHost {
        let disk = self.disks[replica].as_ref().map(|disk| (Tier::Disk, disk.shelf.clone()));
        let shared = self.shared.as_ref().map(|shared| (Tier::Shared, shared.shelf.clone()));
        let choice = pool.host.as_ref().filter(|_| config.below_host.cheapest);
        BelowHost {
            kind: self.kinds[replica],
            tiers: disk.into_iter().chain(shared).collect(),
            choice: choice.map(|host| Arc::new(Appraisal::new(config, pool, host)) as Arc<dyn LoadOrCompute>),
        }
    }

    fn tier(&mut self, tier: Tier, replica: usize) -> Option<&mut Working> {
        match tier {
            Tier::Disk => self.disks[replica].as_mut(),
            Tier::Shared => self.shared.as_mut(),
        }
    }

    /// When a promotion that starts now has brought all its chunks.
    pub(super) fn read(&mut self, now: Time, replica: usize, chunks: ByTier) -> Time {
        let bytes = self.chunk_bytes[replica];
        let mut over = now;
        for (tier, count) in [(Tier::Disk, chunks.disk), (Tier::Shared, chunks.shared)] {
            let count = u64::from(count);
            if let Some(working) = self.tier(tier, replica).filter(|_| count > 0) {
                let end = working.read.submit(now, count, count * bytes);
                over = over.max(end.expect("reads wait as long as it takes"));
                self.totals.read_bytes += count * bytes;
            }
        }
        over
    }

    /// Host memory of a replica has got these chunks: every tier below writes those that it lacks. Calls `over` with
    /// what will be written, and when.
    pub(super) fn write(
        &mut self,
        now: Time,
        replica: usize,
        keys: &[BlockHash],
        mut over: impl FnMut(Time, Written),
    ) {
        let (kind, bytes) = (self.kinds[replica], self.chunk_bytes[replica]);
        for tier in [Tier::Disk, Tier::Shared] {
            let Some(working) = self.tier(tier, replica) else { continue };
            let shelf = working.shelf.get();
            let lacks = |key: &BlockHash| !shelf.contains((kind, *key));
            let keys: Arc<[BlockHash]> = keys.iter().copied().filter(lacks).collect();
            drop(shelf);
            let count = keys.len() as u64;
            if count == 0 {
                continue;
            }
            match working.write.submit(now, count, count * bytes) {
                Some(end) => {
                    self.totals.written_bytes += count * bytes;
                    over(end, Written { tier, replica, keys });
                }
                None => self.totals.dropped_bytes += count * bytes,
            }
        }
    }

    /// A write is over: its chunks can be read from now on.
    pub(super) fn written(&mut self, written: &Written) {
        let (kind, bytes) = (self.kinds[written.replica], self.chunk_bytes[written.replica]);
        let Some(working) = self.tier(written.tier, written.replica) else { return };
        let mut shelf = working.shelf.get();
        for &key in written.keys.iter() {
            shelf.put((kind, key), bytes);
        }
    }

    /// What was read and written so far.
    pub(super) fn totals(&self) -> TierTotals {
        self.totals
    }
}

/// Loads and computations compared as if nothing else were under way.
struct Appraisal {
    cost: Arc<dyn CostModel>,
    /// Most tokens of a step.
    budget: u32,
    host: HostTier,
    chunk_tokens: u32,
    chunk_bytes: u64,
    disk: Option<TierSpec>,
    shared: Option<TierSpec>,
}

impl Appraisal {
    fn new(config: &FleetConfig, pool: &PoolConfig, host: &HostTier) -> Self {
        Self {
            cost: Arc::clone(&pool.cost),
            budget: pool.engine.max_num_batched_tokens,
            host: host.clone(),
            chunk_tokens: pool.engine.block_size * host.memory.blocks_per_chunk,
            chunk_bytes: pool.kv_block_bytes * u64::from(host.memory.blocks_per_chunk),
            disk: config.below_host.disk,
            shared: config.below_host.shared,
        }
    }

    fn load(&self, tokens: u32, below: ByTier) -> Span {
        let bytes = u64::from(tokens.div_ceil(self.chunk_tokens)) * self.chunk_bytes;
        let read = |tier: &Option<TierSpec>, chunks: u32| {
            let chunks = u64::from(chunks);
            tier.map_or(Span::ZERO, |tier| tier.read.duration(chunks, chunks * self.chunk_bytes))
        };
        read(&self.disk, below.disk).max(read(&self.shared, below.shared)) + self.host.link.alone(bytes)
    }

    fn compute(&self, local_tokens: u32, tokens: u32) -> Span {
        let (mut history, mut left, mut span) = (u64::from(local_tokens), tokens, Span::ZERO);
        while left > 0 {
            let chunk = left.min(self.budget);
            let new = u64::from(chunk);
            let shape = StepShape {
                prefills: 1,
                prefill_tokens: chunk,
                prefill_pairs: new * history + new * (new + 1) / 2,
                prefill_context: history + new,
                ..StepShape::default()
            };
            span += self.cost.step(&shape).gpu;
            history += new;
            left -= chunk;
        }
        span
    }
}

impl LoadOrCompute for Appraisal {
    fn loads(&self, local_tokens: u32, tokens: u32, below: ByTier) -> bool {
        self.load(tokens, below) <= self.compute(local_tokens, tokens)
    }
}

impl fmt::Debug for Appraisal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appraisal").field("host", &self.host).finish_non_exhaustive()
    }
}
