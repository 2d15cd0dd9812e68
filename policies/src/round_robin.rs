//! Each replica in turn, whatever it does.

use forerun_sim::request::Request;
use forerun_sim::router::{Endpoint, Router};
use forerun_sim::time::Time;

/// Round-robin: a Kubernetes service's usual approximation of "spread evenly".
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    next: usize,
}

impl Router for RoundRobin {
    fn route(&mut self, _: Time, _: &Request, endpoints: &[Endpoint]) -> usize {
        let choice = self.next % endpoints.len();
        self.next = choice + 1;
        choice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::choices;

    #[test]
    fn replicas_are_taken_in_turn_whatever_their_load() {
        assert_eq!(choices(&mut RoundRobin::default(), &[9, 0, 0], 5), [0, 1, 2, 0, 1]);
    }
}
