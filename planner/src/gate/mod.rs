//! Did a change make anything worse? A baseline is recorded once; later the same traffic is run through the changed
//! scenario, seed by seed, and every figure must be shown not to be worse than it was by more than its tolerance.
//!
//! | step | file |
//! |---|---|
//! | what a baseline keeps | `baseline` |
//! | how much worse is tolerated | `tolerances` |
//! | paired tests, more runs until they decide | `judge` |
//! | tables and Markdown; JUnit XML | `show`, `junit` |

mod baseline;
mod judge;
mod junit;
mod show;
mod tolerances;

use std::time::Instant;

pub use baseline::{Baseline, Recorded};
pub use judge::{Gate, Judged, Outcome};
pub use tolerances::{Tolerance, Tolerances};

use crate::assemble::{Assembled, REPLICATIONS_MAX, assemble};
use crate::error::{Error, InputError};
use crate::replicate::{WatchRuns, in_parallel, seeds};
use crate::scenario::read::Loaded;
use crate::simulate::run_once;
use baseline::Sent;

/// Replications of a baseline when nobody says: the most that a gate can use.
pub const REPLICATIONS: u32 = 20;

/// Runs `loaded` with as many seeds as it says, and keeps what the gate needs.
///
/// # Errors
/// When the scenario is wrong, or `watch` breaks.
pub fn record(loaded: &Loaded, watch: WatchRuns<'_>) -> Result<Baseline, Error> {
    let assembled = assemble(loaded)?;
    let count = match assembled.workload.is_recorded() {
        // Every seed replays the same trace.
        true => 1,
        false => assembled.replications.unwrap_or(REPLICATIONS),
    };
    debug_assert!(count <= REPLICATIONS_MAX);
    let runs = run(&assembled, &seeds(assembled.seed, count), watch)?;
    Ok(Baseline::new(loaded, runs)?)
}

/// Holds the scenario `loaded` against `baseline`: first with a few of its seeds, then with more until every figure is
/// decided or the baseline has no more.
///
/// # Errors
/// When the scenario is wrong or has other traffic than the baseline, or `watch` breaks.
pub fn gate(
    baseline: &Baseline,
    loaded: &Loaded,
    tolerances: &Tolerances,
    watch: WatchRuns<'_>,
) -> Result<Gate, Error> {
    let started = Instant::now();
    let assembled = assemble(loaded)?;
    let looks = judge::looks(baseline.runs.len());
    let mut runs: Vec<Recorded> = Vec::new();
    for (look, &until) in looks.iter().enumerate() {
        let seeds: Vec<u64> = baseline.runs[runs.len()..until].iter().map(|run| run.seed).collect();
        runs.extend(run(&assembled, &seeds, watch)?);
        check_traffic(baseline, &runs)?;
        let last = look + 1 == looks.len();
        let gate = judge::judge(baseline, &runs, tolerances, looks.len(), last);
        if last || gate.outcome != Outcome::Undecided {
            return Ok(Gate {
                about: assembled.about,
                wall_s: Some(started.elapsed().as_secs_f64()),
                ..gate
            });
        }
    }
    Err(Error::Internal("a baseline without runs was accepted".into()))
}

/// One run with each seed.
fn run(assembled: &Assembled, seeds: &[u64], watch: WatchRuns<'_>) -> Result<Vec<Recorded>, Error> {
    in_parallel(seeds.len(), watch, |index, progress| {
        let mut sent = Sent::default();
        let summary = run_once(assembled, seeds[index], None, &mut sent, progress)?;
        Ok(Recorded::of(seeds[index], sent, &summary))
    })
}

/// Pairs mean something only when both runs of each were sent the same.
fn check_traffic(baseline: &Baseline, runs: &[Recorded]) -> Result<(), InputError> {
    let differs = baseline.runs.iter().zip(runs).find(|(then, now)| then.sent != now.sent);
    match differs {
        None => Ok(()),
        Some((then, now)) => Err(InputError::new(format!(
            "the traffic is not the baseline's: with seed {} {} requests of {} input tokens were sent, now {} of {}; \
             gate changes of the fleet and its router, and record a new baseline for new traffic",
            then.seed, then.sent.requests, then.sent.input_tokens, now.sent.requests, now.sent.input_tokens
        ))),
    }
}

#[cfg(test)]
mod tests;
