//! KV blocks that come from elsewhere or go elsewhere: the scheduler's side of vLLM's KV connectors
//! (vllm/v1/core/sched/scheduler.py, vllm/distributed/kv_transfer/kv_connector/v1, 0.32).
//!
//! A request whose prefix lies in another engine or in host memory gets its blocks when its turn comes, leaves the
//! waiting queue, and holds them while the KV arrives (vLLM's `WAITING_FOR_REMOTE_KVS`, queue `kv_holding`). Once
//! it is there, the request is admitted before those that wait.
//!
//! The engine knows order and blocks, not time. A [`Batch`](super::Batch) says which transfers start with it; whoever
//! drives the engine gives them their time and reports their ends: [`kv_recv_done`](super::Engine::kv_recv_done),
//! [`kv_send_done`](super::Engine::kv_send_done), [`job_done`](super::Engine::job_done).
//!
//! | rule | file |
//! |---|---|
//! | who holds blocks while KV is loaded, and for how long; pulls between engines | `remote` |
//! | what is copied to host memory and back, and when | `offload` |
//! | what host memory holds, and what it evicts | `memory` |
//! | what tiers below host memory give back | `below` |

pub mod below;
mod memory;
mod offload;
mod remote;

use super::{EngineRequest, Slot};
use crate::request::RequestId;
use below::Promotion;
pub use memory::Eviction;
use offload::Offload;
pub(super) use offload::Progress;
pub use offload::{Copy, JobId, Lookup, OffloadConfig};
pub(super) use remote::External;

/// What an engine exchanges with the world outside its GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectorConfig {
    /// Its role in disaggregated serving; `None` when it takes no part.
    pub role: Option<KvRole>,
    /// Host memory as a tier below the GPU.
    pub offload: Option<OffloadConfig>,
}

/// An engine's role in disaggregated serving: vLLM's `kv_role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvRole {
    /// Computes KV for others.
    Producer,
    /// Pulls KV that others computed.
    Consumer,
    /// Either, request by request: llm-d's setting for every engine.
    Both,
}

/// What a request's `kv_transfer_params` ask of its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteKv {
    /// `do_remote_decode`: another engine will pull its prompt's blocks; they are held after its end until then.
    Offer,
    /// `do_remote_prefill`: another engine computed its prompt; what is not cached here is pulled from there.
    Pull,
}

/// KV that a request pulls from the engine that computed its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Which request.
    pub id: RequestId,
    /// Tokens of its prompt that are cached here and need no transfer.
    pub local_tokens: u32,
    /// Tokens to transfer: the rest of the prompt.
    pub tokens: u32,
    /// Blocks that hold them.
    pub blocks: u32,
}

/// Transfers that start with a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// From other engines, in order of admission to the holding queue.
    pub pulls: Vec<Pull>,
    /// What requests that asked for admission found in host memory.
    pub lookups: Vec<Lookup>,
    /// From host memory, in order of admission to the holding queue.
    pub loads: Vec<Copy>,
    /// From tiers below host memory, to it.
    pub promotions: Vec<Promotion>,
    /// To host memory. They may start when this step has ended.
    pub stores: Vec<Copy>,
    /// Copies to host memory that must be over before this step starts: it overwrites their source.
    pub flush: Vec<JobId>,
    /// Places in host memory whose chunk was evicted for these stores.
    pub evicted: Vec<u32>,
}

impl Transfers {
    pub(super) fn clear(&mut self) {
        self.pulls.clear();
        self.lookups.clear();
        self.loads.clear();
        self.promotions.clear();
        self.stores.clear();
        self.flush.clear();
        self.evicted.clear();
    }
}

/// An engine's connection.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    role: Option<KvRole>,
    /// Requests that hold blocks for a part of their known tokens only: prefills in chunks, and loads. A load may not
    /// take the blocks that these still need.
    incomplete: Vec<Slot>,
    /// Whether something has changed since the last step began to be formed: who was not admitted then may be next time.
    pub(super) unsettled: bool,
    pub(super) offload: Option<Offload>,
}

impl Connector {
    pub(super) fn new(config: &ConnectorConfig, block_tokens: u32) -> Self {
        let offload = config.offload.clone().map(|offload| Offload::new(offload, block_tokens));
        Self { role: config.role, incomplete: Vec::new(), unsettled: false, offload }
    }

    /// Whether outputs of a preempted request that are still in flight are dropped: a producer must not send KV of a
    /// request that it computes again.
    pub(super) fn drops_stale_outputs(&self) -> bool {
        matches!(self.role, Some(KvRole::Producer | KvRole::Both))
    }

    /// `slot` holds blocks, though not yet for all that it knows.
    pub(super) fn note_incomplete(&mut self, slot: Slot) {
        if !self.incomplete.contains(&slot) {
            self.incomplete.push(slot);
            self.unsettled = true;
        }
    }

    /// `slot` has all its blocks, or none any more.
    pub(super) fn note_complete(&mut self, slot: Slot) {
        if let Some(at) = self.incomplete.iter().position(|&other| other == slot) {
            self.incomplete.swap_remove(at);
            self.unsettled = true;
        }
    }

    /// Whether a request that lacked blocks when the last step was formed may be admitted by the next one although
    /// free blocks only become fewer.
    ///
    /// As its hits on the GPU are evicted, it may load what it meant to compute, or the reverse. Both need room for the
    /// whole prompt if that is asked for; a load also leaves what others still need. What lies below host memory
    /// changes whatever this engine does.
    pub(super) fn may_admit_next(&self, reserve_full_isl: bool) -> bool {
        let Some(offload) = &self.offload else { return self.unsettled };
        self.unsettled || offload.has_below() || !reserve_full_isl || !self.incomplete.is_empty()
    }

    /// Whether the next step has something to do here, whatever it computes.
    pub(super) fn has_ended(&self) -> bool {
        self.offload.as_ref().is_some_and(Offload::has_ended)
    }

    /// Whether a request that decodes may still have something to offer to host memory.
    pub(super) fn may_offer(&self, slot: Slot, request: &EngineRequest) -> bool {
        self.offload.as_ref().is_some_and(|offload| offload.may_offer(slot, request))
    }

    pub(super) fn assert_consistent(&self) {
        if let Some(offload) = &self.offload {
            offload.assert_consistent();
        }
    }
}
