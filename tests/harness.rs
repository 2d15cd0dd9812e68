//! A fleet made by hand: a source that plays a script, cost models of one line, and an observer that keeps
//! everything.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::Arc;

use forerun_policies::Preset;
use forerun_sim::cost::{CostModel, Piece, Prepared, StepShape};
use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::fleet::{self, Client, Disaggregation, FleetConfig, KvForm, Overhead, PoolConfig, Role};
use forerun_sim::observer::{Observer, RunTotals};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels, Outcome, Rejection, ReplicaId, Request, RequestId, Status, Stop};
use forerun_sim::router::{Admission, Choice, Endpoint, EndpointInfo, Needs, Release, Router, View};
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::{Span, Time};

use crate::curious::Curious;

/// The time `nanos` nanoseconds after the start.
pub(crate) fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

/// A span of `nanos` nanoseconds.
pub(crate) fn ns(nanos: u64) -> Span {
    Span::from_nanos(nanos)
}

/// A request of `prompt` private tokens that generates `output` tokens, sent at `arrival`.
pub(crate) fn request(id: u64, arrival: u64, prompt: u32, output: u32) -> Request {
    Request {
        id: RequestId(id),
        name: None,
        arrival: at(arrival),
        prompt: Prompt::of(Content::private(id), prompt),
        output: Content::generated(id),
        output_tokens: output,
        stop: Stop::Length,
        max_tokens: None,
        priority: 0,
        tenant: Label::NONE,
        class: Label::NONE,
        model: Label::NONE,
        adapter: Label::NONE,
        session: None,
    }
}

/// An engine with room for everything: blocks of 16 tokens, synchronous, first come first served.
pub(crate) fn roomy_engine() -> EngineConfig {
    EngineConfig {
        block_size: 16,
        num_gpu_blocks: 1001,
        max_num_batched_tokens: 1000,
        max_num_seqs: 100,
        max_num_active_seqs: None,
        max_model_len: 1000,
        long_prefill_token_threshold: 0,
        long_prefill_token_threshold_adaptive: false,
        policy: Policy::Fcfs,
        reserve_full_isl: true,
        watermark: 0.0,
        prefix_caching: true,
        chunked_prefill: true,
        max_loras: None,
        async_scheduling: false,
        max_num_queued_reqs: None,
        speculation: None,
    }
}

/// One pool of equal replicas and no costs around them.
pub(crate) fn bare_fleet(replicas: u32, engine: EngineConfig, cost: impl CostModel + 'static) -> FleetConfig {
    engine.check().expect("a valid engine");
    let pool = PoolConfig {
        name: "pool".into(),
        replicas,
        gpus: 1,
        labels: BTreeMap::new(),
        role: Role::Both,
        kv_block_bytes: 1,
        host: None,
        lora: None,
        data_parallel: Default::default(),
        model_names: vec!["a".into()],
        engine,
        cost: Arc::new(cost),
    };
    FleetConfig {
        pools: vec![pool],
        kv: KvForm::Extents,
        overhead: Overhead::default(),
        client: Client::default(),
        disaggregation: Disaggregation::default(),
        below_host: Default::default(),
        faults: Default::default(),
        split: None,
        warm_up: Time::ZERO,
        horizon: None,
    }
}

/// A cost that is linear in everything that a step has, in nanoseconds, and piecewise linear in the contexts of its
/// decodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) step: u64,
    pub(crate) token: u64,
    pub(crate) request: u64,
    pub(crate) cpu: u64,
    pub(crate) context: Steeper,
    pub(crate) longest: Steeper,
}

/// Each piece of so many tokens is steeper than the one before by so many nanoseconds per token; every third is flat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steeper {
    pub(crate) tokens: u64,
    pub(crate) slope: u64,
}

impl Linear {
    /// Nothing costs anything.
    pub(crate) const FREE: Self = Self {
        step: 0,
        token: 0,
        request: 0,
        cpu: 0,
        context: Steeper { tokens: 0, slope: 0 },
        longest: Steeper { tokens: 0, slope: 0 },
    };
}

impl Steeper {
    /// Nanoseconds at the beginning of the piece that has so many tokens, and the piece.
    fn piece(self, tokens: u64) -> (u64, Piece) {
        if self.tokens == 0 {
            return (0, Piece::default());
        }
        let slope = |piece: u64| if piece % 3 == 2 { 0 } else { self.slope * piece };
        let number = tokens / self.tokens;
        let from = number * self.tokens;
        let before: u64 = (0..number).map(|piece| slope(piece) * self.tokens).sum();
        (before, Piece { from, until: from + self.tokens - 1, ns_per_token: slope(number) as f64 })
    }
}

impl CostModel for Linear {
    fn prepare(&self, shape: &StepShape) -> Prepared {
        let work = self.token * u64::from(shape.tokens()) + self.request * u64::from(shape.requests());
        let (context_ns, context) = self.context.piece(shape.decode_context);
        let (longest_ns, longest) = self.longest.piece(shape.decode_longest);
        let fixed_ns = (self.step + work + context_ns + longest_ns) as f64;
        Prepared { fixed_ns, context, longest, cpu: ns(self.cpu) }
    }
}

/// A request of a script: sent at its own arrival, or so long after the end of an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) request: Request,
    pub(crate) follows: Option<(usize, Span)>,
}

/// A source that plays lines in order of time; ids are line numbers.
#[derive(Clone)]
pub(crate) struct Script {
    /// Ids of requests are their places here.
    lines: Vec<Line>,
    /// What follows each line, and how long after its end.
    followers: Vec<Vec<(usize, Span)>>,
    due: BinaryHeap<Reverse<(Time, usize)>>,
    labels: Labels,
    open: usize,
    /// Sent one by one when everything else has ended.
    probes: Vec<Request>,
}

impl Script {
    pub(crate) fn new(lines: Vec<Line>, labels: Labels, mut probes: Vec<Request>) -> Self {
        probes.iter_mut().rev().zip(lines.len()..).for_each(|(probe, id)| probe.id = RequestId(id as u64));
        let own = lines.iter().enumerate().filter(|(_, line)| line.follows.is_none());
        let due = own.map(|(number, line)| Reverse((line.request.arrival, number))).collect();
        let mut followers = vec![Vec::new(); lines.len() + probes.len()];
        for (number, line) in lines.iter().enumerate() {
            if let Some((before, think)) = line.follows {
                followers[before].push((number, think));
            }
        }
        Self { open: lines.len(), lines, followers, due, labels, probes }
    }

    /// A script of requests that follow nothing.
    pub(crate) fn of(requests: impl IntoIterator<Item = Request>) -> Self {
        let lines = requests.into_iter().map(|request| Line { request, follows: None }).collect();
        Self::new(lines, Labels::default(), Vec::new())
    }
}

impl Source for Script {
    fn peek(&mut self) -> Result<Option<Time>, SourceError> {
        Ok(self.due.peek().map(|&Reverse((time, _))| time))
    }

    fn pop(&mut self) -> Result<Option<Request>, SourceError> {
        let next = self.due.pop();
        Ok(next
            .map(|Reverse((time, number))| Request { arrival: time, ..self.lines[number].request.clone() }))
    }

    fn ended(&mut self, request: &Request, _: Status, at: Time) {
        let followers = &self.followers[request.id.0 as usize];
        self.due.extend(followers.iter().map(|&(number, think)| Reverse((at + think, number))));
        self.open -= 1;
        if self.open == 0
            && let Some(probe) = self.probes.pop()
        {
            self.due.push(Reverse((at, self.lines.len())));
            self.lines.push(Line { request: probe, follows: None });
            self.open = 1;
        }
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

/// Everything that an observer is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) arrived: Vec<(RequestId, Time)>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) gaps: u64,
    pub(crate) gap_nanos: u64,
    /// Steps that ended, the prompt tokens that they computed and the tokens that they delivered.
    pub(crate) steps: u64,
    pub(crate) prefill_tokens: u64,
    pub(crate) emitted: u64,
    last: Time,
    ticks: usize,
}

impl Record {
    fn not_before(&mut self, now: Time) {
        assert!(now >= self.last, "told of {now:?} after {:?}", self.last);
        self.last = now;
    }

    /// The outcome of a request.
    pub(crate) fn outcome(&self, id: u64) -> &Outcome {
        self.outcomes.iter().find(|outcome| outcome.request.id.0 == id).expect("it ended")
    }
}

impl Observer for Record {
    fn arrived(&mut self, request: &Request) {
        self.not_before(request.arrival);
        self.arrived.push((request.id, request.arrival));
    }

    fn token_gaps(&mut self, _: Time, gap: Span, count: u32) {
        assert!(gap > Span::ZERO && count > 0, "tokens of a request come one after another");
        self.gaps += u64::from(count);
        self.gap_nanos += gap.as_nanos() * u64::from(count);
    }

    fn step_done(&mut self, _: Time, _: ReplicaId, prefill_tokens: u32, emitted: u32) {
        self.steps += 1;
        self.prefill_tokens += u64::from(prefill_tokens);
        self.emitted += u64::from(emitted);
    }

    fn ended(&mut self, outcome: &Outcome, _: &Labels) {
        self.not_before(outcome.ended);
        self.outcomes.push(outcome.clone());
    }

    /// A run that never ends is a failure, not a hang: so many events are more than its requests need.
    fn tick(&mut self, _: Time) -> ControlFlow<()> {
        self.ticks += 1;
        if self.ticks > 50 + self.arrived.len() / 500 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// A router that asks another one, and notes what it saw.
pub(crate) struct Watched {
    inner: Box<dyn Router>,
    placed: u64,
    /// Requests in flight according to the router when the probes came, all together.
    probed: u64,
    /// Most requests in flight at any time that it was asked.
    most: u64,
    probes: BTreeSet<RequestId>,
}

impl Router for Watched {
    fn needs(&self) -> Needs {
        self.inner.needs()
    }

    fn start(&mut self, endpoints: &[EndpointInfo]) {
        self.inner.start(endpoints);
    }

    fn admit(&mut self, now: Time, request: &Request, endpoints: &[Endpoint]) -> Admission {
        self.inner.admit(now, request, endpoints)
    }

    fn release(&mut self, now: Time, endpoints: &[Endpoint]) -> Option<Release> {
        self.inner.release(now, endpoints)
    }

    fn next_release(&self, now: Time) -> Option<Time> {
        self.inner.next_release(now)
    }

    fn committed(&mut self, now: Time, request: &Request, choice: Choice) {
        self.inner.committed(now, request, choice);
    }

    fn first_token(&mut self, now: Time, request: RequestId) {
        self.inner.first_token(now, request);
    }

    fn ended(&mut self, now: Time, request: RequestId) {
        self.inner.ended(now, request);
    }

    fn lost(&mut self, now: Time, replica: ReplicaId) {
        self.inner.lost(now, replica);
    }

    fn back(&mut self, now: Time, replica: ReplicaId) {
        self.inner.back(now, replica);
    }

    fn place(&mut self, now: Time, request: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        let endpoints = view.endpoints;
        assert!(!endpoints.is_empty(), "a router has a choice");
        let in_flight: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.in_flight)).sum();
        self.most = self.most.max(in_flight);
        if self.probes.contains(&request.id) {
            self.probed += in_flight;
        }
        let choice = self.inner.place(now, request, view)?;
        let chosen = std::iter::once(choice.endpoint).chain(choice.prefill);
        assert!(chosen.into_iter().all(|at| view.endpoints[at].ready), "who is down gets no requests");
        self.placed += 1;
        Ok(choice)
    }
}

/// What a run gave.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) record: Record,
    pub(crate) totals: RunTotals,
    /// How many requests the router placed.
    pub(crate) routed: u64,
    /// Requests that the router still counted as in flight when the probes came.
    pub(crate) left_over: u64,
    /// Most requests in flight that a request met.
    pub(crate) most_in_flight: u64,
}

/// Plays a script on a fleet with the named routing policy (or "curious"), in both forms of the engine, which must not
/// differ in anything.
pub(crate) fn play(config: &FleetConfig, script: Script, policy: &str) -> Run {
    play_routed(config, script, || match Preset::find(policy) {
        Some(preset) if config.is_disaggregated() => preset.disaggregated_router(7),
        Some(preset) => preset.router(7),
        None => Box::<Curious>::default(),
    })
}

/// The same with a router of one's own.
pub(crate) fn play_routed(config: &FleetConfig, script: Script, router: impl Fn() -> Box<dyn Router>) -> Run {
    let exact = play_form(config, KvForm::Exact, script.clone(), router());
    let fast = play_form(config, KvForm::Extents, script, router());
    for (fast, exact) in fast.record.outcomes.iter().zip(&exact.record.outcomes) {
        assert_eq!(format!("{fast:?}"), format!("{exact:?}"), "an outcome of the fast and the exact form");
    }
    let told = |run: &Run| {
        let Record { arrived, outcomes, gaps, gap_nanos, steps, prefill_tokens, emitted, .. } = &run.record;
        let counts = (arrived.clone(), outcomes.len(), *gaps, *gap_nanos, *steps, *prefill_tokens, *emitted);
        format!("{counts:?} {:?} {}", run.totals, run.routed)
    };
    assert_eq!(told(&fast), told(&exact), "what was told of the fast and of the exact form");
    exact
}

fn play_form(config: &FleetConfig, kv: KvForm, mut script: Script, inner: Box<dyn Router>) -> Run {
    let mut router = Watched {
        inner,
        placed: 0,
        probed: 0,
        most: 0,
        probes: script.probes.iter().map(|probe| probe.id).collect(),
    };
    let mut record = Record::default();
    let config = FleetConfig { kv, ..config.clone() };
    let totals = fleet::run(&config, &mut script, &mut router, &mut record).expect("the run ends by itself");
    let Watched { placed: routed, probed: left_over, most: most_in_flight, .. } = router;
    Run { record, totals, routed, left_over, most_in_flight }
}
