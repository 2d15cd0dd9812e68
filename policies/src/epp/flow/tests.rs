//! What the flow controller promises.

use forerun_sim::request::RequestId;
use forerun_sim::time::{Span, Time};
use proptest::prelude::*;

use super::usage_limit::{Holdback, UsageLimit};
use super::{BandConfig, Fairness, FlowConfig, FlowController, Ordering, Shed, Waiting};

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

/// A controller with requests `(flow, priority)`, which arrived a millisecond apart and are numbered so.
fn holding(config: FlowConfig, requests: &[(&str, i32)]) -> FlowController {
    let mut controller = FlowController::new(config);
    for (number, &(flow, priority)) in (0..).zip(requests) {
        controller.enqueue(at(number), Waiting::new(RequestId(number), flow, priority), true).expect("room");
    }
    controller
}

/// Who goes in the next cycles at these saturations.
fn gone(controller: &mut FlowController, saturations: &[f64]) -> Vec<Option<u64>> {
    let cycle = |&saturation: &f64| controller.cycle(at(1_000), saturation).map(|request| request.id.0);
    saturations.iter().map(cycle).collect()
}

fn with_fairness(fairness: Fairness) -> FlowConfig {
    FlowConfig { default_band: BandConfig { fairness, ..BandConfig::default() }, ..FlowConfig::default() }
}

#[test]
fn one_request_goes_per_cycle_the_highest_priority_first() {
    let mut controller = holding(FlowConfig::default(), &[("a", 0), ("a", 5), ("a", 0)]);
    assert_eq!(gone(&mut controller, &[0.0; 4]), [Some(1), Some(0), Some(2), None]);
}

#[test]
fn a_full_pool_dispatches_nobody() {
    let mut controller = holding(FlowConfig::default(), &[("a", 0)]);
    assert_eq!(gone(&mut controller, &[1.0, 1.2, 0.99]), [None, None, Some(0)]);
}

#[test]
fn a_blocked_priority_blocks_all_lower_ones_even_if_it_is_empty() {
    let usage_limit = UsageLimit::Holdback(Holdback::new(Some(0.2), Some(0.6), None).unwrap());
    let bands = [10, 0].map(|priority| (priority, BandConfig::default())).to_vec();
    let mut controller = holding(FlowConfig { usage_limit, bands, ..FlowConfig::default() }, &[("a", 0)]);
    assert_eq!(gone(&mut controller, &[0.7, 0.3, 0.1]), [None, None, Some(0)]);
}

#[test]
fn round_robin_serves_the_flows_by_name() {
    let requests = [("b", 0), ("b", 0), ("a", 0), ("c", 0)];
    let mut fair = holding(with_fairness(Fairness::RoundRobin), &requests);
    assert_eq!(gone(&mut fair, &[0.0; 4]), [Some(2), Some(0), Some(3), Some(1)]);
    let mut strict = holding(with_fairness(Fairness::GlobalStrict), &requests);
    assert_eq!(gone(&mut strict, &[0.0; 4]), [Some(0), Some(1), Some(2), Some(3)]);
}

#[test]
fn deadlines_order_requests_and_those_without_one_come_last() {
    let ordering = Ordering::SloDeadline;
    let default_band = BandConfig { ordering, ..BandConfig::default() };
    let mut controller = FlowController::new(FlowConfig { default_band, ..FlowConfig::default() });
    for (number, limit_ms) in (0..).zip([None, Some(900), Some(100)]) {
        let ttft_limit = limit_ms.map(Span::from_millis);
        let request = Waiting { ttft_limit, ..Waiting::new(RequestId(number), "a", 0) };
        controller.enqueue(at(number), request, true).expect("room");
    }
    assert_eq!(gone(&mut controller, &[0.0; 3]), [Some(2), Some(1), Some(0)]);
}

#[test]
fn whoever_waits_too_long_is_turned_away_with_the_reason() {
    let config = FlowConfig { no_endpoint_ttl: Span::from_secs(5), ..FlowConfig::default() };
    let mut controller = holding(config, &[("a", 0)]);
    controller.enqueue(at(10), Waiting::new(RequestId(1), "a", 0), false).expect("room");
    assert_eq!(controller.next_deadline(), Some(at(5_010)));
    assert!(controller.expire(at(5_009), false).is_empty());
    let reasons = |expired: Vec<(Waiting, Shed)>| -> Vec<(u64, u16)> {
        expired.into_iter().map(|(request, shed)| (request.id.0, shed.status())).collect()
    };
    assert_eq!(reasons(controller.expire(at(5_010), false)), [(1, 503)]);
    assert_eq!(reasons(controller.expire(at(60_000), true)), [(0, 429)]);
    assert!(controller.is_empty() && controller.next_deadline().is_none());
}

#[test]
fn a_full_queue_turns_away_by_number_and_by_size() {
    let band = BandConfig { max_requests: 2, max_bytes: 100, ..BandConfig::default() };
    let config = FlowConfig { default_band: band, max_requests: Some(3), ..FlowConfig::default() };
    let mut controller = FlowController::new(config);
    let mut enqueue = |id, priority, bytes| {
        controller.enqueue(at(0), Waiting { bytes, ..Waiting::new(RequestId(id), "a", priority) }, true)
    };
    assert_eq!(enqueue(0, 0, 60), Ok(()));
    assert_eq!(enqueue(1, 0, 41), Err(Shed::QueueFull), "100 bytes of this priority");
    assert_eq!(enqueue(2, 0, 40), Ok(()));
    assert_eq!(enqueue(3, 0, 0), Err(Shed::QueueFull), "2 requests of this priority");
    assert_eq!(enqueue(4, 1, 0), Ok(()));
    assert_eq!(enqueue(5, 2, 0), Err(Shed::QueueFull), "3 requests in all");
}

proptest! {
    #[test]
    fn every_request_leaves_exactly_once(
        requests in proptest::collection::vec((0..3usize, -1..3i32, 0..3usize), 1..60),
        fairness in 0..3usize,
        saturations in proptest::collection::vec(0.0..1.3f64, 1..80),
    ) {
        let fairness = [Fairness::GlobalStrict, Fairness::RoundRobin, Fairness::ProgramAware][fairness];
        let mut controller = FlowController::new(with_fairness(fairness));
        let mut left: Vec<u64> = Vec::new();
        for (number, &(flow, priority, ttl)) in (0..).zip(&requests) {
            let ttl = [None, Some(Span::from_millis(30)), Some(Span::from_millis(70))][ttl];
            let request = Waiting { ttl, ..Waiting::new(RequestId(number), ["a", "b", "c"][flow], priority) };
            controller.enqueue(at(number), request, true).expect("room");
            left.extend(controller.expire(at(number), true).iter().map(|(request, _)| request.id.0));
            let saturation = saturations[number as usize % saturations.len()];
            if let Some(request) = controller.cycle(at(number), saturation) {
                left.push(request.id.0);
            }
        }
        left.extend(controller.expire(Time::NEVER, true).iter().map(|(request, _)| request.id.0));
        left.sort_unstable();
        prop_assert_eq!(left, (0..requests.len() as u64).collect::<Vec<_>>());
        prop_assert!(controller.is_empty());
    }
}
