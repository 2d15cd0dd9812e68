//! Requests whose KV moves: prompts computed on another replica, pulls, loads and stores.
//!
//! A disaggregated request goes the way of llm-d's sidecar (pkg/sidecar/proxy/connector_nixlv2.go), step after step:
//! its prefill replica computes the prompt and one token that nobody sees; the answer goes back through the sidecar
//! to the decode replica, which was chosen first; that one pulls the blocks that it lacks, computes the last token of
//! the prompt again, and answers.

use super::Fleet;
use super::live::{Remote, Seat, Stage, Ticket};
use super::moves::{OfferId, Over, Pulling};
use crate::engine::connector::{JobId, RemoteKv};
use crate::engine::{Batch, EngineRequest, Token};
use crate::event::Rank;
use crate::fleet::config::FailedPull;
use crate::kv::Pool;
use crate::request::{Cause, Failure, ReplicaId, Status};

impl<P: Pool> Fleet<'_, P> {
    /// What its next engine is asked to do for a request.
    pub(super) fn engine_request(&mut self, seat: Seat, max_model_len: u32) -> EngineRequest {
        let live = self.live.get_mut(seat);
        let mut request = EngineRequest::new(seat.engine_id(), &live.outcome.request, max_model_len);
        match live.remote {
            Some(Remote { stage: Stage::Prefill, .. }) => {
                request.remote = Some(RemoteKv::Offer);
                (request.output_tokens, request.max_tokens) = (1, 1);
            }
            Some(Remote { stage: Stage::Offered(offer), .. }) => {
                request.remote = Some(RemoteKv::Pull);
                self.moves.keep_alive(offer);
            }
            _ => {}
        }
        request
    }

    /// Tokens that no client sees: those of prefill replicas.
    pub(super) fn unseen(&mut self, tokens: &[Token]) -> u32 {
        if !self.moves.is_disaggregated() {
            return 0;
        }
        let unseen =
            tokens.iter().filter(|token| self.live.get_mut(Seat::from(token.id)).is_prefilled_elsewhere());
        unseen.count() as u32
    }

    /// A prefill replica has computed the prompt of a request: it goes on to the one that decodes.
    pub(super) fn prompt_computed(&mut self, index: usize, seat: Seat) {
        let ticket = self.live.current(seat);
        let live = self.live.get_mut(seat);
        let handle = live.handle.take().expect("it was in its engine");
        let offer = self.moves.offer(self.now, index, handle);
        live.remote = Some(Remote { replica: ReplicaId(index as u32), stage: Stage::Offered(offer) });
        live.account.plain(self.now, &self.replicas[index].clock, Cause::Overhead);
        let overhead = self.config.overhead.serving(live.outcome.request.prompt.tokens());
        let way = self.config.disaggregation.sidecar + overhead;
        // Even without any cost it arrives after all steps of this instant.
        self.events.push(self.now + way, Rank::Arrival, super::Event::Receive(ticket));
        self.leave(index);
    }

    /// Starts what the batch just formed by replica `index` moves now.
    pub(super) fn start_transfers(&mut self, index: usize, batch: &Batch) {
        let now = self.now;
        for pull in &batch.transfers.pulls {
            let seat = Seat::from(pull.id);
            let ticket = self.live.current(seat);
            let live = self.live.get_mut(seat);
            live.account.plain(now, &self.replicas[index].clock, Cause::Transfer);
            let handle = live.handle.expect("it is in its engine");
            let remote = live.remote.as_mut().expect("only a request with a prefill elsewhere pulls");
            if let Stage::Offered(offer) = std::mem::replace(&mut remote.stage, Stage::Pulled) {
                self.moves.pull(now, (ticket, index, handle), offer, pull.blocks);
            }
        }
        for load in &batch.transfers.loads {
            let seat = Seat::from(load.id);
            let ticket = self.live.current(seat);
            let live = self.live.get_mut(seat);
            live.account.plain(now, &self.replicas[index].clock, Cause::Transfer);
            if live.outcome.scheduled.is_none() {
                let found = batch.transfers.lookups.iter().rev().find(|lookup| lookup.id == load.id);
                let loaded = found.and_then(|lookup| lookup.host_tokens).unwrap_or(0);
                live.outcome.cached_cpu_tokens = loaded.saturating_sub(load.promoted.total());
                live.outcome.cached_disk_tokens = load.promoted.disk;
                live.outcome.cached_shared_tokens = load.promoted.shared;
            }
            self.moves.copy(now, index, load, Some(ticket));
        }
        for promotion in &batch.transfers.promotions {
            let seat = Seat::from(promotion.id);
            let ticket = self.live.current(seat);
            self.live.get_mut(seat).account.plain(now, &self.replicas[index].clock, Cause::Transfer);
            self.moves.promote(now, index, promotion, ticket);
        }
        if batch.is_empty() {
            // No step computes anything: there is nothing to wait for.
            for store in &batch.transfers.stores {
                self.moves.copy(now, index, store, None);
            }
        }
    }

    /// Starts copies to host memory whose blocks the next step overwrites; it waits for them.
    pub(super) fn start_flushed(&mut self, index: usize) {
        for store in self.replicas[index].take_flushed_stores() {
            self.moves.copy(self.now, index, &store, None);
        }
    }

    /// A step has ended: what it computed may be copied to host memory.
    pub(super) fn start_stores(&mut self, index: usize, batch: &Batch) {
        for store in &batch.transfers.stores {
            self.moves.copy(self.now, index, store, None);
        }
    }

    /// Something under way is over, or changes.
    pub(super) fn end_transfers(&mut self) {
        let mut over = Vec::new();
        self.moves.take(self.now, &mut over);
        for what in over {
            match what {
                Over::Pull(pull) => self.pulled(pull),
                Over::NoPull(pull) => self.pull_failed(pull),
                Over::Copy { replica, job, request } => self.copied(replica, job, request),
                Over::Lease(offer) => {
                    if let Some(offer) = self.moves.expire(self.now, offer) {
                        self.sent(offer.replica, offer.handle);
                    }
                }
            }
        }
    }

    /// KV has arrived where it is decoded; the blocks that it came from are free.
    fn pulled(&mut self, pull: Pulling) {
        self.release_offer(pull.offer);
        self.catch_up(pull.replica, true);
        self.replicas[pull.replica].engine.kv_recv_done(pull.handle);
        self.landed(pull.replica, Some(pull.ticket));
    }

    /// A copy between GPU and host memory is over.
    fn copied(&mut self, index: usize, job: JobId, request: Option<Ticket>) {
        self.catch_up(index, true);
        self.replicas[index].engine.job_done(job);
        if self.replicas[index].flushed(job) {
            self.start(index);
        }
        self.landed(index, request);
    }

    /// KV has arrived at replica `index`: the request may be admitted.
    fn landed(&mut self, index: usize, request: Option<Ticket>) {
        if let Some(ticket) = request.filter(|&ticket| self.live.is_valid(ticket)) {
            let Self { live, replicas, now, .. } = self;
            live.get_mut(ticket.seat).account.plain(*now, &replicas[index].clock, Cause::EngineQueueStep);
            replicas[index].revisit.push(ticket.seat.engine_id());
        }
        self.stir(index);
    }

    /// Frees the blocks of an offer, unless that has happened.
    pub(super) fn release_offer(&mut self, offer: OfferId) {
        if let Some(offer) = self.moves.withdraw_offer(offer) {
            self.sent(offer.replica, offer.handle);
        }
    }

    fn sent(&mut self, index: usize, handle: crate::engine::Handle) {
        self.catch_up(index, true);
        self.replicas[index].engine.kv_send_done(handle);
        self.stir(index);
    }

    /// Something has changed in a replica's engine that the scheduler does not know of yet.
    pub(super) fn stir(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        replica.note_blocks(self.now);
        replica.stirred = true;
        if replica.is_idle() && (replica.engine.has_requests() || replica.engine.has_offers()) {
            replica.wake = Some(self.now);
        }
        self.announce(index);
    }

    /// A pull finds nothing to read: its source's lease has ended.
    fn pull_failed(&mut self, Pulling { ticket, replica: index, handle, .. }: Pulling) {
        self.catch_up(index, true);
        let waits = self.live.is_valid(ticket);
        if waits {
            self.dissolve(index);
            self.replicas[index].engine.abort(handle);
        }
        self.replicas[index].engine.kv_recv_done(handle);
        if waits {
            self.after_failed_pull(index, ticket.seat);
        }
        self.stir(index);
    }

    fn after_failed_pull(&mut self, index: usize, seat: Seat) {
        self.live.get_mut(seat).handle = None;
        match self.config.disaggregation.failed_pull {
            FailedPull::Fail => self.end(seat, Status::Failed(Failure::Transfer)),
            FailedPull::Recompute => {
                let max_model_len = self.replicas[index].engine.config().max_model_len;
                let request = self.engine_request(seat, max_model_len);
                let replica = &mut self.replicas[index];
                let live = self.live.get_mut(seat);
                live.handle = Some(replica.engine.add(request));
                live.account.plain(self.now, &replica.clock, Cause::EngineQueueStep);
                replica.revisit.push(seat.engine_id());
            }
        }
    }
}
