//! Any replica, uniformly.

use forerun_sim::request::{Rejection, Request};
use forerun_sim::rng::Stream;
use forerun_sim::router::{Choice, Router, View};
use forerun_sim::time::Time;

/// Uniform random choice, from the run's stream "router".
#[derive(Clone, Debug)]
pub struct Random {
    stream: Stream,
}

impl Random {
    /// The policy of run `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { stream: Stream::new(seed, "router") }
    }
}

impl Router for Random {
    fn place(&mut self, _: Time, _: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        let ready = || (0..view.endpoints.len()).filter(|&at| view.endpoints[at].ready);
        let choice = ready().nth(self.stream.below(ready().count()));
        Ok(Choice::alone(choice.unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::choices;

    #[test]
    fn every_replica_gets_its_share() {
        let chosen = choices(&mut Random::new(3), &[0; 4], 4000);
        for replica in 0..4 {
            let share = chosen.iter().filter(|&&choice| choice == replica).count();
            // 1000 +- 5 standard deviations of a binomial.
            assert!((863..1137).contains(&share), "replica {replica} got {share}");
        }
    }
}
