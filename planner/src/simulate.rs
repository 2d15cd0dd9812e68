//! One run of one scenario: to a summary, and to an outcomes file if one is wanted. Several are in `replicate`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use forerun_reports::collector::{Collector, SummaryContext};
use forerun_reports::outcomes::OutcomeWriter;
use forerun_reports::summary::Summary;
use forerun_sim::fleet;
use forerun_sim::observer::{Observer, QuietSteps};
use forerun_sim::request::{Labels, Outcome, Request};
use forerun_sim::router::Router;
use forerun_sim::source::Source as _;
use forerun_sim::time::{Span, Time};

use crate::assemble::Assembled;
use crate::error::{Error, InputError};
use crate::kv;
use crate::output::OutputFile;
use crate::trial::Altered;

/// How far a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Simulated time.
    pub simulated: Time,
    /// Requests that have ended.
    pub ended: u64,
}

/// Runs what was assembled once. `progress` is told how far the run is, and stops it by breaking.
///
/// # Errors
/// When the workload turns out wrong, the outcomes cannot be written, or `progress` breaks: then no file is
/// left behind.
pub fn simulate(
    assembled: &Assembled,
    outcomes: Option<&Path>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Summary, Error> {
    run_once(assembled, assembled.seed, outcomes, &mut (), progress)
}

/// The run with this seed. `watcher` is told of every arrival and every end, besides.
pub(crate) fn run_once(
    assembled: &Assembled,
    seed: u64,
    outcomes: Option<&Path>,
    watcher: &mut dyn Observer,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Summary, Error> {
    let mut router = assembled.router.router(seed, assembled.fleet.is_disaggregated());
    run_routed(assembled, seed, outcomes, router.as_mut(), watcher, progress)
}

/// The run with this seed, through a router that was made for it.
pub(crate) fn run_routed(
    assembled: &Assembled,
    seed: u64,
    outcomes: Option<&Path>,
    router: &mut dyn Router,
    watcher: &mut dyn Observer,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Summary, Error> {
    let started = Instant::now();
    let writer = match outcomes {
        Some(path) => Some(OutcomeWriter::new(OutputFile::create(path)?, assembled.replica_names())),
        None => None,
    };
    let collector =
        Collector::new(assembled.fleet.warm_up, assembled.slo.clone(), assembled.pool_of_replicas());
    let mut observer = Watch { collector, writer, watcher, ended: 0, progress };
    let mut source = assembled.workload.source(seed).map_err(InputError::from)?;
    let mut altered = Altered::new(&mut source, assembled.alteration, seed);
    let mut fleet = assembled.fleet.clone();
    fleet.faults.seed = seed;
    let speculations = fleet.pools.iter_mut().filter_map(|pool| pool.engine.speculation.as_mut());
    speculations.for_each(|speculation| speculation.seed = seed);
    let totals = fleet::run(&fleet, &mut altered, router, &mut observer)?;
    let Watch { collector, writer, .. } = observer;
    if let Some((writer, path)) = writer.zip(outcomes) {
        let wrong = |e| InputError::new(format!("{}: cannot be written: {e}", path.display()));
        writer.finish().map_err(wrong)?.finish()?;
    }
    let mut warnings = assembled.warnings.clone();
    match source.abandoned() {
        0 => {}
        1 => {
            warnings
                .push("1 later turn was never sent, because an earlier turn of its session failed".into());
        }
        turns => warnings.push(format!(
            "{turns} later turns were never sent, because an earlier turn of their session failed"
        )),
    }
    let context = SummaryContext {
        seed,
        about: assembled.about.clone(),
        warnings,
        gpu_hour_usd: assembled.gpu_hour_usd.clone(),
        wall_s: Some(started.elapsed().as_secs_f64()),
    };
    let mut summary = collector.finish(&totals, source.labels(), context);
    summary.cost.price_source.clone_from(&assembled.price_source);
    summary.cost_model.clone_from(&assembled.cost_models);
    summary.kv_capacity = kv::capacity(&assembled.fleet, summary.kv.context_tokens_mean);
    if summary.requests.arrived == 0 {
        let why = "every request arrived within the warm-up, so nothing was measured: shorten `run.warm_up`";
        summary.warnings.push(why.into());
    }
    Ok(summary)
}

/// Collects, writes and reports progress.
struct Watch<'a> {
    collector: Collector,
    writer: Option<OutcomeWriter<OutputFile>>,
    watcher: &'a mut dyn Observer,
    ended: u64,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl Observer for Watch<'_> {
    fn arrived(&mut self, request: &Request) {
        self.collector.arrived(request);
        self.watcher.arrived(request);
    }

    fn token_gaps(&mut self, at: Time, gap: Span, count: u32) {
        self.collector.token_gaps(at, gap, count);
    }

    fn step_done(
        &mut self,
        at: Time,
        replica: forerun_sim::request::ReplicaId,
        prefill_tokens: u32,
        emitted: u32,
    ) {
        self.collector.step_done(at, replica, prefill_tokens, emitted);
    }

    fn quiet_steps(&mut self, steps: &QuietSteps<'_>) {
        self.collector.quiet_steps(steps);
    }

    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        self.ended += 1;
        self.collector.ended(outcome, labels);
        self.watcher.ended(outcome, labels);
        if let Some(writer) = &mut self.writer {
            writer.ended(outcome, labels);
        }
    }

    fn tick(&mut self, now: Time) -> ControlFlow<()> {
        (self.progress)(Progress { simulated: now, ended: self.ended })
    }
}
