//! The constants that a live server is fitted by: what no kernel table says of it, and how far its kernels stay behind
//! the tables of their GPU.

use std::collections::BTreeMap;

use forerun_sim::catalog::{Gpu, Grade, WeightType};
use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP};
use forerun_sim::cost::kernels::gemm_constants;
use forerun_sim::time::Span;
use forerun_workloads::units::Duration;
use serde::{Deserialize, Serialize};

use crate::assemble::{API_SERVER, TOKENIZE_PER_1K_TOKENS};
use crate::scenario::{EngineArgs, OverheadSpec};

/// One constant; the name says its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constant {
    /// From the client to the engine and back, for each request: `overhead.api_server`.
    ApiServerMs,
    /// Tokenizer: `overhead.tokenize_per_1k_tokens`.
    TokenizeMsPer1kTokens,
    /// CPU time of a step: `overhead.engine_per_step`.
    EngineUsPerStep,
    /// CPU time of a step for each request of its batch: `overhead.engine_per_request`.
    EngineUsPerRequest,
    /// Share of peak FLOP/s that matrix multiplications reach.
    GemmComputeEfficiency,
    /// Share of peak bandwidth that matrix multiplications reach.
    GemmBandwidthEfficiency,
    /// Share of peak FLOP/s that the attention of prompts reaches.
    PrefillComputeEfficiency,
    /// Share of peak bandwidth that the attention of decodes reaches.
    DecodeBandwidthEfficiency,
    /// KV blocks: `engine.num_gpu_blocks`.
    NumGpuBlocks,
}

/// Values by constant.
pub(crate) type Constants = BTreeMap<Constant, f64>;

/// What is known of a constant before anything is measured: the logarithm of its value is normal around the default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prior {
    /// The value in use without a fit.
    pub(super) value: f64,
    /// Standard deviation of the logarithm.
    pub(super) deviation: f64,
    /// What is possible.
    pub(super) least: f64,
    /// See `least`.
    pub(super) most: f64,
}

/// The replica that constants are of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed<'a> {
    /// Its GPU, with the catalog's constants.
    pub(crate) gpu: &'a Gpu,
    /// Type of the weights of its layers.
    pub(crate) weights: WeightType,
    /// Bytes of an element of its KV cache.
    pub(crate) kv_element_bytes: u32,
}

impl Constant {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::ApiServerMs,
        Self::TokenizeMsPer1kTokens,
        Self::EngineUsPerStep,
        Self::EngineUsPerRequest,
        Self::GemmComputeEfficiency,
        Self::GemmBandwidthEfficiency,
        Self::PrefillComputeEfficiency,
        Self::DecodeBandwidthEfficiency,
        Self::NumGpuBlocks,
    ];

    /// Its name in profiles.
    pub(crate) fn key(self) -> String {
        serde_json::to_value(self).ok().and_then(|key| Some(key.as_str()?.to_owned())).unwrap_or_default()
    }

    /// Its name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ApiServerMs => "API server, ms per request",
            Self::TokenizeMsPer1kTokens => "tokenizer, ms per 1000 tokens",
            Self::EngineUsPerStep => "engine CPU, us per step",
            Self::EngineUsPerRequest => "engine CPU, us per request and step",
            Self::GemmComputeEfficiency => "GEMM, share of peak FLOP/s",
            Self::GemmBandwidthEfficiency => "GEMM, share of peak bandwidth",
            Self::PrefillComputeEfficiency => "prefill attention, share of peak FLOP/s",
            Self::DecodeBandwidthEfficiency => "decode attention, share of peak bandwidth",
            Self::NumGpuBlocks => "KV blocks",
        }
    }

    /// What to measure for the data to tell it.
    pub(super) fn mend(self) -> &'static str {
        match self {
            Self::ApiServerMs => "measure short prompts at a low rate beside the others",
            Self::TokenizeMsPer1kTokens => "measure prompts of several lengths",
            Self::EngineUsPerStep | Self::EngineUsPerRequest => {
                "it shows only where a step's CPU time exceeds its GPU time: many short requests on a small model"
            }
            Self::GemmComputeEfficiency => "measure a higher rate, or longer prompts",
            Self::GemmBandwidthEfficiency => "measure few requests in flight beside many",
            Self::PrefillComputeEfficiency => {
                "measure prompts of several lengths, some of many thousand tokens"
            }
            Self::DecodeBandwidthEfficiency => "measure long contexts with many requests in flight",
            Self::NumGpuBlocks => {
                "the KV cache never ran full: take `engine.num_gpu_blocks` from the server's log"
            }
        }
    }

    /// What is known of it without a measurement; none where the scenario says it.
    ///
    /// Overheads: the scenario's defaults with the spread seen between servers (5 to 15 ms of API server, 0.1 to 1 ms of
    /// CPU per step). Efficiencies: the catalog's; its fits err by 6 to 20 % on the kernels that they were fitted to, and
    /// by up to twice that on a GPU that has only a datasheet (docs/calibration.md).
    pub(super) fn prior(
        self,
        placed: &Placed<'_>,
        overhead: &OverheadSpec,
        blocks: Option<u32>,
    ) -> Option<Prior> {
        let efficiency = |deviation: f64| {
            let unknown = if placed.gpu.grade == Grade::Datasheet { 2.0 } else { 1.0 };
            let value = self.efficiency(placed);
            Some(Prior { value, deviation: deviation * unknown, least: 0.05, most: 1.0 })
        };
        let time = |given: Option<Duration>, default: Span, unit: f64, deviation: f64, most: f64| {
            let value = default.as_nanos() as f64 / unit;
            given.is_none().then_some(Prior { value, deviation, least: value / 100.0, most })
        };
        match self {
            Self::ApiServerMs => time(overhead.api_server, API_SERVER, 1e6, 0.8, 500.0),
            Self::TokenizeMsPer1kTokens => {
                time(overhead.tokenize_per_1k_tokens, TOKENIZE_PER_1K_TOKENS, 1e6, 0.8, 100.0)
            }
            Self::EngineUsPerStep => time(overhead.engine_per_step, CPU_PER_STEP, 1e3, 1.0, 20_000.0),
            Self::EngineUsPerRequest => time(overhead.engine_per_request, CPU_PER_REQUEST, 1e3, 0.8, 2_000.0),
            Self::GemmComputeEfficiency | Self::GemmBandwidthEfficiency => efficiency(0.15),
            Self::PrefillComputeEfficiency => efficiency(0.25),
            Self::DecodeBandwidthEfficiency => efficiency(0.2),
            Self::NumGpuBlocks => {
                let value = f64::from(blocks?);
                Some(Prior { value, deviation: 0.15, least: value / 5.0, most: value * 2.0 })
            }
        }
    }

    /// The catalog's efficiency of the form that this replica's kernels have.
    fn efficiency(self, placed: &Placed<'_>) -> f64 {
        let gpu = placed.gpu;
        let (gemm, _) = gemm_constants(gpu, placed.weights);
        let eight_bits = gpu.decode_attention_fp8.filter(|_| placed.kv_element_bytes == 1);
        match self {
            Self::GemmComputeEfficiency => gemm.compute_efficiency,
            Self::GemmBandwidthEfficiency => gemm.bandwidth_efficiency,
            Self::PrefillComputeEfficiency => gpu.prefill_attention.compute_efficiency,
            _ => eight_bits.unwrap_or(gpu.decode_attention).bandwidth_efficiency,
        }
    }
}

/// The GPU with these efficiencies. Forms that the replica does not use keep their proportion to those that it does.
///
/// # Errors
/// When a value is not above 0.
pub(crate) fn gpu_with(constants: &Constants, placed: &Placed<'_>) -> Result<Gpu, String> {
    if let Some((constant, value)) = constants.iter().find(|(_, value)| !(**value > 0.0 && value.is_finite()))
    {
        return Err(format!("`{}` is {value}: a number above 0 is needed", constant.key()));
    }
    let mut gpu = placed.gpu.clone();
    let ratio = |constant: Constant| {
        constants.get(&constant).map_or(1.0, |value| value / constant.efficiency(placed))
    };
    let scale = |efficiency: &mut f64, ratio: f64| *efficiency = (*efficiency * ratio).min(1.0);
    let (compute, bandwidth) =
        (ratio(Constant::GemmComputeEfficiency), ratio(Constant::GemmBandwidthEfficiency));
    for gemm in std::iter::once(&mut gpu.gemm).chain(gpu.gemm_8bit.as_mut()) {
        scale(&mut gemm.compute_efficiency, compute);
        scale(&mut gemm.bandwidth_efficiency, bandwidth);
    }
    scale(&mut gpu.prefill_attention.compute_efficiency, ratio(Constant::PrefillComputeEfficiency));
    let decode = ratio(Constant::DecodeBandwidthEfficiency);
    for attention in std::iter::once(&mut gpu.decode_attention).chain(gpu.decode_attention_fp8.as_mut()) {
        scale(&mut attention.bandwidth_efficiency, decode);
    }
    gpu.check()?;
    Ok(gpu)
}

/// The overheads of a scenario, completed by these constants where it says nothing.
pub(crate) fn overhead_with(constants: &Constants, overhead: &OverheadSpec) -> OverheadSpec {
    let or = |given: Option<Duration>, constant: Constant, unit: f64| {
        given.or_else(|| Some(Duration(Span::from_nanos((constants.get(&constant)? * unit).round() as u64))))
    };
    OverheadSpec {
        api_server: or(overhead.api_server, Constant::ApiServerMs, 1e6),
        tokenize_per_1k_tokens: or(overhead.tokenize_per_1k_tokens, Constant::TokenizeMsPer1kTokens, 1e6),
        engine_per_step: or(overhead.engine_per_step, Constant::EngineUsPerStep, 1e3),
        engine_per_request: or(overhead.engine_per_request, Constant::EngineUsPerRequest, 1e3),
        ..overhead.clone()
    }
}

/// The same of vLLM's arguments.
pub(crate) fn engine_with(constants: &Constants, args: &EngineArgs) -> EngineArgs {
    let blocks = constants.get(&Constant::NumGpuBlocks).map(|blocks| blocks.round() as u32);
    EngineArgs { num_gpu_blocks: args.num_gpu_blocks.or(blocks), ..args.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::catalog;

    fn placed(gpu: &'static str, weights: WeightType) -> Placed<'static> {
        Placed { gpu: catalog::gpu(gpu).unwrap(), weights, kv_element_bytes: 2 }
    }

    #[test]
    fn a_fitted_efficiency_is_that_of_the_form_in_use() {
        let placed = placed("h100-sxm", WeightType::Fp8);
        let constants = Constants::from([(Constant::GemmComputeEfficiency, 0.245)]);
        let gpu = gpu_with(&constants, &placed).unwrap();
        assert!((gpu.gemm_8bit.unwrap().compute_efficiency - 0.245).abs() < 1e-12);
        let wide = placed.gpu.gemm.compute_efficiency;
        assert!(
            (gpu.gemm.compute_efficiency - wide / 2.0).abs() < 1e-12,
            "half of it, as of the form in use"
        );
        assert!((gpu.gemm.bandwidth_efficiency - placed.gpu.gemm.bandwidth_efficiency).abs() < 1e-12);
    }

    #[test]
    fn efficiencies_stay_physical_and_nonsense_is_refused() {
        let placed = placed("h100-sxm", WeightType::Bf16);
        let with = |value| gpu_with(&Constants::from([(Constant::PrefillComputeEfficiency, value)]), &placed);
        assert!((with(7.0).unwrap().prefill_attention.compute_efficiency - 1.0).abs() < 1e-12);
        assert!(with(-0.5).is_err() && with(0.0).is_err() && with(f64::NAN).is_err());
    }

    #[test]
    fn what_the_scenario_says_is_not_fitted() {
        let placed = placed("h100-sxm", WeightType::Bf16);
        let given =
            OverheadSpec { api_server: Some(Duration(Span::from_millis(9))), ..OverheadSpec::default() };
        assert!(Constant::ApiServerMs.prior(&placed, &given, None).is_none());
        assert!(Constant::NumGpuBlocks.prior(&placed, &given, None).is_none());
        assert!(Constant::EngineUsPerStep.prior(&placed, &given, None).is_some());
        let constants = Constants::from([(Constant::ApiServerMs, 4.0), (Constant::EngineUsPerStep, 55.0)]);
        let completed = overhead_with(&constants, &given);
        assert_eq!(completed.api_server, given.api_server);
        assert_eq!(completed.engine_per_step, Some(Duration(Span::from_nanos(55_000))));
    }
}
