//! KV below host memory: what comes back from a disk or a shared file system, for whom, and at what price.

use forerun_sim::engine::config::EngineConfig;
use forerun_sim::engine::connector::{Eviction, OffloadConfig};
use forerun_sim::fleet::fabric::LinkSpec;
use forerun_sim::fleet::{BelowHostTiers, FleetConfig, HostTier};
use forerun_sim::kv::tiers::{ChannelSpec, TierSpec};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Cause, Request};
use forerun_sim::time::Span;

use crate::harness::{Linear, Run, Script, bare_fleet, ns, play, request, roomy_engine};
use crate::support::Folder;

/// A step takes 10 us, and 100 ns for every token; a block of KV has 160 bytes.
const COST: Linear = Linear { step: 10_000, token: 100, ..Linear::FREE };
const LINK: LinkSpec = LinkSpec { bandwidth: 1e9, efficiency: 1.0, latency: Span::ZERO };
/// A byte per nanosecond; four files at once.
const FAST: ChannelSpec =
    ChannelSpec { bandwidth: 1e9, latency: Span::from_nanos(500), concurrency: 4, queued_max: None };

fn tier(read: ChannelSpec) -> Option<TierSpec> {
    Some(TierSpec { capacity: None, evicts: false, read, write: FAST })
}

/// Replicas whose GPUs hold one long prompt, and whose host memory holds one and a bit.
fn fleet(replicas: u32, below_host: BelowHostTiers) -> FleetConfig {
    let mut fleet = bare_fleet(replicas, EngineConfig { num_gpu_blocks: 64, ..roomy_engine() }, COST);
    fleet.pools[0].kv_block_bytes = 160;
    let memory = OffloadConfig {
        chunks: 62,
        blocks_per_chunk: 1,
        eviction: Eviction::Lru,
        offload_prompt_only: true,
        store_threshold: 0,
    };
    fleet.pools[0].host = Some(HostTier { memory, link: LINK });
    fleet.below_host = below_host;
    fleet
}

/// Requests for these texts of 960 tokens, one after the other.
fn in_turn(fleet: &FleetConfig, texts: &[u64]) -> Run {
    let asks = |(id, &text): (usize, &u64)| Request {
        prompt: Prompt::of(Content::shared(text), 960),
        ..request(id as u64, id as u64 * 10_000_000, 1, 3)
    };
    play(fleet, Script::of(texts.iter().enumerate().map(asks)), "round-robin")
}

#[test]
fn what_host_memory_has_lost_comes_back_from_the_disk_through_it() {
    let without = in_turn(&fleet(1, BelowHostTiers::default()), &[1, 2, 1]);
    let with = in_turn(&fleet(1, BelowHostTiers { disk: tier(FAST), ..Default::default() }), &[1, 2, 1]);
    let third = with.record.outcome(2);
    assert!(third.cached_disk_tokens > 700, "{third:?}");
    assert_eq!(third.cached_shared_tokens, 0);
    assert!(third.cached_tokens > without.record.outcome(2).cached_tokens);
    let bytes = u64::from(third.cached_disk_tokens) / 16 * 160;
    let files = u64::from(third.cached_disk_tokens) / 16;
    let read = bytes + files.div_ceil(4) * 500;
    assert!(third.spent.get(Cause::Transfer).as_nanos() >= read + bytes, "read, then loaded: {third:?}");
    assert_eq!(with.totals.tiers.read_bytes, bytes);
    assert!(with.totals.tiers.written_bytes >= 2 * 59 * 160, "both texts were written");
}

#[test]
fn a_shared_file_system_serves_replicas_that_never_saw_the_text_and_a_disk_does_not() {
    let second = |below_host| in_turn(&fleet(2, below_host), &[1, 1]).record.outcome(1).clone();
    let shared = second(BelowHostTiers { shared: tier(FAST), ..Default::default() });
    assert!(shared.cached_shared_tokens > 900, "{shared:?}");
    let disk = second(BelowHostTiers { disk: tier(FAST), ..Default::default() });
    assert_eq!(disk.cached_tokens, 0);
    assert!(shared.e2e() < disk.e2e());
}

#[test]
fn loading_over_a_slow_link_loses_unless_the_cheaper_way_is_chosen() {
    let slow = ChannelSpec { bandwidth: 1e7, ..FAST };
    let run = |disk, cheapest| {
        let below_host = BelowHostTiers { disk, shared: None, cheapest };
        in_turn(&fleet(1, below_host), &[1, 2, 1]).record.outcome(2).clone()
    };
    let (without, always, cheapest) = (run(None, false), run(tier(slow), false), run(tier(slow), true));
    assert!(always.e2e() > without.e2e(), "{always:?}");
    assert_eq!(cheapest.cached_disk_tokens, 0);
    assert!(cheapest.e2e() < always.e2e());
}

#[test]
fn writes_that_would_wait_too_long_are_lost() {
    let crawl = ChannelSpec { bandwidth: 1e4, queued_max: Some(ns(1_000)), ..FAST };
    let disk = Some(TierSpec { capacity: None, evicts: false, read: FAST, write: crawl });
    let run = in_turn(&fleet(1, BelowHostTiers { disk, ..Default::default() }), &[1, 2, 3]);
    let tiers = run.totals.tiers;
    assert!(tiers.dropped_bytes > 0 && tiers.written_bytes > 0, "{tiers:?}");
    assert_eq!(tiers.read_bytes, 0);
}

#[test]
fn the_summary_says_how_many_sessions_each_tier_keeps() {
    let folder = Folder::new();
    let tiers = "tiers={cpu: {capacity: 100GiB}, disk: {capacity: 1TiB}, shared: {}}";
    let base = ["--preset", "multi-tenant", "--set", "workload.requests=50", "--set", tiers];
    let summary = folder.summary(&base);
    let pool = &summary["kv_capacity"][0];
    let tokens = |tier: usize| pool["tiers"][tier]["tokens"].as_u64();
    let sessions = |tier: usize| pool["tiers"][tier]["resident_sessions"].as_u64();
    let length = pool["session_tokens"].as_u64().expect("sessions were served");
    let (gpu, cpu, disk) = (sessions(0).unwrap(), sessions(1).unwrap(), sessions(2).unwrap());
    assert_eq!(gpu, tokens(0).unwrap() / length.next_multiple_of(16));
    assert!(0 < gpu && gpu < cpu && cpu < disk, "{pool}");
    assert_eq!((tokens(3), sessions(3)), (None, None), "the shared tier has no limit");
    // Llama-3.1-8B keeps 131,072 bytes for a token: 100 GiB are 819,200 tokens.
    assert_eq!(tokens(1), Some(819_200));
    assert!(pool["longest_context_tokens"].as_u64().unwrap() <= tokens(0).unwrap());
    let text = folder.run(&[&["simulate"][..], &base].concat()).stdout;
    assert!(text.contains("KV room") && text.contains("any number with shared"), "{text}");
}
