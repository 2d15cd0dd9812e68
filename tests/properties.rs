//! Laws that hold for every run, over random scenarios.
//!
//! Scenarios are drawn from a fixed seed, so a build is green or red for good; `PROPTEST_RNG_SEED` and
//! `PROPTEST_CASES` draw others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use forerun_policies::PRESETS;
use forerun_sim::catalog;
use forerun_sim::cost::CostModel;
use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP, ClosedForm, ClosedFormInput};
use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::speculation::Speculation;
use forerun_sim::engine::{Batch, Engine, EngineRequest, Handle};
use forerun_sim::fleet::{
    Client, DataParallel, Disaggregation, FleetConfig, KvForm, Overhead, PoolConfig, Role,
};
use forerun_sim::kv::Pool as _;
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{
    Cause, Failure, Label, Labels, Outcome, Rejection, Request, RequestId, Status, Stop,
};
use forerun_sim::time::{Span, Time};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::harness::{Line, Linear, Run, Script, Steeper, at, ns, play, request};

/// So many cases from a fixed seed, unless the environment says otherwise.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let drawn = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if drawn("PROPTEST_CASES") { asked.cases } else { cases },
        rng_seed: if drawn("PROPTEST_RNG_SEED") { asked.rng_seed } else { RngSeed::Fixed(20_261_122) },
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..asked
    }
}

// ---------------------------------------------------------------------------------------------------------
// Random scenarios

/// A request as it is drawn. What refers to other requests is resolved by [`lines`].
#[derive(Clone, Debug)]
struct Ask {
    /// After the previous line's arrival, or after the end of the request that it follows.
    wait: u64,
    /// It follows the request so many lines before, and repeats its prompt and answer if so asked.
    follows: Option<(usize, bool)>,
    shared: (u64, u32),
    own: u32,
    output: u32,
    max_tokens: Option<u32>,
    stop: Stop,
    priority: i32,
    adapter: u32,
    model: u32,
}

fn ask() -> impl Strategy<Value = Ask> {
    let text = ((0..3u64, 0..90u32), 1..60u32, prop_oneof![1..4u32, 1..50u32], weighted(0.2, 1..30u32));
    let kind = (
        select(&[Stop::Length, Stop::Eos][..]),
        -2..3i32,
        0..4u32,
        prop_oneof![4 => Just(0u32), 3 => 1..3u32, 1 => Just(3u32)],
    );
    let when = (
        prop_oneof![2 => Just(0u64), 2 => 0..100_000u64, 1 => 0..2_000_000u64],
        weighted(0.4, (1..4usize, any::<bool>())),
    );
    (text, kind, when).prop_map(
        |((shared, own, output, max_tokens), (stop, priority, adapter, model), (wait, follows))| Ask {
            wait,
            follows,
            shared,
            own,
            output,
            max_tokens,
            stop,
            priority,
            adapter,
            model,
        },
    )
}

/// Models "a", "b", "c" and adapters have the labels of their order here.
fn labels() -> Labels {
    let mut labels = Labels::default();
    for name in ["a", "b", "c", "adapter 1", "adapter 2", "adapter 3"] {
        labels.intern(name);
    }
    labels
}

fn lines(asks: &[Ask]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut clock = 0;
    for (number, ask) in asks.iter().enumerate() {
        let follows =
            ask.follows.filter(|&(back, _)| back <= number).map(|(back, repeat)| (number - back, repeat));
        clock += if follows.is_some() { 0 } else { ask.wait };
        let mut prompt = Prompt::new();
        match follows {
            Some((before, true)) => {
                prompt.extend(&lines[before].request.prompt);
                prompt.push(lines[before].request.output, lines[before].request.output_tokens);
            }
            _ => prompt.push(Content::shared(ask.shared.0), ask.shared.1),
        }
        prompt.push(Content::private(number as u64), ask.own);
        let request = Request {
            prompt,
            stop: ask.stop,
            max_tokens: ask.max_tokens,
            priority: ask.priority,
            model: Label(ask.model),
            adapter: if ask.adapter == 0 { Label::NONE } else { Label(3 + ask.adapter) },
            ..request(number as u64, clock, 1, ask.output)
        };
        lines.push(Line { request, follows: follows.map(|(before, _)| (before, ns(ask.wait))) });
    }
    lines
}

/// Drafts from hopeless to certain.
pub(crate) fn speculation() -> impl Strategy<Value = Speculation> {
    let acceptance = prop_oneof![4 => 0.0..1.0f64, 1 => Just(1.0)];
    (1..6u32, acceptance, any::<bool>()).prop_map(|(tokens, acceptance, ahead)| Speculation {
        tokens,
        acceptance,
        lookahead: if ahead { tokens } else { 0 },
        draft_slots: u32::from(!ahead),
        seed: 1,
    })
}

/// Places of a step that a draft takes.
pub(crate) fn draft_slots(speculation: Option<Speculation>, max_num_seqs: u32) -> u32 {
    speculation.map_or(0, |speculation| speculation.draft_slots * max_num_seqs)
}

/// Engine arguments that contradict each other nowhere; caches from barely enough to ample.
fn engine() -> impl Strategy<Value = EngineConfig> {
    let size = (
        select(&[4u32, 16][..]),
        60..260u32,
        prop_oneof![100..120u32, 100..400u32],
        1..9u32,
        0..120u32,
        weighted(0.2, 1..9u32),
    );
    let rules = (
        prop_oneof![3 => Just(0u32), 1 => 4..40u32],
        any::<bool>(),
        select(&[Policy::Fcfs, Policy::Priority][..]),
        any::<bool>(),
        select(&[0.0, 0.0, 0.05, 0.3][..]),
        prop_oneof![3 => Just(true), 1 => Just(false)],
        prop_oneof![3 => Just(true), 1 => Just(false)],
        weighted(0.3, 1..3u32),
        any::<bool>(),
        weighted(0.15, 1..6u32),
    );
    let speculation = weighted(0.2, speculation());
    (size, rules, speculation).prop_map(|(size, rules, speculation)| {
        let (block_size, max_model_len, kv_percent, max_num_seqs, budget, active) = size;
        let (threshold, adaptive, policy, reserve, watermark, caching, chunked, loras, is_async, queued) =
            rules;
        let least = if chunked { max_num_seqs } else { max_num_seqs.max(max_model_len) };
        EngineConfig {
            block_size,
            num_gpu_blocks: max_model_len.div_ceil(block_size) * kv_percent / 100 + 1,
            max_num_batched_tokens: least + budget + draft_slots(speculation, max_num_seqs),
            max_num_seqs,
            max_num_active_seqs: active.map(|active| active.min(max_num_seqs)),
            max_model_len,
            long_prefill_token_threshold: threshold,
            long_prefill_token_threshold_adaptive: adaptive,
            policy,
            reserve_full_isl: reserve,
            watermark,
            prefix_caching: caching,
            chunked_prefill: chunked,
            max_loras: loras,
            async_scheduling: is_async,
            max_num_queued_reqs: queued,
            speculation,
        }
    })
}

/// One or two pools of the same or of different models, four replicas at most.
fn pools() -> impl Strategy<Value = Vec<PoolConfig>> {
    let steeper = || (0..60u64, 0..40u64).prop_map(|(tokens, slope)| Steeper { tokens, slope });
    let linear = (0..50_000u64, 1..2000u64, 0..2000u64, 0..60_000u64, steeper(), steeper()).prop_map(
        |(step, token, request, cpu, context, longest)| {
            Some(Linear { step, token, request, cpu, context, longest })
        },
    );
    let ranks = prop_oneof![4 => Just(DataParallel::default()), 1 => (2..4u32, any::<bool>()).prop_map(
        |(ranks, lock_step)| DataParallel { ranks, lock_step })];
    let pool = (1..3u32, engine(), prop_oneof![4 => linear, 1 => Just(None)], select(&["a", "b"][..]), ranks);
    vec(pool, 1..3).prop_map(|pools| {
        let pool = |(index, (replicas, engine, linear, model, data_parallel)): (
            usize,
            (u32, EngineConfig, Option<Linear>, &str, DataParallel),
        )| {
            engine.check().expect("drawn to be valid");
            let cost: Arc<dyn CostModel> = match linear {
                Some(linear) => Arc::new(linear),
                None => Arc::new(closed_form(&engine)),
            };
            let name = format!("pool{index}");
            PoolConfig {
                name,
                replicas: replicas * data_parallel.ranks,
                gpus: 1,
                labels: BTreeMap::new(),
                role: Role::Both,
                kv_block_bytes: 1,
                host: None,
                lora: None,
                data_parallel,
                model_names: vec![model.into()],
                engine,
                cost,
            }
        };
        pools.into_iter().enumerate().map(pool).collect()
    })
}

fn closed_form(engine: &EngineConfig) -> ClosedForm {
    ClosedForm::new(&ClosedFormInput {
        gpu: catalog::gpu("h100").expect("in the catalog"),
        model: catalog::model("llama-3.1-8b").expect("in the catalog"),
        tensor_parallel: 1,
        kv_element_bytes: 2,
        max_num_seqs: engine.most_logits(),
        max_num_batched_tokens: engine.max_num_batched_tokens,
        data_parallel: 1,
        cpu_per_step: CPU_PER_STEP,
        cpu_per_request: CPU_PER_REQUEST,
    })
    .expect("a valid model")
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) fleet: FleetConfig,
    asks: Vec<Ask>,
    policy: &'static str,
}

pub(crate) fn scenario() -> impl Strategy<Value = Scenario> {
    let some_nanos = |most: u64| prop_oneof![Just(0u64), 0..most];
    let around = (
        (some_nanos(80_000), some_nanos(80_000), some_nanos(900_000)),
        weighted(0.3, 100_000..4_000_000u64),
        0..3u32,
        prop_oneof![2 => Just(0u64), 1 => 0..3_000_000u64],
        weighted(0.2, 200_000..6_000_000u64),
    );
    let policy = select(PRESETS.map(|preset| preset.name).into_iter().chain(["curious"]).collect::<Vec<_>>());
    (pools(), around, vec(ask(), 1..40), policy).prop_map(|(pools, around, asks, policy)| {
        let ((routing, api_server, tokenize), timeout, retries, warm_up, horizon) = around;
        let fleet = FleetConfig {
            kv: KvForm::Extents,
            pools,
            overhead: Overhead {
                gateway: ns(routing / 2),
                picker: ns(routing - routing / 2),
                api_server: ns(api_server),
                tokenize_per_1k_tokens: ns(tokenize),
            },
            client: Client { timeout: timeout.map(ns), retries },
            disaggregation: Disaggregation::default(),
            below_host: Default::default(),
            faults: Default::default(),
            split: None,
            warm_up: at(warm_up),
            horizon: horizon.map(at),
        };
        Scenario { fleet, asks, policy }
    })
}

impl Scenario {
    fn script(&self) -> Script {
        let probe = |model| Request { model: Label(model), ..request(0, 0, 1, 1) };
        Script::new(lines(&self.asks), labels(), vec![probe(1), probe(2)])
    }

    pub(crate) fn run(&self) -> Run {
        play(&self.fleet, self.script(), self.policy)
    }

    /// Changes every pool's engine.
    fn with_engines(mut self, change: impl Fn(&mut EngineConfig)) -> Self {
        self.fleet.pools.iter_mut().for_each(|pool| change(&mut pool.engine));
        self
    }

    /// Without what ends requests early, other than a prompt that is too long.
    fn patient(mut self) -> Self {
        self.fleet.client = Client::default();
        self.fleet.horizon = None;
        self.with_engines(|engine| engine.max_num_queued_reqs = None)
    }

    /// With KV blocks for all requests at once.
    fn with_ample_memory(self) -> Self {
        let requests = self.asks.len() as u32 + 2;
        self.with_engines(|engine| {
            let each = engine.max_model_len.div_ceil(engine.block_size);
            engine.watermark = 0.0;
            engine.num_gpu_blocks = 1 + requests * each;
        })
    }

    /// With one replica.
    fn alone(mut self) -> Self {
        self.fleet.pools.truncate(1);
        self.fleet.pools[0].replicas = 1;
        self.fleet.pools[0].data_parallel = DataParallel::default();
        self
    }

    /// Whether some engine verifies guesses.
    fn guesses(&self) -> bool {
        self.fleet.pools.iter().any(|pool| pool.engine.speculation.is_some())
    }

    fn serves(&self, model: Label) -> bool {
        let names: BTreeSet<_> = self.fleet.pools.iter().flat_map(|pool| &pool.model_names).collect();
        let labels = labels();
        names.len() == 1 || !model.is_some() || names.iter().any(|name| *name == labels.name(model))
    }

    /// The pool that served a request.
    fn pool(&self, outcome: &Outcome) -> Option<&PoolConfig> {
        let replicas = self.fleet.pools.iter().flat_map(|pool| (0..pool.replicas).map(move |_| pool));
        outcome.replica.map(|id| replicas.clone().nth(id.0 as usize).expect("a replica of the fleet"))
    }

    /// Time from a client to its engine.
    fn overhead(&self, request: &Request) -> Span {
        let Overhead { gateway, picker, api_server, tokenize_per_1k_tokens } = self.fleet.overhead;
        let tokens = u64::from(request.prompt.tokens());
        gateway + picker + api_server + ns(tokenize_per_1k_tokens.as_nanos() * tokens / 1000)
    }
}

// ---------------------------------------------------------------------------------------------------------
// Laws of a run

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
fn statuses_have_their_reasons(scenario: &Scenario, outcome: &Outcome) {
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
fn answers_are_complete(scenario: &Scenario, outcome: &Outcome) {
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
fn times_are_in_order(outcome: &Outcome) {
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
fn causes_add_up(scenario: &Scenario, outcome: &Outcome) {
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
fn tokens_add_up(scenario: &Scenario, run: &Run) {
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
fn replicas_add_up(scenario: &Scenario, run: &Run) {
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

fn outcomes_text(run: &Run) -> String {
    format!("{:?}", run.record.outcomes)
}

/// A law that never has a case is no law: the scenarios reach every ending, every cause and every turn of a life.
#[test]
fn the_scenarios_reach_everything() {
    let mut runner = TestRunner::new(cases(300));
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        let scenario = scenario().new_tree(&mut runner).expect("no filters").current();
        for outcome in scenario.run().record.outcomes {
            let turns = [
                ("preempted", outcome.preemptions > 0),
                ("preempted often", outcome.preemptions > 2),
                ("sent again and served", outcome.retries > 0 && outcome.status == Status::Completed),
                (
                    "cut",
                    outcome.status == Status::Completed && outcome.emitted < outcome.request.output_tokens,
                ),
                ("cached", outcome.cached_tokens > 0),
                ("cached elsewhere", outcome.duplicate_tokens > 0),
            ];
            let causes = Cause::ALL.map(|cause| (cause.key(), outcome.spent.get(cause) > Span::ZERO));
            let met = turns.into_iter().chain(causes).filter(|&(_, met)| met).map(|(key, _)| key.to_owned());
            let ending = format!("{} {}", outcome.status.word(), outcome.status.reason());
            for key in met.chain([ending]) {
                *seen.entry(key).or_default() += 1;
            }
        }
    }
    let endings = [
        "completed ",
        "failed timeout",
        "rejected too_long",
        "rejected queue_full",
        "rejected no_such_model",
        "unfinished ",
    ];
    let turns =
        ["preempted", "preempted often", "sent again and served", "cut", "cached", "cached elsewhere"];
    let causes =
        Cause::ALL.into_iter().filter(|cause| !matches!(cause, Cause::RouterQueue | Cause::Transfer));
    for key in endings.into_iter().chain(turns).chain(causes.map(Cause::key)) {
        let count = seen.get(key).copied().unwrap_or(0);
        assert!(count >= 10, "{key} occurs {count} times: {seen:?}");
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn every_run_obeys_the_laws(scenario in scenario()) {
        let run = scenario.run();
        every_request_ends_exactly_once(&run);
        for outcome in &run.record.outcomes {
            statuses_have_their_reasons(&scenario, outcome);
            answers_are_complete(&scenario, outcome);
            times_are_in_order(outcome);
            causes_add_up(&scenario, outcome);
        }
        tokens_add_up(&scenario, &run);
        replicas_add_up(&scenario, &run);
        prop_assert_eq!(run.left_over, 0, "the router's counts return to zero");
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn the_same_scenario_gives_the_same_run(scenario in scenario()) {
        let (one, two) = (scenario.run(), scenario.run());
        prop_assert_eq!(outcomes_text(&one), outcomes_text(&two));
        prop_assert_eq!(format!("{:?}", one.totals), format!("{:?}", two.totals));
    }

    #[test]
    fn another_router_leaves_an_open_loop_s_arrivals_alone(mut scenario in scenario()) {
        scenario.asks.iter_mut().for_each(|ask| ask.follows = None);
        scenario.fleet.horizon = None;
        let arrivals = PRESETS.map(|preset| {
            let lines = lines(&scenario.asks);
            play(&scenario.fleet, Script::new(lines, labels(), Vec::new()), preset.name).record.arrived
        });
        prop_assert_eq!(&arrivals[0], &arrivals[1]);
        prop_assert_eq!(&arrivals[0], &arrivals[2]);
    }

    #[test]
    fn the_router_of_a_single_replica_is_irrelevant(scenario in scenario()) {
        let scenario = scenario.alone();
        let runs = PRESETS.map(|preset| outcomes_text(&Scenario { policy: preset.name, ..scenario.clone() }.run()));
        prop_assert_eq!(&runs[0], &runs[1]);
        prop_assert_eq!(&runs[0], &runs[2]);
    }

    #[test]
    fn with_memory_for_everything_nothing_is_preempted_or_waits_for_blocks(scenario in scenario()) {
        let run = scenario.with_ample_memory().run();
        for outcome in &run.record.outcomes {
            prop_assert_eq!(outcome.preemptions, 0);
            prop_assert_eq!(outcome.spent.get(Cause::EngineQueueKv), Span::ZERO);
        }
    }

    /// On one replica: with several the pace decides who goes where, and that who is too long for it.
    #[test]
    fn a_cache_that_never_evicts_only_saves_prefill(scenario in scenario()) {
        let scenario = Scenario { policy: "round-robin", ..scenario.patient().with_ample_memory().alone() };
        let prefill = |caching| {
            let scenario = scenario.clone().with_engines(|engine| engine.prefix_caching = caching);
            scenario.run().record.prefill_tokens
        };
        prop_assert!(prefill(true) <= prefill(false));
    }

    #[test]
    fn sync_and_async_scheduling_deliver_the_same_answers(scenario in scenario()) {
        // A router that looks at the load may shed at one pace what it lets in at another.
        let scenario = Scenario { policy: "round-robin", ..scenario.patient().alone() };
        let answers = |is_async| {
            let scenario = scenario.clone().with_engines(|engine| engine.async_scheduling = is_async);
            let outcomes = scenario.run().record.outcomes;
            outcomes.iter().map(|o| (o.request.id, (o.status, o.emitted))).collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(answers(false), answers(true));
    }
}

// ---------------------------------------------------------------------------------------------------------
// Laws of the engine, step by step

/// What comes to a lone engine: after so many steps, a request, and when its client hangs up, if ever.
#[derive(Clone, Debug)]
struct Visit {
    after: usize,
    ask: Ask,
    leaves: Option<usize>,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let visit = (0..3usize, ask(), weighted(0.15, 0..25usize));
    vec(visit.prop_map(|(after, ask, leaves)| Visit { after, ask, leaves }), 1..30)
}

/// One engine, driven as its replica would.
struct Bench {
    engine: Engine,
    config: EngineConfig,
    requests: Vec<EngineRequest>,
    flight: VecDeque<Batch>,
    handles: BTreeMap<RequestId, (Handle, usize)>,
    computed: BTreeMap<RequestId, u32>,
    preempted: BTreeSet<RequestId>,
    finished: BTreeMap<RequestId, u32>,
    step: usize,
}

impl Bench {
    fn new(config: &EngineConfig, visits: &[Visit]) -> Self {
        let asks: Vec<_> = visits.iter().map(|visit| visit.ask.clone()).collect();
        let requests = lines(&asks)
            .iter()
            .map(|line| EngineRequest::new(line.request.id, &line.request, config.max_model_len))
            .collect();
        Self {
            engine: Engine::new(config.clone()),
            config: config.clone(),
            requests,
            flight: VecDeque::new(),
            handles: BTreeMap::new(),
            computed: BTreeMap::new(),
            preempted: BTreeSet::new(),
            finished: BTreeMap::new(),
            step: 0,
        }
    }

    /// Runs until all visits are over; the number of steps from the last arrival on.
    fn run(&mut self, visits: &[Visit]) -> usize {
        let mut coming: VecDeque<_> = visits.iter().zip(self.requests.clone()).collect();
        let (mut wait, mut alone) = (coming[0].0.after, 0);
        loop {
            while wait == 0
                && let Some((visit, request)) = coming.pop_front()
            {
                if request.prompt.tokens() < self.config.max_model_len {
                    let leaves = visit.leaves.map_or(usize::MAX, |stays| self.step + stays);
                    let id = request.id;
                    self.handles.insert(id, (self.engine.add(request), leaves));
                }
                wait = coming.front().map_or(0, |(next, _)| next.after);
            }
            wait = wait.saturating_sub(1);
            self.hang_up();
            if coming.is_empty() && !self.engine.has_requests() && self.flight.is_empty() {
                return alone;
            }
            alone += usize::from(coming.is_empty());
            assert!(alone < 20_000, "requests wait for ever");
            self.advance();
        }
    }

    /// Clients whose patience has ended leave.
    fn hang_up(&mut self) {
        let gone: Vec<_> =
            self.handles.iter().filter(|(_, (_, leaves))| *leaves <= self.step).map(|(id, _)| *id).collect();
        for id in gone {
            let (handle, _) = self.handles.remove(&id).expect("just seen");
            self.engine.abort(handle);
            self.engine.assert_consistent();
        }
    }

    /// Forms a batch, and takes the result of the oldest one when enough are in flight.
    fn advance(&mut self) {
        self.step += 1;
        let mut batch = Batch::default();
        self.engine.schedule(&mut batch);
        self.engine.assert_consistent();
        self.check(&batch);
        let full = batch.is_empty() || !self.config.async_scheduling || !self.flight.is_empty();
        if !batch.is_empty() {
            self.flight.push_back(batch);
        }
        if full && let Some(oldest) = self.flight.pop_front() {
            self.update(&oldest);
        }
    }

    fn check(&mut self, batch: &Batch) {
        assert!(batch.tokens() <= self.config.max_num_batched_tokens, "a step stays within its budget");
        assert!(self.engine.num_running() <= self.config.active_seqs(), "so many requests run at most");
        let ids: BTreeSet<_> = batch.scheduled.iter().map(|part| part.id).collect();
        assert_eq!(ids.len(), batch.scheduled.len(), "a request has one part in a batch");
        let adapters = ids.iter().filter_map(|id| self.requests[id.0 as usize].adapter);
        let adapters = adapters.collect::<BTreeSet<_>>().len();
        assert!(
            self.config.max_loras.is_none_or(|max| adapters <= max as usize),
            "{adapters} adapters in a batch"
        );
        assert!(batch.scheduled.iter().all(|part| part.new > 0));
        assert!(batch.preempted.is_empty() || batch.admitted.is_empty(), "no admission beside a preemption");
        for admission in &batch.admitted {
            assert_eq!(admission.resumed, self.preempted.contains(&admission.id));
            *self.computed.entry(admission.id).or_default() += admission.hit_tokens;
        }
        for part in &batch.scheduled {
            *self.computed.entry(part.id).or_default() += part.new;
        }
        self.preempted.extend(&batch.preempted);
    }

    fn update(&mut self, batch: &Batch) {
        let mut tokens = Vec::new();
        self.engine.update(batch, &mut tokens);
        self.engine.assert_consistent();
        for token in tokens {
            assert!(self.handles.contains_key(&token.id), "who has left receives nothing");
            if token.last {
                self.handles.remove(&token.id);
                assert!(self.finished.insert(token.id, token.emitted).is_none(), "a request ends once");
            }
        }
    }

    /// What the finished requests computed or found in the cache.
    fn account_for_tokens(&self) {
        for (id, &emitted) in &self.finished {
            let request = &self.requests[id.0 as usize];
            assert_eq!(emitted, request.output_tokens, "a finished request has its whole answer");
            // The last token is never computed, unless the engine did not foresee that it was the last.
            let needed = request.prompt.tokens() + emitted - 1;
            let unforeseen =
                u32::from(self.config.async_scheduling && request.max_tokens > request.output_tokens);
            let computed = self.computed[id];
            if self.preempted.contains(id) || self.config.speculation.is_some() {
                assert!(computed >= needed, "computed + cached >= known: {computed}, {needed}");
            } else {
                assert!(
                    (needed..=needed + unforeseen).contains(&computed),
                    "computed + cached = known: {computed}, {needed}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn every_step_of_an_engine_is_consistent_and_everybody_is_served(config in engine(), visits in visits()) {
        let mut bench = Bench::new(&config, &visits);
        let steps = bench.run(&visits);
        bench.account_for_tokens();
        let pool = bench.engine.kv().pool();
        prop_assert_eq!(pool.free(), pool.usable(), "nothing is held when nobody is there");
        let admissible = bench.requests.iter().filter(|request| request.prompt.tokens() < config.max_model_len);
        // First come, first served: the head of the batch computes a token in every step until it ends (an async
        // step or two more at its end), and is never preempted. Then the next one is the head.
        let work: usize = admissible.map(|r| (r.prompt.tokens() + r.output_tokens + 3) as usize).sum();
        if config.policy == Policy::Fcfs {
            prop_assert!(steps <= work + 2, "{steps} steps for {work} tokens");
        }
    }
}
