//! Data parallel servers: the router sees one endpoint, the server's balancer chooses among its ranks, and ranks of a
//! mixture of experts step together.

use std::collections::BTreeMap;

use forerun_sim::fleet::{DataParallel, FleetConfig};
use forerun_sim::time::Span;

use crate::harness::{Linear, Run, Script, bare_fleet, ns, play, request, roomy_engine};
use crate::support::Folder;

/// One server of so many ranks; a step takes 100 ns and 1 ns for each token.
fn server(ranks: u32, lock_step: bool) -> FleetConfig {
    let mut fleet = bare_fleet(ranks, roomy_engine(), Linear { step: 100, token: 1, ..Linear::FREE });
    fleet.pools[0].data_parallel = DataParallel { ranks, lock_step };
    fleet
}

fn replica(run: &Run, id: u64) -> u32 {
    run.record.outcome(id).replica.expect("served").0
}

fn ttft(run: &Run, id: u64) -> Span {
    run.record.outcome(id).ttft().expect("a first token")
}

#[test]
fn requests_are_spread_over_the_ranks_of_a_server_one_after_another() {
    let run = play(&server(3, false), Script::of((0..6).map(|id| request(id, 0, 20, 5))), "round-robin");
    assert_eq!((0..6).map(|id| replica(&run, id)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn the_balancer_sends_to_the_rank_with_the_fewest_requests() {
    // The first keeps rank 0 busy; the second has left rank 1 when the third comes.
    let requests =
        [request(0, 0, 20, 400), request(1, 0, 20, 2), request(2, 5_000, 20, 2), request(3, 10_000, 20, 2)];
    let run = play(&server(2, false), Script::of(requests), "round-robin");
    assert_eq!((0..4).map(|id| replica(&run, id)).collect::<Vec<_>>(), [0, 1, 1, 1]);
}

#[test]
fn in_lock_step_a_rank_waits_for_the_longest_and_an_idle_one_for_the_step_under_way() {
    let requests = [request(0, 0, 900, 3), request(1, 0, 100, 3), request(2, 1_050, 100, 3)];
    let alone = play(&server(3, false), Script::of(requests.clone()), "round-robin");
    let together = play(&server(3, true), Script::of(requests), "round-robin");
    assert_eq!((ttft(&alone, 0), ttft(&alone, 1), ttft(&alone, 2)), (ns(1000), ns(200), ns(200)));
    assert_eq!(ttft(&together, 0), ns(1000));
    assert_eq!(ttft(&together, 1), ns(1000), "100 tokens take as long as the other rank's 900");
    // Ranks 0 and 1 run their first decode from 1000 to 1101: rank 2 runs a dummy batch meanwhile.
    assert_eq!(ttft(&together, 2), ns(1101 - 1050 + 200));
}

#[test]
fn a_server_of_ranks_serves_what_so_many_servers_behind_a_good_router_serve() {
    let requests = || Script::of((0..60).map(|id| request(id, id * 40, 200, 20)));
    let ranks = play(&server(4, false), requests(), "round-robin");
    let mut servers = server(4, false);
    servers.pools[0].data_parallel = DataParallel::default();
    let servers = play(&servers, requests(), "least-requests");
    let mean = |run: &Run| (0..60).map(|id| ttft(run, id).as_nanos()).sum::<u64>() / 60;
    let (ranks, servers) = (mean(&ranks), mean(&servers));
    assert!(ranks.abs_diff(servers) * 10 < servers, "{ranks} ns and {servers} ns");
}

#[test]
fn experts_are_shared_by_the_ranks_and_what_cannot_be_is_refused() {
    let folder = Folder::new();
    let simulate = |settings: &[&str]| {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        let base = ["simulate", "--preset", "azure-conv", "--set", "workload.requests=30"];
        folder.run(&base.into_iter().chain(sets).collect::<Vec<_>>())
    };
    let run = simulate(&["model=gpt-oss-120b", "pools=[{data_parallel: 2, replicas: 2}]"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let expected = "4 x gpt-oss-120b on H100 SXM as ranks of servers of 2, in lock-step (not golden-tested)";
    assert!(
        run.stdout.contains(expected) || run.stdout.contains("as ranks of servers of 2, in lock-step"),
        "{}",
        run.stdout
    );
    let cases: [(&[&str], &str); 3] = [
        (&["pools=[{data_parallel: 0}]"], "`data_parallel` is 0"),
        (
            &["pools=[{data_parallel: 2}]", "faults={crashes: [{pool: pool, replicas: [0], at: 1s}]}"],
            "`faults` of data parallel servers",
        ),
        (&["model=gpt-oss-120b", "pools=[{data_parallel: 5}]"], "which share experts"),
    ];
    for (settings, expected) in cases {
        let run = simulate(settings);
        assert!(run.code == Some(2) && run.stderr.contains(expected), "{settings:?}: {}", run.stderr);
    }
}

#[test]
fn the_experts_of_ranks_leave_more_memory_and_take_less_time_than_those_of_one_engine() {
    let of = |ranks: u32| {
        let scenario = format!(
            "model: qwen3-30b-a3b\npools: [{{data_parallel: {ranks}}}]\nworkload: {{synthetic: {{arrival: {{constant: {{rate: 1000}}}}, input_tokens: 500, output_tokens: 100}}, loop: {{closed: {}}}, requests: {}}}\n",
            8 * ranks,
            64 * ranks
        );
        let summary = Folder::with_scenario(&scenario).summary(&["scenario.yaml"]);
        let number =
            |pointer: &str| summary.pointer(pointer).and_then(serde_json::Value::as_f64).expect("a figure");
        BTreeMap::from(["/tpot_ms/mean", "/replicas/0/kv_usage_mean"].map(|key| (key, number(key))))
    };
    let (one, four) = (of(1), of(4));
    assert!(four["/replicas/0/kv_usage_mean"] < one["/replicas/0/kv_usage_mean"] / 2.0);
    assert!(four["/tpot_ms/mean"] < one["/tpot_ms/mean"]);
}
