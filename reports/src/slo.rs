//! Service level objectives: when a request is good, and what a whole run must keep to.

use std::collections::BTreeMap;
use std::fmt;

use forerun_sim::request::{Outcome, Status};
use forerun_sim::time::Span;

use crate::summary::{LatencyMs, SloCheck, SloFigures, Summary};

/// What is asked of a run. The default asks for nothing: every completed request is good.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slo {
    /// Limits for each request.
    pub limits: Limits,
    /// Classes with limits of their own. They stand in place of `limits`, not beside them: a batch class
    /// need not repeat that it has no TTFT limit.
    pub by_class: BTreeMap<String, Limits>,
    /// Limits on statistics of the whole run, such as the 99th percentile of TTFT.
    pub aggregate: Vec<AggregateLimit>,
    /// The share of arrived requests that must be good, 0 to 1.
    pub attainment: Option<f64>,
}

/// Limits that one request must meet; those that are `None` are not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest time to first token.
    pub ttft: Option<Span>,
    /// Longest mean time per output token after the first.
    pub tpot: Option<Span>,
    /// Longest time from arrival to last token.
    pub e2e: Option<Span>,
}

/// A limit on one statistic of one latency, over the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateLimit {
    /// Which latency.
    pub metric: Metric,
    /// Which statistic of it.
    pub statistic: Statistic,
    /// Its limit.
    pub limit: Span,
}

/// A latency of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Time to first token.
    Ttft,
    /// Mean time per output token after the first.
    Tpot,
    /// Time between tokens.
    Itl,
    /// Arrival to last token.
    E2e,
    /// Engine arrival to first admission.
    Queue,
}

/// A statistic of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// Median.
    P50,
    /// 90th percentile.
    P90,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
    /// Largest value.
    Max,
}

impl Limits {
    /// Whether `outcome` was completed and meets every limit given. A single token has no TPOT and meets
    /// any TPOT limit.
    #[must_use]
    pub fn met_by(&self, outcome: &Outcome) -> bool {
        let within = |actual: Option<Span>, limit: Option<Span>| {
            limit.is_none_or(|limit| actual.is_some_and(|actual| actual <= limit))
        };
        let tpot_holds = || match (self.tpot, outcome.tpot_nanos()) {
            (Some(limit), Some(actual)) => actual <= limit.as_nanos() as f64,
            _ => true,
        };
        outcome.status == Status::Completed
            && within(outcome.ttft(), self.ttft)
            && within(outcome.e2e(), self.e2e)
            && tpot_holds()
    }
}

impl Slo {
    /// Whether a request of the class named `class` (empty: none) is good.
    #[must_use]
    pub fn good(&self, outcome: &Outcome, class: &str) -> bool {
        self.by_class.get(class).unwrap_or(&self.limits).met_by(outcome)
    }

    /// Holds `summary` against the limits on the whole run. What was never measured does not hold.
    #[must_use]
    pub fn checks(&self, summary: &Summary) -> Vec<SloCheck> {
        let attainment = self.attainment.map(|limit| {
            let actual = summary.goodput.attainment;
            SloCheck {
                name: "attainment".to_owned(),
                figures: SloFigures::Share { limit_share: limit, actual_share: actual },
                holds: actual.is_some_and(|actual| actual >= limit),
            }
        });
        let aggregates = self.aggregate.iter().map(|asked| {
            let actual = asked.statistic.of(asked.metric.of(summary));
            let limit = asked.limit.as_millis_f64();
            SloCheck {
                name: format!("{}_{}", asked.metric, asked.statistic),
                figures: SloFigures::Latency { limit_ms: limit, actual_ms: actual },
                holds: actual.is_some_and(|actual| actual <= limit),
            }
        });
        attainment.into_iter().chain(aggregates).collect()
    }
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 5] = [Self::Ttft, Self::Tpot, Self::Itl, Self::E2e, Self::Queue];

    fn of(self, summary: &Summary) -> &LatencyMs {
        match self {
            Self::Ttft => &summary.ttft_ms,
            Self::Tpot => &summary.tpot_ms,
            Self::Itl => &summary.itl_ms,
            Self::E2e => &summary.e2e_ms,
            Self::Queue => &summary.queue_ms,
        }
    }
}

impl Statistic {
    /// All statistics.
    pub const ALL: [Self; 6] = [Self::Mean, Self::P50, Self::P90, Self::P95, Self::P99, Self::Max];

    fn of(self, latency: &LatencyMs) -> Option<f64> {
        match self {
            Self::Mean => latency.mean,
            Self::P50 => latency.p50,
            Self::P90 => latency.p90,
            Self::P95 => latency.p95,
            Self::P99 => latency.p99,
            Self::Max => latency.max,
        }
    }
}

/// As in scenario keys: `ttft` of `ttft_p99`.
impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::Itl => "itl",
            Self::E2e => "e2e",
            Self::Queue => "queue",
        })
    }
}

/// As in scenario keys: `p99` of `ttft_p99`.
impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{completed, example_summary};
    use forerun_sim::request::Failure;

    const fn ms(millis: u64) -> Option<Span> {
        Some(Span::from_millis(millis))
    }

    /// TTFT 100 ms, TPOT 20 ms, E2E 300 ms.
    fn outcome() -> Outcome {
        completed(0, 100, 300, 11)
    }

    #[test]
    fn with_no_limit_every_completed_request_is_good_and_no_other() {
        let mut outcome = outcome();
        assert!(Slo::default().good(&outcome, ""));
        outcome.status = Status::Failed(Failure::Timeout);
        assert!(!Slo::default().good(&outcome, ""));
    }

    #[test]
    fn a_limit_is_met_up_to_its_last_nanosecond() {
        let exact = Limits { ttft: ms(100), tpot: ms(20), e2e: ms(300) };
        assert!(exact.met_by(&outcome()));
        let less = |limit: Option<Span>| limit.map(|limit| limit - Span::from_nanos(1));
        assert!(!Limits { ttft: less(exact.ttft), ..exact }.met_by(&outcome()));
        assert!(!Limits { tpot: less(exact.tpot), ..exact }.met_by(&outcome()));
        assert!(!Limits { e2e: less(exact.e2e), ..exact }.met_by(&outcome()));
    }

    #[test]
    fn a_single_token_meets_any_tpot_limit() {
        let limits = Limits { tpot: Some(Span::ZERO), ..Limits::default() };
        assert!(limits.met_by(&completed(0, 300, 300, 1)));
        assert!(!limits.met_by(&outcome()));
    }

    #[test]
    fn a_class_is_judged_by_its_own_limits_alone() {
        let slo = Slo {
            limits: Limits { ttft: ms(50), ..Limits::default() },
            by_class: BTreeMap::from([("batch".to_owned(), Limits { e2e: ms(300), ..Limits::default() })]),
            ..Slo::default()
        };
        assert!(slo.good(&outcome(), "batch"));
        assert!(!slo.good(&outcome(), "chat"));
    }

    #[test]
    fn checks_compare_the_summary_with_the_limits() {
        let summary = example_summary();
        let p99 = Span::from_secs_f64(summary.ttft_ms.p99.unwrap() / 1e3).unwrap();
        let asked = |limit| AggregateLimit { metric: Metric::Ttft, statistic: Statistic::P99, limit };
        let slo = Slo {
            aggregate: vec![asked(p99), asked(p99 - Span::from_nanos(1000))],
            attainment: Some(0.999),
            ..Slo::default()
        };
        let checks = slo.checks(&summary);
        let verdicts: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.holds)).collect();
        assert_eq!(verdicts, [("attainment", false), ("ttft_p99", true), ("ttft_p99", false)]);
    }

    #[test]
    fn what_was_never_measured_does_not_hold() {
        let mut summary = example_summary();
        summary.tpot_ms = LatencyMs::default();
        let limit =
            AggregateLimit { metric: Metric::Tpot, statistic: Statistic::Mean, limit: Span::from_secs(1) };
        let slo = Slo { aggregate: vec![limit], ..Slo::default() };
        assert!(!slo.checks(&summary)[0].holds);
    }
}
