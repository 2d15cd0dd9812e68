//! How long a step takes: from its few aggregate features, never from its requests one by one.

pub mod closed_form;
pub mod cuda_graphs;
mod dimensions;
pub mod drafted;
pub mod kernels;
mod layer;
pub mod op;
pub mod scaled;
pub mod tables;

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
    /// Tokens of the longest chunk.
    pub prefill_longest: u32,
    /// Requests that extend their output by one token.
    pub decodes: u32,
    /// Tokens whose keys and values they read.
    pub decode_context: u64,
    /// Of those, the tokens of the longest: a batch of unequal lengths takes longer than one of equal ones.
    pub decode_longest: u64,
    /// Tokens whose logits are computed: one of each request that samples a token, and every guess.
    pub sampled: u32,
    /// Guesses that decodes verify in addition to their own token: they attend to the same keys and values.
    pub guesses: u32,
}

impl StepShape {
    /// Adds one request's part of a batch.
    pub fn add(&mut self, part: &Scheduled) {
        let (history, new) = (u64::from(part.computed), u64::from(part.new));
        if part.decode {
            self.decodes += 1;
            self.decode_context += history + new;
            self.decode_longest = self.decode_longest.max(history + new);
        } else {
            self.prefills += 1;
            self.prefill_tokens += part.new - part.guesses;
            self.prefill_pairs += new * history + new * (new + 1) / 2;
            self.prefill_context += history + new;
            self.prefill_longest = self.prefill_longest.max(part.new);
        }
        self.sampled += u32::from(part.samples) + part.guesses;
        self.guesses += part.guesses;
    }

    /// Adds the decodes that a batch does not list.
    pub fn add_cohort(&mut self, share: CohortShare) {
        self.decodes += share.decodes;
        self.decode_context += share.context;
        self.decode_longest = self.decode_longest.max(share.longest);
        self.sampled += share.decodes;
    }

    /// Tokens computed.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.prefill_tokens + self.decodes + self.guesses
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
            decode_longest: self.decode_longest,
            sampled: self.decodes + self.guesses,
            guesses: self.guesses,
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

/// A piece of a piecewise-linear, non-decreasing function of a number of tokens: what it adds to its value at
/// `from`, for `from` to `until` tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Piece {
    /// First number of tokens of the piece.
    pub from: u64,
    /// Last one.
    pub until: u64,
    /// Nanoseconds for each token beyond `from`; not negative.
    pub ns_per_token: f64,
}

impl Piece {
    /// A function of one piece.
    #[must_use]
    pub const fn whole(ns_per_token: f64) -> Self {
        Self { from: 0, until: u64::MAX, ns_per_token }
    }

    /// A function known at one place only.
    const fn at(tokens: u64) -> Self {
        Self { from: tokens, until: tokens, ns_per_token: 0.0 }
    }

    fn covers(&self, tokens: u64) -> bool {
        (self.from..=self.until).contains(&tokens)
    }

    fn ns(&self, tokens: u64) -> f64 {
        // Token counts are far below 2^63: as signed numbers they convert in one instruction.
        self.ns_per_token * (tokens - self.from) as i64 as f64
    }
}

impl Default for Piece {
    /// A function that is zero.
    fn default() -> Self {
        Self::whole(0.0)
    }
}

/// The time of steps that differ in the context of their decodes alone: prepared once for a batch, asked once for
/// each step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prepared {
    /// GPU time at the beginning of both pieces, nanoseconds.
    pub fixed_ns: f64,
    /// By the context of all decodes.
    pub context: Piece,
    /// By the context of the longest decode.
    pub longest: Piece,
    /// CPU time.
    pub cpu: Span,
}

impl Prepared {
    /// Whether it holds for a step with these [`decode_context`](StepShape::decode_context) and
    /// [`decode_longest`](StepShape::decode_longest).
    #[must_use]
    pub fn covers(&self, decode_context: u64, decode_longest: u64) -> bool {
        self.context.covers(decode_context) && self.longest.covers(decode_longest)
    }

    /// How many steps in a row it covers, from one with this share that it covers on, if nothing but the lengths of
    /// the decodes changes.
    #[must_use]
    pub fn steps(&self, share: CohortShare) -> u64 {
        debug_assert!(self.covers(share.context, share.longest), "prepared for another piece");
        let by_context = (self.context.until - share.context) / u64::from(share.decodes).max(1);
        by_context.min(self.longest.until - share.longest).saturating_add(1)
    }

    /// The times of steps in a row, from one with this share that it covers on, in which nothing but the lengths of
    /// the decodes changes; `overlapped` as in [`StepTime::duration`]. Bit for bit those of [`step`](Self::step).
    #[must_use]
    pub fn line(&self, share: CohortShare, overlapped: bool) -> DecodeLine {
        let (add, least) = if overlapped { (Span::ZERO, self.cpu) } else { (self.cpu, Span::ZERO) };
        DecodeLine {
            fixed_ns: self.fixed_ns,
            by_context: (self.context.ns_per_token, (share.context - self.context.from) as f64),
            by_longest: (self.longest.ns_per_token, (share.longest - self.longest.from) as f64),
            decodes: f64::from(share.decodes),
            add,
            least: least.max(Span::from_nanos(1)),
        }
    }

    fn gpu_ns(&self, decode_context: u64, decode_longest: u64) -> f64 {
        debug_assert!(self.covers(decode_context, decode_longest), "prepared for another piece");
        self.fixed_ns + self.context.ns(decode_context) + self.longest.ns(decode_longest)
    }

    /// Time of a step that it [covers](Self::covers). Rounded once, to the nearest nanosecond.
    #[must_use]
    pub fn step(&self, decode_context: u64, decode_longest: u64) -> StepTime {
        StepTime { gpu: rounded(self.gpu_ns(decode_context, decode_longest)), cpu: self.cpu }
    }
}

/// To the nearest nanosecond.
#[inline]
fn rounded(ns: f64) -> Span {
    // Adding 2^52 rounds to a whole number, ties to even, the same everywhere: it is what remains in the mantissa.
    const WHOLE: f64 = (1u64 << 52) as f64;
    let whole = ns + WHOLE;
    Span::from_nanos(if whole < 2.0 * WHOLE { whole.to_bits() - WHOLE.to_bits() } else { whole_already(ns) })
}

/// Out of the way: a step of 52 days.
#[cold]
fn whole_already(ns: f64) -> u64 {
    ns as u64
}

/// The times of steps in which every decode gains one token. Tokens are whole numbers below 2^53, so that counting them
/// as floats is exact.
#[derive(Clone, Copy, Debug)]
pub struct DecodeLine {
    fixed_ns: f64,
    /// Nanoseconds for each token of context, and those tokens in the next step; so for the longest decode.
    by_context: (f64, f64),
    by_longest: (f64, f64),
    decodes: f64,
    /// What comes on top of the GPU's time, and what a step takes at least.
    add: Span,
    least: Span,
}

impl DecodeLine {
    /// How long the next step takes; the one after it is the next then.
    #[inline]
    pub fn next_span(&mut self) -> Span {
        let ns =
            self.fixed_ns + self.by_context.0 * self.by_context.1 + self.by_longest.0 * self.by_longest.1;
        self.by_context.1 += self.decodes;
        self.by_longest.1 += 1.0;
        (rounded(ns) + self.add).max(self.least)
    }
}

/// Says how long a step takes.
///
/// More work never takes less time, up to one nanosecond of rounding where a piece ends. All shapes that one piece
/// covers get the same [`Prepared`], bit by bit: how a step was come to does not change its time.
pub trait CostModel: Send + Sync {
    /// The time of steps of this shape and of those with other contexts of their decodes that the result covers.
    fn prepare(&self, shape: &StepShape) -> Prepared;

    /// The time of a step of this shape.
    fn step(&self, shape: &StepShape) -> StepTime {
        self.prepare(shape).step(shape.decode_context, shape.decode_longest)
    }
}
