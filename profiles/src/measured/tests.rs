use forerun_sim::catalog;
use forerun_sim::cost::StepShape;
use forerun_sim::cost::kernels::{self, Product};
use forerun_sim::cost::{CostModel, closed_form, tables::Limits, tables::TableCost};
use forerun_sim::time::Span;

use super::*;
use crate::profile::{Grids, Op, Profile, SCHEMA};
use crate::project::{Reference, entry, vllm};

/// Products of Llama-3.1-8B on the catalog's H100, as if candle had measured them there.
fn as_if_measured() -> (Vec<TimedOp>, Vec<Sample>) {
    let gpu = catalog::gpu("h100").unwrap();
    let weights = [
        ("qkv_proj", 6144, 4096),
        ("o_proj", 4096, 4096),
        ("gate_up_proj", 28_672, 4096),
        ("down_proj", 4096, 14_336),
        ("lm_head", 128_256, 4096),
    ];
    let mut ops = Vec::new();
    let mut samples = Vec::new();
    for (name, n, k) in weights {
        let place = if name == "lm_head" { Place::Sequence } else { Place::Layer };
        ops.push(TimedOp { op: name.into(), place, times: 1.0, weights: Some([n, k]) });
        for m in [1, 4, 16, 64, 256, 1024, 4096, 16_384] {
            let [tokens, n, k] = [m, n, k].map(f64::from);
            let weights = catalog::WeightType::Bf16;
            let us = kernels::gemm_us(gpu, &Product { tokens, k, n, matrices: 1.0, weights });
            samples.push(Sample {
                op: name.into(),
                at: [m, 0],
                us: vec![us, us * 1.01, us * 40.0],
                held_out: false,
            });
        }
    }
    (ops, samples)
}

#[test]
fn a_typical_time_ignores_outliers() {
    assert_eq!(typical(&[10.0, 11.0, 9.0, 10.5, 400.0]), Some(10.25));
    assert_eq!(typical(&[3.0]), Some(3.0));
    assert_eq!(typical(&[f64::NAN]), None);
    assert_eq!(typical(&[]), None);
}

#[test]
fn ceilings_and_efficiencies_are_found_from_products() {
    let (ops, samples) = as_if_measured();
    let h100 = catalog::gpu("h100").unwrap();
    let ceiling = Ceiling::of(&ops, &samples, 2, h100).unwrap();
    let compute = h100.peak_bf16_flops * h100.gemm.compute_efficiency;
    assert!((ceiling.flops / compute - 1.0).abs() < 0.05, "{ceiling:?}");
    let reached = ceiling.memory_bytes_per_s * ceiling.gemm.bandwidth_efficiency;
    let memory = h100.memory_bytes_per_s * h100.gemm.bandwidth_efficiency;
    assert!((reached / memory - 1.0).abs() < 0.1, "{ceiling:?}");
    assert!(ceiling.gemm_error < 0.03, "{ceiling:?}");
    let none = Ceiling::of(&[], &samples, 2, h100).unwrap_err();
    assert!(none.contains("--budget"), "{none}");
}

#[test]
fn vllm_projected_onto_the_gpu_that_it_was_measured_on_takes_the_times_of_the_catalog() {
    let (ops, samples) = as_if_measured();
    let (h100, model) = (catalog::gpu("h100").unwrap(), catalog::model("llama-3.1-8b").unwrap());
    let ceiling = Ceiling::of(&ops, &samples, 2, h100).unwrap();
    let device = Device {
        kind: "cuda".into(),
        name: "NVIDIA H100 80GB HBM3".into(),
        driver: None,
        memory_bytes: 80 << 30,
        clock: "wall clock".into(),
        threads: 0,
        versions: BTreeMap::new(),
    };
    let reference = Reference::of(Some(h100));
    let gpu = entry("h100", &device, &ceiling, 2, Some(h100), &reference);
    gpu.check().unwrap();
    let tables = vllm(&ops, &samples, &gpu, model, 1, &reference).unwrap();
    assert!(tables.per_layer.iter().any(|op| op.from.as_deref() == Some("measured here")));
    let profile = profile(tables.per_layer, tables.per_step, tables.per_sequence, tables.attention);
    let limits = Limits {
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        max_model_len: 8192,
        cpu_per_step: Span::ZERO,
        cpu_per_request: Span::ZERO,
    };
    let projected = TableCost::new(profile.kernels(h100, model, 1).unwrap(), &limits);
    let catalog = closed_form::ClosedForm::new(&closed_form::ClosedFormInput {
        gpu: h100,
        model,
        tensor_parallel: 1,
        kv_element_bytes: 2,
        max_num_seqs: 256,
        max_num_batched_tokens: 8192,
        data_parallel: 1,
        cpu_per_step: Span::ZERO,
        cpu_per_request: Span::ZERO,
    })
    .unwrap();
    let decodes = StepShape {
        decodes: 64,
        decode_context: 64 * 1000,
        decode_longest: 1000,
        sampled: 64,
        ..StepShape::default()
    };
    let prompt = StepShape {
        prefills: 1,
        prefill_tokens: 2048,
        prefill_pairs: 2048 * 2049 / 2,
        prefill_context: 2048,
        sampled: 1,
        ..StepShape::default()
    };
    for shape in [decodes, prompt] {
        let ratio = projected.step(&shape).gpu.as_secs_f64() / catalog.step(&shape).gpu.as_secs_f64();
        assert!((ratio - 1.0).abs() < 0.06, "{ratio} for {shape:?}");
    }
}

fn profile(per_layer: Vec<Op>, per_step: Vec<Op>, per_sequence: Vec<Op>, attention: Grids) -> Profile {
    Profile {
        schema: SCHEMA.into(),
        time_unit: "us".into(),
        grade: "measured here".into(),
        source: "forerun calibrate run".into(),
        engine: "vLLM".into(),
        gpu: "h100-sxm".into(),
        model: "meta-llama/Llama-3.1-8B".into(),
        tensor_parallel: 1,
        dtype: "bf16".into(),
        kv_cache_dtype: "auto".into(),
        notes: Vec::new(),
        per_layer,
        per_step,
        per_sequence,
        moe: None,
        all_reduce: None,
        attention,
        largest_graph: None,
        device: None,
        measured: None,
    }
}

/// Attention that takes `tokens * (10 + size / 64)`, with one row that was not finished.
fn attention_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for op in [PREFILL_ATTENTION, DECODE_ATTENTION] {
        for (row, columns) in [(1, vec![64, 512]), (16, vec![64, 512]), (32, vec![64])] {
            for column in columns {
                let us = f64::from(row) * (10.0 + f64::from(column) / 64.0);
                samples.push(Sample { op: op.into(), at: [row, column], us: vec![us; 3], held_out: false });
            }
        }
    }
    samples
}

#[test]
fn rows_that_were_not_finished_are_left_out_of_a_grid() {
    let grids = grids(&attention_samples(), "measured here").unwrap();
    assert_eq!((grids.decodes, grids.contexts), (vec![1, 16], vec![64, 512]));
    assert_eq!(grids.prefill_us, [11.0, 18.0, 176.0, 288.0]);
    let why = super::grids(&[], "measured here").unwrap_err();
    assert!(why.contains("prefill attention"), "{why}");
}

#[test]
fn residuals_are_those_of_tables_without_the_sizes_held_out() {
    let mut samples = attention_samples();
    samples.push(Sample { op: DECODE_ATTENTION.into(), at: [8, 64], us: vec![96.0], held_out: true });
    for (m, us, held_out) in [(1, 10.0, false), (3, 30.0, true), (5, 20.0, false)] {
        samples.push(Sample { op: "o_proj".into(), at: [m, 0], us: vec![us], held_out });
    }
    let residuals = residuals(&samples);
    assert_eq!(residuals.len(), 2);
    // Between 11 us for 1 and 176 us for 16 decodes: 88 us for 8, where 96 were measured.
    assert!((residuals[0].median - (1.0 - 88.0 / 96.0)).abs() < 1e-9, "{residuals:?}");
    assert!((residuals[1].median - 0.5).abs() < 1e-9, "{residuals:?}");
}
