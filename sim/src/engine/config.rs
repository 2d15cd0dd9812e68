//! The engine arguments of one replica, by vLLM's own names, and vLLM's defaults for them.

use super::speculation::Speculation;

/// In which order waiting requests are admitted, and whom a preemption hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// First come, first served; the last admitted is preempted.
    Fcfs,
    /// Lower `priority` first, then earlier arrival; the highest (priority, arrival) is preempted.
    Priority,
}

/// Everything that decides what vLLM's scheduler does. Durations are not its business.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Tokens per KV block.
    pub block_size: u32,
    /// KV blocks, the null block included.
    pub num_gpu_blocks: u32,
    /// Token budget of one step.
    pub max_num_batched_tokens: u32,
    /// Most requests in a batch.
    pub max_num_seqs: u32,
    /// Most requests running at once; `max_num_seqs` when absent.
    pub max_num_active_seqs: Option<u32>,
    /// Longest prompt plus output.
    pub max_model_len: u32,
    /// Longest prefill chunk while other requests are there; 0 for no limit.
    pub long_prefill_token_threshold: u32,
    /// Raise that limit to an equal share of the budget when few requests are there.
    pub long_prefill_token_threshold_adaptive: bool,
    /// Order of admission.
    pub policy: Policy,
    /// Admit only what has room for its whole prompt (`scheduler_reserve_full_isl`).
    pub reserve_full_isl: bool,
    /// Share of all blocks kept free when admitting while something runs.
    pub watermark: f64,
    /// Keep and reuse KV blocks of equal prefixes.
    pub prefix_caching: bool,
    /// Split prompts over steps.
    pub chunked_prefill: bool,
    /// Most distinct LoRA adapters in a batch; no limit when absent.
    pub max_loras: Option<u32>,
    /// Form the next batch while this one runs.
    pub async_scheduling: bool,
    /// Most requests waiting before the API server answers 503; no limit when absent.
    pub max_num_queued_reqs: Option<u32>,
    /// Guesses of a draft that a decode verifies beside its own token; none when absent.
    pub speculation: Option<Speculation>,
}

/// What a GPU and its name say about vLLM's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchDefaults {
    /// Default `max_num_batched_tokens`.
    pub max_num_batched_tokens: u32,
    /// Default `max_num_seqs`.
    pub max_num_seqs: u32,
}

/// vLLM's defaults for an OpenAI-compatible server (engine/arg_utils.py `get_batch_defaults`, 0.32):
/// by device memory, with the A100 kept in the small class whatever its memory.
#[must_use]
pub fn batch_defaults(gpu_memory_bytes: u64, is_a100: bool) -> BatchDefaults {
    const GIB: u64 = 1 << 30;
    let (max_num_batched_tokens, max_num_seqs) = match gpu_memory_bytes {
        bytes if bytes >= 160 * GIB => (16_384, 1024),
        bytes if bytes >= 70 * GIB && !is_a100 => (8192, 1024),
        _ => (2048, 256),
    };
    BatchDefaults { max_num_batched_tokens, max_num_seqs }
}

impl BatchDefaults {
    /// The caps that vLLM applies to values that the user did not set: no more tokens than all sequences can
    /// have, no more sequences than tokens.
    #[must_use]
    pub fn capped(self, max_model_len: u32) -> Self {
        let tokens_max = u64::from(self.max_num_seqs) * u64::from(max_model_len);
        let max_num_batched_tokens = u64::from(self.max_num_batched_tokens).min(tokens_max) as u32;
        Self { max_num_batched_tokens, max_num_seqs: self.max_num_seqs.min(max_num_batched_tokens) }
    }
}

impl EngineConfig {
    /// Most requests running at once.
    #[must_use]
    pub fn active_seqs(&self) -> u32 {
        self.max_num_active_seqs.unwrap_or(self.max_num_seqs)
    }

    /// Blocks that the watermark keeps free.
    #[must_use]
    pub fn watermark_blocks(&self) -> u32 {
        (self.watermark * f64::from(self.num_gpu_blocks)) as u32
    }

    /// Tokens that decodes verify beside their own.
    #[must_use]
    pub fn guesses(&self) -> u32 {
        self.speculation.map_or(0, |speculation| speculation.tokens)
    }

    /// Most logits of one step: of every request's token and of those that are verified.
    #[must_use]
    pub fn most_logits(&self) -> u32 {
        self.max_num_seqs.saturating_mul(1 + self.guesses()).min(self.max_num_batched_tokens)
    }

    /// What vLLM refuses at start, or what could never make progress: one sentence with the mend.
    ///
    /// # Errors
    /// When an argument is out of range or two contradict each other.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("block_size", self.block_size),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_active_seqs", self.active_seqs()),
            ("max_model_len", self.max_model_len),
            ("max_loras", self.max_loras.unwrap_or(1)),
            ("max_num_queued_reqs", self.max_num_queued_reqs.unwrap_or(1)),
        ];
        if let Some((name, _)) = positive.iter().find(|&&(_, value)| value == 0) {
            return Err(format!("`{name}` is 0: it must be at least 1"));
        }
        if !(0.0..1.0).contains(&self.watermark) {
            return Err(format!(
                "`watermark` is {}: it is a share of the KV blocks, from 0 up to below 1",
                self.watermark
            ));
        }
        if self.active_seqs() > self.max_num_seqs {
            return Err(format!(
                "`max_num_active_seqs` ({}) is above `max_num_seqs` ({}): lower the one or raise the other",
                self.active_seqs(),
                self.max_num_seqs
            ));
        }
        if self.max_num_batched_tokens < self.max_num_seqs {
            return Err(format!(
                "`max_num_batched_tokens` ({}) is below `max_num_seqs` ({}): a full batch of decodes would not fit a step; raise the one or lower the other",
                self.max_num_batched_tokens, self.max_num_seqs
            ));
        }
        if !self.chunked_prefill && self.max_num_batched_tokens < self.max_model_len {
            return Err(format!(
                "without chunked prefill `max_num_batched_tokens` ({}) must reach `max_model_len` ({}): raise the one, lower the other, or switch `enable_chunked_prefill` on",
                self.max_num_batched_tokens, self.max_model_len
            ));
        }
        if let Some(speculation) = self.speculation {
            speculation.check()?;
            let slots = speculation.draft_slots.saturating_mul(self.max_num_seqs);
            if slots >= self.max_num_batched_tokens {
                return Err(format!(
                    "the draft takes {slots} places of a step, for {} requests, and `max_num_batched_tokens` is {}: nothing would be left; raise it, or lower `max_num_seqs`",
                    self.max_num_seqs, self.max_num_batched_tokens
                ));
            }
        }
        self.check_blocks()
    }

    fn check_blocks(&self) -> Result<(), String> {
        let usable = self.num_gpu_blocks.saturating_sub(1);
        let needed = self.max_model_len.div_ceil(self.block_size);
        if needed > usable {
            let fits = u64::from(usable) * u64::from(self.block_size);
            return Err(if fits == 0 {
                format!("{} KV blocks leave none to use (block 0 is vLLM's null block)", self.num_gpu_blocks)
            } else {
                format!(
                    "the KV cache holds {fits} tokens, fewer than `max_model_len` ({}): vLLM would not start; set `max_model_len` to at most {fits}, or give the model more memory (`tensor_parallel`, `gpu_memory_utilization`)",
                    self.max_model_len
                )
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn server_defaults_follow_memory_with_the_a100_in_the_small_class() {
        let of = |gib, a100| {
            let defaults = batch_defaults(gib * GIB, a100);
            (defaults.max_num_batched_tokens, defaults.max_num_seqs)
        };
        assert_eq!(of(180, false), (16_384, 1024), "B200, MI300X");
        assert_eq!(of(79, false), (8192, 1024), "H100");
        assert_eq!(of(79, true), (2048, 256), "A100-80");
        assert_eq!(of(44, false), (2048, 256), "L40S");
    }

    #[test]
    fn defaults_are_capped_by_what_the_sequences_can_hold() {
        let capped = batch_defaults(79 * GIB, false).capped(4);
        assert_eq!((capped.max_num_batched_tokens, capped.max_num_seqs), (4096, 1024));
    }
}
