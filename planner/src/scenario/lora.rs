//! `lora:`: LoRA adapters, and what loading one costs.

use forerun_workloads::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Bandwidth;

/// LoRA adapters of every pool. Without it, adapters are loaded in no time.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraSpec {
    /// How many adapters there are. A synthetic workload that names none of its own asks for all of them alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<u32>,
    /// Rank of every adapter, and vLLM's `max_lora_rank` (16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Adapters on the GPU at once, and in a batch (`engine.max_loras`, or 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_loras: Option<u32>,
    /// Adapters in host memory (`max_loras`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cpu_loras: Option<u32>,
    /// From host memory to each GPU (26.5GiB/s: measured, GKE pod snapshots).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// From disk to host memory (2GB/s; an assumption).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bandwidth: Option<Bandwidth>,
    /// Of every load to the GPU, besides its bytes (1ms; an assumption).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_overhead: Option<Duration>,
    /// Of every load from disk, besides its bytes: opening and parsing (20ms; an assumption).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_overhead: Option<Duration>,
}
