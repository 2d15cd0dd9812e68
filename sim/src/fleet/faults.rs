//! Replicas that die and come back, updates that replace them, links that slow down.
//!
//! A replica that dies loses its engine, the KV on its GPUs and in its host memory, and what the router believed of its
//! caches; a disk of its own and what replicas share outlive it. The requests that it had are sent again or fail. It
//! serves again when it has started anew, with nothing cached.

use super::Fleet;
use super::live::{Remote, Seat, Stage};
use crate::event::{EventQueue, Rank};
use crate::fleet::config::{Faults, Lost};
use crate::kv::Pool;
use crate::request::{Failure, ReplicaId, Status};
use crate::rng::Stream;
use crate::time::{Span, Time};

/// What happens to a fleet by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// A replica gets no new requests from now on; it dies so much later, and is back so much later again.
    Drains { replica: usize, dies_in: Span, back_in: Span },
    /// A replica dies, and is back so much later.
    Dies { replica: usize, back_in: Span },
    /// A replica that has no date to die does so by chance.
    Fails { replica: usize },
    /// A replica has started anew.
    Back { replica: usize },
    /// The links of a replica carry this share of what they do when they are whole.
    Link { replica: usize, share: f64 },
}

/// The faults to come, and what they have done.
#[derive(Debug)]
pub(super) struct FaultState {
    /// Whether any ever comes.
    pub(super) any: bool,
    due: EventQueue<Due>,
    /// By replica.
    down: Vec<bool>,
    /// By replica: mean time between failures, and how long a restart takes.
    by_chance: Vec<Option<(Span, Span)>>,
    stream: Stream,
    /// Replicas that died so far.
    pub(super) deaths: u64,
}

impl FaultState {
    pub(super) fn new(faults: &Faults, pool_of: &[usize]) -> Self {
        let by_chance = |&pool: &usize| faults.by_chance.get(pool).copied().flatten();
        let mut state = Self {
            any: !faults.planned.is_empty() || faults.by_chance.iter().any(Option::is_some),
            due: EventQueue::default(),
            down: vec![false; pool_of.len()],
            by_chance: pool_of.iter().map(by_chance).collect(),
            stream: Stream::new(faults.seed, "faults"),
            deaths: 0,
        };
        for &(at, due) in &faults.planned {
            state.due.push(at, Rank::Arrival, due.into());
        }
        for replica in 0..pool_of.len() {
            state.draw(Time::ZERO, replica);
        }
        state
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Time> {
        self.due.peek().map(|(at, _)| at)
    }

    /// Draws when a replica fails next, if it does so by chance.
    fn draw(&mut self, now: Time, replica: usize) {
        if let Some((mean, _)) = self.by_chance[replica] {
            let seconds = mean.as_secs_f64() * self.stream.exponential();
            let span = Span::from_secs_f64(seconds).unwrap_or(crate::time::SPAN_MAX);
            self.due.push(now + span, Rank::Arrival, Due::Fails { replica });
        }
    }
}

impl From<super::config::Fault> for Due {
    fn from(fault: super::config::Fault) -> Self {
        use super::config::Fault;
        match fault {
            Fault::Replace { replica, drain, back_in } => Self::Drains { replica, dies_in: drain, back_in },
            Fault::Die { replica, back_in } => Self::Dies { replica, back_in },
            Fault::Link { replica, share } => Self::Link { replica, share },
        }
    }
}

impl<P: Pool> Fleet<'_, P> {
    /// Lets everything happen that is due now.
    pub(super) fn take_faults(&mut self) {
        while self.faults.next().is_some_and(|at| at <= self.now) {
            let Some((_, due)) = self.faults.due.pop() else { return };
            self.take_fault(due);
        }
    }

    fn take_fault(&mut self, due: Due) {
        let now = self.now;
        match due {
            Due::Drains { replica, dies_in, back_in } => {
                if !self.faults.down[replica] {
                    self.endpoint(replica).ready = false;
                    self.faults.due.push(now + dies_in, Rank::Arrival, Due::Dies { replica, back_in });
                }
            }
            Due::Dies { replica, back_in } => self.replica_dies(replica, back_in),
            Due::Fails { replica } => {
                let back_in = self.faults.by_chance[replica].map_or(Span::ZERO, |(_, back_in)| back_in);
                match self.faults.down[replica] {
                    true => self.faults.draw(now, replica),
                    false => {
                        self.replica_dies(replica, back_in);
                        self.faults.draw(now + back_in, replica);
                    }
                }
            }
            Due::Back { replica } => {
                self.faults.down[replica] = false;
                self.endpoint(replica).ready = true;
                self.router.back(now, ReplicaId(replica as u32));
            }
            Due::Link { replica, share } => self.moves.set_link_health(now, replica, share),
        }
    }

    /// A replica dies. One that is down already stays so until it is back.
    fn replica_dies(&mut self, index: usize, back_in: Span) {
        if std::mem::replace(&mut self.faults.down[index], true) {
            return;
        }
        self.faults.deaths += u64::from(self.now >= self.config.warm_up);
        self.endpoint(index).ready = false;
        self.catch_up(index, true);
        self.dissolve(index);
        let again = self.lose_requests(index);
        let pool = &self.config.pools[self.pool_of[index]];
        let engine = self.moves.replica_died(self.now, self.config, pool, index);
        self.replicas[index].start_anew(self.now, engine);
        self.announce(index);
        self.router.lost(self.now, ReplicaId(index as u32));
        self.faults.due.push(self.now + back_in, Rank::Arrival, Due::Back { replica: index });
        for seat in again {
            self.send(seat);
        }
    }

    /// Takes their requests from a replica that dies, and from those that compute prompts for it; those that are to be
    /// sent again.
    fn lose_requests(&mut self, index: usize) -> Vec<Seat> {
        let id = ReplicaId(index as u32);
        let mut again = Vec::new();
        for seat in self.live.seats() {
            let live = self.live.get_mut(seat);
            if live.outcome.replica != Some(id) && live.replica() != Some(id) {
                continue;
            }
            if let Some(Remote { stage: stage @ Stage::Offered(_), .. }) = &mut live.remote
                && let Stage::Offered(offer) = std::mem::replace(stage, Stage::Pulled)
            {
                // Nobody is left to say that its blocks are not needed: their lease must end.
                self.moves.abandon(self.now, offer);
            }
            let Lost::Retry { most } = self.config.faults.lost else {
                self.end(seat, Status::Failed(Failure::Fault));
                continue;
            };
            if self.live.get_mut(seat).outcome.restarts >= most {
                self.end(seat, Status::Failed(Failure::Fault));
                continue;
            }
            self.withdraw(seat);
            let live = self.live.get_mut(seat);
            let clock = live.replica().map(|replica| &self.replicas[replica.0 as usize].clock);
            live.start_again(self.now, clock.unwrap_or(&Default::default()));
            live.outcome.restarts += 1;
            again.push(seat);
        }
        again
    }
}
