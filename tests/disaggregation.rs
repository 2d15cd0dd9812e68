//! Fleets whose KV moves: what is lost to it, what it gains, and that nothing else changes.

use forerun_sim::engine::adapters::{AdapterConfig, AdapterCost};
use forerun_sim::engine::config::EngineConfig;
use forerun_sim::engine::connector::{Eviction, OffloadConfig};
use forerun_sim::fleet::fabric::LinkSpec;
use forerun_sim::fleet::{
    BelowHostTiers, DataParallel, Disaggregation, FailedPull, Fault, Faults, FleetConfig, HostTier, Lost,
    PoolConfig, Role,
};
use forerun_sim::kv::tiers::{ChannelSpec, TierSpec};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Cause, Failure, Request, Status};
use forerun_sim::time::Span;
use proptest::prelude::*;
use proptest::sample::select;

use crate::harness::{Linear, Run, Script, at, bare_fleet, ns, play, request, roomy_engine};
use crate::properties::{self, Scenario, cases, every_request_ends_exactly_once};

/// A byte per nanosecond.
const LINK: LinkSpec = LinkSpec { bandwidth: 1e9, efficiency: 1.0, latency: Span::from_nanos(700) };

/// A step takes 10 us, and 100 ns for every token: of the prompt or of the answer.
const COST: Linear = Linear { step: 10_000, token: 100, ..Linear::FREE };

fn engine() -> EngineConfig {
    EngineConfig { max_model_len: 4000, max_num_batched_tokens: 4000, ..roomy_engine() }
}

/// So many replicas that prefill, and so many that decode; KV of 10 bytes per token.
fn split(prefill: u32, decode: u32) -> FleetConfig {
    let mut fleet = bare_fleet(decode, engine(), COST);
    fleet.pools[0].role = Role::Decode;
    fleet.pools[0].kv_block_bytes = 160;
    let prefills = PoolConfig {
        name: "prefill".into(),
        replicas: prefill,
        role: Role::Prefill,
        ..fleet.pools[0].clone()
    };
    fleet.pools.push(prefills);
    fleet.disaggregation = Disaggregation { link: LINK, sidecar: ns(3_000), ..Disaggregation::default() };
    fleet
}

fn one(fleet: &FleetConfig, request: Request) -> Run {
    play(fleet, Script::of([request]), "round-robin")
}

#[test]
fn a_lone_request_takes_prefill_sidecar_pull_and_one_token_more() {
    let run = one(&split(1, 1), request(0, 0, 100, 3));
    let outcome = run.record.outcome(0);
    let nanos = |cause| outcome.spent.get(cause).as_nanos();
    // Seven blocks of 160 bytes.
    assert_eq!(nanos(Cause::Transfer), 7 * 160 + 700);
    assert_eq!(nanos(Cause::Overhead), 3_000);
    assert_eq!(nanos(Cause::OwnPrefill), 20_000 + 10_000 + 100, "the prompt there, its last token here");
    assert_eq!(outcome.ttft().map(Span::as_nanos), Some(20_000 + 3_000 + 1_820 + 10_100));
    assert_eq!((outcome.emitted, run.record.emitted), (3, 3), "the prefill replica's token reaches nobody");
    assert_eq!(run.totals.replicas.iter().map(|replica| replica.requests).collect::<Vec<_>>(), [1, 1]);
    assert_ne!(outcome.prefill_replica, outcome.replica);
}

#[test]
fn the_first_pull_between_two_engines_waits_for_their_handshake() {
    let mut fleet = split(1, 1);
    fleet.disaggregation.handshake = ns(5_000_000);
    let requests = [request(0, 0, 100, 3), request(1, 20_000_000, 100, 3)];
    let run = play(&fleet, Script::of(requests), "round-robin");
    let transfer = |id| run.record.outcome(id).spent.get(Cause::Transfer).as_nanos();
    assert_eq!((transfer(0), transfer(1)), (5_000_000 + 1_820, 1_820));
}

#[test]
fn what_the_decode_replica_has_cached_is_not_pulled() {
    let turn = |id: u64, arrival, own| {
        let mut request = request(id, arrival, 1, 4);
        request.prompt = Prompt::of(Content::shared(9), 160);
        request.prompt.push(Content::private(id), own);
        request
    };
    let requests = [turn(0, 0, 16), turn(1, 10_000_000, 16)];
    let run = play(&split(1, 1), Script::of(requests), "round-robin");
    let transfer = |id| run.record.outcome(id).spent.get(Cause::Transfer).as_nanos();
    assert_eq!((transfer(0), transfer(1)), (11 * 160 + 700, 160 + 700), "one block is new");
    assert_eq!(run.record.outcome(1).cached_tokens, 160, "the prefill replica has the rest as well");
}

#[test]
fn without_a_prefill_replica_of_its_model_a_request_is_served_by_one_replica() {
    let mut fleet = split(1, 1);
    fleet.pools[1].model_names = vec!["b".into()];
    let outcome = one(&fleet, request(0, 0, 100, 3)).record.outcome(0).clone();
    assert_eq!((outcome.status, outcome.prefill_replica), (Status::Completed, None));
    assert_eq!(outcome.spent.get(Cause::Transfer), Span::ZERO);
}

/// The second request waits for the decode replica's blocks, longer than its lease.
fn late(heartbeats: bool, failed_pull: FailedPull) -> Run {
    let mut fleet = split(1, 1);
    (fleet.pools[0].engine.max_model_len, fleet.pools[0].engine.num_gpu_blocks) = (200, 14);
    fleet.disaggregation =
        Disaggregation { lease: ns(100_000), heartbeats, failed_pull, ..fleet.disaggregation };
    play(&fleet, Script::of([request(0, 0, 100, 60), request(1, 0, 100, 3)]), "round-robin")
}

#[test]
fn heartbeats_keep_blocks_and_without_them_a_lease_ends_in_failure_or_in_recomputation() {
    let kept = late(true, FailedPull::Fail).record.outcome(1).clone();
    assert_eq!(kept.status, Status::Completed);
    assert!(kept.spent.get(Cause::Transfer) > Span::ZERO);
    let failed = late(false, FailedPull::Fail).record.outcome(1).clone();
    assert_eq!((failed.status, failed.emitted), (Status::Failed(Failure::Transfer), 0));
    let again = late(false, FailedPull::Recompute).record.outcome(1).clone();
    assert_eq!((again.status, again.emitted), (Status::Completed, 3));
    assert!(again.spent.get(Cause::OwnPrefill) >= ns(40_000), "its prompt is computed twice");
}

/// Mean time of forty requests, one every `gap`.
fn mean_time(fleet: &FleetConfig, prompt: u32, output: u32, gap: u64) -> f64 {
    let requests = (0..40).map(|id| request(id, id * gap, prompt, output));
    let run = play(fleet, Script::of(requests), "round-robin");
    let sum: u64 = run.record.outcomes.iter().map(|o| o.e2e().expect("completed").as_nanos()).sum();
    sum as f64 / 40.0
}

#[test]
fn disaggregation_loses_for_short_prompts_and_wins_for_long_ones() {
    let plain = bare_fleet(2, engine(), COST);
    let (short, long) = ((32, 40, 60_000), (3000, 40, 330_000));
    assert!(
        mean_time(&split(1, 1), short.0, short.1, short.2) > mean_time(&plain, short.0, short.1, short.2)
    );
    assert!(mean_time(&split(1, 1), long.0, long.1, long.2) < mean_time(&plain, long.0, long.1, long.2));
}

fn host(chunks: u32, bandwidth: f64) -> HostTier {
    let memory = OffloadConfig {
        chunks,
        blocks_per_chunk: 1,
        eviction: Eviction::Lru,
        offload_prompt_only: true,
        store_threshold: 0,
    };
    HostTier { memory, link: LinkSpec { bandwidth, ..LINK } }
}

/// Two long prompts in turn on a GPU that holds one of them: the outcome of the third request.
fn evicted(host: Option<HostTier>) -> Run {
    let mut fleet = bare_fleet(1, EngineConfig { num_gpu_blocks: 64, ..roomy_engine() }, COST);
    fleet.pools[0].kv_block_bytes = 160;
    fleet.pools[0].host = host;
    let asks = |id: u64, text| Request {
        prompt: Prompt::of(Content::shared(text), 960),
        ..request(id, id * 10_000_000, 1, 3)
    };
    play(&fleet, Script::of([asks(0, 1), asks(1, 2), asks(2, 1)]), "round-robin")
}

#[test]
fn host_memory_gives_back_what_the_gpu_evicted_and_costs_its_transfer() {
    let without = evicted(None);
    let with = evicted(Some(host(200, 1e9)));
    let third = with.record.outcome(2);
    assert!(without.record.outcome(2).cached_tokens < 100, "the head of the prompt is evicted last");
    assert!(third.cached_cpu_tokens > 700, "{} tokens", third.cached_cpu_tokens);
    assert!(third.spent.get(Cause::Transfer) > Span::ZERO);
    assert!(third.e2e() < without.record.outcome(2).e2e());
}

#[test]
fn loading_over_a_slow_link_loses_to_computing_again() {
    let (without, with) = (evicted(None), evicted(Some(host(200, 1e7))));
    assert!(with.record.outcome(2).e2e() > without.record.outcome(2).e2e());
}

/// Tiers below host memory: none, either or both; of a few chunks, or without a limit.
fn below_host() -> impl Strategy<Value = BelowHostTiers> {
    let channel = || {
        (1e7..1e10f64, 0..50_000u64, 1..4u32).prop_map(|(bandwidth, latency, concurrency)| ChannelSpec {
            bandwidth,
            latency: ns(latency),
            concurrency,
            queued_max: None,
        })
    };
    let tier = || {
        let size = (proptest::option::of(1..6000u64), any::<bool>());
        (size, channel(), channel(), proptest::option::of(0..100_000u64)).prop_map(
            |((capacity, evicts), read, write, queued)| TierSpec {
                capacity,
                evicts,
                read,
                write: ChannelSpec { queued_max: queued.map(ns), ..write },
            },
        )
    };
    (proptest::option::of(tier()), proptest::option::of(tier()), proptest::bool::weighted(0.3))
        .prop_map(|(disk, shared, cheapest)| BelowHostTiers { disk, shared, cheapest })
}

/// A random fleet whose KV moves: roles, host memory, links and leases of all sizes.
fn moving() -> impl Strategy<Value = Scenario> {
    let roles = (any::<bool>(), 1..3u32, any::<bool>());
    let tier =
        proptest::option::weighted(0.5, (1..60u32, 1..4u32, any::<bool>(), any::<bool>(), 1e7..1e10f64));
    let rules = (
        select(&[0u64, 1, 50_000][..]),
        select(&[0u64, 40_000][..]),
        select(&[20_000u64, 30_000_000_000][..]),
        any::<bool>(),
        any::<bool>(),
        1e7..1e10f64,
    );
    let lora = proptest::option::of((0..3u32, 1..200_000u64));
    let parts = (properties::scenario(), roles, tier, rules, lora, (below_host(), faults()));
    parts.prop_map(|(mut scenario, roles, tier, rules, lora, (below_host, faults))| {
        scenario.fleet.below_host = below_host;
        let (splits, prefills, mixed) = roles;
        let (latency, handshake, lease, heartbeats, recompute, bandwidth) = rules;
        let link = LinkSpec { bandwidth, efficiency: 0.9, latency: ns(latency) };
        scenario.fleet.disaggregation = Disaggregation {
            link,
            sidecar: ns(latency * 2),
            handshake: ns(handshake),
            lease: ns(lease),
            heartbeats,
            failed_pull: if recompute { FailedPull::Recompute } else { FailedPull::Fail },
        };
        for pool in &mut scenario.fleet.pools {
            pool.kv_block_bytes = 64;
            // Without it vLLM's rules let two requests that hold loaded blocks preempt each other for ever.
            pool.engine.reserve_full_isl = true;
            pool.lora = lora.zip(pool.engine.max_loras).map(|((more, nanos), gpu_slots)| AdapterConfig {
                gpu_slots,
                host_places: gpu_slots + more,
                cost: AdapterCost {
                    bytes: 1000,
                    host_bandwidth: 1e9,
                    disk_bandwidth: 1e8,
                    activation: ns(nanos),
                    parse: ns(nanos / 3),
                },
            });
            pool.host = tier.map(|(chunks, blocks_per_chunk, arc, prompt_only, bandwidth)| HostTier {
                memory: OffloadConfig {
                    chunks,
                    blocks_per_chunk,
                    eviction: if arc { Eviction::Arc } else { Eviction::Lru },
                    offload_prompt_only: prompt_only,
                    store_threshold: 0,
                },
                link: LinkSpec { bandwidth, ..link },
            });
        }
        if faults != Faults::default() {
            // Those of a server's ranks are not modelled.
            scenario.fleet.pools.iter_mut().for_each(|pool| pool.data_parallel = DataParallel::default());
        }
        if splits || tier.is_none() {
            let decode = &mut scenario.fleet.pools[0];
            decode.role = if mixed { Role::Both } else { Role::Decode };
            let mut prefill = decode.clone();
            prefill.replicas = prefills * prefill.data_parallel.ranks;
            (prefill.name, prefill.role) = ("prefill".into(), Role::Prefill);
            scenario.fleet.pools.push(prefill);
        }
        let replicas = scenario.fleet.pools.iter().map(|pool| pool.replicas as usize).sum::<usize>();
        let place = |replica: usize| replica % replicas;
        if faults.by_chance != [None] {
            // A lease of 30 s would be as long as ten thousand of these failures.
            let lease = &mut scenario.fleet.disaggregation.lease;
            *lease = (*lease).min(ns(2_000_000));
        }
        scenario.fleet.faults = faults;
        for (_, fault) in &mut scenario.fleet.faults.planned {
            *fault = match *fault {
                Fault::Die { replica, back_in } => Fault::Die { replica: place(replica), back_in },
                Fault::Replace { replica, drain, back_in } => {
                    Fault::Replace { replica: place(replica), drain, back_in }
                }
                Fault::Link { replica, share } => Fault::Link { replica: place(replica), share },
            };
        }
        scenario
    })
}

/// Replicas, by any number, that die, are replaced or have slow links; and those of the first pool by chance.
fn faults() -> impl Strategy<Value = Faults> {
    let span = || (0..2_000_000u64).prop_map(ns);
    let fault = prop_oneof![
        (0..8usize, span()).prop_map(|(replica, back_in)| Fault::Die { replica, back_in }),
        (0..8usize, span(), span()).prop_map(|(replica, drain, back_in)| Fault::Replace {
            replica,
            drain,
            back_in
        }),
        (0..8usize, 0.05..1.0f64).prop_map(|(replica, share)| Fault::Link { replica, share }),
    ];
    let planned = proptest::collection::vec(((0..3_000_000u64).prop_map(at), fault), 0..5);
    let by_chance = proptest::option::weighted(0.2, (300_000..3_000_000u64, span()));
    let lost = prop_oneof![Just(Lost::Fail), (0..4u32).prop_map(|most| Lost::Retry { most })];
    let some = (planned, by_chance, lost, any::<u64>()).prop_map(|(planned, by_chance, lost, seed)| Faults {
        planned,
        by_chance: vec![by_chance.map(|(mtbf, restart)| (ns(mtbf), restart))],
        lost,
        seed,
    });
    prop_oneof![Just(Faults::default()), some]
}

proptest! {
    #![proptest_config(cases(1500))]

    /// Both forms of the engine are compared, outcome by outcome, by [`play`].
    #[test]
    fn when_kv_moves_every_request_still_ends_once_and_its_causes_add_up(scenario in moving()) {
        let run = scenario.run();
        every_request_ends_exactly_once(&run);
        for outcome in &run.record.outcomes {
            prop_assert_eq!(outcome.spent.total(), outcome.ended.since(outcome.request.arrival));
            let loaded = outcome.cached_cpu_tokens + outcome.cached_disk_tokens + outcome.cached_shared_tokens;
            prop_assert!(loaded <= outcome.cached_tokens);
            prop_assert!(outcome.cached_tokens < outcome.request.prompt.tokens());
            if outcome.status == Status::Completed {
                prop_assert!(outcome.first_token.is_some() && outcome.emitted > 0);
            }
            let restarts_max = match scenario.fleet.faults.lost {
                Lost::Retry { most } => most,
                Lost::Fail => 0,
            };
            prop_assert!(outcome.restarts <= restarts_max);
            if outcome.status == Status::Failed(Failure::Fault) {
                prop_assert_eq!(outcome.restarts, restarts_max, "sent again as often as it may be");
            }
            if outcome.status == Status::Failed(Failure::Transfer) {
                prop_assert_eq!(scenario.fleet.disaggregation.failed_pull, FailedPull::Fail);
            }
        }
        let emitted: u64 = run.record.outcomes.iter().map(|o| u64::from(o.emitted)).sum();
        let again = run.record.outcomes.iter().any(|o| o.retries + o.restarts > 0);
        prop_assert!(again || run.record.emitted == emitted, "steps emit what clients receive");
        prop_assert_eq!(run.left_over, 0, "the router's counts return to zero");
    }
}
