//! What is known of a GPU: its peaks, and how much of them vLLM's kernels reach.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A GPU of the catalog.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Name in scenarios.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Name for people.
    pub title: String,
    /// How its kernel constants were found.
    pub grade: Grade,
    /// Memory as CUDA reports it, GiB.
    pub memory_gib: f64,
    /// Where that figure comes from.
    pub memory_source: String,
    /// Whether vLLM keeps it in the small class of batch defaults whatever its memory (the A100).
    pub small_batch_class: bool,
    /// Dense bf16 FLOP/s.
    pub peak_bf16_flops: f64,
    /// Dense fp8 FLOP/s; none where the tensor cores lack fp8: such weights are then widened as they are read.
    pub peak_fp8_flops: Option<f64>,
    /// Dense int8 operations per second.
    pub peak_int8_flops: Option<f64>,
    /// Memory bandwidth, bytes/s.
    pub memory_bytes_per_s: f64,
    /// Where the peaks come from.
    pub peak_source: String,
    /// Matrix multiplication in 16 bits.
    pub gemm: Gemm,
    /// Matrix multiplication in 8 bits, over the 8-bit peak; as in 16 bits where it was not measured.
    pub gemm_8bit: Option<Gemm>,
    /// Causal attention of prefill chunks.
    pub prefill_attention: Kernel,
    /// Attention of decodes.
    pub decode_attention: DecodeAttention,
    /// Attention of decodes over an fp8 cache; as in 16 bits where it was not measured.
    pub decode_attention_fp8: Option<DecodeAttention>,
    /// What a decode occupies in the attention kernel of a batch that also prefills; none where the backend gives
    /// decodes a kernel of their own.
    pub mixed_batch_tiles: Option<MixedBatchTiles>,
    /// All-reduce by number of GPUs.
    pub all_reduce: Vec<AllReduce>,
    /// Largest batch that vLLM captures as a CUDA graph, tokens.
    pub max_graph_tokens: u32,
    /// Where the kernel constants come from, with the fit's error.
    pub kernel_source: String,
    /// What an hour of it costs.
    pub price: Option<Price>,
}

/// How far the kernel constants of a GPU can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Kernel times measured on this GPU are interpolated.
    Tables,
    /// Closed forms, their constants fitted to kernel times measured on this GPU.
    Fitted,
    /// Closed forms over this GPU's datasheet peaks, with efficiencies fitted on another GPU.
    Datasheet,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tables => "tables",
            Self::Fitted => "fitted",
            Self::Datasheet => "datasheet",
        })
    }
}

/// Matrix multiplication: launch + a smooth maximum of compute and memory time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gemm {
    /// Fixed time, microseconds.
    pub launch_us: f64,
    /// Share of peak FLOP/s reached, in (0, 1].
    pub compute_efficiency: f64,
    /// Share of peak bandwidth reached, in (0, 1].
    pub bandwidth_efficiency: f64,
    /// The p of the smooth maximum `(x^p + y^p)^(1/p)`, at least 1: 1 is the sum, infinity the maximum.
    pub smoothness: f64,
}

/// A kernel limited by compute and memory: launch + FLOPs and bytes at a share of the peaks.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeAttention {
    /// Fixed time, microseconds.
    pub launch_us: f64,
    /// Share of peak bandwidth reached, in (0, 1].
    pub bandwidth_efficiency: f64,
    /// Microseconds for each sequence and KV head.
    pub us_per_sequence_and_kv_head: f64,
}

/// The tile of queries that one decode fills alone when its batch also prefills.
///
/// FlashAttention runs a mixed batch as one kernel whose tiles are made for prompts: a decode's single row is
/// multiplied as if it were a whole tile. FlashAttention 2 has tiles of 64 rows for each query head when the cache is
/// paged, FlashAttention 3 tiles of 128 rows that hold the query heads of one KV head. As long as no chunk has more
/// than 64 rows, FlashAttention 3 takes tiles of 64, as for decodes alone (`use_one_mma_wg` in vLLM's fork).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MixedBatchTiles {
    /// Rows of a tile.
    pub rows: u32,
    /// What has a tile of its own.
    pub per: TileOwner,
    /// Rows of the tiles of decodes alone, when chunks of no more rows run in them too: such a batch takes its decodes
    /// no longer than they take alone. None where decodes alone have a kernel of their own.
    pub alone: Option<u32>,
}

/// What has a tile of its own in a mixed batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TileOwner {
    /// Each query head of a decode.
    QueryHead,
    /// Each KV head of a decode: the query heads that share it are packed.
    KvHead,
}

/// vLLM's custom all-reduce inside a CUDA graph.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AllReduce {
    /// Number of GPUs.
    pub gpus: u32,
    /// Fixed time, microseconds.
    pub launch_us: f64,
    /// Bus bandwidth, bytes/s.
    pub bus_bytes_per_s: f64,
}

/// A list price.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// US dollars for an hour of one GPU.
    pub usd_per_gpu_hour: f64,
    /// Whose price it is, and of when.
    pub source: String,
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
        let gemms = [Some(&self.gemm), self.gemm_8bit.as_ref()].into_iter().flatten();
        let decodes =
            [Some(&self.decode_attention), self.decode_attention_fp8.as_ref()].into_iter().flatten();
        let mut shares: Vec<f64> =
            vec![self.prefill_attention.compute_efficiency, self.prefill_attention.bandwidth_efficiency];
        shares.extend(gemms.clone().flat_map(|gemm| [gemm.compute_efficiency, gemm.bandwidth_efficiency]));
        shares.extend(decodes.clone().map(|decode| decode.bandwidth_efficiency));
        if let Some(share) = shares.iter().find(|&&share| !(share > 0.0 && share <= 1.0)) {
            return Err(format!("an efficiency of {share} is not in (0, 1]"));
        }
        if let Some(gemm) = gemms.clone().find(|gemm| gemm.smoothness.is_nan() || gemm.smoothness < 1.0) {
            return Err(format!("a smoothness of {} is below 1", gemm.smoothness));
        }
        let mut peaks = vec![self.memory_gib, self.peak_bf16_flops, self.memory_bytes_per_s];
        peaks.extend(self.peak_fp8_flops);
        peaks.extend(self.peak_int8_flops);
        peaks.extend(self.all_reduce.iter().map(|entry| entry.bus_bytes_per_s));
        if let Some(peak) = peaks.iter().find(|&&peak| !(peak > 0.0 && peak.is_finite())) {
            return Err(format!("a peak of {peak} is not positive"));
        }
        let mut times = vec![self.prefill_attention.launch_us];
        times.extend(gemms.map(|gemm| gemm.launch_us));
        times.extend(decodes.flat_map(|decode| [decode.launch_us, decode.us_per_sequence_and_kv_head]));
        times.extend(self.all_reduce.iter().map(|entry| entry.launch_us));
        if let Some(time) = times.iter().find(|&&time| !(time >= 0.0 && time.is_finite())) {
            return Err(format!("a time of {time} us is negative"));
        }
        Ok(())
    }
}
