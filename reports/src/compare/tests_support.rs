//! Made-up runs to compare.

use super::{Comparison, MethodKind, Observed, Settings, Traffic, VariantRuns, compare};
use crate::summary::Summary;
use crate::testing::example_summary;

/// Mean TTFTs of eight runs whose traffic varies, times `factor`, in milliseconds.
pub(super) fn shifted(factor: f64) -> Vec<f64> {
    let traffic = [101.0, 97.0, 120.0, 88.0, 104.0, 95.0, 110.0, 99.0];
    traffic.iter().enumerate().map(|(run, ttft)| ttft * factor + 0.1 * (run % 3) as f64 * factor).collect()
}

/// Runs of the example that differ in their mean TTFT only.
pub(super) fn runs(ttfts: &[f64]) -> Vec<Summary> {
    let run = |(index, &ttft): (usize, &f64)| {
        let mut summary = example_summary();
        summary.seed = index as u64 + 1;
        summary.ttft_ms.mean = Some(ttft);
        summary
    };
    ttfts.iter().enumerate().map(run).collect()
}

/// Variants of these mean TTFTs, compared by replications with a margin of 1 %.
pub(super) fn comparison(variants: &[(&str, &[f64])]) -> Comparison {
    let variant = |&(name, ttfts): &(&str, &[f64])| VariantRuns {
        name: name.to_owned(),
        summaries: runs(ttfts),
        windows: None,
    };
    let observed = Observed {
        variants: variants.iter().map(variant).collect(),
        traffic: Traffic {
            requests: 8000,
            same_requests: true,
            same_arrivals: true,
            paired: true,
            about: "every variant saw the same requests".to_owned(),
        },
        warnings: Vec::new(),
        wall_s: None,
    };
    compare(observed, Settings { kind: MethodKind::Replications, margin: 0.01 })
}
