//! What the collector counts, on runs made by hand.

use super::*;
use crate::slo::Limits;
use crate::testing::{at, completed, live, totals};

fn collector(warm_up: Time) -> Collector {
    let limits = Limits { ttft: Some(Span::from_millis(150)), ..Limits::default() };
    Collector::new(warm_up, Slo { limits, ..Slo::default() }, ["pool"])
}

fn finish(collector: Collector, seconds: u64) -> Summary {
    collector.finish(&totals(1, seconds), &Labels::default(), SummaryContext::default())
}

/// `outcome` ended otherwise than completed.
fn ended_as(mut outcome: Outcome, status: Status) -> Outcome {
    outcome.status = status;
    outcome
}

#[track_caller]
fn assert_near(found: Option<f64>, expected: f64) {
    let found = found.expect("a figure");
    assert!((found - expected).abs() <= expected.abs() * 1e-3, "{found} for {expected}");
}

#[test]
fn latencies_are_those_computed_by_hand() {
    let mut collector = collector(Time::ZERO);
    let labels = Labels::default();
    live(&mut collector, &completed(0, 100, 300, 11), &labels);
    live(&mut collector, &completed(1000, 200, 800, 21), &labels);
    collector.token_gaps(at(1800), Span::from_millis(20), 3);
    collector.token_gaps(at(1800), Span::from_millis(100), 1);
    let summary = finish(collector, 2);
    assert_eq!(summary.ttft_ms.mean, Some(150.0));
    assert_eq!(summary.tpot_ms.mean, Some(25.0));
    assert_eq!(summary.e2e_ms.mean, Some(550.0));
    assert_eq!(summary.queue_ms.max, Some(10.0));
    assert_eq!(summary.itl_ms.mean, Some(40.0));
    assert_near(summary.itl_ms.p50, 20.0);
    assert_near(summary.e2e_ms.p99, 800.0);
    assert_eq!(summary.requests.good, 1);
    assert_eq!(summary.goodput.attainment, Some(0.5));
}

#[test]
fn every_arrival_ends_in_exactly_one_count() {
    let mut collector = collector(Time::ZERO);
    let labels = Labels::default();
    let statuses = [
        Status::Completed,
        Status::Failed(Failure::Timeout),
        Status::Rejected(Rejection::TooLong),
        Status::Rejected(Rejection::QueueFull),
        Status::Rejected(Rejection::NoSuchModel),
        Status::Unfinished,
    ];
    for (second, status) in statuses.into_iter().enumerate() {
        live(&mut collector, &ended_as(completed(second as u64 * 1000, 100, 300, 11), status), &labels);
    }
    let summary = finish(collector, 10);
    let requests = summary.requests;
    assert_eq!(requests.arrived, 6);
    assert_eq!((requests.completed, requests.failed, requests.rejected, requests.unfinished), (1, 1, 3, 1));
    assert_eq!(requests.good, 1);
    let failures = summary.failures;
    assert_eq!(failures.entries().map(|(_, count)| count).iter().sum::<u64>(), 4);
    assert_eq!((failures.timeout, failures.too_long), (1, 1));
    assert_eq!((failures.queue_full, failures.no_such_model), (1, 1));
    assert_eq!(summary.e2e_ms.max, Some(300.0), "latencies are over completed requests");
}

#[test]
#[should_panic(expected = "every request ends exactly once")]
fn a_request_that_never_ended_is_a_bug() {
    let mut collector = collector(Time::ZERO);
    collector.arrived(&completed(0, 100, 300, 11).request);
    let _ = finish(collector, 1);
}

#[test]
fn requests_that_arrive_in_the_warm_up_are_left_out() {
    let mut labels = Labels::default();
    let acme = labels.intern("acme");
    let mut collector = collector(at(1000));
    for arrival in [0, 999, 1000] {
        let mut outcome = completed(arrival, 100, 100 + arrival, 11);
        outcome.request.tenant = acme;
        live(&mut collector, &outcome, &labels);
    }
    let summary = collector.finish(&totals(1, 3), &labels, SummaryContext::default());
    assert_eq!((summary.requests.arrived, summary.requests.warm_up), (1, 2));
    assert_eq!(summary.e2e_ms.mean, Some(1100.0));
    assert_eq!(summary.kv.prompt_tokens, 1000);
    assert_eq!(summary.by_tenant["acme"].arrived, 1);
    assert_eq!(summary.by_pool["pool"].arrived, 1);
}

#[test]
fn throughput_is_work_done_from_the_warm_up_to_the_last_arrival() {
    let labels = Labels::default();
    let mut collector = collector(at(1000));
    // In the window: the end of the first, which arrived in the warm-up, and all of the second.
    for (arrival, e2e) in [(0, 1500), (2000, 500), (5000, 3000)] {
        live(&mut collector, &completed(arrival, 100, e2e, 10), &labels);
    }
    let summary = finish(collector, 9);
    assert_eq!(summary.throughput.requests_per_s, Some(2.0 / 4.0));
    assert_eq!(summary.throughput.input_tokens_per_s, Some(2.0 * 600.0 / 4.0));
    assert_eq!(summary.throughput.output_tokens_per_s, Some(2.0 * 10.0 / 4.0));
    assert_eq!(summary.throughput.with_drain.requests_per_s, Some(3.0 / 8.0));
    assert_eq!(summary.throughput.with_drain.output_tokens_per_s, Some(30.0 / 8.0));
    assert_eq!(summary.goodput.requests_per_s, Some(2.0 / 4.0));
}

#[test]
fn a_burst_has_no_rate_until_the_last_arrival() {
    let mut collector = collector(Time::ZERO);
    live(&mut collector, &completed(0, 100, 500, 10), &Labels::default());
    let throughput = finish(collector, 2).throughput;
    assert_eq!(throughput.requests_per_s, None);
    assert_eq!(throughput.with_drain.requests_per_s, Some(0.5));
}

#[test]
fn the_causes_add_up_to_the_mean_end_to_end_time() {
    let mut collector = collector(Time::ZERO);
    let labels = Labels::default();
    live(&mut collector, &completed(0, 100, 300, 11), &labels);
    live(&mut collector, &completed(1000, 200, 1300, 11), &labels);
    live(&mut collector, &ended_as(completed(3000, 100, 9000, 11), Status::Unfinished), &labels);
    let summary = finish(collector, 4);
    let causes = summary.latency_ms_by_cause;
    assert_eq!((causes.overhead, causes.own_prefill, causes.decode), (Some(10.0), Some(130.0), Some(650.0)));
    let total: f64 = causes.entries().iter().filter_map(|(_, mean)| *mean).sum();
    assert_eq!(summary.e2e_ms.mean, Some(total));
}

#[test]
fn hits_are_a_share_of_the_prompts_that_were_admitted() {
    let mut collector = collector(Time::ZERO);
    let labels = Labels::default();
    live(&mut collector, &completed(0, 100, 300, 11), &labels);
    let mut rejected = ended_as(completed(1000, 100, 300, 1), Status::Rejected(Rejection::TooLong));
    (rejected.scheduled, rejected.cached_tokens) = (None, 0);
    live(&mut collector, &rejected, &labels);
    let summary = finish(collector, 4);
    assert_eq!((summary.kv.prompt_tokens, summary.kv.hit_tokens.gpu), (1000, 400));
    assert_eq!(summary.kv.hit_rate, Some(0.4));
    assert_eq!(summary.by_pool["pool"].hit_rate, Some(0.4));
}

#[test]
fn a_run_without_requests_has_no_latency_and_no_rates() {
    let summary = finish(collector(Time::ZERO), 0);
    assert_eq!(summary.ttft_ms.mean, None);
    assert_eq!(summary.latency_ms_by_cause, LatencyByCause::default());
    assert_eq!(summary.goodput, Goodput::default());
    assert_eq!(summary.replicas[0].busy_fraction, None);
}

#[test]
fn cost_is_gpus_times_hours_times_their_price() {
    let mut run = totals(2, 1800);
    run.replicas[1].pool = "other".to_owned();
    run.replicas[1].gpus = 4;
    let mut prices = BTreeMap::from([("pool".to_owned(), 2.0)]);
    let unpriced = cost(&run.replicas, Some(&prices), 1_000_000);
    assert_eq!((unpriced.gpu_hours, unpriced.usd), (2.5, None));
    prices.insert("other".to_owned(), 3.0);
    let priced = cost(&run.replicas, Some(&prices), 2_000_000);
    assert_eq!((priced.usd, priced.usd_per_million_output_tokens), (Some(7.0), Some(3.5)));
    assert_eq!(cost(&run.replicas, Some(&prices), 0).usd_per_million_output_tokens, None);
}

#[test]
fn too_many_tenants_are_pooled_with_a_warning() {
    let mut labels = Labels::default();
    let mut collector = collector(Time::ZERO);
    for index in 0..=GROUPS_MAX {
        let mut outcome = completed(index as u64 * 1000, 100, 300, 11);
        outcome.request.tenant = labels.intern(&format!("tenant-{index}"));
        live(&mut collector, &outcome, &labels);
    }
    let summary = collector.finish(&totals(1, 1), &labels, SummaryContext::default());
    assert_eq!(summary.by_tenant[OTHERS].arrived, 1);
    assert!(summary.warnings[0].contains("more than 512 tenants"), "{:?}", summary.warnings);
}
