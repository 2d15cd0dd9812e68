//! The made-up workloads of `scenarios/signals`, each with one signal in its measures.

use std::path::Path;

use super::*;
use crate::scenario::read::{Origin, read};

fn signal(name: &str) -> Measures {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/signals")).join(name);
    let loaded = read(Origin::File(&path), &[]).unwrap_or_else(|e| panic!("{e}"));
    trace_info(&loaded, &Asked::default()).unwrap_or_else(|e| panic!("{name}: {e}")).measures
}

/// Share of the time in gaps of fifteen minutes and more.
fn idle_share(measures: &Measures) -> f64 {
    let gaps = measures.idle_gaps.iter().find(|gaps| gaps.at_least_s >= 900.0);
    gaps.and_then(|gaps| gaps.share_of_time).unwrap_or(0.0)
}

#[test]
fn each_made_up_workload_shows_its_own_signal_and_no_other() {
    let names = ["none", "rate", "prefix", "memory", "adapters", "bursts"];
    for name in names {
        let measures = signal(&format!("{name}.yaml"));
        let signals = [
            ("rate", measures.rates.sustained_per_s.unwrap_or(0.0) > 50.0),
            ("prefix", measures.prefixes.seen_share.unwrap_or(0.0) > 0.1),
            ("adapters", measures.adapters.distinct > 1),
            ("bursts", idle_share(&measures) > 0.2),
        ];
        for (signal, shown) in signals {
            assert_eq!(shown, signal == name, "{signal} in {name}");
        }
    }
}
