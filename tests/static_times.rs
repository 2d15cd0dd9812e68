//! Whole steps against AIConfigurator's static prefill and decode times, composed from the same kernel tables that the
//! catalog's constants were fitted to.

use std::path::Path;

use forerun_sim::catalog::{gpu, model};
use forerun_sim::cost::StepShape;
use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP, ClosedForm, ClosedFormInput};
use forerun_sim::cost::op::Op;
use libtest_mimic::{Failed, Trial};

/// The GPUs held to it: their name there and in the catalog.
const GPUS: [(&str, &str); 4] = [
    ("h100_sxm", "h100-sxm"),
    ("h200_sxm", "h200-sxm"),
    ("a100_sxm", "a100-sxm-80gb"),
    ("b200_sxm", "b200-sxm"),
];

/// The largest mean error accepted, and of a single time.
const ERROR_MEAN_MAX: f64 = 0.08;
const ERROR_MAX: f64 = 0.12;

/// One line of the comparison; times in milliseconds.
struct Row {
    model: String,
    gpu: String,
    tensor_parallel: u32,
    batch: u32,
    input: u32,
    output: u32,
    prefill_ms: f64,
    decode_ms: f64,
}

/// A trial for each GPU, ignored without the folder `shared`.
pub(crate) fn trials(shared: &Path) -> Vec<Trial> {
    let path = shared.join("silicon/aiconfigurator/roofline_vs_aic_static.csv");
    let trial = |(theirs, ours): (&'static str, &'static str)| {
        let ignored = !path.exists();
        let path = path.clone();
        Trial::test(format!("static_times::{ours}"), move || check(&path, theirs, ours))
            .with_ignored_flag(ignored)
    };
    GPUS.into_iter().map(trial).collect()
}

fn check(path: &Path, theirs: &str, ours: &str) -> Result<(), Failed> {
    let text = std::fs::read_to_string(path).map_err(|e| Failed::from(e.to_string()))?;
    let rows: Option<Vec<Row>> = text.lines().skip(1).map(row).collect();
    let rows = rows.ok_or("a line of the comparison is malformed")?;
    let rows: Vec<_> = rows.into_iter().filter(|row| row.gpu == theirs).collect();
    if rows.is_empty() {
        return Err(format!("no times of {theirs}").into());
    }
    for (phase, errors) in [
        ("prefill", rows.iter().map(|row| prefill_ms(row, ours) / row.prefill_ms - 1.0).collect::<Vec<_>>()),
        ("decode", rows.iter().map(|row| decode_ms(row, ours) / row.decode_ms - 1.0).collect()),
    ] {
        let mean = errors.iter().map(|error| error.abs()).sum::<f64>() / errors.len() as f64;
        let most = errors.iter().map(|error| error.abs()).fold(0.0, f64::max);
        println!("{ours} {phase}: mean error {:.1} %, largest {:.1} %", mean * 100.0, most * 100.0);
        if mean > ERROR_MEAN_MAX || most > ERROR_MAX {
            return Err(format!("{ours} {phase}: errors {errors:.3?}").into());
        }
    }
    Ok(())
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<_> = line.split(',').collect();
    let [model, gpu, tp, batch, input, output, prefill, _, _, decode, ..] = cells[..] else { return None };
    Some(Row {
        model: model.to_owned(),
        gpu: gpu.to_owned(),
        tensor_parallel: tp.parse().ok()?,
        batch: batch.parse().ok()?,
        input: input.parse().ok()?,
        output: output.parse().ok()?,
        prefill_ms: prefill.parse().ok()?,
        decode_ms: decode.parse().ok()?,
    })
}

/// All prompts of the batch in one step.
fn prefill_ms(row: &Row, gpu: &str) -> f64 {
    let (batch, input) = (u64::from(row.batch), u64::from(row.input));
    let shape = StepShape {
        prefills: row.batch,
        prefill_tokens: row.batch * row.input,
        prefill_pairs: batch * input * (input + 1) / 2,
        prefill_context: batch * input,
        prefill_longest: row.input,
        sampled: row.batch,
        ..StepShape::default()
    };
    step_ms(row, gpu, &shape)
}

/// The step in the middle of the output.
fn decode_ms(row: &Row, gpu: &str) -> f64 {
    let context = u64::from(row.input + row.output / 2);
    let shape = StepShape {
        decodes: row.batch,
        decode_context: u64::from(row.batch) * context,
        decode_longest: context,
        sampled: row.batch,
        ..StepShape::default()
    };
    step_ms(row, gpu, &shape)
}

fn step_ms(row: &Row, gpu_name: &str, shape: &StepShape) -> f64 {
    let cost = ClosedForm::new(&ClosedFormInput {
        gpu: gpu(gpu_name).expect("in the catalog"),
        model: model(&row.model).expect("in the catalog"),
        tensor_parallel: row.tensor_parallel,
        kv_element_bytes: 2,
        max_num_seqs: 256,
        max_num_batched_tokens: 512,
        data_parallel: 1,
        cpu_per_step: CPU_PER_STEP,
        cpu_per_request: CPU_PER_REQUEST,
    });
    cost.expect("a cost model").ops(shape).iter().map(Op::total_us).sum::<f64>() / 1e3
}
