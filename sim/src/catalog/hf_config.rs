//! A Hugging Face config.json: read, and turned into the shape of a model that is known.

use serde::Deserialize;

use super::model::{Attention, Experts, ModelError, Shape, Window};
use super::weights::{QuantizationConfig, WeightType, Weights};

/// Architectures that are modelled, by `model_type`.
const DENSE: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "granite"];
const MIXTURE: [&str; 6] = ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "deepseek_v2", "deepseek_v3"];

/// The fields of config.json that decide cost and memory; others are ignored.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct HfConfig {
    model_type: String,
    torch_dtype: Option<String>,
    hidden_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    intermediate_size: Option<u32>,
    vocab_size: u32,
    max_position_embeddings: u32,
    tie_word_embeddings: Option<bool>,
    // Mixtures of experts; families name the same thing differently, and some files hold two of the names.
    num_experts: Option<u32>,
    num_local_experts: Option<u32>,
    n_routed_experts: Option<u32>,
    num_experts_per_tok: Option<u32>,
    experts_per_token: Option<u32>,
    moe_intermediate_size: Option<u32>,
    shared_expert_intermediate_size: Option<u32>,
    n_shared_experts: Option<u32>,
    first_k_dense_replace: Option<u32>,
    moe_layer_freq: Option<u32>,
    decoder_sparse_step: Option<u32>,
    mlp_only_layers: Option<Vec<u32>>,
    // Multi-head latent attention.
    kv_lora_rank: Option<u32>,
    q_lora_rank: Option<u32>,
    qk_nope_head_dim: Option<u32>,
    qk_rope_head_dim: Option<u32>,
    v_head_dim: Option<u32>,
    // Sliding windows.
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<u32>,
    layer_types: Option<Vec<String>>,
    quantization_config: Option<QuantizationConfig>,
}

fn unsupported<T>(what: String) -> Result<T, ModelError> {
    Err(ModelError::Unsupported(what))
}

fn malformed<T>(what: String) -> Result<T, ModelError> {
    Err(ModelError::Malformed(what))
}

/// The one field that every config.json of a known model has.
#[derive(Deserialize)]
struct Family {
    model_type: Option<String>,
}

impl HfConfig {
    /// The config of a known architecture in `json`.
    ///
    /// # Errors
    /// When the text is malformed, or the architecture is not known: that is said before any field is missed.
    pub(super) fn read(json: &str) -> Result<Self, ModelError> {
        let wrong = |e: serde_json::Error| ModelError::Malformed(e.to_string());
        let family: Family = serde_json::from_str(json).map_err(wrong)?;
        check_family(family.model_type.as_deref().unwrap_or(""))?;
        serde_json::from_str(json).map_err(wrong)
    }

    /// The shape that it describes.
    ///
    /// # Errors
    /// When the architecture is not known, describes no real shape, or needs what is not modelled.
    pub(super) fn shape(&self) -> Result<Shape, ModelError> {
        let family = self.model_type.as_str();
        check_family(family)?;
        self.check_sizes()?;
        let experts = self.experts()?;
        if experts.is_some() != MIXTURE.contains(&family) {
            let has = if experts.is_some() { "experts" } else { "no experts" };
            return unsupported(format!("a `model_type: {family}` with {has}"));
        }
        let expert_layers = experts.map_or(0, |experts| experts.layers);
        let dense_layers = self.num_hidden_layers - expert_layers;
        Ok(Shape {
            family: family.to_owned(),
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            vocabulary: self.vocab_size,
            max_model_len: self.max_position_embeddings,
            tied_embeddings: self.tie_word_embeddings.unwrap_or(false),
            attention: self.attention()?,
            qk_norm: matches!(family, "qwen3" | "qwen3_moe"),
            window: self.window()?,
            dense_layers,
            mlp: if dense_layers > 0 {
                size("intermediate_size", self.intermediate_size, 1 << 20)?
            } else {
                0
            },
            experts,
            weights: self.weights(experts.is_some())?,
        })
    }

    fn check_sizes(&self) -> Result<(), ModelError> {
        let sizes = [
            ("hidden_size", self.hidden_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 28),
        ];
        sizes.into_iter().try_for_each(|(name, value, max)| size(name, Some(value), max).map(drop))
    }

    fn attention(&self) -> Result<Attention, ModelError> {
        if let Some(rank) = self.kv_lora_rank {
            let q_rank = match self.q_lora_rank {
                Some(rank) => Some(size("q_lora_rank", Some(rank), 1 << 16)?),
                None => None,
            };
            return Ok(Attention::Latent {
                q_rank,
                kv_rank: size("kv_lora_rank", Some(rank), 1 << 16)?,
                nope: size("qk_nope_head_dim", self.qk_nope_head_dim, 1 << 12)?,
                rope: size("qk_rope_head_dim", self.qk_rope_head_dim, 1 << 12)?,
                value: size("v_head_dim", self.v_head_dim, 1 << 12)?,
            });
        }
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads);
        Ok(Attention::Grouped {
            kv_heads: size("num_key_value_heads", Some(kv_heads), self.num_attention_heads)?,
            head_dim: size("head_dim", Some(head_dim), 1 << 12)?,
        })
    }

    fn experts(&self) -> Result<Option<Experts>, ModelError> {
        let count = self.num_local_experts.or(self.num_experts).or(self.n_routed_experts);
        let Some(count) = count.filter(|&count| count > 1) else { return Ok(None) };
        let active = self.num_experts_per_tok.or(self.experts_per_token);
        let width =
            size("moe_intermediate_size", self.moe_intermediate_size.or(self.intermediate_size), 1 << 20)?;
        let shared = match (self.shared_expert_intermediate_size, self.n_shared_experts) {
            (Some(width), _) => width,
            (None, Some(number)) => number.saturating_mul(width),
            (None, None) => 0,
        };
        if shared > 1 << 20 {
            return malformed(format!("the shared experts are {shared} wide: at most {} is real", 1 << 20));
        }
        if self.mlp_only_layers.as_ref().is_some_and(|only| only.len() > self.num_hidden_layers as usize) {
            return malformed("`mlp_only_layers` names more layers than there are".to_owned());
        }
        let layers = (0..self.num_hidden_layers).filter(|&layer| self.has_experts(layer)).count();
        Ok(Some(Experts {
            layers: u32::try_from(layers).expect("no more than num_hidden_layers"),
            count: size("num_experts", Some(count), 1 << 16)?,
            active: size("num_experts_per_tok", active, count)?,
            width,
            shared_width: shared,
        }))
    }

    /// Whether the MLP of this layer is a mixture (vLLM's qwen2_moe.py, qwen3_moe.py and deepseek_v2.py).
    fn has_experts(&self, layer: u32) -> bool {
        let dense_first = self.first_k_dense_replace.unwrap_or(0);
        let every = self.moe_layer_freq.unwrap_or(1).max(1);
        let step = self.decoder_sparse_step.unwrap_or(1).max(1);
        let only_mlp = self.mlp_only_layers.as_ref().is_some_and(|layers| layers.contains(&layer));
        layer >= dense_first && layer.is_multiple_of(every) && (layer + 1).is_multiple_of(step) && !only_mlp
    }

    /// The sliding window and how many layers have it. Qwen's files name a window that is switched off unless
    /// `use_sliding_window` says otherwise.
    fn window(&self) -> Result<Option<Window>, ModelError> {
        let off_by_default = self.model_type.starts_with("qwen");
        let on = self.use_sliding_window.unwrap_or(!off_by_default);
        let Some(tokens) = self.sliding_window.filter(|_| on) else { return Ok(None) };
        let tokens = size("sliding_window", Some(tokens), 1 << 28)?;
        let layers = match &self.layer_types {
            Some(types) => self.windowed(types)?,
            None if off_by_default => {
                self.num_hidden_layers.saturating_sub(self.max_window_layers.unwrap_or(0))
            }
            None => self.num_hidden_layers,
        };
        Ok((layers > 0 && tokens < self.max_position_embeddings).then_some(Window { tokens, layers }))
    }

    fn windowed(&self, types: &[String]) -> Result<u32, ModelError> {
        if types.len() != self.num_hidden_layers as usize {
            return malformed(format!(
                "`layer_types` names {} layers, `num_hidden_layers` is {}",
                types.len(),
                self.num_hidden_layers
            ));
        }
        let mut sliding = 0;
        for kind in types {
            match kind.as_str() {
                "sliding_attention" => sliding += 1,
                "full_attention" => {}
                other => return unsupported(format!("a layer of type `{other}`")),
            }
        }
        Ok(sliding)
    }

    fn weights(&self, has_experts: bool) -> Result<Weights, ModelError> {
        let weights = match &self.quantization_config {
            Some(quantization) => quantization.weight_type()?,
            None if self.torch_dtype.as_deref() == Some("float16") => WeightType::Fp16,
            None => WeightType::Bf16,
        };
        Ok(Weights::all(weights, has_experts))
    }
}

fn check_family(family: &str) -> Result<(), ModelError> {
    if DENSE.contains(&family) || MIXTURE.contains(&family) {
        return Ok(());
    }
    unsupported(format!(
        "the architecture `model_type: {family}` (known are {}, {})",
        DENSE.join(", "),
        MIXTURE.join(", ")
    ))
}

/// A size that must be there, and be real.
fn size(name: &str, value: Option<u32>, max: u32) -> Result<u32, ModelError> {
    match value {
        None => malformed(format!("`{name}` is missing")),
        Some(value) if value == 0 || value > max => {
            malformed(format!("`{name}` is {value}: it must be from 1 to {max}"))
        }
        Some(value) => Ok(value),
    }
}
