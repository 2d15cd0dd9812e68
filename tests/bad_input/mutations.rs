//! Scenarios and traces with random damage: never a panic, one message.

use std::path::Path;

use forerun_planner::assemble::assemble;
use forerun_planner::scenario::read::{self, Loaded};
use proptest::prelude::*;

use crate::support::Folder;

/// A valid scenario that uses most of the format; its runs are not of interest here.
const VALID: &str = "\
model: Qwen/Qwen3-8B
dtype: bf16
workload:
  synthetic:
    arrival: {gamma: {rate: 20, cv: 2}}
    input_tokens: {mix: [{weight: 1, law: 900}, {weight: 2, law: {lognormal: {median: 90, sigma: 0.8}}}]}
    output_tokens: {clip: {law: {exponential: {mean: 40}}, min: 1, max: 90}}
    shared_prefix: {groups: 15, tokens: 600, users_per_group: 5, zipf: 0}
    sessions: {turns: {beta_geometric: [3.39, 1.01]}, think: {lognormal: {median: 30s, sigma: 1}}}
    adapters: {count: 64, zipf: 1.2}
  requests: 20
  loop: {users: 5, think: 20s}
  client: {timeout: 300s, retries: 2}
slo: {ttft: 2s, tpot: 50ms, attainment: 0.95, classes: {batch: {e2e: 1h}}}
engine: {max_num_batched_tokens: 8192, max_num_seqs: 256, num_gpu_blocks: 9000, watermark: 0.01}
pools:
  - {name: small, role: both, gpu: h100-sxm, tensor_parallel: 2, replicas: 3}
  - {name: large, gpu: h200-sxm, engine: {max_loras: 3}}
router: {preset: random}
overhead: {gateway: 2ms, api_server: 5ms}
cost: {gpu_hour_usd: {h100-sxm: 2.5, h200-sxm: 3}}
run: {seed: 1, warm_up: 60s, horizon: 2h}
";

const VALID_TRACE: &str = "\
arrival_s,input_tokens,output_tokens,id,tenant,session,turn,think_s,priority,max_tokens,block_hashes,block_tokens
0,100,5,a,acme,s,1,,0,,\"[1,2]\",64
0.5,200,7,b,acme,,,,1,50,,
1.25,300,9,c,,s,2,,-1,,\"[1,2,3]\",128
,400,9,d,,s,3,2.5,0,,,
9e0,100,5,e,\"x, y\",t,1,,0,7,,
";

/// Values that have broken parsers before.
const HOSTILE: [&str; 24] = [
    "-1",
    "0",
    ".nan",
    ".inf",
    "1e400",
    "99999999999999999999",
    "4294967295",
    "4294967296",
    "\"\"",
    "null",
    "~",
    "true",
    "[]",
    "{}",
    "&a [*a]",
    "*a",
    "!!binary x",
    "<<",
    "\u{0}",
    "\u{feff}",
    "\t",
    "\u{1f600}",
    "- -",
    "'",
];

/// One change of a text.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Drop(prop::sample::Index),
    Double(prop::sample::Index),
    Replace(prop::sample::Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        1 => place().prop_map(Change::Cut),
        1 => (place(), place()).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => place().prop_map(Change::Drop),
        1 => place().prop_map(Change::Double),
        4 => (place(), prop::sample::select(&HOSTILE[..])).prop_map(|(at, value)| Change::Replace(at, value)),
    ]
}

fn changed(text: &[u8], change: &Change) -> Vec<u8> {
    let mut bytes = text.to_vec();
    if bytes.is_empty() {
        return bytes;
    }
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    match change {
        Change::Flip(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
            return bytes;
        }
        Change::Cut(at) => return bytes[..at.index(bytes.len())].to_vec(),
        Change::Swap(a, b) => lines.swap(a.index(text_lines(text)), b.index(text_lines(text))),
        Change::Drop(at) => {
            lines.remove(at.index(text_lines(text)));
        }
        Change::Double(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines[at]);
        }
        Change::Replace(at, value) => {
            // A token: what stands between two separators.
            let separator = |byte: &u8| b" ,:{}[]\n\"".contains(byte);
            let at = at.index(bytes.len());
            let start = bytes[..at].iter().rposition(separator).map_or(0, |place| place + 1);
            let end = bytes[at..].iter().position(separator).map_or(bytes.len(), |length| at + length);
            bytes.splice(start..end, value.bytes());
            return bytes;
        }
    }
    lines.concat()
}

fn text_lines(text: &[u8]) -> usize {
    text.split_inclusive(|byte| *byte == b'\n').count()
}

fn mutated(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(change(), 1..4).prop_map(move |changes| {
        changes.iter().fold(text.as_bytes().to_vec(), |text, change| changed(&text, change))
    })
}

/// What the command does before it simulates, and the first requests of what it would simulate.
fn read_and_assemble(text: &str, base: &Path) -> Result<(), String> {
    use forerun_sim::source::Source as _;
    let scenario = read::parse(text, &[]).map_err(|e| e.to_string())?;
    let loaded = Loaded { scenario, base: base.to_owned(), name: "scenario.yaml".into() };
    let assembled = assemble(&loaded).map_err(|e| e.to_string())?;
    let mut source = assembled.workload.source(assembled.seed).map_err(|e| e.to_string())?;
    for _ in 0..20 {
        if source.pop().map_err(|e| e.to_string())?.is_none() {
            break;
        }
    }
    Ok(())
}

#[test]
fn the_scenario_and_the_trace_that_are_mutated_are_right() {
    let folder = Folder::new();
    read_and_assemble(VALID, &folder.path("")).expect("a valid scenario");
    folder.write("trace.csv", VALID_TRACE);
    read_and_assemble("workload: {trace: trace.csv}\n", &folder.path("")).expect("a valid trace");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn a_mutated_scenario_is_accepted_or_refused_in_one_line(bytes in mutated(VALID)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(message) = read_and_assemble(&text, Path::new("")) {
            prop_assert!(!message.is_empty() && !message.contains('\n') && message.len() < 4000, "{}", message);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn a_mutated_trace_is_accepted_or_refused_in_one_line(bytes in mutated(VALID_TRACE)) {
        let folder = Folder::new();
        folder.write("trace.csv", bytes);
        if let Err(message) = read_and_assemble("workload: {trace: trace.csv}\n", &folder.path("")) {
            prop_assert!(message.contains("trace.csv") && !message.contains('\n'), "{}", message);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn the_command_ends_with_0_or_2_on_mutated_files(scenario in mutated(VALID), trace in mutated(VALID_TRACE)) {
        let folder = Folder::new();
        folder.write("scenario.yaml", scenario);
        folder.write("trace.csv", trace);
        // The horizon keeps runs short whatever the mutation made of the workload.
        let short = ["--set", "workload.requests=20", "--set", "run.horizon=2h", "--set", "run.warm_up="];
        for args in [&["simulate", "scenario.yaml"][..], &["simulate", "--trace", "trace.csv"]] {
            let run = folder.run(&[args, &short].concat());
            prop_assert!(matches!(run.code, Some(0 | 2)), "{:?}: {}", run.code, run.stderr);
            prop_assert!(run.code == Some(0) || run.stdout.is_empty());
            prop_assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        }
    }
}
