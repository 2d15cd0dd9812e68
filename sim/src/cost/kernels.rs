//! The time of one kernel on one GPU: closed forms over the GPU's peaks, each in a function of its own.
//!
//! Forms and constants are fits to public kernel tables; the catalog names the tables and the error of each fit.
//! docs/cost-model.md explains them.

use crate::catalog::{DecodeAttention, Gemm, Gpu, WeightType};

/// Norms, rotary embedding, activation, embedding lookup: fixed time, and share of peak bandwidth reached.
/// Floors of 1.9 to 2.7 us for these ops on RTX 4090 and RTX PRO 6000 (LLMServingSim 2.0 profiles, MIT).
pub const ELEMENTWISE_LAUNCH_US: f64 = 2.2;
/// See [`ELEMENTWISE_LAUNCH_US`].
pub const ELEMENTWISE_BANDWIDTH_EFFICIENCY: f64 = 0.8;

/// The sampler passes over the fp32 logits about 2.4 times, after a floor of 12 to 25 us (same profiles: 311 us
/// at 256 x 128,256 on RTX 4090, 218 us at 256 x 151,936 on RTX PRO 6000).
pub const SAMPLER_LAUNCH_US: f64 = 15.0;
/// See [`SAMPLER_LAUNCH_US`].
pub const SAMPLER_PASSES: f64 = 2.4;

/// Bytes of an activation: bf16 or fp16.
pub const ACTIVATION_BYTES: f64 = 2.0;

/// `(x^p + y^p)^(1/p)`: the maximum when one of them dominates, more when they are alike, as compute and memory
/// traffic of a kernel overlap imperfectly.
#[must_use]
pub fn smooth_max(x: f64, y: f64, p: f64) -> f64 {
    let (small, large) = if x < y { (x, y) } else { (y, x) };
    let ratio = if large > 0.0 { small / large } else { 0.0 };
    // Below this the correction is less than a rounding error for every p in use.
    if ratio < 1e-6 { large } else { large * libm::pow(1.0 + libm::pow(ratio, p), 1.0 / p) }
}

/// FLOPs and bytes of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes moved.
    pub bytes: f64,
}

/// A multiplication `[tokens, k] x [k, n]` with a matrix of `weights`, of which a share is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// Rows of the left matrix.
    pub tokens: f64,
    /// Inner dimension.
    pub k: f64,
    /// Columns of the result.
    pub n: f64,
    /// How many times `k x n` weights are read: 1, or the number of experts touched.
    pub matrices: f64,
    /// Their type.
    pub weights: WeightType,
}

/// Whether this GPU multiplies weights of this type in 8 bits, and its peak then.
fn peak_8bit(gpu: &Gpu, weights: WeightType) -> Option<f64> {
    match weights {
        WeightType::Fp8 => gpu.peak_fp8_flops,
        WeightType::W8a8 => gpu.peak_int8_flops,
        WeightType::Bf16 | WeightType::Fp16 | WeightType::Mxfp4 | WeightType::W4a16 => None,
    }
}

/// FLOPs and bytes of a product. In 8 bits the activations are read in 8 bits too.
#[must_use]
pub fn gemm_work(gpu: &Gpu, product: &Product) -> Work {
    let Product { tokens, k, n, matrices, weights } = *product;
    let input_bytes = if peak_8bit(gpu, weights).is_some() { 1.0 } else { ACTIVATION_BYTES };
    Work {
        flops: 2.0 * tokens * k * n,
        bytes: matrices * k * n * weights.bytes() + tokens * (k * input_bytes + n * ACTIVATION_BYTES),
    }
}

/// The constants by which a product with `weights` is timed: fit and peak FLOP/s.
#[must_use]
pub fn gemm_constants(gpu: &Gpu, weights: WeightType) -> (Gemm, f64) {
    match peak_8bit(gpu, weights) {
        Some(peak) => (gpu.gemm_8bit.unwrap_or(gpu.gemm), peak),
        None => (gpu.gemm, gpu.peak_bf16_flops),
    }
}

/// Matrix multiplication: launch + smooth maximum of compute and memory time.
///
/// The fits of 8-bit kernels are poor (11 to 18 %) and at some sizes slower than 16 bits; a server would choose the
/// faster kernel, so 8 bits never take longer than 16.
#[must_use]
pub fn gemm_us(gpu: &Gpu, product: &Product) -> f64 {
    let (fit, peak) = gemm_constants(gpu, product.weights);
    let time = gemm_form_us(gpu, &fit, peak, gemm_work(gpu, product));
    if peak_8bit(gpu, product.weights).is_none() {
        return time;
    }
    let wide = Product { weights: WeightType::Bf16, ..*product };
    time.min(gemm_form_us(gpu, &gpu.gemm, gpu.peak_bf16_flops, gemm_work(gpu, &wide)))
}

fn gemm_form_us(gpu: &Gpu, fit: &Gemm, peak_flops: f64, work: Work) -> f64 {
    let compute_us = work.flops / (peak_flops * fit.compute_efficiency) * 1e6;
    let memory_us = work.bytes / (gpu.memory_bytes_per_s * fit.bandwidth_efficiency) * 1e6;
    fit.launch_us + smooth_max(compute_us, memory_us, fit.smoothness)
}

/// Distinct experts that a batch touches on average when each of its tokens is sent to `active` of `experts` at
/// random: `N (1 - ((N - k) / N)^tokens)`.
#[must_use]
pub fn experts_touched(experts: f64, active: f64, tokens: f64) -> f64 {
    experts * (1.0 - libm::pow(1.0 - active / experts, tokens))
}

/// Norms, rotary embedding, activation: one pass over their elements.
#[must_use]
pub fn elementwise_us(gpu: &Gpu, elements: f64) -> f64 {
    let bandwidth = gpu.memory_bytes_per_s * ELEMENTWISE_BANDWIDTH_EFFICIENCY;
    ELEMENTWISE_LAUNCH_US + elements * ACTIVATION_BYTES / bandwidth * 1e6
}

/// The sampler: passes over the fp32 logits.
#[must_use]
pub fn sampler_us(gpu: &Gpu, logits: f64) -> f64 {
    SAMPLER_LAUNCH_US + SAMPLER_PASSES * 4.0 * logits / gpu.memory_bytes_per_s * 1e6
}

/// Attention of prefill chunks: launch + FLOPs + bytes, which add up in the tables.
#[must_use]
pub fn prefill_attention_us(gpu: &Gpu, work: Work) -> f64 {
    let fit = &gpu.prefill_attention;
    fit.launch_us
        + prefill_flops_us(gpu, work.flops)
        + work.bytes / (gpu.memory_bytes_per_s * fit.bandwidth_efficiency) * 1e6
}

/// The time of `flops` in the prefill attention kernel.
#[must_use]
pub fn prefill_flops_us(gpu: &Gpu, flops: f64) -> f64 {
    flops / (gpu.peak_bf16_flops * gpu.prefill_attention.compute_efficiency) * 1e6
}

/// The decode attention fits of a GPU that may hold for a cache of `kv_bytes` per element: an fp8 cache is read by
/// the kernel measured for it, and never slower than a 16-bit cache would be.
fn decode_fits(gpu: &Gpu, kv_bytes: f64) -> impl Iterator<Item = (DecodeAttention, f64)> {
    let narrow = (kv_bytes < ACTIVATION_BYTES)
        .then(|| (gpu.decode_attention_fp8.unwrap_or(gpu.decode_attention), kv_bytes));
    std::iter::once((gpu.decode_attention, ACTIVATION_BYTES)).chain(narrow)
}

/// Decode attention but for the reading of keys and values: launch + a cost per sequence and KV head.
#[must_use]
pub fn decode_base_us(gpu: &Gpu, kv_bytes: f64, sequences: f64, kv_heads: f64) -> f64 {
    decode_fits(gpu, kv_bytes)
        .map(|(fit, _)| fit.launch_us + fit.us_per_sequence_and_kv_head * sequences * kv_heads)
        .fold(f64::INFINITY, f64::min)
}

/// Decode attention: reading `elements` of the KV cache.
#[must_use]
pub fn decode_read_us(gpu: &Gpu, kv_bytes: f64, elements: f64) -> f64 {
    decode_fits(gpu, kv_bytes)
        .map(|(fit, bytes)| elements * bytes / (gpu.memory_bytes_per_s * fit.bandwidth_efficiency) * 1e6)
        .fold(f64::INFINITY, f64::min)
}

/// One all-reduce of `bytes` over `gpus` GPUs: launch + `2 (n - 1) / n` times the bytes over the bus.
///
/// The fits differ by more than the truth between numbers of GPUs (7 to 18 %): more GPUs never take less time.
#[must_use]
pub fn all_reduce_us(gpu: &Gpu, gpus: u32, bytes: f64) -> f64 {
    let entries = gpu.all_reduce.iter().filter(|entry| entry.gpus > 1 && entry.gpus <= gpus);
    entries
        .map(|entry| {
            let n = f64::from(entry.gpus);
            entry.launch_us + 2.0 * (n - 1.0) / n * bytes / entry.bus_bytes_per_s * 1e6
        })
        .fold(0.0, f64::max)
}

#[cfg(test)]
#[path = "kernels_tests.rs"]
mod tests;
