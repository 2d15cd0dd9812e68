//! llm-d's published ladder of four routing policies: what `docs/validation.md` says of it.

use std::path::Path;

use forerun_planner::ladder::{Climbed, FOLDER, Figures, Ladder, POLICIES};
use libtest_mimic::{Failed, Trial};

/// By how much the output rate of the highest rung may be off.
const TOP_WITHIN: f64 = 0.15;

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
    vec![Trial::test("ladder::four_policies_rank_collapse_and_saturate_as_published", run)]
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
