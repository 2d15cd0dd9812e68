//! The figures that runs are judged by: what each is called, which way is better, and where a summary has it.

use crate::document::Cell;
use crate::summary::Summary;

/// One figure of a summary.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Its key in JSON documents, with its unit.
    pub key: &'static str,
    /// Its name in tables.
    pub label: &'static str,
    /// Which way is better.
    pub better: Better,
    measure: Measure,
    of: fn(&Summary) -> Option<f64>,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// It explains; it does not judge.
    Neither,
}

/// What a figure measures, which decides how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Millis,
    Share,
    Number(&'static str),
}

const fn figure(
    key: &'static str,
    label: &'static str,
    better: Better,
    measure: Measure,
    of: fn(&Summary) -> Option<f64>,
) -> Figure {
    Figure { key, label, better, measure, of }
}

/// How many figures there are.
pub const FIGURES_COUNT: usize = 16;

/// All figures, in the order of reports.
pub const FIGURES: [Figure; FIGURES_COUNT] = {
    use Better::{Higher, Lower, Neither};
    use Measure::{Millis, Number, Share};
    [
        figure("ttft_mean_ms", "TTFT mean", Lower, Millis, |s| s.ttft_ms.mean),
        figure("ttft_p50_ms", "TTFT p50", Lower, Millis, |s| s.ttft_ms.p50),
        figure("ttft_p95_ms", "TTFT p95", Lower, Millis, |s| s.ttft_ms.p95),
        figure("ttft_p99_ms", "TTFT p99", Lower, Millis, |s| s.ttft_ms.p99),
        figure("tpot_mean_ms", "TPOT mean", Lower, Millis, |s| s.tpot_ms.mean),
        figure("tpot_p95_ms", "TPOT p95", Lower, Millis, |s| s.tpot_ms.p95),
        figure("itl_mean_ms", "ITL mean", Lower, Millis, |s| s.itl_ms.mean),
        figure("itl_p99_ms", "ITL p99", Lower, Millis, |s| s.itl_ms.p99),
        figure("e2e_mean_ms", "E2E mean", Lower, Millis, |s| s.e2e_ms.mean),
        figure("e2e_p95_ms", "E2E p95", Lower, Millis, |s| s.e2e_ms.p95),
        figure("goodput_requests_per_s", "goodput", Higher, Number("req/s"), |s| s.goodput.requests_per_s),
        figure("attainment", "attainment", Higher, Share, |s| s.goodput.attainment),
        figure("output_tokens_per_s", "output tokens/s", Higher, Number(""), |s| {
            s.throughput.output_tokens_per_s
        }),
        figure("hit_rate", "hit rate", Higher, Share, |s| s.kv.hit_rate),
        figure("gpu_busy", "GPU busy", Neither, Share, gpu_busy),
        figure("usd_per_million_output_tokens", "USD per M tokens", Lower, Number(""), |s| {
            s.cost.usd_per_million_output_tokens
        }),
    ]
};

/// The figures of one run, in the order of [`FIGURES`].
pub type FigureValues = [Option<f64>; FIGURES_COUNT];

/// All figures of `summary`. What was never measured is absent.
#[must_use]
pub fn figures(summary: &Summary) -> FigureValues {
    FIGURES.map(|figure| (figure.of)(summary))
}

impl Figure {
    /// A value of this figure as a cell.
    #[must_use]
    pub fn cell(&self, value: Option<f64>) -> Cell {
        match self.measure {
            Measure::Millis => Cell::millis(value),
            Measure::Share => Cell::share(value),
            Measure::Number(unit) => Cell::number(value, unit),
        }
    }
}

/// Share of GPU time with a step in progress.
fn gpu_busy(summary: &Summary) -> Option<f64> {
    let busy = |replica: &crate::summary::Replica| Some((f64::from(replica.gpus), replica.busy_fraction?));
    let (mut gpus, mut total) = (0.0, 0.0);
    for (weight, fraction) in summary.replicas.iter().filter_map(busy) {
        gpus += weight;
        total += weight * fraction;
    }
    (gpus > 0.0).then(|| total / gpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example_summary;

    #[test]
    fn every_figure_has_a_key_of_its_own_and_is_found_in_a_summary() {
        let mut keys: Vec<&str> = FIGURES.iter().map(|figure| figure.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), FIGURES.len());
        assert!(figures(&example_summary()).iter().all(Option::is_some));
    }

    #[test]
    fn busy_gpus_are_weighted_by_their_number() {
        let mut summary = example_summary();
        summary.replicas.truncate(2);
        (summary.replicas[0].gpus, summary.replicas[0].busy_fraction) = (3, Some(1.0));
        (summary.replicas[1].gpus, summary.replicas[1].busy_fraction) = (1, Some(0.0));
        assert_eq!(gpu_busy(&summary), Some(0.75));
    }
}
