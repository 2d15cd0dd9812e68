//! A ladder's requests, as its load generator (inference-perf, `shared_prefix`) makes them: prompts are shuffled once
//! and every stage sends them from the first one on, so that a stage of 60 requests asks 60 users.

use std::fmt::Write as _;

use forerun_sim::rng::Stream;

/// A stage: requests/s, and for how many seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    pub(super) rate: u32,
    seconds: u32,
}

/// A stage of so many requests/s and seconds.
pub(super) const fn stage(rate: u32, seconds: u32) -> Stage {
    Stage { rate, seconds }
}

/// Between stages, seconds: each is drained before the next begins.
const PAUSE_S: u32 = 600;

/// Groups of users that share a prompt, and how they ask.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) stages: &'static [Stage],
    pub(super) groups: usize,
    pub(super) users_per_group: usize,
    pub(super) shared_tokens: u32,
    pub(super) own_tokens: u32,
    pub(super) output_tokens: u32,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) stage: usize,
    arrival_s: f64,
    user: usize,
}

impl Traffic {
    /// When a stage begins, seconds.
    pub(super) fn start_s(&self, stage: usize) -> f64 {
        f64::from(self.stages[..stage].iter().map(|stage| stage.seconds + PAUSE_S).sum::<u32>())
    }

    /// All requests of a draw, in order of arrival. Of each stage only the first `in_flight_max` where more are refused:
    /// none ends before its stage does.
    pub(super) fn requests(&self, draw: u64, in_flight_max: Option<usize>) -> Vec<Request> {
        let (mut order, mut arrivals) =
            (Stream::new(draw, "ladder users"), Stream::new(draw, "ladder arrivals"));
        let mut users: Vec<usize> = (0..self.groups * self.users_per_group).collect();
        for last in (1..users.len()).rev() {
            users.swap(last, order.below(last + 1));
        }
        let mut requests = Vec::new();
        for (number, stage) in self.stages.iter().enumerate() {
            // A Poisson process of which the number of arrivals is known.
            let count = (stage.rate * stage.seconds) as usize;
            let mut times: Vec<f64> =
                (0..count).map(|_| arrivals.uniform() * f64::from(stage.seconds)).collect();
            times.sort_unstable_by(f64::total_cmp);
            let start_s = self.start_s(number);
            let sent = times.iter().take(in_flight_max.unwrap_or(count)).zip(users.iter().cycle());
            requests.extend(sent.map(|(at, &user)| Request { stage: number, arrival_s: start_s + at, user }));
        }
        requests
    }

    /// The requests as a trace, each named after its place. Prompts are blocks of the largest size that divides both
    /// parts.
    pub(super) fn trace(&self, requests: &[Request]) -> String {
        let block_tokens = greatest_common_divisor(self.shared_tokens, self.own_tokens);
        let [shared, own] =
            [self.shared_tokens, self.own_tokens].map(|tokens| (tokens / block_tokens) as usize);
        let (input_tokens, output_tokens) = (self.shared_tokens + self.own_tokens, self.output_tokens);
        let mut text = String::new();
        for (id, Request { arrival_s, user, .. }) in requests.iter().enumerate() {
            let group = user / self.users_per_group;
            let mut blocks: Vec<usize> = (group * shared..(group + 1) * shared).collect();
            let owned = self.groups * shared + user * own;
            blocks.extend(owned..owned + own);
            // A write to a string cannot fail.
            let _ = writeln!(
                text,
                "{{\"id\": \"{id}\", \"arrival_s\": {arrival_s:.6}, \"input_tokens\": {input_tokens}, \
                 \"output_tokens\": {output_tokens}, \"block_hashes\": {blocks:?}, \"block_tokens\": {block_tokens}}}"
            );
        }
        text
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: Traffic = Traffic {
        stages: &[stage(15, 50), stage(3, 20), stage(40, 38)],
        groups: 150,
        users_per_group: 5,
        shared_tokens: 600,
        own_tokens: 250,
        output_tokens: 10,
    };

    #[test]
    fn every_stage_asks_the_same_users_from_the_first_one_on() {
        let requests = TRAFFIC.requests(1, None);
        let users = |number| requests.iter().filter(move |r| r.stage == number).map(|r| r.user);
        assert_eq!(users(1).count(), 60);
        assert!(users(1).eq(users(2).take(60)));
        let mut warm: Vec<_> = users(0).collect();
        warm.sort_unstable();
        assert!(warm.into_iter().eq(0..750), "the first stage asks everybody once");
    }

    #[test]
    fn a_limit_takes_the_first_requests_of_a_stage() {
        let (all, limited) = (TRAFFIC.requests(1, None), TRAFFIC.requests(1, Some(1024)));
        let of = |requests: &[Request], number| requests.iter().filter(|r| r.stage == number).count();
        assert_eq!((of(&all, 2), of(&limited, 2), of(&limited, 0)), (1520, 1024, 750));
        assert!(limited.iter().all(|request| all.contains(request)));
    }

    #[test]
    fn users_of_a_group_share_blocks_and_own_the_rest() {
        let of = |user| TRAFFIC.trace(&[Request { stage: 0, arrival_s: 0.0, user }]);
        assert!(
            of(7).contains("[12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 1835, 1836, 1837, 1838, 1839]")
        );
        assert!(
            of(8).contains("[12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 1840, 1841, 1842, 1843, 1844]")
        );
        assert!(of(8).contains("\"block_tokens\": 50"));
    }
}
