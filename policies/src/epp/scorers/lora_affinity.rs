//! `lora-affinity-scorer`: an endpoint whose batch already runs the adapter is better.

use crate::epp::plugin::{Context, Notes, Scorer};
use crate::epp::state::Metrics;
use forerun_sim::request::Label;

/// 1 when the adapter runs, else 0.8 when a slot is free (running + waiting adapters < max_lora), else 0.6 when it
/// waits, else 0. A pod that never stepped reports no slots and scores 0. No parameters.
/// Source: llm-d-router scorer/loraaffinity.
pub(super) struct LoraAffinity;

impl Scorer for LoraAffinity {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let model = context.request.model;
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = rate(model, &context.endpoint(endpoint).metrics);
        }
    }
}

fn rate(model: Label, metrics: &Metrics) -> f64 {
    let taken = metrics.active_adapters.len() + metrics.waiting_adapters.len();
    if metrics.active_adapters.contains(&model) {
        1.0
    } else if taken < metrics.max_lora as usize {
        0.8
    } else if metrics.waiting_adapters.contains(&model) {
        0.6
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_slot_beats_a_waiting_adapter_and_a_fresh_pod_is_shunned() {
        let (ours, other) = (Label(1), Label(2));
        let cases: [(&[Label], &[Label], u32, f64); 6] = [
            (&[ours], &[], 1, 1.0),
            (&[other], &[], 2, 0.8),
            (&[other], &[ours], 3, 0.8),
            (&[other], &[ours], 2, 0.6),
            (&[other], &[], 1, 0.0),
            (&[], &[], 0, 0.0),
        ];
        for (active, waiting, max_lora, score) in cases {
            let metrics = Metrics {
                max_lora,
                active_adapters: active.to_vec(),
                waiting_adapters: waiting.to_vec(),
                ..Metrics::default()
            };
            assert_eq!(
                rate(ours, &metrics).to_bits(),
                f64::to_bits(score),
                "{active:?} {waiting:?} of {max_lora}"
            );
        }
    }
}
