//! What is held against each other of a measured and a simulated run: means over groups of requests.
//!
//! A single request's times depend on where in a step it happened to arrive, which no model foretells; the mean over some
//! twenty that were sent after one another does not. Groups are stretches of the run, in which the load varies, and
//! within them the short, middling and long prompts, if there are such.

use forerun_workloads::trace::measured::MeasuredRun;

use crate::validate::measured::{Times, quantile};

/// Requests of a stretch.
const STRETCH: usize = 25;
/// Stretches of a run.
const STRETCHES: std::ops::RangeInclusive<usize> = 4..=40;
/// Prompts count as of several lengths when the 90th percentile is this much longer than the 10th.
const SEVERAL_LENGTHS: f64 = 1.3;
/// Groups by length within a stretch.
const LENGTHS: usize = 3;
/// Fewer requests are no group.
const REQUESTS_MIN: usize = 3;

/// What is measured of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    Ttft,
    Tpot,
    /// Where answers are not streamed.
    E2e,
}

impl Metric {
    fn of(self, times: &Times) -> Option<f64> {
        let gaps = f64::from(times.tokens.checked_sub(1)?);
        let value = match self {
            Self::Ttft => times.first_s? - times.arrival_s,
            Self::Tpot if gaps > 0.0 => (times.last_s - times.first_s?) / gaps,
            Self::Tpot => return None,
            Self::E2e => times.last_s - times.arrival_s,
        };
        // Logarithms are taken: what came in no time says nothing.
        (value > 0.0).then_some(value)
    }
}

/// Requests whose mean is held against the simulation's.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// What is averaged.
    pub(super) metric: Metric,
    /// The stretch of its run: groups of one stretch err together.
    pub(super) stretch: usize,
    /// Which lengths of prompts.
    pub(super) length: usize,
    /// Places of its requests in the run.
    pub(super) requests: Vec<usize>,
    /// Logarithm of the measured mean, seconds.
    pub(super) log_mean: f64,
}

/// The groups of a run.
pub(super) fn groups(run: &MeasuredRun) -> Vec<Group> {
    let times: Vec<Option<Times>> = run.requests.iter().map(|request| Some(Times::from(request))).collect();
    let streamed = run.requests.iter().any(|request| request.first_s.is_some());
    let metrics: &[Metric] = if streamed { &[Metric::Ttft, Metric::Tpot] } else { &[Metric::E2e] };
    let stretches = (times.len() / STRETCH).clamp(*STRETCHES.start(), *STRETCHES.end());
    let limits = lengths(run);
    let mut all = Vec::new();
    for stretch in 0..stretches {
        let part = times.len() * stretch / stretches..times.len() * (stretch + 1) / stretches;
        for length in 0..=limits.len() {
            let within = |place: &usize| {
                let tokens = f64::from(run.requests[*place].input_tokens);
                limits.iter().filter(|limit| tokens > **limit).count() == length
            };
            let requests: Vec<usize> = part.clone().filter(within).collect();
            for &metric in metrics {
                let log_mean = log_mean(metric, &requests, &times);
                if log_mean.is_finite() && requests.len() >= REQUESTS_MIN {
                    all.push(Group { metric, stretch, length, requests: requests.clone(), log_mean });
                }
            }
        }
    }
    all
}

/// Limits between short, middling and long prompts; none when all are alike.
fn lengths(run: &MeasuredRun) -> Vec<f64> {
    let mut tokens: Vec<f64> = run.requests.iter().map(|r| f64::from(r.input_tokens)).collect();
    tokens.sort_by(f64::total_cmp);
    match quantile(&tokens, 0.1).zip(quantile(&tokens, 0.9)) {
        Some((short, long)) if long > SEVERAL_LENGTHS * short.max(1.0) => {
            (1..LENGTHS).filter_map(|part| quantile(&tokens, part as f64 / LENGTHS as f64)).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a run has prompts of several lengths.
pub(super) fn has_lengths(run: &MeasuredRun) -> bool {
    !lengths(run).is_empty()
}

/// Logarithm of the mean of `metric` over those of `requests` that were answered; not a number when none was.
pub(super) fn log_mean(metric: Metric, requests: &[usize], times: &[Option<Times>]) -> f64 {
    let values = requests.iter().filter_map(|&place| metric.of(times.get(place)?.as_ref()?));
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    if count > 0.0 { libm::log(sum / count) } else { f64::NAN }
}
