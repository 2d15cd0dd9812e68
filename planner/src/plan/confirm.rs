//! The last word: the cheapest fleets run again on the whole traffic with seeds that no search has seen, one after
//! the other until one holds with the confidence that was asked for.

use std::collections::BTreeSet;

use forerun_reports::statistics::{Difference, Interval, Sample};
use schemars::JsonSchema;
use serde::Serialize;

use super::race::Candidate;
use super::runs::{Runs, Trial, WindowError};
use crate::error::Error;
use crate::trial::Bench;

/// Seeds after which the runs are looked at. Each look has an equal part of the probability of error.
const LOOKS: [usize; 3] = [3, 6, 12];

/// Seeds that the longest look needs.
pub(super) const SEEDS: u32 = 12;

/// A smaller fleet is asked again with other seeds when it missed its limits by no more.
const NEAR: f64 = 0.03;

/// Fleets that are confirmed at most.
const FLEETS_MAX: usize = 24;

/// How sure it is that a fleet holds the SLO.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Confirmation {
    /// Whether every limited figure is shown to be within its limit on average over seeds.
    pub shown: bool,
    /// Confidence that was asked for.
    pub confidence: f64,
    /// Fresh seeds that it took.
    pub seeds: u64,
    /// Runs of these in which every limit held.
    pub seeds_held: u64,
    /// Where the margin of the tightest limit is believed to be, as a share of the limit (of all requests, for shares
    /// of requests); absent for a recorded trace that is too short for windows.
    pub margin: Option<Interval>,
    /// Windows of time that the interval rests on: a recorded trace is the same for every seed.
    pub windows: Option<u64>,
    /// Whether these windows still depend on their neighbours: the interval is then too narrow.
    pub dependent: bool,
}

/// A fleet that was asked again.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The fleet; its trial is that of the first seed.
    pub fleet: Candidate,
    /// What the runs show.
    pub confirmation: Confirmation,
    /// Means over the seeds.
    pub mean: Trial,
}

/// Asks the cheapest of `candidates` again, and larger ones where they do not hold, until one is shown to hold. All
/// that were asked, in their order: the last one holds, unless none does.
///
/// # Errors
/// As those of the simulation.
pub(super) fn confirm(
    bench: &Bench<'_>,
    runs: &Runs,
    candidates: &[Candidate],
    fresh: &[u64],
    confidence: f64,
) -> Result<Vec<Asked>, Error> {
    let mut queue: Vec<Candidate> = candidates.to_vec();
    for candidate in candidates {
        queue.extend(nearly(bench, runs, candidate)?);
    }
    let mut asked: Vec<Asked> = Vec::new();
    let mut seen: BTreeSet<(String, Vec<u32>)> = BTreeSet::new();
    while asked.len() < FLEETS_MAX {
        // Stable: of equals the first stays first.
        queue.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
        if queue.is_empty() {
            break;
        }
        let fleet = queue.remove(0);
        if !seen.insert((fleet.shape.kind(), fleet.replicas.clone())) {
            continue;
        }
        let (confirmation, mean) = ask(bench, runs, &fleet, fresh, confidence)?;
        let shown = confirmation.shown;
        queue.extend(larger(&fleet));
        asked.push(Asked { fleet, confirmation, mean });
        runs.keep()?;
        if shown {
            break;
        }
    }
    Ok(asked)
}

/// Fleets with one replica less that missed by little.
fn nearly(bench: &Bench<'_>, runs: &Runs, sized: &Candidate) -> Result<Vec<Candidate>, Error> {
    let mut near = Vec::new();
    for place in 0..sized.replicas.len() {
        let mut replicas = sized.replicas.clone();
        if replicas[place] < 2 {
            continue;
        }
        replicas[place] -= 1;
        let trial = runs.run(bench, &sized.shape, &replicas, bench.seeds[0])?;
        if trial.margins().iter().all(|margin| *margin > -NEAR) {
            near.push(Candidate { shape: sized.shape.clone(), replicas, trial });
        }
    }
    Ok(near)
}

/// Fleets with one replica more, within stock.
fn larger(sized: &Candidate) -> impl Iterator<Item = Candidate> {
    (0..sized.replicas.len()).filter_map(|place| {
        let mut replicas = sized.replicas.clone();
        replicas[place] += 1;
        let (last, others) = replicas.split_last()?;
        let within = replicas.iter().zip(&sized.shape.space.most).all(|(count, most)| count <= most);
        (within && *last <= sized.shape.range(others).1)
            .then(|| Candidate { replicas: replicas.clone(), ..sized.clone() })
    })
}

/// Runs `fleet` with fresh seeds until they decide.
pub(super) fn ask(
    bench: &Bench<'_>,
    runs: &Runs,
    fleet: &Candidate,
    fresh: &[u64],
    confidence: f64,
) -> Result<(Confirmation, Trial), Error> {
    if fresh.len() < LOOKS[0] {
        return ask_windows(bench, runs, fleet, fresh[0], confidence);
    }
    let mut trials: Vec<Trial> = Vec::new();
    let each_look = (1.0 - confidence) / LOOKS.len() as f64;
    for until in LOOKS {
        let seeds = &fresh[trials.len()..until];
        trials.extend(bench.each_seed(seeds, |seed| runs.run(bench, &fleet.shape, &fleet.replicas, seed))?);
        let verdict = judge(&trials, 1.0 - 2.0 * each_look);
        if verdict.decided || until == LOOKS[LOOKS.len() - 1] {
            let held = trials.iter().filter(|trial| trial.holds).count() as u64;
            let confirmation = Confirmation {
                shown: verdict.shown,
                confidence,
                seeds: trials.len() as u64,
                seeds_held: held,
                margin: verdict.margin,
                windows: None,
                dependent: false,
            };
            return Ok((confirmation, mean(&trials)));
        }
    }
    Err(Error::Internal("no look at the runs was the last".into()))
}

/// A recorded trace is the same for every seed: its windows of time say how far its one run may be off.
fn ask_windows(
    bench: &Bench<'_>,
    runs: &Runs,
    fleet: &Candidate,
    seed: u64,
    confidence: f64,
) -> Result<(Confirmation, Trial), Error> {
    let trial = runs.run_in_windows(bench, &fleet.shape, &fleet.replicas, seed)?;
    let errors = trial.margins().into_iter().zip(&trial.by_windows);
    let intervals = errors.filter_map(|(mean, error)| {
        let WindowError { windows, standard_error, dependent } = (*error)?;
        let degrees_of_freedom = (windows - 1) as f64;
        let margin = Difference { mean, standard_error, degrees_of_freedom, runs: windows as usize };
        Some((margin.interval(1.0 - 2.0 * (1.0 - confidence)), windows, dependent))
    });
    let tightest = intervals.min_by(|(a, ..), (b, ..)| a.low.total_cmp(&b.low));
    let confirmation = Confirmation {
        shown: trial.holds && tightest.is_none_or(|(margin, ..)| margin.low >= 0.0),
        confidence,
        seeds: 1,
        seeds_held: u64::from(trial.holds),
        margin: tightest.map(|(margin, ..)| margin),
        windows: tightest.map(|(_, windows, _)| windows),
        dependent: tightest.is_some_and(|(.., dependent)| dependent),
    };
    Ok((confirmation, trial))
}

struct Judged {
    shown: bool,
    decided: bool,
    margin: Option<Interval>,
}

/// Whether the mean margin of every limit is shown to be positive, or of one to be negative.
fn judge(trials: &[Trial], two_sided: f64) -> Judged {
    let margins: Vec<Vec<f64>> = trials.iter().map(Trial::margins).collect();
    let limits = margins.iter().map(Vec::len).min().unwrap_or(0);
    let intervals = (0..limits).filter_map(|limit| {
        let values: Vec<f64> = margins.iter().map(|margins| margins[limit]).collect();
        Difference::of_pairs(&values).map(|difference| difference.interval(two_sided))
    });
    let intervals: Vec<Interval> = intervals.collect();
    let shown = intervals.iter().all(|interval| interval.low >= 0.0);
    let missed = intervals.iter().any(|interval| interval.high < 0.0);
    let tightest = intervals.into_iter().min_by(|a, b| a.low.total_cmp(&b.low));
    Judged { shown, decided: shown || missed, margin: tightest }
}

/// Means of the figures; limits and whether they hold are the first run's.
fn mean(trials: &[Trial]) -> Trial {
    let of = |figure: fn(&Trial) -> Option<f64>| {
        let values: Vec<f64> = trials.iter().filter_map(figure).collect();
        Sample::of(&values).map(|sample| sample.mean)
    };
    Trial {
        holds: trials.iter().all(|trial| trial.holds),
        checks: trials.first().map(|trial| trial.checks.clone()).unwrap_or_default(),
        ttft_p95_ms: of(|trial| trial.ttft_p95_ms),
        tpot_p95_ms: of(|trial| trial.tpot_p95_ms),
        attainment: of(|trial| trial.attainment),
        hit_rate: of(|trial| trial.hit_rate),
        busy: of(|trial| trial.busy),
        output_tokens_per_s: of(|trial| trial.output_tokens_per_s),
        by_windows: Vec::new(),
    }
}
