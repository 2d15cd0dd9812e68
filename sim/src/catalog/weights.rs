//! How weights are stored: their types, and what a config.json's `quantization_config` says of them.

use std::fmt;

use serde::Deserialize;

use super::model::ModelError;

/// Type of a matrix of weights, and of the multiplication with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// bfloat16.
    Bf16,
    /// float16: costs what bf16 costs.
    Fp16,
    /// 8-bit floating point, multiplied in fp8 where the GPU can.
    Fp8,
    /// 4-bit microscaling (a shared 8-bit scale for every 32), multiplied in 16 bits.
    Mxfp4,
    /// 4-bit integers (a 16-bit scale for every 128: GPTQ, AWQ), multiplied in 16 bits.
    W4a16,
    /// 8-bit integers, multiplied in int8 where the GPU can.
    W8a8,
}

impl WeightType {
    /// Bytes of one weight, its share of the scales included.
    #[must_use]
    pub fn bytes(self) -> f64 {
        match self {
            Self::Bf16 | Self::Fp16 => 2.0,
            Self::Fp8 | Self::W8a8 => 1.0,
            Self::Mxfp4 => 0.5 + 1.0 / 32.0,
            Self::W4a16 => 0.5 + 2.0 / 128.0,
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Fp8 => "fp8",
            Self::Mxfp4 => "mxfp4",
            Self::W4a16 => "w4a16",
            Self::W8a8 => "w8a8",
        })
    }
}

/// The types of a model's weights. Embedding, LM head, norms and routers stay in 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// Projections of attention, dense MLPs and shared experts.
    pub linear: WeightType,
    /// Routed experts.
    pub experts: WeightType,
}

impl Weights {
    /// All weights of one type; of mxfp4, the experts of a mixture alone, as vLLM does.
    #[must_use]
    pub fn all(weights: WeightType, has_experts: bool) -> Self {
        let linear = if weights == WeightType::Mxfp4 && has_experts { WeightType::Bf16 } else { weights };
        Self { linear, experts: weights }
    }
}

/// The fields of `quantization_config` that decide the type.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct QuantizationConfig {
    quant_method: Option<String>,
    quant_algo: Option<String>,
    bits: Option<u32>,
    config_groups: Option<std::collections::BTreeMap<String, Group>>,
}

/// One group of layers of a `compressed-tensors` checkpoint.
#[derive(Clone, Debug, Deserialize)]
struct Group {
    weights: Option<Numbers>,
    input_activations: Option<Numbers>,
}

#[derive(Clone, Debug, Deserialize)]
struct Numbers {
    num_bits: Option<u32>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl QuantizationConfig {
    /// The type that it describes.
    ///
    /// # Errors
    /// When vLLM's kernels for it are not modelled.
    pub(super) fn weight_type(&self) -> Result<WeightType, ModelError> {
        let method = self.quant_method.as_deref().unwrap_or("");
        let found = match method {
            "fp8" | "fbgemm_fp8" => Some(WeightType::Fp8),
            "mxfp4" => Some(WeightType::Mxfp4),
            "gptq" | "gptq_marlin" | "awq" | "awq_marlin" | "auto-round" => {
                (self.bits.unwrap_or(4) == 4).then_some(WeightType::W4a16)
            }
            "compressed-tensors" => self.compressed_tensors(),
            "modelopt" => (self.quant_algo.as_deref() == Some("FP8")).then_some(WeightType::Fp8),
            _ => None,
        };
        found.ok_or_else(|| {
            ModelError::Unsupported(format!(
                "quantised weights of `quant_method: {method}` in this form; modelled are fp8, mxfp4, 4-bit gptq \
                 and awq, and compressed-tensors of fp8, w8a8 and w4a16 (`dtype` in the scenario overrides it)"
            ))
        })
    }

    fn compressed_tensors(&self) -> Option<WeightType> {
        let group = self.config_groups.as_ref()?.values().next()?;
        let weights = group.weights.as_ref()?;
        match (weights.num_bits?, weights.kind.as_deref(), group.input_activations.is_some()) {
            (8, Some("float"), _) => Some(WeightType::Fp8),
            (8, Some("int") | None, true) => Some(WeightType::W8a8),
            (4, Some("int") | None, false) => Some(WeightType::W4a16),
            _ => None,
        }
    }
}
