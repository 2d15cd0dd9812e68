//! Distributions of whole numbers in bounded memory.

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

/// Exact mean, spread and extremes; percentiles within 0.1 % (exact below 2048). A table of at most 55,000
/// counters, whatever is counted.
#[derive(Clone, Debug)]
pub(super) struct Distribution {
    counts: Histogram<u64>,
    sum: u128,
    squares: f64,
    max: u64,
}

/// Figures of a distribution; `null` without samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Figures {
    /// Mean.
    pub mean: Option<f64>,
    /// Standard deviation over mean.
    pub cv: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90 % are at most this.
    pub p90: Option<f64>,
    /// 99 % are at most this.
    pub p99: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

impl Distribution {
    pub(super) fn new() -> Self {
        let counts = Histogram::new(3).expect("3 digits are within 0 to 5");
        Self { counts, sum: 0, squares: 0.0, max: 0 }
    }

    pub(super) fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    pub(super) fn record_n(&mut self, value: u64, count: u64) {
        if count > 0 {
            self.counts.record_n(value, count).expect("the table grows to any value");
            self.sum += u128::from(value) * u128::from(count);
            self.squares += value as f64 * value as f64 * count as f64;
            self.max = self.max.max(value);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.len()
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum as f64 / self.count() as f64)
    }

    /// The smallest value that at least the share `quantile` of all do not exceed.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        (self.count() > 0).then(|| {
            let bucket = self.counts.value_at_quantile(quantile);
            self.counts.median_equivalent(bucket).min(self.max) as f64
        })
    }

    /// Variance over the mean, of the population.
    pub(super) fn dispersion(&self) -> Option<f64> {
        let mean = self.mean().filter(|&mean| mean > 0.0)?;
        Some((self.squares / self.count() as f64 - mean * mean).max(0.0) / mean)
    }

    /// The share of samples that are at most `value`.
    pub(super) fn share_up_to(&self, value: u64) -> Option<f64> {
        (self.count() > 0).then(|| self.counts.count_between(0, value) as f64 / self.count() as f64)
    }

    /// The figures, in units of `unit` samples.
    pub(super) fn figures(&self, unit: f64) -> Figures {
        let cv = self.mean().zip(self.dispersion()).map(|(mean, over)| libm::sqrt(over / mean));
        let scaled = |value: Option<f64>| value.map(|value| value / unit);
        Figures {
            mean: scaled(self.mean()),
            cv,
            p50: scaled(self.quantile(0.50)),
            p90: scaled(self.quantile(0.90)),
            p99: scaled(self.quantile(0.99)),
            max: scaled((self.count() > 0).then_some(self.max as f64)),
        }
    }
}

/// How two measures of a request go together, in constant memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Correlation {
    count: f64,
    mean: [f64; 2],
    /// Sums of products of deviations: xx, yy, xy.
    products: [f64; 3],
}

impl Correlation {
    /// Adds a pair (Welford, 1962: no large sums are subtracted).
    pub(super) fn record(&mut self, x: f64, y: f64) {
        self.count += 1.0;
        let (dx, dy) = (x - self.mean[0], y - self.mean[1]);
        self.mean[0] += dx / self.count;
        self.mean[1] += dy / self.count;
        let after = y - self.mean[1];
        self.products[0] += dx * (x - self.mean[0]);
        self.products[1] += dy * after;
        self.products[2] += dx * after;
    }

    /// Pearson's coefficient; `None` where one of the two does not vary.
    pub(super) fn pearson(&self) -> Option<f64> {
        let [xx, yy, xy] = self.products;
        (xx > 0.0 && yy > 0.0).then(|| xy / libm::sqrt(xx * yy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_to_hundred() {
        let mut lengths = Distribution::new();
        (1..=100).for_each(|value| lengths.record(value));
        let figures = lengths.figures(1.0);
        assert_eq!(
            (figures.mean, figures.p50, figures.p90, figures.p99, figures.max),
            (Some(50.5), Some(50.0), Some(90.0), Some(99.0), Some(100.0))
        );
        // The variance of 1..=n is (n^2 - 1) / 12.
        let cv = libm::sqrt(9999.0 / 12.0) / 50.5;
        assert!((figures.cv.unwrap() - cv).abs() < 1e-12);
        assert_eq!(lengths.share_up_to(25), Some(0.25));
        assert_eq!(Distribution::new().figures(1.0), Figures::default());
    }

    #[test]
    fn correlation_is_one_on_a_line_and_zero_on_a_square() {
        let pearson = |pairs: &[(f64, f64)]| {
            let mut together = Correlation::default();
            pairs.iter().for_each(|&(x, y)| together.record(x, y));
            together.pearson()
        };
        assert!((pearson(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).unwrap() - 1.0).abs() < 1e-12);
        assert!((pearson(&[(1.0, 3.0), (2.0, 1.0)]).unwrap() + 1.0).abs() < 1e-12);
        assert!(pearson(&[(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]).unwrap().abs() < 1e-12);
        assert_eq!(pearson(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }
}
