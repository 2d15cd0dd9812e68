//! How many KV blocks a replica has: vLLM's memory profile as arithmetic
//! (v1/worker/gpu_worker.py, v1/worker/utils.py, v1/core/kv_cache_utils.py, 0.32).
//!
//! ```text
//! requested = total memory * gpu_memory_utilization
//! KV bytes  = requested - (weights + peak activation + non-torch memory)
//! blocks    = KV bytes / bytes per block, on every GPU of the replica alike
//! ```
//! vLLM also takes off an estimate of what its CUDA graphs will hold. No size of it is published: servers measured
//! with it are met within 2 % without it, so it is taken to be part of the rounded terms.

use crate::catalog::{Experts, Gpu, Model, Window};

const GIB: f64 = (1u64 << 30) as f64;

/// vLLM's default `gpu_memory_utilization` since 0.19 (0.9 before).
pub const GPU_MEMORY_UTILIZATION: f64 = 0.92;

/// Bytes that the sampler's profiling run holds per logit of `max_num_seqs` x vocabulary.
///
/// Derived from peaks measured on H100 at 1024 sequences: 4.8 GiB for Llama-3.1-8B (39.2 bytes), 5.6 GiB for
/// Qwen3-32B (38.6 bytes). With it Qwen3-14B at 256 sequences gets 43.8 GiB of KV memory; a real server
/// reported 44.0.
const SAMPLER_BYTES_PER_LOGIT: f64 = 38.9;

/// Memory outside the framework's allocator on each GPU: 0.15 GiB alone, 0.6 GiB with NCCL (measured, H100).
const NON_TORCH_GIB: (f64, f64) = (0.15, 0.6);

/// Bytes of an activation: bf16 or fp16.
const ACTIVATION_BYTES: f64 = 2.0;

/// What decides the size of a replica's KV cache.
#[derive(Clone, Copy, Debug)]
pub struct SizingInput<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// The model.
    pub model: &'a Model,
    /// GPUs of the replica.
    pub tensor_parallel: u32,
    /// Ranks of a data parallel server, which share the routed experts.
    pub data_parallel: u32,
    /// Share of memory that vLLM may use.
    pub gpu_memory_utilization: f64,
    /// Bytes of an element of the KV cache.
    pub kv_element_bytes: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// Token budget of one step.
    pub max_num_batched_tokens: u32,
    /// Most requests in a batch.
    pub max_num_seqs: u32,
    /// Longest prompt plus output.
    pub max_model_len: u32,
    /// Bytes of each GPU that are set aside for LoRA adapters.
    pub adapter_bytes: u64,
    /// The draft that guesses tokens ahead, on the same GPUs, if it has weights.
    pub draft: Option<&'a Model>,
}

/// The memory of one GPU of a replica. All figures in GiB.
#[derive(Clone, Copy, Debug)]
pub struct KvSizing {
    /// What vLLM may use.
    pub requested_gib: f64,
    /// Weights of this GPU's share of the model, and of its draft.
    pub weights_gib: f64,
    /// Peak activation of the profiling run.
    pub activation_gib: f64,
    /// Memory outside the framework's allocator.
    pub non_torch_gib: f64,
    /// Memory set aside for LoRA adapters.
    pub adapter_gib: f64,
    /// Blocks that hold the KV cache of `block_size` tokens of a request, the null block included; 0 when the
    /// weights leave no room.
    pub num_blocks: u32,
    /// Bytes per block.
    pub block_bytes: u64,
}

impl KvSizing {
    /// Sizes the KV cache.
    #[must_use]
    pub fn new(input: &SizingInput<'_>) -> Self {
        let tp = f64::from(input.tensor_parallel);
        let requested_gib = input.gpu.memory_gib * input.gpu_memory_utilization;
        let models = std::iter::once(input.model).chain(input.draft);
        let elsewhere = 1.0 - 1.0 / f64::from(input.data_parallel);
        let weights = models.map(Model::weight_bytes).sum::<f64>();
        let weights_gib = (weights - input.model.routed_expert_bytes() * elsewhere) / tp / GIB;
        let non_torch_gib = if input.tensor_parallel == 1 { NON_TORCH_GIB.0 } else { NON_TORCH_GIB.1 };
        let activation_gib = activation_bytes(input) / GIB;
        let adapter_gib = input.adapter_bytes as f64 / GIB;
        let free_gib = requested_gib - weights_gib - activation_gib - non_torch_gib - adapter_gib;
        let groups = Groups::new(input);
        let blocks = (free_gib.max(0.0) * GIB / groups.block_bytes as f64) as u64;
        let blocks = blocks.saturating_sub(groups.window_blocks) / groups.full;
        let num_blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let block_bytes = groups.block_bytes;
        Self {
            requested_gib,
            weights_gib,
            activation_gib,
            non_torch_gib,
            adapter_gib,
            num_blocks,
            block_bytes,
        }
    }

    /// Memory for KV blocks; negative by how much the weights do not fit.
    #[must_use]
    pub fn free_gib(&self) -> f64 {
        self.requested_gib - self.weights_gib - self.activation_gib - self.non_torch_gib - self.adapter_gib
    }
}

/// The groups of layers that share one pool of blocks (v1/core/kv_cache_utils.py): layers that see everything and
/// layers with a window, in groups of equally many.
struct Groups {
    /// Bytes of one block: one group's layers.
    block_bytes: u64,
    /// Groups of layers that see everything; all layers count as such where all have a window.
    full: u64,
    /// Blocks set aside for the groups with a window: what `max_num_seqs` requests hold at most of it.
    window_blocks: u64,
}

impl Groups {
    fn new(input: &SizingInput<'_>) -> Self {
        let layers = u64::from(input.model.shape.layers);
        let page = u64::from(input.block_size)
            * input.model.kv_elements_per_token_and_layer(input.tensor_parallel)
            * u64::from(input.kv_element_bytes);
        // A draft's layers see everything.
        let draft_bytes = input.draft.map_or(0, |draft| {
            let token = draft.kv_bytes_per_token(input.tensor_parallel, input.kv_element_bytes);
            u64::from(input.block_size) * token
        });
        let uniform = Self { block_bytes: layers * page + draft_bytes, full: 1, window_blocks: 0 };
        let Some(Window { tokens, layers: windowed }) = input.model.shape.window else { return uniform };
        let windowed = u64::from(windowed);
        let full = layers - windowed;
        if full == 0 {
            return uniform;
        }
        let (least, most) = (full.min(windowed), full.max(windowed));
        let size = if 2 * most < 3 * least { most } else { least };
        let held = u64::from(tokens.min(input.max_model_len)).div_ceil(u64::from(input.block_size)) + 1;
        Self {
            block_bytes: size * page + draft_bytes,
            full: full.div_ceil(size),
            window_blocks: windowed.div_ceil(size) * held * u64::from(input.max_num_seqs),
        }
    }
}

/// The larger of the sampler's peak and the forward pass's: hidden states and the gated MLP of one layer for a
/// full step. A mixture's workspaces stay allocated while the sampler runs.
fn activation_bytes(input: &SizingInput<'_>) -> f64 {
    let shape = &input.model.shape;
    let tp = f64::from(input.tensor_parallel);
    let tokens = f64::from(input.max_num_batched_tokens);
    let sampler = f64::from(input.max_num_seqs) * f64::from(shape.vocabulary) * SAMPLER_BYTES_PER_LOGIT;
    let mlp = 3.0 * f64::from(shape.mlp) / tp;
    let forward = tokens * (4.0 * f64::from(shape.hidden) + mlp) * ACTIVATION_BYTES;
    let workspace = shape.experts.map_or(0.0, |Experts { active, width, .. }| {
        let routed = tokens * f64::from(active);
        routed * (3.0 * f64::from(width) / tp + f64::from(shape.hidden)) * ACTIVATION_BYTES
    });
    sampler.max(forward) + workspace
}

#[cfg(test)]
#[path = "sizing_tests.rs"]
mod tests;
