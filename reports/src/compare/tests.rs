use super::super::tests_support::{comparison, runs, shifted};
use super::*;

fn ttft(comparison: &Comparison, pair: usize) -> Change {
    comparison.pairs[pair].figures["ttft_mean_ms"]
}

#[test]
fn pairing_shows_a_difference_that_is_small_beside_the_traffics_own_variation() {
    let comparison = comparison(&[("a", &shifted(1.0)), ("b", &shifted(1.03))]);
    let change = ttft(&comparison, 0);
    assert_eq!(change.verdict, Verdict::Worse);
    assert!((change.relative.unwrap() - 0.03).abs() < 1e-9);
    let interval = change.relative_interval.unwrap();
    assert!(interval.low > 0.02 && interval.high < 0.04, "{interval:?}");
    assert!(comparison.some_worse());
    // The same values as independent samples show nothing.
    let (a, b) = (runs(&shifted(1.0)), runs(&shifted(1.03)));
    let values = |runs: &[Summary]| runs.iter().map(figures).collect::<Vec<_>>();
    let (_, _, welch) = of_runs(&values(&a), &values(&b), 0, false).unwrap();
    assert!(welch.unwrap().p_value() > 0.3);
}

#[test]
fn a_difference_within_the_margin_is_none_and_equal_figures_are_the_same() {
    let comparison = comparison(&[("a", &shifted(1.0)), ("b", &shifted(1.004))]);
    assert_eq!(ttft(&comparison, 0).verdict, Verdict::Same);
    let equal = comparison.pairs[0].figures["hit_rate"];
    assert_eq!((equal.verdict, equal.difference, equal.p_value), (Verdict::Same, 0.0, Some(1.0)));
    assert_eq!(comparison.pairs[0].figures["gpu_busy"].verdict, Verdict::NotJudged);
    assert!(!comparison.some_worse());
}

#[test]
fn what_is_not_shown_says_how_many_more_replications_would() {
    let noisy: Vec<f64> = shifted(1.0)
        .iter()
        .zip([9.0, -8.0, 30.0, -3.0, 12.0, -9.0, 14.0, 2.0])
        .map(|(a, noise)| a + noise)
        .collect();
    let comparison = comparison(&[("a", &shifted(1.0)), ("b", &noisy)]);
    let change = ttft(&comparison, 0);
    assert_eq!(change.verdict, Verdict::NotShown);
    let more = change.more_replications.unwrap();
    assert!((10..200).contains(&more), "{more}");
    assert!(change.p_adjusted.unwrap() > change.p_value.unwrap());
}

#[test]
fn a_single_run_has_differences_but_no_verdicts() {
    let comparison = comparison(&[("a", &[100.0]), ("b", &[150.0])]);
    let change = ttft(&comparison, 0);
    assert_eq!((change.verdict, change.interval, change.difference), (Verdict::NotJudged, None, 50.0));
    assert_eq!(comparison.method.tests, 0);
}

#[test]
fn every_pair_counts_as_tests_and_figures_are_means() {
    let comparison = comparison(&[("a", &shifted(1.0)), ("b", &shifted(2.0)), ("c", &shifted(0.5))]);
    assert_eq!(comparison.method.tests, 2 * (FIGURES.len() as u64 - 1));
    assert_eq!(
        [ttft(&comparison, 0).verdict, ttft(&comparison, 1).verdict],
        [Verdict::Worse, Verdict::Better]
    );
    let mean = comparison.variants[0].figures["ttft_mean_ms"].mean;
    assert!((mean - shifted(1.0).iter().sum::<f64>() / 8.0).abs() < 1e-9);
    assert_eq!(comparison.simulation.runs, 24);
}

#[test]
fn windows_give_the_whole_runs_difference_an_error() {
    let mut baseline = VariantRuns { name: "a".into(), summaries: runs(&[100.0]), windows: None };
    let mut variant = VariantRuns { name: "b".into(), summaries: runs(&[120.0]), windows: None };
    let windows = |values: &[f64]| {
        let mut all: WindowValues = Default::default();
        all[0] = Some(values.to_vec());
        Some(all)
    };
    let noise: Vec<f64> = (0..32).map(|window| f64::from(window * 7 % 5)).collect();
    baseline.windows = windows(&noise);
    variant.windows =
        windows(&noise.iter().enumerate().map(|(i, v)| v + 20.0 + (i % 2) as f64).collect::<Vec<_>>());
    let observed = Observed {
        variants: vec![baseline, variant],
        traffic: Traffic {
            requests: 1,
            same_requests: true,
            same_arrivals: true,
            paired: true,
            about: String::new(),
        },
        warnings: Vec::new(),
        wall_s: None,
    };
    let comparison = compare(observed, Settings { kind: MethodKind::Windows, margin: 0.01 });
    let change = ttft(&comparison, 0);
    assert_eq!((change.difference, change.verdict), (20.0, Verdict::Worse));
    assert_eq!(comparison.method.count, 32);
    assert_eq!(comparison.pairs[0].figures["e2e_mean_ms"].verdict, Verdict::NotJudged);
}

#[test]
fn a_comparison_survives_being_written_and_read() {
    let comparison = comparison(&[("a", &shifted(1.0)), ("b", &shifted(1.3))]);
    let read: Comparison = serde_json::from_str(&comparison.to_json()).unwrap();
    assert_eq!(read, comparison);
}
