//! What a fleet is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fabric::LinkSpec;
use super::split::Split;
use crate::cost::CostModel;
use crate::engine::adapters::AdapterConfig;
use crate::engine::config::EngineConfig;
use crate::engine::connector::OffloadConfig;
use crate::kv::tiers::TierSpec;
use crate::time::{Span, Time};

/// Replicas of one kind.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name; replicas are called `<name>-<index>`.
    pub name: String,
    /// How many replicas; a multiple of the ranks of a server.
    pub replicas: u32,
    /// GPUs of each.
    pub gpus: u32,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// What its replicas do with a request.
    pub role: Role,
    /// Names under which requests may ask for its model; pools of equal names serve the same model.
    pub model_names: Vec<String>,
    /// Engine arguments.
    pub engine: EngineConfig,
    /// How long its steps take.
    pub cost: Arc<dyn CostModel>,
    /// Bytes of a KV block, on all GPUs of a replica together.
    pub kv_block_bytes: u64,
    /// Host memory of each replica as a tier below its GPUs.
    pub host: Option<HostTier>,
    /// Whether replicas are ranks of servers.
    pub data_parallel: DataParallel,
    /// How each replica keeps its LoRA adapters; `None` when loading them takes no time.
    pub lora: Option<AdapterConfig>,
}

/// How many replicas are behind one address: the ranks of a data parallel server, each an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataParallel {
    /// Ranks of each server; 1 when a replica is a server.
    pub ranks: u32,
    /// Whether the ranks of a server step together.
    pub lock_step: bool,
}

impl Default for DataParallel {
    /// Every replica is a server.
    fn default() -> Self {
        Self { ranks: 1, lock_step: false }
    }
}

/// What replicas do with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Prefill and decode.
    #[default]
    Both,
    /// Prefill for others.
    Prefill,
    /// Decode what others have prefilled, or both where nobody does.
    Decode,
}

/// Host memory for KV, and the way to it.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTier {
    /// What it holds, and what it evicts.
    pub memory: OffloadConfig,
    /// Between the GPUs of a replica, all together, and its host memory, in each direction.
    pub link: LinkSpec,
}

/// The tiers below host memory, and the use that is made of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BelowHostTiers {
    /// A disk of each replica's own.
    pub disk: Option<TierSpec>,
    /// A file system that all replicas share.
    pub shared: Option<TierSpec>,
    /// Load what takes no longer to load than to compute; vLLM loads all that is there.
    pub cheapest: bool,
}

/// What goes wrong in a fleet, or is done to it, while it serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// What happens at a given time.
    pub planned: Vec<(Time, Fault)>,
    /// By pool: mean time between failures of each replica, exponentially distributed, and how long a restart takes.
    pub by_chance: Vec<Option<(Span, Span)>>,
    /// What becomes of the requests of a replica that dies.
    pub lost: Lost,
    /// Seed of what happens by chance.
    pub seed: u64,
}

/// Something that happens to a replica, named by its index in the fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It dies, and has started anew so much later.
    Die {
        /// Which replica.
        replica: usize,
        /// From its death to its return.
        back_in: Span,
    },
    /// It gets no new requests, dies when `drain` is over, and has started anew `back_in` later.
    Replace {
        /// Which replica.
        replica: usize,
        /// How long it may finish what it has.
        drain: Span,
        /// From its death to its return.
        back_in: Span,
    },
    /// From now on its network links carry this share of what they do when they are whole, in (0, 1].
    Link {
        /// Which replica.
        replica: usize,
        /// The share.
        share: f64,
    },
}

/// What becomes of the requests of a replica that dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lost {
    /// Their clients get an error.
    #[default]
    Fail,
    /// The gateway sends them again, each at most so often.
    Retry {
        /// How often.
        most: u32,
    },
}

/// What becomes of a request whose KV cannot be pulled: vLLM's `kv_load_failure_policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedPull {
    /// It fails.
    #[default]
    Fail,
    /// Its prompt is computed where it is decoded.
    Recompute,
}

/// How prefill and decode replicas work together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disaggregation {
    /// The network adapter of each GPU; a replica has as many as GPUs.
    pub link: LinkSpec,
    /// From the prefill replica's answer to the request to the decode replica, API server excluded.
    pub sidecar: Span,
    /// What the first pull between two engines takes longer.
    pub handshake: Span,
    /// How long a prefill replica holds blocks that nobody asks for.
    pub lease: Span,
    /// Whether a decoding engine renews the lease of what waits in its queue.
    pub heartbeats: bool,
    /// What becomes of a request whose KV is gone.
    pub failed_pull: FailedPull,
}

impl Default for Disaggregation {
    /// RDMA at 200 Gb/s per GPU. The lease and its heartbeats are vLLM's (`kv_lease_duration`). Engines know each other
    /// already: the handshake, about 5 s, happens once for a pair. The sidecar's time is an assumption.
    fn default() -> Self {
        Self {
            link: LinkSpec::RDMA_200G,
            sidecar: Span::from_millis(1),
            handshake: Span::ZERO,
            lease: Span::from_secs(30),
            heartbeats: true,
            failed_pull: FailedPull::Fail,
        }
    }
}

/// Fixed costs between client and engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Client to router.
    pub gateway: Span,
    /// The router's decision.
    pub picker: Span,
    /// Router to engine: the API server.
    pub api_server: Span,
    /// Tokenizer, for every 1000 tokens of the prompt.
    pub tokenize_per_1k_tokens: Span,
}

impl Overhead {
    /// Time from the router to the engine for a prompt of so many tokens.
    pub(super) fn serving(&self, prompt_tokens: u32) -> Span {
        let tokenize = u128::from(self.tokenize_per_1k_tokens.as_nanos()) * u128::from(prompt_tokens) / 1000;
        self.api_server + Span::from_nanos(tokenize as u64)
    }
}

/// What clients do when they wait too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Give up after so long; the request is cancelled and frees what it holds.
    pub timeout: Option<Span>,
    /// Send it again so often before giving up.
    pub retries: u32,
}

/// In which form KV blocks are kept. Both give the same outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvForm {
    /// Runs of blocks, and decodes in lockstep: a step costs what changes in it.
    #[default]
    Extents,
    /// Block by block, every request in every step: the reference, equal to vLLM's recordings in every id.
    Exact,
}

/// Everything that a run needs besides its source and router.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The pools. Requests that name no model go to the pools of the first one's model.
    pub pools: Vec<PoolConfig>,
    /// In which form KV blocks are kept.
    pub kv: KvForm,
    /// Fixed costs between client and engine.
    pub overhead: Overhead,
    /// What clients do when they wait too long.
    pub client: Client,
    /// How prefill and decode replicas work together, if there are any.
    pub disaggregation: Disaggregation,
    /// What lies below the host memory of replicas that keep KV there.
    pub below_host: BelowHostTiers,
    /// What goes wrong.
    pub faults: Faults,
    /// How traffic is split between pools of one model, or between models.
    pub split: Option<Split>,
    /// Time integrals and counters start here.
    pub warm_up: Time,
    /// Stop here, whatever is still in flight.
    pub horizon: Option<Time>,
}

impl FleetConfig {
    /// Whether some replicas only prefill for others.
    #[must_use]
    pub fn is_disaggregated(&self) -> bool {
        self.pools.iter().any(|pool| pool.role == Role::Prefill)
    }
}
