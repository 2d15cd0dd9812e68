//! The ops of a step that depend on its tokens or its samples alone.

use crate::catalog::{Gpu, WeightType};
use crate::cost::dimensions::{Dimensions, ExpertShare, Heads};
use crate::cost::kernels::{self, ACTIVATION_BYTES, Product, Work};
use crate::cost::op::{Form, Op};

/// Collects ops.
struct Ops<'a> {
    gpu: &'a Gpu,
    tokens: f64,
    ops: Vec<Op>,
}

impl Ops<'_> {
    fn gemm(&mut self, name: &'static str, calls: f64, k: f64, n: f64, weights: WeightType) {
        let product = Product { tokens: self.tokens, k, n, matrices: 1.0, weights };
        self.product(name, Form::Gemm(weights), calls, &product);
    }

    fn product(&mut self, name: &'static str, form: Form, calls: f64, product: &Product) {
        let work = kernels::gemm_work(self.gpu, product);
        self.ops.push(Op { name, form, calls, work, us: kernels::gemm_us(self.gpu, product) });
    }

    /// A pass that moves `width` elements for each token.
    fn elementwise(&mut self, name: &'static str, calls: f64, width: f64) {
        let elements = self.tokens * width;
        let work = Work { flops: 0.0, bytes: elements * ACTIVATION_BYTES };
        let us = kernels::elementwise_us(self.gpu, elements);
        self.ops.push(Op { name, form: Form::Elementwise, calls, work, us });
    }

    /// One call is one all-reduce of the tokens' hidden states.
    fn all_reduce(&mut self, calls: f64, gpus: u32, hidden: f64) {
        let bytes = self.tokens * hidden * ACTIVATION_BYTES;
        let us = kernels::all_reduce_us(self.gpu, gpus, bytes);
        let work = Work { flops: 0.0, bytes };
        self.ops.push(Op { name: "all-reduce", form: Form::AllReduce(gpus), calls, work, us });
    }
}

/// Everything that depends on the number of tokens alone: embedding, and all layers but their attention.
pub(super) fn token_ops(gpu: &Gpu, dimensions: &Dimensions, tensor_parallel: u32, tokens: f64) -> Vec<Op> {
    let mut ops = Ops { gpu, tokens, ops: Vec::with_capacity(20) };
    let Dimensions { layers, hidden, .. } = *dimensions;
    ops.elementwise("embedding", 1.0, 2.0 * hidden);
    // Each norm also adds the residual: two vectors read, two written.
    ops.elementwise("norms", 2.0 * layers, 4.0 * hidden);
    projections(&mut ops, dimensions);
    if dimensions.dense_layers > 0.0 {
        mlp(
            &mut ops,
            dimensions,
            dimensions.dense_layers,
            dimensions.mlp,
            ["gate_up_proj", "activation", "down_proj"],
        );
    }
    if let Some(experts) = dimensions.experts {
        mixture(&mut ops, dimensions, &experts);
    }
    let over_ranks = dimensions.experts.filter(|experts| experts.ranks > 1.0);
    let joined = over_ranks.map_or(0.0, |experts| experts.layers);
    if tensor_parallel > 1 {
        ops.all_reduce(2.0 * layers - joined, tensor_parallel, hidden);
    }
    if let Some(ExpertShare { layers, ranks, .. }) = over_ranks {
        // All ranks' tokens are gathered, and their parts of the sums scattered: the bytes of an all-reduce.
        ops.tokens *= ranks;
        ops.all_reduce(layers, tensor_parallel * ranks as u32, hidden);
    }
    ops.ops
}

/// The projections of attention, and what happens to queries and keys between them.
fn projections(ops: &mut Ops<'_>, dimensions: &Dimensions) {
    let Dimensions { layers, hidden, heads, .. } = *dimensions;
    let (query, linear) = (dimensions.query(), dimensions.weights.linear);
    match dimensions.attention {
        Heads::Grouped { kv_heads, head_dim } => {
            let key = kv_heads * head_dim;
            ops.gemm("qkv_proj", layers, hidden, query + 2.0 * key, linear);
            if dimensions.qk_norm {
                ops.elementwise("qk_norm", layers, 2.0 * (query + key));
            }
            ops.elementwise("rope", layers, 2.0 * (query + key));
            ops.gemm("o_proj", layers, query, hidden, linear);
        }
        Heads::Latent { q_rank, kv_rank, nope, rope, value } => {
            if let Some(q_rank) = q_rank {
                ops.gemm("q_a_proj", layers, hidden, q_rank, linear);
                ops.gemm("q_b_proj", layers, q_rank, query, linear);
            } else {
                ops.gemm("q_proj", layers, hidden, query, linear);
            }
            ops.gemm("kv_a_proj", layers, hidden, kv_rank + rope, linear);
            // Decodes multiply queries and outputs with it; prefills also expand their context (see attention).
            ops.gemm("kv_b_proj", layers, kv_rank, heads * (nope + value), linear);
            ops.elementwise("latent norm", layers, 2.0 * (kv_rank + rope));
            ops.elementwise("rope", layers, 2.0 * rope * (heads + 1.0));
            ops.gemm("o_proj", layers, heads * value, hidden, linear);
        }
    }
}

/// A gated MLP: gate and up in one product, activation, down.
fn mlp(ops: &mut Ops<'_>, dimensions: &Dimensions, layers: f64, width: f64, names: [&'static str; 3]) {
    let (hidden, linear) = (dimensions.hidden, dimensions.weights.linear);
    ops.gemm(names[0], layers, hidden, 2.0 * width, linear);
    ops.elementwise(names[1], layers, 3.0 * width);
    ops.gemm(names[2], layers, width, hidden, linear);
}

/// A mixture of experts: router, grouped products over the experts touched, their weighted sum, shared experts.
fn mixture(ops: &mut Ops<'_>, dimensions: &Dimensions, experts: &ExpertShare) {
    let ExpertShare { layers, count, active, width, shared_width, ranks } = *experts;
    let (hidden, weights) = (dimensions.hidden, dimensions.weights.experts);
    ops.gemm("router", layers, hidden, count, WeightType::Bf16);
    // The other ranks have as many tokens: batches are padded to the largest.
    let own = ops.tokens;
    ops.tokens = own * ranks;
    let matrices = kernels::experts_touched(count, active, ops.tokens);
    // Each token is computed once by each of its experts.
    let routed = ops.tokens * active;
    let product = |k, n| Product { tokens: routed, k, n, matrices, weights };
    ops.product("experts gate_up", Form::Experts(weights), layers, &product(hidden, 2.0 * width));
    ops.elementwise("experts activation", layers, 3.0 * width * active);
    ops.product("experts down", Form::Experts(weights), layers, &product(width, hidden));
    ops.elementwise("experts sum", layers, hidden * (active + 1.0));
    ops.tokens = own;
    if shared_width > 0.0 {
        let names = ["shared experts gate_up", "shared experts activation", "shared experts down"];
        mlp(ops, dimensions, layers, shared_width, names);
    }
}

/// Final norm, LM head and sampler for the requests that sample.
pub(super) fn head_ops(gpu: &Gpu, dimensions: &Dimensions, sampled: f64) -> Vec<Op> {
    if sampled == 0.0 {
        return Vec::new();
    }
    let mut ops = Ops { gpu, tokens: sampled, ops: Vec::with_capacity(3) };
    ops.elementwise("final norm", 1.0, 2.0 * dimensions.hidden);
    ops.gemm("lm_head", 1.0, dimensions.hidden, dimensions.vocabulary, WeightType::Bf16);
    let logits = sampled * dimensions.vocabulary;
    let work = Work { flops: 0.0, bytes: kernels::SAMPLER_PASSES * 4.0 * logits };
    let us = kernels::sampler_us(gpu, logits);
    ops.ops.push(Op { name: "sampler", form: Form::Sampler, calls: 1.0, work, us });
    ops.ops
}
