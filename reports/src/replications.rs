//! Several replications of one scenario: the mean of each figure and how far it may be from the truth.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::document::{Block, Cell, Column, Table};
use crate::figures::{FIGURES, FigureValues, figures};
use crate::statistics::{Interval, Sample};
use crate::summary::Summary;

/// Confidence of every interval that is reported.
pub const CONFIDENCE: f64 = 0.95;

/// Figures over replications: runs of one scenario that differ in their seeds only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replications {
    /// How many runs.
    pub count: u64,
    /// Their seeds. The first is the scenario's own; the others follow from it.
    pub seeds: Vec<u64>,
    /// Confidence of the intervals, 0 to 1.
    pub confidence: f64,
    /// Replications in which every limit on the whole run held; null when the scenario has none.
    pub slo_held: Option<u64>,
    /// Each figure over the replications that measured it.
    pub figures: BTreeMap<String, FigureEstimate>,
}

/// One figure over replications.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FigureEstimate {
    /// Replications that measured it.
    pub count: u64,
    /// Mean of the replications' values.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// Interval that covers the true mean with the stated confidence (Student's t); null below two replications.
    pub interval: Option<Interval>,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

impl FigureEstimate {
    /// Of `values`; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let sample = Sample::of(values)?;
        Some(Self {
            count: sample.count as u64,
            mean: sample.mean,
            deviation: sample.deviation,
            interval: sample.interval(CONFIDENCE),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

/// The values that were measured of the figure at `place`.
pub(crate) fn measured(runs: &[FigureValues], place: usize) -> Vec<f64> {
    runs.iter().filter_map(|run| run[place]).collect()
}

impl Replications {
    /// Sums the summaries of all replications up.
    #[must_use]
    pub fn of(summaries: &[Summary]) -> Self {
        let runs: Vec<FigureValues> = summaries.iter().map(figures).collect();
        let estimates = FIGURES.iter().enumerate().filter_map(|(place, figure)| {
            Some((figure.key.to_owned(), FigureEstimate::of(&measured(&runs, place))?))
        });
        let held = |summary: &&Summary| summary.slo_checks.iter().all(|check| check.holds);
        let asked = summaries.iter().any(|summary| !summary.slo_checks.is_empty());
        Self {
            count: summaries.len() as u64,
            seeds: summaries.iter().map(|summary| summary.seed).collect(),
            confidence: CONFIDENCE,
            slo_held: asked.then(|| summaries.iter().filter(held).count() as u64),
            figures: estimates.collect(),
        }
    }

    /// The table that `forerun simulate` shows below the first replication.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let rows = FIGURES.iter().filter_map(|figure| {
            let estimate = self.figures.get(figure.key)?;
            let ends = estimate.interval.map(|interval| [interval.low, interval.high]);
            let [low, high] = ends.map_or([None, None], |ends| ends.map(Some));
            let cells = [Some(estimate.mean), low, high, Some(estimate.min), Some(estimate.max)];
            let cells = cells.map(|value| figure.cell(value));
            Some(std::iter::once(Cell::text(figure.label)).chain(cells).collect())
        });
        let columns = ["mean", "95 % from", "to", "min", "max"].map(Column::figures);
        let table = Table {
            title: format!("{} replications", self.count),
            columns: std::iter::once(Column::text("")).chain(columns).collect(),
            rows: rows.collect(),
        };
        let first = "The figures above are those of the first replication, whose seed is the scenario's.";
        let held =
            self.slo_held.map(|held| format!(" The SLO held in {held} of {} replications.", self.count));
        vec![Block::Table(table), Block::Text(first.to_owned() + &held.unwrap_or_default())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example_summary;

    #[test]
    fn figures_have_the_mean_of_the_replications_and_its_interval() {
        let summaries: Vec<Summary> = [100.0, 110.0, 120.0]
            .into_iter()
            .zip(1..)
            .map(|(ttft, seed)| {
                let mut summary = example_summary();
                summary.seed = seed;
                summary.ttft_ms.mean = Some(ttft);
                summary.cost.usd_per_million_output_tokens = (seed == 1).then_some(2.0);
                summary.slo_checks.iter_mut().for_each(|check| check.holds = seed > 1);
                summary
            })
            .collect();
        let replications = Replications::of(&summaries);
        assert_eq!((replications.count, replications.slo_held), (3, Some(2)));
        assert_eq!(replications.seeds, [1, 2, 3]);
        let ttft = replications.figures["ttft_mean_ms"];
        assert_eq!((ttft.mean, ttft.deviation, ttft.min, ttft.max), (110.0, 10.0, 100.0, 120.0));
        // 110 +- 4.3027 * 10 / sqrt(3)
        let interval = ttft.interval.unwrap();
        assert!((interval.low - 85.159).abs() < 1e-3 && (interval.high - 134.841).abs() < 1e-3);
        let cost = replications.figures["usd_per_million_output_tokens"];
        assert_eq!((cost.count, cost.interval), (1, None));
    }
}
