//! Two kinds of doubt, kept apart: other traffic of the same kind (fresh seeds), and step times that are wrong.

use forerun_reports::statistics::Sample;

use super::Study;
use super::advice::{Chosen, Doubt, Kind, Verdict};
use super::verdict::headline;
use crate::error::Error;
use crate::replicate::seeds;
use crate::trial::{StepTimes, holds};
use crate::words::percent;

/// Fresh seeds of the last check.
const FRESH: u32 = 5;

/// Of these, the ones with which the limit of step times is searched.
const LIMITS: usize = 3;

/// A verdict should hold with this probability. It gets one replica more, twice at most, to do so.
const CONFIDENT: f64 = 0.9;

/// Runs the recommended fleet with fresh seeds, and adds replicas until its SLO holds with some confidence.
pub(super) fn of(study: &Study<'_>, verdict: Verdict) -> Result<(Verdict, Doubt), Error> {
    let mut verdict = verdict;
    let mut doubt = at(study, &verdict)?;
    for _ in 0..2 {
        let (Some(replicas), Some(probability)) = (verdict.replicas, doubt.slo_holds) else { break };
        if probability >= CONFIDENT || replicas >= study.bench.replicas_max {
            break;
        }
        let mut best: Option<(Verdict, Doubt)> = None;
        for place in 0..verdict.chosen.as_ref().map_or(0, |chosen| chosen.replicas.len()) {
            let larger = larger(study, &verdict, place);
            let more = at(study, &larger)?;
            let least = best.as_ref().map_or(Some(probability), |(_, best)| best.slo_holds);
            if more.slo_holds > least {
                best = Some((larger, more));
            }
        }
        match best {
            Some(better) => (verdict, doubt) = better,
            None => break,
        }
    }
    Ok((verdict, doubt))
}

/// The fleet with one more replica of the part at `place`.
fn larger(study: &Study<'_>, verdict: &Verdict, place: usize) -> Verdict {
    let mut larger = verdict.clone();
    larger.replicas = verdict.replicas.map(|replicas| replicas + 1);
    larger.gpus = verdict.gpus.map(|gpus| gpus + verdict.tensor_parallel);
    if let Some(chosen) = &mut larger.chosen {
        chosen.replicas[place] += 1;
    }
    if larger.kind == Kind::OneVllm {
        larger.kind = Kind::PlainReplicas;
        larger.lift = vec!["a load balancer (a Service is enough for round-robin)".to_owned()];
    }
    larger.headline = headline(study, &larger);
    larger
}

/// The doubt about one fleet.
fn at(study: &Study<'_>, verdict: &Verdict) -> Result<Doubt, Error> {
    let error = StepTimes::of(&study.subject.grade, study.subject.uncertainty.as_ref());
    let mut doubt = Doubt {
        grade: study.subject.grade.clone(),
        step_time_median: error.median,
        step_time_deviation: error.deviation,
        step_time_source: error.source.clone(),
        ..Doubt::default()
    };
    let Some(Chosen { setting, replicas }) = &verdict.chosen else { return Ok(doubt) };
    let bench = &study.bench;
    let fresh = fresh_seeds(study);
    let assembled = bench.assemble(setting)?;
    let runs = study.bench.each_seed(&fresh, |seed| bench.run(&assembled, replicas, seed))?;
    doubt.seeds = fresh.len() as u64;
    doubt.seeds_held = runs.iter().filter(|summary| holds(summary)).count() as u64;
    let few = &fresh[..fresh.len().min(LIMITS)];
    let limits = study.bench.each_seed(few, |seed| bench.most_slowdown(setting, replicas, seed))?;
    let chances: Vec<f64> = limits.iter().map(|&limit| error.at_most(limit)).collect();
    doubt.step_time_limit = Sample::of(&limits).map(|sample| sample.mean);
    doubt.slo_holds = Sample::of(&chances).map(|sample| sample.mean);
    doubt.sharpen = sharpen(study, &doubt);
    Ok(doubt)
}

/// Seeds that no search has seen; those of a recorded trace are all alike.
fn fresh_seeds(study: &Study<'_>) -> Vec<u64> {
    let own = &study.bench.seeds;
    if study.recorded {
        return own[..1].to_vec();
    }
    let used = own.len() as u32;
    seeds(own[0], used + FRESH).split_off(own.len())
}

/// Which measurement would tell most.
fn sharpen(study: &Study<'_>, doubt: &Doubt) -> String {
    let chance = doubt.slo_holds.unwrap_or(0.0);
    if doubt.seeds_held < doubt.seeds && !study.recorded {
        return "a longer or recorded trace: runs that differ in their seeds alone disagree".to_owned();
    }
    if chance > 0.97 {
        return "none is pressing: the SLO holds whatever step times are likely".to_owned();
    }
    format!(
        "one load test of a single replica near its highest rate: step times decide ({} that the SLO holds)",
        percent(chance)
    )
}
