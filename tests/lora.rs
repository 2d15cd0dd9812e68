//! LoRA adapters are not free: loading them takes time in the step, and keeping them together unbalances load.

use std::sync::Arc;

use forerun_policies::epp::config::{Config, LoadOptions};
use forerun_policies::epp::{EppRouter, Options};
use forerun_sim::engine::adapters::{AdapterConfig, AdapterCost};
use forerun_sim::engine::config::EngineConfig;
use forerun_sim::request::{Label, Outcome, Request};
use forerun_sim::rng::Stream;
use forerun_sim::router::Router;
use forerun_sim::time::Span;

use crate::harness::{Linear, Run, Script, bare_fleet, play, play_routed, request, roomy_engine};

const COST: Linear = Linear { step: 10_000, token: 100, ..Linear::FREE };

/// A load to the GPU takes 50 us, one from disk 200 us more.
const LOADS: AdapterCost = AdapterCost {
    bytes: 10_000,
    host_bandwidth: 1e9,
    disk_bandwidth: 0.1e9,
    activation: Span::from_nanos(40_000),
    parse: Span::from_nanos(100_000),
};

/// Requests for these adapters, one after the other, on one replica with so many slots and places.
fn in_turn(adapters: &[u32], gpu_slots: u32, host_places: u32) -> Run {
    let engine = EngineConfig { max_loras: Some(gpu_slots), ..roomy_engine() };
    let mut fleet = bare_fleet(1, engine, COST);
    fleet.pools[0].lora = Some(AdapterConfig { gpu_slots, host_places, cost: LOADS });
    let asks = |(id, &adapter): (usize, &u32)| Request {
        adapter: Label(adapter),
        ..request(id as u64, id as u64 * 10_000_000, 100, 2)
    };
    play(&fleet, Script::of(adapters.iter().enumerate().map(asks)), "round-robin")
}

#[test]
fn a_request_waits_for_its_adapter_once_and_again_when_it_has_lost_its_slot() {
    let ttft = |run: &Run, id| run.record.outcome(id).ttft().expect("answered").as_nanos();
    let run = in_turn(&[1, 1, 2, 1, 3, 1, 2, 0], 1, 2);
    let plain = 20_000;
    let (from_disk, from_host) = (plain + 250_000, plain + 50_000);
    let expected = [from_disk, plain, from_disk, from_host, from_disk, from_host, from_disk, plain];
    assert_eq!((0..8).map(|id| ttft(&run, id)).collect::<Vec<_>>(), expected);
    let totals = run.totals.replicas[0].adapters;
    assert_eq!((totals.to_gpu, totals.from_disk), (6, 4));
    assert_eq!(totals.waited, Span::from_nanos(4 * 250_000 + 2 * 50_000));
}

#[test]
fn the_whole_batch_waits_for_the_adapter_of_one_request() {
    let engine = EngineConfig { max_loras: Some(2), ..roomy_engine() };
    let mut fleet = bare_fleet(1, engine, COST);
    fleet.pools[0].lora = Some(AdapterConfig { gpu_slots: 2, host_places: 2, cost: LOADS });
    let with = |adapter, request: Request| Request { adapter: Label(adapter), ..request };
    let script = || Script::of([with(1, request(0, 0, 100, 60)), with(2, request(1, 400_000, 100, 2))]);
    let waits = play(&fleet, script(), "round-robin").record.outcome(0).e2e().expect("completed");
    fleet.pools[0].lora = None;
    let free = play(&fleet, script(), "round-robin").record.outcome(0).e2e().expect("completed");
    assert_eq!(waits.as_nanos() - free.as_nanos(), 2 * 250_000, "its own load, and the other's");
}

/// An endpoint picker that adds up these scores.
fn picker(scorers: &[&str]) -> Box<dyn Router> {
    let plugins: String = scorers.iter().map(|scorer| format!("- type: {scorer}\n")).collect();
    let refs: String = scorers.iter().map(|scorer| format!("  - pluginRef: {scorer}\n")).collect();
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}\
         schedulingProfiles:\n- name: default\n  plugins:\n{refs}"
    );
    let config = Config::load(&text, LoadOptions::default()).expect("a configuration that loads");
    Box::new(EppRouter::new(Arc::new(config), Options::default()).expect("and is simulated"))
}

/// Mean TTFT in milliseconds, and loads, of requests for so many adapters in random order on four replicas with two
/// slots each: the first alone, then one every `gap` ms. A request computes for 20 ms; a load takes 30 ms.
fn routed(scorers: &[&str], adapters: usize, gap: u64) -> (f64, u64) {
    const COST: Linear = Linear { step: 1_000_000, token: 20_000, ..Linear::FREE };
    let cost =
        AdapterCost { activation: Span::from_millis(30), parse: Span::ZERO, disk_bandwidth: 1e9, ..LOADS };
    let mut fleet = bare_fleet(4, EngineConfig { max_loras: Some(2), ..roomy_engine() }, COST);
    fleet.pools[0].lora = Some(AdapterConfig { gpu_slots: 2, host_places: 8, cost });
    let mut stream = Stream::new(1, "adapters");
    let requests = (0..600).map(|id| Request {
        adapter: Label(1 + stream.below(adapters) as u32),
        ..request(id, if id == 0 { 0 } else { (300 + id * gap) * 1_000_000 }, 500, 10)
    });
    let run = play_routed(&fleet, Script::of(requests), || picker(scorers));
    let ttft = |outcome: &Outcome| outcome.ttft().expect("answered").as_millis_f64();
    let mean = run.record.outcomes.iter().map(ttft).sum::<f64>() / 600.0;
    (mean, run.totals.replicas.iter().map(|replica| replica.adapters.to_gpu).sum())
}

#[test]
fn adapter_affinity_beside_load_saves_loads_and_time() {
    let with = routed(&["lora-affinity-scorer", "queue-scorer"], 8, 12);
    let without = routed(&["queue-scorer"], 8, 12);
    assert!(with.1 < without.1, "loads: {with:?} with affinity, {without:?} without");
    assert!(with.0 < without.0, "TTFT: {with:?} with affinity, {without:?} without");
}

#[test]
fn adapter_affinity_alone_loses_where_it_keeps_the_load_on_few_replicas() {
    // Replicas that have never stepped publish nothing and score nothing, so that they never get to step.
    let with = routed(&["lora-affinity-scorer"], 2, 5);
    let without = routed(&["queue-scorer"], 2, 5);
    assert!(with.1 < without.1, "loads: {with:?} with affinity, {without:?} without");
    assert!(with.0 > 2.0 * without.0, "TTFT: {with:?} with affinity, {without:?} without");
}
