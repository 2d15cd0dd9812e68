//! When requests arrive: rates, burstiness, idle gaps.

use forerun_sim::time::{NANOS_PER_SECOND, Span, Time};
use schemars::JsonSchema;
use serde::Serialize;

use super::lengths::{Distribution, Figures};

/// Widths of the bins in which arrivals are counted, in seconds.
const BIN_SECONDS: [u64; 3] = [1, 10, 60];
/// The place of the minute among them.
const MINUTE: usize = 2;
/// The percentile of one-minute rates that counts as sustained.
const SUSTAINED: f64 = 0.95;

/// Rates and how uneven they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Rates {
    /// Requests per second over the whole span; `null` when all arrive at once.
    pub mean_per_s: Option<f64>,
    /// 95 % of the complete minutes have at most this rate; `null` without a complete minute.
    pub sustained_per_s: Option<f64>,
    /// Coefficient of variation of the gaps between arrivals: 1 for a Poisson process.
    pub gap_cv: Option<f64>,
    /// The longest gap between two arrivals.
    pub gap_max_s: Option<f64>,
    /// Arrivals counted in bins of several widths.
    pub bins: Vec<BinFigures>,
}

/// Arrivals counted in complete bins of one width.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct BinFigures {
    /// Width of a bin.
    pub seconds: u64,
    /// Complete bins.
    pub bins: u64,
    /// The fullest bin over the mean one.
    pub peak_to_mean: Option<f64>,
    /// Variance over mean of the counts (index of dispersion): 1 for a Poisson process.
    pub dispersion: Option<f64>,
    /// Share of bins without any arrival.
    pub empty_share: Option<f64>,
}

/// Time in which nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct IdleGaps {
    /// Gaps between arrivals of at least this length.
    pub at_least_s: f64,
    /// How many.
    pub gaps: u64,
    /// How many in a day of such traffic.
    pub per_day: Option<f64>,
    /// Their length together.
    pub total_s: f64,
    /// Their share of the whole span.
    pub share_of_time: Option<f64>,
    /// What is left of them, together, when the first `at_least_s` of each are not used: what scaling down
    /// after a cooldown of that length saves.
    pub beyond_s: f64,
}

/// Counts arrivals.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    begin: Time,
    last: Option<Time>,
    gaps: Distribution,
    gap_max: Span,
    bins: [Bins; BIN_SECONDS.len()],
    idle: Idle,
}

#[derive(Clone, Debug)]
struct Bins {
    width: Span,
    current: u64,
    in_current: u64,
    counts: Distribution,
    empty: u64,
}

/// Gaps by the longest threshold that they reach.
#[derive(Clone, Debug)]
struct Idle {
    thresholds: Vec<Span>,
    reached: Vec<(u64, u128)>,
}

impl Arrivals {
    /// Counts arrivals from `begin` on; idle gaps by `thresholds`.
    pub(super) fn new(begin: Time, thresholds: &[Span]) -> Self {
        let mut thresholds: Vec<Span> = thresholds.iter().copied().filter(|t| *t > Span::ZERO).collect();
        thresholds.sort_unstable();
        thresholds.dedup();
        let reached = vec![(0, 0); thresholds.len()];
        Self {
            begin,
            last: None,
            gaps: Distribution::new(),
            gap_max: Span::ZERO,
            bins: BIN_SECONDS.map(|seconds| Bins {
                width: Span::from_secs(seconds),
                current: 0,
                in_current: 0,
                counts: Distribution::new(),
                empty: 0,
            }),
            idle: Idle { thresholds, reached },
        }
    }

    /// A request arrives at `at`, never before an earlier one.
    pub(super) fn record(&mut self, at: Time) {
        if let Some(last) = self.last {
            let gap = at.saturating_since(last);
            self.gaps.record(gap.as_nanos());
            self.gap_max = self.gap_max.max(gap);
            self.idle.record(gap);
        }
        self.last = Some(at);
        let since = at.saturating_since(self.begin);
        self.bins.iter_mut().for_each(|bins| bins.record(since));
    }

    /// From the beginning to the last arrival.
    pub(super) fn span(&self) -> Span {
        self.last.map_or(Span::ZERO, |last| last.saturating_since(self.begin))
    }

    pub(super) fn rates(&self) -> Rates {
        let requests = self.last.map_or(0, |_| self.gaps.count() + 1);
        let span_s = self.span().as_secs_f64();
        let gaps = self.gaps.figures(NANOS_PER_SECOND as f64);
        let minutes = &self.bins[MINUTE].counts;
        Rates {
            mean_per_s: (span_s > 0.0).then(|| requests as f64 / span_s),
            sustained_per_s: minutes.quantile(SUSTAINED).map(|count| count / 60.0),
            gap_cv: gaps.cv,
            gap_max_s: gaps.max,
            bins: self.bins.iter().map(Bins::figures).collect(),
        }
    }

    pub(super) fn idle_gaps(&self) -> Vec<IdleGaps> {
        let span = self.span().as_nanos() as f64;
        let seconds = |nanos: u128| nanos as f64 / NANOS_PER_SECOND as f64;
        let mut all = Vec::new();
        let (mut gaps, mut total) = (0, 0);
        for (threshold, reached) in self.idle.thresholds.iter().zip(&self.idle.reached).rev() {
            gaps += reached.0;
            total += reached.1;
            all.push(IdleGaps {
                at_least_s: threshold.as_secs_f64(),
                gaps,
                per_day: (span > 0.0).then(|| gaps as f64 * 86_400.0 * NANOS_PER_SECOND as f64 / span),
                total_s: seconds(total),
                share_of_time: (span > 0.0).then(|| total as f64 / span),
                beyond_s: seconds(total - u128::from(gaps) * u128::from(threshold.as_nanos())),
            });
        }
        all.reverse();
        all
    }
}

impl Bins {
    fn record(&mut self, since: Span) {
        let bin = since.as_nanos() / self.width.as_nanos();
        if bin > self.current {
            self.counts.record(self.in_current);
            self.empty += u64::from(self.in_current == 0);
            let skipped = bin - self.current - 1;
            self.counts.record_n(0, skipped);
            self.empty += skipped;
            (self.current, self.in_current) = (bin, 0);
        }
        self.in_current += 1;
    }

    fn figures(&self) -> BinFigures {
        let bins = self.counts.count();
        let Figures { mean, max, .. } = self.counts.figures(1.0);
        let mean = mean.filter(|&mean| mean > 0.0);
        BinFigures {
            seconds: self.width.as_nanos() / NANOS_PER_SECOND,
            bins,
            peak_to_mean: max.zip(mean).map(|(max, mean)| max / mean),
            dispersion: self.counts.dispersion(),
            empty_share: (bins > 0).then(|| self.empty as f64 / bins as f64),
        }
    }
}

impl Idle {
    fn record(&mut self, gap: Span) {
        let reached = self.thresholds.partition_point(|&threshold| threshold <= gap);
        if let Some((count, total)) = reached.checked_sub(1).and_then(|at| self.reached.get_mut(at)) {
            *count += 1;
            *total += u128::from(gap.as_nanos());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Span {
        Span::from_secs_f64(seconds).unwrap()
    }

    fn measured(begin: f64, thresholds: &[f64], at: impl IntoIterator<Item = f64>) -> Arrivals {
        let thresholds: Vec<Span> = thresholds.iter().map(|&t| seconds(t)).collect();
        let mut arrivals = Arrivals::new(Time::ZERO + seconds(begin), &thresholds);
        at.into_iter().for_each(|at| arrivals.record(Time::ZERO + seconds(at)));
        arrivals
    }

    #[test]
    fn a_steady_stream_has_no_burstiness() {
        let rates = measured(0.0, &[], (0..=1200).map(|k| f64::from(k) * 0.5)).rates();
        assert_eq!((rates.sustained_per_s, rates.gap_max_s), (Some(2.0), Some(0.5)));
        assert!(rates.gap_cv.unwrap() < 1e-6);
        for bins in rates.bins {
            assert_eq!(bins.peak_to_mean, Some(1.0));
            assert_eq!((bins.dispersion, bins.empty_share), (Some(0.0), Some(0.0)));
            assert_eq!(bins.bins, 600 / bins.seconds, "the last, incomplete one is left out");
        }
    }

    #[test]
    fn the_sustained_rate_is_that_of_the_95th_of_100_minutes() {
        // Minute m has m + 1 arrivals.
        let minute = |m: u32| (0..=m).map(move |k| f64::from(m) * 60.0 + f64::from(k) * 0.5);
        let rates = measured(0.0, &[], (0..100).flat_map(minute).chain([6000.0])).rates();
        assert_eq!(rates.sustained_per_s, Some(95.0 / 60.0));
        assert_eq!(rates.bins[2].peak_to_mean, Some(100.0 / 50.5));
    }

    #[test]
    fn idle_time_is_counted_by_length_and_past_a_cooldown() {
        let arrivals = measured(0.0, &[60.0, 10.0], [0.0, 5.0, 20.0, 25.0, 125.0, 150.0]);
        let [short, long]: [IdleGaps; 2] = arrivals.idle_gaps().try_into().unwrap();
        assert_eq!((short.at_least_s, short.gaps, short.total_s, short.beyond_s), (10.0, 3, 140.0, 110.0));
        assert_eq!(short.share_of_time, Some(140.0 / 150.0));
        assert_eq!((long.at_least_s, long.gaps, long.total_s, long.beyond_s), (60.0, 1, 100.0, 40.0));
        assert_eq!(long.per_day, Some(86_400.0 / 150.0));
    }

    #[test]
    fn bins_count_from_the_end_of_the_warm_up() {
        let rates = measured(30.0, &[], (30..=150).map(f64::from)).rates();
        assert_eq!((rates.bins[2].bins, rates.sustained_per_s), (2, Some(1.0)));
        assert_eq!(rates.mean_per_s, Some(121.0 / 120.0));
    }

    #[test]
    fn a_few_arrivals_have_no_made_up_rates() {
        assert_eq!(measured(0.0, &[1.0], []).rates().mean_per_s, None);
        let burst = measured(0.0, &[1.0], [0.0, 0.0, 0.0]).rates();
        assert_eq!((burst.mean_per_s, burst.sustained_per_s, burst.gap_cv), (None, None, None));
    }

    #[test]
    fn centuries_of_silence_cost_nothing() {
        let arrivals = measured(0.0, &[3600.0], [0.0, 4e9]);
        assert_eq!(arrivals.idle_gaps()[0].gaps, 1);
        assert_eq!(arrivals.rates().bins[0].bins, 4_000_000_000);
    }
}
