//! The loops that send a workload's records: the source of a run.
//!
//! A *chain* is a record that starts by itself and the turns that follow it. An open loop sends each chain at
//! its recorded time, or later where the client holds it back; a closed loop keeps so many requests in flight; users
//! each work through one chain after another. In all of them a turn follows the end of the turn before by its think time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;

use forerun_sim::prompt::Content;
use forerun_sim::request::{Labels, Request, RequestId, Session, Status, Stop};
use forerun_sim::rng::Stream;
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::{Span, Time};
use rustc_hash::FxHashMap;

use crate::error::WorkloadError;
use crate::law::Seconds;
use crate::record::{Record, Records, Start};
use crate::sampler::Sampler;

/// Nothing is sent later than this, about 292 years: sums of think times stay within the clock.
const LATEST: Time = Time::from_nanos(u64::MAX / 2);

/// When the next chain is sent.
#[derive(Clone, Debug)]
pub enum Pacing {
    /// At its own time, whatever the system does.
    Open,
    /// At its own time, or as soon after it as fewer requests than this are in flight.
    AtMost(NonZeroU32),
    /// As soon as fewer requests than this are in flight; recorded times are ignored. A due turn of a running
    /// conversation takes a free place before a new chain does.
    Closed(NonZeroU32),
    /// When one of the users is done with the chain before and has thought; recorded times are ignored.
    Users {
        /// How many there are.
        users: NonZeroU32,
        /// From the end of a user's chain to the next. A user's first chain comes after a uniform share of
        /// one such time, so that users do not start in step.
        think: Sampler<Seconds>,
    },
}

/// Where a run stops sending.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    /// Nothing is sent at this time or later.
    pub duration: Option<Span>,
    /// No more requests than this are sent.
    pub requests: Option<u64>,
}

/// Sends the records of one workload, in memory that grows only with what is in flight or thinking.
pub struct Driver {
    records: Box<dyn Records>,
    labels: Labels,
    pacing: Pacing,
    cut: Cut,
    stop: Stop,
    /// Thinking of users, apart from the workload's own streams.
    users: Stream,
    /// The next chain, read ahead.
    upcoming: Option<Chain>,
    /// The record that ended the last chain: the first of the one after.
    ahead: Option<Record>,
    /// Whether the records have ended, though some may be read ahead.
    ended: bool,
    /// Whether there is no further chain.
    exhausted: bool,
    /// What is sent next, as long as nothing changes.
    foreseen: Option<Option<Next>>,
    /// What is known to be due: turns, and users who want their next chain.
    due: BinaryHeap<Reverse<Due>>,
    /// Requests in flight, and the turns that follow those of them that have any.
    in_flight: u32,
    following: FxHashMap<RequestId, VecDeque<Record>>,
    /// The latest time at which anything was sent or ended.
    now: Time,
    sent: u64,
    scheduled: u64,
    abandoned: u64,
}

/// A record that starts by itself and the turns that follow it.
struct Chain {
    first: Record,
    rest: VecDeque<Record>,
}

/// Something due; among equals the one scheduled first.
struct Due {
    at: Time,
    order: u64,
    what: What,
}

enum What {
    Turn(Box<Chain>),
    /// A user takes the next chain of the workload.
    User,
}

/// What [`Driver::next_due`] found, and when.
#[derive(Clone, Copy)]
enum Next {
    Due(Time),
    Chain(Time),
}

impl Driver {
    /// A driver of `records`. Users draw their think times from the run's `seed`.
    #[must_use]
    pub fn new(records: Box<dyn Records>, pacing: Pacing, cut: Cut, stop: Stop, seed: u64) -> Self {
        let mut driver = Self {
            records,
            labels: Labels::default(),
            pacing,
            cut,
            stop,
            users: Stream::new(seed, "users"),
            upcoming: None,
            ahead: None,
            ended: false,
            exhausted: false,
            foreseen: None,
            due: BinaryHeap::new(),
            in_flight: 0,
            following: FxHashMap::default(),
            now: Time::ZERO,
            sent: 0,
            scheduled: 0,
            abandoned: 0,
        };
        if let Pacing::Users { users, think } = driver.pacing.clone() {
            for _ in 0..users.get() {
                let think = think.draw(&mut driver.users).as_nanos() as f64;
                let share = Span::from_nanos((think * driver.users.uniform()) as u64);
                driver.schedule(Time::ZERO, share, What::User);
            }
        }
        driver
    }

    /// Requests sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Turns that were never sent because an earlier turn of their session failed.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// The next thing to send, within the cut.
    fn next_due(&mut self) -> Result<Option<Next>, WorkloadError> {
        if let Some(next) = self.foreseen {
            return Ok(next);
        }
        let next = self.look_for_next()?;
        self.foreseen = Some(next);
        Ok(next)
    }

    fn look_for_next(&mut self) -> Result<Option<Next>, WorkloadError> {
        if self.cut.requests.is_some_and(|most| self.sent >= most) {
            return Ok(None);
        }
        self.read_chain()?;
        let due = self.due.peek().map(|Reverse(due)| due);
        let turn = due.map(|due| due.at);
        let next = match &self.pacing {
            Pacing::Closed(most) | Pacing::AtMost(most) if self.in_flight >= most.get() => None,
            Pacing::Open | Pacing::AtMost(_) => {
                let next = match self.upcoming.as_ref().map(Chain::recorded_time) {
                    Some(at) if turn.is_none_or(|turn| at < turn) => Some(Next::Chain(at)),
                    _ => turn.map(Next::Due),
                };
                next.map(|next| self.held_back(next))
            }
            Pacing::Closed(_) => match turn {
                Some(at) if at <= self.now || self.upcoming.is_none() => Some(Next::Due(at.max(self.now))),
                _ => self.upcoming.as_ref().map(|_| Next::Chain(self.now)),
            },
            Pacing::Users { .. } => due.map(|due| match due.what {
                What::Turn(_) => Next::Due(due.at),
                What::User => Next::Chain(due.at),
            }),
        };
        let end = self.cut.duration.map_or(LATEST, |duration| Time::ZERO + duration);
        Ok(next.filter(|next| next.at() < end))
    }

    /// What a client with a limit sends no sooner than now, when a place has become free.
    fn held_back(&self, next: Next) -> Next {
        match (&self.pacing, next) {
            (Pacing::AtMost(_), Next::Due(at)) => Next::Due(at.max(self.now)),
            (Pacing::AtMost(_), Next::Chain(at)) => Next::Chain(at.max(self.now)),
            (_, next) => next,
        }
    }

    /// Reads the next chain ahead, unless one is waiting or the workload has ended.
    fn read_chain(&mut self) -> Result<(), WorkloadError> {
        if self.upcoming.is_some() || self.exhausted {
            return Ok(());
        }
        let first = match self.ahead.take() {
            Some(record) => Some(record),
            None => self.read_record()?,
        };
        let Some(first) = first else {
            self.end_of_records();
            return Ok(());
        };
        let mut rest = VecDeque::new();
        loop {
            match self.read_record()? {
                Some(record) if matches!(record.start, Start::AfterPrevious(_)) => rest.push_back(record),
                next => {
                    self.ahead = next;
                    break;
                }
            }
        }
        self.upcoming = Some(Chain { first, rest });
        Ok(())
    }

    /// The next record; a stream that has ended is not asked again.
    fn read_record(&mut self) -> Result<Option<Record>, WorkloadError> {
        if self.ended {
            return Ok(None);
        }
        let record = self.records.next(&mut self.labels)?;
        self.ended = record.is_none();
        Ok(record)
    }

    /// Users who wait for a chain will never get one: only turns remain due.
    fn end_of_records(&mut self) {
        self.exhausted = true;
        self.due.retain(|Reverse(due)| matches!(due.what, What::Turn(_)));
    }

    fn schedule(&mut self, from: Time, wait: Span, what: What) {
        let nanos = from.as_nanos().saturating_add(wait.as_nanos());
        let at = Time::from_nanos(nanos).min(LATEST);
        self.due.push(Reverse(Due { at, order: self.scheduled, what }));
        self.foreseen = None;
        self.scheduled += 1;
    }

    fn take(&mut self, next: &Next) -> Option<Chain> {
        let from_due = match (next, &self.pacing) {
            (Next::Due(_), _) | (Next::Chain(_), Pacing::Users { .. }) => self.due.pop(),
            (Next::Chain(_), _) => None,
        };
        match from_due.map(|Reverse(due)| due.what) {
            Some(What::Turn(chain)) => Some(*chain),
            Some(What::User) | None => self.upcoming.take(),
        }
    }

    fn send(&mut self, chain: Chain, at: Time) -> Request {
        let id = RequestId(self.sent);
        self.sent += 1;
        self.now = self.now.max(at);
        self.in_flight += 1;
        if !chain.rest.is_empty() {
            self.following.insert(id, chain.rest);
        }
        let record = chain.first;
        Request {
            id,
            name: record.name,
            arrival: at,
            prompt: record.prompt,
            output: Content::generated(record.number),
            output_tokens: record.output_tokens,
            stop: self.stop,
            max_tokens: record.max_tokens,
            priority: record.priority,
            tenant: record.tenant,
            class: record.class,
            model: record.model,
            adapter: record.adapter,
            session: record.session.map(|s| Session { id: s.session, name: s.name, turn: s.turn }),
        }
    }

    /// A chain is over: its user thinks, then takes the next.
    fn chain_ended(&mut self, at: Time) {
        if let (Pacing::Users { think, .. }, false) = (&self.pacing, self.exhausted) {
            let think = think.draw(&mut self.users);
            self.schedule(at, think, What::User);
        }
    }
}

impl Source for Driver {
    fn peek(&mut self) -> Result<Option<Time>, SourceError> {
        Ok(self.next_due()?.map(|next| next.at()))
    }

    fn pop(&mut self) -> Result<Option<Request>, SourceError> {
        let Some(next) = self.next_due()? else {
            return Ok(None);
        };
        self.foreseen = None;
        let chain = self.take(&next);
        Ok(chain.map(|chain| self.send(chain, next.at())))
    }

    fn ended(&mut self, request: &Request, status: Status, at: Time) {
        self.in_flight -= 1;
        if !matches!(self.pacing, Pacing::Open) {
            self.foreseen = None;
        }
        let mut rest = if self.following.is_empty() {
            VecDeque::new()
        } else {
            self.following.remove(&request.id).unwrap_or_default()
        };
        self.now = self.now.max(at);
        match (status, rest.pop_front()) {
            (Status::Completed, Some(first)) => {
                let think = first.think();
                self.schedule(at, think, What::Turn(Box::new(Chain { first, rest })));
            }
            (Status::Completed | Status::Unfinished, _) => self.chain_ended(at),
            (Status::Failed(_) | Status::Rejected(_), next) => {
                self.abandoned += next.map_or(0, |_| 1 + rest.len() as u64);
                self.chain_ended(at);
            }
        }
    }

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl Next {
    fn at(&self) -> Time {
        match self {
            Self::Due(at) | Self::Chain(at) => *at,
        }
    }
}

impl Chain {
    /// When an open loop sends it. Readers never begin a chain with a turn that follows another.
    fn recorded_time(&self) -> Time {
        match self.first.start {
            Start::At(at) => at,
            Start::AfterPrevious(think) => Time::ZERO + think,
        }
    }
}

impl Record {
    fn think(&self) -> Span {
        match self.start {
            Start::AfterPrevious(think) => think,
            Start::At(_) => Span::ZERO,
        }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests;
