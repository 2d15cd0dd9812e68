//! The cheapest fleet that holds the SLO, how sure that is, and what else was close.
//!
//! | step | file |
//! |---|---|
//! | what may be used, and how sure to be | `asked` |
//! | kinds of fleets | `shapes` |
//! | what they need at least, by closed form | `bound` |
//! | a race on longer and longer parts of the traffic | `race` |
//! | runs, and the file that keeps them | `runs` |
//! | fresh seeds until one is sure | `confirm` |
//! | other arguments, other traffic | `around` |
//! | the answer, how it is shown, the files that deploy it | `answer`, `show`, `deploy` |

mod answer;
mod around;
mod asked;
mod bound;
mod confirm;
mod deploy;
mod race;
mod runs;
mod shapes;
mod show;

use std::time::Instant;

pub use answer::{ByRoles, Fleet, FleetPart, Plan, Rejected, Sensitivity, Simulation, StepTimesDoubt};
pub use asked::{Asked, BATCH_TOKENS, GPUS, Roles, SPLITS};
pub use confirm::Confirmation;
pub use runs::{Trial, WindowError};

use forerun_reports::slo::{Metric, Slo};
use forerun_workloads::measure::{Measures, Options, measure};
use forerun_workloads::open::open;

use crate::error::{Error, InputError};
use crate::replicate::{WatchRuns, seeds};
use crate::scenario::Role;
use crate::scenario::read::Loaded;
use crate::trial::{Bench, Traffic, WARM_UP, check_open, complete_slo, nominal_rate, slo_words};
use answer::Chosen;
use bound::Load;
use race::{Candidate, REQUESTS_MIN, RUNGS, Rung, Standings, race};
use runs::Runs;

/// Share of the longest runs that warms the fleet up, where the scenario does not say.
const WARM_UP_LONG: f64 = 0.1;

/// Fewer requests decide nothing.
const TRAFFIC_MIN: u64 = 200;

/// Everything that is known before the search.
struct Question {
    loaded: Loaded,
    measures: Measures,
    recorded: bool,
    /// Requests per second that the traffic is made with.
    rate: f64,
    about: Vec<String>,
    warnings: Vec<String>,
    tpot_s: Option<f64>,
}

/// Plans for the scenario in `loaded`: its workload is the traffic, its model what is served, its first pool the pattern
/// of all replicas.
///
/// # Errors
/// When the scenario is wrong, nothing that was asked for could exist, or `watch` breaks.
pub fn plan(loaded: &Loaded, asked: &Asked, watch: WatchRuns<'_>) -> Result<Plan, Error> {
    let started = Instant::now();
    asked.check()?;
    let question = Question::new(loaded)?;
    let load = Load::of(&question.measures, question.tpot_s);
    let found = shapes::shapes(&question.loaded, asked, &load, &question.measures)?;
    let fingerprint = format!("{:?}", (question.measures.requests, question.measures.input_tokens.mean));
    let runs = Runs::open(asked.resume.as_deref(), fingerprint)?;
    let benches = question.benches(asked, watch);
    let (_, bench) = benches.last().ok_or_else(|| Error::Internal("a race without rounds".into()))?;
    let kinds = found.shapes.len() as u64;
    let mut standings = race(&benches, &runs, found.shapes)?;
    let better = around::varied(bench, &runs, asked, &mut standings)?;
    standings.sized.extend(better);
    standings.sized.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
    let fresh = question.fresh(bench);
    let tried = confirm::confirm(bench, &runs, &standings.sized, &fresh, asked.confidence)?;
    let chosen = tried.last().filter(|last| last.confirmation.shown);
    let searched = bench.simulated();
    let around = match chosen {
        Some(chosen) => Some((
            around::sensitivity(bench, &runs, &chosen.fleet)?,
            around::headroom(bench, &runs, &chosen.fleet)?,
            around::step_times(bench, &runs, &chosen.fleet)?,
        )),
        None => None,
    };
    runs.keep()?;
    let (sensitivity, headroom, step_times) = match around {
        Some((sensitivity, headroom, step_times)) => (sensitivity, Some(headroom), step_times),
        None => (Vec::new(), None, StepTimesDoubt::default()),
    };
    let fleet = chosen.map(|chosen| fleet_of(&chosen.fleet, &chosen.mean));
    let runner_up = runner_up(&standings, chosen.map(|chosen| &chosen.fleet));
    let margin = fleet.as_ref().zip(runner_up.as_ref());
    let margin = margin.map(|(fleet, other)| other.usd_per_hour / fleet.usd_per_hour.max(1e-9) - 1.0);
    Ok(Plan {
        schema: answer::SCHEMA,
        about: question.about.clone(),
        confirmation: tried.last().map(|last| last.confirmation.clone()).unwrap_or_default(),
        margin,
        runner_up,
        by_roles: by_roles(asked, &standings, chosen),
        pareto: pareto(&standings, fleet.as_ref()),
        sensitivity,
        headroom,
        peak_to_mean: question
            .measures
            .rates
            .bins
            .iter()
            .find(|bin| bin.seconds == 60)
            .and_then(|bin| bin.peak_to_mean),
        step_times,
        gpu_hour_usd: found.prices,
        price_sources: found.price_sources,
        rejected: rejected(found.impossible, &standings, &tried),
        warnings: question.warnings.clone(),
        simulation: Simulation {
            kinds,
            runs: bench.runs(),
            requests: bench.simulated(),
            search_requests: searched,
            requests_by_round: benches.iter().map(|(_, bench)| bench.traffic.requests).collect(),
            wall_s: Some(started.elapsed().as_secs_f64()),
        },
        chosen: chosen.map(|chosen| Chosen {
            loaded: question.loaded.clone(),
            setting: chosen.fleet.shape.setting.clone(),
            replicas: bought(&chosen.fleet),
        }),
        fleet,
    })
}

impl Question {
    fn new(loaded: &Loaded) -> Result<Self, Error> {
        let mut loaded = loaded.clone();
        let mut warnings = Vec::new();
        check_open(&loaded)?;
        complete_slo(&mut loaded, &mut warnings);
        let at = |error: InputError| error.at(&loaded.name);
        let slo = loaded.scenario.slo.clone().unwrap_or_default().resolve().map_err(at)?;
        let spec = loaded.scenario.workload.as_ref();
        let spec = spec.ok_or_else(|| at(InputError::new("there is no `workload` to plan for: name one")))?;
        let workload = open(spec, &loaded.base).map_err(|error| at(error.into()))?;
        let seed = loaded.scenario.run.as_ref().and_then(|run| run.seed).unwrap_or(1);
        let mut source = workload.source(seed).map_err(InputError::from)?;
        let options = Options::default();
        let measures = measure(&mut source, &options).map_err(|e| InputError::new(e.to_string()))?;
        if measures.requests < TRAFFIC_MIN || measures.rates.mean_per_s.is_none() {
            let why = format!("at least {TRAFFIC_MIN} requests, at different times, are needed to plan for");
            let have = measures.requests;
            return Err(at(InputError::new(format!("the workload has {have} requests: {why}"))).into());
        }
        let model = loaded.scenario.model.as_deref().unwrap_or(crate::hardware::DEFAULT_MODEL);
        let about = vec![
            format!("{model}."),
            format!("Traffic: {}.", workload.about.trim_end_matches('.')),
            format!("SLO: {}.", slo_words(loaded.scenario.slo.as_ref())),
        ];
        if loaded.scenario.pools.as_ref().is_some_and(|pools| pools.len() > 1) {
            warnings
                .push("the first pool is the pattern of all replicas; the others are left out".to_owned());
        }
        warnings.extend(workload.warnings.clone());
        let recorded = workload.is_recorded();
        let rate = nominal_rate(&workload, measures.rates.mean_per_s.unwrap_or(1.0));
        Ok(Self { measures, recorded, rate, about, warnings, tpot_s: tpot_limit_s(&slo), loaded })
    }

    /// Runs of each round's length.
    fn benches<'w>(&self, asked: &Asked, watch: WatchRuns<'w>) -> Vec<(Rung, Bench<'w>)> {
        let measures = &self.measures;
        let all = asked.requests.map_or(measures.requests, |requests| requests.min(measures.requests));
        let own = self.loaded.scenario.run.as_ref().and_then(|run| run.warm_up);
        let warm_up = own.map_or(WARM_UP_LONG, |own| {
            // As a share of the runs; what would leave nothing is a mistake in the scenario.
            (own.0.as_secs_f64() / measures.span_s.max(1e-9)).min(0.9)
        });
        let traffic = Traffic { rate: self.rate, span_s: measures.span_s, requests: all, warm_up };
        let seed = self.loaded.scenario.run.as_ref().and_then(|run| run.seed).unwrap_or(1);
        let bench = Bench::new(self.loaded.clone(), traffic, vec![seed], asked.replicas_max, watch);
        let shorter = RUNGS.iter().filter(|rung| rung.part > 1 && all / rung.part >= REQUESTS_MIN);
        let shorter = shorter.map(|rung| (*rung, bench.with_runs_of(all / rung.part, WARM_UP)));
        let mut benches: Vec<_> = shorter.collect();
        benches.push((RUNGS[RUNGS.len() - 1], bench));
        benches
    }

    /// Seeds that no search has seen; one of them for a recorded trace, for which all are alike.
    fn fresh(&self, bench: &Bench<'_>) -> Vec<u64> {
        if self.recorded {
            return bench.seeds.clone();
        }
        seeds(bench.seeds[0], confirm::SEEDS + 1).split_off(1)
    }
}

/// The limit on time per output token: of every request, or else of a percentile.
fn tpot_limit_s(slo: &Slo) -> Option<f64> {
    let whole = slo.aggregate.iter().filter(|limit| matches!(limit.metric, Metric::Tpot));
    let whole = whole.map(|limit| limit.limit.as_secs_f64()).fold(f64::INFINITY, f64::min);
    let each = slo.limits.tpot.map(|limit| limit.as_secs_f64());
    each.or(whole.is_finite().then_some(whole))
}

/// Replicas to buy: those counted on, and the spare ones.
fn bought(fleet: &Candidate) -> Vec<u32> {
    fleet.replicas.iter().map(|count| count + fleet.shape.space.spare).collect()
}

fn fleet_of(sized: &Candidate, figures: &Trial) -> Fleet {
    let Candidate { shape, replicas, .. } = sized;
    let spare = shape.space.spare;
    let parts = shape.setting.parts.iter().zip(replicas).map(|(part, count)| FleetPart {
        role: match part.role {
            Some(Role::Prefill) => "prefill",
            Some(Role::Decode) => "decode",
            _ => "both",
        },
        gpu: part.gpu.clone().unwrap_or_default(),
        tensor_parallel: part.tensor_parallel.unwrap_or(1),
        replicas: count + spare,
        spare,
    });
    let usd_per_hour = sized.cost();
    let host_memory = shape.setting.tiers.as_ref().and_then(|tiers| tiers.cpu.as_ref());
    let tokens = figures.output_tokens_per_s.filter(|tokens| *tokens > 0.0);
    Fleet {
        name: shape.name(replicas),
        parts: parts.collect(),
        router: shape.setting.policy.name().to_owned(),
        engine: shape.setting.engine.clone(),
        host_memory_gib: host_memory.map(|tier| tier.capacity.0 / f64::from(1u32 << 30)),
        gpus: shape.gpus(replicas),
        usd_per_hour,
        usd_per_million_output_tokens: tokens.map(|tokens| usd_per_hour / 3600.0 / tokens * 1e6),
        figures: figures.clone(),
    }
}

/// The cheapest fleet of another kind than the chosen one.
fn runner_up(standings: &Standings, chosen: Option<&Candidate>) -> Option<Fleet> {
    let kind = chosen.map(|chosen| chosen.shape.kind());
    let other = standings.sized.iter().find(|sized| Some(sized.shape.kind()) != kind)?;
    Some(fleet_of(other, &other.trial))
}

/// The best with every replica doing both, and with prefill and decode apart.
fn by_roles(asked: &Asked, standings: &Standings, chosen: Option<&confirm::Asked>) -> Vec<ByRoles> {
    let ways = match asked.roles {
        Roles::Any => vec![false, true],
        Roles::Together => vec![false],
        Roles::Apart => vec![true],
    };
    let best = |apart: bool| {
        let own = chosen.filter(|chosen| chosen.fleet.shape.is_apart() == apart);
        let own = own.map(|chosen| fleet_of(&chosen.fleet, &chosen.mean));
        own.or_else(|| {
            let sized = standings.sized.iter().find(|sized| sized.shape.is_apart() == apart)?;
            Some(fleet_of(sized, &sized.trial))
        })
    };
    let why_not = |apart: bool| {
        let same = standings.beaten.iter().filter(|beaten| beaten.shape.is_apart() == apart);
        let nearest = same.min_by(|a, b| {
            let cost =
                |beaten: &race::Beaten| beaten.usd_per_hour.filter(|_| beaten.held).unwrap_or(f64::INFINITY);
            cost(a).total_cmp(&cost(b))
        });
        nearest.map(|beaten| format!("{}: {}", fleet_tried(beaten), beaten.why))
    };
    let each = ways.into_iter().map(|apart| {
        let fleet = best(apart);
        ByRoles { apart, why_not: if fleet.is_some() { None } else { why_not(apart) }, fleet }
    });
    each.collect()
}

/// What was tried of a kind, in words.
fn fleet_tried(beaten: &race::Beaten) -> String {
    beaten.tried.clone().unwrap_or_else(|| beaten.shape.kind())
}

/// Fleets that held on the whole traffic and of which none is better than another in every respect.
fn pareto(standings: &Standings, chosen: Option<&Fleet>) -> Vec<Fleet> {
    let mut all: Vec<Fleet> = chosen.cloned().into_iter().collect();
    for sized in &standings.held {
        let fleet = fleet_of(sized, &sized.trial);
        if all.iter().all(|other| other.name != fleet.name) {
            all.push(fleet);
        }
    }
    let figures = |fleet: &Fleet| {
        let latency = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
        [fleet.usd_per_hour, latency(fleet.figures.ttft_p95_ms), latency(fleet.figures.tpot_p95_ms)]
    };
    let beats = |a: &Fleet, b: &Fleet| {
        let (a, b) = (figures(a), figures(b));
        a.iter().zip(&b).all(|(a, b)| a <= b) && a.iter().zip(&b).any(|(a, b)| a < b)
    };
    // What is cheaper than the chosen one held once, and is not shown to.
    let least = chosen.map_or(0.0, |fleet| fleet.usd_per_hour - 1e-9);
    all.retain(|fleet| fleet.usd_per_hour >= least);
    let mut front: Vec<Fleet> =
        all.iter().filter(|fleet| !all.iter().any(|other| beats(other, fleet))).cloned().collect();
    front.sort_by(|a, b| a.usd_per_hour.total_cmp(&b.usd_per_hour));
    front
}

fn rejected(
    impossible: Vec<(String, String)>,
    standings: &Standings,
    tried: &[confirm::Asked],
) -> Vec<Rejected> {
    let impossible = impossible.into_iter().map(|(kind, why)| Rejected { kind, usd_per_hour: None, why });
    let beaten = standings.beaten.iter().map(|beaten| Rejected {
        kind: fleet_tried(beaten),
        usd_per_hour: beaten.usd_per_hour,
        why: beaten.why.clone(),
    });
    let unsure = tried.iter().filter(|asked| !asked.confirmation.shown).map(|asked| Rejected {
        kind: asked.fleet.shape.name(&asked.fleet.replicas),
        usd_per_hour: Some(asked.fleet.cost()),
        why: match asked.confirmation {
            Confirmation { windows: Some(windows), seeds_held: 1, .. } => {
                format!("holds, and {windows} windows of the trace do not show that it would again")
            }
            Confirmation { seeds, seeds_held, .. } => {
                format!("not shown to hold with fresh seeds: {seeds_held} of {seeds} runs did")
            }
        },
    });
    unsure.chain(beaten).chain(impossible).collect()
}

#[cfg(test)]
mod tests;
