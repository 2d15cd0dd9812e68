//! The simulator against what queueing theory, arithmetic by hand and vLLM's rules say.

use forerun_sim::cost::{CostModel, Prepared, StepShape};
use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::{Batch, Engine, EngineRequest};
use forerun_sim::fleet::{self, Client};
use forerun_sim::kv::Pool as _;
use forerun_sim::observer::Observer;
use forerun_sim::request::{Cause, Failure, Labels, Outcome, Rejection, Request, Status, Stop};
use forerun_sim::rng::Stream;
use forerun_sim::router::{Choice, Router, View};
use forerun_sim::time::{Span, Time};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::harness::{Line, Linear, Run, Script, at, bare_fleet, ns, play, request, roomy_engine};

// ---------------------------------------------------------------------------------------------------------
// Queueing theory

/// Service time of the queueing tests.
const SERVICE: u64 = 1_000_000;

/// A cost model of equal steps.
#[derive(Clone, Copy, Debug)]
struct Always(Span);

impl CostModel for Always {
    fn prepare(&self, _: &StepShape) -> Prepared {
        Prepared { fixed_ns: self.0.as_nanos() as f64, ..Prepared::default() }
    }
}

/// Poisson arrivals that keep `servers` servers busy for a share `rho` of the time; one token each.
fn poisson(count: u64, rho: f64, servers: f64, seed: u64) -> Vec<Request> {
    let mut stream = Stream::new(seed, "arrivals");
    let mut clock = 0.0;
    let mut next = |id| {
        clock += stream.exponential() * SERVICE as f64 / (rho * servers);
        request(id, clock as u64, 16, 1)
    };
    (0..count).map(&mut next).collect()
}

/// A server that takes one request at a time.
fn one_at_a_time() -> EngineConfig {
    EngineConfig { max_num_seqs: 1, ..roomy_engine() }
}

/// The mean of a stationary sequence with the half-width of its 99.9 % confidence interval, from 40 batch means
/// after the first tenth is left out.
fn batch_means(values: &[f64]) -> (f64, f64) {
    const BATCHES: usize = 40;
    let steady = &values[values.len() / 10..];
    let means: Vec<_> = steady
        .chunks_exact(steady.len() / BATCHES)
        .map(|batch| batch.iter().sum::<f64>() / batch.len() as f64)
        .collect();
    let n = means.len() as f64;
    let mean = means.iter().sum::<f64>() / n;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let t = StudentsT::new(0.0, 1.0, n - 1.0).expect("valid").inverse_cdf(0.9995);
    (mean, t * (variance / n).sqrt())
}

/// `values` have the mean `expected`, and are many enough to tell it from one that is 5 % off.
fn assert_mean(what: &str, values: &[f64], expected: f64) {
    let (mean, half) = batch_means(values);
    assert!((mean - expected).abs() <= half, "{what}: {mean} +- {half}, expected {expected}");
    assert!(half < 0.05 * expected, "{what}: {mean} +- {half} is not precise enough");
}

/// The requests in flight that each request meets at the router.
#[derive(Default)]
struct Met(Vec<f64>);

impl Router for Met {
    fn place(&mut self, _: Time, _: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        self.0.push(f64::from(view.endpoints[0].in_flight));
        Ok(Choice::alone(0))
    }
}

/// M/D/1: Poisson arrivals, fixed service S, one server. Pollaczek-Khinchine: mean wait = rho S / (2 (1 - rho)).
/// Arrivals see time averages (PASTA), so the router's counts meet rho + rho^2 / (2 (1 - rho)) requests.
#[test]
fn an_md1_queue_waits_as_pollaczek_and_khinchine_say() {
    for (rho, count) in [(0.3, 150_000), (0.6, 150_000), (0.8, 300_000)] {
        let config = bare_fleet(1, one_at_a_time(), Always(ns(SERVICE)));
        let (mut router, mut record) = (Met::default(), crate::harness::Record::default());
        let mut script = Script::of(poisson(count, rho, 1.0, 1));
        let totals = fleet::run(&config, &mut script, &mut router, &mut record).expect("it ends");
        let waits: Vec<_> =
            record.outcomes.iter().map(|o| o.queue().expect("served").as_nanos() as f64).collect();
        let wait = rho * SERVICE as f64 / (2.0 * (1.0 - rho));
        assert_mean(&format!("wait at {rho}"), &waits, wait);
        assert_mean(&format!("in system at {rho}"), &router.0, rho + rho * rho / (2.0 * (1.0 - rho)));

        // Utilisation law: busy time is arrivals times service, exactly; its share is rho.
        let replica = &totals.replicas[0];
        assert_eq!(replica.busy, ns(count * SERVICE));
        let busy = replica.busy.as_secs_f64() / replica.observed.as_secs_f64();
        assert!((busy / rho - 1.0).abs() < 0.01, "busy {busy}, rho {rho}");
    }
}

/// The number of requests in the system over time.
#[derive(Default)]
struct InSystem {
    now: u64,
    integral: u64,
    last: Time,
    sent: u64,
    sojourns: Span,
}

impl InSystem {
    fn until(&mut self, at: Time) {
        self.integral += self.now * at.since(self.last).as_nanos();
        self.last = at;
    }
}

impl Observer for InSystem {
    fn arrived(&mut self, request: &Request) {
        self.until(request.arrival);
        self.now += 1;
        self.sent += 1;
    }

    fn ended(&mut self, outcome: &Outcome, _: &Labels) {
        self.until(outcome.ended);
        self.now -= 1;
        self.sojourns += outcome.spent.total();
    }
}

/// L = lambda W. Over a period that starts and ends empty it holds without any error: with L T the integral of
/// the number in the system, lambda T the arrivals, and W the mean of what the causes of each request add up to.
#[test]
fn littles_law_holds_to_the_nanosecond() {
    for preset in forerun_policies::PRESETS {
        let engine =
            EngineConfig { num_gpu_blocks: 120, max_num_seqs: 8, async_scheduling: true, ..roomy_engine() };
        let config = bare_fleet(
            3,
            engine,
            Linear { step: 20_000, token: 1000, request: 500, cpu: 5000, ..Linear::FREE },
        );
        let mut stream = Stream::new(3, "lengths");
        let mut script = Script::of(poisson(2000, 8.0, 3.0, 2).into_iter().map(|sent| {
            let (prompt, output) = (1 + stream.below(600) as u32, 1 + stream.below(100) as u32);
            request(sent.id.0, sent.arrival.as_nanos(), prompt, output)
        }));
        let mut system = InSystem::default();
        fleet::run(&config, &mut script, preset.router(1).as_mut(), &mut system).expect("it ends");
        assert_eq!((system.now, system.sent), (0, 2000));
        assert_eq!(system.integral, system.sojourns.as_nanos(), "{}", preset.name);
    }
}

/// Clients who send their next request when they have the last answer and have thought: each chain's time is the sum
/// of its sojourns and thoughts, so N chains of time T satisfy N T = sum of (R + Z), the interactive response
/// time law; and never more than N requests are in flight.
#[test]
fn a_closed_loop_obeys_the_interactive_response_time_law() {
    const CLIENTS: usize = 12;
    let think = ns(70_000);
    let engine = EngineConfig { max_num_seqs: 4, async_scheduling: true, ..roomy_engine() };
    let config =
        bare_fleet(2, engine, Linear { step: 20_000, token: 1000, request: 500, cpu: 5000, ..Linear::FREE });
    let mut stream = Stream::new(5, "lengths");
    let lines = (0..40 * CLIENTS).map(|number| {
        let (prompt, output) = (1 + stream.below(300) as u32, 1 + stream.below(50) as u32);
        let follows = number.checked_sub(CLIENTS).map(|before| (before, think));
        Line { request: request(number as u64, 0, prompt, output), follows }
    });
    let run = play(&config, Script::new(lines.collect(), Labels::default(), Vec::new()), "least-requests");
    let ends = (0..CLIENTS).map(|client| run.record.outcome((39 * CLIENTS + client) as u64).ended.as_nanos());
    let sojourns: Span = run.record.outcomes.iter().map(|outcome| outcome.spent.total()).sum();
    let thoughts = think.as_nanos() * 39 * CLIENTS as u64;
    assert_eq!(ends.sum::<u64>(), sojourns.as_nanos() + thoughts);
    assert!(run.most_in_flight < CLIENTS as u64, "a router meets the other clients' requests at most");
}

/// Random routing splits a Poisson stream into Poisson streams: every replica is an M/D/1 queue of its own. Least
/// requests comes close to one shared queue, M/D/2, which cannot be beaten.
#[test]
fn two_replicas_wait_like_two_queues_or_almost_like_one() {
    let rho = 0.6f64;
    let config = bare_fleet(2, one_at_a_time(), Always(ns(SERVICE)));
    let waits = |policy| {
        let run = play(&config, Script::of(poisson(200_000, rho, 2.0, 4)), policy);
        let mut outcomes = run.record.outcomes;
        outcomes.sort_by_key(|outcome| outcome.request.id);
        outcomes.iter().map(|o| o.queue().expect("served").as_nanos() as f64).collect::<Vec<_>>()
    };
    let apart = rho * SERVICE as f64 / (2.0 * (1.0 - rho));
    assert_mean("wait behind a random router", &waits("random"), apart);

    // Cosmetatos (1975), within 1 % for two servers: Wq(M/D/c) = [1 + f] / 2 Wq(M/M/c) with
    // f = (1 - rho) (c - 1) (sqrt(4 + 5 c) - 2) / (16 rho c), and Wq(M/M/2) = rho^2 S / (1 - rho^2).
    let f = (1.0 - rho) * (14f64.sqrt() - 2.0) / (32.0 * rho);
    let shared = (1.0 + f) / 2.0 * rho * rho / (1.0 - rho * rho) * SERVICE as f64;
    let (mean, half) = batch_means(&waits("least-requests"));
    assert!(mean + half > shared && mean - half < 1.15 * shared, "{shared} <= {mean} +- {half}");
}

// ---------------------------------------------------------------------------------------------------------
// Two requests, by hand

/// A step takes 1000 ns and 10 ns per token on the GPU, and 100 ns on the CPU.
const BY_HAND: Linear = Linear { step: 1000, token: 10, request: 0, cpu: 100, ..Linear::FREE };

/// Request 0: 32 + 3 tokens at 0. Request 1: 16 + 2 tokens at 500, during the first step.
fn two_requests(async_scheduling: bool) -> Run {
    let engine = EngineConfig { async_scheduling, ..roomy_engine() };
    play(
        &bare_fleet(1, engine, BY_HAND),
        Script::of([request(0, 0, 32, 3), request(1, 500, 16, 2)]),
        "round-robin",
    )
}

/// Scheduled, first token, end, all since the start of the run.
fn times(run: &Run, id: u64) -> [u64; 3] {
    let outcome = run.record.outcome(id);
    let (scheduled, first) = (outcome.scheduled.expect("served"), outcome.first_token.expect("served"));
    [scheduled, first, outcome.ended].map(Time::as_nanos)
}

fn spent(run: &Run, id: u64) -> [u64; 4] {
    use Cause::{Decode, EngineQueueStep, OwnPrefill, StalledByOthersPrefill};
    let spent = run.record.outcome(id).spent;
    [EngineQueueStep, OwnPrefill, Decode, StalledByOthersPrefill].map(|cause| spent.get(cause).as_nanos())
}

/// ```text
/// step 0    0 .. 1420   32 tokens of request 0                     1000 + 320 + 100
/// step 1 1420 .. 2690   1 token of request 0, 16 of request 1      1000 + 170 + 100
/// step 2 2690 .. 3810   1 token of each                            1000 +  20 + 100
/// ```
#[test]
fn synchronous_steps_take_the_sum_of_gpu_and_cpu_one_after_another() {
    let run = two_requests(false);
    assert_eq!(times(&run, 0), [0, 1420, 3810]);
    assert_eq!(times(&run, 1), [1420, 2690, 3810]);
    // Without the prefill step 1 would have taken 1110 ns.
    assert_eq!(spent(&run, 0), [0, 1420, 2230, 160]);
    assert_eq!(spent(&run, 1), [920, 1270, 1120, 0]);
    assert_eq!((run.totals.steps, run.totals.replicas[0].busy), (3, ns(3810)));
}

/// Batches 0 and 1 are formed at once; the arrival during step 0 joins batch 2, formed when step 0 ends. From
/// step 1 on the CPU's 100 ns disappear behind the GPU.
///
/// ```text
/// step 0    0 .. 1420   32 tokens of request 0                     1000 + 320 + 100, nothing to overlap with
/// step 1 1420 .. 2430   1 token of request 0                       1000 +  10
/// step 2 2430 .. 3600   1 token of request 0, 16 of request 1      1000 + 170
/// step 3 3600 .. 4610   1 token of request 1                       1000 +  10
/// ```
#[test]
fn an_arrival_during_an_asynchronous_step_joins_the_step_after_the_next() {
    let run = two_requests(true);
    assert_eq!(times(&run, 0), [0, 1420, 3600]);
    assert_eq!(times(&run, 1), [1420, 3600, 4610]);
    assert_eq!(spent(&run, 0), [0, 1420, 2020, 160]);
    assert_eq!(spent(&run, 1), [920, 2180, 1010, 0]);
    assert_eq!((run.totals.steps, run.totals.replicas[0].busy), (4, ns(4610)));
}

#[test]
fn a_slow_cpu_adds_to_synchronous_steps_and_bounds_asynchronous_ones() {
    let end = |async_scheduling| {
        let engine = EngineConfig { async_scheduling, ..roomy_engine() };
        let fleet =
            bare_fleet(1, engine, Linear { step: 1000, token: 0, request: 0, cpu: 1500, ..Linear::FREE });
        play(&fleet, Script::of([request(0, 0, 16, 4)]), "round-robin").totals.end.as_nanos()
    };
    assert_eq!(end(false), 4 * 2500);
    assert_eq!(end(true), 2500 + 3 * 1500, "all but the first overlap");
}

/// max_tokens is foreseen; an end-of-sequence token is noticed one batch late.
#[test]
fn an_unforeseen_end_costs_asynchronous_scheduling_a_step() {
    let steps = |stop, async_scheduling| {
        let engine = EngineConfig { async_scheduling, ..roomy_engine() };
        let sent = Request { stop, ..request(0, 0, 16, 4) };
        let run = play(&bare_fleet(1, engine, BY_HAND), Script::of([sent]), "round-robin");
        assert_eq!(run.record.outcome(0).emitted, 4);
        run.totals.steps
    };
    assert_eq!((steps(Stop::Length, false), steps(Stop::Eos, false)), (4, 4));
    assert_eq!((steps(Stop::Length, true), steps(Stop::Eos, true)), (4, 5));
}

// ---------------------------------------------------------------------------------------------------------
// Rules of vLLM that no recording covers, argued from its source (0.32)

fn engine_request(id: u64, prompt: u32, output: u32) -> EngineRequest {
    let request = request(id, 0, prompt, output);
    EngineRequest::new(request.id, &request, 1000)
}

fn ids(batch: &Batch) -> Vec<u64> {
    batch.scheduled.iter().map(|part| part.id.0).collect()
}

/// The gauge `num_requests_waiting` is set from the scheduler's queues with a step's result; a request that came
/// during the step is still in the engine core's input queue then (v1/engine/core.py, `run_busy_loop`).
#[test]
fn a_request_waits_for_the_metrics_from_when_the_scheduler_first_sees_it() {
    let mut engine: Engine = Engine::new(EngineConfig { max_num_seqs: 1, ..roomy_engine() });
    let mut batch = Batch::default();
    engine.add(engine_request(0, 20, 3));
    engine.schedule(&mut batch);
    let waiting = engine.add(engine_request(1, 20, 3));
    let gone = engine.add(engine_request(2, 20, 3));
    assert_eq!((engine.num_waiting(), engine.num_waiting_seen()), (2, 0), "they came during the step");
    engine.abort(gone);
    assert_eq!((engine.num_waiting(), engine.num_waiting_seen()), (1, 0));
    engine.schedule(&mut batch);
    assert_eq!((engine.num_waiting(), engine.num_waiting_seen()), (1, 1), "no slot is free for it");
    engine.abort(waiting);
    assert_eq!((engine.num_waiting(), engine.num_waiting_seen()), (0, 0));
}

/// `Scheduler.finish_requests` frees an aborted request's blocks at once, whatever the GPU still does with them;
/// `update_from_output` then skips what it no longer knows.
#[test]
fn an_aborted_request_frees_its_blocks_at_once_and_its_late_output_is_dropped() {
    let mut engine: Engine = Engine::new(EngineConfig {
        num_gpu_blocks: 5,
        max_model_len: 64,
        async_scheduling: true,
        ..roomy_engine()
    });
    let (mut first, mut second, mut tokens) = (Batch::default(), Batch::default(), Vec::new());
    let aborted = engine.add(engine_request(0, 60, 3));
    let waiting = engine.add(engine_request(1, 60, 3));
    engine.schedule(&mut first);
    assert_eq!((ids(&first), engine.kv().pool().free()), (vec![0], 0));

    engine.abort(aborted);
    assert_eq!(engine.kv().pool().free(), 4, "free while the batch is in flight");
    engine.assert_consistent();
    engine.schedule(&mut second);
    assert_eq!((ids(&second), engine.num_waiting()), (vec![1], 0), "another request has them now");

    engine.update(&first, &mut tokens);
    engine.assert_consistent();
    assert_eq!(tokens, [], "nobody waits for this token");
    engine.update(&second, &mut tokens);
    assert_eq!(tokens.iter().map(|token| token.id.0).collect::<Vec<_>>(), [1]);
    engine.abort(waiting);
    assert_eq!(engine.kv().pool().free(), 4);
}

/// The same through the fleet: the client gives up during a step, and nothing of it is reported later.
#[test]
fn a_client_who_gives_up_during_a_step_receives_nothing_more() {
    for async_scheduling in [false, true] {
        let engine = EngineConfig { async_scheduling, ..roomy_engine() };
        let mut fleet =
            bare_fleet(1, engine, Linear { step: 1000, token: 0, request: 0, cpu: 0, ..Linear::FREE });
        fleet.client = Client { timeout: Some(ns(2400)), retries: 1 };
        let run = play(&fleet, Script::of([request(0, 0, 16, 100)]), "round-robin");
        let outcome = run.record.outcome(0);
        assert_eq!(
            (outcome.status, outcome.retries, outcome.ended),
            (Status::Failed(Failure::Timeout), 1, at(4800))
        );
        // First try: tokens at 1000 and 2000; the step until 3000 is for nobody, and so is the one after it if it
        // was formed ahead. The second try is seen at 3000 and has its first token at 4000, or at 5000: too late.
        assert_eq!((outcome.queued, outcome.scheduled), (Some(at(2400)), Some(at(3000))));
        assert_eq!(outcome.emitted, if async_scheduling { 0 } else { 1 });
        assert_eq!(run.record.emitted, if async_scheduling { 2 } else { 3 }, "tokens delivered in all");
    }
}

/// `KVCacheManager.allocate_slots`: the watermark holds for waiting requests, and only while others run.
#[test]
fn the_watermark_binds_admissions_while_something_runs() {
    // 11 blocks, 10 of them usable; int(0.5 * 11) = 5 are kept free.
    let schedule = |watermark, prompts: &[u32]| {
        let mut engine: Engine =
            Engine::new(EngineConfig { num_gpu_blocks: 11, max_model_len: 160, watermark, ..roomy_engine() });
        let mut batch = Batch::default();
        for (id, &prompt) in (0..).zip(prompts) {
            engine.add(engine_request(id, prompt, 2));
        }
        engine.schedule(&mut batch);
        (ids(&batch), batch.blocked)
    };
    assert_eq!(schedule(0.5, &[140]).0, [0], "9 of 10 blocks are fine for who is alone");
    assert_eq!(schedule(0.5, &[16, 64]), (vec![0, 1], None), "4 of 9 free blocks leave 5");
    assert_eq!(schedule(0.5, &[16, 80]), (vec![0], Some(Cause::EngineQueueKv)), "5 of 9 leave 4");
    assert_eq!(schedule(0.0, &[16, 80]), (vec![0, 1], None));
}

/// The watermark is no matter for what runs already: it may take the last block.
#[test]
fn the_watermark_does_not_bind_running_requests() {
    let mut engine: Engine =
        Engine::new(EngineConfig { num_gpu_blocks: 5, max_model_len: 64, watermark: 0.9, ..roomy_engine() });
    engine.add(engine_request(0, 16, 40));
    let (mut batch, mut tokens) = (Batch::default(), Vec::new());
    while engine.has_requests() {
        engine.schedule(&mut batch);
        assert_eq!(ids(&batch), [0]);
        engine.update(&batch, &mut tokens);
    }
    assert_eq!(tokens.len(), 40);
}

/// Requests passed over for their adapter return to the front of the queue, in order: whoever has their adapter's
/// place next is not overtaken by later arrivals.
#[test]
fn requests_passed_over_for_their_adapter_keep_their_place() {
    let mut engine: Engine =
        Engine::new(EngineConfig { max_loras: Some(1), max_num_seqs: 2, ..roomy_engine() });
    for (id, adapter) in (0..).zip([Some(1), Some(2), Some(3), None, None]) {
        engine.add(EngineRequest { adapter, ..engine_request(id, 16, 1) });
    }
    let (mut batch, mut tokens) = (Batch::default(), Vec::new());
    engine.schedule(&mut batch);
    assert_eq!(ids(&batch), [0, 3], "request 3 needs no adapter and passes the others");
    assert_eq!(engine.waiting().map(|id| id.0).collect::<Vec<_>>(), [1, 2, 4]);
    engine.update(&batch, &mut tokens);
    engine.schedule(&mut batch);
    assert_eq!(ids(&batch), [1, 4]);
}

/// The API server answers 503 when `max_num_queued_reqs` requests wait (config/scheduler.py).
#[test]
fn a_full_queue_turns_requests_away_at_once() {
    let engine = EngineConfig { max_num_queued_reqs: Some(1), ..one_at_a_time() };
    let sent = [request(0, 0, 16, 2), request(1, 10, 16, 2), request(2, 20, 16, 2), request(3, 5000, 16, 2)];
    let run = play(&bare_fleet(1, engine, BY_HAND), Script::of(sent), "round-robin");
    let status = |id| run.record.outcome(id).status;
    assert_eq!([0, 1, 3].map(status), [Status::Completed; 3], "one runs, one waits, one comes later");
    assert_eq!(status(2), Status::Rejected(Rejection::QueueFull));
    assert_eq!(run.record.outcome(2).ended, at(20));
    assert_eq!(run.record.outcome(2).queued, None);
}

/// The server refuses a prompt that leaves no room for a token, and ends an answer at `max_model_len`.
#[test]
fn max_model_len_bounds_prompts_and_answers() {
    let engine = EngineConfig { max_model_len: 32, ..roomy_engine() };
    let sent = [request(0, 0, 32, 1), request(1, 0, 31, 100), request(2, 0, 20, 100), request(3, 0, 20, 5)];
    for async_scheduling in [false, true] {
        let engine = EngineConfig { async_scheduling, ..engine.clone() };
        let run = play(&bare_fleet(1, engine, BY_HAND), Script::of(sent.clone()), "round-robin");
        let of = |id| (run.record.outcome(id).status, run.record.outcome(id).emitted);
        assert_eq!(of(0), (Status::Rejected(Rejection::TooLong), 0));
        assert_eq!(of(1), (Status::Completed, 1));
        assert_eq!(of(2), (Status::Completed, 12));
        assert_eq!(of(3), (Status::Completed, 5));
    }
}

/// By priority the request being scheduled may be the one to preempt, and then the step is empty although others
/// run (`schedule` breaks off); vLLM's engine loop steps on at once. The others lose no time by it.
#[test]
fn a_request_that_preempts_itself_does_not_hold_up_the_others() {
    let engine =
        EngineConfig { num_gpu_blocks: 5, max_model_len: 64, policy: Policy::Priority, ..roomy_engine() };
    let fleet = bare_fleet(1, engine, Linear { step: 1000, token: 0, request: 0, cpu: 0, ..Linear::FREE });
    // Step 1: both run and hold all 4 blocks. Step 2: request 0 needs a third one.
    let sent = [Request { priority: 1, ..request(0, 0, 31, 10) }, request(1, 1, 31, 10)];
    let run = play(&fleet, Script::of(sent), "round-robin");
    assert_eq!(run.record.outcome(0).preemptions, 1);
    assert_eq!(run.record.outcome(1).preemptions, 0);
    assert_eq!(times(&run, 1), [1000, 2000, 11_000], "a token in every step");
    assert_eq!(run.record.outcome(0).emitted, 10);
}

/// Clients stop their watch when the answer is there: a run ends with its last request, and its utilisation is
/// that of the time until then.
#[test]
fn patience_that_nobody_needed_does_not_prolong_a_run() {
    let mut fleet = bare_fleet(1, roomy_engine(), BY_HAND);
    fleet.client.timeout = Some(Span::from_secs(60));
    let run = play(&fleet, Script::of([request(0, 0, 16, 2)]), "round-robin");
    assert_eq!(run.totals.end, run.record.outcome(0).ended);
    assert_eq!(run.totals.replicas[0].busy, run.totals.replicas[0].observed);
}
