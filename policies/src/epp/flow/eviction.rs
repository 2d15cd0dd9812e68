//! Eviction, where `enableEviction` is set: sheddable requests that run make room for others that wait.
//!
//! Upstream's parameters are known (only negative priorities, at most 2 at a decision, a grace of 500 ms, a timeout of
//! 10 s); no recording covers the mechanism. They are read so: the lowest priority goes first, of equals the one that
//! was sent last; the grace lies between two decisions; a revocation that has not ended its request is pending, and
//! nothing more is revoked, until the timeout.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use forerun_sim::request::RequestId;
use forerun_sim::time::{Span, Time};

use super::ordering::after;

/// Requests that are revoked at one decision.
const REVOKED_MAX: usize = 2;
/// From one decision to the next.
const GRACE: Span = Span::from_millis(500);
/// For so long a revocation is waited for.
const TIMEOUT: Span = Span::from_secs(10);

/// Who goes first: lowest priority, then sent last.
type Order = (i32, Reverse<Time>, RequestId);

/// The sheddable requests in flight.
#[derive(Clone, Debug, Default)]
pub struct Evictor {
    in_flight: BTreeMap<Order, ()>,
    orders: BTreeMap<RequestId, Order>,
    /// Revoked and not ended, with the end of the timeout.
    pending: BTreeMap<RequestId, Time>,
    next_decision: Time,
}

impl Evictor {
    /// A request was sent to an endpoint. Only those of negative priority can ever be revoked.
    pub fn sent(&mut self, now: Time, id: RequestId, priority: i32) {
        if priority < 0 {
            let order = (priority, Reverse(now), id);
            self.in_flight.insert(order, ());
            self.orders.insert(id, order);
        }
    }

    /// A request has ended, by itself or because it was revoked.
    pub fn ended(&mut self, id: RequestId) {
        self.pending.remove(&id);
        if let Some(order) = self.orders.remove(&id) {
            self.in_flight.remove(&order);
        }
    }

    /// A request of `priority` waits and the pool is too full for it: the requests to revoke, all of lower priority.
    pub fn revoke(&mut self, now: Time, priority: i32) -> Vec<RequestId> {
        self.pending.retain(|_, timeout| now < *timeout);
        if now < self.next_decision || !self.pending.is_empty() {
            return Vec::new();
        }
        let lower = self.in_flight.keys().take_while(|order| order.0 < priority);
        let revoked: Vec<Order> = lower.take(REVOKED_MAX).copied().collect();
        for order in &revoked {
            self.in_flight.remove(order);
            self.pending.insert(order.2, after(now, TIMEOUT));
        }
        if !revoked.is_empty() {
            self.next_decision = after(now, GRACE);
        }
        revoked.into_iter().map(|order| order.2).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn with(sent: &[(u64, i32)]) -> Evictor {
        let mut evictor = Evictor::default();
        (0..).zip(sent).for_each(|(id, &(ms, priority))| evictor.sent(at(ms), RequestId(id), priority));
        evictor
    }

    fn revoked(evictor: &mut Evictor, ms: u64, priority: i32) -> Vec<u64> {
        evictor.revoke(at(ms), priority).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_lowest_and_youngest_go_first_two_at_a_time() {
        let mut evictor = with(&[(0, -1), (1, -1), (2, -5), (3, 0)]);
        assert_eq!(revoked(&mut evictor, 10, 0), [2, 1]);
    }

    #[test]
    fn nothing_more_is_revoked_in_the_grace_or_before_the_timeout() {
        let mut evictor = with(&[(0, -1), (1, -1), (2, -1)]);
        assert_eq!(revoked(&mut evictor, 10, 0), [2, 1]);
        [1, 2].into_iter().for_each(|id| evictor.ended(RequestId(id)));
        assert!(revoked(&mut evictor, 509, 0).is_empty(), "in the grace");
        assert_eq!(revoked(&mut evictor, 510, 0), [0]);
        evictor.sent(at(600), RequestId(9), -1);
        assert!(revoked(&mut evictor, 10_509, 0).is_empty(), "one is pending");
        assert_eq!(revoked(&mut evictor, 10_510, 0), [9]);
    }

    #[test]
    fn only_lower_priorities_make_room() {
        let mut evictor = with(&[(0, -1), (1, 5)]);
        assert!(revoked(&mut evictor, 0, -1).is_empty());
        assert_eq!(revoked(&mut evictor, 0, 0), [0]);
    }
}
