//! Step time from closed forms: a sum over the ops of a transformer, each limited by the GPU's peaks.
//!
//! ```text
//! t = embedding(T) + layers * [2 norms(T) + qkv(T) + rope(T) + attention + o_proj(T) + MLP or experts(T)
//!     + 2 all-reduces(T)] + final norm(S) + lm_head(S) + sampler(S)
//! ```
//! T = tokens of the step, padded to a CUDA graph's size; S = requests that sample. [`kernels`] has
//! the form of each op.

use crate::catalog::{Gpu, Model, TileOwner, WeightType};
use crate::cost::cuda_graphs::CudaGraphs;
use crate::cost::dimensions::{Dimensions, Heads};
use crate::cost::kernels::{self, Work};
use crate::cost::layer::{head_ops, token_ops};
use crate::cost::op::{Form, Op};
use crate::cost::{CostModel, Piece, Prepared, StepShape};
use crate::time::Span;

/// CPU time of scheduling and bookkeeping on a server core: per step, and per request of the batch.
///
/// Measured with vLLM's real scheduler on one slow virtual core: about 30 us + 21 us per request; a server core
/// is taken to be 2 to 3 times faster per request. Calibratable.
pub const CPU_PER_STEP: Span = Span::from_nanos(30_000);
/// See [`CPU_PER_STEP`].
pub const CPU_PER_REQUEST: Span = Span::from_nanos(8_000);

/// Decode attention over unequal lengths is slower than over equal ones: `A(mean) + alpha * (A(longest) - A(mean))`.
///
/// Alpha by least squares of relative errors over 12,998 measurements on an RTX 4090: 0.039 for batches of decodes,
/// 0.040 for mixed ones (LLMServingSim 2.0 profiles, MIT). The plain mean of alphas, 0.07 and 0.23, is ruled by cases
/// whose lengths hardly differ.
pub const SKEW: f64 = 0.04;

/// What a closed-form cost model is made from.
#[derive(Clone, Debug)]
pub struct ClosedFormInput<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// The model.
    pub model: &'a Model,
    /// GPUs of the replica.
    pub tensor_parallel: u32,
    /// Bytes of an element of the KV cache.
    pub kv_element_bytes: u32,
    /// Most requests in a batch.
    pub max_num_seqs: u32,
    /// Token budget of one step.
    pub max_num_batched_tokens: u32,
    /// Ranks of a data parallel server, which share the routed experts; 1 for a server of one engine.
    pub data_parallel: u32,
    /// CPU time per step.
    pub cpu_per_step: Span,
    /// CPU time per request of the batch.
    pub cpu_per_request: Span,
}

/// The closed-form cost model of one replica.
#[derive(Clone, Debug)]
pub struct ClosedForm {
    gpu: Gpu,
    dimensions: Dimensions,
    tensor_parallel: u32,
    kv_bytes: f64,
    graphs: CudaGraphs,
    cpu_per_step: Span,
    cpu_per_request: Span,
    /// Everything that depends on the number of tokens alone, by that number, microseconds.
    by_tokens_us: Vec<f64>,
    /// Everything that depends on the number of samples alone, by that number, microseconds.
    by_samples_us: Vec<f64>,
    prefill: PrefillRates,
    /// Reading one token of decode context in one layer, microseconds: in a batch of decodes, and what their tiles
    /// add in a mixed one.
    read_us: f64,
    tiles_us: f64,
}

/// Prefill attention of one layer, microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct PrefillRates {
    per_pair: f64,
    per_context_token: f64,
    per_token: f64,
}

impl ClosedForm {
    /// The cost model of a replica.
    ///
    /// # Errors
    /// When the model cannot be split over `tensor_parallel` GPUs, or the GPU has no all-reduce figures for it.
    pub fn new(input: &ClosedFormInput<'_>) -> Result<Self, String> {
        check_split(input)?;
        let (gpu, kv_bytes) = (input.gpu, f64::from(input.kv_element_bytes));
        let dimensions = Dimensions::new(input.model, input.tensor_parallel, input.data_parallel);
        let graphs = CudaGraphs::new(input.max_num_seqs, input.max_num_batched_tokens, gpu.max_graph_tokens);
        let total = |ops: Vec<Op>| ops.iter().map(Op::total_us).sum::<f64>();
        // Padding may exceed the budget by a graph.
        let by_tokens = |tokens| total(token_ops(gpu, &dimensions, input.tensor_parallel, f64::from(tokens)));
        let by_samples = |samples| total(head_ops(gpu, &dimensions, f64::from(samples)));
        Ok(Self {
            by_tokens_us: (0..=input.max_num_batched_tokens.saturating_add(16)).map(by_tokens).collect(),
            by_samples_us: (0..=input.max_num_seqs).map(by_samples).collect(),
            prefill: prefill_rates(gpu, &dimensions, kv_bytes),
            read_us: read_us(gpu, &dimensions, kv_bytes),
            tiles_us: tiles_us(gpu, &dimensions),
            gpu: gpu.clone(),
            dimensions,
            tensor_parallel: input.tensor_parallel,
            kv_bytes,
            graphs,
            cpu_per_step: input.cpu_per_step,
            cpu_per_request: input.cpu_per_request,
        })
    }

    /// Prefill attention of the layers that see `window` tokens, or everything: microseconds of one layer, with the
    /// kernel's work.
    fn prefill_us(&self, shape: &StepShape, window: Option<u32>) -> f64 {
        let (pairs, context) = seen_by_prefill(shape, window);
        let rates = self.prefill;
        self.gpu.prefill_attention.launch_us
            + rates.per_pair * pairs
            + rates.per_context_token * context
            + rates.per_token * f64::from(shape.prefill_tokens)
    }

    /// Decode attention but for the context, one layer. In a mixed batch of one kernel, only what it launches later
    /// than the prefill's.
    fn decode_base_us(&self, shape: &StepShape) -> f64 {
        let heads = self.dimensions.kv_heads();
        let sequences = f64::from(shape.decodes);
        let base = kernels::decode_base_us(&self.gpu, self.kv_bytes, sequences, heads);
        if self.shares_kernel(shape) { (base - self.gpu.prefill_attention.launch_us).max(0.0) } else { base }
    }

    /// Whether decodes run inside the prefill's kernel.
    fn shares_kernel(&self, shape: &StepShape) -> bool {
        shape.prefills > 0 && self.tiles_us > 0.0
    }

    /// What the tiles of the prefill's kernel add to each token of decode context in one layer, microseconds.
    fn tiles_us(&self, shape: &StepShape) -> f64 {
        if self.shares_kernel(shape) && !self.in_tiles_of_decodes(shape) { self.tiles_us } else { 0.0 }
    }

    /// Whether the rows of each chunk, packed with the query heads that share a KV head, fit a tile that decodes alone
    /// have too.
    fn in_tiles_of_decodes(&self, shape: &StepShape) -> bool {
        let heads_per_owner = self.dimensions.heads / self.dimensions.kv_heads();
        let alone = self.gpu.mixed_batch_tiles.and_then(|tiles| tiles.alone);
        alone.is_some_and(|rows| f64::from(shape.prefill_longest) * heads_per_owner <= f64::from(rows))
    }

    /// Attention of one layer over a token of decode context, microseconds.
    fn decode_rate_us(&self, shape: &StepShape) -> f64 {
        self.read_us(shape) + self.tiles_us(shape)
    }

    /// Reading it once for all queries of a decode: its own token and the guesses that it verifies. Many of them may be
    /// limited by their FLOPs instead.
    fn read_us(&self, shape: &StepShape) -> f64 {
        if shape.guesses == 0 || shape.decodes == 0 {
            return self.read_us;
        }
        let queries = 1.0 + f64::from(shape.guesses) / f64::from(shape.decodes);
        let flops = queries * self.dimensions.decode_flops_per_token();
        self.read_us.max(kernels::prefill_flops_us(&self.gpu, flops))
    }

    /// The ops of a step with their work and times, in the order in which they run. Their times add up to the step's
    /// time on the GPU, before it is rounded to a nanosecond.
    #[must_use]
    pub fn ops(&self, shape: &StepShape) -> Vec<Op> {
        if shape.tokens() == 0 {
            return Vec::new();
        }
        let tokens = f64::from(self.graphs.padded(shape.tokens()));
        let mut ops = token_ops(&self.gpu, &self.dimensions, self.tensor_parallel, tokens);
        ops.extend(self.attention_ops(shape));
        ops.extend(head_ops(&self.gpu, &self.dimensions, f64::from(shape.sampled)));
        ops.retain(|op| op.calls > 0.0 && op.us > 0.0);
        ops
    }

    /// Tokens that the step is computed for, padding included.
    #[must_use]
    pub fn padded_tokens(&self, shape: &StepShape) -> u32 {
        self.graphs.padded(shape.tokens())
    }

    fn attention_ops(&self, shape: &StepShape) -> Vec<Op> {
        let dimensions = &self.dimensions;
        let full = dimensions.full_layers();
        let windowed = dimensions.layers - full;
        let window = dimensions.window.map(|window| window.tokens);
        let mut ops = Vec::new();
        let mut add = |name, form, calls: f64, work, us| ops.push(Op { name, form, calls, work, us });
        if shape.prefills > 0 {
            let work = self.prefill_work(shape, None);
            add("prefill attention", Form::PrefillAttention, full, work, self.prefill_us(shape, None));
            let work = self.prefill_work(shape, window);
            add(
                "prefill attention, window",
                Form::PrefillAttention,
                windowed,
                work,
                self.prefill_us(shape, window),
            );
        }
        if shape.decodes == 0 {
            return ops;
        }
        let base_us = self.decode_base_us(shape);
        add("decode attention, launch", Form::DecodeBase, dimensions.layers, Work::default(), base_us);
        let (sequences, context) = (f64::from(shape.decodes), shape.decode_context as f64);
        let seen = window.map_or(context, |window| context.min(sequences * f64::from(window)));
        let rate = self.decode_rate_us(shape);
        let longer = (sequences * shape.decode_longest as f64 - context).max(0.0);
        let read = |tokens: f64| Work {
            flops: dimensions.decode_flops_per_token() * tokens,
            bytes: dimensions.kv() * self.kv_bytes * tokens,
        };
        add("decode attention, KV", Form::DecodeRead, full, read(context), self.read_us(shape) * context);
        add(
            "decode attention, KV of the window",
            Form::DecodeRead,
            windowed,
            read(seen),
            self.read_us(shape) * seen,
        );
        let tiles_us = self.tiles_us(shape);
        if tiles_us > 0.0 {
            let tiles = |tokens: f64| Work { flops: self.tile_flops() * tokens, bytes: 0.0 };
            add("decodes in prefill's tiles", Form::MixedTiles, full, tiles(context), tiles_us * context);
            add("decodes in its tiles, window", Form::MixedTiles, windowed, tiles(seen), tiles_us * seen);
        }
        add("unequal lengths", Form::DecodeSkew, full, Work::default(), rate * SKEW * longer);
        ops
    }

    fn prefill_work(&self, shape: &StepShape, window: Option<u32>) -> Work {
        let (pairs, context) = seen_by_prefill(shape, window);
        let dimensions = &self.dimensions;
        let queries = 2.0 * dimensions.query() * kernels::ACTIVATION_BYTES * f64::from(shape.prefill_tokens);
        Work {
            flops: dimensions.flops_per_pair() * pairs + dimensions.expansion_flops_per_token() * context,
            bytes: dimensions.kv() * self.kv_bytes * context + queries,
        }
    }

    /// FLOPs of a mixed batch's tiles for each token of decode context.
    fn tile_flops(&self) -> f64 {
        tile_flops(&self.gpu, &self.dimensions)
    }

    /// Scheduling and bookkeeping of a step on the CPU.
    #[must_use]
    pub fn cpu(&self, shape: &StepShape) -> Span {
        self.cpu_per_step + Span::from_nanos(self.cpu_per_request.as_nanos() * u64::from(shape.requests()))
    }
}

fn check_split(input: &ClosedFormInput<'_>) -> Result<(), String> {
    let (model, tp) = (input.model, input.tensor_parallel);
    if tp == 0 || !model.shape.heads.is_multiple_of(tp) {
        return Err(format!(
            "{} has {} attention heads, which do not split over tensor_parallel {tp}",
            model.name, model.shape.heads
        ));
    }
    let joined = if input.model.shape.experts.is_some() { tp * input.data_parallel } else { tp };
    let over_ranks =
        format!("tensor_parallel {tp} x data_parallel {}, which share experts", input.data_parallel);
    let over = if joined > tp { over_ranks } else { format!("tensor_parallel {tp}") };
    if joined > 1 && !input.gpu.all_reduce.iter().any(|entry| entry.gpus == joined) {
        let known: Vec<_> = input.gpu.all_reduce.iter().map(|entry| entry.gpus.to_string()).collect();
        return Err(format!(
            "{} has no all-reduce figures for {over}: use 1 or one of {}",
            input.gpu.name,
            known.join(", ")
        ));
    }
    Ok(())
}

fn prefill_rates(gpu: &Gpu, dimensions: &Dimensions, kv_bytes: f64) -> PrefillRates {
    let byte_us = 1e6 / (gpu.memory_bytes_per_s * gpu.prefill_attention.bandwidth_efficiency);
    let (gemm, peak) = kernels::gemm_constants(gpu, WeightType::Bf16);
    PrefillRates {
        per_pair: kernels::prefill_flops_us(gpu, dimensions.flops_per_pair()),
        per_context_token: dimensions.kv() * kv_bytes * byte_us
            + dimensions.expansion_flops_per_token() / (peak * gemm.compute_efficiency) * 1e6,
        per_token: 2.0 * dimensions.query() * kernels::ACTIVATION_BYTES * byte_us,
    }
}

/// Reading one token of decode context in one layer; latent attention may be limited by its FLOPs instead.
fn read_us(gpu: &Gpu, dimensions: &Dimensions, kv_bytes: f64) -> f64 {
    let flops_us = kernels::prefill_flops_us(gpu, dimensions.decode_flops_per_token());
    kernels::decode_read_us(gpu, kv_bytes, dimensions.kv()).max(flops_us)
}

/// What each token of decode context adds in a mixed batch: the rows of its tiles, of which it fills one, are all
/// multiplied.
fn tiles_us(gpu: &Gpu, dimensions: &Dimensions) -> f64 {
    kernels::prefill_flops_us(gpu, tile_flops(gpu, dimensions))
}

fn tile_flops(gpu: &Gpu, dimensions: &Dimensions) -> f64 {
    let (Heads::Grouped { kv_heads, head_dim }, Some(tiles)) = (dimensions.attention, gpu.mixed_batch_tiles)
    else {
        return 0.0;
    };
    let owners = match tiles.per {
        TileOwner::QueryHead => dimensions.heads,
        TileOwner::KvHead => kv_heads,
    };
    4.0 * head_dim * f64::from(tiles.rows) * owners
}

/// Query-key pairs and tokens of context of a step's prefills in a layer that sees `window` tokens, or everything.
fn seen_by_prefill(shape: &StepShape, window: Option<u32>) -> (f64, f64) {
    let (pairs, context) = (shape.prefill_pairs as f64, shape.prefill_context as f64);
    window.map(f64::from).map_or((pairs, context), |window| {
        let tokens = f64::from(shape.prefill_tokens);
        (pairs.min(tokens * window), context.min(tokens + f64::from(shape.prefills) * window))
    })
}

impl CostModel for ClosedForm {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let cpu = self.cpu(shape);
        if shape.tokens() == 0 {
            return Prepared { cpu, ..Prepared::default() };
        }
        let tokens = self.graphs.padded(shape.tokens());
        let mut us = self.by_tokens_us[tokens as usize] + self.by_samples_us[shape.sampled as usize];
        let window = self.dimensions.window;
        let (full, windowed) =
            (self.dimensions.full_layers(), self.dimensions.layers - self.dimensions.full_layers());
        if shape.prefills > 0 {
            us += full * self.prefill_us(shape, None);
            if let Some(window) = window {
                us += windowed * self.prefill_us(shape, Some(window.tokens));
            }
        }
        if shape.decodes == 0 {
            return Prepared { fixed_ns: us * 1e3, cpu, ..Prepared::default() };
        }
        us += self.dimensions.layers * self.decode_base_us(shape);
        let rate_ns = self.decode_rate_us(shape) * 1e3;
        let beyond = full * (1.0 - SKEW) * rate_ns;
        let within = beyond + windowed * rate_ns;
        let longest = Piece::whole(full * SKEW * rate_ns * f64::from(shape.decodes));
        // Layers with a window read no more than it of each decode.
        let seen = window.map_or(u64::MAX, |window| u64::from(shape.decodes) * u64::from(window.tokens));
        let (context, before_ns) = if shape.decode_context <= seen {
            (Piece { from: 0, until: seen, ns_per_token: within }, 0.0)
        } else {
            let context = Piece { from: seen + 1, until: u64::MAX, ns_per_token: beyond };
            (context, within * seen as f64 + beyond)
        };
        Prepared { fixed_ns: us * 1e3 + before_ns, context, longest, cpu }
    }
}

#[cfg(test)]
#[path = "closed_form_tests.rs"]
mod tests;
