//! Latency distributions in bounded memory.

use forerun_sim::time::Span;
use hdrhistogram::{Counter, Histogram};

use crate::summary::LatencyMs;

/// Latencies counted in buckets no wider than 0.1 % of their value, with exact mean and maximum.
///
/// Buckets are at nanosecond resolution from the start, so the bound holds for small values too. The table
/// grows with the logarithm of the largest value: 1024 counters for each doubling, about 27,000 counters at
/// 100 seconds. `C` is the counter type: `u32` halves the memory where no bucket can see 2^32 samples.
#[derive(Clone, Debug)]
pub struct LatencyHistogram<C: Counter = u64> {
    buckets: Histogram<C>,
    sum_nanos: u128,
    min: Span,
    max: Span,
}

/// Significant decimal digits that buckets keep apart: 3 digits are 0.1 %.
const SIGNIFICANT_DIGITS: u8 = 3;

impl<C: Counter> Default for LatencyHistogram<C> {
    fn default() -> Self {
        let buckets = Histogram::new(SIGNIFICANT_DIGITS).expect("3 digits are within 0 to 5");
        Self { buckets, sum_nanos: 0, min: Span::from_nanos(u64::MAX), max: Span::ZERO }
    }
}

impl<C: Counter> LatencyHistogram<C> {
    /// Adds one sample.
    pub fn record(&mut self, value: Span) {
        self.record_n(value, C::one());
    }

    /// Adds `count` equal samples.
    pub fn record_n(&mut self, value: Span, count: C) {
        if count.is_zero() {
            return;
        }
        self.buckets.record_n(value.as_nanos(), count).expect("the table grows to any u64 value");
        self.sum_nanos += u128::from(value.as_nanos()) * u128::from(count.as_u64());
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// How many samples there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.len()
    }

    /// The exact mean in milliseconds; `None` without samples.
    #[must_use]
    pub fn mean_ms(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum_nanos as f64 / self.count() as f64 / 1e6)
    }

    /// The smallest sample that at least the share `quantile` (0 to 1) of all samples do not exceed, within
    /// 0.1 %, in milliseconds; `None` without samples.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        (self.count() > 0).then(|| {
            let bucket = self.buckets.value_at_quantile(quantile);
            let middle = Span::from_nanos(self.buckets.median_equivalent(bucket));
            middle.clamp(self.min, self.max).as_millis_f64()
        })
    }

    /// The exact maximum in milliseconds; `None` without samples.
    #[must_use]
    pub fn max_ms(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.max.as_millis_f64())
    }

    /// The figures that summaries show.
    #[must_use]
    pub fn summary(&self) -> LatencyMs {
        LatencyMs {
            mean: self.mean_ms(),
            p50: self.quantile_ms(0.50),
            p90: self.quantile_ms(0.90),
            p95: self.quantile_ms(0.95),
            p99: self.quantile_ms(0.99),
            max: self.max_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Latencies of every magnitude from nanoseconds to days.
    fn latency() -> impl Strategy<Value = u64> {
        (0_u32..47, any::<u64>()).prop_map(|(bits, random)| random % (2 << bits))
    }

    proptest! {
        #[test]
        fn percentiles_are_within_a_thousandth_of_the_order_statistic(
            mut samples in prop::collection::vec(latency(), 1..400)
        ) {
            let mut histogram = LatencyHistogram::<u64>::default();
            for &nanos in &samples {
                histogram.record(Span::from_nanos(nanos));
            }
            samples.sort_unstable();
            for percent in [50, 90, 95, 99] {
                let rank = (samples.len() * percent).div_ceil(100);
                let exact = samples[rank - 1] as f64 / 1e6;
                let found = histogram.quantile_ms(percent as f64 / 100.0).unwrap();
                prop_assert!((found - exact).abs() <= exact * 1e-3, "p{percent}: {found} for {exact}");
            }
        }

        #[test]
        fn mean_and_maximum_are_exact(samples in prop::collection::vec((latency(), 1_u32..1000), 1..50)) {
            let mut histogram = LatencyHistogram::<u32>::default();
            for &(nanos, count) in &samples {
                histogram.record_n(Span::from_nanos(nanos), count);
            }
            let count: u128 = samples.iter().map(|&(_, count)| u128::from(count)).sum();
            let sum: u128 = samples.iter().map(|&(nanos, count)| u128::from(nanos) * u128::from(count)).sum();
            let max = samples.iter().map(|&(nanos, _)| nanos).max().unwrap();
            prop_assert_eq!(u128::from(histogram.count()), count);
            prop_assert_eq!(histogram.mean_ms(), Some(sum as f64 / count as f64 / 1e6));
            prop_assert_eq!(histogram.max_ms(), Some(max as f64 / 1e6));
        }
    }

    #[test]
    fn without_samples_there_are_no_figures() {
        let mut histogram = LatencyHistogram::<u64>::default();
        histogram.record_n(Span::from_secs(1), 0);
        assert_eq!(histogram.summary(), LatencyMs::default());
    }

    #[test]
    fn percentiles_of_equal_samples_are_that_sample() {
        let mut histogram = LatencyHistogram::<u64>::default();
        histogram.record_n(Span::from_millis(14), 25);
        assert_eq!(histogram.quantile_ms(0.5), Some(14.0));
    }

    #[test]
    fn the_longest_accepted_span_fits() {
        let mut histogram = LatencyHistogram::<u64>::default();
        histogram.record(forerun_sim::time::SPAN_MAX);
        assert_eq!(histogram.count(), 1);
    }
}
