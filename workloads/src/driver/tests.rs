//! The loops against a system that ends every request after a fixed time.

use forerun_sim::prompt::Prompt;
use forerun_sim::request::{Failure, Label};

use super::*;
use crate::law::Law;
use crate::record::SessionTurn;

const SERVICE: Span = Span::from_secs(3);

/// Records that were written down.
struct Listed(VecDeque<Record>);

impl Records for Listed {
    fn next(&mut self, _: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        Ok(self.0.pop_front())
    }
}

fn record(number: u64, start: Start, session: Option<(u64, u32)>) -> Record {
    Record {
        number,
        name: None,
        start,
        prompt: Prompt::of(Content::private(number), 10),
        output_tokens: 5,
        max_tokens: None,
        priority: 0,
        tenant: Label::NONE,
        class: Label::NONE,
        model: Label::NONE,
        adapter: Label::NONE,
        session: session.map(|(session, turn)| SessionTurn { session, name: None, turn }),
    }
}

/// Independent records, one every second.
fn singles(count: u64) -> Listed {
    let at = |k| Start::At(Time::ZERO + Span::from_secs(k));
    Listed((0..count).map(|k| record(k, at(k), None)).collect())
}

/// Sessions of `turns` turns with `think` seconds between them, one session every second.
fn sessions(count: u64, turns: u32, think: u64) -> Listed {
    let mut records = VecDeque::new();
    for session in 0..count {
        for turn in 1..=turns {
            let start = match turn {
                1 => Start::At(Time::ZERO + Span::from_secs(session)),
                _ => Start::AfterPrevious(Span::from_secs(think)),
            };
            records.push_back(record(records.len() as u64, start, Some((session, turn))));
        }
    }
    Listed(records)
}

fn driver(records: Listed, pacing: Pacing, cut: Cut) -> Driver {
    Driver::new(Box::new(records), pacing, cut, Stop::Length, 1)
}

fn closed(most: u32) -> Pacing {
    Pacing::Closed(NonZeroU32::new(most).unwrap())
}

fn users(users: u32, think: f64) -> Pacing {
    let think = Law::<Seconds>::constant(think).sampler("think", std::path::Path::new(".")).unwrap();
    Pacing::Users { users: NonZeroU32::new(users).unwrap(), think }
}

/// What was sent, and the most that was ever in flight.
struct Run {
    sent: Vec<Request>,
    most_in_flight: usize,
}

/// Serves every request in [`SERVICE`]; `fate` says how it ends.
fn run(driver: &mut Driver, fate: impl Fn(&Request) -> Status) -> Run {
    let mut ends: VecDeque<(Time, Request)> = VecDeque::new();
    let mut run = Run { sent: Vec::new(), most_in_flight: 0 };
    loop {
        let send = driver.peek().unwrap();
        let end = ends.front().map(|(at, _)| *at);
        match (send, end) {
            (None, None) => return run,
            (Some(send), end) if end.is_none_or(|end| send < end) => {
                let request = driver.pop().unwrap().expect("what was announced");
                assert_eq!(request.arrival, send);
                ends.push_back((send + SERVICE, request.clone()));
                run.sent.push(request);
                run.most_in_flight = run.most_in_flight.max(ends.len());
            }
            _ => {
                let (at, request) = ends.pop_front().unwrap();
                driver.ended(&request, fate(&request), at);
            }
        }
    }
}

fn complete(_: &Request) -> Status {
    Status::Completed
}

fn seconds(requests: &[Request]) -> Vec<f64> {
    requests.iter().map(|r| r.arrival.as_secs_f64()).collect()
}

#[test]
fn an_open_loop_sends_at_recorded_times_whatever_is_in_flight() {
    let run = run(&mut driver(singles(6), Pacing::Open, Cut::default()), complete);
    assert_eq!(seconds(&run.sent), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(run.sent.iter().zip(0..).all(|(r, k)| r.id == RequestId(k)));
    assert!(run.sent.iter().zip(0..).all(|(r, k)| r.output == Content::generated(k)));
}

#[test]
fn a_turn_follows_the_end_of_the_turn_before_by_its_think_time() {
    let run = run(&mut driver(sessions(2, 3, 10), Pacing::Open, Cut::default()), complete);
    assert_eq!(seconds(&run.sent), [0.0, 1.0, 13.0, 14.0, 26.0, 27.0]);
    let turns: Vec<u32> = run.sent.iter().map(|r| r.session.as_ref().unwrap().turn).collect();
    assert_eq!(turns, [1, 1, 2, 2, 3, 3]);
    assert_eq!(run.sent[2].output, Content::generated(1), "an answer is named by its record");
}

#[test]
fn a_client_with_a_limit_sends_at_recorded_times_while_it_has_a_free_place() {
    let limit = |most| Pacing::AtMost(NonZeroU32::new(most).unwrap());
    let free = run(&mut driver(singles(6), limit(4), Cut::default()), complete);
    assert_eq!(
        seconds(&free.sent),
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        "three are in flight, as in an open loop"
    );
    let held = run(&mut driver(singles(6), limit(2), Cut::default()), complete);
    assert_eq!(
        seconds(&held.sent),
        [0.0, 1.0, 3.0, 4.0, 6.0, 7.0],
        "the third waits for the end of the first"
    );
    assert_eq!(held.most_in_flight, 2);
    let turns = run(&mut driver(sessions(2, 2, 1), limit(1), Cut::default()), complete);
    assert_eq!(turns.most_in_flight, 1, "turns wait for a place too");
    assert_eq!(turns.sent.len(), 4);
}

#[test]
fn a_closed_loop_is_always_full_and_never_fuller() {
    let run = run(&mut driver(singles(100), closed(4), Cut::default()), complete);
    assert_eq!(run.most_in_flight, 4);
    assert_eq!(run.sent.len(), 100);
    let waves: Vec<f64> = (0..100).map(|k| f64::from(k / 4 * 3)).collect();
    assert_eq!(seconds(&run.sent), waves, "each is sent at the end of another");
}

#[test]
fn a_closed_loop_serves_due_turns_before_new_sessions() {
    let run = run(&mut driver(sessions(3, 2, 1), closed(1), Cut::default()), complete);
    let order: Vec<(u64, u32)> =
        run.sent.iter().filter_map(|r| r.session.as_ref()).map(|s| (s.id, s.turn)).collect();
    assert_eq!(order, [(0, 1), (1, 1), (0, 2), (1, 2), (2, 1), (2, 2)]);
    assert_eq!(seconds(&run.sent), [0.0, 3.0, 6.0, 9.0, 12.0, 16.0], "the last turn is thought about");
    assert_eq!(run.most_in_flight, 1);
}

#[test]
fn users_think_between_their_chains_and_do_not_start_in_step() {
    let run = run(&mut driver(singles(30), users(3, 20.0), Cut::default()), complete);
    assert_eq!(run.sent.len(), 30);
    let times = seconds(&run.sent);
    assert!(times[2] < 20.0 && times[0] < times[1], "first chains within one think time: {times:?}");
    for (next, before) in times[3..].iter().zip(&times) {
        assert!((next - before - 23.0).abs() < 1e-6, "service and think time, user by user");
    }
}

#[test]
fn a_user_finishes_a_session_before_taking_the_next() {
    let run = run(&mut driver(sessions(4, 3, 2), users(1, 5.0), Cut::default()), complete);
    let order: Vec<u64> = run.sent.iter().map(|r| r.session.as_ref().unwrap().id).collect();
    assert_eq!(order, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    assert_eq!(run.most_in_flight, 1);
}

#[test]
fn nothing_is_sent_at_or_after_the_end() {
    let cut = Cut { duration: Some(Span::from_secs(4)), requests: None };
    let open = run(&mut driver(singles(9), Pacing::Open, cut), complete);
    assert_eq!(seconds(&open.sent), [0.0, 1.0, 2.0, 3.0]);
    let turns = run(&mut driver(sessions(2, 3, 1), Pacing::Open, cut), complete);
    assert_eq!(seconds(&turns.sent), [0.0, 1.0], "turns due at 4 s are cut too");
    let closed = run(&mut driver(singles(9), closed(1), cut), complete);
    assert_eq!(seconds(&closed.sent), [0.0, 3.0]);
}

#[test]
fn no_more_requests_are_sent_than_asked_for() {
    for pacing in [Pacing::Open, closed(2), users(2, 1.0)] {
        let cut = Cut { duration: None, requests: Some(5) };
        let mut driver = driver(sessions(9, 2, 1), pacing, cut);
        assert_eq!(run(&mut driver, complete).sent.len(), 5);
        assert_eq!(driver.sent(), 5);
    }
}

#[test]
fn a_failed_turn_ends_its_session_and_its_user_goes_on() {
    let fails = |request: &Request| match request.session.as_ref().map(|s| (s.id, s.turn)) {
        Some((0, 2)) => Status::Failed(Failure::Timeout),
        _ => Status::Completed,
    };
    for pacing in [Pacing::Open, closed(1), users(1, 5.0)] {
        let mut driver = driver(sessions(2, 4, 1), pacing, Cut::default());
        let run = run(&mut driver, fails);
        assert_eq!(driver.abandoned(), 2, "turns 3 and 4");
        assert_eq!(run.sent.len(), 6);
        assert!(run.sent.iter().all(|r| r.session.as_ref().is_some_and(|s| s.id == 1 || s.turn <= 2)));
    }
}

#[test]
fn memory_holds_only_what_is_in_flight() {
    let mut driver = driver(singles(10_000), Pacing::Open, Cut::default());
    while let Some(request) = driver.pop().unwrap() {
        driver.ended(&request, Status::Completed, request.arrival);
        assert!(driver.in_flight == 0 && driver.following.is_empty() && driver.due.is_empty());
    }
    assert_eq!(driver.sent(), 10_000);
}

#[test]
fn an_error_of_the_input_ends_the_run_with_its_text() {
    struct Broken;
    impl Records for Broken {
        fn next(&mut self, _: &mut Labels) -> Result<Option<Record>, WorkloadError> {
            Err(WorkloadError::Spec("row 7 is wrong".into()))
        }
    }
    let mut driver = Driver::new(Box::new(Broken), Pacing::Open, Cut::default(), Stop::Eos, 1);
    assert_eq!(driver.peek().unwrap_err().to_string(), "row 7 is wrong");
}
