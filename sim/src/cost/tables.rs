//! Step time from measured tables: kernels of a layer by tokens, heads by sequences, attention over a grid.
//!
//! The counterpart of [`closed_form`](crate::cost::closed_form) for a GPU, model and split that were profiled. The
//! tables are turned into look-ups by the number of tokens and of sequences once, so that preparing a step is a few
//! of them and one cell of the attention grid.

mod attention;
mod curve;

pub use attention::{Attention, Plane, Skew, Solid};
pub use curve::{Axis, Curve};

use crate::cost::cuda_graphs::CudaGraphs;
use crate::cost::{CostModel, Prepared, StepShape};
use crate::time::Span;

/// One kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// What it is.
    pub name: String,
    /// How often it runs in a step.
    pub calls: f64,
    /// Time of one call.
    pub curve: Curve,
}

/// Measured kernels of one model, split over the GPUs of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernels {
    /// Kernels whose time depends on the tokens of a step.
    pub by_tokens: Vec<Kernel>,
    /// Kernels whose time depends on the number of requests that sample.
    pub by_samples: Vec<Kernel>,
    /// Attention of one layer.
    pub attention: Attention,
    /// Layers that run it.
    pub layers: f64,
    /// The engine's largest CUDA graph, tokens; 0 for an engine without.
    pub largest_graph: u32,
}

/// The engine around the kernels.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests in a batch.
    pub max_num_seqs: u32,
    /// Token budget of one step.
    pub max_num_batched_tokens: u32,
    /// Longest sequence.
    pub max_model_len: u32,
    /// CPU time per step.
    pub cpu_per_step: Span,
    /// CPU time per request of the batch.
    pub cpu_per_request: Span,
}

/// The cost model of one replica, from tables.
#[derive(Clone, Debug)]
pub struct TableCost {
    graphs: CudaGraphs,
    /// Everything that depends on the number of tokens alone, by that number, nanoseconds.
    by_tokens_ns: Vec<f64>,
    /// Everything that depends on the number of samples alone, by that number, nanoseconds.
    by_samples_ns: Vec<f64>,
    kernels: Kernels,
    cpu_per_step: Span,
    cpu_per_request: Span,
}

impl TableCost {
    /// The cost model of a replica with these kernels.
    #[must_use]
    pub fn new(kernels: Kernels, limits: &Limits) -> Self {
        let total_ns = |kernels: &[Kernel], count: u32| {
            let us = |kernel: &Kernel| kernel.calls * kernel.curve.us(f64::from(count));
            if count == 0 { 0.0 } else { kernels.iter().map(us).sum::<f64>() * 1e3 }
        };
        // Padding may exceed the budget by a graph.
        let tokens = 0..=limits.max_num_batched_tokens.saturating_add(16);
        Self {
            graphs: CudaGraphs::new(
                limits.max_num_seqs,
                limits.max_num_batched_tokens,
                kernels.largest_graph,
            ),
            by_tokens_ns: tokens.map(|count| total_ns(&kernels.by_tokens, count)).collect(),
            by_samples_ns: (0..=limits.max_num_seqs)
                .map(|count| total_ns(&kernels.by_samples, count))
                .collect(),
            kernels,
            cpu_per_step: limits.cpu_per_step,
            cpu_per_request: limits.cpu_per_request,
        }
    }
}

/// One kernel's part of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// What it is.
    pub name: String,
    /// How often it runs in the step.
    pub calls: f64,
    /// Time of one call, microseconds.
    pub us: f64,
}

impl TableCost {
    /// Tokens that the step is computed for, padding included.
    #[must_use]
    pub fn padded_tokens(&self, shape: &StepShape) -> u32 {
        self.graphs.padded(shape.tokens())
    }

    /// The kernels of a step, whose times add up to the step's on the GPU, before it is rounded to a nanosecond.
    #[must_use]
    pub fn ops(&self, shape: &StepShape) -> Vec<Timed> {
        if shape.tokens() == 0 {
            return Vec::new();
        }
        let timed = |kernels: &[Kernel], count: u32| -> Vec<Timed> {
            let us = |kernel: &Kernel| kernel.curve.us(f64::from(count));
            let one =
                |kernel: &Kernel| Timed { name: kernel.name.clone(), calls: kernel.calls, us: us(kernel) };
            if count == 0 { Vec::new() } else { kernels.iter().map(one).collect() }
        };
        let (begin_ns, context, longest) = self.kernels.attention.prepare(shape, 1.0);
        let ns = begin_ns + context.ns(shape.decode_context) + longest.ns(shape.decode_longest);
        let mut ops = timed(&self.kernels.by_tokens, self.padded_tokens(shape));
        ops.push(Timed { name: "attention".into(), calls: self.kernels.layers, us: ns / 1e3 });
        ops.extend(timed(&self.kernels.by_samples, shape.sampled));
        ops
    }
}

impl Kernels {
    /// Where an engine may go beyond what was measured, in words; there the efficiency of the boundary is held.
    #[must_use]
    pub fn beyond(&self, limits: &Limits) -> Vec<String> {
        let tokens = self.by_tokens.iter().map(|kernel| kernel.curve.last()).min().unwrap_or(u32::MAX);
        let samples = self.by_samples.iter().map(|kernel| kernel.curve.last()).min().unwrap_or(u32::MAX);
        let [chunk, history, decodes, context] = self.attention.measured();
        let bounds = [
            ("tokens in a step", tokens.min(chunk), limits.max_num_batched_tokens),
            ("sequences in a step", samples.min(decodes), limits.max_num_seqs),
            ("tokens of context", history.min(context), limits.max_model_len),
        ];
        let exceeded = bounds.iter().filter(|(_, measured, allowed)| allowed > measured);
        exceeded
            .map(|(what, measured, allowed)| {
                format!(
                    "{what} were measured up to {measured}, and the engine allows {allowed}: beyond, the last efficiency is held"
                )
            })
            .collect()
    }
}

impl CostModel for TableCost {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let per_request = self.cpu_per_request.as_nanos() * u64::from(shape.requests());
        let cpu = self.cpu_per_step + Span::from_nanos(per_request);
        if shape.tokens() == 0 {
            return Prepared { cpu, ..Prepared::default() };
        }
        let tokens = self.graphs.padded(shape.tokens());
        let (attention_ns, context, longest) = self.kernels.attention.prepare(shape, self.kernels.layers);
        let dense_ns = self.by_tokens_ns[tokens as usize] + self.by_samples_ns[shape.sampled as usize];
        Prepared { fixed_ns: dense_ns + attention_ns, context, longest, cpu }
    }
}
