use proptest::prelude::*;

use super::*;
use crate::cost::tables::{Curve, Kernel, Kernels, Limits, TableCost};
use crate::cost::{CostModel, StepShape};
use crate::time::Span;

/// A decode costs 1 us and 1 us per 100 tokens of context, a prefill 1 us per token and 1 us per 1000 of history.
fn grids(mixed: bool, skew: Option<Skew>) -> Attention {
    let (decodes, contexts) = (vec![1, 2, 8], vec![16, 100, 200, 1000]);
    let (chunks, histories) = (vec![0, 16, 64], vec![0, 1000, 4000]);
    let decode = |n: u32, kv: u32| f64::from(n) * (1.0 + f64::from(kv) / 100.0);
    let prefill = |c: u32, h: u32| f64::from(c) * (1.0 + f64::from(h) / 1000.0);
    let plane = |rows: &[u32], columns: &[u32], us: &dyn Fn(u32, u32) -> f64| {
        let values = rows.iter().flat_map(|&row| columns.iter().map(move |&column| us(row, column)));
        Plane::new(rows.to_vec(), columns.to_vec(), values.collect()).unwrap()
    };
    let mut us = Vec::new();
    for &c in &chunks {
        for &h in &histories {
            for &n in &decodes {
                us.extend(contexts.iter().map(|&kv| prefill(c, h) + decode(n, kv)));
            }
        }
    }
    let axes = [chunks.clone(), histories.clone(), decodes.clone(), contexts.clone()];
    let solid = mixed.then(|| Solid::new(axes, us).unwrap());
    let decode = plane(&decodes, &contexts, &decode);
    Attention::new(decode, plane(&chunks, &histories, &prefill), solid, skew).unwrap()
}

fn cost(attention: Attention) -> TableCost {
    let rising = Curve::new(vec![1, 64], vec![5.0, 30.0]).unwrap();
    let kernel = |calls, curve| Kernel { name: "mlp".into(), calls, curve };
    let by_tokens = vec![kernel(3.0, rising.clone())];
    let by_samples = vec![kernel(1.0, rising)];
    let kernels = Kernels { by_tokens, by_samples, attention, layers: 2.0, largest_graph: 512 };
    let limits = Limits {
        max_num_seqs: 32,
        max_num_batched_tokens: 256,
        max_model_len: 8000,
        cpu_per_step: Span::ZERO,
        cpu_per_request: Span::ZERO,
    };
    TableCost::new(kernels, &limits)
}

fn step(prefill: (u32, u64), contexts: &[u64]) -> StepShape {
    let (new, history) = prefill;
    let mut shape = StepShape::default();
    if new > 0 {
        let tokens = u64::from(new);
        shape.prefills = 1;
        shape.prefill_tokens = new;
        shape.prefill_pairs = tokens * history + tokens * (tokens + 1) / 2;
        shape.prefill_context = history + tokens;
    }
    shape.decodes = contexts.len() as u32;
    shape.decode_context = contexts.iter().sum();
    shape.decode_longest = contexts.iter().copied().max().unwrap_or(0);
    shape.sampled = shape.decodes;
    shape
}

/// Attention of one layer, microseconds.
fn attention_us(attention: &Attention, shape: &StepShape) -> f64 {
    let (ns, context, longest) = attention.prepare(shape, 1.0);
    (ns + context.ns(shape.decode_context) + longest.ns(shape.decode_longest)) / 1e3
}

#[track_caller]
fn near(us: f64, expected: f64) {
    assert!((us - expected).abs() < 1e-9, "{us} us, expected {expected}");
}

#[test]
fn between_points_of_a_bilinear_function_its_values_are_exact() {
    for mixed in [false, true] {
        let grids = grids(mixed, None);
        near(attention_us(&grids, &step((0, 0), &[150, 150, 150, 150])), 4.0 * 2.5);
        near(attention_us(&grids, &step((32, 2000), &[])), 32.0 * 3.0);
        near(attention_us(&grids, &step((32, 2000), &[700, 700])), 32.0 * 3.0 + 2.0 * 8.0);
    }
}

#[test]
fn beyond_the_grid_the_last_efficiency_is_held() {
    let grids = grids(true, None);
    near(attention_us(&grids, &step((0, 0), &[2000])), 21.0);
    near(attention_us(&grids, &step((0, 0), &[100; 16])), 16.0 * 2.0);
    near(attention_us(&grids, &step((128, 0), &[100; 16])), 128.0 + 16.0 * 2.0);
    near(attention_us(&grids, &step((64, 8000), &[100])), 64.0 * 9.0 + 2.0);
}

#[test]
fn unequal_decodes_take_a_share_of_the_way_to_the_longest() {
    let skew = Skew::new(vec![1, 8], vec![0.25, 0.25], vec![0.5, 0.5]).unwrap();
    let grids = grids(true, Some(skew));
    let shape = step((0, 0), &[100, 300]);
    near(attention_us(&grids, &shape), 2.0 * (3.0 + 0.25 * (4.0 - 3.0)));
    near(attention_us(&grids, &step((16, 0), &[100, 300])), 16.0 + 2.0 * (3.0 + 0.5));
    near(attention_us(&grids, &step((0, 0), &[200, 200])), 6.0);
}

#[test]
fn several_short_prompts_cost_less_than_one_of_their_length() {
    let mut two = step((16, 0), &[]);
    two.prefills = 2;
    two.prefill_tokens = 32;
    two.prefill_pairs *= 2;
    let grids = grids(true, None);
    assert!(attention_us(&grids, &two) < attention_us(&grids, &step((32, 0), &[])));
    assert!(attention_us(&grids, &two) > attention_us(&grids, &step((16, 0), &[])));
}

proptest! {
    #[test]
    fn what_is_prepared_holds_for_its_whole_piece(
        chunk in prop_oneof![Just(0u32), 1..200u32], history in 0..6000u64,
        contexts in prop::collection::vec(1..1500u64, 1..20), alpha in 0.0..1.0f64, mixed: bool,
    ) {
        let skew = Skew::new(vec![1], vec![alpha], vec![alpha / 2.0]).unwrap();
        let cost = cost(grids(mixed, Some(skew)));
        let mut shape = step((chunk, history), &contexts);
        let mut prepared = cost.prepare(&shape);
        let mut before = prepared.step(shape.decode_context, shape.decode_longest).gpu;
        for _ in 0..300 {
            shape.decode_context += u64::from(shape.decodes);
            shape.decode_longest += 1;
            let fresh = cost.prepare(&shape);
            if prepared.covers(shape.decode_context, shape.decode_longest) {
                prop_assert_eq!(fresh, prepared);
            }
            prepared = fresh;
            let gpu = prepared.step(shape.decode_context, shape.decode_longest).gpu;
            prop_assert!(gpu + Span::from_nanos(1) >= before, "{gpu:?} after {before:?}");
            before = gpu;
        }
    }

    #[test]
    fn more_work_never_takes_less_time(
        chunk in 0..200u32, history in 0..6000u64, contexts in prop::collection::vec(1..1500u64, 0..20), mixed: bool,
    ) {
        let cost = cost(grids(mixed, None));
        let gpu = |chunk, history, contexts: &[u64]| cost.step(&step((chunk, history), contexts)).gpu;
        let base = gpu(chunk, history, &contexts);
        prop_assert!(gpu(chunk + 1, history, &contexts) >= base);
        prop_assert!(gpu(chunk, history + 10, &contexts) >= base);
        prop_assert!(gpu(chunk, history, &[&contexts[..], &[500]].concat()) >= base);
    }
}
