//! Trial runs: a scenario's traffic on other fleets, always the same requests for the same seed. `advise` and `plan`
//! ask them.
//!
//! | step | file |
//! |---|---|
//! | one way to serve the traffic | `setting` |
//! | routing policies, and the files that configure them | `policy` |
//! | the cheapest fleet, the largest factor | `search` |
//! | longer answers, less sharing | `altered` |
//! | the traffic and its SLO, completed | `question` |
//! | how wrong step times may be | `model_error` |

mod altered;
mod model_error;
mod policy;
mod question;
mod search;
mod setting;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use forerun_reports::summary::Summary;
use forerun_sim::observer::Observer;
use forerun_sim::time::Span;
use forerun_workloads::open::Workload;
use forerun_workloads::units::Duration;

use crate::assemble::Assembled;
use crate::error::Error;
use crate::replicate::{RunsProgress, WatchRuns, in_parallel};
use crate::scenario::read::Loaded;
use crate::simulate::{Progress, run_once};
pub use altered::Alteration;
pub(crate) use altered::Altered;
pub(crate) use model_error::StepTimes;
pub(crate) use policy::Policy;
pub(crate) use question::{check_open, complete_slo, slo_words};
pub(crate) use search::{Space, largest};
use setting::differs;
pub(crate) use setting::{Part, Setting, could_exist, host_memory};

/// Share of a trial's requests that warm it up.
pub(crate) const WARM_UP: f64 = 0.2;

/// Traffic is searched up to so many times the given one, and down to as small a part of it.
pub(crate) const TRAFFIC_MAX: f64 = 64.0;

/// Told how far a run is; breaking stops it.
type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// The smallest fleet that holds the SLO.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    /// Replicas of each kind.
    pub replicas: Vec<u32>,
    /// The run with so many.
    pub summary: Summary,
}

impl Size {
    /// Replicas of all kinds.
    pub(crate) fn total(&self) -> u32 {
        self.replicas.iter().sum()
    }
}

/// The traffic that trials are given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Requests per second that the scenario's traffic is made with: multiples of it are asked for.
    pub rate: f64,
    /// From its first request to its last, in seconds.
    pub span_s: f64,
    /// Requests of each run.
    pub requests: u64,
    /// Share of them that warms the fleet up.
    pub warm_up: f64,
}

/// Runs trials of one scenario, and counts them.
pub(crate) struct Bench<'a> {
    /// The scenario.
    pub loaded: Loaded,
    /// Its traffic.
    pub traffic: Traffic,
    /// Seeds of paired runs.
    pub seeds: Vec<u64>,
    /// The largest fleet that is tried.
    pub replicas_max: u32,
    watch: WatchRuns<'a>,
    counts: Arc<Counts>,
}

/// What was simulated, on all benches that come from one.
#[derive(Debug, Default)]
struct Counts {
    started: AtomicUsize,
    ended: AtomicU64,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        loaded: Loaded,
        traffic: Traffic,
        seeds: Vec<u64>,
        replicas_max: u32,
        watch: WatchRuns<'a>,
    ) -> Self {
        Self { loaded, traffic, seeds, replicas_max, watch, counts: Arc::default() }
    }

    /// The same scenario with runs of other lengths.
    pub(crate) fn with_runs_of(&self, requests: u64, warm_up: f64) -> Self {
        Self {
            loaded: self.loaded.clone(),
            traffic: Traffic { requests, warm_up, ..self.traffic },
            seeds: self.seeds.clone(),
            replicas_max: self.replicas_max,
            watch: self.watch,
            counts: Arc::clone(&self.counts),
        }
    }

    /// Runs started so far.
    pub(crate) fn runs(&self) -> u64 {
        self.counts.started.load(Ordering::Relaxed) as u64
    }

    /// Requests simulated so far.
    pub(crate) fn simulated(&self) -> u64 {
        self.counts.ended.load(Ordering::Relaxed)
    }

    /// What `search` finds for each of `tasks` and each seed: for each task, the results in the order of seeds.
    ///
    /// # Errors
    /// The first error of a run.
    pub(crate) fn each<T: Sync, R: Send>(
        &self,
        tasks: &[T],
        seeds: usize,
        search: impl Fn(&T, u64) -> Result<R, Error> + Sync,
    ) -> Result<Vec<Vec<R>>, Error> {
        let results = self.in_parallel(tasks.len() * seeds, |index| {
            search(&tasks[index / seeds], self.seeds[index % seeds])
        })?;
        let mut results = results.into_iter();
        Ok(tasks.iter().map(|_| results.by_ref().take(seeds).collect()).collect())
    }

    /// What `run` finds with each of `seeds`.
    ///
    /// # Errors
    /// The first error of a run.
    pub(crate) fn each_seed<R: Send>(
        &self,
        seeds: &[u64],
        run: impl Fn(u64) -> Result<R, Error> + Sync,
    ) -> Result<Vec<R>, Error> {
        self.in_parallel(seeds.len(), |index| run(seeds[index]))
    }

    /// The results of `run` for 0, 1 and so on up to `count`, in that order. Progress is counted by the runs themselves.
    ///
    /// # Errors
    /// The first error, in that order.
    pub(crate) fn in_parallel<R: Send>(
        &self,
        count: usize,
        run: impl Fn(usize) -> Result<R, Error> + Sync,
    ) -> Result<Vec<R>, Error> {
        in_parallel(count, &|_| ControlFlow::Continue(()), |index, _| run(index))
    }

    /// The scenario of a trial: `setting` with so many replicas of each part, the traffic cut to the trial's length.
    pub(crate) fn scenario(&self, setting: &Setting, replicas: &[u32]) -> Loaded {
        let mut loaded = setting.scenario(&self.loaded, replicas);
        let scenario = &mut loaded.scenario;
        let rate = self.traffic.rate * setting.traffic;
        // How long the requests last; a trace does not become longer by becoming thinner.
        let mut span_s = self.traffic.requests as f64 / rate;
        if let Some(workload) = &mut scenario.workload {
            workload.requests = Some(self.traffic.requests);
            if differs(setting.traffic) {
                workload.rate = Some(rate);
            }
            match workload.trace {
                Some(_) => span_s = span_s.min(self.traffic.span_s),
                None => workload.duration = None,
            }
        }
        let mut run = scenario.run.take().unwrap_or_default();
        run.warm_up = Span::from_secs_f64(self.traffic.warm_up * span_s).map(Duration);
        run.horizon = None;
        scenario.run = Some(run);
        loaded
    }

    /// The fleet and workload of `setting`, with one replica of each part.
    ///
    /// # Errors
    /// When the fleet could not exist.
    pub(crate) fn assemble(&self, setting: &Setting) -> Result<Assembled, Error> {
        let one = vec![1; setting.parts.len()];
        let trial = self.scenario(setting, &one);
        setting.assemble(&trial, &one)
    }

    /// One run with so many replicas of each part.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn run(&self, assembled: &Assembled, replicas: &[u32], seed: u64) -> Result<Summary, Error> {
        self.run_watched(assembled, replicas, seed, &mut ())
    }

    /// The same; `watcher` is told of its requests.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn run_watched(
        &self,
        assembled: &Assembled,
        replicas: &[u32],
        seed: u64,
        watcher: &mut dyn Observer,
    ) -> Result<Summary, Error> {
        let started = self.counts.started.fetch_add(1, Ordering::Relaxed) + 1;
        let mut sized = assembled.clone();
        for (pool, &replicas) in sized.fleet.pools.iter_mut().zip(replicas) {
            pool.replicas = replicas;
        }
        let mut counted = 0;
        let mut progress = |now: Progress| {
            let ended =
                self.counts.ended.fetch_add(now.ended - counted, Ordering::Relaxed) + now.ended - counted;
            counted = now.ended;
            (self.watch)(RunsProgress { done: started - 1, runs: started, ended })
        };
        let summary = run_once(&sized, seed, None, watcher, &mut progress as OnProgress<'_>)?;
        let all = summary.requests.arrived + summary.requests.warm_up;
        self.counts.ended.fetch_add(all.saturating_sub(counted), Ordering::Relaxed);
        Ok(summary)
    }

    /// The smallest number of replicas that holds the SLO, by doubling from `guess` and bisection; `None` when the
    /// largest fleet that is tried does not. More replicas are taken to serve no worse. Of two kinds of replicas, the
    /// fewest GPUs count, and they start from equally many of each.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn least(&self, setting: &Setting, seed: u64, guess: u32) -> Result<Option<Size>, Error> {
        let assembled = self.assemble(setting)?;
        let kinds = setting.parts.len() as u32;
        let each = (guess / kinds).clamp(1, self.replicas_max);
        let space = Space {
            prices: assembled.fleet.pools.iter().map(|pool| f64::from(pool.gpus)).collect(),
            spare: 0,
            most: vec![self.replicas_max; setting.parts.len()],
            guess: vec![each; setting.parts.len()],
            least_first: 1,
        };
        let found = space.cheapest(f64::INFINITY, &|_| (1, self.replicas_max), &mut |replicas| {
            let summary = self.run(&assembled, replicas, seed)?;
            Ok(holds(&summary).then_some(summary))
        })?;
        Ok(found.map(|(replicas, summary)| Size { replicas, summary }))
    }

    /// The fewest replicas of two kinds that hold the SLO with at most so many in all; `None` when no such split does.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn within(&self, setting: &Setting, seed: u64, replicas: u32) -> Result<Option<Size>, Error> {
        let assembled = self.assemble(setting)?;
        let space = Space {
            prices: vec![1.0; setting.parts.len()],
            spare: 0,
            most: vec![replicas; setting.parts.len()],
            guess: vec![replicas.div_ceil(2); setting.parts.len()],
            least_first: 1,
        };
        let budget = f64::from(replicas) + 0.5;
        let found = space.cheapest(budget, &|_| (1, replicas), &mut |replicas| {
            let summary = self.run(&assembled, replicas, seed)?;
            Ok(holds(&summary).then_some(summary))
        })?;
        Ok(found.map(|(replicas, summary)| Size { replicas, summary }))
    }

    /// The largest multiple of the traffic that so many replicas hold the SLO at, within 4 %: at most
    /// [`TRAFFIC_MAX`], and 0 when not even its inverse is held.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn most_traffic(&self, setting: &Setting, replicas: &[u32], seed: u64) -> Result<f64, Error> {
        largest(1.0, 1.0 / TRAFFIC_MAX, TRAFFIC_MAX, 2.0, |traffic| {
            self.holds_with(&setting.with_traffic(setting.traffic * traffic), replicas, seed)
        })
    }

    /// The largest multiple of all step times, from 1/2 to 2, at which the SLO still holds; 0 below.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn most_slowdown(&self, setting: &Setting, replicas: &[u32], seed: u64) -> Result<f64, Error> {
        largest(1.05, 0.5, 2.0, 1.15, |slowdown| {
            self.holds_with(&Setting { slowdown, ..setting.clone() }, replicas, seed)
        })
    }

    /// Whether so many replicas hold the SLO.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(crate) fn holds_with(&self, setting: &Setting, replicas: &[u32], seed: u64) -> Result<bool, Error> {
        Ok(holds(&self.run(&self.assemble(setting)?, replicas, seed)?))
    }
}

/// Requests per second that a workload is made with; what was measured of one seed, where that cannot be foreseen.
pub(crate) fn nominal_rate(workload: &Workload, measured: f64) -> f64 {
    let span_s = workload.span.map(Span::as_secs_f64).filter(|span| *span > 0.0);
    workload.requests.zip(span_s).map_or(measured, |(requests, span)| requests as f64 / span)
}

/// Whether every limit on the whole run holds.
pub(crate) fn holds(summary: &Summary) -> bool {
    summary.slo_checks.iter().all(|check| check.holds)
}
