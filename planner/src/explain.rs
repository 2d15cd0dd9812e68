//! One step's time, op by op: what `forerun explain step` shows.

use std::path::{Path, PathBuf};

use forerun_profiles::profile::Profile;
use forerun_reports::document::{Block, Cell, Column, Document, Table};
use forerun_sim::catalog::{Gpu, Model};
use forerun_sim::cost::closed_form::ClosedForm;
use forerun_sim::cost::kernels::Work;
use forerun_sim::cost::op::Form;
use forerun_sim::cost::tables::Limits;
use forerun_sim::cost::{CostModel as _, StepShape, StepTime};
use forerun_sim::engine::config::EngineConfig;
use serde_json::{Value, json};

use crate::assemble::Hardware;
use crate::engine::{engine_config, limits};
use crate::error::InputError;
use crate::forms;
use crate::profile::{self, ReadProfile, Tables};
use crate::scenario::PoolSpec;
use crate::scenario::read::Loaded;

/// A step to explain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepQuestion {
    /// Prompt tokens that one request computes; 0 for none.
    pub prefill: u32,
    /// Tokens of that prompt that were computed before.
    pub history: u32,
    /// Requests that extend their output by a token.
    pub decode: u32,
    /// Tokens that each of them reads.
    pub kv: u32,
}

/// One step's time, op by op.
#[derive(Debug)]
pub struct Explanation {
    question: StepQuestion,
    gpu: &'static Gpu,
    model: Model,
    tensor_parallel: u32,
    kv_element_bytes: u32,
    padded_tokens: u32,
    overlapped: bool,
    time: StepTime,
    basis: Basis,
    rows: Vec<Row>,
}

/// What gives the step its times.
#[derive(Debug)]
enum Basis {
    /// The catalog's closed forms.
    ClosedForms,
    /// Measured kernels, interpolated.
    Profile {
        path: PathBuf,
        profile: Box<Profile>,
        /// Where the engine may go beyond what was measured.
        beyond: Vec<String>,
    },
}

/// One op of the step; the nanoseconds of all together are exactly the step's.
#[derive(Debug)]
struct Row {
    name: String,
    /// None in a table.
    form: Option<Form>,
    calls: f64,
    work: Work,
    /// Time of one call.
    us: f64,
    nanos: u64,
}

/// A step's time, the tokens that it is computed for, and its ops.
struct Timed {
    time: StepTime,
    padded_tokens: u32,
    rows: Vec<Row>,
}

/// Explains a step on the pool of this name, or on the first one, of a scenario whose workload is of no account.
///
/// # Errors
/// When the scenario describes no replica that could exist, or the step does not fit its engine.
pub fn explain_step(
    loaded: &Loaded,
    pool: Option<&str>,
    question: StepQuestion,
) -> Result<Explanation, InputError> {
    let in_file = |error: InputError| error.at(&loaded.name);
    let scenario = &loaded.scenario;
    let spec = pool_spec(loaded, pool).map_err(in_file)?;
    let hardware = Hardware::new(scenario, &spec, &loaded.base).map_err(in_file)?;
    let args = spec.engine.unwrap_or_default().or(&scenario.engine.clone().unwrap_or_default());
    let engine = engine_config(&args, &hardware).map_err(in_file)?;
    let overhead = scenario.overhead.clone().unwrap_or_default();
    let limits = limits(&engine, &overhead);
    let shape = shape(&question, &engine)?;
    let profile = spec.profile.or_else(|| scenario.profile.clone()).map(|path| loaded.base.join(path));
    let profile = profile.map(|path| ReadProfile::open(&path, &hardware)).transpose().map_err(in_file)?;
    let (basis, Timed { time, padded_tokens, rows }) = match profile {
        Some(ReadProfile::Tables { path }) => {
            by_profile(&path, &hardware, &limits, &shape).map_err(in_file)?
        }
        Some(ReadProfile::Served { .. }) => {
            let why =
                "`profile` is of a live server: leave it out, and the catalog's constants are explained";
            return Err(in_file(InputError::new(why)));
        }
        None => {
            (Basis::ClosedForms, by_closed_forms(&hardware.closed_form(&limits).map_err(in_file)?, &shape))
        }
    };
    Ok(Explanation {
        question,
        padded_tokens,
        overlapped: engine.async_scheduling,
        rows,
        basis,
        time,
        gpu: hardware.gpu,
        model: hardware.model,
        tensor_parallel: hardware.tensor_parallel,
        kv_element_bytes: hardware.kv_element_bytes,
    })
}

fn pool_spec(loaded: &Loaded, name: Option<&str>) -> Result<PoolSpec, InputError> {
    let pools = loaded.scenario.pools.as_deref().unwrap_or_default();
    let Some(name) = name else { return Ok(pools.first().cloned().unwrap_or_default()) };
    let named = pools.iter().find(|pool| pool.name.as_deref() == Some(name));
    named.cloned().ok_or_else(|| {
        let known: Vec<_> = pools.iter().filter_map(|pool| pool.name.as_deref()).collect();
        InputError::new(format!("no pool is called `{name}`; named ones: {}", known.join(", ")))
    })
}

/// The step's shape, if the engine could form it.
fn shape(question: &StepQuestion, engine: &EngineConfig) -> Result<StepShape, InputError> {
    let StepQuestion { prefill, history, decode, kv } = *question;
    let requests = decode.saturating_add(u32::from(prefill > 0));
    let tokens = decode.saturating_add(prefill);
    let checks = [
        ("tokens", tokens, "max_num_batched_tokens", engine.max_num_batched_tokens),
        ("requests", requests, "max_num_seqs", engine.max_num_seqs),
        ("tokens of context", kv, "max_model_len", engine.max_model_len),
        ("tokens of prompt", history.saturating_add(prefill), "max_model_len", engine.max_model_len),
    ];
    if let Some((what, value, limit, max)) = checks.into_iter().find(|(_, value, _, max)| value > max) {
        return Err(InputError::new(format!(
            "the step has {value} {what}, more than `{limit}` ({max}): ask for fewer, or raise the limit"
        )));
    }
    if tokens == 0 {
        return Err(InputError::new("the step computes nothing: give `--prefill`, `--decode` or both"));
    }
    let (new, before) = (u64::from(prefill), u64::from(history));
    Ok(StepShape {
        prefills: u32::from(prefill > 0),
        prefill_tokens: prefill,
        prefill_pairs: new * before + new * (new + 1) / 2,
        prefill_context: if prefill > 0 { before + new } else { 0 },
        prefill_longest: prefill,
        decodes: decode,
        decode_context: u64::from(decode) * u64::from(kv),
        decode_longest: if decode > 0 { u64::from(kv) } else { 0 },
        sampled: requests,
        guesses: 0,
    })
}

fn by_closed_forms(cost: &ClosedForm, shape: &StepShape) -> Timed {
    let time = cost.step(shape);
    let mut rows: Vec<Row> = cost
        .ops(shape)
        .into_iter()
        .map(|op| Row {
            name: op.name.into(),
            form: Some(op.form),
            calls: op.calls,
            work: op.work,
            us: op.us,
            nanos: 0,
        })
        .collect();
    to_the_nanosecond(&mut rows, time);
    Timed { time, padded_tokens: cost.padded_tokens(shape), rows }
}

fn by_profile(
    path: &Path,
    hardware: &Hardware,
    limits: &Limits,
    shape: &StepShape,
) -> Result<(Basis, Timed), InputError> {
    let Tables { profile, cost, beyond } = profile::tables(path, hardware, limits)?;
    let time = cost.step(shape);
    let mut rows: Vec<Row> = cost
        .ops(shape)
        .into_iter()
        .map(|op| Row {
            name: op.name,
            form: None,
            calls: op.calls,
            work: Work::default(),
            us: op.us,
            nanos: 0,
        })
        .collect();
    to_the_nanosecond(&mut rows, time);
    let basis = Basis::Profile { path: path.to_owned(), profile: Box::new(profile), beyond };
    Ok((basis, Timed { time, padded_tokens: cost.padded_tokens(shape), rows }))
}

/// Gives each op its time in whole nanoseconds; together exactly the step's.
fn to_the_nanosecond(rows: &mut [Row], time: StepTime) {
    let last = rows.len().saturating_sub(1);
    let (mut sum_ns, mut before) = (0.0, 0);
    for (index, row) in rows.iter_mut().enumerate() {
        sum_ns += row.calls * row.us * 1e3;
        let until = if index == last { time.gpu.as_nanos() } else { sum_ns.round() as u64 };
        let until = until.max(before);
        row.nanos = until - before;
        before = until;
    }
}

impl Explanation {
    /// For people.
    #[must_use]
    pub fn document(&self) -> Document {
        let StepQuestion { prefill, history, decode, kv } = self.question;
        let split =
            if self.tensor_parallel > 1 { format!(" TP {}", self.tensor_parallel) } else { String::new() };
        let weights = self.model.shape.weights;
        let cache = if self.kv_element_bytes == 1 { "fp8" } else { "16-bit" };
        let padded = match self.padded_tokens {
            padded if padded > prefill + decode => format!(", run as {padded} (CUDA graph)"),
            _ => String::new(),
        };
        let mut blocks = vec![Block::Table(self.op_table())];
        blocks.push(Block::Text(self.total_words()));
        blocks.extend(self.basis_blocks());
        Document {
            title: format!("One step of {} on {}{split}", self.model.name, self.gpu.name),
            subtitle: format!(
                "{prefill} prompt tokens after {history}, {decode} decodes over {kv} tokens each{padded}; weights {} (experts {}), {cache} KV cache; one GPU's share of the work",
                weights.linear, weights.experts
            ),
            blocks,
        }
    }

    /// Where the times come from.
    fn basis_blocks(&self) -> Vec<Block> {
        match &self.basis {
            Basis::ClosedForms => {
                let form = |(name, form): (String, forms::Explained)| {
                    Block::Text(format!(
                        "{name}: {}. {}. Source: {}",
                        form.formula, form.constants, form.source
                    ))
                };
                let mut blocks = vec![Block::Heading("Forms and constants".into())];
                blocks.extend(self.forms().into_iter().map(form));
                blocks.push(Block::Text(format!(
                    "Peaks: {}. Grade: {}.",
                    self.gpu.peak_source, self.gpu.grade
                )));
                blocks
            }
            Basis::Profile { path, profile, beyond } => {
                let mut blocks = vec![Block::Heading("Measured tables".into())];
                blocks.push(Block::Text(format!(
                    "Times are interpolated between those of {}: {}, {}, {} on {} TP {}, {} weights. Grade: {}.",
                    path.display(),
                    profile.source,
                    profile.engine,
                    profile.model,
                    profile.gpu,
                    profile.tensor_parallel,
                    profile.dtype,
                    profile::grade(profile)
                )));
                blocks.extend(profile.notes.iter().chain(beyond).map(|note| Block::Text(note.clone())));
                blocks
            }
        }
    }

    fn total_words(&self) -> String {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let gpu = ms(self.time.gpu.as_nanos());
        let cpu = ms(self.time.cpu.as_nanos());
        let step = ms(self.time.duration(self.overlapped).as_nanos());
        let how = if self.overlapped {
            "the longer of both, because async scheduling overlaps them"
        } else {
            "their sum, without async scheduling"
        };
        format!(
            "GPU {gpu:.6} ms, the sum of the ops. CPU {cpu:.3} ms (scheduling: a time per step and one per request). Step {step:.6} ms: {how}."
        )
    }

    fn op_table(&self) -> Table {
        let total = self.time.gpu.as_nanos().max(1) as f64;
        let row = |op: &Row| {
            let Work { flops, bytes } = op.work;
            let some = |value: f64, unit| Cell::number((value > 0.0).then_some(value), unit);
            vec![
                Cell::text(op.name.as_str()),
                Cell::count(op.calls as u64, ""),
                some(flops / 1e9, ""),
                some(bytes / 1e6, ""),
                Cell::number(Some(op.us), ""),
                Cell::number(Some(op.nanos as f64 / 1e6), ""),
                Cell::share(Some(op.nanos as f64 / total)),
            ]
        };
        let mut columns = vec![Column::text("")];
        columns.extend(["calls", "GFLOP", "MB", "us", "ms in all", "share"].map(Column::figures));
        Table { title: "Ops".into(), columns, rows: self.rows.iter().map(row).collect() }
    }

    /// Each form that an op uses, once, in the order of use.
    fn forms(&self) -> Vec<(String, forms::Explained)> {
        let mut found: Vec<(String, forms::Explained)> = Vec::new();
        for form in self.rows.iter().filter_map(|row| row.form) {
            let name = forms::name(form);
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, forms::explain(self.gpu, form, self.kv_element_bytes)));
            }
        }
        found
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let StepQuestion { prefill, history, decode, kv } = self.question;
        let op = |op: &Row| {
            let measured = op.form.is_none();
            json!({
                "name": op.name, "form": op.form.map(forms::name), "calls": op.calls,
                "flops": (!measured).then_some(op.work.flops), "bytes": (!measured).then_some(op.work.bytes),
                "us": op.us, "total_ns": op.nanos,
            })
        };
        let (grade, profile) = match &self.basis {
            Basis::ClosedForms => (self.gpu.grade.to_string(), Value::Null),
            Basis::Profile { path, profile, beyond } => {
                let about = json!({
                    "path": path.display().to_string(), "source": profile.source, "engine": profile.engine,
                    "dtype": profile.dtype, "kv_cache_dtype": profile.kv_cache_dtype, "notes": profile.notes,
                    "beyond": beyond,
                });
                (profile::grade(profile), about)
            }
        };
        let form = |(name, form): (String, forms::Explained)| json!({"name": name, "formula": form.formula, "constants": form.constants, "source": form.source});
        json!({
            "schema": "forerun/step/v1",
            "step": {"prefill": prefill, "history": history, "decode": decode, "kv": kv, "padded_tokens": self.padded_tokens},
            "model": self.model.name, "gpu": self.gpu.name, "tensor_parallel": self.tensor_parallel,
            "weights": {"linear": self.model.shape.weights.linear.to_string(), "experts": self.model.shape.weights.experts.to_string()},
            "kv_element_bytes": self.kv_element_bytes, "grade": grade, "profile": profile, "peak_source": self.gpu.peak_source,
            "gpu_ns": self.time.gpu.as_nanos(), "cpu_ns": self.time.cpu.as_nanos(),
            "step_ns": self.time.duration(self.overlapped).as_nanos(), "overlapped": self.overlapped,
            "ops": self.rows.iter().map(op).collect::<Vec<_>>(),
            "forms": self.forms().into_iter().map(form).collect::<Vec<_>>(),
        })
    }
}
