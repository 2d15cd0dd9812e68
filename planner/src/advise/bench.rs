//! Trial runs: the scenario's first pool at other sizes, rates, routing policies and vLLM arguments, always on the
//! same traffic for the same seed.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use forerun_reports::summary::Summary;
use forerun_sim::cost::{CostModel, Piece, Prepared, StepShape};
use forerun_sim::time::Span;
use forerun_workloads::units::Duration;
use serde_json::json;

use crate::assemble::{Assembled, assemble};
use crate::error::{Error, InputError};
use crate::replicate::{RunsProgress, WatchRuns, in_parallel};
use crate::scenario::EngineArgs;
use crate::scenario::read::Loaded;
use crate::simulate::{Progress, run_once};

/// Share of a trial's requests that warm it up.
const WARM_UP: f64 = 0.2;

/// Traffic is searched up to so many times the given one, and down to as small a part of it.
pub(super) const TRAFFIC_MAX: f64 = 64.0;

/// How far a search for a rate goes: the ratio of what holds to what does not, at its end.
const RESOLUTION: f64 = 1.04;

/// Told how far a run is; breaking stops it.
type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;

/// One way to serve the traffic.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// Routing policy.
    pub router: &'static str,
    /// Traffic as a multiple of the scenario's.
    pub traffic: f64,
    /// vLLM arguments that stand over the pool's own.
    pub engine: EngineArgs,
    /// GPUs of each replica, where they differ from the pool's.
    pub tensor_parallel: Option<u32>,
    /// GPU time of every step as a multiple of what the cost model says.
    pub slowdown: f64,
}

impl Setting {
    /// The scenario's own engines under this policy.
    pub(super) fn plain(router: &'static str) -> Self {
        Self { router, traffic: 1.0, engine: EngineArgs::default(), tensor_parallel: None, slowdown: 1.0 }
    }

    /// The same with other traffic.
    pub(super) fn with_traffic(&self, traffic: f64) -> Self {
        Self { traffic, ..self.clone() }
    }
}

/// The smallest fleet that holds the SLO.
#[derive(Clone, Debug)]
pub(super) struct Size {
    /// Replicas.
    pub replicas: u32,
    /// The run with so many.
    pub summary: Summary,
}

/// Runs trials of one scenario, and counts them.
pub(super) struct Bench<'a> {
    loaded: Loaded,
    /// Requests per second of the scenario's traffic.
    rate: f64,
    /// Requests of each run.
    pub requests: u64,
    /// Seeds of paired runs.
    pub seeds: Vec<u64>,
    /// The largest fleet that is tried.
    pub replicas_max: u32,
    watch: WatchRuns<'a>,
    started: AtomicUsize,
    ended: AtomicU64,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        loaded: Loaded,
        rate: f64,
        requests: u64,
        seeds: Vec<u64>,
        replicas_max: u32,
        watch: WatchRuns<'a>,
    ) -> Self {
        let (started, ended) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { loaded, rate, requests, seeds, replicas_max, watch, started, ended }
    }

    /// Runs started so far.
    pub(super) fn runs(&self) -> u64 {
        self.started.load(Ordering::Relaxed) as u64
    }

    /// Requests simulated so far.
    pub(super) fn simulated(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// What `search` finds for each of `tasks` and each seed: for each task, the results in the order of seeds.
    ///
    /// # Errors
    /// The first error of a run.
    pub(super) fn each<T: Sync, R: Send>(
        &self,
        tasks: &[T],
        seeds: usize,
        search: impl Fn(&T, u64) -> Result<R, Error> + Sync,
    ) -> Result<Vec<Vec<R>>, Error> {
        // Progress is counted by the runs themselves.
        let results = in_parallel(tasks.len() * seeds, &|_| ControlFlow::Continue(()), |index, _| {
            search(&tasks[index / seeds], self.seeds[index % seeds])
        })?;
        let mut results = results.into_iter();
        Ok(tasks.iter().map(|_| results.by_ref().take(seeds).collect()).collect())
    }

    /// What `run` finds with each of `seeds`.
    ///
    /// # Errors
    /// The first error of a run.
    pub(super) fn each_seed<R: Send>(
        &self,
        seeds: &[u64],
        run: impl Fn(u64) -> Result<R, Error> + Sync,
    ) -> Result<Vec<R>, Error> {
        in_parallel(seeds.len(), &|_| ControlFlow::Continue(()), |index, _| run(seeds[index]))
    }

    /// The fleet and workload of `setting`.
    ///
    /// # Errors
    /// When the fleet could not exist.
    pub(super) fn assemble(&self, setting: &Setting) -> Result<Assembled, Error> {
        let mut loaded = self.loaded.clone();
        let scenario = &mut loaded.scenario;
        let rate = self.rate * setting.traffic;
        if let Some(workload) = &mut scenario.workload {
            workload.requests = Some(self.requests);
            if differs(setting.traffic) {
                workload.rate = Some(rate);
            }
        }
        let router = serde_json::from_value(json!({ "preset": setting.router }));
        scenario.router = Some(router.map_err(|e| Error::Internal(e.to_string()))?);
        let mut pools = scenario.pools.take().unwrap_or_default();
        pools.truncate(1);
        let mut pool = pools.pop().unwrap_or_default();
        pool.engine = Some(setting.engine.or(&pool.engine.unwrap_or_default()));
        pool.tensor_parallel = setting.tensor_parallel.or(pool.tensor_parallel);
        scenario.pools = Some(vec![pool]);
        let mut run = scenario.run.take().unwrap_or_default();
        let warm_up = WARM_UP * self.requests as f64 / rate;
        run.warm_up = Span::from_secs_f64(warm_up).map(Duration);
        run.horizon = None;
        scenario.run = Some(run);
        let mut assembled = assemble(&loaded)?;
        if differs(setting.slowdown) {
            for pool in &mut assembled.fleet.pools {
                pool.cost = Arc::new(Slower { inner: Arc::clone(&pool.cost), factor: setting.slowdown });
            }
        }
        Ok(assembled)
    }

    /// One run.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn run(&self, assembled: &Assembled, replicas: u32, seed: u64) -> Result<Summary, Error> {
        let started = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let mut sized = assembled.clone();
        for pool in &mut sized.fleet.pools {
            pool.replicas = replicas;
        }
        let mut counted = 0;
        let mut progress = |now: Progress| {
            let ended = self.ended.fetch_add(now.ended - counted, Ordering::Relaxed) + now.ended - counted;
            counted = now.ended;
            (self.watch)(RunsProgress { done: started - 1, runs: started, ended })
        };
        let summary = run_once(&sized, seed, None, &mut (), &mut progress as OnProgress<'_>)?;
        let all = summary.requests.arrived + summary.requests.warm_up;
        self.ended.fetch_add(all.saturating_sub(counted), Ordering::Relaxed);
        Ok(summary)
    }

    /// The smallest number of replicas that holds the SLO, by doubling from `guess` and bisection; `None` when the
    /// largest fleet that is tried does not. More replicas are taken to serve no worse.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn least(&self, setting: &Setting, seed: u64, guess: u32) -> Result<Option<Size>, Error> {
        let assembled = self.assemble(setting)?;
        let (mut fails, mut found) = (0, None);
        let mut next = guess.clamp(1, self.replicas_max);
        loop {
            let summary = self.run(&assembled, next, seed)?;
            if holds(&summary) {
                found = Some(Size { replicas: next, summary });
            } else {
                fails = next;
            }
            let most = found.as_ref().map(|size| size.replicas);
            next = match most {
                None if fails == self.replicas_max => return Ok(None),
                None => (fails * 2).min(self.replicas_max),
                Some(most) if most == fails + 1 => return Ok(found),
                // The guess is mostly right or one too many: look there first.
                Some(most) if fails == 0 && most <= guess => most - 1.max(most / 4),
                Some(most) => fails + (most - fails) / 2,
            };
        }
    }

    /// The largest multiple of the traffic that so many replicas hold the SLO at, within 4 %: at most
    /// [`TRAFFIC_MAX`], and 0 when not even its inverse is held.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn most_traffic(&self, setting: &Setting, replicas: u32, seed: u64) -> Result<f64, Error> {
        largest(1.0, 1.0 / TRAFFIC_MAX, TRAFFIC_MAX, 2.0, |traffic| {
            let assembled = self.assemble(&setting.with_traffic(traffic))?;
            Ok(holds(&self.run(&assembled, replicas, seed)?))
        })
    }

    /// The largest multiple of all step times, from 1/2 to 2, at which the SLO still holds; 0 below.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn most_slowdown(&self, setting: &Setting, replicas: u32, seed: u64) -> Result<f64, Error> {
        largest(1.05, 0.5, 2.0, 1.15, |slowdown| {
            let assembled = self.assemble(&Setting { slowdown, ..setting.clone() })?;
            Ok(holds(&self.run(&assembled, replicas, seed)?))
        })
    }
}

/// Whether a factor changes anything.
fn differs(factor: f64) -> bool {
    (factor - 1.0).abs() > f64::EPSILON
}

/// Whether every limit on the whole run holds.
pub(super) fn holds(summary: &Summary) -> bool {
    summary.slo_checks.iter().all(|check| check.holds)
}

/// The largest value for which `holds`, which is true below it and false above, within [`RESOLUTION`]. Looks from
/// `start` in strides of `stride`, between `low` and `high`; 0 when it does not hold even at `low`.
fn largest(
    start: f64,
    low: f64,
    high: f64,
    stride: f64,
    mut holds: impl FnMut(f64) -> Result<bool, Error>,
) -> Result<f64, Error> {
    let (mut good, mut bad) = (0.0, f64::INFINITY);
    let mut next = start;
    loop {
        if holds(next)? {
            good = next;
        } else {
            bad = next;
        }
        next = match (good > 0.0, bad.is_finite()) {
            (true, false) if good >= high => return Ok(high),
            (true, false) => (good * stride).min(high),
            (false, _) if bad <= low => return Ok(0.0),
            (false, _) => (bad / stride).max(low),
            (true, true) if bad / good <= RESOLUTION => return Ok(good),
            (true, true) => (good * bad).sqrt(),
        };
    }
}

/// A cost model whose GPU times are all longer, or shorter, by one factor.
struct Slower {
    inner: Arc<dyn CostModel>,
    factor: f64,
}

impl CostModel for Slower {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let scaled = |piece: Piece| Piece { ns_per_token: piece.ns_per_token * self.factor, ..piece };
        let prepared = self.inner.prepare(shape);
        Prepared {
            fixed_ns: prepared.fixed_ns * self.factor,
            context: scaled(prepared.context),
            longest: scaled(prepared.longest),
            cpu: prepared.cpu,
        }
    }
}

/// Whether a scenario's first pool could exist with these GPUs per replica.
///
/// # Errors
/// Why not.
pub(super) fn could_exist(loaded: &Loaded, tensor_parallel: u32) -> Result<Loaded, InputError> {
    let mut loaded = loaded.clone();
    let mut pools = loaded.scenario.pools.take().unwrap_or_default();
    pools.truncate(1);
    let mut pool = pools.pop().unwrap_or_default();
    pool.tensor_parallel = Some(tensor_parallel);
    pool.replicas = Some(1);
    loaded.scenario.pools = Some(vec![pool]);
    assemble(&loaded).map(|_| loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_ends_within_its_resolution_and_at_its_limits() {
        let at = |limit: f64| largest(1.0, 1.0 / 64.0, 64.0, 2.0, |x| Ok(x <= limit)).unwrap();
        for limit in [0.02, 0.7, 1.0, 3.3, 60.0] {
            assert!(at(limit) <= limit && at(limit) * RESOLUTION >= limit, "{limit}: {}", at(limit));
        }
        assert_eq!((at(1e-9), at(1e9)), (0.0, 64.0));
    }
}
