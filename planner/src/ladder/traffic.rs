//! The ladder's requests, as its load generator (inference-perf, `shared_prefix`) makes them: prompts are shuffled once
//! and every stage sends them from the first one on, so that a stage of 60 requests asks 60 users.

use std::fmt::Write as _;

use forerun_sim::rng::Stream;

/// A stage: requests/s, and for how many seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    pub(super) rate: u32,
    seconds: u32,
}

const fn stage(rate: u32, seconds: u32) -> Stage {
    Stage { rate, seconds }
}

/// The warm-up, and the ladder.
pub(super) const STAGES: [Stage; 17] = [
    stage(15, 50),
    stage(3, 20),
    stage(10, 20),
    stage(15, 20),
    stage(20, 38),
    stage(22, 34),
    stage(25, 30),
    stage(30, 25),
    stage(35, 21),
    stage(40, 38),
    stage(43, 36),
    stage(46, 33),
    stage(49, 30),
    stage(52, 29),
    stage(55, 27),
    stage(57, 26),
    stage(60, 25),
];

/// Between stages, seconds: each is drained before the next begins.
const PAUSE_S: u32 = 600;

const GROUPS: usize = 150;
const USERS_PER_GROUP: usize = 5;
const SHARED_TOKENS: u32 = 6000;
const OWN_TOKENS: u32 = 1200;
pub(super) const OUTPUT_TOKENS: u32 = 1000;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) stage: usize,
    arrival_s: f64,
    user: usize,
}

/// When a stage begins, seconds.
pub(super) fn start_s(stage: usize) -> f64 {
    f64::from(STAGES[..stage].iter().map(|stage| stage.seconds + PAUSE_S).sum::<u32>())
}

/// All requests of a draw, in order of arrival. Of each stage only the first `in_flight_max` where more are refused: none ends
/// before its stage does.
pub(super) fn requests(draw: u64, in_flight_max: Option<usize>) -> Vec<Request> {
    let (mut order, mut arrivals) = (Stream::new(draw, "ladder users"), Stream::new(draw, "ladder arrivals"));
    let mut users: Vec<usize> = (0..GROUPS * USERS_PER_GROUP).collect();
    for last in (1..users.len()).rev() {
        users.swap(last, order.below(last + 1));
    }
    let mut requests = Vec::new();
    for (number, stage) in STAGES.iter().enumerate() {
        // A Poisson process of which the number of arrivals is known.
        let count = (stage.rate * stage.seconds) as usize;
        let mut times: Vec<f64> = (0..count).map(|_| arrivals.uniform() * f64::from(stage.seconds)).collect();
        times.sort_unstable_by(f64::total_cmp);
        let sent = times.iter().take(in_flight_max.unwrap_or(count)).zip(users.iter().cycle());
        requests.extend(sent.map(|(at, &user)| Request {
            stage: number,
            arrival_s: start_s(number) + at,
            user,
        }));
    }
    requests
}

/// The requests as a trace, each named after its place.
pub(super) fn trace(requests: &[Request]) -> String {
    let shared_blocks = (SHARED_TOKENS / OWN_TOKENS) as usize;
    let mut text = String::new();
    for (id, Request { arrival_s, user, .. }) in requests.iter().enumerate() {
        let group = user / USERS_PER_GROUP;
        let mut blocks: Vec<usize> = (0..shared_blocks).map(|block| group * shared_blocks + block).collect();
        blocks.push(GROUPS * shared_blocks + user);
        let input_tokens = SHARED_TOKENS + OWN_TOKENS;
        // A write to a string cannot fail.
        let _ = writeln!(
            text,
            "{{\"id\": \"{id}\", \"arrival_s\": {arrival_s:.6}, \"input_tokens\": {input_tokens}, \
             \"output_tokens\": {OUTPUT_TOKENS}, \"block_hashes\": {blocks:?}, \"block_tokens\": {OWN_TOKENS}}}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_asks_the_same_users_from_the_first_one_on() {
        let requests = requests(1, None);
        let users = |number| requests.iter().filter(move |r| r.stage == number).map(|r| r.user);
        assert_eq!(users(1).count(), 60);
        assert!(users(1).eq(users(16).take(60)));
        let mut warm: Vec<_> = users(0).collect();
        warm.sort_unstable();
        assert!(warm.into_iter().eq(0..750), "the warm-up asks everybody once");
    }

    #[test]
    fn a_limit_takes_the_first_requests_of_a_stage() {
        let (all, limited) = (requests(1, None), requests(1, Some(1024)));
        let of = |requests: &[Request], number| requests.iter().filter(|r| r.stage == number).count();
        assert_eq!((of(&all, 9), of(&limited, 9), of(&limited, 8)), (1520, 1024, 735));
        assert!(limited.iter().all(|request| all.contains(request)));
    }
}
