//! A fleet: pools of replicas behind a router, run over a source of requests.
//!
//! The only place where replicas, router and clients meet. One loop takes the earliest of: the source's next
//! request, and the events that follow from earlier ones.

mod config;
mod error;
mod live;

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use crate::agenda::Agenda;
use crate::engine::{Admission, Batch, EngineRequest, Handle, Token};
use crate::event::{EventQueue, Rank};
use crate::kv::Pool;
use crate::kv::block_pool::BlockPool;
use crate::kv::extent_pool::ExtentPool;
use crate::ledger::Account;
use crate::observer::{Observer, ReplicaTotals, RunTotals};
use crate::prompt::Prompt;
use crate::replica::Replica;
use crate::request::{Cause, Failure, Label, Outcome, Rejection, ReplicaId, RequestId, Status};
use crate::router::{Endpoint, Router};
use crate::source::Source;
use crate::time::{Span, Time};
pub use config::{Client, FleetConfig, KvForm, Overhead, PoolConfig};
pub use error::RunError;
use live::{Attempt, Live, LiveSet};

/// Runs a fleet until every request has ended, or to its horizon.
///
/// # Errors
/// When the source fails, the observer interrupts, or an invariant is broken.
pub fn run<O: Observer>(
    config: &FleetConfig,
    source: &mut dyn Source,
    router: &mut dyn Router,
    observer: &mut O,
) -> Result<RunTotals, RunError> {
    match config.kv {
        KvForm::Extents => Fleet::<O, ExtentPool>::new(config, source, router, observer).run(),
        KvForm::Exact => Fleet::<O, BlockPool>::new(config, source, router, observer).run(),
    }
}

/// How many events pass between two looks at the observer's wish to stop.
const EVENTS_PER_TICK: u32 = 4096;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The request reaches the router.
    Route(RequestId, Attempt),
    /// The request reaches its replica's engine.
    Receive(RequestId, Attempt),
    /// The client's patience ends.
    Timeout(RequestId, Attempt),
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The source's.
    Arrival,
    /// A request's on its way.
    Event,
    /// A replica's.
    Replica(ReplicaId, Rank),
}

struct Fleet<'a, O, P: Pool> {
    config: &'a FleetConfig,
    source: &'a mut dyn Source,
    router: &'a mut dyn Router,
    observer: &'a mut O,
    replicas: Vec<Replica<P>>,
    pool_of: Vec<usize>,
    /// Router's view of the replicas that serve one model, by model.
    models: Vec<Vec<Endpoint>>,
    model_of_pool: Vec<usize>,
    /// Model of each label seen so far; `None` when no pool serves it.
    model_of_label: FxHashMap<Label, Option<usize>>,
    live: LiveSet,
    events: EventQueue<Event>,
    agenda: Agenda,
    /// What the source announced; to be asked again after it gave a request or was told of an end.
    next_arrival: Option<Time>,
    arrival_is_stale: bool,
    tokens: Vec<Token>,
    now: Time,
    steps: u64,
}

impl<'a, O: Observer, P: Pool> Fleet<'a, O, P> {
    fn new(
        config: &'a FleetConfig,
        source: &'a mut dyn Source,
        router: &'a mut dyn Router,
        observer: &'a mut O,
    ) -> Self {
        let mut names: Vec<&[String]> = Vec::new();
        let mut models: Vec<Vec<Endpoint>> = Vec::new();
        let (mut replicas, mut pool_of, mut model_of_pool) = (Vec::new(), Vec::new(), Vec::new());
        for (index, pool) in config.pools.iter().enumerate() {
            let known = names.iter().position(|served| *served == pool.model_names);
            let model = known.unwrap_or_else(|| {
                names.push(&pool.model_names);
                models.push(Vec::new());
                models.len() - 1
            });
            model_of_pool.push(model);
            for number in 0..pool.replicas {
                models[model].push(Endpoint { replica: ReplicaId(replicas.len() as u32), in_flight: 0 });
                pool_of.push(index);
                let totals = ReplicaTotals {
                    name: format!("{}-{number}", pool.name),
                    pool: pool.name.clone(),
                    gpus: pool.gpus,
                    ..ReplicaTotals::default()
                };
                replicas.push(Replica::new(pool.engine.clone(), pool.cost.clone(), totals, config.warm_up));
            }
        }
        let agenda = Agenda::new(replicas.len());
        Self {
            config,
            source,
            router,
            observer,
            replicas,
            pool_of,
            models,
            model_of_pool,
            model_of_label: FxHashMap::default(),
            live: LiveSet::default(),
            events: EventQueue::default(),
            agenda,
            next_arrival: None,
            arrival_is_stale: true,
            tokens: Vec::new(),
            now: Time::ZERO,
            steps: 0,
        }
    }

    fn run(mut self) -> Result<RunTotals, RunError> {
        let mut until_tick = EVENTS_PER_TICK;
        while let Some((at, next)) = self.next()? {
            if let Some(horizon) = self.config.horizon.filter(|&horizon| at > horizon) {
                return Ok(self.cut(horizon));
            }
            debug_assert!(at >= self.now, "time runs forwards");
            self.now = at;
            match next {
                Next::Arrival => self.arrive()?,
                Next::Event => {
                    if let Some((_, event)) = self.events.pop() {
                        self.handle(event);
                    }
                }
                Next::Replica(id, rank) => self.take_turn(id, rank)?,
            }
            until_tick -= 1;
            if until_tick == 0 {
                until_tick = EVENTS_PER_TICK;
                if self.observer.tick(self.now) == ControlFlow::Break(()) {
                    return Err(RunError::Interrupted);
                }
            }
        }
        match self.live.any() {
            Some(live) => {
                let replica = live.replica.map_or(0, |id| id.0 as usize);
                Err(self.stuck(replica))
            }
            None => Ok(self.totals()),
        }
    }

    /// What happens next, and when. Of an instant, steps end first; then requests arrive, those that are sent
    /// before those on their way; then idle replicas wake; then clients look at their watches.
    fn next(&mut self) -> Result<Option<(Time, Next)>, RunError> {
        // The clock does not wait for the patience of clients who have long had their answer.
        while self.events.front().is_some_and(|event| self.is_void(event)) {
            self.events.pop();
        }
        let mut next = self.agenda.first().map(|(at, rank, id)| ((at, rank), Next::Replica(id, rank)));
        let mut offer = |key: (Time, Rank), what| {
            if next.as_ref().is_none_or(|(earliest, _)| key < *earliest) {
                next = Some((key, what));
            }
        };
        if self.arrival_is_stale {
            self.next_arrival = self.source.peek().map_err(RunError::Source)?;
            self.arrival_is_stale = false;
        }
        if let Some(at) = self.next_arrival {
            offer((at, Rank::Arrival), Next::Arrival);
        }
        if let Some(key) = self.events.peek() {
            offer(key, Next::Event);
        }
        Ok(next.map(|((at, _), what)| (at, what)))
    }

    /// Stops at the horizon: whatever is in flight stays unfinished.
    fn cut(mut self, horizon: Time) -> RunTotals {
        self.now = horizon;
        for index in 0..self.replicas.len() {
            self.catch_up(index, true);
            self.dissolve(index);
        }
        let mut left: Vec<_> = self.live.ids().collect();
        left.sort_unstable();
        for id in left {
            self.end(id, Status::Unfinished);
        }
        self.totals()
    }

    fn totals(mut self) -> RunTotals {
        let end = self.now;
        let replicas = self.replicas.iter_mut().map(|replica| replica.totals(end)).collect();
        RunTotals { end, steps: self.steps, replicas }
    }

    fn stuck(&mut self, replica: usize) -> RunError {
        let waiting = self.live.len() as u32;
        RunError::Stuck { replica: self.replicas[replica].totals(self.now).name, waiting }
    }

    /// Whether an event belongs to a request, or to an attempt, that is over.
    fn is_void(&self, event: &Event) -> bool {
        match event {
            Event::Route(id, attempt) | Event::Receive(id, attempt) | Event::Timeout(id, attempt) => {
                self.live.get(id).is_none_or(|live| live.attempt != *attempt)
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Route(id, attempt) => self.route(id, attempt),
            Event::Receive(id, attempt) => self.receive(id, attempt),
            Event::Timeout(id, attempt) => self.time_out(id, attempt),
        }
    }

    /// A replica's step ends, or it wakes.
    fn take_turn(&mut self, id: ReplicaId, rank: Rank) -> Result<(), RunError> {
        let index = id.0 as usize;
        if rank == Rank::Wake {
            self.replicas[index].wake = None;
            self.pump(id, rank)?;
        } else {
            self.catch_up(index, true);
            if self.replicas[index].step_ends(self.now) {
                self.step_done(id)?;
            }
        }
        self.announce(index);
        Ok(())
    }

    /// Takes the quiet steps of a replica that have ended by now; those that end just now only if `inclusive`.
    fn catch_up(&mut self, index: usize, inclusive: bool) {
        let id = ReplicaId(index as u32);
        self.steps += self.replicas[index].run_quiet(id, self.now, inclusive, self.observer);
    }

    /// Lets all other replicas catch up with an event of this rank at replica `index`: of those whose steps end just
    /// now, the ones of lower index have had their turn. What they have generated of `answers` is named.
    fn catch_up_others(&mut self, index: usize, rank: Rank, answers: Option<&Prompt>) {
        for other in (0..self.replicas.len()).filter(|&other| other != index) {
            self.catch_up(other, rank == Rank::Wake || other < index);
            if let Some(prompt) = answers {
                self.replicas[other].engine.expose(prompt, false);
            }
        }
    }

    /// Makes ordinary requests of a replica's decodes in lockstep.
    fn dissolve(&mut self, index: usize) {
        self.replicas[index].dissolve();
        self.note_dissolved(index);
    }

    /// Requests that have left the lockstep know their own tokens again.
    fn note_dissolved(&mut self, index: usize) {
        let Replica { dissolved, last_result, .. } = &mut self.replicas[index];
        for (id, emitted) in dissolved.drain(..) {
            let live = self.live.get_mut(&id).expect("a decode is in flight");
            live.emitted = emitted;
            live.last_token = *last_result;
        }
    }

    /// Tells the agenda when the replica has something to do.
    fn announce(&mut self, index: usize) {
        self.agenda.set(ReplicaId(index as u32), self.replicas[index].next_event());
    }

    /// A client sends its request.
    fn arrive(&mut self) -> Result<(), RunError> {
        self.arrival_is_stale = true;
        let Some(request) = self.source.pop().map_err(RunError::Source)? else { return Ok(()) };
        self.observer.arrived(&request);
        let id = request.id;
        let live = Live {
            account: Account::open(self.now),
            request,
            attempt: 0,
            replica: None,
            handle: None,
            queued: None,
            scheduled: None,
            first_token: None,
            last_token: self.now,
            emitted: 0,
            cached_tokens: 0,
            duplicate_tokens: 0,
            preemptions: 0,
        };
        self.live.insert(id, live);
        self.send(id);
        Ok(())
    }

    /// The request is on its way to the router.
    fn send(&mut self, id: RequestId) {
        let attempt = self.live.get(&id).map_or(0, |live| live.attempt);
        if let Some(timeout) = self.config.client.timeout {
            self.events.push(self.now + timeout, Rank::Tick, Event::Timeout(id, attempt));
        }
        match self.config.overhead.routing {
            Span::ZERO => self.route(id, attempt),
            routing => self.events.push(self.now + routing, Rank::Arrival, Event::Route(id, attempt)),
        }
    }

    /// The router chooses a replica.
    fn route(&mut self, id: RequestId, attempt: Attempt) {
        let Some(live) = self.live.get(&id).filter(|live| live.attempt == attempt) else { return };
        let Some(model) = self.model_of(live.request.model) else {
            return self.end(id, Status::Rejected(Rejection::NoSuchModel));
        };
        let live = self.live.get_mut(&id).expect("just seen");
        let choice = self.router.route(self.now, &live.request, &self.models[model]);
        let endpoint = &mut self.models[model][choice];
        endpoint.in_flight += 1;
        live.replica = Some(endpoint.replica);
        self.replicas[endpoint.replica.0 as usize].count_request(self.now);
        match self.config.overhead.serving(live.request.prompt.tokens()) {
            Span::ZERO => self.receive(id, attempt),
            serving => self.events.push(self.now + serving, Rank::Arrival, Event::Receive(id, attempt)),
        }
    }

    /// The index of the model that a request asks for. A fleet of one model serves whatever is asked.
    fn model_of(&mut self, label: Label) -> Option<usize> {
        if self.models.len() == 1 || !label.is_some() {
            return Some(0);
        }
        let (source, pools, model_of_pool) = (&self.source, &self.config.pools, &self.model_of_pool);
        *self.model_of_label.entry(label).or_insert_with(|| {
            let name = source.labels().name(label);
            let serves =
                |pool: &PoolConfig| pool.model_names.iter().any(|own| own.eq_ignore_ascii_case(name));
            pools.iter().position(serves).map(|pool| model_of_pool[pool])
        })
    }

    /// The request reaches its replica's engine.
    fn receive(&mut self, id: RequestId, attempt: Attempt) {
        let Some(live) = self.live.get(&id).filter(|live| live.attempt == attempt) else { return };
        let index = live.replica.expect("routed before it is received").0 as usize;
        self.catch_up(index, true);
        let replica = &mut self.replicas[index];
        let live = self.live.get_mut(&id).expect("just seen");
        let config = replica.engine.config();
        let rejection = if live.request.prompt.tokens() >= config.max_model_len {
            Some(Rejection::TooLong)
        } else if config.max_num_queued_reqs.is_some_and(|max| replica.engine.num_waiting() >= max) {
            Some(Rejection::QueueFull)
        } else {
            None
        };
        if let Some(rejection) = rejection {
            return self.end(id, Status::Rejected(rejection));
        }
        live.handle = Some(replica.engine.add(EngineRequest::new(&live.request, config.max_model_len)));
        live.queued = Some(self.now);
        live.account.plain(self.now, &replica.clock, Cause::EngineQueueStep);
        replica.revisit.push(id);
        if replica.is_idle() {
            replica.wake = Some(self.now);
        }
        self.announce(index);
    }

    /// Forms batches until enough are in flight, and starts the oldest; as part of an event of this rank.
    fn pump(&mut self, id: ReplicaId, rank: Rank) -> Result<(), RunError> {
        let index = id.0 as usize;
        while let Some(batch) = self.replicas[index].form_batch(self.now) {
            self.note_dissolved(index);
            self.note_schedule(id, rank, &batch);
            if batch.is_empty() {
                // By priority a request may have preempted itself before anybody else had a turn. vLLM steps on
                // at once when no batch is in flight.
                let again = !batch.preempted.is_empty() && self.replicas[index].is_idle();
                self.replicas[index].recycle(batch);
                if again {
                    continue;
                }
                break;
            }
            self.replicas[index].launch(batch);
        }
        if self.replicas[index].start_step(self.now) {
            self.steps += 1;
        } else if self.replicas[index].is_idle() && self.replicas[index].engine.has_requests() {
            return Err(self.stuck(index));
        }
        Ok(())
    }

    /// Books what the scheduler just decided.
    fn note_schedule(&mut self, id: ReplicaId, rank: Rank, batch: &Batch) {
        let (now, index) = (self.now, id.0 as usize);
        let Replica { revisit, clock, .. } = &mut self.replicas[index];
        for request in revisit.drain(..) {
            let here = |live: &&mut Live| live.replica == Some(id) && live.account.awaits_a_look();
            if let Some(live) = self.live.get_mut(&request).filter(here) {
                live.account.queued(now, clock);
            }
        }
        for request in &batch.preempted {
            let live = self.live.get_mut(request).expect("a preempted request is in flight");
            live.preemptions += 1;
            live.account.queued(now, clock);
        }
        for &request in &batch.lora_skipped {
            let live = self.live.get_mut(&request).expect("a waiting request is in flight");
            live.account.plain(now, clock, Cause::EngineQueueLora);
            revisit.push(request);
        }
        for admission in &batch.admitted {
            self.note_admission(index, rank, admission);
        }
    }

    fn note_admission(&mut self, index: usize, rank: Rank, admission: &Admission) {
        let live = self.live.get_mut(&admission.id).expect("an admitted request is in flight");
        live.account.plain(self.now, &self.replicas[index].clock, Cause::OwnPrefill);
        if live.scheduled.is_none() {
            live.scheduled = Some(self.now);
            live.cached_tokens = admission.hit_tokens;
            let prompt_tokens = live.request.prompt.tokens();
            let handle = live.handle.expect("an admitted request is in its engine");
            if live.is_first_of_its_kind() {
                return;
            }
            let answers = live.request.prompt.has_answers().then(|| live.request.prompt.clone());
            self.catch_up_others(index, rank, answers.as_ref());
            let duplicates = self.duplicate_tokens(index, handle, admission.hit_tokens, prompt_tokens);
            self.live.get_mut(&admission.id).expect("just seen").duplicate_tokens = duplicates;
        }
    }

    /// Prompt tokens after the first `hit_tokens` of a request that other replicas of its model hold cached.
    fn duplicate_tokens(&self, index: usize, handle: Handle, hit_tokens: u32, prompt_tokens: u32) -> u32 {
        let endpoints = &self.models[self.model_of_pool[self.pool_of[index]]];
        let others =
            endpoints.iter().map(|endpoint| endpoint.replica.0 as usize).filter(|&other| other != index);
        let pools = others.map(|other| self.replicas[other].engine.kv().pool());
        let engine = &self.replicas[index].engine;
        let block_size = engine.config().block_size;
        let (from, to) = (hit_tokens / block_size, prompt_tokens / block_size);
        P::cached_elsewhere(engine.chain(handle), from, to, pools) * block_size
    }

    /// A step ends: its tokens reach their clients, and the next step starts.
    fn step_done(&mut self, id: ReplicaId) -> Result<(), RunError> {
        let index = id.0 as usize;
        let since_last = self.now.since(self.replicas[index].last_result);
        let done = self.replicas[index].finish_step(self.now);
        let mut tokens = std::mem::take(&mut self.tokens);
        let lockstep = self.replicas[index].engine.update(&done.batch, &mut tokens);
        self.replicas[index].note_blocks(self.now);
        let listed = tokens.iter().filter(|token| !token.lockstep).count() as u32;
        self.observer.step_done(self.now, id, done.shape.prefill_tokens, listed + lockstep);
        if lockstep > 0 {
            // All of them emitted a token in the step before.
            self.observer.token_gaps(self.now, since_last, lockstep);
        }
        self.replicas[index].recycle(done.batch);
        self.deliver(index, &tokens);
        tokens.clear();
        self.tokens = tokens;
        self.pump(id, Rank::StepDone)
    }

    fn deliver(&mut self, index: usize, tokens: &[Token]) {
        let now = self.now;
        let (mut gap, mut count) = (Span::ZERO, 0);
        for token in tokens {
            let clock = &self.replicas[index].clock;
            let live = self.live.get_mut(&token.id).expect("a token has a request in flight");
            live.emitted = token.emitted;
            if token.lockstep {
                // Its gap is counted with the others'.
            } else if live.first_token.is_none() {
                live.first_token = Some(now);
            } else {
                let own = now.since(live.last_token);
                if own != gap && count > 0 {
                    self.observer.token_gaps(now, gap, count);
                    count = 0;
                }
                gap = own;
                count += 1;
            }
            live.last_token = now;
            if live.account.is_prefilling() {
                live.account.decoding(now, clock);
            }
            if token.last {
                live.handle = None;
                self.end(token.id, Status::Completed);
            }
        }
        if count > 0 {
            self.observer.token_gaps(now, gap, count);
        }
    }

    /// The client's patience ends.
    fn time_out(&mut self, id: RequestId, attempt: Attempt) {
        let Some(live) = self.live.get_mut(&id).filter(|live| live.attempt == attempt) else { return };
        if live.attempt >= self.config.client.retries {
            return self.end(id, Status::Failed(Failure::Timeout));
        }
        self.withdraw(id);
        let live = self.live.get_mut(&id).expect("just seen");
        let clock = live.replica.map(|replica| &self.replicas[replica.0 as usize].clock);
        live.account.plain(self.now, clock.unwrap_or(&Default::default()), Cause::Overhead);
        live.attempt += 1;
        live.replica = None;
        (live.queued, live.scheduled, live.first_token) = (None, None, None);
        (live.emitted, live.cached_tokens, live.duplicate_tokens) = (0, 0, 0);
        self.send(id);
    }

    /// Takes a request back from router and engine, whatever they still do for it.
    fn withdraw(&mut self, id: RequestId) {
        let live = self.live.get_mut(&id).expect("only what is in flight is withdrawn");
        let Some(replica) = live.replica else { return };
        let index = replica.0 as usize;
        if let Some(handle) = live.handle.take() {
            self.catch_up(index, true);
            self.dissolve(index);
            self.replicas[index].engine.abort(handle);
            self.replicas[index].note_blocks(self.now);
            self.announce(index);
        }
        let endpoints = &mut self.models[self.model_of_pool[self.pool_of[index]]];
        let endpoint = endpoints.iter_mut().find(|endpoint| endpoint.replica == replica);
        endpoint.expect("a replica is an endpoint of its model").in_flight -= 1;
    }

    /// A request ends: exactly once.
    fn end(&mut self, id: RequestId, status: Status) {
        self.withdraw(id);
        let live = self.live.remove(&id).expect("withdrawn just now");
        let idle = Default::default();
        let clock = live.replica.map_or(&idle, |replica| &self.replicas[replica.0 as usize].clock);
        let spent = live.account.close(self.now, clock);
        debug_assert_eq!(spent.total(), self.now.since(live.request.arrival), "the causes add up");
        let outcome = Outcome {
            status,
            replica: live.replica,
            queued: live.queued,
            scheduled: live.scheduled,
            first_token: live.first_token,
            ended: self.now,
            emitted: live.emitted,
            cached_tokens: live.cached_tokens,
            duplicate_tokens: live.duplicate_tokens,
            preemptions: live.preemptions,
            retries: live.attempt,
            spent,
            request: live.request,
        };
        self.observer.ended(&outcome, self.source.labels());
        self.source.ended(&outcome.request, status, self.now);
        self.arrival_is_stale = true;
    }
}
