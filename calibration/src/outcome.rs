//! From times to a profile: tables, ceilings, and how well the tables predict a real transformer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use candle_core::DType;
use forerun_profiles::measured::{
    Ceiling, Check, Measured, Place, Sample, Step, TimedOp, curves, grids, median, residuals, typical,
};
use forerun_profiles::profile::{Grids, MEASURED_HERE, Op, Profile, SCHEMA};
use forerun_profiles::project::{self, Reference};
use forerun_sim::catalog::{self, Gpu, Model};
use forerun_sim::cost::tables::{Limits, TableCost};
use forerun_sim::cost::{CostModel, StepShape};
use forerun_sim::time::Span;

use crate::args::{Kernels, Subject};
use crate::device::{CANDLE, Target};
use crate::layers::Dimensions;
use crate::plan::{Point, SLOTS, served_tokens};
use crate::rounds::{Timed, samples};
use crate::serving::Traffic;
use crate::transformer::{Chunk, Transformer};

const HERE: &str = "measured here";
/// The share of the budget that a served workload may take.
const SERVING_SHARE: f64 = 0.1;

/// What was measured of what.
pub(crate) struct Measurement<'a> {
    pub(crate) target: &'a Target,
    pub(crate) subject: &'a Subject,
    pub(crate) gpu: &'a str,
    pub(crate) points: &'a [Point],
    pub(crate) timed: &'a Timed,
}

/// candle's kernels as tables.
struct Tables {
    per_layer: Vec<Op>,
    per_step: Vec<Op>,
    per_sequence: Vec<Op>,
    attention: Grids,
}

impl Tables {
    fn of(ops: &[TimedOp], samples: &[Sample]) -> Result<Self, String> {
        Ok(Self {
            per_layer: curves(ops, samples, Place::Layer, HERE)?,
            per_step: curves(ops, samples, Place::Step, HERE)?,
            per_sequence: curves(ops, samples, Place::Sequence, HERE)?,
            attention: grids(samples, HERE)?,
        })
    }

    fn scale(&mut self, factor: f64) {
        let ops = [&mut self.per_layer, &mut self.per_step, &mut self.per_sequence].into_iter().flatten();
        let grids = [&mut self.attention.decode_us, &mut self.attention.prefill_us];
        let all = ops.map(|op| &mut op.us).chain(grids).flatten();
        all.for_each(|us| *us *= factor);
    }
}

/// The profile; serves a workload with `transformer` on the way.
///
/// # Errors
/// When too little was measured, or the device fails.
pub(crate) fn profile(
    measurement: &Measurement<'_>,
    transformer: &Transformer,
    steps: &[Vec<Chunk>],
    budget: Duration,
) -> anyhow::Result<Profile> {
    let Measurement { target, subject, gpu, .. } = *measurement;
    let samples = samples(measurement.points, measurement.timed);
    let mut ops = Dimensions::new(&subject.model, subject.tensor_parallel).ops();
    let element_bytes = u32::try_from(subject.dtype.size_in_bytes())?;
    let template = catalog::gpus().first().context("the catalog has GPUs")?;
    let ceiling = Ceiling::of(&ops, &samples, element_bytes, template).map_err(|why| anyhow!(why))?;
    let reference = Reference::of(subject.known_gpu);
    let device = target.describe();
    let entry = project::entry(gpu, &device, &ceiling, element_bytes, subject.known_gpu, &reference);
    let mut tables = Tables::of(&ops, &samples).map_err(|why| anyhow!(why))?;
    let check = check(measurement, transformer, steps, &mut tables, &entry, budget)?;
    let engine = match subject.kernels {
        Kernels::Candle => format!("candle {CANDLE}"),
        Kernels::Vllm => {
            let projected =
                project::vllm(&ops, &samples, &entry, &subject.model, subject.tensor_parallel, &reference);
            let project::Projected { per_layer, per_step, per_sequence, attention } =
                projected.map_err(|why| anyhow!(why))?;
            tables = Tables { per_layer, per_step, per_sequence, attention };
            "vLLM, projected onto this device".to_owned()
        }
    };
    ops.retain(|op| samples.iter().any(|sample| sample.op == op.op));
    Ok(Profile {
        device: Some(entry),
        measured: Some(Measured {
            device,
            element_bytes,
            ops,
            ceiling,
            residuals: residuals(&samples),
            samples,
            skipped: measurement.timed.skipped.clone(),
            check: Some(check),
        }),
        ..blank(measurement, &tables, &engine)?
    })
}

/// A profile with nothing but its tables; what is left out has the format's defaults.
fn blank(measurement: &Measurement<'_>, tables: &Tables, engine: &str) -> anyhow::Result<Profile> {
    let Measurement { subject, gpu, .. } = *measurement;
    // The simulator knows no weights of 32 bits: their times stand for the model's own 16.
    let (dtype, notes) = match subject.dtype {
        DType::F16 => ("fp16", Vec::new()),
        DType::F32 => ("bf16", vec!["measured with 32 bits, which stand for the model's 16"]),
        _ => ("bf16", Vec::new()),
    };
    let fields = serde_json::json!({
        "schema": SCHEMA,
        "time_unit": "us",
        "grade": MEASURED_HERE,
        "source": "forerun calibrate run",
        "engine": engine,
        "gpu": gpu,
        "model": subject.model.name,
        "tensor_parallel": subject.tensor_parallel,
        "dtype": dtype,
        "notes": notes,
        "per_layer": tables.per_layer,
        "per_step": tables.per_step,
        "per_sequence": tables.per_sequence,
        "moe": null,
        "attention": tables.attention,
        // candle has no CUDA graphs.
        "largest_graph": (subject.kernels == Kernels::Candle).then_some(0),
    });
    serde_json::from_value(fields).context("the tables are a profile")
}

/// Whole steps: a scale for the tables from those not held out, the errors of all. Then requests.
fn check(
    measurement: &Measurement<'_>,
    transformer: &Transformer,
    steps: &[Vec<Chunk>],
    tables: &mut Tables,
    gpu: &Gpu,
    budget: Duration,
) -> anyhow::Result<Check> {
    let Measurement { target, subject, points, timed, .. } = *measurement;
    let shapes: Vec<StepShape> = steps.iter().map(|step| shape(step)).collect();
    // The transformer may have fewer layers than the model.
    let mut model = subject.model.clone();
    model.shape.layers = transformer.layers();
    let as_measured = cost(measurement, tables, gpu, &model)?;
    let mut measured: Vec<(usize, bool, Vec<f64>)> = Vec::new();
    for (point, us) in points.iter().zip(&timed.us) {
        if let crate::bench::Kernel::Step(index) = point.kernel {
            measured.push((index, point.held_out, us.clone()));
        }
    }
    let ratio = |(index, _, us): &(usize, bool, Vec<f64>)| {
        Some(typical(us)? / (as_measured.step(&shapes[*index]).gpu.as_secs_f64() * 1e6))
    };
    let mut ratios: Vec<f64> =
        measured.iter().filter(|(_, held_out, _)| !held_out).filter_map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let scale = median(&ratios).unwrap_or(1.0);
    tables.scale(scale);
    let scaled = cost(measurement, tables, gpu, &model)?;
    let step = |(index, held_out, us): (usize, bool, Vec<f64>)| {
        let (decodes, prefills): (Vec<Chunk>, Vec<Chunk>) =
            steps[index].iter().partition(|chunk| is_decode(chunk));
        Step {
            prefills: prefills.iter().map(|chunk| [chunk.tokens as u32, chunk.past as u32]).collect(),
            decodes: decodes.iter().map(|chunk| chunk.past as u32 + 1).collect(),
            us,
            predicted_us: scaled.step(&shapes[index]).gpu.as_secs_f64() * 1e6,
            held_out,
        }
    };
    let steps = measured.into_iter().filter(|(.., us)| !us.is_empty()).map(step).collect();
    let limit = Span::from_secs_f64(budget.as_secs_f64() * SERVING_SHARE).unwrap_or(Span::ZERO);
    let longest = served_tokens(subject);
    let traffic = Traffic::new(&scaled, longest, (subject.max_tokens / 2).max(1), limit)?;
    let serving = Some(traffic.compare(transformer, target, &scaled)?);
    Ok(Check { layers: transformer.layers(), scale, steps, serving })
}

/// The cost model that the simulator makes of these tables.
fn cost(
    measurement: &Measurement<'_>,
    tables: &Tables,
    gpu: &Gpu,
    model: &Model,
) -> anyhow::Result<Arc<dyn CostModel>> {
    let subject = measurement.subject;
    let profile = Profile { largest_graph: Some(0), tensor_parallel: 1, ..blank(measurement, tables, "")? };
    let kernels = profile.kernels(gpu, model, 1).map_err(|why| anyhow!(why))?;
    let limits = Limits {
        max_num_seqs: subject.max_sequences.max(SLOTS as u32),
        max_num_batched_tokens: subject.max_tokens + SLOTS as u32,
        max_model_len: subject.max_context,
        cpu_per_step: Span::ZERO,
        cpu_per_request: Span::ZERO,
    };
    Ok(Arc::new(TableCost::new(kernels, &limits)))
}

fn is_decode(chunk: &Chunk) -> bool {
    chunk.tokens == 1 && chunk.past > 0
}

/// A step as the simulator sees it.
fn shape(step: &[Chunk]) -> StepShape {
    let mut shape = StepShape::default();
    for chunk in step {
        let (new, past) = (chunk.tokens as u64, chunk.past as u64);
        if is_decode(chunk) {
            shape.decodes += 1;
            shape.decode_context += past + 1;
            shape.decode_longest = shape.decode_longest.max(past + 1);
        } else {
            shape.prefills += 1;
            shape.prefill_tokens += chunk.tokens as u32;
            shape.prefill_pairs += new * past + new * (new + 1) / 2;
            shape.prefill_context += past + new;
        }
        shape.sampled += u32::from(chunk.samples);
    }
    shape
}
