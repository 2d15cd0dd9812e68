//! CUDA-graph padding (vllm/config/vllm.py, 0.32): a small batch runs in the graph of the next captured size.

/// The largest captured size of most GPUs, tokens; a B200 has 1024.
pub const LARGEST_GRAPH: u32 = 512;

/// The captured batch sizes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaGraphs {
    max: u32,
    max_num_seqs: u32,
}

impl CudaGraphs {
    /// Sizes 1, 2, 4, 8..248 by 8, 256..max by 16, and `max_num_seqs`, where
    /// max = min(2 * max_num_seqs, `largest`, max_num_batched_tokens); `largest` is 512, and 1024 on a B200.
    #[must_use]
    pub fn new(max_num_seqs: u32, max_num_batched_tokens: u32, largest: u32) -> Self {
        Self { max: max_num_seqs.saturating_mul(2).min(largest).min(max_num_batched_tokens), max_num_seqs }
    }

    /// The size at which a step of `tokens` tokens runs: the next captured one, or `tokens` itself above the
    /// largest.
    #[must_use]
    pub fn padded(&self, tokens: u32) -> u32 {
        let next = match tokens {
            0..=2 => tokens,
            3..=4 => 4,
            5..=255 => tokens.next_multiple_of(8),
            _ => tokens.next_multiple_of(16),
        };
        let own = (tokens <= self.max_num_seqs && self.max_num_seqs <= self.max).then_some(self.max_num_seqs);
        match own {
            Some(own) => next.min(own),
            None if next <= self.max => next,
            None => tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_runs_at_the_next_captured_size() {
        let graphs = CudaGraphs::new(1024, 8192, 512);
        let sizes =
            [(1, 1), (3, 4), (5, 8), (9, 16), (248, 248), (249, 256), (257, 272), (512, 512), (513, 513)];
        for (tokens, size) in sizes {
            assert_eq!(graphs.padded(tokens), size, "{tokens} tokens");
        }
        assert_eq!(CudaGraphs::new(1024, 16_384, 1024).padded(1000), 1008, "a B200 captures up to 1024");
    }

    #[test]
    fn max_num_seqs_is_a_size_of_its_own() {
        let graphs = CudaGraphs::new(100, 8192, 512);
        assert_eq!(graphs.padded(98), 100);
        assert_eq!(graphs.padded(101), 104);
        assert_eq!(graphs.padded(201), 201, "above 2 * max_num_seqs nothing is captured");
    }
}
