//! The kernels of a transformer's layer, as both the measurements and the real transformer call them.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{ops, rotary_emb};
use forerun_profiles::measured::{Place, TimedOp};
use forerun_sim::catalog::{Attention, Model};

/// The base of rotary embeddings; it costs the same whatever it is.
const ROPE_BASE: f32 = 10_000.0;
const EPSILON: f32 = 1e-5;

/// One device's share of a model.
#[derive(Clone, Debug)]
pub(crate) struct Dimensions {
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) mlp: usize,
    pub(crate) vocabulary: usize,
    pub(crate) qk_norm: bool,
}

impl Dimensions {
    /// The share of a dense model with grouped attention that is split over `tensor_parallel` devices.
    pub(crate) fn new(model: &Model, tensor_parallel: u32) -> Self {
        let shape = &model.shape;
        let share = |size: u32| (size / tensor_parallel).max(1) as usize;
        let Attention::Grouped { kv_heads, head_dim } = shape.attention else {
            unreachable!("the command line refuses latent attention")
        };
        Self {
            hidden: shape.hidden as usize,
            heads: share(shape.heads),
            kv_heads: share(kv_heads),
            head_dim: head_dim as usize,
            mlp: share(shape.mlp),
            vocabulary: share(shape.vocabulary),
            qk_norm: shape.qk_norm,
        }
    }

    /// The products of a layer and the LM head: name, columns, inner dimension.
    pub(crate) fn products(&self) -> [(&'static str, usize, usize); 5] {
        let query = self.heads * self.head_dim;
        [
            ("qkv_proj", self.qkv(), self.hidden),
            ("o_proj", self.hidden, query),
            ("gate_up_proj", 2 * self.mlp, self.hidden),
            ("down_proj", self.hidden, self.mlp),
            ("lm_head", self.vocabulary, self.hidden),
        ]
    }

    /// Columns of queries, keys and values together.
    pub(crate) fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// The weights by which each head is normalised, where the model does that.
    pub(crate) fn head_norm(&self, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        self.qk_norm.then(|| Tensor::ones(self.head_dim, dtype, device)).transpose()
    }

    /// All kernels of a step but attention, as a profile names them.
    pub(crate) fn ops(&self) -> Vec<TimedOp> {
        let plain = |op: &str, place, times| TimedOp { op: op.into(), place, times, weights: None };
        let mut ops = vec![
            plain("embedding", Place::Step, 1.0),
            plain("norms", Place::Layer, 2.0),
            plain("rope", Place::Layer, 1.0),
            plain("activation", Place::Layer, 1.0),
            plain("final norm", Place::Sequence, 1.0),
            plain("sampler", Place::Sequence, 1.0),
        ];
        for (op, n, k) in self.products() {
            let place = if op == "lm_head" { Place::Sequence } else { Place::Layer };
            let weights = [n, k].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
            ops.push(TimedOp { op: op.into(), place, times: 1.0, weights: Some(weights) });
        }
        ops
    }
}

/// Keys and values of one sequence in one layer: `[kv_heads, capacity, head_dim]` each.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    keys: Tensor,
    values: Tensor,
}

impl Cache {
    /// A cache filled with noise.
    pub(crate) fn new(
        dimensions: &Dimensions,
        capacity: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shape = (dimensions.kv_heads, capacity, dimensions.head_dim);
        Ok(Self { keys: noise(shape, 1.0, dtype, device)?, values: noise(shape, 1.0, dtype, device)? })
    }
}

/// Normal noise.
pub(crate) fn noise<S: Into<candle_core::Shape>>(
    shape: S,
    deviation: f32,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    Tensor::randn(0f32, deviation, shape, device)?.to_dtype(dtype)
}

/// The token at each of these positions: ids spread over the vocabulary.
pub(crate) fn ids(positions: &[u32], vocabulary: usize, device: &Device) -> Result<Tensor> {
    let ids =
        positions.iter().map(|&at| at.wrapping_mul(7919) % u32::try_from(vocabulary).unwrap_or(u32::MAX));
    Tensor::from_vec(ids.collect::<Vec<u32>>(), positions.len(), device)
}

/// One sequence of a step: its tokens are those from `start` on of the step's.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) start: usize,
    pub(crate) tokens: usize,
    /// Tokens in its cache before.
    pub(crate) past: usize,
    /// What its tokens must not see of each other; none for a single token.
    pub(crate) mask: Option<Tensor>,
}

/// `[tokens, past + tokens]`: 0 where a token may look, minus infinity where not.
pub(crate) fn causal_mask(
    tokens: usize,
    past: usize,
    dtype: DType,
    device: &Device,
) -> Result<Option<Tensor>> {
    if tokens == 1 {
        return Ok(None);
    }
    let length = past + tokens;
    let hidden = |row: usize, column: usize| if column > past + row { f32::NEG_INFINITY } else { 0.0 };
    let cells = (0..tokens).flat_map(|row| (0..length).map(move |column| hidden(row, column)));
    Tensor::from_vec(cells.collect::<Vec<f32>>(), (tokens, length), device)?.to_dtype(dtype).map(Some)
}

/// Cosines and sines of positions 0 to `length`: `[length, head_dim / 2]` each.
pub(crate) fn rope_tables(
    dimensions: &Dimensions,
    length: usize,
    dtype: DType,
    device: &Device,
) -> Result<[Tensor; 2]> {
    let half = dimensions.head_dim / 2;
    let frequency = |i: usize| ROPE_BASE.powf(-(2.0 * i as f32) / dimensions.head_dim as f32);
    let angles = (0..length).flat_map(|at| (0..half).map(move |i| at as f32 * frequency(i)));
    let angles = Tensor::from_vec(angles.collect::<Vec<f32>>(), (length, half), device)?;
    Ok([angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?])
}

/// `[tokens, k] x [n, k]^T`.
pub(crate) fn product(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    x.matmul(&weights.t()?)
}

/// Adds `x` to the residual stream and normalises it: the stream, and what the next product reads.
pub(crate) fn add_norm(stream: &Tensor, x: &Tensor, weights: &Tensor) -> Result<(Tensor, Tensor)> {
    let stream = (stream + x)?;
    let normed = ops::rms_norm(&stream, weights, EPSILON)?;
    Ok((stream, normed))
}

/// Normalises.
pub(crate) fn norm(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    ops::rms_norm(x, weights, EPSILON)
}

/// Queries, keys and values of `[tokens, (heads + 2 kv_heads) head_dim]`, by head, queries and keys turned by their
/// position: `[heads, tokens, head_dim]` each. `head_norm` is there when the model normalises each head.
pub(crate) fn split_rope(
    qkv: &Tensor,
    dimensions: &Dimensions,
    [cos, sin]: &[Tensor; 2],
    head_norm: Option<&Tensor>,
) -> Result<[Tensor; 3]> {
    let Dimensions { heads, kv_heads, head_dim, .. } = *dimensions;
    let tokens = qkv.dim(0)?;
    let by_head = |from: usize, count: usize| {
        qkv.narrow(1, from * head_dim, count * head_dim)?
            .reshape((tokens, count, head_dim))?
            .transpose(0, 1)?
            .contiguous()
    };
    let turned = |x: Tensor| {
        let x = head_norm.map_or(Ok(x.clone()), |weights| norm(&x, weights))?;
        rotary_emb::rope(&x.unsqueeze(0)?, cos, sin)?.squeeze(0)
    };
    let queries = turned(by_head(0, heads)?)?;
    let keys = turned(by_head(heads, kv_heads)?)?;
    Ok([queries, keys, by_head(heads + kv_heads, kv_heads)?])
}

/// Causal attention of a step's sequences, each with the cache beside it: `[tokens, heads head_dim]`. Keys and values
/// of the step's tokens go into the caches first.
pub(crate) fn attend([queries, keys, values]: &[Tensor; 3], parts: &[(&Part, &Cache)]) -> Result<Tensor> {
    let (heads, _, head_dim) = queries.dims3()?;
    let kv_heads = keys.dim(0)?;
    let group = heads / kv_heads;
    let scale = 1.0 / (head_dim as f64).sqrt();
    let mut outputs = Vec::with_capacity(parts.len());
    for (part, cache) in parts {
        let Part { start, tokens, past, ref mask } = **part;
        let length = past + tokens;
        cache.keys.slice_set(&keys.narrow(1, start, tokens)?.contiguous()?, 1, past)?;
        cache.values.slice_set(&values.narrow(1, start, tokens)?.contiguous()?, 1, past)?;
        // The query heads of one KV head are rows of one product.
        let rows =
            queries.narrow(1, start, tokens)?.contiguous()?.reshape((kv_heads, group * tokens, head_dim))?;
        let seen = cache.keys.narrow(1, 0, length)?.transpose(1, 2)?;
        let mut scores = (rows * scale)?.matmul(&seen)?;
        if let Some(mask) = mask {
            let by_token = scores.reshape((kv_heads, group, tokens, length))?;
            scores = by_token.broadcast_add(mask)?.reshape((kv_heads, group * tokens, length))?;
        }
        let weights = ops::softmax_last_dim(&scores)?;
        let output = weights.matmul(&cache.values.narrow(1, 0, length)?)?;
        outputs.push(output.reshape((heads, tokens, head_dim))?);
    }
    let all = Tensor::cat(&outputs, 1)?;
    let tokens = all.dim(1)?;
    all.transpose(0, 1)?.reshape((tokens, heads * head_dim))
}

/// The gated activation of `[tokens, 2 mlp]`.
pub(crate) fn activation(gate_up: &Tensor) -> Result<Tensor> {
    ops::swiglu(gate_up)
}

/// The likeliest token of each row.
pub(crate) fn sample(logits: &Tensor) -> Result<Tensor> {
    logits.argmax(D::Minus1)
}
