//! Laws that every step time keeps, whatever the GPU, the model and the types.

use super::*;
use crate::catalog::{Model, gpu, gpus, model, models};
use proptest::prelude::*;

/// Enough for the largest CUDA graph; larger steps need a table of their own size.
const BUDGET: u32 = 512;

fn input<'a>(gpu: &'a Gpu, model: &'a Model, tensor_parallel: u32) -> ClosedFormInput<'a> {
    ClosedFormInput {
        gpu,
        model,
        tensor_parallel,
        kv_element_bytes: 2,
        max_num_seqs: 256,
        max_num_batched_tokens: BUDGET,
        data_parallel: 1,
        cpu_per_step: CPU_PER_STEP,
        cpu_per_request: CPU_PER_REQUEST,
    }
}

fn cost(gpu_name: &str, model_name: &str, tensor_parallel: u32) -> ClosedForm {
    sized(gpu(gpu_name).unwrap(), model(model_name).unwrap(), tensor_parallel)
}

/// With room for the largest step of these tests.
fn sized(gpu: &Gpu, model: &Model, tensor_parallel: u32) -> ClosedForm {
    ClosedForm::new(&ClosedFormInput { max_num_batched_tokens: 1024, ..input(gpu, model, tensor_parallel) })
        .unwrap()
}

fn decodes(count: u32, context: u64) -> StepShape {
    StepShape {
        decodes: count,
        decode_context: u64::from(count) * context,
        decode_longest: context,
        sampled: count,
        ..StepShape::default()
    }
}

fn prefill(tokens: u32) -> StepShape {
    let n = u64::from(tokens);
    StepShape {
        prefills: 1,
        prefill_tokens: tokens,
        prefill_pairs: n * (n + 1) / 2,
        prefill_context: n,
        prefill_longest: tokens,
        sampled: 1,
        ..StepShape::default()
    }
}

fn mixed(tokens: u32, count: u32, context: u64) -> StepShape {
    let (prefill, decodes) = (prefill(tokens), decodes(count, context));
    StepShape { sampled: count + 1, decodes: count, ..prefill }.with_context(decodes)
}

impl StepShape {
    fn with_context(self, of: Self) -> Self {
        Self { decode_context: of.decode_context, decode_longest: of.decode_longest, ..self }
    }
}

fn gpu_ns(cost: &ClosedForm, shape: &StepShape) -> u64 {
    cost.step(shape).gpu.as_nanos()
}

#[test]
fn a_light_decode_step_is_near_the_measured_inter_token_latency() {
    // Qwen3-14B on one H100 at 2 requests/s: ITL 12.1 ms with about 3 requests in flight (vLLM 0.23).
    let ms = cost("h100", "qwen3-14b", 1).step(&decodes(3, 1060)).gpu.as_millis_f64();
    assert!((ms / 12.1 - 1.0).abs() < 0.1, "{ms} ms");
}

#[test]
fn no_op_beats_the_hardware() {
    for (gpu, model) in gpus().iter().flat_map(|gpu| models().iter().map(move |model| (gpu, model))) {
        let cost = ClosedForm::new(&input(gpu, model, 1)).unwrap();
        for shape in [prefill(8192), decodes(256, 4000), decodes(1, 16), mixed(512, 64, 4000)] {
            for op in cost.ops(&shape) {
                let seconds = op.us / 1e6;
                let peak = match op.form {
                    Form::Gemm(WeightType::Fp8) | Form::Experts(WeightType::Fp8) => gpu.peak_fp8_flops,
                    _ => None,
                };
                let flops = op.work.flops / seconds / peak.unwrap_or(gpu.peak_bf16_flops);
                let in_link = matches!(op.form, Form::AllReduce(_));
                let bytes = if in_link { 0.0 } else { op.work.bytes / seconds / gpu.memory_bytes_per_s };
                // 8-bit times are bounded by those in 16 bits, whose bytes differ.
                assert!(flops <= 1.0 + 1e-9 && bytes <= 1.0 + 1e-9, "{} {} {op:?}", gpu.name, model.name);
            }
        }
    }
}

#[test]
fn a_full_prefill_stays_below_the_peak() {
    // A fitted coefficient of 6.6 times the peak once predicted 41.7 requests/s where a real server did 17.5.
    let (model, gpu) = (model("qwen3-14b").unwrap(), gpu("h100").unwrap());
    let whole = ClosedFormInput { max_num_batched_tokens: 8192, ..input(gpu, model, 1) };
    let seconds = ClosedForm::new(&whole).unwrap().step(&prefill(8192)).gpu.as_secs_f64();
    let embedding = u64::from(model.shape.vocabulary) * u64::from(model.shape.hidden) * 2;
    let flops = 2.0 * 8192.0 * (model.parameters() - embedding) as f64;
    let share = flops / seconds / gpu.peak_bf16_flops;
    assert!((0.5..0.81).contains(&share), "{share}");
}

#[test]
fn a_step_takes_the_sum_of_its_ops() {
    for model in models() {
        for gpu in gpus() {
            let cost = sized(gpu, model, 1);
            let uneven = StepShape { decode_longest: 9000, ..mixed(700, 30, 3000) };
            for shape in [prefill(1), prefill(1000), decodes(7, 100), mixed(512, 64, 4000), uneven] {
                let sum_ns: f64 = cost.ops(&shape).iter().map(|op| op.total_us() * 1e3).sum();
                let step_ns = gpu_ns(&cost, &shape) as f64;
                assert!((sum_ns - step_ns).abs() <= 1.0, "{} {}: {sum_ns} {step_ns}", model.name, gpu.name);
            }
        }
    }
}

#[test]
fn a_mixed_batch_takes_longer_than_its_parts_where_one_kernel_serves_both() {
    // LLMServingSim 2.0's profile of an RTX PRO 6000, Llama-3.1-8B, one layer: a chunk of 1024 tokens 61.1 us, 128
    // decodes at 1024 tokens 404.9 us, together 824.6 us.
    let attention_us = |shape: &StepShape| {
        let cost = cost("rtx-pro-6000", "llama-3.1-8b", 1);
        cost.attention_ops(shape).iter().map(|op| op.us * op.calls / 32.0).sum::<f64>()
    };
    let parts = attention_us(&prefill(1024)) + attention_us(&decodes(128, 1024));
    let together = attention_us(&mixed(1024, 128, 1024));
    assert!((parts / 466.0 - 1.0).abs() < 0.2, "{parts}");
    assert!(together > 1.5 * parts && (together / 824.6 - 1.0).abs() < 0.25, "{together}");
}

#[test]
fn short_chunks_run_in_the_tiles_of_decodes_on_hopper() {
    // Llama-2-7B has a KV head for each query head: chunks of up to 64 tokens; Llama-3.1-8B one for four: up to 16.
    for (name, most) in [("llama-2-7b", 64), ("llama-3.1-8b", 16)] {
        let cost = cost("h100", name, 1);
        let tiles = |tokens| {
            cost.ops(&mixed(tokens, 80, 700)).into_iter().filter(|op| op.form == Form::MixedTiles).count()
        };
        assert_eq!((tiles(most), tiles(most + 1)), (0, 1), "{name}");
    }
    let ampere = cost("a100", "llama-2-7b", 1);
    assert!(ampere.ops(&mixed(1, 80, 700)).iter().any(|op| op.form == Form::MixedTiles));
}

#[test]
fn unequal_lengths_take_longer_than_equal_ones() {
    let cost = cost("h100", "llama-3.1-8b", 1);
    let equal = decodes(64, 2000);
    let unequal = StepShape { decode_longest: 30_000, ..equal };
    assert!(gpu_ns(&cost, &unequal) > gpu_ns(&cost, &equal));
}

#[test]
fn eight_bits_are_never_slower_than_sixteen() {
    for gpu in gpus() {
        let wide = model("llama-3.1-8b").unwrap();
        for weights in [WeightType::Fp8, WeightType::W8a8] {
            let narrow = wide.clone().with_weights(weights);
            let budget = ClosedFormInput { max_num_batched_tokens: 4200, ..input(gpu, wide, 1) };
            let base = ClosedForm::new(&budget).unwrap();
            let narrow = ClosedFormInput { kv_element_bytes: 1, model: &narrow, ..budget };
            let narrow = ClosedForm::new(&narrow).unwrap();
            for tokens in (0..=12).map(|power| 1u32 << power) {
                for shape in
                    [prefill(tokens), decodes(tokens.min(256), 2000), mixed(tokens.min(4096), 64, 500)]
                {
                    let (wide, narrow) = (gpu_ns(&base, &shape), gpu_ns(&narrow, &shape));
                    assert!(narrow <= wide, "{} {weights} {tokens}: {narrow} > {wide}", gpu.name);
                }
            }
        }
    }
}

#[test]
fn four_bit_weights_make_light_decodes_faster() {
    let narrow = model("llama-3.1-70b").unwrap().clone().with_weights(WeightType::W4a16);
    let narrow = ClosedForm::new(&input(gpu("h100").unwrap(), &narrow, 4)).unwrap();
    let shape = decodes(4, 1000);
    assert!(gpu_ns(&narrow, &shape) * 2 < gpu_ns(&cost("h100", "llama-3.1-70b", 4), &shape));
}

#[test]
fn a_sliding_window_bounds_what_long_contexts_cost() {
    let cost = cost("h100", "gpt-oss-20b", 1);
    let per_token =
        |context| gpu_ns(&cost, &decodes(64, context + 1000)) - gpu_ns(&cost, &decodes(64, context));
    let (short, long) = (gpu_ns(&cost, &decodes(64, 128)) - gpu_ns(&cost, &decodes(64, 28)), per_token(5000));
    let (short, long) = (short as f64 / 100.0, long as f64 / 1000.0);
    assert!((short / long - 2.0).abs() < 0.1, "half of the layers see 128 tokens: {short} {long}");
    let last = cost.prepare(&decodes(64, 128));
    assert!(last.covers(64 * 128, 128) && !last.covers(64 * 128 + 1, 129));
}

#[test]
fn a_split_that_does_not_exist_is_refused() {
    for tensor_parallel in [0, 3, 16] {
        let input = input(gpu("h100").unwrap(), model("llama-3.1-8b").unwrap(), tensor_parallel);
        assert!(ClosedForm::new(&input).is_err(), "TP {tensor_parallel}");
    }
}

/// Names of models whose 64 query heads split over 8 GPUs, one of each kind.
const KINDS: [&str; 5] = ["llama-3.1-70b", "qwen3-32b", "gpt-oss-120b", "deepseek-v3", "llama-2-7b"];

fn sum_us(ops: &[Op], of: impl Fn(Form) -> bool) -> f64 {
    ops.iter().filter(|op| of(op.form)).map(Op::total_us).sum()
}

#[test]
fn more_gpus_never_lose_compute_and_never_save_communication() {
    let is_link = |form| matches!(form, Form::AllReduce(_));
    for (gpu, name) in gpus().iter().flat_map(|gpu| KINDS.map(|name| (gpu, name))) {
        for shape in [prefill(4000), decodes(100, 3000), mixed(600, 20, 1000)] {
            let ops = [1, 2, 4, 8]
                .map(|tp| ClosedForm::new(&input(gpu, model(name).unwrap(), tp)).unwrap().ops(&shape));
            for pair in ops.windows(2) {
                let compute = |ops| sum_us(ops, |form| !is_link(form));
                let links = |ops| sum_us(ops, is_link);
                assert!(compute(&pair[1]) <= compute(&pair[0]) * (1.0 + 1e-12), "{} {name}", gpu.name);
                assert!(links(&pair[1]) >= links(&pair[0]), "{} {name}", gpu.name);
            }
        }
    }
}

proptest! {
    #[test]
    fn more_work_never_takes_less_time(
        prefill_tokens in 0u32..700, history in 0u64..20_000, count in 0u32..256, context in 1u64..20_000,
        tp in prop::sample::select(vec![1u32, 2, 4, 8]), name in prop::sample::select(KINDS.to_vec()),
        gpu in prop::sample::select(gpus().iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>()),
    ) {
        let cost = cost(gpu, name, tp);
        let n = u64::from(prefill_tokens);
        let mut shape = decodes(count, context);
        if n > 0 {
            shape.prefills = 1;
            shape.prefill_tokens = prefill_tokens;
            shape.prefill_pairs = n * history + n * (n + 1) / 2;
            shape.prefill_context = history + n;
            shape.prefill_longest = prefill_tokens;
        }
        let base = cost.step(&shape);
        let longer = StepShape {
            decode_context: shape.decode_context + u64::from(count) * 1000,
            decode_longest: shape.decode_longest + 1000,
            ..shape
        };
        let fuller = StepShape {
            decodes: count + 1, decode_context: shape.decode_context + context, decode_longest: context,
            sampled: count + 1, ..shape
        };
        // A piece that ends may cost a nanosecond of rounding.
        let one = Span::from_nanos(1);
        prop_assert!(cost.step(&longer).gpu + one >= base.gpu);
        prop_assert!(cost.step(&fuller).gpu + one >= base.gpu);
        prop_assert!(cost.step(&shape.decodes_only()).gpu <= base.gpu || shape.prefills == 0);
    }

    #[test]
    fn a_slower_gpu_never_makes_a_step_faster(
        prefill_tokens in 0u32..700, count in 1u32..256, context in 1u64..20_000,
        compute in 0.1f64..1.0, memory in 0.1f64..1.0, name in prop::sample::select(KINDS.to_vec()),
        gpu_name in prop::sample::select(gpus().iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>()),
    ) {
        let fast = gpu(gpu_name).unwrap();
        let mut slow = fast.clone();
        slow.peak_bf16_flops *= compute;
        slow.peak_fp8_flops = slow.peak_fp8_flops.map(|peak| peak * compute);
        slow.memory_bytes_per_s *= memory;
        let shape = if prefill_tokens == 0 { decodes(count, context) } else { mixed(prefill_tokens, count, context) };
        let step = |gpu| sized(gpu, model(name).unwrap(), 1).step(&shape).gpu;
        prop_assert!(step(&slow) >= step(fast));
    }
}
