//! Whole workloads, from YAML to the requests that are sent.

use std::collections::VecDeque;
use std::fs;

use forerun_sim::request::{Request, Status};
use forerun_sim::source::Source;
use forerun_sim::time::Time;
use proptest::prelude::*;

use super::*;

fn opened(text: &str, base: &Path) -> Result<Workload, WorkloadError> {
    open(&serde_saphyr::from_str(text).unwrap(), base)
}

/// All requests of a run in which each takes two seconds.
fn run(workload: &Workload, seed: u64, most: usize) -> Vec<Request> {
    let mut driver = workload.source(seed).unwrap();
    let (mut sent, mut ends) = (Vec::new(), VecDeque::<(Time, Request)>::new());
    while sent.len() < most {
        let send = driver.peek().unwrap();
        let end = ends.front().map(|(at, _)| *at);
        match (send, end) {
            (None, None) => break,
            (Some(send), end) if end.is_none_or(|end| send < end) => {
                let request = driver.pop().unwrap().unwrap();
                ends.push_back((send + Span::from_secs(2), request.clone()));
                sent.push(request);
            }
            _ => {
                let (at, request) = ends.pop_front().unwrap();
                driver.ended(&request, Status::Completed, at);
            }
        }
    }
    sent
}

fn arrivals(requests: &[Request]) -> Vec<Time> {
    requests.iter().map(|request| request.arrival).collect()
}

/// A table of `rows` requests, one per second.
fn table(rows: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "arrival_s,input_tokens,output_tokens\n".to_owned();
    (0..rows).for_each(|row| text += &format!("{row},100,10\n"));
    fs::write(dir.path().join("t.csv"), text).unwrap();
    dir
}

const SYNTHETIC: &str = "synthetic: {arrival: {poisson: {rate: 20}}, input_tokens: 1000, output_tokens: 200}";

#[test]
fn a_synthetic_workload_without_an_end_sends_ten_thousand_requests() {
    let workload = opened(SYNTHETIC, Path::new(".")).unwrap();
    assert_eq!(
        workload.about,
        "prompts of 1,000 and answers of 200 tokens on average, 20 requests/s, at most 10,000 requests"
    );
    assert_eq!(workload.requests, Some(10_000));
    assert_eq!(workload.span, Some(Span::from_secs(500)));
    let sent = run(&workload, 1, usize::MAX);
    assert_eq!(sent.len(), 10_000);
    assert!(sent.iter().all(|request| request.stop == Stop::Length));
}

#[test]
fn a_seed_gives_the_same_requests_whatever_ran_before() {
    let workload = opened("preset: mooncake-conversation\nrequests: 500", Path::new(".")).unwrap();
    let first = run(&workload, 1, usize::MAX);
    let other = run(&workload, 2, usize::MAX);
    let again = run(&workload, 1, usize::MAX);
    assert_eq!(arrivals(&first), arrivals(&again));
    assert!(first.iter().zip(&again).all(|(a, b)| a.prompt == b.prompt && a.id == b.id));
    assert_ne!(arrivals(&first), arrivals(&other));
}

#[test]
fn a_workload_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let workload = opened(SYNTHETIC, Path::new(".")).unwrap();
    shared(&workload);
    let here = arrivals(&run(&workload, 1, 100));
    let there = std::thread::scope(|scope| scope.spawn(|| arrivals(&run(&workload, 1, 100))).join().unwrap());
    assert_eq!(here, there);
}

#[test]
fn a_trace_is_sent_as_recorded() {
    let dir = table(90);
    let workload = opened("trace: t.csv", dir.path()).unwrap();
    assert_eq!(workload.about, "trace t.csv (table): 90 requests over 89.0 s");
    assert_eq!((workload.requests, workload.span), (Some(90), Some(Span::from_secs(89))));
    let sent = run(&workload, 1, usize::MAX);
    assert_eq!(sent.len(), 90);
    assert_eq!(sent[89].arrival, Time::ZERO + Span::from_secs(89));
    assert!(sent.iter().all(|request| request.stop == Stop::Eos));
}

#[test]
fn a_trace_is_brought_to_a_rate() {
    let dir = table(900);
    let thin = opened("trace: t.csv\nrate: 0.5", dir.path()).unwrap();
    let sent = run(&thin, 1, usize::MAX).len();
    assert!((380..520).contains(&sent), "{sent} of 900 at half the rate");
    assert_eq!(thin.about, "trace t.csv (table): 900 requests over 15.0 min, thinned to 0.5/s");
    let compressed = opened("trace: t.csv\nrate: 2\nscale: compress", dir.path()).unwrap();
    assert_eq!(run(&compressed, 1, usize::MAX).len(), 900);
    assert!(compressed.span.unwrap() < Span::from_secs(455));
    assert!(!compressed.warnings.is_empty(), "compressing warns");
}

#[test]
fn what_a_trace_cannot_give_is_said() {
    let dir = table(90);
    let workload = opened("trace: t.csv\nrequests: 1000", dir.path()).unwrap();
    assert_eq!(workload.warnings, ["`requests` asks for 1,000, and the trace ends after 90"]);
    let workload = opened("trace: t.csv\nduration: 1h", dir.path()).unwrap();
    assert_eq!(
        workload.warnings,
        ["`duration` asks for 60.0 min, and the trace's arrivals end after 89.0 s"]
    );
    let workload = opened("trace: t.csv\nduration: 30s\nloop: {closed: 3}", dir.path()).unwrap();
    assert_eq!((workload.requests, workload.span), (None, Some(Span::from_secs(30))));
    assert_eq!(run(&workload, 1, usize::MAX).len(), 45, "three at a time, two seconds each");
}

#[test]
fn errors_are_found_when_opening() {
    for (text, part) in [
        ("trace: nowhere.jsonl", "nowhere.jsonl"),
        ("preset: azure-cnv", "`azure-cnv` is not a preset: did you mean `azure-conv`?"),
        (
            "synthetic: {arrival: {poisson: {rate: 1}}, input_tokens: {empirical: no.csv}, output_tokens: 1}",
            "no.csv",
        ),
        (
            "rate: 5\nsynthetic: {arrival: {poisson: {rate: 1}}, input_tokens: 1, output_tokens: 1, \
             sessions: {turns: {beta_geometric: [0.9, 1]}, think: 1s}}",
            "no finite mean",
        ),
        ("preset: azure-conv\nloop: {users: 5, think: {gamma: {mean: 5s, cv: -1}}}", "`cv` is -1"),
    ] {
        let error = opened(text, Path::new("/tmp")).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

/// Mostly numbers that make sense, and now and then one that does not.
fn number(sensible: std::ops::Range<f64>) -> impl Strategy<Value = f64> + Clone {
    prop_oneof![40 => sensible, 1 => Just(0.0), 1 => Just(1e12), 1 => Just(1e-9), 1 => Just(-1.0)]
}

fn law() -> impl Strategy<Value = String> {
    let size = || number(0.5..2e3);
    let shape = || number(0.2..3.0);
    let leaf = prop_oneof![
        size().prop_map(|a| a.to_string()),
        (size(), shape()).prop_map(|(a, b)| format!("{{lognormal: {{median: {a}, sigma: {b}}}}}")),
        (size(), shape()).prop_map(|(a, b)| format!("{{gamma: {{mean: {a}, cv: {b}}}}}")),
        (shape(), size()).prop_map(|(a, b)| format!("{{weibull: {{shape: {a}, scale: {b}}}}}")),
        (shape(), size()).prop_map(|(a, b)| format!("{{uniform: {{min: {a}, max: {b}}}}}")),
        (size(), size()).prop_map(|(a, b)| format!("{{empirical: [{a}, {b}]}}")),
    ];
    leaf.prop_recursive(2, 6, 2, move |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), shape()).prop_map(|(a, b, w)| format!(
                "{{mix: [{{weight: {w}, law: {a}}}, {{weight: 1, law: {b}}}]}}"
            )),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{sum: [{a}, {b}]}}")),
            (inner, size()).prop_map(|(a, max)| format!("{{clip: {{law: {a}, max: {max}}}}}")),
        ]
    })
}

fn arrival() -> impl Strategy<Value = String> {
    let rate = || number(0.1..50.0);
    let cv = || number(0.3..4.0);
    prop_oneof![
        rate().prop_map(|a| format!("{{constant: {{rate: {a}}}}}")),
        (rate(), cv()).prop_map(|(a, b)| format!("{{gamma: {{rate: {a}, cv: {b}}}}}")),
        (rate(), cv()).prop_map(|(a, b)| format!("{{weibull: {{rate: {a}, cv: {b}}}}}")),
        (law(), law(), law()).prop_map(|(a, b, c)| format!("{{on_off: {{on: {a}, off: {b}, rate: {c}}}}}")),
        (rate(), cv()).prop_map(|(a, b)| format!("{{mmpp: {{rates: [{a}, 0], sojourn: [{b}, 9s]}}}}")),
        (rate(), 0.0..1.1f64, rate())
            .prop_map(|(a, b, c)| format!("{{diurnal: {{rate: {a}, amplitude: {b}, period: {c}}}}}")),
    ]
}

fn pacing() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("open".to_owned()),
        (1..9u32).prop_map(|n| format!("{{closed: {n}}}")),
        (1..9u32, law()).prop_map(|(n, think)| format!("{{users: {n}, think: {think}}}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_spec_is_refused_in_words_or_runs_in_order(
        (arrival, input, output) in (arrival(), law(), law()),
        (turns, think, retained) in (1..5u32, law(), 0.0..1.0f64),
        (groups, zipf) in (1..5u32, 0.0..3.0f64),
        pacing in pacing(),
    ) {
        let text = format!(
            "synthetic: {{arrival: {arrival}, input_tokens: {input}, output_tokens: {output}, \
             sessions: {{turns: {turns}, think: {think}, retained_output: {retained}}}, \
             shared_prefix: {{groups: {groups}, tokens: {input}, zipf: {zipf}}}}}\nloop: {pacing}\nrequests: 60"
        );
        let Ok(spec) = serde_saphyr::from_str::<WorkloadSpec>(&text) else { return Ok(()) };
        let Ok(workload) = open(&spec, Path::new(".")) else { return Ok(()) };
        let sent = run(&workload, 1, 100);
        prop_assert!(sent.len() <= 60);
        prop_assert!(sent.is_sorted_by_key(|request| (request.arrival, request.id)));
        prop_assert!(sent.iter().all(|request| request.output_tokens >= 1 && request.prompt.tokens() >= 1));
    }
}
