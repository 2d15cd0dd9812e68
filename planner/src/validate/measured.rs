//! Figures of a measured or simulated load, computed in the same way from the times of its requests.

use forerun_workloads::trace::measured::{MeasuredRequest, Percentiles, Stage};

/// When a request was sent, and when its first and last tokens came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    /// Sent by the client.
    pub arrival_s: f64,
    /// First token; none where the answer was not streamed.
    pub first_s: Option<f64>,
    /// Last token.
    pub last_s: f64,
    /// Output tokens.
    pub tokens: u32,
}

impl From<&MeasuredRequest> for Times {
    fn from(request: &MeasuredRequest) -> Self {
        Self {
            arrival_s: request.sent_s,
            first_s: request.first_s,
            last_s: request.last_s,
            tokens: request.output_tokens,
        }
    }
}

/// A distribution in a few numbers, milliseconds; absent where it was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

impl Spread {
    /// Mean and percentiles of sorted values.
    pub(crate) fn of(sorted: &[f64]) -> Self {
        if sorted.is_empty() {
            return Self::default();
        }
        let at = |share| quantile(sorted, share);
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Self { mean: Some(mean), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }

    /// The numbers with their names.
    pub(crate) fn entries(&self) -> [(&'static str, Option<f64>); 4] {
        [("mean", self.mean), ("p50", self.p50), ("p90", self.p90), ("p99", self.p99)]
    }
}

/// The value below which `share` of the sorted values lie, interpolated linearly; none of no values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share * last as f64;
    let below = (place as usize).min(last);
    let above = (below + 1).min(last);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64))
}

/// Figures of one load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Time to first token.
    pub ttft_ms: Spread,
    /// Time per output token after the first.
    pub tpot_ms: Spread,
    /// From sending to the last token.
    pub e2e_ms: Spread,
    /// Median time to first token of the requests before the load builds up.
    pub light_ttft_p50_ms: Option<f64>,
    /// Completed requests over the time from the first arrival to the last token.
    pub requests_per_s: Option<f64>,
    /// Output tokens over the same time.
    pub output_tokens_per_s: Option<f64>,
}

impl Figures {
    /// Figures of a stage of inference-perf. It counts two chunks for each token in the times between them: only the
    /// mean time per token follows, from the means of the others and from the number of tokens.
    pub(crate) fn of_stage(stage: &Stage, output_tokens: Option<f64>) -> Self {
        let ms = |seconds: &Percentiles| Spread {
            mean: Some(seconds.mean * 1e3),
            p50: Some(seconds.p50 * 1e3),
            p90: Some(seconds.p90 * 1e3),
            p99: Some(seconds.p99 * 1e3),
        };
        let gaps = output_tokens.map(|tokens| tokens - 1.0).filter(|gaps| *gaps > 0.0);
        let decoding_ms = (stage.e2e_s.mean - stage.ttft_s.mean) * 1e3;
        Self {
            ttft_ms: ms(&stage.ttft_s),
            tpot_ms: Spread { mean: gaps.map(|gaps| decoding_ms / gaps), ..Spread::default() },
            e2e_ms: ms(&stage.e2e_s),
            requests_per_s: Some(stage.requests_per_s),
            ..Self::default()
        }
    }

    /// All figures with their names, in the order of reports.
    pub(crate) fn entries(&self) -> Vec<(String, Option<f64>)> {
        let spreads = [("TTFT", &self.ttft_ms), ("TPOT", &self.tpot_ms), ("E2E", &self.e2e_ms)];
        let named = |(metric, spread): (&str, &Spread)| {
            spread.entries().map(|(statistic, value)| (format!("{metric} {statistic}"), value))
        };
        let mut all: Vec<_> = spreads.into_iter().flat_map(named).collect();
        all.push(("TTFT p50, light load".into(), self.light_ttft_p50_ms));
        all.push(("requests/s".into(), self.requests_per_s));
        all.push(("output tokens/s".into(), self.output_tokens_per_s));
        all
    }

    /// The figure of this name.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.entries().into_iter().find(|(own, _)| own == name)?.1
    }
}

/// The sorted values behind the figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    pub(crate) ttft_ms: Vec<f64>,
    pub(crate) tpot_ms: Vec<f64>,
    pub(crate) e2e_ms: Vec<f64>,
    light_ttft_ms: Vec<f64>,
    makespan_s: f64,
    tokens: f64,
}

impl Samples {
    /// Of requests in order of arrival; those of indices `light` meet a light load.
    pub(crate) fn new(requests: &[Times], light: Option<(usize, usize)>) -> Self {
        let sorted = |values: &mut dyn Iterator<Item = f64>| {
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let ttft = |times: &Times| Some((times.first_s? - times.arrival_s) * 1e3);
        let (from, until) = light.unwrap_or((0, 0));
        let light = requests.get(from..until.min(requests.len())).unwrap_or(&[]);
        let tpot = |times: &Times| {
            let gaps = f64::from(times.tokens.checked_sub(1).filter(|gaps| *gaps > 0)?);
            Some((times.last_s - times.first_s?) * 1e3 / gaps)
        };
        let first = requests.iter().map(|times| times.arrival_s).fold(f64::INFINITY, f64::min);
        let last = requests.iter().map(|times| times.last_s).fold(f64::NEG_INFINITY, f64::max);
        Self {
            ttft_ms: sorted(&mut requests.iter().filter_map(ttft)),
            tpot_ms: sorted(&mut requests.iter().filter_map(tpot)),
            e2e_ms: sorted(&mut requests.iter().map(|times| (times.last_s - times.arrival_s) * 1e3)),
            light_ttft_ms: sorted(&mut light.iter().filter_map(ttft)),
            makespan_s: last - first,
            tokens: requests.iter().map(|times| f64::from(times.tokens)).sum(),
        }
    }

    /// How many requests there are.
    pub(crate) fn len(&self) -> usize {
        self.e2e_ms.len()
    }

    pub(crate) fn figures(&self) -> Figures {
        let rate = |count: f64| (self.makespan_s > 0.0).then(|| count / self.makespan_s);
        Figures {
            ttft_ms: Spread::of(&self.ttft_ms),
            tpot_ms: Spread::of(&self.tpot_ms),
            e2e_ms: Spread::of(&self.e2e_ms),
            light_ttft_p50_ms: Spread::of(&self.light_ttft_ms).p50,
            requests_per_s: rate(self.e2e_ms.len() as f64),
            output_tokens_per_s: rate(self.tokens),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_the_times_of_requests() {
        let request = |arrival_s: f64, tokens| Times {
            arrival_s,
            first_s: Some(arrival_s + 0.1),
            last_s: arrival_s + 0.1 + 0.02 * f64::from(tokens - 1),
            tokens,
        };
        let figures =
            Samples::new(&[request(0.0, 11), request(1.0, 1), request(2.0, 21)], Some((1, 9))).figures();
        let near = |value: Option<f64>, expected: f64| assert!((value.unwrap() - expected).abs() < 1e-6);
        near(figures.ttft_ms.mean, 100.0);
        near(figures.tpot_ms.p50, 20.0);
        near(figures.e2e_ms.p50, 300.0);
        near(figures.light_ttft_p50_ms, 100.0);
        near(figures.requests_per_s, 3.0 / 2.5);
        near(figures.output_tokens_per_s, 33.0 / 2.5);
        assert_eq!(Samples::new(&[], None).figures(), Figures::default());
    }
}
