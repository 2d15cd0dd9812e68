//! Made-up outcomes and summaries for tests.

use std::collections::BTreeMap;

use forerun_sim::observer::{Observer, ReplicaTotals, RunTotals};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{
    Breakdown, Cause, Label, Labels, Outcome, ReplicaId, Request, RequestId, Status, Stop,
};
use forerun_sim::time::{Span, Time};

use crate::collector::{Collector, SummaryContext};
use crate::slo::{AggregateLimit, Limits, Metric, Slo, Statistic};
use crate::summary::Summary;

/// Milliseconds since the start.
pub(crate) fn at(millis: u64) -> Time {
    Time::ZERO + Span::from_millis(millis)
}

/// A request of 1000 prompt tokens that arrived at `arrival` ms on replica 0, had its first of `tokens`
/// tokens after `ttft` ms and its last after `e2e` ms. It reached the engine after 10 ms, waited 10 ms, and
/// found 400 tokens cached.
pub(crate) fn completed(arrival: u64, ttft: u64, e2e: u64, tokens: u32) -> Outcome {
    let mut spent = Breakdown::default();
    spent.add(Cause::Overhead, Span::from_millis(10));
    spent.add(Cause::EngineQueueStep, Span::from_millis(10));
    spent.add(Cause::OwnPrefill, Span::from_millis(ttft - 20));
    spent.add(Cause::Decode, Span::from_millis(e2e - ttft));
    Outcome {
        request: Request {
            id: RequestId(0),
            name: None,
            arrival: at(arrival),
            prompt: Prompt::of(Content::private(0), 1000),
            output: Content::generated(0),
            output_tokens: tokens,
            stop: Stop::Length,
            max_tokens: None,
            priority: 0,
            tenant: Label::NONE,
            class: Label::NONE,
            model: Label::NONE,
            adapter: Label::NONE,
            session: None,
        },
        status: Status::Completed,
        replica: Some(ReplicaId(0)),
        prefill_replica: None,
        queued: Some(at(arrival + 10)),
        scheduled: Some(at(arrival + 20)),
        first_token: Some(at(arrival + ttft)),
        ended: at(arrival + e2e),
        emitted: tokens,
        cached_tokens: 400,
        cached_cpu_tokens: 0,
        cached_disk_tokens: 0,
        cached_shared_tokens: 0,
        duplicate_tokens: 0,
        preemptions: 0,
        retries: 0,
        restarts: 0,
        spent,
    }
}

/// Reports `outcome` from its arrival to its end, its tokens in one step at the end.
pub(crate) fn live(collector: &mut Collector, outcome: &Outcome, labels: &Labels) {
    collector.arrived(&outcome.request);
    let replica = outcome.replica.unwrap_or(ReplicaId(0));
    let computed = outcome.request.prompt.tokens() - outcome.cached_tokens;
    collector.step_done(outcome.ended, replica, computed, outcome.emitted);
    collector.ended(outcome, labels);
}

/// A run of `replicas` replicas that lasted `seconds`.
pub(crate) fn totals(replicas: u32, seconds: u64) -> RunTotals {
    let replica = |index: u32| ReplicaTotals {
        name: format!("pool-{index}"),
        pool: "pool".to_owned(),
        gpus: 1,
        busy: Span::from_millis(seconds * (700 + 20 * u64::from(index % 10))),
        observed: Span::from_secs(seconds),
        steps: 12_331 + u64::from(index),
        kv_usage_mean: 0.43,
        requests: 250,
        preemptions: 2,
        adapters: Default::default(),
        guesses: Default::default(),
    };
    RunTotals {
        end: Time::ZERO + Span::from_secs(seconds),
        steps: 49_330,
        replicas: (0..replicas).map(replica).collect(),
        ..RunTotals::default()
    }
}

/// A run of 1000 requests over 100 seconds on 4 replicas, with tenants, limits and prices.
pub(crate) fn example_summary() -> Summary {
    example_summary_of(4)
}

/// The same on as many replicas as asked.
pub(crate) fn example_summary_of(replicas: u32) -> Summary {
    let slo = Slo {
        limits: Limits { ttft: Some(Span::from_millis(1000)), ..Limits::default() },
        aggregate: vec![AggregateLimit {
            metric: Metric::Ttft,
            statistic: Statistic::P99,
            limit: Span::from_secs(2),
        }],
        attainment: Some(0.95),
        ..Slo::default()
    };
    let mut labels = Labels::default();
    let tenants = ["acme", "globex", "initech", "umbrella"].map(|name| labels.intern(name));
    let mut collector = Collector::new(Time::ZERO, slo, vec!["pool"; replicas as usize]);
    for index in 0..1000_u64 {
        let ttft = 80 + index * index % 997;
        let mut outcome = completed(index * 100, ttft, ttft + 40 + index % 31 * 17, 1 + (index % 60) as u32);
        outcome.request.tenant = tenants[(index % 7 % 4) as usize];
        outcome.replica = Some(ReplicaId(index as u32 % replicas));
        collector.arrived(&outcome.request);
        collector.token_gaps(outcome.request.arrival, Span::from_millis(14), 25);
        collector.step_done(outcome.request.arrival, ReplicaId(0), 600, outcome.emitted);
        collector.ended(&outcome, &labels);
    }
    let context = SummaryContext {
        seed: 1,
        about: vec![
            "Qwen/Qwen3-14B on 4 x h100-sxm".to_owned(),
            "azure-conv at 10 requests/s for 100 s, router llm-d-default, seed 1".to_owned(),
        ],
        warnings: vec![
            "kernel efficiencies of h100-sxm are estimates, not measured on this model".to_owned(),
        ],
        gpu_hour_usd: Some(BTreeMap::from([("pool".to_owned(), 2.5)])),
        wall_s: Some(0.0125),
    };
    collector.finish(&totals(replicas, 101), &labels, context)
}
