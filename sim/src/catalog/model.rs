//! What is known of a model: the shape of its layers, as Hugging Face's config.json states it.

use serde::Deserialize;

/// A dense transformer with grouped-query attention.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Name in scenarios and in requests.
    pub name: String,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Name for people.
    pub title: String,
    /// Where the shape comes from.
    pub source: String,
    /// The shape.
    pub config: HfConfig,
}

/// The fields of config.json that decide cost and memory; others are ignored.
#[derive(Clone, Debug, Deserialize)]
pub struct HfConfig {
    /// Architecture family.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Layers.
    pub num_hidden_layers: u32,
    /// Query heads.
    pub num_attention_heads: u32,
    /// KV heads; as many as query heads when absent.
    pub num_key_value_heads: Option<u32>,
    /// Width of a head; `hidden_size / num_attention_heads` when absent.
    pub head_dim: Option<u32>,
    /// Width of the MLP.
    pub intermediate_size: u32,
    /// Vocabulary.
    pub vocab_size: u32,
    /// Longest sequence.
    pub max_position_embeddings: u32,
    /// Whether the LM head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Present in mixture-of-experts models (`num_experts`, `num_local_experts`, `n_routed_experts`).
    #[serde(alias = "num_local_experts", alias = "n_routed_experts")]
    num_experts: Option<u32>,
    /// Present in models with multi-head latent attention.
    kv_lora_rank: Option<u32>,
    sliding_window: Option<u32>,
    use_sliding_window: Option<bool>,
    quantization_config: Option<serde_json::Value>,
}

/// Why a config.json cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// Not JSON, or a field is missing or has the wrong type.
    #[error("{0}")]
    Malformed(String),
    /// A mechanism that is not modelled.
    #[error("{0}: not modelled")]
    Unsupported(String),
}

impl Model {
    /// A model from the text of a Hugging Face config.json.
    ///
    /// # Errors
    /// When the text is malformed, describes no real shape, or needs what is not modelled.
    pub fn from_hf_config(name: &str, json: &str) -> Result<Self, ModelError> {
        let config = serde_json::from_str(json).map_err(|e| ModelError::Malformed(e.to_string()))?;
        let model = Self {
            name: name.to_owned(),
            aliases: Vec::new(),
            title: name.to_owned(),
            source: "config.json".to_owned(),
            config,
        };
        model.check()?;
        Ok(model)
    }

    /// Refuses shapes that do not exist and mechanisms that are not modelled.
    ///
    /// # Errors
    /// The first such finding.
    pub fn check(&self) -> Result<(), ModelError> {
        let c = &self.config;
        let dimensions = [
            ("hidden_size", c.hidden_size, 1 << 20),
            ("num_hidden_layers", c.num_hidden_layers, 1 << 12),
            ("num_attention_heads", c.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.kv_heads(), c.num_attention_heads),
            ("head_dim", self.head_dim(), 1 << 12),
            ("intermediate_size", c.intermediate_size, 1 << 20),
            ("vocab_size", c.vocab_size, 1 << 24),
            ("max_position_embeddings", c.max_position_embeddings, 1 << 28),
        ];
        for (name, value, max) in dimensions {
            if value == 0 || value > max {
                return Err(ModelError::Malformed(format!(
                    "`{name}` is {value}: it must be from 1 to {max}"
                )));
            }
        }
        let unsupported = |what: String| Err(ModelError::Unsupported(what));
        if let Some(experts) = c.num_experts.filter(|&experts| experts > 1) {
            return unsupported(format!("a mixture of {experts} experts"));
        }
        if c.kv_lora_rank.is_some() {
            return unsupported("multi-head latent attention (`kv_lora_rank`)".into());
        }
        if let Some(window) = c.sliding_window.filter(|_| c.use_sliding_window != Some(false)) {
            return unsupported(format!("sliding-window attention (`sliding_window`: {window})"));
        }
        if c.quantization_config.is_some() {
            return unsupported("quantised weights (`quantization_config`)".into());
        }
        Ok(())
    }

    /// KV heads of a layer.
    #[must_use]
    pub fn kv_heads(&self) -> u32 {
        self.config.num_key_value_heads.unwrap_or(self.config.num_attention_heads)
    }

    /// Width of a head.
    #[must_use]
    pub fn head_dim(&self) -> u32 {
        self.config.head_dim.unwrap_or(self.config.hidden_size / self.config.num_attention_heads.max(1))
    }

    /// Number of parameters: embedding, LM head, and per layer attention, gated MLP and two norms.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let c = &self.config;
        let hidden = u64::from(c.hidden_size);
        let head = u64::from(self.head_dim());
        let (heads, kv_heads) = (u64::from(c.num_attention_heads), u64::from(self.kv_heads()));
        let attention = hidden * head * (2 * heads + 2 * kv_heads);
        let mlp = 3 * hidden * u64::from(c.intermediate_size);
        let layers = u64::from(c.num_hidden_layers) * (attention + mlp + 2 * hidden);
        let tables = if c.tie_word_embeddings { 1 } else { 2 };
        layers + tables * u64::from(c.vocab_size) * hidden + hidden
    }

    /// Bytes of KV cache per token on each of `tensor_parallel` GPUs:
    /// `2 * layers * max(1, kv_heads / TP) * head_dim * bytes` (vLLM v1/kv_cache_interface.py).
    #[must_use]
    pub fn kv_bytes_per_token(&self, tensor_parallel: u32, element_bytes: u32) -> u64 {
        let kv_heads = (self.kv_heads() / tensor_parallel).max(1);
        2 * u64::from(self.config.num_hidden_layers)
            * u64::from(kv_heads)
            * u64::from(self.head_dim())
            * u64::from(element_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::model;

    #[test]
    fn kv_bytes_match_the_published_figures() {
        assert_eq!(model("llama-3.1-8b").unwrap().kv_bytes_per_token(1, 2), 131_072);
        assert_eq!(model("llama-3.1-70b").unwrap().kv_bytes_per_token(1, 2), 327_680);
        assert_eq!(model("llama-3.1-70b").unwrap().kv_bytes_per_token(8, 2), 40_960);
    }

    #[test]
    fn parameter_counts_match_the_published_figures() {
        let billions = |name| model(name).unwrap().parameters() as f64 / 1e9;
        for (name, published) in
            [("llama-3.1-8b", 8.03), ("llama-3.1-70b", 70.6), ("qwen3-14b", 14.77), ("qwen3-32b", 32.76)]
        {
            assert!((billions(name) - published).abs() < 0.01 * published, "{name}: {}", billions(name));
        }
    }

    #[test]
    fn what_is_not_modelled_is_refused_by_name() {
        let base = r#""model_type":"x","hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,
            "intermediate_size":128,"vocab_size":100,"max_position_embeddings":512"#;
        let refusal = |extra: &str| Model::from_hf_config("m", &format!("{{{base}{extra}}}")).err();
        assert_eq!(refusal(""), None);
        assert_eq!(refusal(r#","sliding_window":4096,"use_sliding_window":false"#), None);
        for extra in [
            r#","num_local_experts":8"#,
            r#","kv_lora_rank":512"#,
            r#","sliding_window":4096"#,
            r#","quantization_config":{}"#,
        ] {
            assert!(matches!(refusal(extra), Some(ModelError::Unsupported(_))), "{extra}");
        }
        assert!(matches!(refusal(r#","num_key_value_heads":0"#), Some(ModelError::Malformed(_))));
    }
}
