//! Does this traffic need llm-d? The signal table: five signals, each measured on the traffic and, where it can be,
//! backed by simulations of the same traffic with and without what the signal calls for.
//!
//! | step | file |
//! |---|---|
//! | what is asked, and with which SLO and split | `subject` |
//! | fleets needed by routing policy | `sizes` |
//! | prefill and decode on replicas of their own | `apart` |
//! | one row each | `rate`, `prefixes`, `memory`, `adapters`, `bursts` |
//! | what serves today | `today` |
//! | the verdict, and what it takes to run it | `verdict` |
//! | seed noise and model error | `doubt` |
//! | how it is shown, the files that deploy it | `show`, `deploy` |

mod adapters;
mod advice;
mod apart;
mod bursts;
mod deploy;
mod doubt;
mod memory;
mod prefixes;
mod rate;
mod show;
mod sizes;
mod subject;
mod thresholds;
mod today;
mod verdict;

use std::time::Instant;

pub use advice::{
    Advice, Answer, Doubt, Gain, Kind, Part, ReplicaFacts, Row, Saved, Signal, Simulation, Today, Verdict,
};
pub use thresholds::Thresholds;

use forerun_workloads::measure::{Measures, Options, measure};

use crate::assemble::Assembled;
use crate::current::Current;
use crate::error::{Error, InputError};
use crate::replicate::{WatchRuns, seeds};
use crate::scenario::read::Loaded;
use crate::trial::{Bench, Traffic, WARM_UP, nominal_rate};
use apart::Apart;
use rate::Capacity;
use sizes::{Offer, Sizes};
use subject::Subject;

/// Requests of each trial run when nobody says.
pub const REQUESTS: u64 = 5000;

/// The least that a trial run has: of fewer, no percentile means anything.
const REQUESTS_MIN: u64 = 100;

/// Paired seeds when nobody says.
pub const SEEDS: u32 = 5;

/// What to ask.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where answers turn.
    pub thresholds: Thresholds,
    /// Requests of each trial run.
    pub requests: u64,
    /// The largest fleet that is tried, in replicas.
    pub replicas_max: u32,
    /// What serves today: it stands in place of the scenario's fleet.
    pub current: Option<Current>,
}

impl Default for Asked {
    fn default() -> Self {
        Self { thresholds: Thresholds::default(), requests: REQUESTS, replicas_max: 128, current: None }
    }
}

/// Everything that rows are made from.
struct Study<'a> {
    subject: Subject,
    measures: Measures,
    bench: Bench<'a>,
    thresholds: Thresholds,
    /// A recorded trace is the same for every seed: there is no interval then.
    recorded: bool,
}

/// Answers for the scenario in `loaded`: its first pool is one replica, its workload the traffic.
///
/// # Errors
/// When the scenario is wrong or has no arrivals of its own, a threshold is impossible, or `watch` breaks.
pub fn advise(loaded: &Loaded, asked: &Asked, watch: WatchRuns<'_>) -> Result<Advice, Error> {
    let started = Instant::now();
    asked.thresholds.check()?;
    if asked.requests < REQUESTS_MIN {
        let why = format!("at least {REQUESTS_MIN} are needed");
        return Err(InputError::new(format!("--trial-requests {}: {why}", asked.requests)).into());
    }
    if !(1..=4096).contains(&asked.replicas_max) {
        let why = "from 1 to 4096 replicas are tried";
        return Err(InputError::new(format!("--max-replicas {}: {why}", asked.replicas_max)).into());
    }
    let loaded =
        &asked.current.as_ref().map_or_else(|| loaded.clone(), |current| current.in_place_of(loaded));
    let (subject, assembled) = Subject::new(loaded)?;
    let study = Study::new(subject, &assembled, asked, watch)?;
    let capacity = Capacity::find(&study)?;
    let sizes = Sizes::find(&study, &capacity)?;
    let mut apart = Apart::find(&study, &sizes)?;
    let rate = rate::row(&study, &capacity, &sizes, apart.as_ref());
    let prefixes = prefixes::row(&study, &sizes)?;
    let (memory, host_memory) = memory::row(&study, &sizes, prefixes.answer == Answer::Yes)?;
    let (adapters, affinity) = adapters::row(&study, &sizes)?;
    let aware = sizes.kv_aware.as_ref().filter(|_| prefixes.answer == Answer::Yes);
    let aware = aware.zip(prefixes.gain).map(|(fleets, gain)| Offer {
        signal: Signal::Prefixes,
        name: "prefix-cache-aware routing by llm-d's endpoint picker",
        fleets: fleets.clone(),
        gain,
    });
    let min_gain = study.thresholds.min_gain;
    let apart = apart.as_mut().and_then(|apart| apart.pays.take());
    let apart = apart.filter(|(_, gain)| gain.answer(min_gain) == Answer::Yes).map(|(fleets, gain)| Offer {
        signal: Signal::Rate,
        name: "prefill and decode on replicas of their own",
        fleets,
        gain,
    });
    let offers: Vec<Offer> = [aware, apart, host_memory, affinity].into_iter().flatten().collect();
    let rows = vec![rate, prefixes, memory, adapters, bursts::row(&study, &sizes)];
    let verdict = verdict::of(&study, &sizes, &rows, &offers);
    let (verdict, doubt) = doubt::of(&study, verdict)?;
    let today = today::of(&study, asked.current.as_ref(), &verdict)?;
    let mut warnings = study.subject.notes.clone();
    warnings.extend(asked.current.iter().flat_map(|current| current.notes.clone()));
    warnings.extend(assembled.warnings.clone());
    Ok(Advice {
        schema: advice::SCHEMA,
        about: study.about(),
        replica: capacity.facts(&study)?,
        hazards: verdict::hazards(&study, &rows, &verdict),
        not_simulated: verdict::not_simulated(&study),
        loaded: study.subject.loaded.clone(),
        today,
        verdict,
        rows,
        doubt,
        thresholds: study.thresholds,
        warnings,
        simulation: Simulation {
            runs: study.bench.runs(),
            requests: study.bench.simulated(),
            requests_per_run: study.bench.traffic.requests,
            seeds: study.bench.seeds.clone(),
            wall_s: Some(started.elapsed().as_secs_f64()),
        },
    })
}

impl<'a> Study<'a> {
    fn new(
        subject: Subject,
        assembled: &Assembled,
        asked: &Asked,
        watch: WatchRuns<'a>,
    ) -> Result<Self, Error> {
        let recorded = assembled.workload.is_recorded();
        let mut source = assembled.workload.source(assembled.seed).map_err(InputError::from)?;
        let engine = &assembled.fleet.pools[0].engine;
        let options = Options {
            warm_up: assembled.fleet.warm_up,
            block_tokens: engine.block_size,
            cache_tokens: vec![subject.kv_tokens],
            idle_gaps: bursts::gaps(),
            scale_to_zero: bursts::scale_to_zero(&asked.thresholds),
            ..Options::default()
        };
        let measures = measure(&mut source, &options).map_err(|e| InputError::new(e.to_string()))?;
        let rate = measures.rates.mean_per_s.filter(|_| measures.requests >= REQUESTS_MIN);
        let rate = rate.ok_or_else(|| {
            InputError::new(format!(
                "{}: {} requests arrive after the warm-up, over {:.1} s: at least {REQUESTS_MIN}, at different times, \
                 are needed to advise on them",
                subject.loaded.name, measures.requests, measures.span_s
            ))
        })?;
        let requests = asked.requests.min(measures.requests + measures.warm_up_requests);
        let count = if recorded { 1 } else { assembled.replications.unwrap_or(SEEDS) };
        let seeds = seeds(assembled.seed, count);
        let rate = nominal_rate(&assembled.workload, rate);
        let traffic = Traffic { rate, span_s: measures.span_s, requests, warm_up: WARM_UP };
        let bench = Bench::new(subject.loaded.clone(), traffic, seeds, asked.replicas_max, watch);
        Ok(Self { subject, measures, bench, thresholds: asked.thresholds, recorded })
    }

    /// Requests per second that the traffic keeps up: 95 % of its minutes have no more.
    fn sustained(&self) -> f64 {
        let rates = &self.measures.rates;
        rates.sustained_per_s.or(rates.mean_per_s).unwrap_or(0.0)
    }

    /// What was asked about, in words.
    fn about(&self) -> Vec<String> {
        vec![self.subject.about.clone(), self.subject.workload.clone(), self.subject.slo.clone()]
    }
}

#[cfg(test)]
mod tests;
