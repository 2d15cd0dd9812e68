//! The way of a request: from its client to the router, and from there to the engine of a replica.

use super::live::{Live, Seat, Ticket};
use super::{Event, Fleet, PoolConfig};
use crate::engine::EngineRequest;
use crate::event::Rank;
use crate::fleet::RunError;
use crate::kv::Pool;
use crate::observer::Observer;
use crate::request::{Cause, Label, Outcome, Rejection, Status};
use crate::time::Span;

impl<O: Observer, P: Pool> Fleet<'_, O, P> {
    /// A client sends its request.
    pub(super) fn arrive(&mut self) -> Result<(), RunError> {
        self.arrival_is_stale = true;
        let Some(request) = self.source.pop().map_err(RunError::Source)? else { return Ok(()) };
        self.observer.arrived(&request);
        let seat = self.live.insert(Live::new(Outcome::open(request), self.now));
        self.send(seat);
        Ok(())
    }

    /// The request is on its way to the router.
    pub(super) fn send(&mut self, seat: Seat) {
        let ticket = self.live.ticket(seat);
        if let Some(timeout) = self.config.client.timeout {
            self.events.push(self.now + timeout, Rank::Tick, Event::Timeout(ticket));
        }
        match self.config.overhead.routing {
            Span::ZERO => self.route(ticket),
            routing => self.events.push(self.now + routing, Rank::Arrival, Event::Route(ticket)),
        }
    }

    /// The router chooses a replica.
    pub(super) fn route(&mut self, ticket: Ticket) {
        let label = self.live.get_mut(ticket.seat).outcome.request.model;
        let Some(model) = self.model_of(label) else {
            return self.end(ticket.seat, Status::Rejected(Rejection::NoSuchModel));
        };
        let outcome = &mut self.live.get_mut(ticket.seat).outcome;
        let choice = self.router.route(self.now, &outcome.request, &self.models[model]);
        let endpoint = &mut self.models[model][choice];
        endpoint.in_flight += 1;
        outcome.replica = Some(endpoint.replica);
        self.replicas[endpoint.replica.0 as usize].count_request(self.now);
        match self.config.overhead.serving(outcome.request.prompt.tokens()) {
            Span::ZERO => self.receive(ticket),
            serving => self.events.push(self.now + serving, Rank::Arrival, Event::Receive(ticket)),
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
    pub(super) fn receive(&mut self, Ticket { seat, .. }: Ticket) {
        let live = self.live.get_mut(seat);
        let index = live.outcome.replica.expect("routed before it is received").0 as usize;
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
        let request = EngineRequest::new(seat.engine_id(), &live.outcome.request, config.max_model_len);
        live.handle = Some(replica.engine.add(request));
        live.outcome.queued = Some(self.now);
        live.account.plain(self.now, &replica.clock, Cause::EngineQueueStep);
        replica.revisit.push(seat.engine_id());
        if replica.is_idle() {
            replica.wake = Some(self.now);
        }
        self.announce(index);
    }
}
