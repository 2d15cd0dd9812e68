//! Laws of every scorer, filter and of whole decisions, on random endpoints.

use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, RequestId};
use forerun_sim::time::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::{Config, LoadOptions};
use super::plugin::{Context, Names, Notes};
use super::prefix::PrefixMatch;
use super::{EndpointInfo, EndpointState, InFlight, Latency, Metrics, Options, RequestView, Scheduler};
use super::{filters, scorers};

/// One endpoint: state, labels and match.
type Drawn = (EndpointState, EndpointInfo, Option<PrefixMatch>);

fn drawn() -> impl Strategy<Value = Drawn> {
    let metrics = (0..20u32, 0..20u32, 0.0..=1.0f64, 0..3u32, prop::collection::vec(1..4u32, 0..3));
    let load = prop::option::of((0..9u32, 0..9000u64));
    let latency = prop::option::of((-90.0..90.0f64, -9.0..9.0f64, 0..3u32));
    let prefix = prop::option::of((0..5u32, 5..6u32));
    let label =
        prop::option::of(prop::sample::select(vec!["0-500", "100-9000", "junk", "decode", "prefill"]));
    (metrics, load, latency, prefix, label).prop_map(|(metrics, load, latency, prefix, label)| {
        let (waiting, running, kv_usage, max_lora, adapters) = metrics;
        let active_adapters = adapters.into_iter().map(Label).collect();
        let state = EndpointState {
            metrics: Metrics { waiting, running, kv_usage, max_lora, active_adapters, ..Metrics::default() },
            scraped_at: Some(Time::ZERO),
            in_flight: load.map(|(requests, tokens)| InFlight { requests, tokens }),
            uncached_tokens: load.map(|(_, tokens)| tokens),
            latency: latency.map(|(ttft_headroom, tpot_headroom, dispatched)| Latency {
                ttft_headroom,
                tpot_headroom,
                ttft: ttft_headroom.abs(),
                tpot: 1.0,
                dispatched,
            }),
            ..EndpointState::default()
        };
        let labels = label.iter().flat_map(|label| {
            ["llm-d.ai/role", "llm-d.ai/context-length-range"]
                .map(|key| (key.to_owned(), (*label).to_owned()))
        });
        let info = EndpointInfo { labels: labels.collect(), ..EndpointInfo::default() };
        let prefix = prefix.map(|(matched_blocks, total_blocks)| PrefixMatch {
            matched_blocks,
            cached_blocks: matched_blocks,
            total_blocks,
            block_tokens: 64,
        });
        (state, info, prefix)
    })
}

fn with_context<R>(endpoints: &[Drawn], look: impl FnOnce(&Context<'_>) -> R) -> R {
    let prompt = Prompt::of(Content::private(0), 320);
    let request = RequestView {
        id: RequestId(0),
        model: Label(1),
        prompt: &prompt,
        max_tokens: None,
        priority: 0,
        headers: &[],
    };
    let states: Vec<_> = endpoints.iter().map(|(state, ..)| state.clone()).collect();
    let matches = vec![endpoints.iter().map(|&(_, _, prefix)| prefix).collect()];
    look(&Context {
        now: Time::ZERO,
        request: &request,
        endpoints: &states,
        matches: &matches,
        peer_topology: None,
    })
}

/// Scorers whose score of an endpoint does not depend on its place in the list.
const SCORERS: [&str; 10] = [
    "queue-scorer",
    "running-requests-size-scorer",
    "kv-cache-utilization-scorer",
    "load-aware-scorer",
    "active-request-scorer",
    "token-load-scorer",
    "prefix-cache-scorer",
    "lora-affinity-scorer",
    "context-length-aware",
    "latency-scorer",
];

const FILTERS: [&str; 6] = [
    "decode-filter",
    "prefill-filter",
    "prefix-cache-affinity-filter",
    "utilization-detector",
    "concurrency-detector",
    "context-length-aware",
];

fn scores(kind: &str, endpoints: &[Drawn]) -> Vec<f64> {
    let mut scorer = scorers::make(kind, &Value::Null, &mut Names::default()).unwrap().unwrap();
    endpoints.iter().for_each(|(_, info, _)| scorer.add_endpoint(info));
    let candidates: Vec<u32> = (0..endpoints.len() as u32).collect();
    let mut scores = vec![0.0; endpoints.len()];
    with_context(endpoints, |context| {
        scorer.score(context, &candidates, &mut scores, &mut Notes::default());
    });
    scores
}

fn kept(kind: &str, endpoints: &[Drawn]) -> Vec<u32> {
    let parameters =
        if kind == "context-length-aware" { json!({"enableFiltering": true}) } else { Value::Null };
    let mut filter = filters::make(kind, &parameters, &mut Names::default(), 1).unwrap().unwrap();
    endpoints.iter().for_each(|(_, info, _)| filter.add_endpoint(info));
    let mut candidates: Vec<u32> = (0..endpoints.len() as u32).collect();
    with_context(endpoints, |context| filter.filter(context, &mut candidates, &mut Notes::default()));
    candidates
}

proptest! {
    #[test]
    fn scores_lie_within_0_and_1_and_do_not_depend_on_the_order(
        endpoints in prop::collection::vec(drawn(), 1..9),
    ) {
        let reversed: Vec<_> = endpoints.iter().rev().cloned().collect();
        for kind in SCORERS {
            let forward = scores(kind, &endpoints);
            // The latency scorer's hundredths reach 1.01; the scheduler cuts them off.
            let most = if kind == "latency-scorer" { 1.01 } else { 1.0 };
            prop_assert!(forward.iter().all(|&score| (0.0..=most).contains(&score)), "{kind}: {forward:?}");
            let mut backward = scores(kind, &reversed);
            backward.reverse();
            prop_assert_eq!(forward, backward, "{}", kind);
        }
    }

    #[test]
    fn filters_keep_some_of_what_they_are_given_whatever_the_order(
        endpoints in prop::collection::vec(drawn(), 1..9),
    ) {
        let reversed: Vec<_> = endpoints.iter().rev().cloned().collect();
        let last = endpoints.len() as u32 - 1;
        for kind in FILTERS {
            let forward = kept(kind, &endpoints);
            prop_assert!(forward.is_sorted() && forward.iter().all(|&endpoint| endpoint <= last));
            let mut backward: Vec<_> = kept(kind, &reversed).iter().map(|endpoint| last - endpoint).collect();
            backward.reverse();
            prop_assert_eq!(forward, backward, "{}", kind);
        }
    }

    #[test]
    fn equal_seeds_decide_equally_and_only_among_the_best(
        queues in prop::collection::vec(0..3u32, 1..9), seed in 0..9u64,
    ) {
        let config = Config::load("", LoadOptions::default()).unwrap();
        let decide = || {
            let mut scheduler = Scheduler::new(&config, Options { seed, ..Options::default() }).unwrap();
            for &waiting in &queues {
                let endpoint = scheduler.add_endpoint(EndpointInfo::default());
                scheduler.scrape(Time::ZERO, endpoint, Metrics { waiting, ..Metrics::default() });
            }
            let prompt = Prompt::of(Content::private(0), 100);
            let pick = |id| {
                let request = RequestView {
                    id: RequestId(id),
                    model: Label::NONE,
                    prompt: &prompt,
                    max_tokens: None,
                    priority: 0,
                    headers: &[],
                };
                let decision = scheduler.schedule(Time::ZERO, &request).unwrap();
                let tied = scheduler.runs().next().unwrap().1.tied();
                scheduler.pre_request(Time::ZERO, &request, &decision);
                (decision.primary, tied)
            };
            (0..8).map(pick).collect::<Vec<_>>()
        };
        let decisions = decide();
        prop_assert_eq!(&decisions, &decide());
        let shortest = queues.iter().min().copied();
        for (primary, tied) in decisions {
            prop_assert!(tied.contains(&primary));
            prop_assert_eq!(queues.get(primary as usize).copied(), shortest);
        }
    }
}
