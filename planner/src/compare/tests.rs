use std::ops::ControlFlow;

use forerun_reports::compare::Verdict;

use super::*;
use crate::scenario::read::Origin;

const GENERATED: [&str; 4] = [
    "workload={preset: azure-conv, rate: 30, requests: 400}",
    "pools.0.replicas=2",
    "run={seed: 5, replications: 6}",
    "slo={ttft: 1s}",
];

fn compared(overrides: &[&str], routers: &[&str], variants: &[&str]) -> Comparison {
    let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
    let names = VariantNames {
        routers: routers.iter().map(|&name| name.into()).collect(),
        scenarios: Vec::new(),
        variants: variants.iter().map(|&text| text.into()).collect(),
    };
    let candidates = candidates(Origin::BuiltIn, &overrides, &names).unwrap();
    let plan = Plan::new(candidates, Options { kind: None, margin: 0.01 }).unwrap();
    plan.run(&|_| ControlFlow::Continue(())).unwrap()
}

#[test]
fn every_variant_sees_the_same_requests_and_the_same_policy_is_found_to_be_the_same() {
    let comparison = compared(&GENERATED, &["random"], &["again: router.preset=random"]);
    let traffic = &comparison.traffic;
    assert!(traffic.same_requests && traffic.same_arrivals && traffic.paired, "{traffic:?}");
    assert_eq!((traffic.requests, comparison.method.count, comparison.simulation.runs), (2400, 6, 12));
    assert_eq!(comparison.method.seeds, seeds(5, 6));
    for (key, change) in &comparison.pairs[0].figures {
        assert!(change.difference == 0.0 && change.verdict != Verdict::Worse, "{key}: {change:?}");
    }
}

#[test]
fn more_replicas_are_shown_to_be_better() {
    let comparison = compared(&GENERATED, &[], &["one: pools.0.replicas=1", "eight: pools.0.replicas=8"]);
    assert_eq!(comparison.pairs[0].figures["tpot_mean_ms"].verdict, Verdict::Better);
    assert!(!comparison.pairs[0].why.is_empty());
}

#[test]
fn a_slower_load_is_the_same_requests_at_other_times_and_other_lengths_are_not_paired() {
    let slower = compared(&GENERATED, &[], &["as-is:", "calm: workload.rate=3"]).traffic;
    assert!(slower.paired && slower.same_requests && !slower.same_arrivals, "{slower:?}");
    let other = compared(&GENERATED, &[], &["as-is:", "code: workload.preset=azure-code"]).traffic;
    assert!(!other.paired && !other.same_requests, "{other:?}");
}

#[test]
fn a_recorded_trace_is_cut_into_windows() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.csv");
    let rows = (0..800).map(|row| format!("{}.{},{},20\n", row / 20, row % 20 * 5, 300 + row * 37 % 900));
    let text = "arrival_s,input_tokens,output_tokens\n".to_owned() + &rows.collect::<String>();
    std::fs::write(&trace, text).unwrap();
    let workload = format!("workload={{trace: {}}}", trace.display());
    let overrides = [workload.as_str(), "pools.0.replicas=2", "run="];
    let comparison = compared(&overrides, &["round-robin"], &["six: pools.0.replicas=6"]);
    assert_eq!((comparison.method.kind, comparison.method.count), (MethodKind::Windows, 32));
    let ttft = comparison.pairs[0].figures["ttft_mean_ms"];
    assert!(ttft.interval.is_some() && ttft.verdict == Verdict::Better, "{ttft:?}");
    assert!(comparison.pairs[0].figures["itl_mean_ms"].interval.is_none());
}

#[test]
fn a_margin_that_is_no_share_is_refused() {
    let names = VariantNames { routers: vec!["random".into()], ..VariantNames::default() };
    let candidates = candidates(Origin::BuiltIn, &[], &names).unwrap();
    for margin in [-0.1, 1.0, f64::NAN] {
        assert!(Plan::new(candidates.clone(), Options { kind: None, margin }).is_err());
    }
}
