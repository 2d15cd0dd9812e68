//! What a replica could do at best, by closed form: no fleet below it needs to be simulated.
//!
//! ```text
//! busy = rate * tokens of a request * the least time that the cost model gives a token, over all batches
//! ```
//! for prompt tokens that no cache of any size would hold, and for output tokens, apart. A mixed step takes at least as
//! long as its prefills alone and as its decodes alone, so a replica that does both is busy for the larger of the
//! two, at least. The guess from which the search starts adds them, and lets no batch exceed the limit on TPOT.

use forerun_sim::cost::StepShape;
use forerun_sim::fleet::PoolConfig;
use forerun_workloads::measure::Measures;

/// The bound is for mean lengths: real ones may be a little kinder.
const SLACK: f64 = 0.9;

/// How busy a replica may be on average and still answer in time, for the guess.
const BUSY: f64 = 0.85;

/// The traffic, as far as it decides how much there is to compute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Requests per second, on average.
    pub rate: f64,
    /// The sustained rate as a multiple of it.
    pub peak: f64,
    /// Prompt tokens of a request that nobody asked before.
    pub new_tokens: f64,
    /// Prompt tokens of a request.
    pub prompt_tokens: f64,
    /// Output tokens of a request.
    pub output_tokens: f64,
    /// Limit on the time per output token, in seconds, if there is one.
    pub tpot_s: Option<f64>,
}

impl Load {
    /// The load of measured traffic.
    pub(super) fn of(measures: &Measures, tpot_s: Option<f64>) -> Self {
        let rate = measures.rates.mean_per_s.unwrap_or(0.0);
        let prompt_tokens = measures.input_tokens.mean.unwrap_or(0.0);
        let seen = measures.prefixes.seen_share.unwrap_or(0.0);
        Self {
            rate,
            peak: measures.rates.sustained_per_s.map_or(1.0, |sustained| (sustained / rate).max(1.0)),
            new_tokens: prompt_tokens * (1.0 - seen),
            prompt_tokens,
            output_tokens: measures.output_tokens.mean.unwrap_or(0.0),
            tpot_s,
        }
    }
}

/// Replicas of one kind that the traffic would keep busy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// By its prompts, at least.
    pub prefill: f64,
    /// By its answers, at least.
    pub decode: f64,
    /// By its prompts, about.
    pub prefill_guess: f64,
    /// By its answers, about.
    pub decode_guess: f64,
}

impl Work {
    /// What `load` is for replicas of `pool`.
    pub(super) fn of(load: &Load, pool: &PoolConfig) -> Self {
        let context = load.prompt_tokens + load.output_tokens / 2.0;
        let engine = &pool.engine;
        let kv_tokens = f64::from(engine.num_gpu_blocks) * f64::from(engine.block_size);
        let room = (kv_tokens / context.max(1.0)) as u32;
        let batch = engine.max_num_seqs.min(room).max(1);
        let prefill = load.rate * load.new_tokens * prefill_s(pool, 1.0);
        let prefill_guess = load.rate * load.new_tokens * prefill_s(pool, load.prompt_tokens);
        let decodes = load.rate * (load.output_tokens - 1.0).max(0.0);
        Self {
            prefill: prefill * SLACK,
            decode: decodes * decode_s(pool, batch, context, None) * SLACK,
            prefill_guess: prefill_guess * load.peak / BUSY,
            decode_guess: decodes * decode_s(pool, batch, context, load.tpot_s) * load.peak / BUSY,
        }
    }

    /// Replicas that do both, at least.
    pub(super) fn both(&self) -> f64 {
        self.prefill.max(self.decode)
    }

    /// Replicas that do both, about.
    pub(super) fn both_guess(&self) -> f64 {
        self.prefill_guess + self.decode_guess
    }
}

/// Seconds for a prompt token in the best batch of prefills, each of so many tokens.
fn prefill_s(pool: &PoolConfig, prompt_tokens: f64) -> f64 {
    let budget = pool.engine.max_num_batched_tokens;
    let sizes = (0..8).map(|halvings| budget >> halvings).filter(|&tokens| tokens > 0);
    let each = sizes.map(|tokens| {
        let shape = StepShape {
            prefills: 1,
            prefill_tokens: tokens,
            // On average a token sees half of its prompt.
            prefill_pairs: (f64::from(tokens) * (prompt_tokens / 2.0).max(1.0)) as u64,
            prefill_context: tokens.into(),
            sampled: 1,
            ..StepShape::default()
        };
        pool.cost.step(&shape).duration(true).as_secs_f64() / f64::from(tokens)
    });
    each.fold(f64::INFINITY, f64::min)
}

/// Seconds for an output token in the best batch of up to so many decodes, whose steps keep within `limit_s`.
fn decode_s(pool: &PoolConfig, batch: u32, context: f64, limit_s: Option<f64>) -> f64 {
    let engine = &pool.engine;
    let emitted = engine.speculation.map_or(1.0, |speculation| speculation.mean_emitted());
    let batch = batch.min((engine.max_num_batched_tokens / (1 + engine.guesses())).max(1));
    let mut best = f64::INFINITY;
    let mut decodes = 1;
    loop {
        let guesses = decodes * engine.guesses();
        let shape = StepShape {
            decodes,
            decode_context: (f64::from(decodes) * context) as u64,
            decode_longest: context as u64,
            sampled: decodes + guesses,
            guesses,
            ..StepShape::default()
        };
        let token_s = pool.cost.step(&shape).duration(true).as_secs_f64() / emitted;
        if decodes == 1 || limit_s.is_none_or(|limit| token_s <= limit) {
            best = best.min(token_s / f64::from(decodes));
        }
        if decodes >= batch {
            return best;
        }
        decodes = (decodes + decodes.div_ceil(2)).min(batch);
    }
}
