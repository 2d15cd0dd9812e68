//! One long run, cut into windows of time: how much each figure varies from window to window.

use forerun_sim::observer::Observer;
use forerun_sim::request::{Labels, Outcome, Status};
use forerun_sim::time::Time;

use crate::figures::{FIGURES, FIGURES_COUNT};
use crate::slo::{AggregateLimit, Metric, Slo, Statistic};
use crate::statistics::{percentile_values, pseudo_values};

/// Most requests of a run that is cut into windows: each takes 96 bytes.
pub const ROWS_MAX: usize = 5_000_000;

/// Windows that a run is cut into, if it has enough requests; powers of two can be merged in pairs.
const WINDOWS: [usize; 3] = [32, 16, 8];

/// Requests that a window should have.
const REQUESTS_MIN: usize = 20;

/// The requests of a run, in the order in which they ended, as far as figures need them.
#[derive(Debug)]
pub struct Rows {
    warm_up: Time,
    slo: Slo,
    rows: Vec<Row>,
    too_many: bool,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    arrival: Time,
    ended: Time,
    ttft_ms: Option<f64>,
    tpot_ms: Option<f64>,
    e2e_ms: Option<f64>,
    /// Zero for requests that were never admitted.
    prompt_tokens: u32,
    cached_tokens: u32,
    emitted: u32,
    good: bool,
}

/// A value of each figure for each window, which spread as the figure would, in the order of
/// [`FIGURES`]; absent for figures that windows
/// cannot tell.
pub type WindowValues = [Option<Vec<f64>>; FIGURES_COUNT];

impl Rows {
    /// For a run whose warm-up ends at `warm_up`.
    #[must_use]
    pub fn new(warm_up: Time, slo: Slo) -> Self {
        Self { warm_up, slo, rows: Vec::new(), too_many: false }
    }

    /// Whether there were more requests than are kept.
    #[must_use]
    pub fn too_many(&self) -> bool {
        self.too_many
    }
}

impl Observer for Rows {
    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        if outcome.request.arrival < self.warm_up {
            return;
        }
        if self.rows.len() >= ROWS_MAX {
            self.too_many = true;
            return;
        }
        let completed = outcome.status == Status::Completed;
        let admitted = outcome.scheduled.is_some();
        let millis =
            |span: Option<forerun_sim::time::Span>| span.filter(|_| completed).map(|s| s.as_millis_f64());
        self.rows.push(Row {
            arrival: outcome.request.arrival,
            ended: outcome.ended,
            ttft_ms: millis(outcome.ttft()),
            tpot_ms: outcome.tpot_nanos().map(|nanos| nanos / 1e6),
            e2e_ms: millis(outcome.e2e()),
            prompt_tokens: if admitted { outcome.request.prompt.tokens() } else { 0 },
            cached_tokens: if admitted { outcome.cached_tokens } else { 0 },
            emitted: outcome.emitted,
            good: self.slo.good(outcome, labels.name(outcome.request.class)),
        });
    }
}

/// Windows of equal length between two instants.
#[derive(Clone, Copy)]
struct Windows {
    start: Time,
    nanos: u64,
    count: usize,
}

impl Windows {
    /// Windows over the arrivals of all `runs`. `None` when there are too few requests, or all arrive at once.
    fn over(runs: &[Rows]) -> Option<Self> {
        let arrivals = || runs.iter().flat_map(|run| run.rows.iter().map(|row| row.arrival));
        let (start, last) = (arrivals().min()?, arrivals().max()?);
        let fewest = runs.iter().map(|run| run.rows.len()).min()?;
        let count = WINDOWS.into_iter().find(|count| fewest >= count * REQUESTS_MIN)?;
        (start < last).then(|| Self { start, nanos: last.since(start).as_nanos() + 1, count })
    }

    /// The window of `at`; `None` after the last.
    fn of(&self, at: Time) -> Option<usize> {
        let from_start = at.saturating_since(self.start).as_nanos();
        let window = u128::from(from_start) * self.count as u128 / u128::from(self.nanos);
        Some(window as usize).filter(|&window| window < self.count)
    }
}

/// Cuts the runs of all variants at the same instants. `None` when there are too few requests, or all arrive at once.
#[must_use]
pub fn window_values(runs: &[Rows]) -> Option<Vec<WindowValues>> {
    let windows = Windows::over(runs)?;
    Some(runs.iter().map(|run| run_values(&run.rows, windows)).collect())
}

/// Values of the windows of one run for each limit on the whole run, in the order of [`Slo::checks`]: they spread as the
/// limited figure would. Absent for limits that windows cannot tell: on largest values, gaps between tokens, queues.
/// `None` when there are too few requests, or all arrive at once.
#[must_use]
pub fn limit_values(run: &Rows) -> Option<Vec<Option<Vec<f64>>>> {
    let windows = Windows::over(std::slice::from_ref(run))?;
    let attainment = run.slo.attainment.map(|_| ratio(&run.rows, windows, goodness));
    let aggregates = run.slo.aggregate.iter().map(|limit| limited(&run.rows, windows, limit));
    Some(attainment.into_iter().chain(aggregates).collect())
}

fn limited(rows: &[Row], windows: Windows, limit: &AggregateLimit) -> Option<Vec<f64>> {
    let values = match limit.metric {
        Metric::Ttft => latency(rows, windows, |row| row.ttft_ms),
        Metric::Tpot => latency(rows, windows, |row| row.tpot_ms),
        Metric::E2e => latency(rows, windows, |row| row.e2e_ms),
        Metric::Itl | Metric::Queue => return None,
    };
    let percentile = |share: f64| percentile_values(&values, windows.count, share);
    match limit.statistic {
        Statistic::Mean => mean(&values, windows.count),
        Statistic::P50 => percentile(0.50),
        Statistic::P90 => percentile(0.90),
        Statistic::P95 => percentile(0.95),
        Statistic::P99 => percentile(0.99),
        Statistic::Max => None,
    }
}

/// A latency of all requests that have it, in ascending order, each with its window.
fn latency(rows: &[Row], windows: Windows, figure: fn(&Row) -> Option<f64>) -> Vec<(f64, usize)> {
    let values = rows.iter().filter_map(|row| Some((figure(row)?, windows.of(row.arrival)?)));
    let mut values: Vec<(f64, usize)> = values.collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    values
}

fn goodness(row: &Row) -> (f64, f64) {
    (f64::from(u8::from(row.good)), 1.0)
}

fn run_values(rows: &[Row], windows: Windows) -> WindowValues {
    let latency = |figure: fn(&Row) -> Option<f64>| latency(rows, windows, figure);
    let (ttft, tpot, e2e) =
        (latency(|row| row.ttft_ms), latency(|row| row.tpot_ms), latency(|row| row.e2e_ms));
    let ratio = |of: fn(&Row) -> (f64, f64)| ratio(rows, windows, of);
    let rate = |of: fn(&Row) -> f64| rate(rows, windows, of);
    FIGURES.map(|figure| match figure.key {
        "ttft_mean_ms" => mean(&ttft, windows.count),
        "ttft_p50_ms" => percentile_values(&ttft, windows.count, 0.50),
        "ttft_p95_ms" => percentile_values(&ttft, windows.count, 0.95),
        "ttft_p99_ms" => percentile_values(&ttft, windows.count, 0.99),
        "tpot_mean_ms" => mean(&tpot, windows.count),
        "tpot_p95_ms" => percentile_values(&tpot, windows.count, 0.95),
        "e2e_mean_ms" => mean(&e2e, windows.count),
        "e2e_p95_ms" => percentile_values(&e2e, windows.count, 0.95),
        "goodput_requests_per_s" => Some(rate(|row| f64::from(u8::from(row.good)))),
        "output_tokens_per_s" => Some(rate(|row| f64::from(row.emitted))),
        "attainment" => ratio(goodness),
        "hit_rate" => ratio(|row| (f64::from(row.cached_tokens), f64::from(row.prompt_tokens))),
        // Steps and gaps between tokens belong to no request.
        _ => None,
    })
}

/// Pseudo-values of a mean.
fn mean(values: &[(f64, usize)], windows: usize) -> Option<Vec<f64>> {
    let mut sums = vec![(0.0, 0.0); windows];
    for &(value, window) in values {
        sums[window].0 += value;
        sums[window].1 += 1.0;
    }
    of_sums(&sums)
}

/// Pseudo-values of a ratio of sums.
fn ratio(rows: &[Row], windows: Windows, of: impl Fn(&Row) -> (f64, f64)) -> Option<Vec<f64>> {
    let mut sums = vec![(0.0, 0.0); windows.count];
    for (row, window) in rows.iter().filter_map(|row| Some((row, windows.of(row.arrival)?))) {
        let (part, whole) = of(row);
        sums[window].0 += part;
        sums[window].1 += whole;
    }
    of_sums(&sums)
}

fn of_sums(sums: &[(f64, f64)]) -> Option<Vec<f64>> {
    let (part, whole) = sums.iter().fold((0.0, 0.0), |(part, whole), sum| (part + sum.0, whole + sum.1));
    let without: Option<Vec<f64>> =
        sums.iter().map(|sum| (whole > sum.1).then(|| (part - sum.0) / (whole - sum.1))).collect();
    Some(pseudo_values(part / whole, &without?))
}

/// What requests contribute to each window in which they end, per second.
fn rate(rows: &[Row], windows: Windows, of: impl Fn(&Row) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; windows.count];
    for (row, window) in rows.iter().filter_map(|row| Some((row, windows.of(row.ended)?))) {
        sums[window] += of(row);
    }
    let seconds = windows.nanos as f64 / 1e9 / windows.count as f64;
    sums.into_iter().map(|sum| sum / seconds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::completed;
    use forerun_sim::time::Span;

    /// A request each second whose TTFT is `ttft` ms of its number.
    fn run(requests: u64, ttft: impl Fn(u64) -> u64) -> Rows {
        let mut rows = Rows::new(Time::ZERO, Slo::default());
        for number in 0..requests {
            let ttft = ttft(number);
            rows.ended(&completed(number * 1000, ttft, ttft + 100, 11), &Labels::default());
        }
        rows
    }

    fn values(rows: &WindowValues, key: &str) -> Vec<f64> {
        let place = FIGURES.iter().position(|figure| figure.key == key).unwrap();
        rows[place].clone().unwrap()
    }

    #[test]
    fn windows_have_the_means_of_the_requests_that_arrive_in_them() {
        // 32 windows of 20 requests; those of window w wait 100 + w ms.
        let runs = [run(640, |number| 100 + number / 20), run(640, |_| 100)];
        let [first, second] = &window_values(&runs).unwrap()[..] else { panic!("two runs") };
        for (window, value) in values(first, "ttft_mean_ms").into_iter().enumerate() {
            assert!((value - 100.0 - window as f64).abs() < 1e-9, "{window}: {value}");
        }
        assert!(values(second, "ttft_p95_ms").iter().all(|value| (value - 100.0).abs() < 1e-9));
        assert!(values(second, "hit_rate").iter().all(|value| (value - 0.4).abs() < 1e-9));
        assert!(values(second, "attainment").iter().all(|value| (value - 1.0).abs() < 1e-9));
        let tokens: f64 = values(second, "output_tokens_per_s").iter().sum::<f64>() / 32.0;
        assert!((tokens - 11.0).abs() < 0.1, "{tokens}");
        let place = FIGURES.iter().position(|figure| figure.key == "gpu_busy").unwrap();
        assert!(first[place].is_none());
    }

    #[test]
    fn too_few_requests_and_a_burst_have_no_windows() {
        assert!(window_values(&[run(100, |_| 50)]).is_none());
        let mut burst = Rows::new(Time::ZERO, Slo::default());
        (0..1000).for_each(|_| burst.ended(&completed(0, 50, 100, 2), &Labels::default()));
        assert!(window_values(&[burst]).is_none());
    }

    #[test]
    fn limits_have_values_where_windows_tell_of_them() {
        let slo = Slo {
            attainment: Some(0.9),
            aggregate: [(Metric::Ttft, Statistic::P90), (Metric::Itl, Statistic::Mean)]
                .map(|(metric, statistic)| AggregateLimit { metric, statistic, limit: Span::from_secs(1) })
                .into(),
            ..Slo::default()
        };
        let run = Rows { slo, ..run(640, |number| 100 + number / 20) };
        let values = limit_values(&run).unwrap();
        assert!(values[0].as_ref().unwrap().iter().all(|value| (value - 1.0).abs() < 1e-9));
        let ttft = values[1].as_ref().unwrap();
        assert!(
            (ttft.iter().sum::<f64>() / 32.0 - 128.0).abs() < 1.0,
            "the 90th percentile of 100 to 131: {ttft:?}"
        );
        assert!(values[2].is_none() && values.len() == 3);
    }
}
