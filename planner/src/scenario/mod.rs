//! The scenario: one YAML file, strict, the unit of every question.
//!
//! [`read`] turns a file, flags and `--set` overrides into a [`Scenario`]; the published JSON Schema is
//! generated from the types here.

mod faults;
mod kv;
mod lora;
pub mod overrides;
pub mod read;
mod slo;
mod speculative;
mod units;
pub(crate) mod wording;

use std::collections::BTreeMap;
use std::path::PathBuf;

use forerun_workloads::spec::WorkloadSpec;
use forerun_workloads::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use faults::{FaultsSpec, LostSpec, RolloutSpec};
pub use kv::{
    CpuTierSpec, EvictionSpec, FabricPreset, FabricSpec, LoadSpec, OnFailure, StorageSpec, TiersSpec,
};
pub use lora::LoraSpec;
pub use slo::{LimitSpec, SloSpec};
pub use speculative::SpeculativeSpec;
pub use units::{Bandwidth, Bytes};

/// A scenario: what arrives, what serves it, and what is asked of it. Every part has a default.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A model of `forerun catalog`, or the path of a Hugging Face config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Type of the weights (the model's own: bf16, or what its quantization_config says).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<Dtype>,
    /// Profile of measured kernels, or of a live server, that gives every pool its step times (`forerun calibrate import`,
    /// `serve`); without one, closed forms with the catalog's constants do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<PathBuf>,
    /// Factors on the GPU's step times of every pool: calibration by hand, or a question of sensitivity (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_time: Option<StepTimeSpec>,
    /// Type of the KV cache (auto).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache_dtype: Option<KvCacheDtype>,
    /// What arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadSpec>,
    /// When a request is good, and what the whole run must keep to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloSpec>,
    /// vLLM's arguments for every pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineArgs>,
    /// Replicas by kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<PoolSpec>>,
    /// Which replica gets a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterSpec>,
    /// How traffic is split between pools or models (not at all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitSpec>,
    /// The network between prefill and decode replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fabric: Option<FabricSpec>,
    /// KV tiers below the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<TiersSpec>,
    /// LoRA adapters, and what loading one costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraSpec>,
    /// A draft that guesses tokens ahead (none; not golden-tested).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculative: Option<SpeculativeSpec>,
    /// Replicas that die, updates that replace them, links that slow down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<FaultsSpec>,
    /// Fixed costs between client and GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overhead: Option<OverheadSpec>,
    /// What GPUs cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<CostSpec>,
    /// Seed, warm-up and horizon of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunSpec>,
}

/// Type of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// float16: costs what bf16 costs.
    Fp16,
    /// 8-bit floating point; multiplied in fp8 where the GPU can.
    Fp8,
    /// 4-bit microscaling; in a mixture of experts, of the experts alone.
    Mxfp4,
    /// 4-bit weights, 16-bit activations (GPTQ, AWQ).
    W4a16,
    /// 8-bit integer weights and activations; multiplied in int8 where the GPU can.
    W8a8,
}

/// Type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KvCacheDtype {
    /// 16 bits, as the activations.
    Auto,
    /// 8-bit floating point: half the memory.
    Fp8,
}

/// Factors on step times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepTimeSpec {
    /// On what decodes take (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<f64>,
    /// On what prefills take beyond the decodes of their step (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill: Option<f64>,
}

/// vLLM's arguments, by its own names. What is absent has vLLM's default for the GPU.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineArgs {
    /// Tokens per KV block (16).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u32>,
    /// KV blocks; by default from the sizing formula.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "num_gpu_blocks_override")]
    pub num_gpu_blocks: Option<u32>,
    /// Share of GPU memory that vLLM may use (0.92).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_utilization: Option<f64>,
    /// Token budget of one step (8192 on an H100 server).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_batched_tokens: Option<u32>,
    /// Most requests in a batch (1024 on an H100 server).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_seqs: Option<u32>,
    /// Most requests running at once (`max_num_seqs`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_active_seqs: Option<u32>,
    /// Longest prompt plus output (the model's own limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<u32>,
    /// Longest prefill chunk while other requests are there (0: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_prefill_token_threshold: Option<u32>,
    /// Raise that limit to an equal share of the budget when few requests are there (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_prefill_token_threshold_adaptive: Option<bool>,
    /// Order of admission (fcfs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling_policy: Option<SchedulingPolicy>,
    /// Admit only what has room for its whole prompt (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_reserve_full_isl: Option<bool>,
    /// Share of KV blocks kept free when admitting while something runs (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<f64>,
    /// Keep and reuse KV blocks of equal prefixes (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_prefix_caching: Option<bool>,
    /// Split prompts over steps (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_chunked_prefill: Option<bool>,
    /// Form the next batch while this one runs (true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub async_scheduling: Option<bool>,
    /// Most distinct LoRA adapters in a batch (1 when the workload has adapters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_loras: Option<u32>,
    /// Most requests waiting before the server answers 503 (no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_queued_reqs: Option<u32>,
    /// Whole experts on each GPU instead of a share of every one (false; `true` is not modelled).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_expert_parallel: Option<bool>,
}

impl EngineArgs {
    /// These arguments, completed by `base`'s where absent.
    #[must_use]
    pub fn or(&self, base: &Self) -> Self {
        Self {
            block_size: self.block_size.or(base.block_size),
            num_gpu_blocks: self.num_gpu_blocks.or(base.num_gpu_blocks),
            gpu_memory_utilization: self.gpu_memory_utilization.or(base.gpu_memory_utilization),
            max_num_batched_tokens: self.max_num_batched_tokens.or(base.max_num_batched_tokens),
            max_num_seqs: self.max_num_seqs.or(base.max_num_seqs),
            max_num_active_seqs: self.max_num_active_seqs.or(base.max_num_active_seqs),
            max_model_len: self.max_model_len.or(base.max_model_len),
            long_prefill_token_threshold: self
                .long_prefill_token_threshold
                .or(base.long_prefill_token_threshold),
            long_prefill_token_threshold_adaptive: self
                .long_prefill_token_threshold_adaptive
                .or(base.long_prefill_token_threshold_adaptive),
            scheduling_policy: self.scheduling_policy.or(base.scheduling_policy),
            scheduler_reserve_full_isl: self.scheduler_reserve_full_isl.or(base.scheduler_reserve_full_isl),
            watermark: self.watermark.or(base.watermark),
            enable_prefix_caching: self.enable_prefix_caching.or(base.enable_prefix_caching),
            enable_chunked_prefill: self.enable_chunked_prefill.or(base.enable_chunked_prefill),
            async_scheduling: self.async_scheduling.or(base.async_scheduling),
            max_loras: self.max_loras.or(base.max_loras),
            max_num_queued_reqs: self.max_num_queued_reqs.or(base.max_num_queued_reqs),
            enable_expert_parallel: self.enable_expert_parallel.or(base.enable_expert_parallel),
        }
    }
}

/// Order of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchedulingPolicy {
    /// First come, first served.
    Fcfs,
    /// Lower `priority` first, then earlier arrival.
    Priority,
}

/// Replicas of one kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSpec {
    /// Its name (`pool`, `pool2`, ...); replicas are called `<name>-<index>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What its replicas do (both).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// A GPU of `forerun catalog` (h100-sxm).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// GPUs of each replica (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor_parallel: Option<u32>,
    /// Engines of each replica, behind one address and a balancer of its own (1; not golden-tested).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_parallel: Option<u32>,
    /// How many replicas (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// A model of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A profile of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<PathBuf>,
    /// Labels of its pods, which an endpoint picker may filter by; `llm-d.ai/role` follows from `role`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// vLLM arguments of its own, over the scenario's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineArgs>,
}

/// What replicas do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Prefill and decode.
    Both,
    /// Prefill for others: their KV is pulled by the replicas that decode.
    Prefill,
    /// Decode what others have prefilled.
    Decode,
}

/// Which replica gets a request: a policy of the catalog, or llm-d's endpoint picker as a file configures it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouterSpec {
    /// A policy of `forerun catalog` (round-robin).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Path of an EndpointPickerConfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epp: Option<String>,
    /// Which files are accepted: those of llm-d-router 0.10, or also those of other versions (0.10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamSpec>,
    /// Leave plugins out, with a warning, that are not simulated (false: they are an error).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_unsimulated: Option<bool>,
    /// The router's `--allow-experimental-plugins` (false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_experimental: Option<bool>,
    /// Replicas of the endpoint picker, each with what it knows itself; requests go to them in turn (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// How the endpoint picker chooses among equals (shuffle).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie_rule: Option<TieRuleSpec>,
    /// Which of the endpoint picker's data producers run first (prefix-first).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_order: Option<ProducerOrderSpec>,
    /// How often the endpoint picker scrapes the endpoints: its flag of that name (50ms).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_metrics_interval: Option<Duration>,
    /// From the end of a step to the effect of its KV events on a precise index (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_event_delay: Option<Duration>,
}

/// How traffic is split: weights of an HTTPRoute, or of an agent that chooses among models.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// What stays together (request).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SplitBySpec>,
    /// Shares of the traffic, relative to each other, by pool or by model.
    pub weights: BTreeMap<String, f64>,
    /// Share of the requests that are also sent to the one of weight 0, as copies that no client waits for (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<f64>,
}

/// What stays together when traffic is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SplitBySpec {
    /// Nothing: each request by itself.
    Request,
    /// The turns of a session.
    Session,
    /// The requests of a tenant.
    Tenant,
}

/// How equals are chosen among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TieRuleSpec {
    /// Drawn: llm-d-router 0.10.
    Shuffle,
    /// In turn: later versions.
    Rotate,
}

/// Which data producers of an endpoint picker run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProducerOrderSpec {
    /// Those of prefix matches: scorers see each endpoint's uncached tokens.
    PrefixFirst,
    /// The in-flight producer: scorers see the whole prompt as uncached everywhere.
    InFlightFirst,
}

/// Versions of EndpointPickerConfig that are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum UpstreamSpec {
    /// As llm-d-router 0.10 reads them.
    #[serde(rename = "0.10")]
    V0_10,
    /// Other versions' too, each with a warning.
    #[serde(rename = "lenient")]
    Lenient,
}

/// Fixed costs between client and GPU; 0 switches one off.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OverheadSpec {
    /// Gateway: client to router (2ms; an assumption, nothing was measured).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Duration>,
    /// Endpoint picker (0: the plain policies have none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epp: Option<Duration>,
    /// vLLM's API server (5ms: the low end of 5 to 15 ms seen when calibrating against servers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server: Option<Duration>,
    /// Tokenizer, for every 1000 tokens of the prompt (0.5ms; an assumption).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenize_per_1k_tokens: Option<Duration>,
    /// Engine CPU time of a step (30us; measured on vLLM's scheduler).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_per_step: Option<Duration>,
    /// Engine CPU time of a step for each request of its batch (8us; measured, scaled to a server core).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_per_request: Option<Duration>,
}

/// What GPUs cost.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostSpec {
    /// US dollars for an hour of one GPU: a number, or one for each GPU type (the catalog's list price).
    pub gpu_hour_usd: GpuPrice,
}

/// Price of a GPU hour.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "`gpu_hour_usd` is a number, or a map from GPU names to numbers")]
pub enum GpuPrice {
    /// The same for every GPU.
    Same(f64),
    /// By the GPU names that pools use.
    ByGpu(BTreeMap<String, f64>),
}

impl Default for GpuPrice {
    fn default() -> Self {
        Self::Same(0.0)
    }
}

/// Seed, warm-up and horizon of the run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// Seed of every random stream (1). Same scenario and seed: same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Runs with seeds that follow from `seed` (1). The first has `seed` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replications: Option<u32>,
    /// Requests that arrive earlier are simulated and left out of the figures (0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<Duration>,
    /// Stop here, whatever is still in flight; by default the run drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<Duration>,
}
