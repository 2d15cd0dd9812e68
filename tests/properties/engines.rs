//! Laws of an engine, step by step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::{Batch, Engine, EngineRequest, Handle};
use forerun_sim::kv::Pool as _;
use forerun_sim::request::RequestId;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::cases;
use super::scenarios::{Ask, ask, engine, lines};

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
