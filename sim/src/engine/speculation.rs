//! Speculative decoding: what a step emits when a draft guesses ahead (vLLM 0.32, `num_speculative_tokens`).
//!
//! Each decode computes its last token and the guesses that follow it. Guesses up to the first wrong one stand, and the
//! model adds a token of its own. Not checked against recordings.
//!
//! A guess is right with a given probability, independently of the others (Leviathan, Kalman and Matias, 2023, section
//! 3.1). Whether it is belongs to the token that it stands for: the same request has the same easy and hard tokens in
//! every fleet, so that variants differ by what they do, not by luck.

use crate::prompt::Content;
use crate::rng::Stream;

/// How an engine speculates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speculation {
    /// Guesses for each decode in each step.
    pub tokens: u32,
    /// Probability that a guess is right, given that those before it are.
    pub acceptance: f64,
    /// Tokens beyond those being verified for which the draft needs KV slots, too: vLLM's `num_lookahead_tokens`.
    pub lookahead: u32,
    /// Places of a step's token budget that the draft takes for each request: vLLM's `max_num_new_slots_for_drafting`.
    pub draft_slots: u32,
    /// Seed of what is right.
    pub seed: u64,
}

/// Most guesses: beyond, hardly any is right.
pub const TOKENS_MAX: u32 = 64;

impl Speculation {
    /// What is out of range: one sentence with the mend.
    ///
    /// # Errors
    /// When something is.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=TOKENS_MAX).contains(&self.tokens) {
            return Err(format!(
                "`speculative.tokens` is {}: a draft guesses from 1 to {TOKENS_MAX} tokens",
                self.tokens
            ));
        }
        if !(0.0..=1.0).contains(&self.acceptance) {
            return Err(format!(
                "`speculative.acceptance` is {}: it is a probability, from 0 to 1",
                self.acceptance
            ));
        }
        Ok(())
    }

    /// Tokens that a decode emits in a step, on average: `1 + a + a^2 + ... + a^k`, as long as its answer goes on
    /// (Leviathan et al., equation 1).
    #[must_use]
    pub fn mean_emitted(&self) -> f64 {
        (0..self.tokens).fold(1.0, |sum, _| 1.0 + self.acceptance * sum)
    }
}

/// Says which guesses are right.
#[derive(Clone, Debug)]
pub(super) struct Verdicts {
    acceptance: f64,
    stream: Stream,
}

impl Verdicts {
    pub(super) fn new(speculation: &Speculation) -> Self {
        Self { acceptance: speculation.acceptance, stream: Stream::new(speculation.seed, "speculation") }
    }

    /// How many of `guesses` stand, the first of them for token number `place` of `answer`.
    pub(super) fn accepted(&mut self, answer: Content, place: u32, guesses: u32) -> u32 {
        self.stream.seek(answer.bits(), place.into());
        (0..guesses).take_while(|_| self.stream.uniform() < self.acceptance).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speculation(tokens: u32, acceptance: f64) -> Speculation {
        Speculation { tokens, acceptance, lookahead: tokens, draft_slots: 0, seed: 1 }
    }

    /// The lengths of the steps in which an answer is emitted.
    fn steps(speculation: Speculation, answer: u64, length: u32) -> Vec<u32> {
        let mut verdicts = Verdicts::new(&speculation);
        let (mut steps, mut emitted) = (Vec::new(), 0);
        while emitted < length {
            let stand = verdicts.accepted(Content::generated(answer), emitted, speculation.tokens);
            steps.push(1 + stand);
            emitted += 1 + stand;
        }
        steps
    }

    #[test]
    fn the_mean_is_a_geometric_sum() {
        assert!((speculation(3, 0.7).mean_emitted() - (1.0 + 0.7 + 0.49 + 0.343)).abs() < 1e-12);
        assert!((speculation(5, 0.0).mean_emitted() - 1.0).abs() < 1e-12);
        assert!((speculation(5, 1.0).mean_emitted() - 6.0).abs() < 1e-12);
    }

    #[test]
    fn steps_have_that_mean_and_stay_in_range() {
        for (tokens, acceptance) in [(1, 0.6), (4, 0.8), (7, 0.3)] {
            let speculation = speculation(tokens, acceptance);
            let steps: Vec<_> = (0..200).flat_map(|answer| steps(speculation, answer, 500)).collect();
            assert!(steps.iter().all(|step| (1..=1 + tokens).contains(step)));
            let mean = steps.iter().sum::<u32>() as f64 / steps.len() as f64;
            let expected = speculation.mean_emitted();
            assert!((mean - expected).abs() < 0.02 * expected, "{mean}, expected {expected}");
        }
    }

    #[test]
    fn a_guess_is_right_or_wrong_whoever_asks_and_in_whatever_order() {
        let mut verdicts = Verdicts::new(&speculation(8, 0.7));
        let answer = Content::generated(3);
        let ahead = verdicts.accepted(answer, 10, 8);
        verdicts.accepted(Content::generated(4), 90, 8);
        assert_eq!(verdicts.accepted(answer, 10, 8), ahead);
        assert_eq!(verdicts.accepted(answer, 10, 2), ahead.min(2));
        assert!(
            ahead == 0 || verdicts.accepted(answer, 11, 7) == ahead - 1,
            "the guess of each token is its own"
        );
    }

    #[test]
    fn certain_guesses_all_stand_and_hopeless_ones_never() {
        assert_eq!(steps(speculation(3, 1.0), 1, 8), [4, 4]);
        assert_eq!(steps(speculation(3, 0.0), 1, 3), [1, 1, 1]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(speculation(0, 0.5).check().is_err() && speculation(65, 0.5).check().is_err());
        assert!(speculation(3, 1.5).check().is_err() && speculation(3, f64::NAN).check().is_err());
        assert_eq!(speculation(3, 0.5).check(), Ok(()));
    }
}
