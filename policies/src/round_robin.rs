//! Each replica in turn, whatever it does.

use forerun_sim::request::{Rejection, Request};
use forerun_sim::router::{Choice, Router, View};
use forerun_sim::time::Time;

use crate::turns::Turns;

/// Round-robin: a Kubernetes service's usual approximation of "spread evenly".
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    turns: Turns,
}

impl Router for RoundRobin {
    fn place(&mut self, _: Time, _: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        let next = self.turns.of(view.endpoints);
        let count = view.endpoints.len();
        let mut in_turn = (0..count).map(|step| (*next + step) % count);
        let choice = in_turn.find(|&at| view.endpoints[at].ready).unwrap_or(0);
        *next = choice + 1;
        Ok(Choice::alone(choice))
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
