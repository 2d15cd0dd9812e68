//! Step time from closed forms: a sum over the ops of a dense transformer, each limited by the GPU's peaks.
//!
//! ```text
//! t = embedding(T) + layers * [2 norms(T) + qkv(T) + rope(T) + attention + o_proj(T) + gate_up(T) + act(T)
//!     + down(T) + 2 all-reduces(T)] + final norm(S) + lm_head(S) + sampler(S)
//! ```
//! T = tokens of the step, padded to a CUDA graph's size; S = requests that sample. Forms and efficiencies are
//! fits to public kernel tables; the catalog names the tables and the error of each fit.

use crate::catalog::{AllReduce, Gpu, Model};
use crate::cost::cuda_graphs::CudaGraphs;
use crate::cost::{CostModel, Piece, Prepared, StepShape};
use crate::time::Span;

/// Bytes of a bf16 or fp16 element.
const ELEMENT_BYTES: f64 = 2.0;

/// Norms, rotary embedding, activation, embedding lookup: fixed time, and share of peak bandwidth reached.
/// Floors of 1.9 to 2.7 us for these ops on RTX 4090 and RTX PRO 6000 (LLMServingSim 2.0 profiles, MIT).
const ELEMENTWISE_LAUNCH_US: f64 = 2.2;
const ELEMENTWISE_BANDWIDTH_EFFICIENCY: f64 = 0.8;

/// The sampler passes over the fp32 logits about 2.4 times, after a floor of 12 to 25 us (same profiles: 311 us
/// at 256 x 128,256 on RTX 4090, 218 us at 256 x 151,936 on RTX PRO 6000).
const SAMPLER_LAUNCH_US: f64 = 15.0;
const SAMPLER_PASSES: f64 = 2.4;

/// CPU time of scheduling and bookkeeping on a server core: per step, and per request of the batch.
///
/// Measured with vLLM's real scheduler on one slow virtual core: about 30 us + 21 us per request; a server core
/// is taken to be 2 to 3 times faster per request. Calibratable.
pub const CPU_PER_STEP: Span = Span::from_nanos(30_000);
/// See [`CPU_PER_STEP`].
pub const CPU_PER_REQUEST: Span = Span::from_nanos(8_000);

/// What a closed-form cost model is made from.
#[derive(Clone, Debug)]
pub struct ClosedFormInput<'a> {
    /// The GPU.
    pub gpu: &'a Gpu,
    /// The model.
    pub model: &'a Model,
    /// GPUs of the replica.
    pub tensor_parallel: u32,
    /// Most requests in a batch.
    pub max_num_seqs: u32,
    /// Token budget of one step.
    pub max_num_batched_tokens: u32,
    /// CPU time per step.
    pub cpu_per_step: Span,
    /// CPU time per request of the batch.
    pub cpu_per_request: Span,
}

/// One matrix multiplication of a layer: `[tokens, k] x [k, n]`.
#[derive(Clone, Copy, Debug)]
struct Gemm {
    k: f64,
    n: f64,
}

/// The closed-form cost model of one replica.
#[derive(Clone, Debug)]
pub struct ClosedForm {
    gpu: Gpu,
    graphs: CudaGraphs,
    all_reduce: Option<AllReduce>,
    layers: f64,
    hidden: f64,
    /// Query heads, KV heads and MLP width of one GPU.
    heads: f64,
    kv_heads: f64,
    head_dim: f64,
    mlp: f64,
    vocabulary: f64,
    cpu_per_step: Span,
    cpu_per_request: Span,
    /// Everything that depends on the number of tokens alone, by that number, microseconds.
    by_tokens_us: Vec<f64>,
    /// Everything that depends on the number of samples alone, by that number, microseconds.
    by_samples_us: Vec<f64>,
    /// Reading the keys and values of one token of decode context, nanoseconds.
    context_token_ns: f64,
}

impl ClosedForm {
    /// The cost model of a replica.
    ///
    /// # Errors
    /// When the model cannot be split over `tensor_parallel` GPUs, or the GPU has no all-reduce figures for it.
    pub fn new(input: &ClosedFormInput<'_>) -> Result<Self, String> {
        let (model, tp) = (input.model, input.tensor_parallel);
        let config = &model.config;
        if tp == 0 || !config.num_attention_heads.is_multiple_of(tp) {
            return Err(format!(
                "{} has {} attention heads, which do not split over tensor_parallel {tp}",
                model.name, config.num_attention_heads
            ));
        }
        let all_reduce = input.gpu.all_reduce.iter().find(|entry| entry.gpus == tp).copied();
        if tp > 1 && all_reduce.is_none() {
            let known: Vec<_> = input.gpu.all_reduce.iter().map(|entry| entry.gpus.to_string()).collect();
            return Err(format!(
                "{} has no all-reduce figures for tensor_parallel {tp}: use 1 or one of {}",
                input.gpu.name,
                known.join(", ")
            ));
        }
        let split = f64::from(tp);
        let mut cost = Self {
            gpu: input.gpu.clone(),
            graphs: CudaGraphs::new(input.max_num_seqs, input.max_num_batched_tokens),
            all_reduce,
            layers: f64::from(config.num_hidden_layers),
            hidden: f64::from(config.hidden_size),
            heads: f64::from(config.num_attention_heads) / split,
            kv_heads: f64::from((model.kv_heads() / tp).max(1)),
            head_dim: f64::from(model.head_dim()),
            mlp: f64::from(config.intermediate_size) / split,
            vocabulary: f64::from(config.vocab_size) / split,
            cpu_per_step: input.cpu_per_step,
            cpu_per_request: input.cpu_per_request,
            by_tokens_us: Vec::new(),
            by_samples_us: Vec::new(),
            context_token_ns: 0.0,
        };
        cost.tabulate(input.max_num_batched_tokens, input.max_num_seqs);
        Ok(cost)
    }

    /// Fills the tables, so that preparing a step is a few look-ups. Padding may exceed the budget by a graph.
    fn tabulate(&mut self, max_num_batched_tokens: u32, max_num_seqs: u32) {
        let by_tokens = |tokens: u32| {
            let tokens = f64::from(tokens);
            let layer = self.dense_us(tokens) + self.all_reduces_us(tokens);
            self.embedding_us(tokens) + self.layers * layer
        };
        self.by_tokens_us = (0..=max_num_batched_tokens.saturating_add(16)).map(by_tokens).collect();
        self.by_samples_us = (0..=max_num_seqs).map(|samples| self.head_us(f64::from(samples))).collect();
        self.context_token_ns = self.context_token_us() * 1e3;
    }

    /// Everything of a layer that depends on the number of tokens alone.
    fn dense_us(&self, tokens: f64) -> f64 {
        let (hidden, q, kv) = (self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let gemms = [
            Gemm { k: hidden, n: q + 2.0 * kv },
            Gemm { k: q, n: hidden },
            Gemm { k: hidden, n: 2.0 * self.mlp },
            Gemm { k: self.mlp, n: hidden },
        ];
        let norms = 2.0 * self.elementwise_us(tokens * 4.0 * hidden);
        let rope = self.elementwise_us(tokens * 2.0 * (q + kv));
        let activation = self.elementwise_us(tokens * 3.0 * self.mlp);
        gemms.iter().map(|gemm| self.gemm_us(gemm, tokens)).sum::<f64>() + norms + rope + activation
    }

    fn gemm_us(&self, gemm: &Gemm, tokens: f64) -> f64 {
        let kernel = &self.gpu.gemm;
        let flops = 2.0 * tokens * gemm.k * gemm.n;
        let bytes = (gemm.k * gemm.n + tokens * (gemm.k + gemm.n)) * ELEMENT_BYTES;
        let compute = flops / (self.gpu.peak_bf16_flops * kernel.compute_efficiency);
        let memory = bytes / (self.gpu.memory_bytes_per_s * kernel.bandwidth_efficiency);
        kernel.launch_us + compute.max(memory) * 1e6
    }

    fn elementwise_us(&self, elements: f64) -> f64 {
        let bandwidth = self.gpu.memory_bytes_per_s * ELEMENTWISE_BANDWIDTH_EFFICIENCY;
        ELEMENTWISE_LAUNCH_US + elements * ELEMENT_BYTES / bandwidth * 1e6
    }

    /// Prefill attention of one layer. Causal FLOPs: 4 per query-key pair, head and head dimension.
    fn prefill_attention_us(&self, shape: &StepShape) -> f64 {
        let kernel = &self.gpu.prefill_attention;
        let flops = 4.0 * self.heads * self.head_dim * shape.prefill_pairs as f64;
        let keys_and_values = shape.prefill_context as f64 * 2.0 * self.kv_heads * self.head_dim;
        let queries = 2.0 * f64::from(shape.prefill_tokens) * self.heads * self.head_dim;
        let bytes = (keys_and_values + queries) * ELEMENT_BYTES;
        kernel.launch_us
            + flops / (self.gpu.peak_bf16_flops * kernel.compute_efficiency) * 1e6
            + bytes / (self.gpu.memory_bytes_per_s * kernel.bandwidth_efficiency) * 1e6
    }

    /// Decode attention of one layer but for the reading of keys and values.
    fn decode_attention_us(&self, decodes: u32) -> f64 {
        let kernel = &self.gpu.decode_attention;
        kernel.launch_us + kernel.us_per_sequence_and_kv_head * f64::from(decodes) * self.kv_heads
    }

    /// Reading the keys and values of one token of decode context, in all layers.
    fn context_token_us(&self) -> f64 {
        let bytes = self.layers * 2.0 * self.kv_heads * self.head_dim * ELEMENT_BYTES;
        bytes / (self.gpu.memory_bytes_per_s * self.gpu.decode_attention.bandwidth_efficiency) * 1e6
    }

    /// The two all-reduces of a layer, each over `2 (n - 1) / n` times its bytes.
    fn all_reduces_us(&self, tokens: f64) -> f64 {
        self.all_reduce.map_or(0.0, |all_reduce| {
            let gpus = f64::from(all_reduce.gpus);
            let bytes = tokens * self.hidden * ELEMENT_BYTES * 2.0 * (gpus - 1.0) / gpus;
            2.0 * (all_reduce.launch_us + bytes / all_reduce.bus_bytes_per_s * 1e6)
        })
    }

    fn embedding_us(&self, tokens: f64) -> f64 {
        self.elementwise_us(2.0 * tokens * self.hidden)
    }

    /// Final norm, LM head and sampler for the requests that sample.
    fn head_us(&self, sampled: f64) -> f64 {
        if sampled == 0.0 {
            return 0.0;
        }
        let lm_head = self.gemm_us(&Gemm { k: self.hidden, n: self.vocabulary }, sampled);
        let logits_bytes = 4.0 * sampled * self.vocabulary;
        let sampler = SAMPLER_LAUNCH_US + SAMPLER_PASSES * logits_bytes / self.gpu.memory_bytes_per_s * 1e6;
        self.elementwise_us(2.0 * sampled * self.hidden) + lm_head + sampler
    }
}

impl CostModel for ClosedForm {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let per_request = self.cpu_per_request.as_nanos() * u64::from(shape.requests());
        let cpu = self.cpu_per_step + Span::from_nanos(per_request);
        if shape.tokens() == 0 {
            return Prepared { cpu, ..Prepared::default() };
        }
        let tokens = self.graphs.padded(shape.tokens());
        let mut us = self.by_tokens_us[tokens as usize] + self.by_samples_us[shape.sampled as usize];
        if shape.prefills > 0 {
            us += self.layers * self.prefill_attention_us(shape);
        }
        if shape.decodes > 0 {
            us += self.layers * self.decode_attention_us(shape.decodes);
        }
        let context = Piece::whole(self.context_token_ns);
        Prepared { fixed_ns: us * 1e3, context, longest: Piece::default(), cpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{gpu, model};
    use proptest::prelude::*;

    fn cost(gpu_name: &str, model_name: &str, tensor_parallel: u32) -> ClosedForm {
        ClosedForm::new(&ClosedFormInput {
            gpu: gpu(gpu_name).unwrap(),
            model: model(model_name).unwrap(),
            tensor_parallel,
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            cpu_per_step: CPU_PER_STEP,
            cpu_per_request: CPU_PER_REQUEST,
        })
        .unwrap()
    }

    fn decodes(count: u32, context: u64) -> StepShape {
        StepShape {
            decodes: count,
            decode_context: u64::from(count) * context,
            sampled: count,
            ..StepShape::default()
        }
    }

    fn prefill(tokens: u32) -> StepShape {
        let n = u64::from(tokens);
        StepShape {
            prefills: 1,
            prefill_tokens: tokens,
            prefill_pairs: n * (n + 1) / 2,
            prefill_context: n,
            sampled: 1,
            ..StepShape::default()
        }
    }

    #[test]
    fn a_light_decode_step_is_near_the_measured_inter_token_latency() {
        // Qwen3-14B on one H100 at 2 requests/s: ITL 12.1 ms with about 3 requests in flight (vLLM 0.23).
        let ms = cost("h100", "qwen3-14b", 1).step(&decodes(3, 1060)).gpu.as_millis_f64();
        assert!((ms / 12.1 - 1.0).abs() < 0.1, "{ms} ms");
    }

    #[test]
    fn no_step_beats_the_hardware() {
        let model = model("qwen3-14b").unwrap();
        let gpu = gpu("h100").unwrap();
        let seconds = cost("h100", "qwen3-14b", 1).step(&prefill(8192)).gpu.as_secs_f64();
        let flops = 2.0 * 8192.0 * model.parameters() as f64;
        assert!(flops / seconds < gpu.peak_bf16_flops * 1.1, "embedding parameters aside, below peak");
        let weights = 2.0 * model.parameters() as f64;
        let seconds = cost("h100", "qwen3-14b", 1).step(&decodes(1, 16)).gpu.as_secs_f64();
        assert!(weights / seconds < gpu.memory_bytes_per_s);
    }

    #[test]
    fn a_split_that_does_not_exist_is_refused() {
        let input = |tensor_parallel| ClosedFormInput {
            gpu: gpu("h100").unwrap(),
            model: model("llama-3.1-8b").unwrap(),
            tensor_parallel,
            max_num_seqs: 1,
            max_num_batched_tokens: 1,
            cpu_per_step: Span::ZERO,
            cpu_per_request: Span::ZERO,
        };
        for tensor_parallel in [0, 3, 16] {
            assert!(ClosedForm::new(&input(tensor_parallel)).is_err(), "TP {tensor_parallel}");
        }
    }

    proptest! {
        #[test]
        fn more_work_never_takes_less_time(
            prefill_tokens in 0u32..4000, history in 0u64..20_000, count in 0u32..256, context in 1u64..20_000,
            tp in prop::sample::select(vec![1u32, 2, 4, 8]),
        ) {
            let cost = cost("h100", "llama-3.1-8b", tp);
            let n = u64::from(prefill_tokens);
            let mut shape = decodes(count, context);
            if n > 0 {
                shape.prefills = 1;
                shape.prefill_tokens = prefill_tokens;
                shape.prefill_pairs = n * history + n * (n + 1) / 2;
                shape.prefill_context = history + n;
            }
            let base = cost.step(&shape);
            let longer = StepShape { decode_context: shape.decode_context + 1000, ..shape };
            let fuller = StepShape { decodes: count + 1, decode_context: shape.decode_context + context, sampled: count + 1, ..shape };
            prop_assert!(cost.step(&longer).gpu >= base.gpu);
            prop_assert!(cost.step(&fuller).gpu >= base.gpu);
            prop_assert!(cost.step(&shape.decodes_only()).gpu <= base.gpu || shape.prefills == 0);
        }
    }
}
