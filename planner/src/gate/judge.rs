//! Paired tests of every figure: is it shown not to be worse by more than its tolerance, or shown to be?
//!
//! For each figure the differences of pairs, in the direction that is worse, have an interval. The figure is *not
//! worse* when the interval's upper end is within the tolerance (one of Schuirmann's two one-sided tests, 1987: an
//! improvement of any size passes), and *worse* when its lower end is beyond it. The gate opens when all are not
//! worse, which needs no correction for their number (each must be shown); it closes when any is worse, for which the
//! level is divided by their number (Bonferroni). Both levels are divided by the number of looks.

use forerun_reports::figures::{Better, FIGURES};
use forerun_reports::statistics::{Difference, Interval, Sample};
use schemars::JsonSchema;
use serde::Serialize;

use super::baseline::{Baseline, Recorded};
use super::tolerances::Tolerances;

/// Pairs at the first look; each further look has twice as many.
const FIRST_LOOK: usize = 5;

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not worse by more than is tolerated.
    NotWorse,
    /// Worse by more than is tolerated.
    Worse,
    /// Neither was shown with the runs that there are.
    Undecided,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Judged {
    /// Its key.
    pub key: String,
    /// Its name in tables.
    pub label: String,
    /// What came out.
    pub outcome: Outcome,
    /// Mean of the baseline's runs.
    pub baseline: Option<f64>,
    /// Mean of the changed runs.
    pub now: Option<f64>,
    /// How much worse, on average; negative when better. In the figure's unit.
    pub worse_by: Option<f64>,
    /// The interval that decides; null for a single pair.
    pub interval: Option<Interval>,
    /// How much is tolerated, in the figure's unit.
    pub margin: f64,
}

/// The gate's answer.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Gate {
    /// `forerun/gate/v1`.
    pub schema: &'static str,
    /// What came out for all figures together.
    pub outcome: Outcome,
    /// Each figure that is judged.
    pub figures: Vec<Judged>,
    /// Pairs of runs that it took.
    pub pairs: u64,
    /// Pairs that the baseline has.
    pub pairs_max: u64,
    /// What was run, in words.
    pub about: Vec<String>,
    /// The version that recorded the baseline, where it is another one.
    pub recorded_by: Option<String>,
    /// Wall-clock time in seconds.
    pub wall_s: Option<f64>,
}

impl Gate {
    /// Whether the change may pass: everything is shown not to be worse.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.outcome == Outcome::NotWorse
    }

    /// The JSON document.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a gate's answer is plain data") + "\n"
    }
}

/// The numbers of pairs at which the gate looks.
pub(super) fn looks(runs: usize) -> Vec<usize> {
    let mut looks: Vec<usize> = std::iter::successors(Some(FIRST_LOOK), |pairs| Some(pairs * 2))
        .take_while(|&pairs| pairs < runs)
        .collect();
    looks.push(runs);
    looks
}

/// Judges all figures by the pairs so far, at one of `looks` looks. At the `last` one nothing stays open because more
/// runs might help.
pub(super) fn judge(
    baseline: &Baseline,
    runs: &[Recorded],
    tolerances: &Tolerances,
    looks: usize,
    last: bool,
) -> Gate {
    let count = tolerances.by_figure.len() as f64;
    let level = tolerances.significance / looks as f64;
    let figures: Vec<Judged> = FIGURES
        .iter()
        .filter_map(|figure| {
            let tolerance = tolerances.by_figure.get(figure.key)?;
            let of = |run: &Recorded| run.figures.get(figure.key).copied();
            let pairs: Vec<(f64, f64)> = baseline
                .runs
                .iter()
                .zip(runs)
                .filter_map(|(then, now)| Some((of(then)?, of(now)?)))
                .collect();
            let (then, now): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            let mean = |values: &[f64]| Sample::of(values).map(|sample| sample.mean);
            let sign = if figure.better == Better::Higher { -1.0 } else { 1.0 };
            let worse: Vec<f64> = pairs.iter().map(|(then, now)| sign * (now - then)).collect();
            let margin = tolerance.margin(mean(&then).unwrap_or(0.0));
            let lost = runs.len() - pairs.len();
            let (outcome, interval) = decide(&worse, margin, level, count);
            // A figure that vanishes, because nothing completed, is no improvement.
            let vanished = lost > 0
                && baseline.runs.iter().zip(runs).any(|(then, now)| of(then).is_some() && of(now).is_none());
            Some(Judged {
                key: figure.key.to_owned(),
                label: figure.label.to_owned(),
                outcome: if vanished { Outcome::Worse } else { outcome },
                baseline: mean(&then),
                now: mean(&now),
                worse_by: mean(&worse),
                interval,
                margin,
            })
        })
        .filter(|judged| judged.baseline.is_some() || judged.outcome == Outcome::Worse)
        .collect();
    let any = |outcome| figures.iter().any(|figure| figure.outcome == outcome);
    let outcome = match (any(Outcome::Worse), any(Outcome::Undecided)) {
        (true, _) => Outcome::Worse,
        (false, true) => Outcome::Undecided,
        (false, false) => Outcome::NotWorse,
    };
    debug_assert!(last || runs.len() < baseline.runs.len());
    Gate {
        schema: "forerun/gate/v1",
        outcome,
        figures,
        pairs: runs.len() as u64,
        pairs_max: baseline.runs.len() as u64,
        about: Vec::new(),
        recorded_by: (baseline.forerun != env!("CARGO_PKG_VERSION")).then(|| baseline.forerun.clone()),
        wall_s: None,
    }
}

/// What differences in the worse direction say, and the interval that decides it.
fn decide(worse: &[f64], margin: f64, level: f64, figures: f64) -> (Outcome, Option<Interval>) {
    let Some(difference) = Difference::of_pairs(worse) else {
        // One pair, of a recorded trace: what is seen is all there is.
        let outcome = match worse {
            [only] if *only > margin => Outcome::Worse,
            _ => Outcome::NotWorse,
        };
        return (outcome, None);
    };
    let open = difference.interval(1.0 - 2.0 * level);
    let close = difference.interval(1.0 - 2.0 * level / figures);
    if open.high <= margin {
        (Outcome::NotWorse, Some(open))
    } else if close.low > margin {
        (Outcome::Worse, Some(close))
    } else {
        (Outcome::Undecided, Some(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_decided_when_its_interval_clears_the_tolerance() {
        let told = |values: &[f64]| decide(values, 1.0, 0.05, 10.0).0;
        assert_eq!(told(&[0.0; 5]), Outcome::NotWorse);
        assert_eq!(told(&[-9.0, -5.0, -7.0, -8.0, -6.0]), Outcome::NotWorse);
        assert_eq!(told(&[9.0, 9.1, 9.2, 8.9, 9.0]), Outcome::Worse);
        assert_eq!(told(&[0.0, 2.0, 1.0, 1.5, 0.5]), Outcome::Undecided);
        assert_eq!((told(&[1.1]), told(&[0.9])), (Outcome::Worse, Outcome::NotWorse));
    }

    #[test]
    fn looks_double_up_to_what_the_baseline_has() {
        assert_eq!(
            (looks(20), looks(5), looks(1), looks(12)),
            (vec![5, 10, 20], vec![5], vec![1], vec![5, 10, 12])
        );
    }
}
