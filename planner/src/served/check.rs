//! A measured run replayed: every figure as predicted and as measured.

use std::path::Path;

use forerun_reports::document::{Block, Cell, Column, Document, Level, Table};
use forerun_reports::summary::LatencyMs;
use serde_json::{Map, Value, json};

use super::MeasuredFiles;
use super::replay::{Replay, Replays, simulate};
use crate::assemble::assemble;
use crate::error::{Error, InputError};
use crate::markers;
use crate::replicate::{WatchRuns, in_parallel};
use crate::scenario::read::Loaded;
use crate::validate::chart;
use crate::validate::measured::{Figures, Samples, Spread, Times, quantile};

/// Shares at which distributions are told in JSON.
const CDF_POINTS: usize = 100;

/// Measured runs, each with what the simulator says of it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What was simulated, in words.
    pub about: Vec<String>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// The runs.
    pub runs: Vec<CheckedRun>,
}

/// One measured run.
#[derive(Clone, Debug)]
pub struct CheckedRun {
    /// Its name.
    pub name: String,
    /// The tool that measured it.
    pub format: &'static str,
    /// Requests that were answered by the server, and in the simulation.
    pub answered: [u64; 2],
    /// What was measured.
    pub measured: Figures,
    /// What was predicted.
    pub predicted: Figures,
    /// Gaps between the tokens of an answer, measured and predicted, where both are known.
    pub gaps_ms: Option<[Spread; 2]>,
    /// What was assumed.
    pub notes: Vec<String>,
    measured_samples: Option<Samples>,
    predicted_samples: Samples,
}

/// Replays every run of `files` on the server of `loaded`.
///
/// # Errors
/// When a file or the scenario is wrong, or a run is interrupted.
pub fn check(files: &MeasuredFiles, loaded: &Loaded, watch: WatchRuns<'_>) -> Result<Checked, Error> {
    let replays = Replays::new(files.read()?, loaded)?;
    let assembled =
        replays.all.iter().map(|replay| assemble(&replay.loaded)).collect::<Result<Vec<_>, _>>()?;
    let runs = in_parallel(replays.all.len(), watch, |index, progress| {
        let simulated = simulate(&assembled[index], progress)?;
        let times: Vec<Times> = simulated.requests.iter().map(|(_, times)| *times).collect();
        let samples = Samples::new(&times, None);
        Ok(checked(&replays.all[index], samples, &simulated.summary.itl_ms))
    })?;
    let first = assembled.first().ok_or_else(|| InputError::new("there is no measured run"))?;
    // The second line is the workload, which each run has its own of.
    let about = first.about.iter().enumerate().filter(|(line, _)| *line != 1).map(|(_, text)| text.clone());
    Ok(Checked { about: about.collect(), warnings: first.warnings.clone(), runs })
}

fn checked(replay: &Replay, predicted: Samples, gaps: &LatencyMs) -> CheckedRun {
    let run = &replay.run;
    let measured_samples = run.stage.is_none().then(|| Samples::new(&replay.measured(), None));
    let measured = match (&measured_samples, &run.stage) {
        (Some(samples), _) => samples.figures(),
        (None, Some(stage)) => Figures::of_stage(stage, Some(stage.output_tokens)),
        (None, None) => Figures::default(),
    };
    let predicted_gaps = Spread { mean: gaps.mean, p50: gaps.p50, p90: gaps.p90, p99: gaps.p99 };
    let answered = run.stage.map_or(run.requests.len() as u64, |stage| stage.count - run.unanswered);
    CheckedRun {
        name: run.name.clone(),
        format: run.format.name(),
        answered: [answered, predicted.len() as u64],
        measured,
        predicted: predicted.figures(),
        gaps_ms: (!run.gaps_ms.is_empty()).then(|| [Spread::of(&run.gaps_ms), predicted_gaps]),
        notes: replay.notes.clone(),
        measured_samples,
        predicted_samples: predicted,
    }
}

/// A figure by name, as measured and as predicted.
struct Pair {
    name: String,
    measured: f64,
    predicted: Option<f64>,
}

impl Pair {
    /// Predicted over measured, minus one.
    fn error(&self) -> Option<f64> {
        self.predicted.filter(|_| self.measured > 0.0).map(|predicted| predicted / self.measured - 1.0)
    }
}

impl CheckedRun {
    /// Predicted over measured, minus one, of the figure of this name (`E2E mean`, `TTFT p99`, `requests/s`).
    #[must_use]
    pub fn error(&self, figure: &str) -> Option<f64> {
        self.pairs().into_iter().find(|pair| pair.name == figure)?.error()
    }

    /// Every figure that was measured.
    fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (name, measured) in self.measured.entries() {
            let predicted = self.predicted.get(&name);
            pairs.extend(measured.map(|measured| Pair { name, measured, predicted }));
        }
        for (measured, predicted) in self.gaps_ms.iter().map(|[measured, predicted]| (measured, predicted)) {
            let both = measured.entries().into_iter().zip(predicted.entries());
            pairs.extend(both.filter_map(|((statistic, measured), (_, predicted))| {
                Some(Pair { name: format!("ITL {statistic}"), measured: measured?, predicted })
            }));
        }
        pairs
    }

    fn table(&self) -> Table {
        let cell = |name: &str, value: Option<f64>| match name.ends_with("/s") {
            true => Cell::number(value, ""),
            false => Cell::millis(value),
        };
        let row = |pair: &Pair| {
            vec![
                Cell::text(pair.name.as_str()),
                cell(&pair.name, Some(pair.measured)),
                cell(&pair.name, pair.predicted),
                pair.error().map_or(Cell::Missing, Cell::Change),
            ]
        };
        let mut columns = vec![Column::text("")];
        columns.extend(["measured", "predicted", "error"].map(Column::figures));
        Table { title: self.name.clone(), columns, rows: self.pairs().iter().map(row).collect() }
    }

    fn json(&self) -> Value {
        let mut figures = Map::new();
        for pair in self.pairs() {
            let value = json!({
                "measured": pair.measured, "predicted": pair.predicted, "error": pair.error(),
            });
            let (metric, statistic) = pair.name.split_once(' ').unwrap_or((&pair.name, ""));
            match key(metric, statistic) {
                (key, "") => figures.insert(key, value),
                (key, statistic) => {
                    let metric = figures.entry(key).or_insert_with(|| json!({}));
                    metric.as_object_mut().and_then(|metric| metric.insert(statistic.to_owned(), value))
                }
            };
        }
        json!({
            "name": self.name, "format": self.format,
            "requests": {"answered": self.answered[0], "predicted_answered": self.answered[1]},
            "figures": figures, "cdf": self.cdf(), "notes": self.notes,
        })
    }

    /// Both distributions of every metric at equal shares of the requests; null where only percentiles were measured.
    fn cdf(&self) -> Value {
        let Some(measured) = &self.measured_samples else { return Value::Null };
        let predicted = &self.predicted_samples;
        let share: Vec<f64> = (0..=CDF_POINTS).map(|point| point as f64 / CDF_POINTS as f64).collect();
        let at = |sorted: &[f64]| -> Vec<f64> {
            share.iter().filter_map(|&share| quantile(sorted, share)).collect()
        };
        let both = |measured: &[f64], predicted: &[f64]| json!({"measured": at(measured), "predicted": at(predicted)});
        json!({
            "share": share,
            "ttft_ms": both(&measured.ttft_ms, &predicted.ttft_ms),
            "tpot_ms": both(&measured.tpot_ms, &predicted.tpot_ms),
            "e2e_ms": both(&measured.e2e_ms, &predicted.e2e_ms),
        })
    }
}

/// The key of a figure, and its statistic if it is of a distribution.
fn key<'a>(metric: &str, statistic: &'a str) -> (String, &'a str) {
    match (metric, statistic) {
        ("requests/s", _) => ("requests_per_s".into(), ""),
        ("output", _) => ("output_tokens_per_s".into(), ""),
        (metric, statistic) => (format!("{}_ms", metric.to_lowercase()), statistic),
    }
}

impl Checked {
    /// For people.
    #[must_use]
    pub fn document(&self) -> Document {
        let mut about = self.about.iter();
        let title =
            about.next().map_or_else(String::new, |server| format!("Measured and predicted: {server}"));
        let mut blocks = Vec::new();
        for run in &self.runs {
            blocks.push(Block::Table(run.table()));
            let [measured, predicted] = run.answered;
            let mut said = format!("{}: {measured} requests answered", run.format);
            if predicted != measured {
                said += &format!(", {predicted} in the simulation");
            }
            let notes = std::iter::once(said).chain(run.notes.iter().cloned()).collect::<Vec<_>>();
            blocks.push(Block::Text(notes.join("; ")));
        }
        let warnings = self.warnings.iter().cloned();
        blocks.extend(warnings.map(|text| Block::Note { level: Level::Warning, text }));
        Document { title, subtitle: about.map(String::as_str).collect::<Vec<_>>().join("; "), blocks }
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "forerun/check/v1", "about": self.about, "warnings": self.warnings,
            "runs": self.runs.iter().map(CheckedRun::json).collect::<Vec<_>>(),
        })
    }

    /// Draws the distributions of the only run, measured and predicted, into an SVG file.
    ///
    /// # Errors
    /// When there are several runs, or none whose requests are known, or the file cannot be written.
    pub fn draw(&self, path: &Path) -> Result<(), Error> {
        let [run] = self.runs.as_slice() else {
            let why = format!("there are {} runs, and a chart is of one: give one file", self.runs.len());
            return Err(InputError::new(why).into());
        };
        let Some(measured) = &run.measured_samples else {
            let why = format!("{}: only percentiles were measured: there is nothing to draw", run.name);
            return Err(InputError::new(why).into());
        };
        let both = [("measured", measured), ("predicted", &run.predicted_samples)];
        Ok(markers::write(path, &chart::cdfs(&run.name, &both)?)?)
    }
}
