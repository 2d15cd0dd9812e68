//! What one long run can say: batch means.
//!
//! Neighbouring requests of a run meet the same queues and caches. Taken as independent they give intervals that are
//! several times too narrow. So a run is cut into windows of time; what a figure would be without one of them says how
//! much that window matters, and windows that still depend on their neighbours are merged.

use super::Sample;

/// Windows are not merged to fewer than this.
const WINDOWS_MIN: usize = 8;

/// Values of windows that do not depend on their neighbours, as far as can be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Batches {
    /// One value for each window, after merging.
    pub values: Vec<f64>,
    /// Their autocorrelation at lag 1.
    pub lag_1: f64,
    /// Whether they still depend on their neighbours: intervals are then too narrow.
    pub dependent: bool,
}

/// The jackknife's pseudo-values (Tukey 1958) of a figure that is `whole` over all windows and `without[i]` when
/// window `i` is left out. For a mean over windows of equal size they are the means of the windows; for a ratio of sums
/// they spread as the windows' ratios would.
#[must_use]
pub fn pseudo_values(whole: f64, without: &[f64]) -> Vec<f64> {
    let windows = without.len() as f64;
    without.iter().map(|without| windows * whole - (windows - 1.0) * without).collect()
}

/// The percentile `share` (0 to 1) of values in ascending order, each with its window, as one value for each of
/// `windows` that spreads as the percentile would. `None` when some window says nothing.
///
/// A window counts by how many of its values lie below the percentile of all; the slope of the distribution there,
/// between the ends of the percentile's own 95 % interval, turns counts into values (Woodruff 1952: confidence intervals of percentiles of clustered samples).
#[must_use]
pub fn percentile_values(sorted: &[(f64, usize)], windows: usize, share: f64) -> Option<Vec<f64>> {
    let count = sorted.len() as f64;
    let at = |share: f64| sorted.get(((share * count).ceil() as usize).max(1) - 1).map(|(value, _)| *value);
    let whole = at(share)?;
    let mut excess = vec![0.0; windows];
    for (value, window) in sorted {
        excess[*window] += (f64::from(u8::from(*value <= whole)) - share) / (count / windows as f64);
    }
    let observed = Sample::of(&excess).filter(|sample| sample.count > 1)?.standard_error();
    let error = if observed > 0.0 { observed } else { (share * (1.0 - share) / count).sqrt() };
    let (below, above) = ((share - 1.96 * error).max(0.0), (share + 1.96 * error).min(1.0));
    let slope = (at(above)? - at(below)?) / (above - below);
    Some(excess.into_iter().map(|excess| whole - excess * slope).collect())
}

/// Autocorrelation of `values` at lag 1; 0 when they do not vary.
#[must_use]
pub fn lag_1(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let variance: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let covariance: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

impl Batches {
    /// Merges neighbours of `values` until they no longer depend on each other, or too few are left. Independent values
    /// have a lag-1 autocorrelation of about -1/n with variance 1/n; above 1.645 of these deviations (one-sided, 5 %)
    /// they are taken to depend.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        loop {
            let correlation = lag_1(&values);
            let count = values.len() as f64;
            let dependent = correlation > 1.645 / count.sqrt() - 1.0 / count;
            if !dependent || values.len() / 2 < WINDOWS_MIN {
                return Self { values, lag_1: correlation, dependent };
            }
            values = values.chunks_exact(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
        }
    }
}
