//! How many KV blocks a replica has: vLLM's memory profile as arithmetic
//! (v1/worker/gpu_worker.py, v1/worker/utils.py, v1/core/kv_cache_utils.py, 0.32).
//!
//! ```text
//! requested = total memory * gpu_memory_utilization
//! KV bytes  = requested - (weights + peak activation + non-torch memory)
//! blocks    = KV bytes / bytes per block, on every GPU of the replica alike
//! ```

use crate::catalog::{Gpu, Model};

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

/// What decides the size of a replica's KV cache.
#[derive(Clone, Copy, Debug)]
pub struct SizingInput<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// The model.
    pub model: &'a Model,
    /// GPUs of the replica.
    pub tensor_parallel: u32,
    /// Share of memory that vLLM may use.
    pub gpu_memory_utilization: f64,
    /// Bytes of a weight.
    pub weight_bytes: u32,
    /// Bytes of an element of the KV cache.
    pub kv_element_bytes: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// Token budget of one step.
    pub max_num_batched_tokens: u32,
    /// Most requests in a batch.
    pub max_num_seqs: u32,
}

/// The memory of one GPU of a replica. All figures in GiB.
#[derive(Clone, Copy, Debug)]
pub struct KvSizing {
    /// What vLLM may use.
    pub requested_gib: f64,
    /// Weights of this GPU's share of the model.
    pub weights_gib: f64,
    /// Peak activation of the profiling run.
    pub activation_gib: f64,
    /// Memory outside the framework's allocator.
    pub non_torch_gib: f64,
    /// KV blocks, the null block included; 0 when the weights leave no room.
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
        let weights_gib = input.model.parameters() as f64 * f64::from(input.weight_bytes) / tp / GIB;
        let non_torch_gib = if input.tensor_parallel == 1 { NON_TORCH_GIB.0 } else { NON_TORCH_GIB.1 };
        let activation_gib = activation_bytes(input) / GIB;
        let free_gib = requested_gib - weights_gib - activation_gib - non_torch_gib;
        let block_bytes = u64::from(input.block_size)
            * input.model.kv_bytes_per_token(input.tensor_parallel, input.kv_element_bytes);
        let blocks = (free_gib.max(0.0) * GIB / block_bytes as f64) as u64;
        let num_blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        Self { requested_gib, weights_gib, activation_gib, non_torch_gib, num_blocks, block_bytes }
    }

    /// Memory for KV blocks; negative by how much the weights do not fit.
    #[must_use]
    pub fn free_gib(&self) -> f64 {
        self.requested_gib - self.weights_gib - self.activation_gib - self.non_torch_gib
    }
}

/// The larger of the sampler's peak and the forward pass's: hidden states and the gated MLP of one layer for a
/// full step, 2 bytes an element.
fn activation_bytes(input: &SizingInput<'_>) -> f64 {
    let config = &input.model.config;
    let sampler = f64::from(input.max_num_seqs) * f64::from(config.vocab_size) * SAMPLER_BYTES_PER_LOGIT;
    let mlp = 3.0 * f64::from(config.intermediate_size) / f64::from(input.tensor_parallel);
    let forward = f64::from(input.max_num_batched_tokens) * (4.0 * f64::from(config.hidden_size) + mlp) * 2.0;
    sampler.max(forward)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{gpu, model};

    fn kv_gib(name: &str, tensor_parallel: u32, utilization: f64, max_num_seqs: u32) -> f64 {
        KvSizing::new(&SizingInput {
            gpu: gpu("h100").unwrap(),
            model: model(name).unwrap(),
            tensor_parallel,
            gpu_memory_utilization: utilization,
            weight_bytes: 2,
            kv_element_bytes: 2,
            block_size: 16,
            max_num_batched_tokens: 8192,
            max_num_seqs,
        })
        .free_gib()
    }

    #[test]
    fn kv_memory_is_within_two_percent_of_measured_servers() {
        let measured = [
            ("llama-3.1-8b", 1, 0.9, 1024, 51.38),
            ("qwen3-32b", 2, 0.9, 1024, 34.49),
            // 18,038 blocks of 2.62 MB, vLLM 0.23
            ("qwen3-14b", 1, 0.92, 256, 44.04),
        ];
        for (name, tp, utilization, seqs, gib) in measured {
            let ours = kv_gib(name, tp, utilization, seqs);
            assert!((ours / gib - 1.0).abs() < 0.02, "{name} TP{tp}: {ours:.2} GiB, measured {gib}");
        }
    }

    #[test]
    fn a_model_that_does_not_fit_lacks_memory() {
        assert!(kv_gib("llama-3.1-70b", 1, 0.92, 256) < -60.0);
    }
}
