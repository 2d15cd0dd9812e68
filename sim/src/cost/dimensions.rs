//! The sizes of one GPU's share of a model.

use crate::catalog::{Attention, Experts, Model, Shape, Weights, Window};

/// One GPU's share of a model that is split over `tensor_parallel` GPUs: heads, MLP width, expert width and
/// vocabulary are divided, a KV head that several GPUs need is on each of them.
#[derive(Clone, Debug)]
pub(super) struct Dimensions {
    pub(super) layers: f64,
    pub(super) hidden: f64,
    pub(super) vocabulary: f64,
    pub(super) heads: f64,
    pub(super) attention: Heads,
    pub(super) qk_norm: bool,
    pub(super) window: Option<Window>,
    pub(super) dense_layers: f64,
    pub(super) mlp: f64,
    pub(super) experts: Option<ExpertShare>,
    pub(super) weights: Weights,
}

/// The attention of one layer on one GPU.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heads {
    /// Grouped-query attention.
    Grouped { kv_heads: f64, head_dim: f64 },
    /// Multi-head latent attention.
    Latent { q_rank: Option<f64>, kv_rank: f64, nope: f64, rope: f64, value: f64 },
}

/// The mixture of one layer on one GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpertShare {
    pub(super) layers: f64,
    pub(super) count: f64,
    pub(super) active: f64,
    pub(super) width: f64,
    pub(super) shared_width: f64,
    /// Ranks over which routed experts are split, too: each computes a part of all ranks' tokens.
    pub(super) ranks: f64,
}

impl Dimensions {
    pub(super) fn new(model: &Model, tensor_parallel: u32, data_parallel: u32) -> Self {
        let Shape { layers, hidden, vocabulary, heads, dense_layers, mlp, .. } = model.shape;
        let split = f64::from(tensor_parallel);
        let share = |size: u32| f64::from(size) / split;
        let attention = match model.shape.attention {
            Attention::Grouped { kv_heads, head_dim } => Heads::Grouped {
                kv_heads: f64::from((kv_heads / tensor_parallel).max(1)),
                head_dim: f64::from(head_dim),
            },
            Attention::Latent { q_rank, kv_rank, nope, rope, value } => {
                let [kv_rank, nope, rope, value] = [kv_rank, nope, rope, value].map(f64::from);
                Heads::Latent { q_rank: q_rank.map(f64::from), kv_rank, nope, rope, value }
            }
        };
        let experts = model.shape.experts.map(|Experts { layers, count, active, width, shared_width }| {
            let [layers, count, active] = [layers, count, active].map(f64::from);
            let ranks = f64::from(data_parallel);
            let (width, shared_width) = (share(width) / ranks, share(shared_width));
            ExpertShare { layers, count, active, width, shared_width, ranks }
        });
        Self {
            layers: f64::from(layers),
            hidden: f64::from(hidden),
            vocabulary: share(vocabulary),
            heads: share(heads),
            attention,
            qk_norm: model.shape.qk_norm,
            window: model.shape.window,
            dense_layers: f64::from(dense_layers),
            mlp: share(mlp),
            experts,
            weights: model.shape.weights,
        }
    }

    /// Elements of the queries of one token.
    pub(super) fn query(&self) -> f64 {
        self.heads
            * match self.attention {
                Heads::Grouped { head_dim, .. } => head_dim,
                Heads::Latent { nope, rope, .. } => nope + rope,
            }
    }

    /// Elements of the KV cache of one token in one layer.
    pub(super) fn kv(&self) -> f64 {
        match self.attention {
            Heads::Grouped { kv_heads, head_dim } => 2.0 * kv_heads * head_dim,
            Heads::Latent { kv_rank, rope, .. } => kv_rank + rope,
        }
    }

    /// KV heads that decode attention works on: the latent vector is one.
    pub(super) fn kv_heads(&self) -> f64 {
        match self.attention {
            Heads::Grouped { kv_heads, .. } => kv_heads,
            Heads::Latent { .. } => 1.0,
        }
    }

    /// FLOPs of prefill attention for each pair of a query and a key, all heads: a product with the key and one
    /// with the value.
    pub(super) fn flops_per_pair(&self) -> f64 {
        2.0 * self.heads
            * match self.attention {
                Heads::Grouped { head_dim, .. } => 2.0 * head_dim,
                Heads::Latent { nope, rope, value, .. } => nope + rope + value,
            }
    }

    /// FLOPs of decode attention for each token of context, all heads. Latent attention multiplies with the
    /// compressed vector itself.
    pub(super) fn decode_flops_per_token(&self) -> f64 {
        match self.attention {
            Heads::Grouped { .. } => self.flops_per_pair(),
            Heads::Latent { kv_rank, rope, .. } => 2.0 * self.heads * (2.0 * kv_rank + rope),
        }
    }

    /// FLOPs by which latent attention expands each token of a prefill's context into keys and values.
    pub(super) fn expansion_flops_per_token(&self) -> f64 {
        match self.attention {
            Heads::Grouped { .. } => 0.0,
            Heads::Latent { kv_rank, nope, value, .. } => 2.0 * kv_rank * self.heads * (nope + value),
        }
    }

    /// Layers that see the whole context.
    pub(super) fn full_layers(&self) -> f64 {
        self.layers - self.window.map_or(0.0, |window| f64::from(window.layers))
    }
}
