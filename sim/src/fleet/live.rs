//! Requests in flight, between their client and their end.

use rustc_hash::FxHashMap;
use slab::Slab;

use crate::engine::Handle;
use crate::ledger::Account;
use crate::request::{ReplicaId, Request, RequestId};
use crate::time::Time;

/// How often a request was sent before: events of an earlier attempt are void.
pub(super) type Attempt = u32;

/// A request in flight.
pub(super) struct Live {
    pub(super) request: Request,
    pub(super) attempt: Attempt,
    pub(super) account: Account,
    pub(super) replica: Option<ReplicaId>,
    pub(super) handle: Option<Handle>,
    pub(super) queued: Option<Time>,
    pub(super) scheduled: Option<Time>,
    pub(super) first_token: Option<Time>,
    pub(super) last_token: Time,
    pub(super) emitted: u32,
    pub(super) cached_tokens: u32,
    pub(super) duplicate_tokens: u32,
    pub(super) preemptions: u32,
}

impl Live {
    /// Whether no other request can ever have had a prefix in common with this one.
    pub(super) fn is_first_of_its_kind(&self) -> bool {
        let private = self.request.prompt.segments().first().is_some_and(|first| first.content.is_private());
        private && self.attempt == 0 && self.request.session.as_ref().is_none_or(|session| session.turn == 1)
    }
}

/// The requests in flight: the requests themselves stay where they are put.
#[derive(Default)]
pub(super) struct LiveSet {
    slots: Slab<Live>,
    index: FxHashMap<RequestId, u32>,
}

impl LiveSet {
    pub(super) fn insert(&mut self, id: RequestId, live: Live) {
        let slot = self.slots.insert(live) as u32;
        self.index.insert(id, slot);
    }

    pub(super) fn get(&self, id: &RequestId) -> Option<&Live> {
        self.index.get(id).map(|&slot| &self.slots[slot as usize])
    }

    pub(super) fn get_mut(&mut self, id: &RequestId) -> Option<&mut Live> {
        self.index.get(id).map(|&slot| &mut self.slots[slot as usize])
    }

    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Live> {
        self.index.remove(id).map(|slot| self.slots.remove(slot as usize))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Any of them.
    pub(super) fn any(&self) -> Option<&Live> {
        self.slots.iter().next().map(|(_, live)| live)
    }

    /// The ids of all, in no particular order.
    pub(super) fn ids(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.slots.iter().map(|(_, live)| live.request.id)
    }
}
