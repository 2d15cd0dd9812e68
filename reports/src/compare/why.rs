//! What explains the difference between variants.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Pair;
use crate::summary::{GroupSummary, Replica, Summary};

/// What explains a variant's figures: means over its runs; null where there is nothing to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// Prompt tokens found in a cache as a share of all prompt tokens, 0 to 1.
    pub hit_rate: Option<f64>,
    /// Prompt tokens computed on one replica while another held them.
    pub duplicate_prefill_tokens: Option<f64>,
    /// Busy share of the busiest replica over the mean of all: 1 is balanced.
    pub busy_max_over_mean: Option<f64>,
    /// Requests sent to the replica with most of them over the mean of all: 1 is balanced.
    pub requests_max_over_mean: Option<f64>,
    /// Engine arrival to first admission, mean, ms.
    pub queue_mean_ms: Option<f64>,
    /// Requests thrown out of a batch for lack of KV blocks.
    pub preemptions: Option<f64>,
    /// Requests that failed, were rejected or left unfinished.
    pub not_completed: Option<f64>,
    /// Jain's index of the tenants' mean TTFT: 1 when all are alike, 1/n when one has everything. Null for fewer than
    /// two tenants.
    pub jain_tenant_ttft: Option<f64>,
    /// Jain's index of the tenants' attainment.
    pub jain_tenant_attainment: Option<f64>,
    /// Mean time per completed request by cause, ms.
    pub latency_ms_by_cause: BTreeMap<String, f64>,
}

impl Why {
    /// Means over the runs of one variant.
    #[must_use]
    pub fn of(runs: &[Summary]) -> Self {
        let over = |figure: &dyn Fn(&Summary) -> Option<f64>| mean(runs.iter().filter_map(figure));
        let keys = runs.first().map(|run| run.latency_ms_by_cause.entries().map(|(key, _)| key));
        let causes = keys.into_iter().flatten().enumerate().filter_map(|(place, key)| {
            Some((key.to_owned(), over(&|run| run.latency_ms_by_cause.entries()[place].1)?))
        });
        let not_completed = |run: &Summary| {
            let requests = &run.requests;
            Some((requests.failed + requests.rejected + requests.unfinished) as f64)
        };
        Self {
            hit_rate: over(&|run| run.kv.hit_rate),
            duplicate_prefill_tokens: over(&|run| Some(run.kv.duplicate_prefill_tokens as f64)),
            busy_max_over_mean: over(&|run| imbalance(&run.replicas, |replica| replica.busy_fraction)),
            requests_max_over_mean: over(&|run| {
                imbalance(&run.replicas, |replica| Some(replica.requests as f64))
            }),
            queue_mean_ms: over(&|run| run.queue_ms.mean),
            preemptions: over(&|run| Some(run.kv.preemptions as f64)),
            not_completed: over(&not_completed),
            jain_tenant_ttft: over(&|run| jain(&run.by_tenant, |tenant| tenant.ttft_ms.mean)),
            jain_tenant_attainment: over(&|run| jain(&run.by_tenant, |tenant| tenant.attainment)),
            latency_ms_by_cause: causes.collect(),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// The largest value over the mean of all replicas; `None` for a single one.
fn imbalance(replicas: &[Replica], figure: impl Fn(&Replica) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = replicas.iter().filter_map(figure).collect();
    let mean = mean(values.iter().copied()).filter(|&mean| mean > 0.0 && values.len() > 1)?;
    Some(values.into_iter().fold(0.0, f64::max) / mean)
}

/// Jain's fairness index (Jain, Chiu, Hawe 1984): (sum x)^2 / (n sum x^2).
fn jain(
    tenants: &BTreeMap<String, GroupSummary>,
    figure: impl Fn(&GroupSummary) -> Option<f64>,
) -> Option<f64> {
    let values: Vec<f64> = tenants.values().filter_map(figure).collect();
    let (sum, squares) = values.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    (values.len() > 1 && squares > 0.0).then(|| sum * sum / (values.len() as f64 * squares))
}

/// How the mean time of each cause changed from `baseline` to `variant`.
pub(super) fn cause_changes(baseline: &Why, variant: &Why) -> BTreeMap<String, f64> {
    let before = |key: &String| baseline.latency_ms_by_cause.get(key).copied();
    let changes = variant.latency_ms_by_cause.iter();
    changes.filter_map(|(key, after)| Some((key.clone(), after - before(key)?))).collect()
}

/// What stands out in a pair, in words: the causes that moved most, then what lies behind them.
pub(super) fn explain(pair: &Pair, baseline: &Why, variant: &Why) -> Vec<String> {
    const SHOWN: usize = 3;
    let mut said = Vec::new();
    let mut causes: Vec<(&String, f64)> =
        pair.latency_ms_by_cause.iter().map(|(key, change)| (key, *change)).collect();
    let total: f64 = causes.iter().map(|(_, change)| change).sum();
    causes.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    causes.retain(|(_, change)| change.abs() >= 0.01 && change.abs() >= 0.05 * total.abs());
    if !causes.is_empty() {
        let parts = causes
            .iter()
            .take(SHOWN)
            .map(|(key, change)| format!("{} {}", key.replace('_', " "), signed_millis(*change)));
        let parts: Vec<_> = parts.collect();
        said.push(format!("mean E2E {}: {}", signed_millis(total), parts.join(", ")));
    }
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let plain = |value: f64| crate::numbers::number(value, 3);
    let index = |value: f64| format!("{value:.2}");
    let mut moved = |name: &str, of: fn(&Why) -> Option<f64>, least: f64, shown: &dyn Fn(f64) -> String| {
        if let (Some(before), Some(after)) = (of(baseline), of(variant))
            && (after - before).abs() > least
        {
            said.push(format!("{name} {} to {}", shown(before), shown(after)));
        }
    };
    let tokens = baseline.duplicate_prefill_tokens.unwrap_or(0.0) * 0.02 + 0.5;
    moved("hit rate", |why| why.hit_rate, 0.005, &percent);
    moved("duplicate prefill tokens", |why| why.duplicate_prefill_tokens, tokens, &plain);
    moved("busiest replica over mean", |why| why.busy_max_over_mean, 0.02, &index);
    moved("preemptions", |why| why.preemptions, 0.5, &plain);
    moved("requests not completed", |why| why.not_completed, 0.5, &plain);
    moved("Jain's index of tenants' TTFT", |why| why.jain_tenant_ttft, 0.01, &index);
    moved("Jain's index of tenants' attainment", |why| why.jain_tenant_attainment, 0.01, &index);
    said
}

fn signed_millis(value: f64) -> String {
    let (number, unit) = crate::numbers::millis(value.abs());
    format!("{}{number} {unit}", if value < 0.0 { "-" } else { "+" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example_summary;

    #[test]
    fn jains_index_is_1_for_equal_tenants_and_lower_otherwise() {
        let group = |ttft| {
            let mut group = GroupSummary::default();
            group.ttft_ms.mean = Some(ttft);
            group
        };
        let of = |ttfts: &[f64]| {
            let named = ttfts.iter().enumerate().map(|(index, &ttft)| (format!("t{index}"), group(ttft)));
            jain(&named.collect(), |tenant| tenant.ttft_ms.mean)
        };
        assert_eq!(of(&[5.0, 5.0, 5.0]), Some(1.0));
        assert_eq!(of(&[1.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(of(&[5.0]), None);
    }

    #[test]
    fn imbalance_is_the_busiest_over_the_mean() {
        let mut summary = example_summary();
        summary.replicas.truncate(2);
        summary.replicas[0].busy_fraction = Some(0.9);
        summary.replicas[1].busy_fraction = Some(0.3);
        let why = Why::of(&[summary]);
        assert!((why.busy_max_over_mean.unwrap() - 1.5).abs() < 1e-12);
    }
}
