//! AIConfigurator's kernel tables as samples: what a kernel was given, and its time.

use std::path::Path;

use forerun_sim::catalog::WeightType;
use forerun_sim::cost::kernels::{ACTIVATION_BYTES, Product, Work};

use super::ops::{FittedOp, Input};
use crate::import::ImportError;
use crate::rows::{Row, Table, find};

/// Samples of one op that are used: enough for four constants, and quick.
const SAMPLES_MAX: usize = 2000;

/// Matrices of language models; the tables also have tiny ones and batches of half a million tokens.
const MATRIX: std::ops::RangeInclusive<u32> = 1024..=65_536;
const TOKENS_MAX: u32 = 16_384;

/// One measured time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) input: Input,
    pub(super) us: f64,
    /// Which shapes it belongs with when some are held out: those of one matrix, of one set of heads.
    pub(super) group: u64,
}

/// The samples of `op` in the folder of one GPU; none where it has no such table.
pub(super) fn samples(op: FittedOp, folder: &Path) -> Result<Vec<Sample>, ImportError> {
    let name = match op {
        FittedOp::Gemm | FittedOp::Gemm8Bit => "gemm",
        FittedOp::PrefillAttention => "context_attention",
        FittedOp::DecodeAttention | FittedOp::DecodeAttentionFp8 => "generation_attention",
        FittedOp::AllReduce(_) => "allreduce_vllm",
    };
    if find(folder, name).is_none() {
        return Ok(Vec::new());
    }
    let table = Table::read(folder, name)?;
    let all = match op {
        FittedOp::Gemm => products(&table, "bfloat16", WeightType::Bf16)?,
        FittedOp::Gemm8Bit => products(&table, "fp8", WeightType::Fp8)?,
        FittedOp::PrefillAttention => prefills(&table)?,
        FittedOp::DecodeAttention => decodes(&table, "bfloat16", ACTIVATION_BYTES)?,
        FittedOp::DecodeAttentionFp8 => decodes(&table, "fp8", 1.0)?,
        FittedOp::AllReduce(gpus) => all_reduces(&table, gpus)?,
    };
    Ok(thinned(all))
}

/// Every n-th sample in an order that has nothing to do with the table's.
fn thinned(mut all: Vec<Sample>) -> Vec<Sample> {
    let keep = all.len().div_ceil(SAMPLES_MAX).max(1);
    all.sort_by_cached_key(|sample| mixed(&[sample.us.to_bits(), sample.group]));
    all.into_iter().step_by(keep).collect()
}

/// A number that depends on all of these (SplitMix64's finaliser).
fn mixed(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x9E37_79B9_7F4A_7C15, |hash, number| {
        let mut z = (hash ^ number).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

fn products(table: &Table, dtype: &str, weights: WeightType) -> Result<Vec<Sample>, ImportError> {
    let [kind, m, n, k, us] = table.columns(["gemm_dtype", "m", "n", "k", "latency_us"])?;
    let mut samples = Vec::new();
    for row in table.rows().filter(|row| row.text(kind) == dtype) {
        let (m, n, k): (u32, u32, u32) = (row.number(m)?, row.number(n)?, row.number(k)?);
        if m > TOKENS_MAX || !MATRIX.contains(&n) || !MATRIX.contains(&k) {
            continue;
        }
        let product =
            Product { tokens: f64::from(m), k: f64::from(k), n: f64::from(n), matrices: 1.0, weights };
        let group = mixed(&[u64::from(n), u64::from(k)]);
        samples.push(Sample { input: Input::Product(product), us: row.time(us)?, group });
    }
    Ok(samples)
}

/// The heads of a row of an attention table.
struct HeadCounts {
    heads: f64,
    kv_heads: f64,
    head_dim: f64,
    group: u64,
}

impl HeadCounts {
    fn read(row: &Row<'_>, columns: [usize; 3]) -> Result<Self, ImportError> {
        let [heads, kv_heads, head_dim] = columns;
        let (heads, kv_heads, head_dim): (u32, u32, u32) =
            (row.number(heads)?, row.number(kv_heads)?, row.number(head_dim)?);
        Ok(Self {
            heads: f64::from(heads),
            kv_heads: f64::from(kv_heads),
            head_dim: f64::from(head_dim),
            group: mixed(&[heads, kv_heads, head_dim].map(u64::from)),
        })
    }
}

fn prefills(table: &Table) -> Result<Vec<Sample>, ImportError> {
    let [kind, kv_kind] = table.columns(["attn_dtype", "kv_cache_dtype"])?;
    let [batch, length, us] = table.columns(["batch_size", "isl", "latency_us"])?;
    let heads = table.columns(["num_heads", "num_key_value_heads", "head_dim"])?;
    let mut samples = Vec::new();
    for row in table.rows().filter(|row| row.text(kind) == "bfloat16" && row.text(kv_kind) == "bfloat16") {
        let HeadCounts { heads, kv_heads, head_dim, group } = HeadCounts::read(&row, heads)?;
        let (batch, length): (f64, f64) =
            (f64::from(row.number::<u32>(batch)?), f64::from(row.number::<u32>(length)?));
        // Two products of 2 FLOPs for each pair, head and dimension; queries read, outputs written, keys and values read.
        let work = Work {
            flops: 4.0 * heads * head_dim * batch * length * (length + 1.0) / 2.0,
            bytes: ACTIVATION_BYTES * batch * length * head_dim * 2.0 * (heads + kv_heads),
        };
        samples.push(Sample { input: Input::Prefill(work), us: row.time(us)?, group });
    }
    Ok(samples)
}

/// Decodes of served sizes: at most 512 sequences, at least 256 tokens of context.
fn decodes(table: &Table, kv_dtype: &str, kv_bytes: f64) -> Result<Vec<Sample>, ImportError> {
    let [kind, kv_kind] = table.columns(["attn_dtype", "kv_cache_dtype"])?;
    let [batch, context, us] = table.columns(["batch_size", "context", "latency_us"])?;
    let heads = table.columns(["num_heads", "num_key_value_heads", "head_dim"])?;
    let mut samples = Vec::new();
    for row in table.rows().filter(|row| row.text(kind) == "bfloat16" && row.text(kv_kind) == kv_dtype) {
        let HeadCounts { kv_heads, head_dim, group, .. } = HeadCounts::read(&row, heads)?;
        let (batch, context): (u32, u32) = (row.number(batch)?, row.number(context)?);
        if batch > 512 || context < 256 {
            continue;
        }
        let sequences = f64::from(batch);
        let elements = 2.0 * sequences * f64::from(context) * kv_heads * head_dim;
        let input = Input::Decode { sequences, kv_heads, elements, kv_bytes };
        samples.push(Sample { input, us: row.time(us)?, group });
    }
    Ok(samples)
}

/// vLLM's custom all-reduce in a CUDA graph. Sizes are elements, not bytes.
fn all_reduces(table: &Table, gpus: u32) -> Result<Vec<Sample>, ImportError> {
    let [source, kind, count] = table.columns(["kernel_source", "allreduce_dtype", "num_gpus"])?;
    let [size, us] = table.columns(["message_size", "latency_us"])?;
    let mut samples = Vec::new();
    let used = |row: &Row<'_>| row.text(source) == "vLLM_custom_graph" && row.text(kind) == "bfloat16";
    for row in table.rows().filter(used) {
        if row.number::<u32>(count)? == gpus {
            let elements: u64 = row.number(size)?;
            let input = Input::AllReduce { gpus, bytes: elements as f64 * ACTIVATION_BYTES };
            samples.push(Sample { input, us: row.time(us)?, group: mixed(&[elements]) });
        }
    }
    Ok(samples)
}
