//! What surrounds the answer: other vLLM arguments and tiers for the best fleets, other traffic and step times for the
//! one that was chosen.

use super::answer::{Sensitivity, StepTimesDoubt};
use super::asked::Asked;
use super::race::{Candidate, Standings, round};
use super::runs::Runs;
use super::shapes::Shape;
use crate::error::Error;
use crate::scenario::{EngineArgs, TiersSpec};
use crate::trial::{Alteration, Bench, Setting, StepTimes, host_memory, largest};

/// What is asked of the fleet that was chosen.
const QUESTIONS: [(&str, Question); 5] = [
    ("20 % less traffic", Question { traffic: 0.8, slowdown: 1.0, answers: 1.0 }),
    ("20 % more traffic", Question { traffic: 1.2, slowdown: 1.0, answers: 1.0 }),
    ("step times 10 % shorter", Question { traffic: 1.0, slowdown: 0.9, answers: 1.0 }),
    ("step times 10 % longer", Question { traffic: 1.0, slowdown: 1.1, answers: 1.0 }),
    ("answers 20 % longer", Question { traffic: 1.0, slowdown: 1.0, answers: 1.2 }),
];

struct Question {
    traffic: f64,
    slowdown: f64,
    answers: f64,
}

impl Question {
    fn of(&self, shape: &Shape) -> Shape {
        let setting = Setting {
            traffic: self.traffic,
            slowdown: self.slowdown,
            alteration: Alteration { answers: self.answers, ..Alteration::default() },
            ..shape.setting.clone()
        };
        shape.changed(setting, shape.changes.clone())
    }
}

/// The best fleet with prefill and decode together, and the best with both apart, with other arguments and tiers,
/// where these need fewer replicas. Host memory is taken to cost nothing.
///
/// # Errors
/// As those of the simulation.
pub(super) fn varied(
    bench: &Bench<'_>,
    runs: &Runs,
    asked: &Asked,
    standings: &mut Standings,
) -> Result<Vec<Candidate>, Error> {
    let mut better = Vec::new();
    let best =
        |apart: bool| standings.sized.iter().find(|candidate| candidate.shape.is_apart() == apart).cloned();
    let best: Vec<Candidate> = [best(false), best(true)].into_iter().flatten().collect();
    for sized in best {
        let own = bench.loaded.scenario.tiers.clone().unwrap_or_default();
        let shapes: Vec<Shape> = variants(&sized.shape, asked, &own).collect();
        let shapes: Vec<Shape> = shapes
            .into_iter()
            .filter(|shape| bench.assemble(&shape.setting).is_ok())
            .map(|mut shape| {
                shape.space.guess.clone_from(&sized.replicas);
                shape
            })
            .collect();
        // Only what is cheaper is worth another argument.
        better.extend(round(bench, runs, &shapes, 1.0, sized.cost(), standings, true)?);
    }
    Ok(better)
}

fn variants<'a>(shape: &'a Shape, asked: &'a Asked, own: &'a TiersSpec) -> impl Iterator<Item = Shape> + 'a {
    let engine =
        |engine: EngineArgs| Setting { engine: engine.or(&shape.setting.engine), ..shape.setting.clone() };
    let batches = asked.batch_tokens.iter().map(move |&tokens| {
        let args = EngineArgs { max_num_batched_tokens: Some(tokens), ..EngineArgs::default() };
        shape.changed(engine(args), format!("max_num_batched_tokens {tokens}"))
    });
    let chunks = asked.prefill_chunks.iter().map(move |&tokens| {
        let args = EngineArgs { long_prefill_token_threshold: Some(tokens), ..EngineArgs::default() };
        shape.changed(engine(args), format!("long_prefill_token_threshold {tokens}"))
    });
    let memory = asked.host_memory_gib.iter().map(move |&gib| {
        let tiers = TiersSpec { cpu: host_memory(gib), ..own.clone() };
        let setting = Setting { tiers: Some(tiers), ..shape.setting.clone() };
        shape.changed(setting, format!("{gib} GiB of host memory"))
    });
    // Host memory and prefill/decode apart need two KV connectors in one server.
    let memory = memory.filter(|changed| !changed.is_apart());
    batches.chain(chunks).chain(memory)
}

/// Whether the fleet holds when things are a little different, and what would.
///
/// # Errors
/// As those of the simulation.
pub(super) fn sensitivity(
    bench: &Bench<'_>,
    runs: &Runs,
    fleet: &Candidate,
) -> Result<Vec<Sensitivity>, Error> {
    bench.in_parallel(QUESTIONS.len(), |index| {
        let (change, question) = &QUESTIONS[index];
        let shape = question.of(&fleet.shape);
        let holds = runs.run(bench, &shape, &fleet.replicas, bench.seeds[0])?.holds;
        let found = resized(bench, runs, shape, &fleet.replicas)?;
        Ok(Sensitivity {
            change: (*change).to_owned(),
            holds,
            usd_per_hour: found.as_ref().map(|(_, cost)| *cost),
            fleet: found.map(|(name, _)| name),
        })
    })
}

/// The cheapest fleet of this kind, near so many replicas: its name and its price.
fn resized(
    bench: &Bench<'_>,
    runs: &Runs,
    shape: Shape,
    near: &[u32],
) -> Result<Option<(String, f64)>, Error> {
    let mut shape = shape;
    shape.space.guess = near.to_vec();
    // Closed-form bounds are of the traffic as it is.
    shape.space.least_first = 1;
    let found =
        shape.space.cheapest(f64::INFINITY, &|others| (1, shape.range(others).1), &mut |replicas| {
            let trial = runs.run(bench, &shape, replicas, bench.seeds[0])?;
            Ok(trial.holds.then_some(()))
        })?;
    Ok(found.map(|(replicas, ())| (shape.name(&replicas), shape.space.cost(&replicas))))
}

/// The multiple of the traffic up to which the fleet holds, at most 4.
///
/// # Errors
/// As those of the simulation.
pub(super) fn headroom(bench: &Bench<'_>, runs: &Runs, fleet: &Candidate) -> Result<f64, Error> {
    largest(1.1, 0.5, 4.0, 1.2, |traffic| {
        let setting = fleet.shape.setting.with_traffic(traffic);
        Ok(runs.run_setting(bench, &setting, &fleet.replicas, bench.seeds[0])?.holds)
    })
}

/// How far step times may be off before the fleet misses the SLO, and how probable that is.
///
/// # Errors
/// As those of the simulation.
pub(super) fn step_times(bench: &Bench<'_>, runs: &Runs, fleet: &Candidate) -> Result<StepTimesDoubt, Error> {
    let assembled = bench.assemble(&fleet.shape.setting)?;
    let errors = assembled
        .cost_models
        .iter()
        .map(|model| (model.grade.clone(), StepTimes::of(&model.grade, model.uncertainty.as_ref())));
    let worst = errors.max_by(|(_, a), (_, b)| a.deviation.total_cmp(&b.deviation));
    let Some((grade, error)) = worst else { return Ok(StepTimesDoubt::default()) };
    let limit = largest(1.05, 0.5, 2.0, 1.15, |slowdown| {
        let setting = Setting { slowdown, ..fleet.shape.setting.clone() };
        Ok(runs.run_setting(bench, &setting, &fleet.replicas, bench.seeds[0])?.holds)
    })?;
    let bad = Question { traffic: 1.0, slowdown: error.quantile_90(), answers: 1.0 }.of(&fleet.shape);
    let sure = resized(bench, runs, bad, &fleet.replicas)?;
    Ok(StepTimesDoubt {
        grade,
        median: error.median,
        deviation: error.deviation,
        source: error.source.clone(),
        limit: Some(limit),
        slo_holds: Some(error.at_most(limit)),
        usd_per_hour_90: sure.as_ref().map(|(_, cost)| *cost),
        fleet_90: sure.map(|(name, _)| name),
    })
}
