//! The ops of a step, each with its work and its time: what the closed forms add up, and what can be explained.

use crate::catalog::WeightType;
use crate::cost::kernels::Work;

/// One op of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Op {
    /// What it is.
    pub name: &'static str,
    /// The form by which it is timed.
    pub form: Form,
    /// How often it runs in a step: the number of layers, or once.
    pub calls: f64,
    /// Work of one call on one GPU.
    pub work: Work,
    /// Time of one call, microseconds.
    pub us: f64,
}

impl Op {
    /// Time of all its calls, microseconds.
    #[must_use]
    pub fn total_us(&self) -> f64 {
        self.calls * self.us
    }
}

/// The form by which an op is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A matrix multiplication with weights of this type.
    Gemm(WeightType),
    /// The routed experts' multiplications: the weights of those that are touched are read.
    Experts(WeightType),
    /// A pass over activations.
    Elementwise,
    /// Attention of prefill chunks.
    PrefillAttention,
    /// Decode attention: what does not depend on the context.
    DecodeBase,
    /// Decode attention: reading the KV cache.
    DecodeRead,
    /// What decode attention takes longer because lengths differ.
    DecodeSkew,
    /// Decodes that fill tiles of the prefill kernel.
    MixedTiles,
    /// An all-reduce over this many GPUs.
    AllReduce(u32),
    /// The sampler.
    Sampler,
}
