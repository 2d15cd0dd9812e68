//! A fleet: pools of replicas behind a router, run over a source of requests.
//!
//! The only place where replicas, router and clients meet. One loop takes the earliest of: the source's next
//! request, and the events that follow from earlier ones.
//!
//! | what happens | file |
//! |---|---|
//! | a request is sent, held, routed and received | `routing` |
//! | it is split between backends, or copied to one | `split` |
//! | replicas publish their metrics, and the router scrapes them | `scraping` |
//! | steps end and begin; tokens are delivered | `serving` |
//! | prompts computed elsewhere, pulls, loads and stores | `transfers` |
//! | a request ends, or its client gives up | `ending` |
//! | what is kept of a request in flight | `live` |
//! | what is kept of KV under way | `moves`, [`fabric`] |
//! | tiers below host memory | `below` |
//! | ranks of data parallel servers | `ranks` |
//! | replicas that die and come back, links that slow down | `faults` |

mod below;
mod config;
mod ending;
mod error;
pub mod fabric;
mod faults;
mod live;
mod moves;
mod ranks;
mod routing;
mod scraping;
mod serving;
mod split;
mod transfers;

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use crate::agenda::Agenda;
use crate::engine::Token;
use crate::event::{EventQueue, Rank};
use crate::kv::Pool;
use crate::kv::block_pool::BlockPool;
use crate::kv::extent_pool::ExtentPool;
use crate::observer::{Observer, ReplicaTotals, RunTotals};
use crate::replica::{KvEvents, Replica};
use crate::request::{Label, ReplicaId, RequestId, Status};
use crate::router::{Adapters, Choice, Endpoint, Metrics, Needs, Router};
use crate::source::Source;
use crate::time::Time;
pub use config::{
    BelowHostTiers, Client, DataParallel, Disaggregation, FailedPull, Fault, Faults, FleetConfig, HostTier,
    KvForm, Lost, Overhead, PoolConfig, Role,
};
pub use error::RunError;
use faults::FaultState;
use live::{LiveSet, Seat, Ticket};
use moves::Moves;
use ranks::Ranks;
use split::group_key;
pub use split::{Backend, Mirror, MirrorTotals, Split, SplitBy};

/// Runs a fleet until every request has ended, or to its horizon.
///
/// # Errors
/// When the source fails, the observer interrupts, or an invariant is broken.
pub fn run(
    config: &FleetConfig,
    source: &mut dyn Source,
    router: &mut dyn Router,
    observer: &mut dyn Observer,
) -> Result<RunTotals, RunError> {
    match config.kv {
        KvForm::Extents => Fleet::<ExtentPool>::new(config, source, router, observer).run(),
        KvForm::Exact => Fleet::<BlockPool>::new(config, source, router, observer).run(),
    }
}

/// How many events pass between two looks at the observer's wish to stop.
const EVENTS_PER_TICK: u32 = 4096;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The request reaches the router.
    Route(Ticket),
    /// The router's choice takes effect.
    Commit(Ticket, Choice),
    /// The request reaches its replica's engine.
    Receive(Ticket),
    /// The router looks at its queue again.
    Release(Time),
    /// The client's patience ends.
    Timeout(Ticket),
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The source's.
    Arrival,
    /// A request's on its way.
    Event,
    /// Something under way ends.
    Transfer,
    /// Something that goes wrong.
    Fault,
    /// A replica's.
    Replica(ReplicaId, Rank),
}

struct Fleet<'a, P: Pool> {
    config: &'a FleetConfig,
    source: &'a mut dyn Source,
    router: &'a mut dyn Router,
    observer: &'a mut dyn Observer,
    replicas: Vec<Replica<P>>,
    pool_of: Vec<usize>,
    /// Which replicas get copies of requests only.
    shadow: Vec<bool>,
    mirrored: MirrorTotals,
    /// Router's view of the replicas that serve one model, by model.
    models: Vec<Vec<Endpoint>>,
    /// Where each replica is among the endpoints of its model.
    endpoint_of: Vec<usize>,
    model_of_pool: Vec<usize>,
    /// The replicas that serve one model, by model.
    engines: Vec<Vec<usize>>,
    /// Where servers have several engines: endpoints are servers then, and their replica is the server's number.
    ranks: Option<Ranks>,
    /// Their adapters, as far as the router wants them.
    adapters: Vec<Vec<Adapters>>,
    needs: Needs,
    /// Up to when the replicas were scraped.
    scraped: Option<Time>,
    /// Requests that the router holds.
    held: FxHashMap<RequestId, Seat>,
    /// When the router wants to look at its queue again.
    release_at: Option<Time>,
    /// Model of each label seen so far; `None` when no pool serves it.
    model_of_label: FxHashMap<Label, Option<usize>>,
    live: LiveSet,
    moves: Moves,
    faults: FaultState,
    events: EventQueue<Event>,
    agenda: Agenda,
    /// What the source announced; to be asked again after it gave a request or was told of an end.
    next_arrival: Option<Time>,
    arrival_is_stale: bool,
    tokens: Vec<Token>,
    now: Time,
    steps: u64,
}

impl<'a, P: Pool> Fleet<'a, P> {
    fn new(
        config: &'a FleetConfig,
        source: &'a mut dyn Source,
        router: &'a mut dyn Router,
        observer: &'a mut dyn Observer,
    ) -> Self {
        let split = config.split.as_ref();
        let mut keys: Vec<(&[String], Option<usize>)> = Vec::new();
        let mut models: Vec<Vec<Endpoint>> = Vec::new();
        let (mut replicas, mut pool_of, mut model_of_pool) = (Vec::new(), Vec::new(), Vec::new());
        let (mut endpoint_of, mut infos) = (Vec::new(), Vec::new());
        let moves = Moves::new(config);
        let mut engines: Vec<Vec<usize>> = Vec::new();
        for (index, pool) in config.pools.iter().enumerate() {
            let key = group_key(split, pool, index);
            let known = keys.iter().position(|known| *known == key);
            let model = known.unwrap_or_else(|| {
                keys.push(key);
                models.push(Vec::new());
                engines.push(Vec::new());
                models.len() - 1
            });
            model_of_pool.push(model);
            for number in 0..pool.replicas {
                let rank = number % pool.data_parallel.ranks;
                if rank == 0 {
                    let replica = ReplicaId(infos.len() as u32);
                    let ready = Endpoint { replica, ready: true, in_flight: 0, metrics: Metrics::default() };
                    models[model].push(ready);
                    let server = number / pool.data_parallel.ranks;
                    infos.push(routing::endpoint_info(pool, model, replica, server));
                }
                endpoint_of.push(models[model].len() - 1);
                engines[model].push(replicas.len());
                pool_of.push(index);
                let totals = ReplicaTotals {
                    name: format!("{}-{number}", pool.name),
                    pool: pool.name.clone(),
                    gpus: pool.gpus,
                    ..ReplicaTotals::default()
                };
                let engine = moves.engine(config, pool, replicas.len());
                let lock_step = pool.data_parallel.lock_step && pool.data_parallel.ranks > 1;
                let replica = Replica::new(engine, pool.cost.clone(), pool.lora, totals, config.warm_up);
                replicas.push(replica.in_lock_step(lock_step));
            }
        }
        let agenda = Agenda::new(replicas.len());
        let faults = FaultState::new(&config.faults, &pool_of);
        let adapters = models.iter().map(|endpoints| vec![Adapters::default(); endpoints.len()]).collect();
        router.start(&infos);
        let needs = router.needs();
        for replica in &mut replicas {
            replica.kv_events = needs.kv_events.map(KvEvents::new);
        }
        Self {
            config,
            source,
            needs,
            router,
            observer,
            replicas,
            shadow: pool_of.iter().map(|&pool| split.is_some_and(|split| split.is_shadow(pool))).collect(),
            mirrored: MirrorTotals::default(),
            pool_of,
            models,
            endpoint_of,
            model_of_pool,
            engines,
            ranks: Ranks::new(config),
            adapters,
            scraped: None,
            held: FxHashMap::default(),
            release_at: None,
            model_of_label: FxHashMap::default(),
            live: LiveSet::default(),
            moves,
            faults,
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
                    // Void events never come to the front.
                    if let Some((_, event)) = self.events.pop() {
                        self.handle(event);
                    }
                }
                Next::Transfer => self.end_transfers(),
                Next::Fault => self.take_faults(),
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
                let replica = live.outcome.replica.map_or(0, |id| id.0 as usize);
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
        // When nobody is there any more, nobody waits for what is still under way or may go wrong.
        let somebody = |live: &LiveSet| live.any().is_some() || self.next_arrival.is_some();
        if (self.moves.any || self.faults.any) && somebody(&self.live) {
            if let Some(at) = self.moves.next().filter(|_| self.moves.any) {
                offer((at, Rank::Arrival), Next::Transfer);
            }
            if let Some(at) = self.faults.next() {
                offer((at, Rank::Arrival), Next::Fault);
            }
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
        for seat in self.live.seats() {
            self.end(seat, Status::Unfinished);
        }
        self.totals()
    }

    fn totals(mut self) -> RunTotals {
        let end = self.now;
        let replicas = self.replicas.iter_mut().map(|replica| replica.totals(end)).collect();
        let (tiers, mirrored, deaths) = (self.moves.tiers(), self.mirrored, self.faults.deaths);
        RunTotals { end, steps: self.steps, replicas, tiers, deaths, mirrored }
    }

    fn stuck(&mut self, replica: usize) -> RunError {
        let waiting = self.live.len() as u32;
        RunError::Stuck { replica: self.replicas[replica].totals(self.now).name, waiting }
    }

    /// Whether an event belongs to a request, or to an attempt, that is over.
    fn is_void(&self, event: &Event) -> bool {
        match event {
            Event::Route(ticket)
            | Event::Commit(ticket, _)
            | Event::Receive(ticket)
            | Event::Timeout(ticket) => !self.live.is_valid(*ticket),
            Event::Release(at) => self.release_at != Some(*at),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Route(ticket) => self.route(ticket),
            Event::Commit(ticket, choice) => self.commit(ticket, choice),
            Event::Receive(ticket) => self.receive(ticket),
            Event::Release(_) => self.look_at_queue(),
            Event::Timeout(ticket) => self.time_out(ticket.seat),
        }
    }
}
