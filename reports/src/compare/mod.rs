//! Variants compared on the same traffic: the document that `forerun compare --format json` prints.
//!
//! The first variant is the baseline; each other one is held against it, figure by figure, by paired differences.
//! Keys are stable: new ones are appended. Two comparisons of the same variants and seeds differ in nothing but
//! `simulation.wall_s`.

mod document;
mod judge;
mod rows;
#[cfg(test)]
mod tests_support;
mod why;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use judge::{Observed, Settings, VariantRuns, compare};
pub use rows::{ROWS_MAX, Rows, WindowValues, limit_values, window_values};
pub use why::Why;

use crate::replications::FigureEstimate;
use crate::statistics::Interval;

/// Variants and their differences from the first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Layout of this document.
    pub schema: SchemaName,
    /// Name of the variant that the others are held against.
    pub baseline: String,
    /// How differences are estimated and judged.
    pub method: Method,
    /// Whether the variants saw the same traffic.
    pub traffic: Traffic,
    /// Each variant by itself, the baseline first.
    pub variants: Vec<Variant>,
    /// Each other variant against the baseline.
    pub pairs: Vec<Pair>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// The simulation itself.
    pub simulation: Simulation,
}

/// Names and versions the layout of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SchemaName {
    /// The first layout.
    #[default]
    #[serde(rename = "forerun/compare/v1")]
    V1,
}

/// How differences are estimated and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Method {
    /// Where the uncertainty comes from.
    pub kind: MethodKind,
    /// Replications of each variant, or windows that each run is cut into.
    pub count: u64,
    /// Seeds of the replications; every variant is run with each of them.
    pub seeds: Vec<u64>,
    /// Confidence of the intervals, 0 to 1. Each interval is by itself; only verdicts are adjusted.
    pub confidence: f64,
    /// Correction for testing several figures of several variants at once.
    pub adjustment: Adjustment,
    /// How many tests that correction is for.
    pub tests: u64,
    /// Differences that are shown to be smaller than this share of the baseline's figure count as none.
    pub margin: f64,
}

/// Where the uncertainty of a difference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// Several runs with seeds of their own, paired by seed.
    Replications,
    /// One long run of each, cut into windows of time, paired by window.
    Windows,
}

/// Correction for several tests at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Adjustment {
    /// Holm's step-down procedure: at most 5 % that any verdict of better or worse is wrong.
    #[default]
    Holm,
}

/// Whether the variants saw the same traffic, as checked request by request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// Requests of the baseline, over all its runs.
    pub requests: u64,
    /// Whether all variants were sent the same requests: prompts, lengths, tenants, sessions.
    pub same_requests: bool,
    /// Whether they were sent at the same times.
    pub same_arrivals: bool,
    /// Whether differences are paired. Otherwise they are between independent samples (Welch).
    pub paired: bool,
    /// The same in words.
    pub about: String,
}

/// One variant by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// What was simulated, in words.
    pub about: Vec<String>,
    /// Its figures over all runs. Without replications there is no interval here, only for differences.
    pub figures: BTreeMap<String, FigureEstimate>,
    /// What explains them, on average over the runs.
    pub why: Why,
}

/// One variant against the baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// The variant.
    pub variant: String,
    /// What it is held against.
    pub baseline: String,
    /// Each figure that both have.
    pub figures: BTreeMap<String, Change>,
    /// How the mean time of each cause changed, in milliseconds per request; they add up to the change of the mean
    /// end-to-end time.
    pub latency_ms_by_cause: BTreeMap<String, f64>,
    /// What explains the difference, in words.
    pub why: Vec<String>,
}

/// One figure of a variant against the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// The baseline's mean.
    pub baseline: f64,
    /// The variant's mean.
    pub variant: f64,
    /// Variant minus baseline.
    pub difference: f64,
    /// Interval of the difference; null when there is nothing to estimate it from.
    pub interval: Option<Interval>,
    /// The difference as a share of the baseline's mean; null when that is zero.
    pub relative: Option<f64>,
    /// Its interval.
    pub relative_interval: Option<Interval>,
    /// Probability of so large a difference by chance; null without an interval.
    pub p_value: Option<f64>,
    /// The same, corrected for the number of tests; null for figures that are not judged.
    pub p_adjusted: Option<f64>,
    /// What is shown.
    pub verdict: Verdict,
    /// About how many more replications would show the difference with a probability of 80 %, if it is as estimated;
    /// null when it is shown, is none, or would take too many.
    pub more_replications: Option<u64>,
}

/// What is shown of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The variant is better.
    Better,
    /// The variant is worse.
    Worse,
    /// The difference is shown to be within the margin.
    Same,
    /// Neither a difference nor its absence is shown.
    NotShown,
    /// Not judged: the figure explains others, or has no interval.
    NotJudged,
}

/// The simulation itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Simulation {
    /// Runs of all variants.
    pub runs: u64,
    /// Requests simulated in all of them, the warm-up's included.
    pub requests: u64,
    /// Wall-clock time that they took, in seconds: the only figure that differs between two comparisons.
    pub wall_s: Option<f64>,
}

impl Comparison {
    /// Whether some variant is shown to be worse than the baseline in some figure.
    #[must_use]
    pub fn some_worse(&self) -> bool {
        let changes = self.pairs.iter().flat_map(|pair| pair.figures.values());
        changes.into_iter().any(|change| change.verdict == Verdict::Worse)
    }

    /// The document as users read it: indented JSON and a final newline.
    ///
    /// # Panics
    /// Never: all keys are strings and all numbers are finite or `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a comparison is plain data");
        json.push('\n');
        json
    }

    /// The JSON Schema of this document.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}
