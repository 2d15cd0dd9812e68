//! Pulls between engines: who pulls how much, who holds blocks meanwhile, and what happens when KV has arrived.

use super::{Connector, ConnectorConfig, JobId, Lookup, Progress, Pull, RemoteKv};
use crate::engine::{Batch, Engine, Entry, Handle, Slot, State};
use crate::kv::Pool;
use crate::kv::manager::{Demand, KvManager};
use crate::request::RequestId;

/// What lies outside the GPU for a request that is about to be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum External {
    /// Nothing.
    Nothing,
    /// So many tokens after those that are cached here, in the engine that computed its prompt.
    Remote(u32),
    /// So many tokens after those that are cached here, in host memory.
    Host(u32),
    /// Not known yet: to be asked again in the next step.
    Unknown,
}

impl<P: Pool> Engine<P> {
    /// This engine with a connection to the world outside its GPU.
    #[must_use]
    pub fn connected(mut self, config: &ConnectorConfig) -> Self {
        self.connector = Some(Connector::new(config, self.config.block_size));
        self
    }

    /// Whether it has such a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connector.is_some()
    }

    /// Requests that hold blocks and do not run: their KV is arriving or has arrived. In queue order.
    pub fn holding(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.holding.iter().map(|slot| self.requests[slot as usize].request.id)
    }

    /// The KV that a request waited for has arrived; the next [`schedule`](Self::schedule) may admit it.
    ///
    /// # Panics
    /// When the request waits for none.
    pub fn kv_recv_done(&mut self, handle: Handle) {
        let entry = &mut self.requests[handle.0 as usize];
        match entry.state {
            State::Loading => entry.state = State::Loaded,
            State::Draining => self.vacate(handle.0),
            state => panic!("request {:?} receives nothing: {state:?}", entry.request.id),
        }
    }

    /// The blocks of a finished request were read by the engine that decodes it, or their lease ended: they are free.
    ///
    /// # Panics
    /// When the request offers none.
    pub fn kv_send_done(&mut self, handle: Handle) {
        assert_eq!(
            self.requests[handle.0 as usize].state,
            State::Sending,
            "a request that offers its blocks"
        );
        self.vacate(handle.0);
    }

    /// Frees the blocks of a request that has ended, and its slot when no batch mentions it.
    pub(in crate::engine) fn vacate(&mut self, slot: Slot) {
        let entry = &mut self.requests[slot as usize];
        entry.state = State::Gone;
        self.kv.release(&mut entry.holding);
        if entry.inflight == 0 {
            self.requests.remove(slot as usize);
        }
    }

    /// How a request ends here that has just finished: its blocks may be wanted by another engine.
    pub(in crate::engine) fn state_after_finish(&self, slot: Slot) -> State {
        let offers = self.requests[slot as usize].request.remote == Some(RemoteKv::Offer);
        if offers && self.connector.is_some() { State::Sending } else { State::Gone }
    }

    /// KV that lies outside the GPU for `slot`, of whose tokens the first `local_tokens` are cached here.
    pub(in crate::engine) fn external(
        &mut self,
        slot: Slot,
        local_tokens: u32,
        batch: &mut Batch,
    ) -> External {
        let Some(connector) = &mut self.connector else { return External::Nothing };
        let entry = &self.requests[slot as usize];
        if entry.request.remote == Some(RemoteKv::Pull) && connector.role.is_some() {
            return External::Remote(entry.request.prompt.tokens() - local_tokens);
        }
        let Some(offload) = &mut connector.offload else { return External::Nothing };
        let found = offload.look_up(slot, &entry.request, entry.known(), local_tokens);
        let host_tokens = match found {
            External::Host(tokens) => Some(tokens),
            External::Unknown => None,
            External::Nothing | External::Remote(_) => Some(0),
        };
        batch.transfers.lookups.push(Lookup { id: entry.request.id, gpu_tokens: local_tokens, host_tokens });
        found
    }

    /// Gives `slot`, the head of the waiting queue, blocks for the KV that lies outside, `tokens` tokens after the
    /// `local_tokens` cached ones, in another engine if it `is_remote`; it holds them until the KV is there. Whether
    /// there were blocks.
    ///
    /// Blocks that earlier requests still need are left to them.
    pub(in crate::engine) fn start_load(
        &mut self,
        slot: Slot,
        local_tokens: u32,
        tokens: u32,
        is_remote: bool,
        spare_blocks: u32,
        batch: &mut Batch,
    ) -> bool {
        let reserved = self.reserved_blocks();
        let entry = &mut self.requests[slot as usize];
        let demand = Demand {
            computed: 0,
            new: 0,
            known: entry.known(),
            lookahead: 0,
            full_sequence: self.config.reserve_full_isl,
            spare_blocks,
        };
        if !self.kv.allocate_for_load(&mut entry.holding, &demand, tokens, reserved) {
            return false;
        }
        let held = self.kv.pool().held(entry.holding.chain());
        let blocks = held - local_tokens / self.config.block_size;
        self.pop_head(slot);
        let entry = &mut self.requests[slot as usize];
        entry.state = State::Loading;
        entry.holds = true;
        entry.computed = local_tokens + tokens;
        self.skipped_holding.push(slot);
        let connector = self.connector.as_mut().expect("only a connector loads");
        connector.note_incomplete(slot);
        let id = entry.request.id;
        if is_remote {
            // There is one pull per request: should it be preempted later, its prompt is computed here.
            entry.request.remote = None;
            batch.transfers.pulls.push(Pull { id, local_tokens, tokens, blocks });
        } else {
            let offload = connector.offload.as_mut().expect("what is not pulled lies in host memory");
            batch.transfers.loads.push(offload.start_load(slot, local_tokens, tokens));
        }
        true
    }

    /// Blocks that requests which hold some still need for all that they know.
    fn reserved_blocks(&self) -> u32 {
        let connector = self.connector.as_ref().expect("only a connector loads");
        let missing = |&slot: &Slot| {
            let entry = &self.requests[slot as usize];
            let whole = entry.known().min(self.config.max_model_len).div_ceil(self.config.block_size);
            whole.saturating_sub(self.kv.pool().held(entry.holding.chain()))
        };
        connector.incomplete.iter().map(missing).sum()
    }

    /// The KV of `slot` has arrived: its full blocks can be found from now on, and it waits for admission. Of a
    /// fully loaded request one token is computed again, to have logits.
    pub(in crate::engine) fn land(&mut self, slot: Slot) {
        self.expose_answers(slot);
        let entry = &mut self.requests[slot as usize];
        let known = entry.known();
        self.kv.register(&mut entry.holding, entry.computed, known);
        entry.computed = entry.computed.min(known - 1);
        entry.state = if entry.preemptions > 0 { State::Preempted } else { State::Waiting };
    }

    /// A copy between GPU and host memory is over; a load's request may be admitted by the next
    /// [`schedule`](Self::schedule).
    ///
    /// # Panics
    /// When no such copy is under way.
    pub fn job_done(&mut self, job: JobId) {
        let connector = self.connector.as_mut().expect("an engine with a connector");
        connector.unsettled = true;
        let offload = connector.offload.as_mut().expect("an engine with host memory");
        let (landed, gone) = offload.job_done(job);
        if let Some(slot) = landed {
            self.kv_recv_done(Handle(slot));
        }
        if let Some(request) = gone {
            self.kv.unwatch(request);
        }
    }

    /// Whether the next [`schedule`](Self::schedule) has something to do even if no request is there: what a request
    /// left behind at its end is offered to host memory.
    #[must_use]
    pub fn has_offers(&self) -> bool {
        self.connector.as_ref().is_some_and(Connector::has_ended)
    }

    /// Before a request that ends loses its blocks: those that are being copied, or may be, are watched.
    pub(in crate::engine) fn note_end(&mut self, slot: Slot) {
        let Some(connector) = &mut self.connector else { return };
        connector.note_complete(slot);
        let Some(offload) = &mut connector.offload else { return };
        let entry = &self.requests[slot as usize];
        let progress = progress(&self.kv, entry);
        if let Some((watcher, from, to)) = offload.end(slot, &entry.request, progress) {
            self.kv.watch(&entry.holding, watcher, from, to);
        }
    }

    /// What the step just formed means for host memory: chunks that it fills are offered, and copies whose source it
    /// overwrites must be over first.
    pub(in crate::engine) fn plan_transfers(&mut self, batch: &mut Batch) {
        self.note_completed(batch);
        let offload = self.connector.as_mut().and_then(|connector| connector.offload.as_mut());
        let Some(offload) = offload else { return };
        let transfers = &mut batch.transfers;
        for touch in self.kv.touched() {
            offload.touch(touch);
        }
        for part in &batch.scheduled {
            let entry = &self.requests[part.slot as usize];
            let progress = progress(&self.kv, entry);
            transfers.stores.extend(offload.offer_filled(part.slot, &entry.request, progress));
        }
        let ended = offload.has_ended();
        let mut gone = Vec::new();
        offload.settle_ended(&mut transfers.stores, &mut gone);
        offload.take_effects(transfers);
        gone.into_iter().for_each(|request| self.kv.unwatch(request));
        if let Some(connector) = &mut self.connector {
            connector.unsettled |= ended || !transfers.stores.is_empty();
        }
    }

    /// Who computes its last known token in `batch` has all its blocks.
    fn note_completed(&mut self, batch: &Batch) {
        let Some(connector) = &mut self.connector else { return };
        for part in &batch.scheduled {
            if part.samples {
                connector.note_complete(part.slot);
            }
        }
    }
}

fn progress<P: Pool>(kv: &KvManager<P>, entry: &Entry<P>) -> Progress {
    Progress {
        computed: entry.computed,
        known: entry.known(),
        blocks_held: kv.pool().held(entry.holding.chain()),
    }
}
