//! `fabric:` and `tiers:`: KV between replicas, and below the GPU.

use forerun_workloads::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Bandwidth, Bytes};

/// The network between prefill and decode replicas, and the rules of their transfers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FabricSpec {
    /// A kind of network that gives what is absent here (rdma).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<FabricPreset>,
    /// Line rate of each GPU's adapter in one direction; a replica has one for each of its GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Share of the line rate that KV transfers reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<f64>,
    /// From the first byte sent to the first byte received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// From the prefill replica's answer to the request to the decode replica's API server (1ms; an assumption).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<Duration>,
    /// What the first transfer between two replicas takes longer (0: they know each other; vLLM needs about 5s once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Duration>,
    /// How long a prefill replica holds blocks that nobody asks for (30s: vLLM's `kv_lease_duration`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Duration>,
    /// Whether a decode replica renews the lease of what waits in its queue (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeats: Option<bool>,
    /// What becomes of a request whose blocks are gone: vLLM's `kv_load_failure_policy` (fail).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
}

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FabricPreset {
    /// Within one server: 450 GB/s, efficiency 0.8, 2us.
    Nvlink,
    /// One 200 Gb/s adapter for each GPU: 25 GB/s, efficiency 0.45, 50us.
    Rdma,
    /// 100 Gb/s Ethernet: 12.5 GB/s, efficiency 0.3, 200us.
    Tcp,
}

/// What becomes of a request whose KV cannot be pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It fails.
    Fail,
    /// The decode replica computes its prompt.
    Recompute,
}

/// KV tiers below the GPU.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TiersSpec {
    /// Host memory of each replica: vLLM's OffloadingConnector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTierSpec>,
    /// A disk of each replica, below its host memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<StorageSpec>,
    /// A file system that all replicas share, below their host memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<StorageSpec>,
    /// Whether everything that a tier has is loaded, or what is loaded sooner than computed (always, as vLLM does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadSpec>,
}

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoadSpec {
    /// Whatever a tier has.
    Always,
    /// What takes no longer to load than to compute, both without waiting.
    Cheapest,
}

/// A tier below host memory. What host memory stores is written to it, too; what only it has is first brought to host
/// memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageSpec {
    /// What it holds (no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Bytes>,
    /// Rate of reads, all files together (disk: 5GB/s; shared: 10GB/s, published for cloud storage).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Rate of writes (that of reads).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_bandwidth: Option<Bandwidth>,
    /// Of each file (disk: 100us; shared: 1ms; assumptions). A chunk is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// Files that are opened at once: their latencies overlap (64: llm-d's `threads_per_gpu`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Whether a full tier drops what was used longest ago (disk: true; shared: false, it takes nothing more).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evict: Option<bool>,
    /// A write that would wait longer is dropped (30s: llm-d's `max_write_queued_seconds`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_write_queued: Option<Duration>,
}

/// Host memory for KV.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CpuTierSpec {
    /// What each replica has of it.
    pub capacity: Bytes,
    /// Rate of each GPU's link to it, in each direction (26.5GiB/s: measured device to host, GKE pod snapshots).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Of each copy (50us; an assumption).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// Which chunks are evicted first (lru).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionSpec>,
    /// GPU blocks of one chunk (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks_per_chunk: Option<u32>,
    /// Store what prompts fill, not what answers fill (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offload_prompt_only: Option<bool>,
}

/// Which chunks are evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EvictionSpec {
    /// Those whose requests ended first.
    Lru,
    /// Adaptive: between chunks used once and chunks used again.
    Arc,
}
