//! How long a step takes: from its few aggregate features, never from its requests one by one.

pub mod closed_form;
pub mod cuda_graphs;

use crate::engine::{CohortShare, Scheduled};
use crate::time::Span;

/// What decides the time of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Requests that compute prompt tokens (or recompute after a preemption).
    pub prefills: u32,
    /// Tokens that they compute.
    pub prefill_tokens: u32,
    /// Query-key pairs of their causal attention: each token attends to all before it and itself.
    pub prefill_pairs: u64,
    /// Tokens whose keys and values they read: history and chunk.
    pub prefill_context: u64,
    /// Requests that extend their output by one token.
    pub decodes: u32,
    /// Tokens whose keys and values they read.
    pub decode_context: u64,
    /// Requests that sample a token.
    pub sampled: u32,
}

impl StepShape {
    /// Adds one request's part of a batch.
    pub fn add(&mut self, part: &Scheduled) {
        let (history, new) = (u64::from(part.computed), u64::from(part.new));
        if part.decode {
            self.decodes += 1;
            self.decode_context += history + new;
        } else {
            self.prefills += 1;
            self.prefill_tokens += part.new;
            self.prefill_pairs += new * history + new * (new + 1) / 2;
            self.prefill_context += history + new;
        }
        self.sampled += u32::from(part.samples);
    }

    /// Adds the decodes that a batch does not list.
    pub fn add_cohort(&mut self, share: CohortShare) {
        self.decodes += share.decodes;
        self.decode_context += share.context;
        self.sampled += share.decodes;
    }

    /// Tokens computed.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.prefill_tokens + self.decodes
    }

    /// Requests in the batch.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.prefills + self.decodes
    }

    /// The same step without its prefills.
    #[must_use]
    pub fn decodes_only(&self) -> Self {
        Self {
            decodes: self.decodes,
            decode_context: self.decode_context,
            sampled: self.decodes,
            ..Self::default()
        }
    }
}

/// Time of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTime {
    /// On the GPU.
    pub gpu: Span,
    /// Scheduling and bookkeeping on the CPU.
    pub cpu: Span,
}

impl StepTime {
    /// The time until the step's result is there. With async scheduling the CPU's share overlaps with the
    /// GPU's, except for the first step after an idle period, when nothing ran to overlap with.
    #[must_use]
    pub fn duration(self, overlapped: bool) -> Span {
        if overlapped { self.gpu.max(self.cpu) } else { self.gpu + self.cpu }
    }
}

/// The time of steps that differ in the context of their decodes alone: prepared once for a batch, asked once for
/// each step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prepared {
    /// GPU time without any decode context, nanoseconds.
    pub fixed_ns: f64,
    /// GPU time for each token of decode context, nanoseconds; not negative.
    pub ns_per_context_token: f64,
    /// CPU time.
    pub cpu: Span,
}

impl Prepared {
    /// Time of a step whose decodes read `decode_context` tokens. Rounded once, to the nearest nanosecond.
    #[must_use]
    pub fn step(&self, decode_context: u64) -> StepTime {
        let gpu_ns = self.fixed_ns + self.ns_per_context_token * decode_context as f64;
        // Adding and taking away 2^52 rounds to a whole number, ties to even: the same everywhere, in two additions.
        const WHOLE: f64 = (1u64 << 52) as f64;
        StepTime { gpu: Span::from_nanos(((gpu_ns + WHOLE) - WHOLE) as u64), cpu: self.cpu }
    }
}

/// Says how long a step takes.
pub trait CostModel: Send + Sync {
    /// The time of a step of this shape, as a function of its decodes' context. More work never takes less time.
    fn prepare(&self, shape: &StepShape) -> Prepared;

    /// The time of a step of this shape.
    fn step(&self, shape: &StepShape) -> StepTime {
        self.prepare(shape).step(shape.decode_context)
    }
}
