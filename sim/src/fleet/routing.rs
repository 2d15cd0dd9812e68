//! The way of a request: from its client to the router, and from there to the engine of a replica.

use super::live::{Live, Remote, Seat, Stage, Ticket};
use super::scraping::Lookup;
use super::{Backend, Event, Fleet, PoolConfig};
use crate::event::Rank;
use crate::fleet::RunError;
use crate::kv::Pool;
use crate::request::{Cause, Failure, Label, Outcome, Refusal, Rejection, ReplicaId, Status};
use crate::router::{Admission, Choice, EndpointInfo, Release, View};
use crate::time::Span;

/// What a router is told of replica `number` of `pool`, which serves `model`.
pub(super) fn endpoint_info(
    pool: &PoolConfig,
    model: usize,
    replica: ReplicaId,
    number: u32,
) -> EndpointInfo {
    EndpointInfo {
        replica,
        name: format!("{}-{number}", pool.name),
        model: model as u32,
        labels: pool.labels.clone(),
        role: pool.role,
        block_tokens: pool.engine.block_size,
        num_gpu_blocks: pool.engine.num_gpu_blocks,
        max_loras: pool.engine.max_loras.unwrap_or(0),
        cost: pool.cost.clone(),
    }
}

impl<P: Pool> Fleet<'_, P> {
    /// A client sends its request.
    pub(super) fn arrive(&mut self) -> Result<(), RunError> {
        self.arrival_is_stale = true;
        let Some(request) = self.source.pop().map_err(RunError::Source)? else { return Ok(()) };
        self.observer.arrived(&request);
        let copy = self.config.split.as_ref().and_then(|split| split.copy_of(&request));
        let seat = self.live.insert(Live::new(Outcome::open(request), self.now));
        self.send(seat);
        if let Some(copy) = copy {
            let mut live = Live::new(Outcome::open(copy), self.now);
            live.is_copy = true;
            let seat = self.live.insert(live);
            self.mirrored.sent += 1;
            self.send(seat);
        }
        Ok(())
    }

    /// The request is on its way to the router.
    pub(super) fn send(&mut self, seat: Seat) {
        let ticket = self.live.ticket(seat);
        let live = self.live.get_mut(seat);
        if let Some(timeout) = self.config.client.timeout.filter(|_| !live.is_copy) {
            let patience = *live.patience.get_or_insert(self.now + timeout);
            self.events.push(patience, Rank::Tick, Event::Timeout(ticket));
        }
        let overhead = &self.config.overhead;
        // A router without a memory of its own decisions may as well decide at the end of its time.
        let way = if self.needs.feedback { overhead.gateway } else { overhead.gateway + overhead.picker };
        match way {
            Span::ZERO => self.route(ticket),
            way => self.events.push(self.now + way, Rank::Arrival, Event::Route(ticket)),
        }
    }

    /// The request reaches the router.
    pub(super) fn route(&mut self, ticket: Ticket) {
        let Some(model) = self.alternatives(ticket.seat) else {
            return self.end(ticket.seat, Status::Rejected(Rejection::NoSuchModel));
        };
        self.scrape();
        let live = self.live.get_mut(ticket.seat);
        match self.router.admit(self.now, &live.outcome.request, &self.models[model]) {
            Admission::Pass => self.place(ticket, model),
            Admission::Refuse(why) => self.end(ticket.seat, Status::Rejected(why)),
            Admission::Hold => {
                live.at_router = true;
                live.account.plain(self.now, &Default::default(), Cause::RouterQueue);
                self.held.insert(live.outcome.request.id, ticket.seat);
                self.drain_queue(model);
            }
        }
    }

    /// The router looks at its queue because it is time to.
    pub(super) fn look_at_queue(&mut self) {
        self.release_at = None;
        self.scrape();
        (0..self.models.len()).for_each(|model| self.drain_queue(model));
    }

    /// Places whatever the router releases from its queue now, and asks when to look again.
    fn drain_queue(&mut self, model: usize) {
        while let Some(release) = self.router.release(self.now, &self.models[model]) {
            let Some(seat) = self.held.remove(&release.request) else {
                self.take_back(release);
                continue;
            };
            self.live.get_mut(seat).account.plain(self.now, &Default::default(), Cause::Overhead);
            match release.refused {
                Some(why) => self.end(seat, Status::Rejected(why)),
                None => {
                    let ticket = self.live.current(seat);
                    self.place(ticket, model);
                }
            }
        }
        if let Some(at) = self.router.next_release(self.now)
            && self.release_at.is_none_or(|pending| at < pending)
        {
            self.release_at = Some(at);
            self.events.push(at, Rank::Tick, Event::Release(at));
        }
    }

    /// The router takes back what it has placed already.
    fn take_back(&mut self, release: Release) {
        if let Some(seat) = self.live.seat_of(release.request) {
            self.end(seat, Status::Failed(Failure::Evicted));
        }
    }

    /// The router chooses a replica.
    fn place(&mut self, ticket: Ticket, model: usize) {
        if self.faults.any && self.models[model].iter().all(|endpoint| !endpoint.ready) {
            return self.end(ticket.seat, Status::Rejected(Rejection::Router(Refusal::NoEndpoint)));
        }
        let live = self.live.get_mut(ticket.seat);
        let mut caches = Lookup {
            replicas: &mut self.replicas,
            shadow: &self.shadow,
            endpoints: &self.models[model],
            ranks: self.ranks.as_ref(),
            request: &live.outcome.request,
            chain: None,
            chunks: None,
            now: self.now,
            steps: &mut self.steps,
            observer: self.observer,
        };
        let mut view =
            View { endpoints: &self.models[model], adapters: &self.adapters[model], caches: &mut caches };
        let choice = match self.router.place(self.now, &live.outcome.request, &mut view) {
            Ok(choice) => choice,
            Err(why) => return self.end(ticket.seat, Status::Rejected(why)),
        };
        let replica = self.send_to(model, choice.endpoint);
        let live = self.live.get_mut(ticket.seat);
        live.outcome.replica = Some(replica);
        live.at_router = self.needs.feedback;
        // A replica that is chosen for both parts does both at once.
        if let Some(prefill) = choice.prefill.filter(|&prefill| prefill != choice.endpoint) {
            let replica = self.send_to(model, prefill);
            let live = self.live.get_mut(ticket.seat);
            live.remote = Some(Remote { replica, stage: Stage::Prefill });
            live.outcome.prefill_replica = Some(replica);
        }
        match self.config.overhead.picker {
            picker if self.needs.feedback && picker > Span::ZERO => {
                self.events.push(self.now + picker, Rank::Arrival, Event::Commit(ticket, choice));
            }
            _ => self.commit(ticket, choice),
        }
    }

    /// Counts a request that goes to an endpoint: the replica that gets it.
    fn send_to(&mut self, model: usize, endpoint: usize) -> ReplicaId {
        let endpoint = &mut self.models[model][endpoint];
        endpoint.in_flight += 1;
        let server = endpoint.replica;
        let replica = self.engine_for(server);
        self.replicas[replica.0 as usize].count_request(self.now);
        replica
    }

    /// The router's choice takes effect: the request goes to its replica.
    pub(super) fn commit(&mut self, ticket: Ticket, choice: Choice) {
        let request = &self.live.get_mut(ticket.seat).outcome.request;
        let serving = self.config.overhead.serving(request.prompt.tokens());
        if self.needs.feedback {
            self.router.committed(self.now, request, choice);
        }
        match serving {
            Span::ZERO => self.receive(ticket),
            serving => self.events.push(self.now + serving, Rank::Arrival, Event::Receive(ticket)),
        }
    }

    /// Who may serve a request: an index of `models`. What names no model, or one that is part of the split, goes where
    /// the split sends it.
    fn alternatives(&mut self, seat: Seat) -> Option<usize> {
        let config = self.config;
        let Live { outcome, is_copy, .. } = self.live.get_mut(seat);
        let (label, is_copy) = (outcome.request.model, *is_copy);
        let Some(split) = &config.split else { return self.model_of(label) };
        let chosen = match split.mirror.filter(|_| is_copy) {
            Some(mirror) => mirror.backend,
            None => split.choose(&outcome.request),
        };
        let chosen = self.group_of(&split.backends[chosen]);
        if is_copy || !label.is_some() {
            return Some(chosen);
        }
        let asked = self.model_of(label)?;
        let is_split = split.backends.iter().any(|backend| self.group_of(backend) == asked);
        Some(if is_split { chosen } else { asked })
    }

    /// The alternatives that are a backend's.
    fn group_of(&self, backend: &Backend) -> usize {
        self.model_of_pool[backend.pools[0]]
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
    pub(super) fn receive(&mut self, Ticket { seat, .. }: Ticket) {
        let live = self.live.get_mut(seat);
        let index = live.replica().expect("routed before it is received").0 as usize;
        self.catch_up(index, true);
        let replica = &mut self.replicas[index];
        let live = self.live.get_mut(seat);
        let config = replica.engine.config();
        let rejection = if live.outcome.request.prompt.tokens() >= config.max_model_len {
            Some(Rejection::TooLong)
        } else if config.max_num_queued_reqs.is_some_and(|max| replica.engine.num_waiting() >= max) {
            Some(Rejection::QueueFull)
        } else {
            None
        };
        if let Some(rejection) = rejection {
            return self.end(seat, Status::Rejected(rejection));
        }
        let max_model_len = config.max_model_len;
        let request = self.engine_request(seat, max_model_len);
        let replica = &mut self.replicas[index];
        let live = self.live.get_mut(seat);
        live.handle = Some(replica.engine.add(request));
        live.outcome.queued.get_or_insert(self.now);
        live.account.plain(self.now, &replica.clock, Cause::EngineQueueStep);
        replica.revisit.push(seat.engine_id());
        if replica.is_idle() {
            replica.wake = Some(self.now);
        }
        self.announce(index);
    }
}
