//! What is known of a GPU: its peaks, and how much of them vLLM's kernels reach.

use serde::Deserialize;

/// A GPU of the catalog.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Name in scenarios.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Name for people.
    pub title: String,
    /// How its constants were found: `tables`, `fitted` or `datasheet`.
    pub grade: String,
    /// Memory as CUDA reports it, GiB.
    pub memory_gib: f64,
    /// Where that figure comes from.
    pub memory_source: String,
    /// Whether vLLM keeps it in the small class of batch defaults whatever its memory (the A100).
    pub small_batch_class: bool,
    /// Dense bf16 FLOP/s.
    pub peak_bf16_flops: f64,
    /// Memory bandwidth, bytes/s.
    pub memory_bytes_per_s: f64,
    /// Where the two peaks come from.
    pub peak_source: String,
    /// Matrix multiplication.
    pub gemm: Kernel,
    /// Causal attention of prefill chunks.
    pub prefill_attention: Kernel,
    /// Attention of decodes.
    pub decode_attention: DecodeAttention,
    /// All-reduce by number of GPUs.
    pub all_reduce: Vec<AllReduce>,
    /// Where the kernel constants come from, with the fit's error.
    pub kernel_source: String,
}

/// A kernel limited by compute and memory: launch + FLOPs and bytes at a share of the peaks.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Fixed time, microseconds.
    pub launch_us: f64,
    /// Share of peak FLOP/s reached, in (0, 1].
    pub compute_efficiency: f64,
    /// Share of peak bandwidth reached, in (0, 1].
    pub bandwidth_efficiency: f64,
}

/// Decode attention: launch + KV bytes at a share of bandwidth + a cost per sequence and KV head.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeAttention {
    /// Fixed time, microseconds.
    pub launch_us: f64,
    /// Share of peak bandwidth reached, in (0, 1].
    pub bandwidth_efficiency: f64,
    /// Microseconds for each sequence and KV head.
    pub us_per_sequence_and_kv_head: f64,
}

/// vLLM's custom all-reduce inside a CUDA graph.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllReduce {
    /// Number of GPUs.
    pub gpus: u32,
    /// Fixed time, microseconds.
    pub launch_us: f64,
    /// Bus bandwidth, bytes/s.
    pub bus_bytes_per_s: f64,
}

impl Gpu {
    /// Memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        (self.memory_gib * (1u64 << 30) as f64) as u64
    }

    /// No constant may claim more than the hardware has.
    ///
    /// # Errors
    /// The first constant that does.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            self.gemm.compute_efficiency,
            self.gemm.bandwidth_efficiency,
            self.prefill_attention.compute_efficiency,
            self.prefill_attention.bandwidth_efficiency,
            self.decode_attention.bandwidth_efficiency,
        ];
        if let Some(share) = shares.iter().find(|&&share| !(share > 0.0 && share <= 1.0)) {
            return Err(format!("an efficiency of {share} is not in (0, 1]"));
        }
        let peaks = [self.memory_gib, self.peak_bf16_flops, self.memory_bytes_per_s];
        if let Some(peak) = peaks.iter().find(|&&peak| !(peak > 0.0 && peak.is_finite())) {
            return Err(format!("a peak of {peak} is not positive"));
        }
        Ok(())
    }
}
