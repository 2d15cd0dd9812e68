//! The replica with the fewest requests in flight.

use forerun_sim::request::{Rejection, Request};
use forerun_sim::router::{Choice, Router, View};
use forerun_sim::time::Time;

use crate::turns::Turns;

/// Least requests: what a proxy's "leastconn" does with its own, exact count. Equals are taken in turn, starting
/// behind the last choice, so that an idle fleet is used evenly.
#[derive(Clone, Debug, Default)]
pub struct LeastRequests {
    turns: Turns,
}

impl Router for LeastRequests {
    fn place(&mut self, _: Time, _: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        let endpoints = view.endpoints;
        let count = endpoints.len();
        let next = self.turns.of(endpoints);
        let in_turn = (0..count).map(|step| (*next + step) % count);
        let ready = in_turn.filter(|&index| endpoints[index].ready);
        let choice = ready.min_by_key(|&index| endpoints[index].in_flight).unwrap_or(0);
        *next = choice + 1;
        Ok(Choice::alone(choice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::choices;

    #[test]
    fn the_least_loaded_is_taken_and_equals_in_turn() {
        assert_eq!(choices(&mut LeastRequests::default(), &[2, 0, 1], 4), [1, 2, 1, 2]);
        assert_eq!(choices(&mut LeastRequests::default(), &[0, 0, 0], 4), [0, 1, 2, 0]);
    }
}
