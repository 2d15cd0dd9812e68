//! Whole runs of the `forerun` command, timed from outside: requests per second, CPU time, peak memory.
//!
//! ```text
//! cargo bench --bench runner                     every scenario of benches/scenarios
//! cargo bench --bench runner -- light tenants    those whose names contain one of the words
//! cargo bench --bench runner -- --runs 9         so many runs of each; the table shows the best (default 5)
//! cargo bench --bench runner -- --quick          few requests, one run: does everything still work?
//! ```
//!
//! The best of several runs is shown, since other work on the machine only ever adds time. CPU time and memory come
//! from GNU time (`/usr/bin/time`); without it those columns are empty. Nothing is asserted about speed.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use serde_json::Value;

/// Requests of each scenario with `--quick`.
const QUICK_REQUESTS: u32 = 2000;
/// Runs of each scenario, unless `--runs` says otherwise.
const RUNS: u32 = 5;
/// GNU time: user and system seconds, peak resident memory in KiB.
const GNU_TIME: &str = "/usr/bin/time";
const GNU_TIME_FORMAT: &str = "%U %S %M";
/// The scenario that needs a trace, and where the trace is in the folder that `FORERUN_SHARED` names.
const TRACE_SCENARIO: &str = "mooncake";
const TRACE: &str = "traces/mooncake/conversation_trace.jsonl.gz";
/// How the comment of a scenario file begins that says what it should reach.
const TARGET: &str = "# Target: ";
/// A scenario too long to be run more than once.
const LONG_SCENARIO: &str = "stream";

fn main() -> ExitCode {
    match Plan::from_args(std::env::args().skip(1)).and_then(|plan| plan.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// What to run.
struct Plan {
    quick: bool,
    runs: u32,
    /// Parts of names; empty for all scenarios.
    words: Vec<String>,
}

/// One scenario file.
struct Scenario {
    name: String,
    file: PathBuf,
    trace: Option<PathBuf>,
    /// What it should reach, in words: a comment of the file.
    target: String,
}

/// What one run took.
#[derive(Clone, Copy)]
struct Sample {
    requests: u64,
    wall_s: f64,
    usage: Option<Usage>,
}

/// What GNU time says.
#[derive(Clone, Copy)]
struct Usage {
    cpu_s: f64,
    peak_mib: f64,
}

impl Plan {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self { quick: false, runs: RUNS, words: Vec::new() };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                // Cargo passes it to every benchmark.
                "--bench" => {}
                "--quick" => plan.quick = true,
                "--runs" => {
                    let count = args.next().and_then(|count| count.parse().ok()).filter(|&count| count > 0);
                    plan.runs = count.ok_or("--runs needs a number of at least 1")?;
                }
                flag if flag.starts_with('-') => {
                    return Err(format!("{flag} is not known: use --quick, --runs N, or parts of names"));
                }
                word => plan.words.push(word.to_owned()),
            }
        }
        Ok(plan)
    }

    fn run(&self) -> Result<(), String> {
        let with_usage = gnu_time_works();
        if !with_usage {
            println!("no GNU time at {GNU_TIME}: wall time only");
        }
        println!(
            "| {:<22} | {:>10} | {:>10} | {:>10} | {:>8} | {:>8} | {:>8} | {:>8} | target |",
            "scenario", "requests", "req/s", "req/CPU s", "wall s", "CPU s", "us/req", "peak MiB"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---|");
        for scenario in scenarios()?.iter().filter(|scenario| self.wants(scenario)) {
            if scenario.name == TRACE_SCENARIO && scenario.trace.is_none() {
                eprintln!("{}: left out, FORERUN_SHARED names no folder with {TRACE}", scenario.name);
                continue;
            }
            let runs = if self.quick || scenario.name == LONG_SCENARIO { 1 } else { self.runs };
            let mut best: Option<Sample> = None;
            for _ in 0..runs {
                let sample = scenario.time(self.quick, with_usage)?;
                if best.is_none_or(|best| sample.seconds() < best.seconds()) {
                    best = Some(sample);
                }
            }
            if let Some(best) = best {
                print_row(scenario, best);
            }
        }
        Ok(())
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| scenario.name.contains(word))
    }
}

impl Scenario {
    fn read(file: PathBuf) -> Result<Self, String> {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        let target = text.lines().find_map(|line| line.strip_prefix(TARGET)).unwrap_or_default().to_owned();
        let trace = (name == TRACE_SCENARIO).then(trace).flatten();
        Ok(Self { name, file, trace, target })
    }

    /// Runs it once.
    fn time(&self, quick: bool, with_usage: bool) -> Result<Sample, String> {
        let wrong = |why: String| format!("{}: {why}", self.name);
        let forerun = env!("CARGO_BIN_EXE_forerun");
        let mut command = if with_usage {
            let mut command = Command::new(GNU_TIME);
            command.args(["-f", GNU_TIME_FORMAT, forerun]);
            command
        } else {
            Command::new(forerun)
        };
        command.arg("simulate").arg(&self.file).args(["--format", "json"]).stdin(Stdio::null());
        if let Some(trace) = &self.trace {
            command.arg("--trace").arg(trace);
        }
        if quick {
            command.arg("--set").arg(format!("workload.requests={QUICK_REQUESTS}"));
        }
        let started = Instant::now();
        let output = command.output().map_err(|e| wrong(e.to_string()))?;
        let wall_s = started.elapsed().as_secs_f64();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(wrong(format!("{}\n{stderr}", output.status)));
        }
        let summary: Value = serde_json::from_slice(&output.stdout).map_err(|e| wrong(e.to_string()))?;
        let count = |key: &str| summary["requests"][key].as_u64().unwrap_or(0);
        let (arrived, completed) = (count("arrived"), count("completed"));
        if arrived == 0 || completed != arrived {
            return Err(wrong(format!("{completed} of {arrived} requests completed: all should")));
        }
        let usage = stderr.lines().next_back().filter(|_| with_usage).and_then(Usage::parse);
        Ok(Sample { requests: arrived, wall_s, usage })
    }
}

impl Usage {
    fn parse(line: &str) -> Option<Self> {
        let numbers: Vec<f64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [user_s, system_s, peak_kib] = numbers[..] else { return None };
        Some(Self { cpu_s: user_s + system_s, peak_mib: peak_kib / 1024.0 })
    }
}

impl Sample {
    /// What runs are compared by: CPU time where it is known, to which waiting for a core does not add.
    fn seconds(&self) -> f64 {
        self.usage.map_or(self.wall_s, |usage| usage.cpu_s)
    }
}

fn print_row(scenario: &Scenario, sample: Sample) {
    let Scenario { name, target, .. } = scenario;
    let Sample { requests, wall_s, usage } = sample;
    let count = requests as f64;
    let or_dash = |value: Option<f64>, decimals: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
    };
    // GNU time counts hundredths of a second.
    let cpu_s = usage.map(|usage| usage.cpu_s).filter(|&cpu_s| cpu_s > 0.0);
    println!(
        "| {name:<22} | {requests:>10} | {:>10.0} | {:>10} | {wall_s:>8.3} | {:>8} | {:>8} | {:>8} | {target} |",
        count / wall_s,
        or_dash(cpu_s.map(|cpu_s| count / cpu_s), 0),
        or_dash(cpu_s, 2),
        or_dash(cpu_s.map(|cpu_s| cpu_s * 1e6 / count), 2),
        or_dash(usage.map(|usage| usage.peak_mib), 1),
    );
}

/// The files of `benches/scenarios`, in order of name.
fn scenarios() -> Result<Vec<Scenario>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/scenarios");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.into_iter().map(Scenario::read).collect()
}

/// The Mooncake trace, where it is at hand.
fn trace() -> Option<PathBuf> {
    let shared = PathBuf::from(std::env::var_os("FORERUN_SHARED")?);
    // A relative path starts from the root of the repository, as in the validation suite.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(shared).join(TRACE);
    file.is_file().then_some(file)
}

/// Whether GNU time is there; other systems have another command of that name.
fn gnu_time_works() -> bool {
    let probe = Command::new(GNU_TIME).args(["-f", GNU_TIME_FORMAT, "true"]).output();
    probe.is_ok_and(|output| {
        output.status.success() && Usage::parse(String::from_utf8_lossy(&output.stderr).trim()).is_some()
    })
}
