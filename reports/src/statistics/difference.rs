//! The difference between two variants.

use super::sample::{Interval, Sample};
use super::{t_quantile, t_upper_tail};

/// More runs than this are never asked for.
const RUNS_MAX: f64 = 1e6;

/// An estimated difference, variant minus baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// The estimate.
    pub mean: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Degrees of freedom of the standard error.
    pub degrees_of_freedom: f64,
    /// Runs of each of the two that it rests on.
    pub runs: usize,
}

impl Difference {
    /// The mean of `differences` of independent pairs, each of which saw the same traffic. `None` for fewer than
    /// two.
    #[must_use]
    pub fn of_pairs(differences: &[f64]) -> Option<Self> {
        let sample = Sample::of(differences).filter(|sample| sample.count > 1)?;
        Some(Self {
            mean: sample.mean,
            standard_error: sample.standard_error(),
            degrees_of_freedom: (sample.count - 1) as f64,
            runs: sample.count,
        })
    }

    /// The difference of two independent samples that nothing pairs, whose variances may differ (Welch 1947; degrees
    /// of freedom by Satterthwaite). `None` for fewer than two values in either.
    #[must_use]
    pub fn welch(baseline: &[f64], variant: &[f64]) -> Option<Self> {
        let sample = |values| Sample::of(values).filter(|sample| sample.count > 1);
        let (a, b) = (sample(baseline)?, sample(variant)?);
        let square = |sample: &Sample| sample.standard_error() * sample.standard_error();
        let (va, vb) = (square(&a), square(&b));
        let part = |v: f64, count: usize| v * v / (count - 1) as f64;
        let parts = part(va, a.count) + part(vb, b.count);
        let pooled = (a.count + b.count - 2) as f64;
        Some(Self {
            mean: b.mean - a.mean,
            standard_error: (va + vb).sqrt(),
            degrees_of_freedom: if parts > 0.0 { (va + vb) * (va + vb) / parts } else { pooled },
            runs: a.count.min(b.count),
        })
    }

    /// Interval that covers the true difference with this confidence (0 to 1).
    #[must_use]
    pub fn interval(&self, confidence: f64) -> Interval {
        let quantile = t_quantile(self.degrees_of_freedom, 0.5 + confidence / 2.0);
        Interval::around(self.mean, quantile * self.standard_error)
    }

    /// Probability of a difference at least so large in either direction, if there is none in truth.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        if self.mean == 0.0 {
            return 1.0;
        }
        (2.0 * t_upper_tail(self.degrees_of_freedom, (self.mean / self.standard_error).abs())).min(1.0)
    }

    /// Probability of an estimate so near to zero if the true difference is `margin` or more: two one-sided tests
    /// (Schuirmann 1987). A small value shows that the two are equivalent within the margin.
    #[must_use]
    pub fn equivalence_p_value(&self, margin: f64) -> f64 {
        if self.standard_error == 0.0 {
            return if self.mean.abs() <= margin { 0.0 } else { 1.0 };
        }
        let tail = |distance: f64| t_upper_tail(self.degrees_of_freedom, distance / self.standard_error);
        tail(margin - self.mean).max(tail(margin + self.mean))
    }

    /// About how many runs would show this difference at `significance` (two-sided) with probability `power`, if the
    /// estimate is the truth. `None` when it is zero or would take more than a million.
    #[must_use]
    pub fn runs_needed(&self, significance: f64, power: f64) -> Option<u64> {
        let per_run = self.standard_error * (self.runs as f64).sqrt();
        let ratio = per_run / self.mean.abs();
        if ratio.is_nan() || ratio >= RUNS_MAX.sqrt() {
            return None;
        }
        // The quantiles depend on the answer: a few rounds settle it.
        let mut runs = self.runs as f64;
        for _ in 0..8 {
            let freedom = runs - 1.0;
            let sum = t_quantile(freedom, 1.0 - significance / 2.0) + t_quantile(freedom, power);
            runs = (sum * ratio * sum * ratio).ceil().clamp(3.0, RUNS_MAX);
        }
        (runs < RUNS_MAX).then_some(runs as u64)
    }
}
