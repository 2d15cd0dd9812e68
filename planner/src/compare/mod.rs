//! Variants on the same traffic: is one of them better, by how much, and is the difference real?
//!
//! Every variant is run with the same seeds, so that all see the same requests (common random numbers), which is
//! checked. A workload that is generated is replicated; a recorded one is the same for every seed, so that one run of
//! each variant is cut into windows of time instead. What follows from the runs is decided in
//! [`forerun_reports::compare`].

mod traffic;
mod variants;

use std::time::Instant;

use forerun_reports::compare::{
    Comparison, MethodKind, Observed, ROWS_MAX, Rows, Settings, VariantRuns, WindowValues, compare as judge,
    window_values,
};
use forerun_reports::summary::Summary;
use forerun_sim::observer::Observer;
use forerun_sim::request::{Labels, Outcome, Request};

use crate::assemble::{Assembled, REPLICATIONS_MAX, assemble};
use crate::decision::{Explained, explain_request};
use crate::error::{Error, InputError};
use crate::replicate::{WatchRuns, in_parallel, seeds};
use crate::simulate::run_once;
use traffic::{Sent, traffic};

pub use variants::{Candidate, VariantNames, candidates, router_override};

/// Replications when nobody says.
const REPLICATIONS: u32 = 10;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the uncertainty comes from; by default windows for recorded workloads and single runs.
    pub kind: Option<MethodKind>,
    /// Differences within this share of the baseline's figure count as none.
    pub margin: f64,
}

/// Variants that are known to be right.
#[derive(Debug)]
pub struct Plan {
    variants: Vec<(Candidate, Assembled)>,
    kind: MethodKind,
    seeds: Vec<u64>,
    margin: f64,
}

/// One run of one variant.
struct Run {
    summary: Summary,
    sent: Sent,
    rows: Option<Rows>,
}

/// Watches what was sent, and every request where windows are wanted.
struct Watcher {
    sent: Sent,
    rows: Option<Rows>,
}

impl Observer for Watcher {
    fn arrived(&mut self, request: &Request) {
        self.sent.arrived(request);
    }

    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        if let Some(rows) = &mut self.rows {
            rows.ended(outcome, labels);
        }
    }
}

impl Plan {
    /// Assembles the variants. The first is the baseline: its seed and replications hold for all.
    ///
    /// # Errors
    /// When a variant could not be run, or the margin is no share.
    pub fn new(candidates: Vec<Candidate>, options: Options) -> Result<Self, InputError> {
        if !(0.0..1.0).contains(&options.margin) {
            return Err(InputError::new(format!(
                "--margin {}: it is a share of the baseline's figure, from 0 up to below 1; write for example 0.01",
                options.margin
            )));
        }
        let assembled = candidates.into_iter().map(|candidate| {
            let assembled =
                assemble(&candidate.loaded).map_err(|e| e.at(&format!("variant {}", candidate.name)))?;
            Ok((candidate, assembled))
        });
        let variants = assembled.collect::<Result<Vec<_>, InputError>>()?;
        let first = variants.first().ok_or_else(|| InputError::new("nothing to compare"))?;
        let first = &first.1;
        let recorded = variants.iter().all(|(_, assembled)| assembled.workload.is_recorded());
        let single = first.replications == Some(1);
        let kind = options.kind.unwrap_or(match recorded || single {
            true => MethodKind::Windows,
            false => MethodKind::Replications,
        });
        let count = match kind {
            MethodKind::Windows => 1,
            MethodKind::Replications => first.replications.unwrap_or(REPLICATIONS),
        };
        debug_assert!(count <= REPLICATIONS_MAX);
        let seeds = seeds(first.seed, count);
        Ok(Self { variants, kind, seeds, margin: options.margin })
    }

    /// About how many requests all runs have together, if that can be foreseen.
    #[must_use]
    pub fn requests(&self) -> Option<u64> {
        let requests: Option<u64> =
            self.variants.iter().map(|(_, assembled)| assembled.workload.requests).sum();
        requests.map(|requests| requests * self.seeds.len() as u64)
    }

    /// Runs every variant with every seed, in parallel.
    ///
    /// # Errors
    /// When a workload turns out wrong, a run is too long to be cut into windows, or `watch` breaks.
    pub fn run(self, watch: WatchRuns<'_>) -> Result<Comparison, Error> {
        let started = Instant::now();
        let each = self.seeds.len();
        let runs = in_parallel(self.variants.len() * each, watch, |index, progress| {
            let (_, assembled) = &self.variants[index / each];
            let windows = self.kind == MethodKind::Windows;
            let rows = windows.then(|| Rows::new(assembled.fleet.warm_up, assembled.slo.clone()));
            let mut watcher = Watcher { sent: Sent::default(), rows };
            let summary = run_once(assembled, self.seeds[index % each], None, &mut watcher, progress)?;
            Ok(Run { summary, sent: watcher.sent, rows: watcher.rows })
        })?;
        let mut runs = runs.into_iter();
        let by_variant: Vec<Vec<Run>> =
            self.variants.iter().map(|_| runs.by_ref().take(each).collect()).collect();
        Ok(self.judge(by_variant, started.elapsed().as_secs_f64())?)
    }

    /// The decision of each variant on the request `id`, in the run of the baseline's seed.
    ///
    /// # Errors
    /// When a variant's router is no endpoint picker, no such request is sent, or as those of a run.
    pub fn explain(self, id: &str, watch: WatchRuns<'_>) -> Result<Vec<(String, Explained)>, Error> {
        let explained = in_parallel(self.variants.len(), watch, |index, progress| {
            explain_request(&self.variants[index].1, self.seeds[0], id, progress)
        })?;
        let names = self.variants.into_iter().map(|(candidate, _)| candidate.name);
        Ok(names.zip(explained).collect())
    }

    fn judge(&self, runs: Vec<Vec<Run>>, wall_s: f64) -> Result<Comparison, InputError> {
        let sent: Vec<Vec<Sent>> =
            runs.iter().map(|runs| runs.iter().map(|run| run.sent).collect()).collect();
        let first = &self.variants[0].0.loaded.scenario.workload;
        let same_workload = self.variants.iter().all(|(c, _)| c.loaded.scenario.workload == *first);
        let traffic = traffic(&sent, same_workload);
        let mut warnings = self.warnings(&runs);
        let mut windows: Vec<Option<WindowValues>> = vec![None; runs.len()];
        let (mut summaries, mut rows) = (Vec::new(), Vec::new());
        for runs in runs {
            let (own, kept): (Vec<Summary>, Vec<Option<Rows>>) =
                runs.into_iter().map(|run| (run.summary, run.rows)).unzip();
            summaries.push(own);
            rows.extend(kept.into_iter().flatten());
        }
        if self.kind == MethodKind::Windows {
            if rows.iter().any(Rows::too_many) {
                return Err(InputError::new(format!(
                    "a run has more than {ROWS_MAX} requests, too many to be cut into windows: compare a part of it \
                     with `workload.duration` or `workload.requests`"
                )));
            }
            match window_values(&rows) {
                Some(values) => windows = values.into_iter().map(Some).collect(),
                None => warnings.push(
                    "too few requests, or all at once: a run cannot be cut into windows, so that no difference has an \
                     interval"
                        .into(),
                ),
            }
        }
        let named = self.variants.iter().zip(summaries).zip(windows);
        let variants = named.map(|(((candidate, _), summaries), windows)| VariantRuns {
            name: candidate.name.clone(),
            summaries,
            windows,
        });
        let observed = Observed { variants: variants.collect(), traffic, warnings, wall_s: Some(wall_s) };
        Ok(judge(observed, Settings { kind: self.kind, margin: self.margin }))
    }

    /// The warnings of all runs, each once, with the variants that they are about unless that is all of them.
    fn warnings(&self, runs: &[Vec<Run>]) -> Vec<String> {
        let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
        for ((candidate, _), runs) in self.variants.iter().zip(runs) {
            for warning in runs.iter().flat_map(|run| &run.summary.warnings) {
                match found.iter_mut().find(|(text, _)| text == warning) {
                    Some((_, names)) if names.last() != Some(&candidate.name.as_str()) => {
                        names.push(&candidate.name);
                    }
                    Some(_) => {}
                    None => found.push((warning, vec![&candidate.name])),
                }
            }
        }
        let words = found.into_iter().map(|(text, names)| match names.len() == self.variants.len() {
            true => text.to_owned(),
            false => format!("{}: {text}", names.join(", ")),
        });
        words.collect()
    }
}

#[cfg(test)]
mod tests;
