//! A live server's constants from its measured runs.
//!
//! The forward model is the simulator itself: each run is sent again with its own arrivals and lengths, so that measured
//! and simulated requests correspond one by one. What the runs do not tell is refused by name and left as the catalog has
//! it; what remains is judged on loads that it was not fitted to.

use std::collections::BTreeMap;

use forerun_profiles::profile::MEASURED_HERE;
use forerun_reports::statistics::Difference;
use forerun_workloads::trace::measured::MeasuredRun;

use super::MeasuredFiles;
use super::constants::{Constant, Constants, Prior};
use super::groups::{Group, groups, has_lengths, log_mean};
use super::profile::{FittedConstant, SCHEMA, ServedProfile};
use super::replay::{Replay, Replays, simulate};
use super::solve::{Covariance, Known, Observation, Problem, Scope, Solution};
use super::trust::{self, FIGURES};
use crate::assemble::{Hardware, assemble, assemble_with};
use crate::error::{Error, InputError};
use crate::replicate::{WatchRuns, in_parallel};
use crate::scenario::read::Loaded;
use crate::validate::measured::{Figures, Samples, Times};

/// Confidence of the intervals.
pub(super) const CONFIDENCE: f64 = 0.9;
/// A constant is told by the data when they narrow it to this share of what it was known to before.
const TOLD: f64 = 0.5;
/// Fewer requests tell nothing.
const REQUESTS_MIN: usize = 50;
/// Constants fitted to a live server.
#[derive(Clone, Debug)]
pub struct ServedFit {
    /// What scenarios use of it.
    pub profile: ServedProfile,
    /// Errors of each run: before the fit, fitted, and held out.
    pub runs: Vec<RunErrors>,
    /// What was fitted to, in words.
    pub about: Vec<String>,
}

/// Errors of one run's figures: predicted over measured, minus one; in the order of the judged figures.
#[derive(Clone, Debug)]
pub struct RunErrors {
    /// The run.
    pub name: String,
    /// Requests that were answered.
    pub requests: usize,
    /// With the catalog's constants.
    pub before: Vec<Option<f64>>,
    /// With those fitted to all runs.
    pub fitted: Vec<Option<f64>>,
    /// With those fitted to the other runs or, of a single run, to its other half.
    pub held_out: Vec<Option<f64>>,
}

/// Fits the constants of the server of `loaded` to the runs of `files`.
///
/// # Errors
/// When a file or the scenario is wrong, when the runs tell nothing, or when it is interrupted.
pub fn fit(files: &MeasuredFiles, loaded: &Loaded, watch: WatchRuns<'_>) -> Result<ServedFit, Error> {
    fit_runs(files.read()?, loaded, watch)
}

/// The same of runs that were read.
pub(super) fn fit_runs(
    runs: Vec<MeasuredRun>,
    loaded: &Loaded,
    watch: WatchRuns<'_>,
) -> Result<ServedFit, Error> {
    let replays = Replays::new(runs, loaded)?;
    let server = Server::new(loaded, &replays.all)?;
    let model = Model::new(&replays.all, &server, watch);
    let solved = model.solve()?;
    let runs = model.errors(&solved)?;
    let profile = model.profile(&solved, &runs);
    if profile.constants.is_empty() {
        let why = profile.refused.iter().map(|(constant, why)| format!("{}: {why}", constant.title()));
        let why = why.collect::<Vec<_>>().join("; ");
        return Err(InputError::new(format!("the runs tell no constant of the server. {why}")).into());
    }
    Ok(ServedFit { profile, runs, about: model.about() })
}

/// The one replica that was measured, and what is known of its constants.
struct Server {
    hardware: Hardware,
    priors: Vec<(Constant, Prior)>,
}

impl Server {
    fn new(loaded: &Loaded, replays: &[Replay]) -> Result<Self, InputError> {
        let in_file = |error: InputError| error.at(&loaded.name);
        let scenario = &loaded.scenario;
        let pools = scenario.pools.clone().unwrap_or_default();
        if pools.len() > 1 {
            let why =
                "has several pools: constants are fitted to one server; keep the pool that was measured";
            return Err(in_file(InputError::new(why)));
        }
        let pool = pools.into_iter().next().unwrap_or_default();
        if pool.profile.is_some() || scenario.profile.is_some() || scenario.step_time.is_some() {
            let why =
                "has `profile` or `step_time`: the constants of the closed forms are fitted; remove them";
            return Err(in_file(InputError::new(why)));
        }
        if let Some(replay) = replays.iter().find(|replay| replay.run.stage.is_some()) {
            let why =
                "only percentiles were measured: a fit needs requests one by one; `calibrate check` takes it";
            return Err(InputError::new(format!("{}: {why}", replay.run.name)));
        }
        let requests: usize = replays.iter().map(|replay| replay.run.requests.len()).sum();
        if requests < REQUESTS_MIN {
            let why =
                format!("{requests} requests were answered: at least {REQUESTS_MIN} are needed for a fit");
            return Err(InputError::new(why));
        }
        let hardware = Hardware::new(scenario, &pool, &loaded.base).map_err(in_file)?;
        let args = pool.engine.unwrap_or_default().or(&scenario.engine.clone().unwrap_or_default());
        let blocks = match (args.num_gpu_blocks, replays.first()) {
            (None, Some(replay)) => {
                assemble(&replay.loaded)?.fleet.pools.first().map(|pool| pool.engine.num_gpu_blocks)
            }
            _ => None,
        };
        let overhead = scenario.overhead.clone().unwrap_or_default();
        let placed = hardware.placed();
        let prior = |constant: Constant| Some((constant, constant.prior(&placed, &overhead, blocks)?));
        let priors = Constant::ALL.into_iter().filter_map(prior).collect();
        Ok(Self { hardware, priors })
    }
}

/// What is fitted: observations of all runs, and how they are predicted.
struct Model<'a> {
    replays: &'a [Replay],
    server: &'a Server,
    watch: WatchRuns<'a>,
    /// By run.
    groups: Vec<Vec<Group>>,
    observations: Vec<Observation>,
    /// The run and stretch of each observation.
    places: Vec<(usize, usize)>,
    known: Vec<Known>,
}

/// The constants, and how sure they are.
struct Solved {
    solution: Solution,
    covariance: Covariance,
    scope: Scope,
}

impl<'a> Model<'a> {
    fn new(replays: &'a [Replay], server: &'a Server, watch: WatchRuns<'a>) -> Self {
        let groups: Vec<Vec<Group>> = replays.iter().map(|replay| groups(&replay.run)).collect();
        let (mut observations, mut places, mut clusters) = (Vec::new(), Vec::new(), 0);
        for (run, groups) in groups.iter().enumerate() {
            for group in groups {
                let kind = run * 3 + group.metric as usize;
                observations.push(Observation {
                    log: group.log_mean,
                    count: group.requests.len() as f64,
                    kind,
                    shape: kind * 3 + group.length,
                    cluster: clusters + group.stretch,
                });
                places.push((run, group.stretch));
            }
            clusters += groups.iter().map(|group| group.stretch + 1).max().unwrap_or(0);
        }
        let known = |(_, prior): &(Constant, Prior)| Known {
            mean: libm::log(prior.value),
            deviation: prior.deviation,
            least: libm::log(prior.least),
            most: libm::log(prior.most),
        };
        let known = server.priors.iter().map(known).collect();
        Self { replays, server, watch, groups, observations, places, known }
    }

    fn constants(&self, point: &[f64]) -> Constants {
        self.server
            .priors
            .iter()
            .zip(point)
            .map(|((constant, _), log)| (*constant, libm::exp(*log)))
            .collect()
    }

    /// The times of a run's requests at each of several points.
    fn simulated(&self, tasks: &[(Vec<f64>, usize)]) -> Result<Vec<Vec<Option<Times>>>, Error> {
        in_parallel(tasks.len(), self.watch, |index, progress| {
            let (point, run) = &tasks[index];
            let replay = &self.replays[*run];
            let assembled = assemble_with(&replay.loaded, &self.constants(point))?;
            let mut times = vec![None; replay.run.requests.len()];
            for (place, found) in simulate(&assembled, progress)?.requests {
                if let Some(slot) = usize::try_from(place).ok().and_then(|place| times.get_mut(place)) {
                    *slot = Some(found);
                }
            }
            Ok(times)
        })
    }

    fn predict(&self, points: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, Error> {
        let runs = self.replays.len();
        let tasks: Vec<(Vec<f64>, usize)> =
            points.iter().flat_map(|point| (0..runs).map(move |run| (point.clone(), run))).collect();
        let all = self.simulated(&tasks)?;
        let means = |times: &[Vec<Option<Times>>]| {
            let of_run = |(groups, times): (&Vec<Group>, &Vec<Option<Times>>)| -> Vec<f64> {
                groups.iter().map(|group| log_mean(group.metric, &group.requests, times)).collect()
            };
            self.groups.iter().zip(times).flat_map(of_run).collect()
        };
        Ok(all.chunks(runs).map(means).collect())
    }

    fn defaults(&self) -> Vec<f64> {
        self.known.iter().map(|known| known.mean).collect()
    }

    /// All constants first, to see which are told; then those alone.
    fn solve(&self) -> Result<Solved, Error> {
        let predict = |points: &[Vec<f64>]| self.predict(points);
        let problem = Problem { observations: &self.observations, known: &self.known, predict: &predict };
        let all = Scope { used: vec![true; self.observations.len()], free: vec![true; self.known.len()] };
        let solution = problem.solve(&all, self.defaults(), None)?;
        let covariance = problem.covariance(&solution, &all);
        let told = |(place, known): (usize, &Known)| covariance.deviation(place) <= TOLD * known.deviation;
        let scope = Scope { free: self.known.iter().enumerate().map(told).collect(), ..all };
        let mut start = solution.at.clone();
        for (place, known) in self.known.iter().enumerate().filter(|(place, _)| !scope.free[*place]) {
            start[place] = known.mean;
        }
        let solution = problem.solve(&scope, start, Some(solution.slopes))?;
        // Doubt about the constants that are not told is part of the doubt about the others.
        let covariance = problem.covariance(&solution, &scope);
        Ok(Solved { solution, covariance, scope })
    }

    /// Errors of all runs, before and after, and on what was held out.
    fn errors(&self, solved: &Solved) -> Result<Vec<RunErrors>, Error> {
        let runs = self.replays.len();
        let at = |point: &Vec<f64>| (0..runs).map(|run| (point.clone(), run)).collect::<Vec<_>>();
        let (before, fitted) =
            (self.simulated(&at(&self.defaults()))?, self.simulated(&at(&solved.solution.at))?);
        let held_out = self.held_out(solved)?;
        let all = (0..runs).map(|run| RunErrors {
            name: self.replays[run].run.name.clone(),
            requests: self.replays[run].run.requests.len(),
            before: self.judged(run, &before[run], &|_| true),
            fitted: self.judged(run, &fitted[run], &|_| true),
            held_out: held_out[run].clone(),
        });
        Ok(all.collect())
    }

    /// Each run as predicted by a fit to the others; a single one half by half.
    fn held_out(&self, solved: &Solved) -> Result<Vec<Vec<Option<f64>>>, Error> {
        let predict = |points: &[Vec<f64>]| self.predict(points);
        let problem = Problem { observations: &self.observations, known: &self.known, predict: &predict };
        let fit_without = |left: &dyn Fn((usize, usize)) -> bool| -> Result<Vec<f64>, Error> {
            let used = self.places.iter().map(|place| !left(*place)).collect();
            let scope = Scope { used, free: solved.scope.free.clone() };
            // From the start again: where the whole fit ended, the part left out had a say.
            Ok(problem.solve(&scope, self.defaults(), Some(solved.solution.slopes.clone()))?.at)
        };
        if self.replays.len() > 1 {
            let one = |run: usize| {
                let at = fit_without(&|(other, _)| other == run)?;
                let times = self.simulated(&[(at, run)])?;
                Ok(self.judged(run, &times[0], &|_| true))
            };
            return (0..self.replays.len()).map(one).collect();
        }
        let count = self.replays[0].run.requests.len();
        let stretches = self.groups[0].iter().map(|group| group.stretch + 1).max().unwrap_or(0);
        let mut halves = Vec::new();
        for half in 0..2 {
            let at = fit_without(&|(_, stretch)| usize::from(stretch * 2 >= stretches) == half)?;
            let times = self.simulated(&[(at, 0)])?;
            halves.push(self.judged(0, &times[0], &|place| usize::from(place * 2 >= count) == half));
        }
        // Of the two, the larger error.
        let worse = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
            (Some(a), Some(b)) => Some(if a.abs() > b.abs() { *a } else { *b }),
            (a, b) => a.or(*b),
        };
        Ok(vec![halves[0].iter().zip(&halves[1]).map(worse).collect()])
    }

    /// Errors of the judged figures over those requests of a run that `part` takes.
    fn judged(&self, run: usize, times: &[Option<Times>], part: &dyn Fn(usize) -> bool) -> Vec<Option<f64>> {
        let measured = self.replays[run].measured();
        let both = measured.iter().zip(times).enumerate().filter(|(place, _)| part(*place));
        let (measured, predicted): (Vec<Times>, Vec<Times>) =
            both.filter_map(|(_, (measured, predicted))| Some((*measured, (*predicted)?))).unzip();
        let figures = |times: &[Times]| -> Figures { Samples::new(times, None).figures() };
        let (measured, predicted) = (figures(&measured), figures(&predicted));
        let error = |(name, _): &(&str, &str)| Some(predicted.get(name)? / measured.get(name)? - 1.0);
        FIGURES.iter().map(error).collect()
    }

    fn profile(&self, solved: &Solved, runs: &[RunErrors]) -> ServedProfile {
        let Hardware { gpu, model, tensor_parallel, .. } = &self.server.hardware;
        let (mut constants, mut refused) = (BTreeMap::new(), BTreeMap::new());
        for (place, (constant, prior)) in self.server.priors.iter().enumerate() {
            if solved.scope.free[place] {
                constants.insert(*constant, self.fitted(solved, place, prior));
            } else {
                refused.insert(*constant, self.refusal(solved, place));
            }
        }
        let mut errors = BTreeMap::new();
        for (place, (figure, _)) in FIGURES.iter().enumerate() {
            let of = runs.iter().filter_map(|run| run.held_out[place]);
            let range = of.fold(None, |range: Option<[f64; 2]>, error| {
                let [low, high] = range.unwrap_or([error; 2]);
                Some([low.min(error), high.max(error)])
            });
            errors.extend(range.map(|range| (trust::key(figure), range)));
        }
        ServedProfile {
            schema: SCHEMA.to_owned(),
            grade: MEASURED_HERE.to_owned(),
            source: self.about().join("; "),
            gpu: gpu.name.clone(),
            model: model.name.clone(),
            tensor_parallel: *tensor_parallel,
            dtype: model.shape.weights.linear.to_string(),
            constants,
            refused,
            errors,
            loads: runs.len() as u32,
        }
    }

    fn fitted(&self, solved: &Solved, place: usize, prior: &Prior) -> FittedConstant {
        let Solved { solution, covariance, scope } = solved;
        let free = scope.free.iter().filter(|free| **free).count();
        let log = Difference {
            mean: solution.at[place],
            standard_error: covariance.deviation(place),
            degrees_of_freedom: covariance.clusters.saturating_sub(free).max(1) as f64,
            runs: covariance.clusters,
        };
        let interval = log.interval(CONFIDENCE);
        let bounded = |log: f64| libm::exp(log).clamp(prior.least, prior.most);
        FittedConstant {
            value: bounded(solution.at[place]),
            interval: [bounded(interval.low), bounded(interval.high)],
            before: prior.value,
        }
    }

    /// Why the runs do not tell a constant, and what would.
    fn refusal(&self, solved: &Solved, place: usize) -> String {
        let (constant, prior) = self.server.priors[place];
        let slopes = solved.solution.slopes.iter().map(|row| row[place].abs() * prior.deviation);
        let most = slopes.fold(0.0, f64::max);
        let mend = constant.mend();
        if most < 0.01 {
            let moves = libm::exp(prior.deviation);
            return format!(
                "a factor of {moves:.1} in it would move no mean by more than {:.1} %: {mend}",
                most * 100.0
            );
        }
        let Some((other, correlation)) = solved.covariance.confounded(place).filter(|(_, c)| c.abs() > 0.3)
        else {
            return format!("the scatter of the runs hides it: measure longer, or {mend}");
        };
        let other = self.server.priors[other].0.title();
        format!("cannot be told apart from \"{other}\" (correlation {correlation:+.2}): {mend}")
    }

    /// What was measured, one line for each run.
    fn about(&self) -> Vec<String> {
        let of = |replay: &Replay| {
            let requests = &replay.run.requests;
            let count = requests.len() as f64;
            let span = requests.last().map_or(0.0, |last| last.sent_s);
            let mean = |tokens: &dyn Fn(usize) -> u32| {
                (0..requests.len()).map(|place| f64::from(tokens(place))).sum::<f64>() / count
            };
            let lengths = if has_lengths(&replay.run) { "several lengths" } else { "one length" };
            let rate = if span > 0.0 { format!("{:.2}/s", count / span) } else { "at once".into() };
            format!(
                "{} ({}): {count} requests, {rate}, prompts of {lengths} (mean {:.0} tokens), answers of {:.0}",
                replay.run.name,
                replay.run.format.name(),
                mean(&|place| requests[place].input_tokens),
                mean(&|place| requests[place].output_tokens),
            )
        };
        self.replays.iter().map(of).collect()
    }
}
