//! Who asks and for which adapter: skew, and how many different ones are there at a time.

use std::collections::BTreeSet;

use forerun_sim::request::{Label, Labels};
use forerun_sim::time::{Span, Time};
use schemars::JsonSchema;
use serde::Serialize;

use super::lengths::Distribution;

/// Names that are listed.
const TOP: usize = 10;
/// Ranks that the Zipf fit sees: more would cost time and change nothing.
const RANKS_MAX: usize = 4096;
/// The exponents between which the fit looks.
const EXPONENT_MAX: f64 = 10.0;

/// How unevenly requests are spread over names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Skew {
    /// Different names.
    pub distinct: u64,
    /// Requests with a name.
    pub requests: u64,
    /// The most popular names, most popular first.
    pub top: Vec<Named>,
    /// Share of the most popular tenth of the names, at least one name.
    pub top_tenth_share: Option<f64>,
    /// Maximum-likelihood exponent of Zipf's law over the ranks as observed; 0 when all are alike. Ranks that
    /// are observed, not known, bias it upwards when requests are few.
    pub zipf_exponent: Option<f64>,
}

/// One name and its part.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Named {
    /// The name.
    pub name: String,
    /// Its share of the requests that have a name.
    pub share: f64,
}

/// How many different names were asked for within a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Together {
    /// Length of the time, which ends with each arrival.
    pub within_s: f64,
    /// Mean over arrivals.
    pub mean: Option<f64>,
    /// 95 % of the arrivals see at most so many.
    pub p95: Option<f64>,
    /// The most.
    pub max: Option<f64>,
}

/// Counts requests by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Popularity(Vec<u64>);

impl Popularity {
    pub(super) fn record(&mut self, name: Label) {
        if name.is_some() {
            let index = name.0 as usize;
            if index >= self.0.len() {
                self.0.resize(index + 1, 0);
            }
            self.0[index] += 1;
        }
    }

    pub(super) fn skew(&self, labels: &Labels) -> Skew {
        let named = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut ranked: Vec<(u64, &str)> =
            named.map(|(index, &count)| (count, labels.name(Label(index as u32)))).collect();
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let requests: u64 = ranked.iter().map(|(count, _)| count).sum();
        let share = |count: u64| count as f64 / requests as f64;
        let tenth = ranked.len().div_ceil(10);
        let counts: Vec<u64> = ranked.iter().take(RANKS_MAX).map(|(count, _)| *count).collect();
        Skew {
            distinct: ranked.len() as u64,
            requests,
            top: ranked
                .iter()
                .take(TOP)
                .map(|&(count, name)| Named { name: name.to_owned(), share: share(count) })
                .collect(),
            top_tenth_share: (requests > 0).then(|| share(ranked[..tenth].iter().map(|(c, _)| c).sum())),
            zipf_exponent: zipf_exponent(&counts),
        }
    }
}

/// The exponent s that makes `counts` of ranks 1, 2, ... likeliest under Zipf's law over so many ranks: there
/// the mean logarithm of the rank equals its expectation. Bisection, as the expectation falls with s.
fn zipf_exponent(counts: &[u64]) -> Option<f64> {
    if counts.len() < 2 {
        return None;
    }
    let logs: Vec<f64> = (1..=counts.len()).map(|rank| libm::log(rank as f64)).collect();
    let requests: u64 = counts.iter().sum();
    let observed = counts.iter().zip(&logs).map(|(&c, log)| c as f64 * log).sum::<f64>() / requests as f64;
    let expected = |s: f64| {
        let weights = logs.iter().map(|&log| (log, libm::exp(-s * log)));
        let (sum, weighted) = weights.fold((0.0, 0.0), |(sum, w), (log, p)| (sum + p, w + log * p));
        weighted / sum
    };
    let (mut low, mut high) = (0.0, EXPONENT_MAX);
    if expected(low) <= observed {
        return Some(0.0);
    }
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        if expected(middle) > observed { low = middle } else { high = middle }
    }
    Some((low + high) / 2.0)
}

/// Counts the different names of a sliding time, in memory that grows with the names alone.
#[derive(Clone, Debug)]
pub(super) struct SlidingNames {
    within: Span,
    /// Names by when they were last asked for.
    recent: BTreeSet<(Time, Label)>,
    last: Vec<Option<Time>>,
    seen: Distribution,
}

impl SlidingNames {
    pub(super) fn new(within: Span) -> Self {
        Self { within, recent: BTreeSet::new(), last: Vec::new(), seen: Distribution::new() }
    }

    /// A request for `name`, if it has one, arrives at `at`; only `measured` ones count in the figures.
    pub(super) fn record(&mut self, name: Label, at: Time, measured: bool) {
        if !name.is_some() {
            return;
        }
        let index = name.0 as usize;
        if index >= self.last.len() {
            self.last.resize(index + 1, None);
        }
        if let Some(before) = self.last[index].replace(at) {
            self.recent.remove(&(before, name));
        }
        self.recent.insert((at, name));
        while self.recent.first().is_some_and(|&(then, _)| at.saturating_since(then) >= self.within) {
            self.recent.pop_first();
        }
        if measured {
            self.seen.record(self.recent.len() as u64);
        }
    }

    pub(super) fn together(&self) -> Together {
        Together {
            within_s: self.within.as_secs_f64(),
            mean: self.seen.mean(),
            p95: self.seen.quantile(0.95),
            max: self.seen.figures(1.0).max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_zipf_counts_give_their_exponent_back() {
        for s in [0.5, 1.2, 2.0] {
            let counts: Vec<u64> =
                (1..=200).map(|rank| (1e9 / libm::pow(f64::from(rank), s)) as u64).collect();
            let found = zipf_exponent(&counts).unwrap();
            assert!((found - s).abs() < 1e-3, "{found} for {s}");
        }
        assert_eq!(zipf_exponent(&[7; 30]), Some(0.0), "all alike");
        assert_eq!(zipf_exponent(&[7]), None, "one name has no rank");
    }

    #[test]
    fn skew_counts_only_requests_with_a_name() {
        let mut labels = Labels::default();
        let mut asked = Popularity::default();
        for (name, count) in [("a", 60), ("b", 30), ("c", 10), ("", 40)] {
            let label = labels.intern(name);
            (0..count).for_each(|_| asked.record(label));
        }
        let skew = asked.skew(&labels);
        assert_eq!((skew.distinct, skew.requests, skew.top_tenth_share), (3, 100, Some(0.6)));
        assert_eq!(skew.top[1], Named { name: "b".into(), share: 0.3 });
        assert_eq!(Popularity::default().skew(&labels), Skew::default());
    }

    #[test]
    fn names_are_together_while_less_than_the_window_apart() {
        let mut window = SlidingNames::new(Span::from_secs(10));
        let asked = [(1, 0), (2, 4), (1, 6), (3, 14), (1, 30)];
        for (name, at) in asked {
            window.record(Label(name), Time::ZERO + Span::from_secs(at), true);
        }
        window.record(Label::NONE, Time::ZERO + Span::from_secs(40), true);
        // 1; 1 2; 1 2; 1 3 (the 2 of second 4 is ten seconds old); 1.
        let together = window.together();
        assert_eq!((together.mean, together.max), (Some(8.0 / 5.0), Some(2.0)));
    }
}
