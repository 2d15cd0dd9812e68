//! What serves today, on the same traffic: the baseline that a manifest describes.

use super::Study;
use super::advice::{Today, Verdict};
use super::sizes::{PLAIN, mean};
use crate::current::Current;
use crate::error::Error;
use crate::trial::{Setting, holds};

/// Runs today's fleet with every seed, each replica asked in turn.
pub(super) fn of(
    study: &Study<'_>,
    current: Option<&Current>,
    verdict: &Verdict,
) -> Result<Option<Today>, Error> {
    let Some(pool) = current.and_then(|current| current.pools.first()) else { return Ok(None) };
    let replicas = pool.replicas.unwrap_or(1);
    let gpus = replicas * study.subject.tensor_parallel;
    let bench = &study.bench;
    let assembled = bench.assemble(&Setting::plain(PLAIN[0]))?;
    let runs = bench.each_seed(&bench.seeds, |seed| bench.run(&assembled, &[replicas], seed))?;
    Ok(Some(Today {
        name: pool.name.clone().unwrap_or_default(),
        replicas,
        gpus,
        runs: runs.len() as u64,
        runs_held: runs.iter().filter(|run| holds(run)).count() as u64,
        attainment: mean(runs.iter(), |run| run.goodput.attainment),
        ttft_p95_ms: mean(runs.iter(), |run| run.ttft_ms.p95),
        saved: verdict.gpus.map(|needed| 1.0 - f64::from(needed) / f64::from(gpus)),
    }))
}
