//! Where each request's time goes, without looking at waiting or running requests step by step.
//!
//! All requests in a replica's queue wait for the same reason, and all its decodes are stalled by the same
//! prefills. So the replica keeps running totals, a request remembers their values when it starts an activity,
//! and the differences at its end are that request's share. Everything is in integer nanoseconds: the causes
//! of a request add up to its whole time exactly.

use crate::request::{Breakdown, Cause};
use crate::time::{Span, Time};

/// The causes for which a request waits in an engine's queue.
const WAITS: [Cause; 5] = [
    Cause::EngineQueueStep,
    Cause::EngineQueueSlots,
    Cause::EngineQueueKv,
    Cause::EngineQueueBudget,
    Cause::EngineQueueLora,
];

/// Running totals of one replica.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaClock {
    /// Time so far during which the queue was blocked, by cause.
    waits: [Span; WAITS.len()],
    /// Why it is blocked since `since`.
    cause: Cause,
    since: Time,
    /// Time so far by which steps took longer because of their prefills.
    stalled: Span,
}

impl Default for ReplicaClock {
    fn default() -> Self {
        Self {
            waits: Default::default(),
            cause: Cause::EngineQueueStep,
            since: Time::ZERO,
            stalled: Span::ZERO,
        }
    }
}

impl ReplicaClock {
    /// From `now` on the queue is blocked for `cause`.
    pub(crate) fn block(&mut self, now: Time, cause: Cause) {
        if cause == self.cause {
            return;
        }
        self.waits = self.waits_at(now);
        self.since = now;
        self.cause = cause;
    }

    /// A step took `span` longer because of its prefills.
    pub(crate) fn stall(&mut self, span: Span) {
        self.stalled += span;
    }

    fn waits_at(&self, now: Time) -> [Span; WAITS.len()] {
        let mut waits = self.waits;
        let current = WAITS.iter().position(|&cause| cause == self.cause).expect("a queue cause");
        waits[current] += now.since(self.since);
        waits
    }
}

/// What a request does, since when, and the replica's totals at that moment.
#[derive(Clone, Debug)]
enum Activity {
    /// Its time goes to one cause.
    Plain { cause: Cause, since: Time },
    /// It waits for whatever blocks the queue.
    Queued { waits: [Span; WAITS.len()] },
    /// It generates.
    Decoding { since: Time, stalled: Span },
}

/// The account of one request.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    spent: Breakdown,
    activity: Activity,
}

impl Account {
    /// A request sent by its client at `now`.
    pub(crate) fn open(now: Time) -> Self {
        Self { spent: Breakdown::default(), activity: Activity::Plain { cause: Cause::Overhead, since: now } }
    }

    /// From `now` on the request's time goes to `cause` alone.
    pub(crate) fn plain(&mut self, now: Time, clock: &ReplicaClock, cause: Cause) {
        self.settle(now, clock);
        self.activity = Activity::Plain { cause, since: now };
    }

    /// From `now` on the request waits in the engine's queue.
    pub(crate) fn queued(&mut self, now: Time, clock: &ReplicaClock) {
        self.settle(now, clock);
        self.activity = Activity::Queued { waits: clock.waits_at(now) };
    }

    /// From `now` on the request generates.
    pub(crate) fn decoding(&mut self, now: Time, clock: &ReplicaClock) {
        self.settle(now, clock);
        self.activity = Activity::Decoding { since: now, stalled: clock.stalled };
    }

    /// Whether the request's prefill is what its time goes to.
    pub(crate) fn is_prefilling(&self) -> bool {
        matches!(self.activity, Activity::Plain { cause: Cause::OwnPrefill, .. })
    }

    /// Whether the request's reason to wait may change when the scheduler looks next.
    pub(crate) fn awaits_a_look(&self) -> bool {
        matches!(
            self.activity,
            Activity::Plain { cause: Cause::EngineQueueStep | Cause::EngineQueueLora, .. }
        )
    }

    /// The account at the end of the request.
    pub(crate) fn close(&mut self, now: Time, clock: &ReplicaClock) -> Breakdown {
        self.settle(now, clock);
        self.spent
    }

    fn settle(&mut self, now: Time, clock: &ReplicaClock) {
        match &self.activity {
            Activity::Plain { cause, since } => self.spent.add(*cause, now.since(*since)),
            Activity::Queued { waits } => {
                let until = clock.waits_at(now);
                for ((&cause, &from), to) in WAITS.iter().zip(waits).zip(until) {
                    self.spent.add(cause, to - from);
                }
            }
            Activity::Decoding { since, stalled } => {
                let stalled = clock.stalled - *stalled;
                self.spent.add(Cause::StalledByOthersPrefill, stalled);
                self.spent.add(Cause::Decode, now.since(*since) - stalled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn a_wait_is_split_by_what_blocked_the_queue_and_adds_up() {
        let mut clock = ReplicaClock::default();
        let mut account = Account::open(at(0));
        account.plain(at(5), &clock, Cause::EngineQueueStep);
        clock.block(at(8), Cause::EngineQueueSlots);
        account.queued(at(8), &clock);
        clock.block(at(20), Cause::EngineQueueKv);
        account.plain(at(24), &clock, Cause::OwnPrefill);
        account.decoding(at(30), &clock);
        clock.stall(Span::from_nanos(3));
        let spent = account.close(at(50), &clock);
        let nanos = |cause| spent.get(cause).as_nanos();
        assert_eq!(nanos(Cause::Overhead), 5);
        assert_eq!(nanos(Cause::EngineQueueStep), 3);
        assert_eq!(nanos(Cause::EngineQueueSlots), 12);
        assert_eq!(nanos(Cause::EngineQueueKv), 4);
        assert_eq!(nanos(Cause::OwnPrefill), 6);
        assert_eq!(nanos(Cause::StalledByOthersPrefill), 3);
        assert_eq!(nanos(Cause::Decode), 17);
        assert_eq!(spent.total().as_nanos(), 50);
    }
}
