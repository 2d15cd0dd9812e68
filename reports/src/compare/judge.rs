//! From the runs of each variant to differences and verdicts.

use std::collections::BTreeMap;

use super::why::{cause_changes, explain};
use super::{
    Adjustment, Change, Comparison, Method, MethodKind, Pair, SchemaName, Simulation, Traffic, Variant,
    Verdict, Why, WindowValues,
};
use crate::figures::{Better, FIGURES, Figure, FigureValues, figures};
use crate::replications::{CONFIDENCE, FigureEstimate, measured};
use crate::statistics::{Batches, Difference, Interval, holm};
use crate::summary::Summary;

/// How unlikely by chance a difference must be to be shown.
const SIGNIFICANCE: f64 = 1.0 - CONFIDENCE;

/// Probability with which the replications that are asked for would show the difference.
const POWER: f64 = 0.8;

/// More replications than this are not asked for.
const REPLICATIONS_MAX: u64 = 1000;

/// The runs of one variant.
#[derive(Clone, Debug)]
pub struct VariantRuns {
    /// Its name.
    pub name: String,
    /// Its summary for each seed.
    pub summaries: Vec<Summary>,
    /// Its only run, window by window; absent for replications.
    pub windows: Option<WindowValues>,
}

/// Everything that was observed.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The variants, the baseline first.
    pub variants: Vec<VariantRuns>,
    /// Whether they saw the same traffic.
    pub traffic: Traffic,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// Wall-clock time of all runs, in seconds.
    pub wall_s: Option<f64>,
}

/// How it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Where the uncertainty comes from.
    pub kind: MethodKind,
    /// Differences within this share of the baseline's figure count as none.
    pub margin: f64,
}

/// One figure of a pair, before it is judged.
struct Estimate {
    pair: usize,
    figure: &'static Figure,
    baseline: f64,
    variant: f64,
    difference: Option<Difference>,
}

/// Holds every variant against the first.
///
/// # Panics
/// Without any variant.
#[must_use]
pub fn compare(observed: Observed, settings: Settings) -> Comparison {
    let Observed { variants, traffic, mut warnings, wall_s } = observed;
    let values: Vec<Vec<FigureValues>> =
        variants.iter().map(|runs| runs.summaries.iter().map(figures).collect()).collect();
    let (estimates, dependent) = estimate(&variants, &values, settings.kind, traffic.paired);
    if !dependent.is_empty() {
        warnings.push(format!(
            "neighbouring windows still depend on each other, so that these intervals are too narrow: {}",
            dependent.join(", ")
        ));
    }
    let (changes, tests) = judge(&estimates, variants.len() - 1, settings);
    let whys: Vec<Why> = variants.iter().map(|runs| Why::of(&runs.summaries)).collect();
    let pairs = changes.into_iter().zip(&variants[1..]).zip(&whys[1..]).map(|((figures, runs), why)| {
        let latency_ms_by_cause = cause_changes(&whys[0], why);
        let (variant, baseline) = (runs.name.clone(), variants[0].name.clone());
        let mut pair = Pair { variant, baseline, figures, latency_ms_by_cause, why: Vec::new() };
        pair.why = explain(&pair, &whys[0], why);
        pair
    });
    Comparison {
        schema: SchemaName::V1,
        baseline: variants[0].name.clone(),
        method: method(&variants[0], tests, settings),
        traffic,
        pairs: pairs.collect(),
        simulation: Simulation {
            runs: variants.iter().map(|runs| runs.summaries.len() as u64).sum(),
            requests: variants.iter().flat_map(|runs| &runs.summaries).map(simulated).sum(),
            wall_s,
        },
        variants: variants
            .into_iter()
            .zip(values)
            .zip(whys)
            .map(|((runs, values), why)| variant(runs, &values, why))
            .collect(),
        warnings,
    }
}

/// Every figure of every pair, and those whose windows still depend on their neighbours.
fn estimate(
    variants: &[VariantRuns],
    values: &[Vec<FigureValues>],
    kind: MethodKind,
    paired: bool,
) -> (Vec<Estimate>, Vec<String>) {
    let (mut estimates, mut dependent) = (Vec::new(), Vec::new());
    for pair in 1..variants.len() {
        for (place, figure) in FIGURES.iter().enumerate() {
            let means = match kind {
                MethodKind::Replications => of_runs(&values[0], &values[pair], place, paired),
                MethodKind::Windows => {
                    let windows = [0, pair].map(|of| variants[of].windows.as_ref()?[place].as_ref());
                    let (means, depends) = of_windows([&values[0], &values[pair]], place, windows);
                    if depends {
                        dependent.push(format!("{} of {}", figure.label, variants[pair].name));
                    }
                    means
                }
            };
            let of_means =
                |(baseline, variant, difference)| Estimate { pair, figure, baseline, variant, difference };
            estimates.extend(means.map(of_means));
        }
    }
    (estimates, dependent)
}

fn method(baseline: &VariantRuns, tests: usize, settings: Settings) -> Method {
    let windows = baseline.windows.iter().flatten().flatten().map(Vec::len).max();
    Method {
        kind: settings.kind,
        count: match settings.kind {
            MethodKind::Windows => windows.unwrap_or(0) as u64,
            MethodKind::Replications => baseline.summaries.len() as u64,
        },
        seeds: baseline.summaries.iter().map(|summary| summary.seed).collect(),
        confidence: CONFIDENCE,
        adjustment: Adjustment::Holm,
        tests: tests as u64,
        margin: settings.margin,
    }
}

fn simulated(summary: &Summary) -> u64 {
    summary.requests.arrived + summary.requests.warm_up
}

fn variant(runs: VariantRuns, values: &[FigureValues], why: Why) -> Variant {
    let estimates = FIGURES.iter().enumerate().filter_map(|(place, figure)| {
        Some((figure.key.to_owned(), FigureEstimate::of(&measured(values, place))?))
    });
    let about = runs.summaries.first().map(|summary| summary.about.clone()).unwrap_or_default();
    Variant { name: runs.name, about, figures: estimates.collect(), why }
}

/// Means of baseline and variant, and their difference.
type Means = (f64, f64, Option<Difference>);

/// From replications: paired by seed, or two independent samples.
fn of_runs(baseline: &[FigureValues], variant: &[FigureValues], place: usize, paired: bool) -> Option<Means> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (before, after): (Vec<f64>, Vec<f64>) = if paired {
        let both = baseline.iter().zip(variant).filter_map(|(a, b)| Some((a[place]?, b[place]?)));
        both.unzip()
    } else {
        (measured(baseline, place), measured(variant, place))
    };
    if before.is_empty() || after.is_empty() {
        return None;
    }
    let difference = if paired {
        let differences: Vec<f64> = before.iter().zip(&after).map(|(a, b)| b - a).collect();
        Difference::of_pairs(&differences)
    } else {
        Difference::welch(&before, &after)
    };
    Some((mean(&before), mean(&after), difference))
}

/// From one run of each: the difference of the whole runs, and its error from the windows. Also whether windows
/// still depend on their neighbours.
fn of_windows(
    [baseline, variant]: [&[FigureValues]; 2],
    place: usize,
    windows: [Option<&Vec<f64>>; 2],
) -> (Option<Means>, bool) {
    let whole = |runs: &[FigureValues]| runs.first().and_then(|run| run[place]);
    let (Some(before), Some(after)) = (whole(baseline), whole(variant)) else {
        return (None, false);
    };
    let [Some(a), Some(b)] = windows else {
        return (Some((before, after, None)), false);
    };
    let batches = Batches::of(a.iter().zip(b).map(|(a, b)| b - a).collect());
    let difference = Difference::of_pairs(&batches.values).map(|d| Difference { mean: after - before, ..d });
    (Some((before, after, difference)), batches.dependent)
}

/// The changes of each pair, and how many tests they took.
fn judge(estimates: &[Estimate], pairs: usize, settings: Settings) -> (Vec<BTreeMap<String, Change>>, usize) {
    let judged =
        |estimate: &&Estimate| estimate.figure.better != Better::Neither && estimate.difference.is_some();
    let p_values: Vec<f64> =
        estimates.iter().filter(judged).filter_map(|e| Some(e.difference?.p_value())).collect();
    let tests = p_values.len();
    let mut adjusted = holm(&p_values).into_iter();
    let mut changes = vec![BTreeMap::new(); pairs];
    for estimate in estimates {
        let p_adjusted = if judged(&estimate) { adjusted.next() } else { None };
        let change = change(estimate, p_adjusted, tests, settings);
        changes[estimate.pair - 1].insert(estimate.figure.key.to_owned(), change);
    }
    (changes, tests)
}

fn change(estimate: &Estimate, p_adjusted: Option<f64>, tests: usize, settings: Settings) -> Change {
    let Estimate { figure, baseline, variant, difference, .. } = *estimate;
    let size = baseline.abs();
    let relative = |value: f64| (size > 0.0).then(|| value / size);
    let interval = difference.map(|d| d.interval(CONFIDENCE));
    let mean = difference.map_or(variant - baseline, |d| d.mean);
    let verdict = verdict(figure, difference, p_adjusted, settings.margin * size);
    let more =
        difference.filter(|_| verdict == Verdict::NotShown && settings.kind == MethodKind::Replications);
    // A difference below the margin would be found to be none.
    let more = more.filter(|d| d.mean.abs() > settings.margin * size).and_then(|d| {
        let needed = d.runs_needed(SIGNIFICANCE / tests.max(1) as f64, POWER)?;
        (needed <= REPLICATIONS_MAX).then(|| needed.saturating_sub(d.runs as u64).max(1))
    });
    Change {
        baseline,
        variant,
        difference: mean,
        interval,
        relative: relative(mean),
        relative_interval: interval
            .and_then(|i| Some(Interval { low: relative(i.low)?, high: relative(i.high)? })),
        p_value: difference.map(|d| d.p_value()),
        p_adjusted,
        verdict,
        more_replications: more,
    }
}

fn verdict(figure: &Figure, difference: Option<Difference>, p_adjusted: Option<f64>, margin: f64) -> Verdict {
    let (Some(difference), Some(p)) = (difference, p_adjusted) else { return Verdict::NotJudged };
    if difference.equivalence_p_value(margin) < SIGNIFICANCE {
        return Verdict::Same;
    }
    if p >= SIGNIFICANCE {
        return Verdict::NotShown;
    }
    match (figure.better, difference.mean > 0.0) {
        (Better::Neither, _) => Verdict::NotJudged,
        (Better::Higher, true) | (Better::Lower, false) => Verdict::Better,
        (Better::Higher, false) | (Better::Lower, true) => Verdict::Worse,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
