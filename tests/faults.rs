//! Replicas that die: their requests are sent again or fail, their KV is gone, and nobody is sent to them meanwhile.

use forerun_sim::fleet::fabric::LinkSpec;
use forerun_sim::fleet::{Disaggregation, FailedPull, Fault, FleetConfig, Lost, PoolConfig, Role};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Cause, Failure, Refusal, Rejection, Request, Status};
use forerun_sim::time::Span;

use crate::harness::{Linear, Run, Script, at, bare_fleet, ns, play, request, roomy_engine};

/// A step takes 10 us, and 100 ns for every token; a block of KV has 160 bytes.
const COST: Linear = Linear { step: 10_000, token: 100, ..Linear::FREE };
/// A byte per nanosecond.
const LINK: LinkSpec = LinkSpec { bandwidth: 1e9, efficiency: 1.0, latency: Span::ZERO };

fn fleet(replicas: u32, lost: Lost, faults: &[(u64, Fault)]) -> FleetConfig {
    let mut fleet = bare_fleet(replicas, roomy_engine(), COST);
    fleet.faults.planned = faults.iter().map(|&(time, fault)| (at(time), fault)).collect();
    fleet.faults.lost = lost;
    fleet
}

fn dies(replica: usize, back_in: u64) -> Fault {
    Fault::Die { replica, back_in: ns(back_in) }
}

fn played(fleet: &FleetConfig, requests: impl IntoIterator<Item = Request>) -> Run {
    play(fleet, Script::of(requests), "round-robin")
}

#[test]
fn the_requests_of_a_dead_replica_fail_or_are_sent_to_another() {
    let requests = || (0..4).map(|id| request(id, 0, 100, 50));
    let faults = [(200_000, dies(0, 1_000_000_000))];
    let failed = played(&fleet(2, Lost::Fail, &faults), requests());
    let statuses: Vec<_> = (0..4).map(|id| failed.record.outcome(id).status).collect();
    let fault = Status::Failed(Failure::Fault);
    assert_eq!(statuses, [fault, Status::Completed, fault, Status::Completed]);
    assert!(failed.record.outcome(0).emitted > 0, "what it had answered was delivered");
    assert_eq!(failed.record.outcome(0).ended, at(200_000));
    let again = played(&fleet(2, Lost::Retry { most: 3 }, &faults), requests());
    assert!(again.record.outcomes.iter().all(|outcome| outcome.status == Status::Completed));
    assert_eq!(again.record.outcome(0).restarts, 1);
    assert_eq!(again.record.outcome(0).emitted, 50, "answered anew");
    assert_eq!(again.record.outcome(0).replica, again.record.outcome(1).replica);
    assert_eq!((failed.totals.deaths, again.totals.deaths), (1, 1));
}

#[test]
fn who_is_sent_again_as_often_as_it_may_be_fails() {
    let faults = [(100_000, dies(0, 50_000)), (300_000, dies(0, 50_000))];
    let one = |most| played(&fleet(1, Lost::Retry { most }, &faults), [request(0, 0, 100, 50)]);
    // While its only replica is down nobody takes it.
    let refused = Status::Rejected(Rejection::Router(Refusal::NoEndpoint));
    assert_eq!(one(3).record.outcome(0).status, refused);
    assert_eq!(one(0).record.outcome(0).status, Status::Failed(Failure::Fault));
}

#[test]
fn a_replica_that_is_back_has_nothing_cached() {
    let turn = |id: u64, arrival| Request {
        prompt: Prompt::of(Content::shared(1), 160),
        ..request(id, arrival, 1, 2)
    };
    let turns = || [turn(0, 0), turn(1, 1_000_000), turn(2, 4_000_000), turn(3, 5_000_000)];
    let run = played(&fleet(1, Lost::Fail, &[(2_000_000, dies(0, 1_000_000))]), turns());
    let cached = |id| run.record.outcome(id).cached_tokens;
    assert_eq!([0, 1, 2, 3].map(cached), [0, 144, 0, 144]);
}

#[test]
fn a_replica_that_drains_finishes_what_it_has_and_gets_nothing_new() {
    let replace = Fault::Replace { replica: 0, drain: ns(2_000_000), back_in: ns(1_000_000) };
    let requests = (0..8).map(|id| request(id, id * 200_000, 100, 20));
    let run = played(&fleet(2, Lost::Fail, &[(300_000, replace)]), requests);
    assert!(run.record.outcomes.iter().all(|outcome| outcome.status == Status::Completed));
    let served = |replica: usize| run.totals.replicas[replica].requests;
    assert_eq!((served(0), served(1)), (1, 7));
}

/// One replica that prefills and one that decodes.
fn split(fault: (u64, Fault), failed_pull: FailedPull) -> FleetConfig {
    let mut fleet = fleet(1, Lost::Fail, &[fault]);
    fleet.pools[0].role = Role::Decode;
    fleet.pools[0].kv_block_bytes = 160_000;
    let prefill = PoolConfig { name: "prefill".into(), role: Role::Prefill, ..fleet.pools[0].clone() };
    fleet.pools.push(prefill);
    fleet.disaggregation = Disaggregation {
        link: LINK,
        sidecar: ns(3_000),
        lease: ns(5_000_000),
        failed_pull,
        ..Disaggregation::default()
    };
    fleet
}

#[test]
fn when_the_prefill_replica_dies_in_a_pull_the_request_fails_or_is_computed_again() {
    // The pull begins after 23 us and takes 1.12 ms.
    let outcome = |failed_pull| {
        let fleet = split((500_000, dies(1, 1_000_000)), failed_pull);
        played(&fleet, [request(0, 0, 100, 3)]).record.outcome(0).clone()
    };
    let failed = outcome(FailedPull::Fail);
    assert_eq!((failed.status, failed.ended), (Status::Failed(Failure::Transfer), at(500_000)));
    let again = outcome(FailedPull::Recompute);
    assert_eq!((again.status, again.emitted), (Status::Completed, 3));
}

#[test]
fn when_the_decode_replica_dies_its_source_holds_the_blocks_until_their_lease_ends() {
    let fleet = split((500_000, dies(0, 100_000)), FailedPull::Fail);
    // The second request keeps the run going until after the lease.
    let run = played(&fleet, [request(0, 0, 100, 3), request(1, 9_000_000, 100, 3)]);
    assert_eq!(run.record.outcome(0).status, Status::Failed(Failure::Fault));
    assert_eq!(run.record.outcome(1).status, Status::Completed);
    // Seven of a thousand blocks: 23 us to compute, then held until 5.5 ms, and again for the second request.
    let held = run.totals.replicas[1].kv_usage_mean * run.totals.end.as_secs_f64() * 1e3 / 0.007;
    assert!((held - 5.5 - 1.1).abs() < 0.2, "held for {held} ms");
}

#[test]
fn a_slow_link_makes_the_pull_longer() {
    let transfer = |share| {
        let fleet = split((0, Fault::Link { replica: 1, share }), FailedPull::Fail);
        let run = played(&fleet, [request(0, 0, 100, 3)]);
        run.record.outcome(0).spent.get(Cause::Transfer).as_nanos()
    };
    assert_eq!(transfer(1.0), 7 * 160_000);
    assert_eq!(transfer(0.25), 4 * 7 * 160_000);
}

#[test]
fn clients_do_not_wait_longer_because_a_replica_died() {
    let mut fleet = fleet(2, Lost::Retry { most: 5 }, &[(400_000, dies(0, 1_000_000))]);
    fleet.client.timeout = Some(ns(500_000));
    let outcome = played(&fleet, [request(0, 0, 100, 90)]).record.outcome(0).clone();
    assert_eq!((outcome.status, outcome.ended), (Status::Failed(Failure::Timeout), at(500_000)));
    assert_eq!((outcome.restarts, outcome.retries), (1, 0));
}
