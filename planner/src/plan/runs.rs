//! Runs of candidate fleets, and the file that keeps their figures, so that a plan can be taken up again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use forerun_reports::compare::{Rows, limit_values};
use forerun_reports::statistics::{Batches, Sample};
use forerun_reports::summary::{SloCheck, SloFigures, Summary};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shapes::Shape;
use crate::error::{Error, InputError};
use crate::output::OutputFile;
use crate::scenario::read::read_text;
use crate::trial::{Bench, Setting, holds};
use crate::words::{number, percent};

/// What one run of a fleet showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// Whether every limit on the whole run held.
    pub holds: bool,
    /// The limits, and the figures held against them.
    pub checks: Vec<SloCheck>,
    /// 95th percentile of the time to first token, ms.
    pub ttft_p95_ms: Option<f64>,
    /// 95th percentile of the time per output token, ms.
    pub tpot_p95_ms: Option<f64>,
    /// Share of requests within every limit.
    pub attainment: Option<f64>,
    /// Share of prompt tokens found in a cache.
    pub hit_rate: Option<f64>,
    /// Mean share of the time that replicas are busy.
    pub busy: Option<f64>,
    /// Output tokens per second.
    pub output_tokens_per_s: Option<f64>,
    /// For each of `checks`, how far its margin may be off by the run's windows of time; empty where seeds tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_windows: Vec<Option<WindowError>>,
}

/// How far a figure of one run may be off, by its windows of time ([`Batches`]).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WindowError {
    /// Windows that do not depend on their neighbours, as far as can be seen.
    pub windows: u64,
    /// Standard error of the margin, a share as the margin is.
    pub standard_error: f64,
    /// Whether windows still depend on their neighbours: the error is then too small.
    pub dependent: bool,
}

impl WindowError {
    fn of(check: &SloCheck, values: Vec<f64>) -> Option<Self> {
        let scale = match check.figures {
            SloFigures::Latency { limit_ms, .. } => limit_ms.max(1e-9),
            SloFigures::Share { .. } => 1.0,
        };
        let Batches { values, dependent, .. } = Batches::of(values);
        let error = Sample::of(&values).filter(|sample| sample.count > 1)?.standard_error() / scale;
        Some(Self { windows: values.len() as u64, standard_error: error, dependent })
    }
}

impl Trial {
    fn of(summary: Summary) -> Self {
        let busy: Vec<f64> = summary.replicas.iter().filter_map(|replica| replica.busy_fraction).collect();
        Self {
            holds: holds(&summary),
            ttft_p95_ms: summary.ttft_ms.p95,
            tpot_p95_ms: summary.tpot_ms.p95,
            attainment: summary.goodput.attainment,
            hit_rate: summary.kv.hit_rate,
            busy: (!busy.is_empty()).then(|| busy.iter().sum::<f64>() / busy.len() as f64),
            output_tokens_per_s: summary.throughput.output_tokens_per_s,
            by_windows: Vec::new(),
            checks: summary.slo_checks,
        }
    }

    /// How far inside each limit the run was (outside: negative), as a share of the limit, or of all requests.
    pub(super) fn margins(&self) -> Vec<f64> {
        self.checks.iter().map(margin).collect()
    }

    /// The limit that is missed by most, or met by least, in words.
    pub(super) fn tightest(&self) -> String {
        let tightest = self.checks.iter().min_by(|a, b| margin(a).total_cmp(&margin(b)));
        let Some(check) = tightest else { return "no limit".to_owned() };
        let words = |value: Option<f64>, text: fn(f64) -> String| value.map_or("nothing".to_owned(), text);
        match check.figures {
            SloFigures::Latency { limit_ms, actual_ms } => {
                format!("{} {} of {} ms", check.name, words(actual_ms, number), number(limit_ms))
            }
            SloFigures::Share { limit_share, actual_share } => {
                let share: fn(f64) -> String = |share| format!("{:.1} %", share * 100.0);
                format!("{} {} of {}", check.name, words(actual_share, share), percent(limit_share))
            }
        }
    }
}

fn margin(check: &SloCheck) -> f64 {
    match check.figures {
        SloFigures::Latency { limit_ms, actual_ms } => {
            actual_ms.map_or(-1.0, |actual| (limit_ms - actual) / limit_ms.max(1e-9))
        }
        SloFigures::Share { limit_share, actual_share } => {
            actual_share.map_or(-1.0, |actual| actual - limit_share)
        }
    }
}

/// The kept figures by the scenario and seed that they belong to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    schema: String,
    /// Another version may simulate otherwise.
    version: String,
    runs: BTreeMap<String, Trial>,
}

const SCHEMA: &str = "forerun/plan-runs/v1";

/// Runs of candidates, each once.
pub(super) struct Runs {
    kept: Mutex<Kept>,
    path: Option<PathBuf>,
    /// Tells traffic apart that scenarios of the same text may have: a trace file can change.
    traffic: String,
}

impl Runs {
    /// Runs whose figures are kept at `path`, if there is one.
    ///
    /// # Errors
    /// When the file is there and is none of ours.
    pub(super) fn open(path: Option<&Path>, traffic: String) -> Result<Self, InputError> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let mut kept = Kept { schema: SCHEMA.to_owned(), version: version.clone(), runs: BTreeMap::new() };
        if let Some(path) = path.filter(|path| path.exists()) {
            let text = read_text(path, "file of runs")?;
            let wrong = |why: &str| {
                let mend = "name another file with --resume, or delete this one";
                InputError::new(format!("{}: {why}: {mend}", path.display()))
            };
            let found: Kept = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
            if found.schema != SCHEMA {
                return Err(wrong("is no file of `forerun plan --resume`"));
            }
            if found.version == version {
                kept = found;
            }
        }
        Ok(Self { kept: Mutex::new(kept), path: path.map(Path::to_owned), traffic })
    }

    /// The run of `shape` with so many replicas and this seed.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn run(
        &self,
        bench: &Bench<'_>,
        shape: &Shape,
        replicas: &[u32],
        seed: u64,
    ) -> Result<Trial, Error> {
        self.run_setting(bench, &shape.setting, replicas, seed)
    }

    /// The same with another setting of its fleet.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn run_setting(
        &self,
        bench: &Bench<'_>,
        setting: &Setting,
        replicas: &[u32],
        seed: u64,
    ) -> Result<Trial, Error> {
        let key = self.key(bench, setting, replicas, seed)?;
        self.once(key, || Ok(Trial::of(bench.run(&bench.assemble(setting)?, replicas, seed)?)))
    }

    /// What is kept under `key`, or else what `run` gives, which is kept from now on.
    fn once(&self, key: String, run: impl FnOnce() -> Result<Trial, Error>) -> Result<Trial, Error> {
        if let Some(trial) = self.kept().runs.get(&key) {
            return Ok(trial.clone());
        }
        let trial = run()?;
        self.kept().runs.insert(key, trial.clone());
        Ok(trial)
    }

    /// The only run of recorded traffic, with the errors that its windows of time tell.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn run_in_windows(
        &self,
        bench: &Bench<'_>,
        shape: &Shape,
        replicas: &[u32],
        seed: u64,
    ) -> Result<Trial, Error> {
        let key = format!("windows {}", self.key(bench, &shape.setting, replicas, seed)?);
        self.once(key, || {
            let assembled = bench.assemble(&shape.setting)?;
            let mut rows = Rows::new(assembled.fleet.warm_up, assembled.slo.clone());
            let mut trial = Trial::of(bench.run_watched(&assembled, replicas, seed, &mut rows)?);
            let values = limit_values(&rows).filter(|_| !rows.too_many()).unwrap_or_default();
            let each = trial.checks.iter().zip(values);
            trial.by_windows = each.map(|(check, values)| WindowError::of(check, values?)).collect();
            Ok(trial)
        })
    }

    /// What tells a run from others.
    fn key(
        &self,
        bench: &Bench<'_>,
        setting: &Setting,
        replicas: &[u32],
        seed: u64,
    ) -> Result<String, Error> {
        let scenario = bench.scenario(setting, replicas).scenario;
        let scenario = serde_json::to_string(&scenario).map_err(|e| Error::Internal(e.to_string()))?;
        Ok(format!("{} seed {seed} {:?} {} {scenario}", setting.policy, setting.alteration, self.traffic))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the figures to their file, if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep(&self) -> Result<(), InputError> {
        let Some(path) = &self.path else { return Ok(()) };
        let kept = self.kept();
        let text = serde_json::to_string(&*kept).map_err(|e| InputError::new(e.to_string()))?;
        let mut file = OutputFile::create(path)?;
        let wrong = |e| InputError::new(format!("{}: cannot be written: {e}", path.display()));
        file.write_all(text.as_bytes()).map_err(wrong)?;
        file.finish()
    }
}
