//! Latency distributions in bounded memory.

use std::ops::AddAssign;

use forerun_sim::time::Span;

use crate::summary::LatencyMs;

/// Latencies counted in buckets no wider than 0.1 % of their value, with exact mean and maximum.
///
/// The layout is that of HdrHistogram at three significant digits: buckets of one nanosecond up to 2048 ns, then 1024
/// buckets of equal width for each doubling. The table grows with the logarithm of the largest value: about 27,000
/// counters at 100 seconds. `C` is the counter type: `u32` halves the memory where no bucket can see 2^32 samples.
#[derive(Clone, Debug)]
pub struct LatencyHistogram<C = u64> {
    buckets: Vec<C>,
    count: u64,
    sum_nanos: u128,
    min: Span,
    max: Span,
}

/// What a bucket counts with.
pub trait Counter: Copy + Default + AddAssign + From<u32> + Into<u64> {}

impl Counter for u32 {}
impl Counter for u64 {}

/// Each doubling has 2 to the power of this many buckets.
const BUCKET_BITS: u32 = 10;
const BUCKETS_PER_DOUBLING: usize = 1 << BUCKET_BITS;

/// The bucket of a value: below the first two doublings' worth one for each nanosecond, then each twice as wide as
/// those of the doubling before.
fn bucket_of(value: Span) -> usize {
    let nanos = value.as_nanos();
    let width_bits = (u64::BITS - 1 - BUCKET_BITS).saturating_sub(nanos.leading_zeros());
    (width_bits as usize) * BUCKETS_PER_DOUBLING + (nanos >> width_bits) as usize
}

/// The middle of a bucket, rounded up where it has none.
fn middle_of(bucket: usize) -> Span {
    let width_bits = (bucket / BUCKETS_PER_DOUBLING).saturating_sub(1);
    let lowest = (bucket - width_bits * BUCKETS_PER_DOUBLING) as u64;
    Span::from_nanos((lowest << width_bits) + ((1 << width_bits) >> 1))
}

impl<C: Counter> Default for LatencyHistogram<C> {
    fn default() -> Self {
        let (min, max) = (Span::from_nanos(u64::MAX), Span::ZERO);
        Self { buckets: Vec::new(), count: 0, sum_nanos: 0, min, max }
    }
}

impl<C: Counter> LatencyHistogram<C> {
    /// Adds one sample.
    pub fn record(&mut self, value: Span) {
        self.record_n(value, C::from(1));
    }

    /// Adds `count` equal samples.
    pub fn record_n(&mut self, value: Span, count: C) {
        let samples: u64 = count.into();
        if samples == 0 {
            return;
        }
        self.note(value, value, samples, u128::from(value.as_nanos()) * u128::from(samples));
        *self.bucket(value) += count;
    }

    /// Samples between `min` and `max` that add up to `sum_nanos`: all that is known of them beside their buckets.
    fn note(&mut self, min: Span, max: Span, samples: u64, sum_nanos: u128) {
        self.count += samples;
        self.sum_nanos += sum_nanos;
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }

    /// The counter of a value.
    fn bucket(&mut self, value: Span) -> &mut C {
        let bucket = bucket_of(value);
        if bucket >= self.buckets.len() {
            self.grow(bucket);
        }
        &mut self.buckets[bucket]
    }

    /// Buckets come by whole doublings.
    #[cold]
    fn grow(&mut self, bucket: usize) {
        self.buckets.resize((bucket + 1).next_multiple_of(BUCKETS_PER_DOUBLING), C::default());
    }

    /// How many samples there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
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
        let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let doublings = self.buckets.chunks_exact(BUCKETS_PER_DOUBLING).enumerate();
        for (doubling, counts) in doublings.skip(bucket_of(self.min) / BUCKETS_PER_DOUBLING) {
            let here = counts.iter().map(|&count| -> u64 { count.into() }).sum::<u64>();
            if seen + here < rank {
                seen += here;
                continue;
            }
            let within = counts.iter().position(|&count| {
                seen += count.into();
                seen >= rank
            })?;
            let middle = middle_of(doubling * BUCKETS_PER_DOUBLING + within);
            return Some(middle.clamp(self.min, self.max).as_millis_f64());
        }
        None
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

impl LatencyHistogram<u64> {
    /// Adds `count` samples of each of `values`, which add up to `sum` and none of which is smaller than the one
    /// before it.
    pub fn record_rising(&mut self, values: &[Span], sum: Span, count: u64) {
        debug_assert!(values.is_sorted() && values.iter().copied().sum::<Span>() == sum);
        if let (&[first, ..], &[.., last]) = (values, values)
            && count > 0
        {
            let sum_nanos = u128::from(sum.as_nanos()) * u128::from(count);
            self.note(first, last, count * values.len() as u64, sum_nanos);
            self.count_rising(values, first, last, count);
        }
    }

    /// Values between equals are equal: only where the buckets of first and last differ do the others matter.
    fn count_rising(&mut self, values: &[Span], first: Span, last: Span, count: u64) {
        if bucket_of(first) == bucket_of(last) {
            *self.bucket(last) += count * values.len() as u64;
        } else {
            let (lower, upper) = values.split_at(values.len() / 2);
            self.count_rising(lower, first, lower[lower.len() - 1], count);
            self.count_rising(upper, upper[0], last, count);
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

    proptest! {
        #[test]
        fn rising_samples_count_as_one_by_one(
            mut samples in prop::collection::vec(latency(), 0..100), count in 0_u64..4
        ) {
            samples.sort_unstable();
            let samples: Vec<Span> = samples.into_iter().map(Span::from_nanos).collect();
            let (mut together, mut single) = (LatencyHistogram::default(), LatencyHistogram::default());
            together.record_rising(&samples, samples.iter().copied().sum(), count);
            samples.iter().for_each(|&sample| single.record_n(sample, count));
            prop_assert_eq!(&together.buckets, &single.buckets);
            prop_assert_eq!(together.count(), single.count());
            prop_assert_eq!(together.summary(), single.summary());
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
