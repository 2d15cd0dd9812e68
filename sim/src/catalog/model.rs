//! What is known of a model: the shape of its layers and the types of its weights.

use serde::Deserialize;

use super::hf_config::HfConfig;
use super::weights::{WeightType, Weights};

/// A decoder-only transformer: dense or with a mixture of experts.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Entry")]
pub struct Model {
    /// Name in scenarios and in requests.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Name for people.
    pub title: String,
    /// Where the shape comes from.
    pub source: String,
    /// The shape.
    pub shape: Shape,
}

/// A file of the catalog.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    title: String,
    source: String,
    config: HfConfig,
}

impl TryFrom<Entry> for Model {
    type Error = ModelError;

    fn try_from(entry: Entry) -> Result<Self, ModelError> {
        let Entry { name, aliases, title, source, config } = entry;
        Ok(Self { name, aliases, title, source, shape: config.shape()? })
    }
}

/// What decides cost and memory. Every size is at least 1 unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Architecture family: config.json's `model_type`.
    pub family: String,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Vocabulary.
    pub vocabulary: u32,
    /// Longest sequence.
    pub max_model_len: u32,
    /// Whether the LM head is the embedding.
    pub tied_embeddings: bool,
    /// How keys and values are kept.
    pub attention: Attention,
    /// Whether each query and key head is normalised.
    pub qk_norm: bool,
    /// Layers whose attention sees a window only.
    pub window: Option<Window>,
    /// Layers with a dense MLP; may be 0.
    pub dense_layers: u32,
    /// Width of the dense MLP; 0 without dense layers.
    pub mlp: u32,
    /// The mixture of experts of the other layers.
    pub experts: Option<Experts>,
    /// Types of the weights.
    pub weights: Weights,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Grouped-query attention: query heads share KV heads.
    Grouped {
        /// KV heads.
        kv_heads: u32,
        /// Width of a head.
        head_dim: u32,
    },
    /// Multi-head latent attention: one compressed vector for all heads.
    Latent {
        /// Rank of the compressed query; absent when queries are not compressed.
        q_rank: Option<u32>,
        /// Rank of the compressed keys and values.
        kv_rank: u32,
        /// Width of a head's part without position.
        nope: u32,
        /// Width of the part with rotary position, which all heads share.
        rope: u32,
        /// Width of a head's value.
        value: u32,
    },
}

/// Sliding-window attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Tokens that a token sees, itself included.
    pub tokens: u32,
    /// Layers that have the window.
    pub layers: u32,
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Layers that have it.
    pub layers: u32,
    /// Experts of a layer.
    pub count: u32,
    /// Experts that each token is sent to.
    pub active: u32,
    /// Width of an expert.
    pub width: u32,
    /// Width of the experts that every token passes; 0 without.
    pub shared_width: u32,
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

/// Numbers of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parameters {
    /// Embedding, LM head, norms, routers: kept in 16 bits.
    plain: u64,
    /// Projections of attention, dense MLPs, shared experts.
    linear: u64,
    /// Routed experts.
    experts: u64,
}

/// A matrix of so many inputs and outputs, in so many layers.
#[derive(Clone, Copy, Debug)]
struct Projection {
    layers: u64,
    inputs: u64,
    outputs: u64,
}

impl Model {
    /// A model from the text of a Hugging Face config.json.
    ///
    /// # Errors
    /// When the text is malformed, describes no real shape, or needs what is not modelled.
    pub fn from_hf_config(name: &str, json: &str) -> Result<Self, ModelError> {
        let config = HfConfig::read(json)?;
        Ok(Self {
            name: name.to_owned(),
            aliases: Vec::new(),
            title: name.to_owned(),
            source: "config.json".to_owned(),
            shape: config.shape()?,
        })
    }

    /// The same model with weights of another type.
    #[must_use]
    pub fn with_weights(mut self, weights: WeightType) -> Self {
        self.shape.weights = Weights::all(weights, self.shape.experts.is_some());
        self
    }

    /// The projections that every token passes: those of attention, dense MLPs and shared experts.
    fn projections(&self) -> impl Iterator<Item = Projection> {
        let shape = &self.shape;
        let [hidden, heads, layers] = [shape.hidden, shape.heads, shape.layers].map(u64::from);
        let mut sizes = Vec::with_capacity(10);
        match shape.attention {
            Attention::Grouped { kv_heads, head_dim } => {
                let [query, key] = [heads, u64::from(kv_heads)].map(|heads| heads * u64::from(head_dim));
                sizes.extend([(hidden, query), (hidden, key), (hidden, key), (query, hidden)]);
            }
            Attention::Latent { q_rank, kv_rank, nope, rope, value } => {
                let [kv_rank, nope, rope, value] = [kv_rank, nope, rope, value].map(u64::from);
                let query = heads * (nope + rope);
                match q_rank.map(u64::from) {
                    Some(rank) => sizes.extend([(hidden, rank), (rank, query)]),
                    None => sizes.push((hidden, query)),
                }
                sizes.extend([(hidden, kv_rank + rope), (kv_rank, heads * (nope + value))]);
                sizes.push((heads * value, hidden));
            }
        }
        let mut projections: Vec<_> =
            sizes.into_iter().map(|(inputs, outputs)| Projection { layers, inputs, outputs }).collect();
        let shared = shape.experts.map(|experts| (experts.layers, experts.shared_width));
        for (layers, width) in std::iter::once((shape.dense_layers, shape.mlp)).chain(shared) {
            let [layers, width] = [layers, width].map(u64::from);
            if layers * width > 0 {
                let up = Projection { layers, inputs: hidden, outputs: width };
                projections.extend([up, up, Projection { layers, inputs: width, outputs: hidden }]);
            }
        }
        projections.into_iter()
    }

    /// Bytes of a LoRA adapter of this rank with 16-bit weights: in every layer, for every projection that all tokens
    /// pass, a matrix of rank x inputs and one of outputs x rank (vllm/lora/lora_weights.py). Routed experts have none.
    #[must_use]
    pub fn adapter_bytes(&self, rank: u32) -> u64 {
        let elements = self.projections().map(|one| one.layers * (one.inputs + one.outputs));
        elements.sum::<u64>() * u64::from(rank) * 2
    }

    fn counted(&self) -> Parameters {
        let shape = &self.shape;
        let hidden = u64::from(shape.hidden);
        let layers = u64::from(shape.layers);
        let mut counted = Parameters {
            plain: if shape.tied_embeddings { 1 } else { 2 } * u64::from(shape.vocabulary) * hidden
                + (2 * layers + 1) * hidden,
            linear: self.projections().map(|one| one.layers * one.inputs * one.outputs).sum(),
            experts: 0,
        };
        if let Some(experts) = shape.experts {
            let [layers, count, width] = [experts.layers, experts.count, experts.width].map(u64::from);
            counted.plain += layers * hidden * count;
            counted.experts += layers * count * 3 * hidden * width;
        }
        counted
    }

    /// Number of parameters: embedding, LM head, and per layer attention, gated MLP or experts, and two norms.
    /// Biases are left out.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let Parameters { plain, linear, experts } = self.counted();
        plain + linear + experts
    }

    /// Bytes of all weights, as they are stored.
    #[must_use]
    pub fn weight_bytes(&self) -> f64 {
        let Parameters { plain, linear, experts } = self.counted();
        let weights = self.shape.weights;
        plain as f64 * WeightType::Bf16.bytes()
            + linear as f64 * weights.linear.bytes()
            + experts as f64 * weights.experts.bytes()
    }

    /// Bytes of the routed experts, as they are stored.
    #[must_use]
    pub fn routed_expert_bytes(&self) -> f64 {
        self.counted().experts as f64 * self.shape.weights.experts.bytes()
    }

    /// Elements that one layer keeps of each token on each of `tensor_parallel` GPUs: `2 * max(1, kv_heads / TP) *
    /// head_dim`, or the latent vector, which every GPU keeps whole (vLLM v1/kv_cache_interface.py).
    #[must_use]
    pub fn kv_elements_per_token_and_layer(&self, tensor_parallel: u32) -> u64 {
        match self.shape.attention {
            Attention::Grouped { kv_heads, head_dim } => {
                2 * u64::from((kv_heads / tensor_parallel).max(1)) * u64::from(head_dim)
            }
            Attention::Latent { kv_rank, rope, .. } => u64::from(kv_rank) + u64::from(rope),
        }
    }

    /// Bytes of KV cache per token on each of `tensor_parallel` GPUs, in all layers.
    #[must_use]
    pub fn kv_bytes_per_token(&self, tensor_parallel: u32, element_bytes: u32) -> u64 {
        u64::from(self.shape.layers)
            * self.kv_elements_per_token_and_layer(tensor_parallel)
            * u64::from(element_bytes)
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
