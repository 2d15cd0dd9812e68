//! llm-d's published ladders, of four routing policies and of a tier of host memory: what `docs/validation.md` says.

use std::path::Path;

use forerun_planner::ladder::policies::{Climbed, Ladder, POLICIES};
use forerun_planner::ladder::tiers::Tiers;
use forerun_planner::ladder::{FOLDER, Figures};
use libtest_mimic::{Failed, Trial};

/// By how much the output rate of the highest rung may be off.
const TOP_WITHIN: f64 = 0.15;

/// By what factor the mean TTFT at 20 requests/s may be off, on the GPUs alone and with host memory.
const TTFT_FACTOR: f64 = 1.5;

/// The trials of the ladder in `groundtruth`.
pub(crate) fn trials(groundtruth: &Path) -> Vec<Trial> {
    if !groundtruth.join(FOLDER).is_dir() {
        return vec![Trial::test("ladder::folder_is_absent", || Ok(())).with_ignored_flag(true)];
    }
    let folder = groundtruth.to_owned();
    let run = move || {
        let ladder = Ladder::climb(&folder).map_err(|e| Failed::from(e.to_string()))?;
        let climbed = ladder.climbed.last().expect("there are readings");
        let failures: Vec<_> = failures(&ladder, climbed);
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
    };
    let folder = groundtruth.to_owned();
    let tiers = move || {
        let tiers = Tiers::climb(&folder).map_err(|e| Failed::from(e.to_string()))?;
        let (ratios, offsets) = (tiers.ttft_ratios(20), tiers.collapse_offsets());
        let near = ratios.iter().all(|ratio| (1.0 / TTFT_FACTOR..=TTFT_FACTOR).contains(ratio));
        let in_time = offsets.iter().all(|offset| offset.is_some_and(|rungs| rungs.abs() <= 1));
        if near && in_time {
            Ok(())
        } else {
            Err(format!("TTFT at 20 req/s {ratios:?}, collapses {offsets:?}").into())
        }
    };
    vec![
        Trial::test("ladder::four_policies_rank_collapse_and_saturate_as_published", run),
        Trial::test("ladder::host_memory_holds_the_load_that_gpus_alone_do_not", tiers),
    ]
}

/// A figure of a rung by its name.
type Figure = (&'static str, fn(&Figures) -> f64);

fn failures(ladder: &Ladder, climbed: &Climbed) -> Vec<String> {
    let mut failures = Vec::new();
    let figures: [Figure; 2] = [("output rate", |at| at.tokens_per_s), ("TTFT", |at| at.ttft_mean_s)];
    for (name, figure) in figures {
        let ranks = ladder.ranks(climbed, figure);
        if ranks.right < ranks.pairs || ranks.pairs == 0 {
            failures.push(format!("by {name}: {ranks:?}"));
        }
    }
    let offsets = ladder.collapse_offsets(climbed);
    for ((policy, error), offset) in POLICIES.iter().zip(ladder.top_errors(climbed)).zip(offsets) {
        if error.abs() > TOP_WITHIN {
            failures.push(format!("{}: {:+.1} % at the top", policy.name, error * 100.0));
        }
        if offset.is_none_or(|rungs| rungs.abs() > 1) {
            failures.push(format!("{}: collapse late by {offset:?}", policy.name));
        }
    }
    failures
}
