//! Requests in flight, between their client and their end.

use slab::Slab;

use super::moves::OfferId;
use crate::engine::Handle;
use crate::ledger::{Account, ReplicaClock};
use crate::request::{Cause, Outcome, ReplicaId, RequestId};
use crate::time::Time;

/// Where a request is kept while it is in flight. Engines know requests by their seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat(u32);

impl Seat {
    /// The number that an engine has for the request.
    pub(super) fn engine_id(self) -> RequestId {
        RequestId(u64::from(self.0))
    }
}

impl From<RequestId> for Seat {
    /// The seat of the request that an engine knows by this number.
    fn from(engine_id: RequestId) -> Self {
        Self(engine_id.0 as u32)
    }
}

/// What events of a request carry: void once it, or the attempt that they belong to, is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) seat: Seat,
    /// Number of the attempt, over all requests.
    attempt: u64,
}

/// The part of a request that another replica than the one that answers has in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    /// Who computes its prompt.
    pub(super) replica: ReplicaId,
    pub(super) stage: Stage,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its prompt is on its way to the prefill replica, or is computed there.
    Prefill,
    /// Its prompt is computed, and its blocks can be pulled.
    Offered(OfferId),
    /// Its pull has started, or has failed.
    Pulled,
}

/// A request in flight.
pub(super) struct Live {
    /// What is known of its outcome so far.
    pub(super) outcome: Outcome,
    pub(super) account: Account,
    pub(super) handle: Option<Handle>,
    pub(super) last_token: Time,
    /// Whether the router waits to hear of its end.
    pub(super) at_router: bool,
    /// What another replica computes for it.
    pub(super) remote: Option<Remote>,
    /// When its client gives up waiting, if it does.
    pub(super) patience: Option<Time>,
    /// Whether it is a copy that no client waits for.
    pub(super) is_copy: bool,
    attempt: u64,
}

impl Live {
    /// A request that its client sends at `now`; `outcome` says what it asks.
    pub(super) fn new(outcome: Outcome, now: Time) -> Self {
        Self {
            outcome,
            account: Account::open(now),
            handle: None,
            last_token: now,
            at_router: false,
            remote: None,
            patience: None,
            is_copy: false,
            attempt: 0,
        }
    }

    /// The replica that has it now, or will have it next.
    pub(super) fn replica(&self) -> Option<ReplicaId> {
        match self.remote {
            Some(Remote { replica, stage: Stage::Prefill }) => Some(replica),
            _ => self.outcome.replica,
        }
    }

    /// Whether it is on its way to a prefill replica, or there.
    pub(super) fn is_prefilled_elsewhere(&self) -> bool {
        matches!(self.remote, Some(Remote { stage: Stage::Prefill, .. }))
    }

    /// It is about to be sent again: nothing is left of this attempt but its time.
    pub(super) fn start_again(&mut self, now: Time, clock: &ReplicaClock) {
        self.account.plain(now, clock, Cause::Overhead);
        let outcome = &mut self.outcome;
        (outcome.replica, outcome.prefill_replica) = (None, None);
        (outcome.queued, outcome.scheduled, outcome.first_token) = (None, None, None);
        (outcome.emitted, outcome.cached_tokens, outcome.duplicate_tokens) = (0, 0, 0);
        outcome.limit_loaded(0);
        self.remote = None;
    }

    /// Leading tokens of its prompt that another request may have had, or it itself elsewhere.
    pub(super) fn shareable_tokens(&self) -> u32 {
        let Outcome { request, retries, restarts, .. } = &self.outcome;
        let first_turn = request.session.as_ref().is_none_or(|session| session.turn == 1);
        if first_turn && *retries == 0 {
            let shared = request.prompt.segments().iter().take_while(|part| !part.content.is_private());
            let shared = shared.map(|part| part.tokens).sum();
            if *restarts == 0 || shared == 0 {
                return shared;
            }
        }
        request.prompt.tokens()
    }
}

/// The requests in flight: they stay where they are put.
#[derive(Default)]
pub(super) struct LiveSet {
    seats: Slab<Live>,
    attempts: u64,
}

impl LiveSet {
    pub(super) fn insert(&mut self, live: Live) -> Seat {
        Seat(self.seats.insert(live) as u32)
    }

    /// A ticket for a new attempt: earlier ones are void.
    pub(super) fn ticket(&mut self, seat: Seat) -> Ticket {
        self.attempts += 1;
        let attempt = self.attempts;
        self.get_mut(seat).attempt = attempt;
        Ticket { seat, attempt }
    }

    /// The ticket of the current attempt.
    pub(super) fn current(&mut self, seat: Seat) -> Ticket {
        Ticket { seat, attempt: self.get_mut(seat).attempt }
    }

    pub(super) fn is_valid(&self, ticket: Ticket) -> bool {
        self.seats.get(ticket.seat.0 as usize).is_some_and(|live| live.attempt == ticket.attempt)
    }

    pub(super) fn get_mut(&mut self, seat: Seat) -> &mut Live {
        &mut self.seats[seat.0 as usize]
    }

    /// The request that a replica's list mentions, unless it is over.
    pub(super) fn find_mut(&mut self, seat: Seat) -> Option<&mut Live> {
        self.seats.get_mut(seat.0 as usize)
    }

    pub(super) fn remove(&mut self, seat: Seat) {
        self.seats.remove(seat.0 as usize);
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Any of them.
    pub(super) fn any(&self) -> Option<&Live> {
        self.seats.iter().next().map(|(_, live)| live)
    }

    /// The seat of a request. Looks at all of them: for what is rare.
    pub(super) fn seat_of(&self, request: RequestId) -> Option<Seat> {
        let mut seats = self.seats.iter();
        seats.find_map(|(seat, live)| (live.outcome.request.id == request).then_some(Seat(seat as u32)))
    }

    /// The seats of all, in order of the requests' numbers.
    pub(super) fn seats(&self) -> Vec<Seat> {
        let mut seats: Vec<_> =
            self.seats.iter().map(|(seat, live)| (live.outcome.request.id, Seat(seat as u32))).collect();
        seats.sort_unstable_by_key(|&(id, _)| id);
        seats.into_iter().map(|(_, seat)| seat).collect()
    }
}
