//! The ops that are fitted: their constants, bounds and times. The forms are the simulator's own.

use forerun_sim::catalog::{AllReduce, DecodeAttention, Gemm, Gpu, Kernel};
use forerun_sim::cost::kernels::{self, Product, Work};

use super::simplex::Bounds;

/// An op whose constants the catalog has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FittedOp {
    /// Matrix multiplication in bf16.
    Gemm,
    /// Matrix multiplication in fp8.
    Gemm8Bit,
    /// Causal attention of prompts.
    PrefillAttention,
    /// Attention of decodes.
    DecodeAttention,
    /// Attention of decodes over an fp8 cache.
    DecodeAttentionFp8,
    /// All-reduce over so many GPUs.
    AllReduce(u32),
}

/// One fitted constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    /// Its name in the catalog.
    pub name: &'static str,
    /// Its value.
    pub value: f64,
    /// Whether a bound holds it: the tables alone would have it beyond what is physical, or say nothing about it.
    pub at_bound: bool,
}

/// What a kernel was given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    Product(Product),
    Prefill(Work),
    Decode { sequences: f64, kv_heads: f64, elements: f64, kv_bytes: f64 },
    AllReduce { gpus: u32, bytes: f64 },
}

/// The form's time.
pub(super) fn predicted_us(gpu: &Gpu, input: &Input) -> f64 {
    match *input {
        Input::Product(product) => kernels::gemm_us(gpu, &product),
        Input::Prefill(work) => kernels::prefill_attention_us(gpu, work),
        Input::Decode { sequences, kv_heads, elements, kv_bytes } => {
            kernels::decode_base_us(gpu, kv_bytes, sequences, kv_heads)
                + kernels::decode_read_us(gpu, kv_bytes, elements)
        }
        Input::AllReduce { gpus, bytes } => kernels::all_reduce_us(gpu, gpus, bytes),
    }
}

const EFFICIENCY: Bounds = Bounds { least: 0.05, most: 1.0, start: 0.75 };
const LAUNCH_US: Bounds = Bounds { least: 0.0, most: 60.0, start: 6.0 };
/// From the sum of compute and memory time (1) to nearly their maximum.
const SMOOTHNESS: Bounds = Bounds { least: 1.0, most: 8.0, start: 2.5 };
const PER_HEAD_US: Bounds = Bounds { least: 0.0, most: 0.2, start: 0.02 };
/// From PCIe to beyond NVLink 5, in GB/s.
const BUS_GB_PER_S: Bounds = Bounds { least: 0.5, most: 2000.0, start: 200.0 };
/// A constant this near to a bound, relative to it or to the range, counts as held by it.
const AT_BOUND: f64 = 0.005;

impl FittedOp {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Gemm,
        Self::Gemm8Bit,
        Self::PrefillAttention,
        Self::DecodeAttention,
        Self::DecodeAttentionFp8,
        Self::AllReduce(2),
        Self::AllReduce(4),
        Self::AllReduce(8),
    ];

    /// Its name for people.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::Gemm => "GEMM bf16".into(),
            Self::Gemm8Bit => "GEMM fp8".into(),
            Self::PrefillAttention => "prefill attention".into(),
            Self::DecodeAttention => "decode attention".into(),
            Self::DecodeAttentionFp8 => "decode attention, fp8 KV".into(),
            Self::AllReduce(gpus) => format!("all-reduce over {gpus}"),
        }
    }

    /// Whether the GPU has a peak for it.
    pub(super) fn has_peak(self, gpu: &Gpu) -> bool {
        self != Self::Gemm8Bit || gpu.peak_fp8_flops.is_some()
    }

    /// Whether its constants are shares of peaks that the catalog states for every GPU.
    pub(super) fn transfers(self) -> bool {
        !matches!(self, Self::AllReduce(_))
    }

    fn constants(self) -> &'static [(&'static str, Bounds)] {
        match self {
            Self::Gemm | Self::Gemm8Bit => &[
                ("launch_us", LAUNCH_US),
                ("compute_efficiency", EFFICIENCY),
                ("bandwidth_efficiency", EFFICIENCY),
                ("smoothness", SMOOTHNESS),
            ],
            Self::PrefillAttention => &[
                ("launch_us", LAUNCH_US),
                ("compute_efficiency", EFFICIENCY),
                ("bandwidth_efficiency", EFFICIENCY),
            ],
            Self::DecodeAttention | Self::DecodeAttentionFp8 => &[
                ("launch_us", LAUNCH_US),
                ("bandwidth_efficiency", EFFICIENCY),
                ("us_per_sequence_and_kv_head", PER_HEAD_US),
            ],
            Self::AllReduce(_) => &[("launch_us", LAUNCH_US), ("bus_gb_per_s", BUS_GB_PER_S)],
        }
    }

    pub(super) fn bounds(self) -> Vec<Bounds> {
        self.constants().iter().map(|(_, bounds)| *bounds).collect()
    }

    pub(super) fn named(self, values: &[f64]) -> Vec<Constant> {
        let named = |(&(name, bounds), &value): (&(&'static str, Bounds), &f64)| {
            let edge = (bounds.most - bounds.least) * AT_BOUND;
            let low = if bounds.least > 0.0 { bounds.least * (1.0 + AT_BOUND) } else { edge };
            Constant { name, value, at_bound: value < low || value > bounds.most - edge }
        };
        self.constants().iter().zip(values).map(named).collect()
    }

    /// Puts constants into a GPU.
    pub(super) fn apply(self, gpu: &mut Gpu, values: &[f64]) {
        let decode = || DecodeAttention {
            launch_us: values[0],
            bandwidth_efficiency: values[1],
            us_per_sequence_and_kv_head: values[2],
        };
        let gemm = || Gemm {
            launch_us: values[0],
            compute_efficiency: values[1],
            bandwidth_efficiency: values[2],
            smoothness: values[3],
        };
        match self {
            Self::Gemm => gpu.gemm = gemm(),
            Self::Gemm8Bit => gpu.gemm_8bit = Some(gemm()),
            Self::PrefillAttention => {
                gpu.prefill_attention = Kernel {
                    launch_us: values[0],
                    compute_efficiency: values[1],
                    bandwidth_efficiency: values[2],
                };
            }
            Self::DecodeAttention => gpu.decode_attention = decode(),
            Self::DecodeAttentionFp8 => gpu.decode_attention_fp8 = Some(decode()),
            Self::AllReduce(gpus) => {
                gpu.all_reduce =
                    vec![AllReduce { gpus, launch_us: values[0], bus_bytes_per_s: values[1] * 1e9 }];
            }
        }
    }

    /// The constants that a GPU of the catalog has.
    pub(super) fn values_of(self, gpu: &Gpu) -> Option<Vec<f64>> {
        let gemm =
            |fit: Gemm| vec![fit.launch_us, fit.compute_efficiency, fit.bandwidth_efficiency, fit.smoothness];
        let decode = |fit: DecodeAttention| {
            vec![fit.launch_us, fit.bandwidth_efficiency, fit.us_per_sequence_and_kv_head]
        };
        match self {
            Self::Gemm => Some(gemm(gpu.gemm)),
            Self::Gemm8Bit => gpu.gemm_8bit.map(gemm),
            Self::PrefillAttention => {
                let fit = gpu.prefill_attention;
                Some(vec![fit.launch_us, fit.compute_efficiency, fit.bandwidth_efficiency])
            }
            Self::DecodeAttention => Some(decode(gpu.decode_attention)),
            Self::DecodeAttentionFp8 => gpu.decode_attention_fp8.map(decode),
            Self::AllReduce(gpus) => {
                let entry = gpu.all_reduce.iter().find(|entry| entry.gpus == gpus)?;
                Some(vec![entry.launch_us, entry.bus_bytes_per_s / 1e9])
            }
        }
    }
}
