//! What steps take, by the cost model.

use std::sync::Arc;

use crate::cost::{CostModel, Prepared, StepShape, StepTime};
use crate::engine::CohortShare;

/// A cost model, and what it said last of decodes alone.
#[derive(Debug)]
pub(super) struct StepTimer {
    cost: Arc<dyn CostModel>,
    /// The time of a step of so many decodes and nothing else, prepared last.
    prepared: Option<(u32, Prepared)>,
}

impl std::fmt::Debug for dyn CostModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CostModel")
    }
}

impl StepTimer {
    pub(super) fn new(cost: Arc<dyn CostModel>) -> Self {
        Self { cost, prepared: None }
    }

    /// The time of a step.
    pub(super) fn step(&mut self, shape: &StepShape) -> StepTime {
        if shape.requests() == shape.sampled && shape.prefills == 0 {
            let (decodes, context, longest) = (shape.decodes, shape.decode_context, shape.decode_longest);
            self.decodes(CohortShare { decodes, context, longest }).step(context, longest)
        } else {
            self.cost.step(shape)
        }
    }

    /// The time of a step of these decodes and nothing else.
    pub(super) fn decodes(&mut self, share: CohortShare) -> Prepared {
        match self.prepared {
            Some((decodes, prepared))
                if decodes == share.decodes && prepared.covers(share.context, share.longest) =>
            {
                prepared
            }
            _ => {
                let mut shape = StepShape::default();
                shape.add_cohort(share);
                let prepared = self.cost.prepare(&shape);
                self.prepared = Some((share.decodes, prepared));
                prepared
            }
        }
    }
}
