//! A cost model whose GPU times are scaled: calibration by hand, or a question of sensitivity.

use std::sync::Arc;

use super::{CostModel, Piece, Prepared, StepShape};

/// Another model's GPU times, with a factor on what decodes take and one on what prefills add to it.
pub struct Scaled {
    inner: Arc<dyn CostModel>,
    decode: f64,
    prefill: f64,
}

impl Scaled {
    /// `inner` with these factors, both above 0.
    #[must_use]
    pub fn new(inner: Arc<dyn CostModel>, decode: f64, prefill: f64) -> Self {
        debug_assert!(decode > 0.0 && prefill > 0.0, "steps take time");
        Self { inner, decode, prefill }
    }
}

impl CostModel for Scaled {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let prepared = self.inner.prepare(shape);
        let scaled = |piece: Piece| Piece { ns_per_token: piece.ns_per_token * self.decode, ..piece };
        if shape.prefills == 0 {
            return Prepared {
                fixed_ns: prepared.fixed_ns * self.decode,
                context: scaled(prepared.context),
                longest: scaled(prepared.longest),
                cpu: prepared.cpu,
            };
        }
        let (context, longest) = (shape.decode_context, shape.decode_longest);
        let decodes = match shape.decodes {
            0 => 0.0,
            _ => self.inner.prepare(&shape.decodes_only()).gpu_ns(context, longest),
        };
        let added = (prepared.gpu_ns(context, longest) - decodes).max(0.0);
        Prepared {
            fixed_ns: decodes * self.decode + added * self.prefill,
            context: Piece::at(context),
            longest: Piece::at(longest),
            cpu: prepared.cpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 ns, 2 ns for each token of context, 5 ns for each prompt token.
    struct Simple;

    impl CostModel for Simple {
        fn prepare(&self, shape: &StepShape) -> Prepared {
            let fixed_ns = 1000.0 + 5.0 * f64::from(shape.prefill_tokens);
            Prepared { fixed_ns, context: Piece::whole(2.0), ..Prepared::default() }
        }
    }

    #[test]
    fn decodes_and_what_prefills_add_have_factors_of_their_own() {
        let scaled = Scaled::new(Arc::new(Simple), 1.5, 2.0);
        let decodes = StepShape {
            decodes: 3,
            decode_context: 100,
            decode_longest: 40,
            sampled: 3,
            ..Default::default()
        };
        let mixed = StepShape { prefills: 1, prefill_tokens: 10, ..decodes };
        let prefill = StepShape { prefills: 1, prefill_tokens: 10, ..Default::default() };
        let nanos = |shape: &StepShape| scaled.step(shape).gpu.as_nanos();
        assert_eq!(nanos(&decodes), 1800, "1.5 * (1000 + 200)");
        assert_eq!(nanos(&mixed), 1900, "1.5 * 1200 + 2 * 50");
        assert_eq!(nanos(&prefill), 2100, "2 * (1000 + 50)");
    }
}
