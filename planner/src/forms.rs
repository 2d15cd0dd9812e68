//! The forms of step times in words: formula, constants of a GPU, and where they come from.

use forerun_sim::catalog::{Gpu, TileOwner, WeightType};
use forerun_sim::cost::closed_form::SKEW;
use forerun_sim::cost::kernels::{
    ELEMENTWISE_BANDWIDTH_EFFICIENCY, ELEMENTWISE_LAUNCH_US, SAMPLER_LAUNCH_US, SAMPLER_PASSES,
    gemm_constants,
};
use forerun_sim::cost::op::Form;

/// A form in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    /// The time of one call.
    pub(crate) formula: &'static str,
    /// Its constants on a GPU.
    pub(crate) constants: String,
    /// Where they come from.
    pub(crate) source: String,
}

const PROFILES: &str = "LLMServingSim 2.0's profiles of RTX 4090 and RTX PRO 6000 (MIT)";

/// A form's name.
pub(crate) fn name(form: Form) -> String {
    match form {
        Form::Gemm(weights) => format!("GEMM {weights}"),
        Form::Experts(weights) => format!("expert GEMM {weights}"),
        Form::Elementwise => "elementwise".into(),
        Form::PrefillAttention => "prefill attention".into(),
        Form::DecodeBase => "decode attention, launch".into(),
        Form::DecodeRead => "decode attention, KV".into(),
        Form::DecodeSkew => "unequal lengths".into(),
        Form::MixedTiles => "mixed batch".into(),
        Form::AllReduce(gpus) => format!("all-reduce over {gpus}"),
        Form::Sampler => "sampler".into(),
    }
}

/// A form on `gpu`, with a KV cache of elements of `kv_element_bytes`.
pub(crate) fn explain(gpu: &Gpu, form: Form, kv_element_bytes: u32) -> Explained {
    let fitted = gpu.kernel_source.clone();
    let bandwidth = format!("BW {:.3} TB/s", gpu.memory_bytes_per_s / 1e12);
    match form {
        Form::Gemm(weights) => gemm(gpu, weights, GEMM),
        Form::Experts(weights) => gemm(gpu, weights, EXPERTS),
        Form::Elementwise => Explained {
            formula: "launch + bytes / (BW e)",
            constants: format!(
                "launch {ELEMENTWISE_LAUNCH_US} us; {bandwidth}, e {ELEMENTWISE_BANDWIDTH_EFFICIENCY}"
            ),
            source: PROFILES.into(),
        },
        Form::PrefillAttention => {
            let fit = &gpu.prefill_attention;
            let peak = gpu.peak_bf16_flops / 1e12;
            Explained {
                formula: "launch + FLOPs / (P c) + bytes / (BW e); causal FLOPs of each query and key",
                constants: format!(
                    "launch {} us; P {peak} TFLOP/s, c {}; {bandwidth}, e {}",
                    fit.launch_us, fit.compute_efficiency, fit.bandwidth_efficiency
                ),
                source: fitted,
            }
        }
        Form::DecodeBase | Form::DecodeRead => decode(gpu, form, kv_element_bytes),
        Form::DecodeSkew => Explained {
            formula: "alpha (A(longest) - A(mean)), A the attention over that context",
            constants: format!("alpha {SKEW}"),
            source: PROFILES.into(),
        },
        Form::MixedTiles => mixed(gpu),
        Form::AllReduce(gpus) => all_reduce(gpu, gpus),
        Form::Sampler => Explained {
            formula: "launch + passes * bytes of the fp32 logits / BW",
            constants: format!("launch {SAMPLER_LAUNCH_US} us; {SAMPLER_PASSES} passes; {bandwidth}"),
            source: PROFILES.into(),
        },
    }
}

const GEMM: &str = "launch + (x^p + y^p)^(1/p), x = FLOPs / (P c), y = bytes / (BW e)";
const EXPERTS: &str =
    "as GEMM; FLOPs of each token's k experts, weights of N (1 - ((N - k) / N)^tokens) of N";

fn gemm(gpu: &Gpu, weights: WeightType, formula: &'static str) -> Explained {
    let (fit, peak) = gemm_constants(gpu, weights);
    let wide = matches!(weights, WeightType::Bf16 | WeightType::Fp16);
    let bound = if wide { "" } else { "; 8 bits never take longer than 16" };
    Explained {
        formula,
        constants: format!(
            "launch {} us; P {} TFLOP/s, c {}; BW {:.3} TB/s, e {}; p {}; {} bytes a weight{bound}",
            fit.launch_us,
            peak / 1e12,
            fit.compute_efficiency,
            gpu.memory_bytes_per_s / 1e12,
            fit.bandwidth_efficiency,
            fit.smoothness,
            weights.bytes()
        ),
        source: gpu.kernel_source.clone(),
    }
}

fn decode(gpu: &Gpu, form: Form, kv_element_bytes: u32) -> Explained {
    let narrow = gpu.decode_attention_fp8.filter(|_| kv_element_bytes == 1);
    let fit = narrow.unwrap_or(gpu.decode_attention);
    let (formula, constants) = if form == Form::DecodeBase {
        (
            "launch + t * sequences * KV heads; in a mixed batch of one kernel, what exceeds the prefill's launch",
            format!("launch {} us; t {} us", fit.launch_us, fit.us_per_sequence_and_kv_head),
        )
    } else {
        (
            "bytes of keys and values / (BW e); at least FLOPs / (P c) of prefill attention",
            format!(
                "BW {:.3} TB/s, e {}; {kv_element_bytes} bytes an element",
                gpu.memory_bytes_per_s / 1e12,
                fit.bandwidth_efficiency
            ),
        )
    };
    Explained { formula, constants, source: gpu.kernel_source.clone() }
}

fn mixed(gpu: &Gpu) -> Explained {
    let tiles = gpu.mixed_batch_tiles.map_or_else(String::new, |tiles| {
        let owner = match tiles.per {
            TileOwner::QueryHead => "query head",
            TileOwner::KvHead => "KV head",
        };
        let short = tiles.alone.map(|rows| format!(", none while no chunk has more than {rows} rows"));
        format!("{} rows for each {owner}{}", tiles.rows, short.unwrap_or_default())
    });
    Explained {
        formula: "4 * head width * rows * context / (P c): a decode fills one row of a tile that is multiplied whole",
        constants: format!(
            "{tiles}; P {} TFLOP/s, c {}",
            gpu.peak_bf16_flops / 1e12,
            gpu.prefill_attention.compute_efficiency
        ),
        source: format!(
            "tile sizes of FlashAttention's paged kernels; the form is checked against mixed batches in {PROFILES}"
        ),
    }
}

fn all_reduce(gpu: &Gpu, gpus: u32) -> Explained {
    let entry = gpu.all_reduce.iter().find(|entry| entry.gpus == gpus);
    let constants = entry.map_or_else(String::new, |entry| {
        format!("launch {} us; bus {} GB/s", entry.launch_us, entry.bus_bytes_per_s / 1e9)
    });
    Explained {
        formula: "launch + 2 (n - 1) / n * bytes / bus; no less than over fewer GPUs",
        constants,
        source: gpu.kernel_source.clone(),
    }
}
