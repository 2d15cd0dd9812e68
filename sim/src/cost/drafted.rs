//! A cost model with a draft that guesses tokens ahead: its passes follow the model's in every step.
//!
//! A draft model and an EAGLE head work alike (vLLM v1/spec_decode/eagle.py): one pass over all tokens of the step, to have
//! their keys and values, which gives the first guess; then one pass over a token of each request for every further
//! guess.

use std::sync::Arc;

use super::{CostModel, Piece, Prepared, StepShape};

/// A model's times and its draft's.
pub struct Drafted {
    model: Arc<dyn CostModel>,
    draft: Arc<dyn CostModel>,
    guesses: u32,
}

impl Drafted {
    /// `model` with a draft that makes so many guesses in every step.
    #[must_use]
    pub fn new(model: Arc<dyn CostModel>, draft: Arc<dyn CostModel>, guesses: u32) -> Self {
        debug_assert!(guesses > 0, "a draft guesses");
        Self { model, draft, guesses }
    }

    /// GPU time of the draft's passes in a step, nanoseconds.
    fn draft_ns(&self, shape: &StepShape) -> f64 {
        let requests = shape.sampled - shape.guesses;
        let first = StepShape { sampled: requests, ..*shape };
        if requests == 0 || self.guesses == 1 {
            return gpu_ns(self.draft.as_ref(), &first);
        }
        // Prompts that are complete are guessed on as decodes are.
        let completed = u64::from(requests.saturating_sub(shape.decodes));
        let mean_prompt = shape.prefill_context / u64::from(shape.prefills.max(1));
        let prompted = if completed > 0 { mean_prompt } else { 0 };
        let next = StepShape {
            decodes: requests,
            decode_context: shape.decode_context + completed * mean_prompt,
            decode_longest: shape.decode_longest.max(prompted),
            sampled: requests,
            ..StepShape::default()
        };
        gpu_ns(self.draft.as_ref(), &first) + f64::from(self.guesses - 1) * gpu_ns(self.draft.as_ref(), &next)
    }
}

impl CostModel for Drafted {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let (context, longest) = (shape.decode_context, shape.decode_longest);
        let prepared = self.model.prepare(shape);
        Prepared {
            fixed_ns: prepared.gpu_ns(context, longest) + self.draft_ns(shape),
            context: Piece::at(context),
            longest: Piece::at(longest),
            cpu: prepared.cpu,
        }
    }
}

fn gpu_ns(cost: &dyn CostModel, shape: &StepShape) -> f64 {
    cost.prepare(shape).gpu_ns(shape.decode_context, shape.decode_longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many ns for a step, 1 ns for each token, 10 ns for each logit, 2 ns for each token of context.
    struct Simple(f64);

    impl CostModel for Simple {
        fn prepare(&self, shape: &StepShape) -> Prepared {
            let work = f64::from(shape.tokens()) + 10.0 * f64::from(shape.sampled);
            Prepared { fixed_ns: self.0 + work, context: Piece::whole(2.0), ..Prepared::default() }
        }
    }

    fn nanos(guesses: u32, shape: &StepShape) -> u64 {
        let drafted = Drafted::new(Arc::new(Simple(1000.0)), Arc::new(Simple(100.0)), guesses);
        drafted.step(shape).gpu.as_nanos()
    }

    #[test]
    fn the_first_pass_sees_all_tokens_and_each_further_one_a_token_of_each_request() {
        let decodes = StepShape {
            decodes: 3,
            decode_context: 100,
            decode_longest: 40,
            sampled: 12,
            guesses: 9,
            ..StepShape::default()
        };
        let model = 1000 + 12 + 120 + 200;
        let first = 100 + 12 + 30 + 200;
        let next = 100 + 3 + 30 + 200;
        assert_eq!(nanos(3, &decodes), model + first + 2 * next);
        assert_eq!(nanos(1, &decodes), model + first);
    }

    #[test]
    fn prompts_pass_through_the_draft_and_complete_ones_are_guessed_on() {
        let chunk =
            StepShape { prefills: 1, prefill_tokens: 50, prefill_context: 80, ..StepShape::default() };
        assert_eq!(nanos(4, &chunk), 1000 + 50 + 100 + 50, "nothing is sampled, nothing guessed");
        let prompt = StepShape { sampled: 1, ..chunk };
        let next = 100 + 1 + 10 + 160;
        assert_eq!(nanos(4, &prompt), 1060 + 160 + 3 * next);
    }
}
