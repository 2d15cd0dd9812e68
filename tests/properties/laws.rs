//! Laws of a run.

use std::collections::BTreeMap;

use forerun_sim::fleet::PoolConfig;
use forerun_sim::request::{Cause, Failure, Outcome, Rejection, Status, Stop};
use forerun_sim::time::{Span, Time};

use super::scenarios::Scenario;
use crate::harness::{Run, ns};

/// Every request that was sent ends once, and nothing else ends.
pub(crate) fn every_request_ends_exactly_once(run: &Run) {
    let arrived: BTreeMap<_, _> = run.record.arrived.iter().copied().collect();
    assert_eq!(arrived.len(), run.record.arrived.len(), "sent once");
    let ended: BTreeMap<_, _> =
        run.record.outcomes.iter().map(|o| (o.request.id, o.request.arrival)).collect();
    assert_eq!(ended.len(), run.record.outcomes.len(), "ended once");
    assert_eq!(arrived, ended, "arrived = completed + failed + rejected + unfinished");
}

/// The status of a request is what its scenario allows.
pub(super) fn statuses_have_their_reasons(scenario: &Scenario, outcome: &Outcome) {
    let client = scenario.fleet.client;
    let spent = outcome.ended.since(outcome.request.arrival);
    match outcome.status {
        Status::Completed => {}
        Status::Failed(Failure::Transfer) => panic!("nothing is transferred"),
        Status::Failed(Failure::Fault) => panic!("no replica dies"),
        Status::Failed(Failure::Evicted) => panic!("nobody is evicted"),
        Status::Failed(Failure::Timeout) => {
            let patience = client.timeout.expect("clients wait for ever otherwise").as_nanos();
            assert_eq!(outcome.retries, client.retries, "a client gives up after its last try");
            assert_eq!(spent, ns(patience * u64::from(client.retries + 1)));
        }
        Status::Rejected(Rejection::Router(_)) => {
            assert!(scenario.policy == "curious" || outcome.request.priority > 0, "only those may be shed");
        }
        Status::Rejected(Rejection::NoSuchModel) => assert!(!scenario.serves(outcome.request.model)),
        Status::Rejected(Rejection::TooLong | Rejection::QueueFull) => {
            assert!(scenario.pool(outcome).is_some() && outcome.queued.is_none());
        }
        Status::Unfinished => assert_eq!(Some(outcome.ended), scenario.fleet.horizon),
    }
    let too_long = |pool: &PoolConfig| outcome.request.prompt.tokens() >= pool.engine.max_model_len;
    assert_eq!(
        outcome.status == Status::Rejected(Rejection::TooLong),
        outcome.replica.is_some()
            && outcome.status.word() == "rejected"
            && scenario.pool(outcome).is_some_and(too_long)
    );
    assert!(outcome.retries <= client.retries);
    if let Some(timeout) = client.timeout {
        assert!(spent.as_nanos() <= timeout.as_nanos() * u64::from(outcome.retries + 1));
    }
    if let (Some(pool), true) = (scenario.pool(outcome), outcome.queued.is_some()) {
        assert!(!too_long(pool), "what an engine accepts is shorter than max_model_len");
    }
    if outcome.status == Status::Rejected(Rejection::QueueFull) {
        let limit = scenario.pool(outcome).and_then(|pool| pool.engine.max_num_queued_reqs);
        assert!(limit.is_some(), "a queue without a limit is never full");
    }
}

/// A completed request delivered its whole answer, cut by `max_tokens` and `max_model_len`; others no more.
pub(super) fn answers_are_complete(scenario: &Scenario, outcome: &Outcome) {
    let Some(pool) = scenario.pool(outcome).filter(|_| outcome.queued.is_some()) else {
        return assert_eq!(outcome.emitted, 0, "nothing comes from no engine");
    };
    let request = &outcome.request;
    let room = pool.engine.max_model_len - request.prompt.tokens();
    let whole = request.output_tokens.min(request.max_tokens.unwrap_or(room)).min(room);
    if outcome.status == Status::Completed {
        assert_eq!(outcome.emitted, whole, "all output tokens, cut by max_tokens and max_model_len");
    } else {
        assert!(outcome.emitted < whole, "the last token completes a request");
    }
    assert_eq!(outcome.first_token.is_some(), outcome.emitted > 0);
    assert!(outcome.cached_tokens < request.prompt.tokens(), "the last prompt token is always computed");
    assert!(outcome.cached_tokens.is_multiple_of(pool.engine.block_size), "only full blocks are hit");
    assert!(pool.engine.prefix_caching || outcome.cached_tokens == 0);
    assert!(outcome.duplicate_tokens + outcome.cached_tokens <= request.prompt.tokens());
}

/// Nothing happens before its cause.
pub(super) fn times_are_in_order(outcome: &Outcome) {
    let stages = [
        Some(outcome.request.arrival),
        outcome.queued,
        outcome.scheduled,
        outcome.first_token,
        Some(outcome.ended),
    ];
    assert!(
        stages.iter().flatten().is_sorted(),
        "arrival <= queued <= scheduled <= first token <= ended: {stages:?}"
    );
    let missing = stages[..4].iter().position(Option::is_none).unwrap_or(4);
    assert!(stages[missing..4].iter().all(Option::is_none), "no stage is left out: {stages:?}");
    if let (Some(scheduled), Some(first)) = (outcome.scheduled, outcome.first_token) {
        assert!(scheduled < first, "a token takes a step");
    }
}

/// The causes add up to the whole time, and each stage of a plain life to its own causes.
pub(super) fn causes_add_up(scenario: &Scenario, outcome: &Outcome) {
    let get = |cause| outcome.spent.get(cause);
    let waits = [
        Cause::EngineQueueStep,
        Cause::EngineQueueSlots,
        Cause::EngineQueueKv,
        Cause::EngineQueueBudget,
        Cause::EngineQueueLora,
    ];
    assert_eq!(outcome.spent.total(), outcome.ended.since(outcome.request.arrival), "the causes add up");
    assert_eq!(get(Cause::Transfer), Span::ZERO, "nothing is transferred");
    if scenario.policy != "curious" {
        assert_eq!(get(Cause::RouterQueue), Span::ZERO, "plain policies hold nothing back");
    }
    let loras = scenario.pool(outcome).and_then(|pool| pool.engine.max_loras);
    assert!(loras.is_some() || outcome.retries > 0 || get(Cause::EngineQueueLora) == Span::ZERO);
    if outcome.retries > 0 || outcome.preemptions > 0 {
        return;
    }
    if let Some(queued) = outcome.queued {
        let held = get(Cause::RouterQueue);
        assert_eq!(queued.since(outcome.request.arrival), scenario.overhead(&outcome.request) + held);
        assert_eq!(get(Cause::Overhead), scenario.overhead(&outcome.request));
        let until = outcome.scheduled.unwrap_or(outcome.ended);
        assert_eq!(
            waits.map(get).into_iter().sum::<Span>(),
            until.since(queued),
            "waiting in the engine's queue"
        );
    }
    if let Some(scheduled) = outcome.scheduled {
        let until = outcome.first_token.unwrap_or(outcome.ended);
        assert_eq!(get(Cause::OwnPrefill), until.since(scheduled), "from admission to the first token");
    }
    if let Some(first) = outcome.first_token {
        let decode = get(Cause::Decode) + get(Cause::StalledByOthersPrefill);
        assert_eq!(decode, outcome.ended.since(first), "from the first token to the last");
    }
}

/// Token gaps, tokens and steps that the observer is told of agree with the outcomes.
pub(super) fn tokens_add_up(scenario: &Scenario, run: &Run) {
    let outcomes = &run.record.outcomes;
    let emitted: u64 = outcomes.iter().map(|o| u64::from(o.emitted)).sum();
    let firsts = outcomes.iter().filter(|o| o.first_token.is_some()).count() as u64;
    let again = outcomes.iter().any(|o| o.retries > 0);
    assert!(again || run.record.emitted == emitted, "steps emit what requests receive");
    assert!(run.record.emitted >= emitted, "tokens of withdrawn attempts come on top");
    if scenario.guesses() {
        assert!(again || run.record.gaps <= emitted - firsts, "tokens that come together have one gap");
    } else {
        assert!(again || run.record.gaps == emitted - firsts, "a gap for every token but a request's first");
    }
    if outcomes.iter().all(|o| o.status == Status::Completed || o.status.word() == "rejected") && !again {
        let streaming = outcomes.iter().filter_map(|o| Some(o.ended.since(o.first_token?).as_nanos()));
        assert_eq!(
            run.record.gap_nanos,
            streaming.sum::<u64>(),
            "the gaps are the time from first to last token"
        );
    }
    // Prompt tokens are either computed or found in the cache. A preempted request computes some of them again
    // and a withdrawn one only some of them at all: the law is exact without both.
    let whole = |o: &Outcome| o.retries == 0 && (o.status == Status::Completed || o.scheduled.is_none());
    if outcomes.iter().all(|o| whole(o) && o.preemptions == 0) {
        let computed = outcomes.iter().filter(|o| o.scheduled.is_some());
        let computed = computed.map(|o| u64::from(o.request.prompt.tokens() - o.cached_tokens));
        assert_eq!(run.record.prefill_tokens, computed.sum::<u64>(), "computed + cached = prompted");
    }
    let cut = scenario.fleet.horizon.is_some();
    assert!(run.record.steps <= run.totals.steps && (cut || run.record.steps == run.totals.steps));
}

/// Every replica's time is busy or idle, and its memory in use or not.
pub(super) fn replicas_add_up(scenario: &Scenario, run: &Run) {
    let (warm_up, totals) = (scenario.fleet.warm_up, &run.totals);
    assert!(run.record.outcomes.iter().all(|o| o.ended <= totals.end));
    for replica in &totals.replicas {
        assert_eq!(replica.observed, totals.end.saturating_since(warm_up));
        assert!(replica.busy <= replica.observed, "busy + idle = observed");
        assert!((0.0..=1.0).contains(&replica.kv_usage_mean), "{}", replica.kv_usage_mean);
    }
    if warm_up == Time::ZERO {
        let sum = |of: fn(&_) -> u64| totals.replicas.iter().map(of).sum::<u64>();
        let preemptions: u64 = run.record.outcomes.iter().map(|o| u64::from(o.preemptions)).sum();
        assert_eq!(sum(|replica| replica.requests), run.routed);
        assert_eq!(sum(|replica| replica.steps), totals.steps);
        assert_eq!(sum(|replica| replica.preemptions), preemptions);
    }
    if scenario.fleet.horizon.is_none() {
        let last = run.record.outcomes.iter().map(|o| o.ended).max();
        // A batch in flight when its last request is withdrawn still runs to its end.
        let withdrawn = run.record.outcomes.iter().any(|o| o.retries > 0 || o.status.reason() == "timeout");
        // An unforeseen end of output is noticed one batch late.
        let eos = |o: &Outcome| o.request.stop == Stop::Eos || scenario.guesses();
        let late = run.record.outcomes.iter().any(eos)
            && scenario.fleet.pools.iter().any(|p| p.engine.async_scheduling);
        assert!(withdrawn || late || Some(totals.end) == last, "a run ends with its last request");
    }
}
