//! The validation suite: against recordings, traces and measured servers that are not part of this repository.
//!
//! It reads the folder named by `FORERUN_SHARED` (default `../shared`), and takes every file that it finds in
//! `golden/traces` there. What is absent is reported as ignored, never as passed.

mod golden;
mod router;
mod router_state;
mod static_times;
mod validation_ladder;
mod validation_measures;
mod validation_served;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use forerun_planner::assemble::assemble;
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{Origin, read};
use forerun_planner::served::trust;
use forerun_planner::simulate::simulate;
use forerun_planner::validate::{Options, Target, Validated, validate};
use forerun_reports::summary::Summary;
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::json;

fn main() {
    let shared = PathBuf::from(std::env::var_os("FORERUN_SHARED").unwrap_or_else(|| "../shared".into()));
    let mut trials = goldens(&shared.join("golden/traces"));
    trials.extend(validation_measures::trials(&shared.join("traces")));
    trials.extend(RECORDED_TRACES.map(|(path, rows)| trace_trial(shared.join("traces").join(path), rows)));
    trials.extend(measured_trials(&shared));
    trials.extend(
        ["approx_prefix", "precise_prefix", "flow"]
            .iter()
            .flat_map(|kind| router_trials(&shared.join("golden/router"), kind)),
    );
    trials.extend(routers(&shared.join("golden/router")));
    trials.extend(validation_ladder::trials(&shared.join("groundtruth")));
    trials.extend(static_times::trials(&shared));
    trials.extend(validation_served::trials(&shared.join("groundtruth")));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn goldens(folder: &Path) -> Vec<Trial> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![Trial::test("golden::folder_is_absent", || Ok(())).with_ignored_flag(true)];
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.into_iter().map(golden_trial).collect()
}

/// Recordings of the llm-d router's own scheduling code.
fn routers(folder: &Path) -> Vec<Trial> {
    let paths = router::recordings(folder);
    if paths.is_empty() {
        return vec![Trial::test("router::folder_is_absent", || Ok(())).with_ignored_flag(true)];
    }
    let trial = |path: PathBuf| {
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let name = format!("router::{parent}::{}", path.file_stem().unwrap_or_default().to_string_lossy());
        Trial::test(name, move || router::replay(&path).map(|_| ()).map_err(Failed::from))
    };
    paths.into_iter().map(trial).collect()
}

/// A recording is replayed field by field.
fn golden_trial(path: PathBuf) -> Trial {
    let name = format!("golden::{}", path.file_stem().unwrap_or_default().to_string_lossy());
    let replay = move || {
        let json = std::fs::read_to_string(&path).map_err(|e| Failed::from(e.to_string()))?;
        golden::FORMS.iter().try_for_each(|replay| replay(&json).map(|_| ()).map_err(Failed::from))
    };
    Trial::test(name, replay)
}

/// Every recording of the router's state in folder `kind`. One that nothing replays is ignored.
fn router_trials(golden: &Path, kind: &'static str) -> Vec<Trial> {
    let name = |stem: &str| format!("router::{kind}::{stem}");
    let Ok(entries) = std::fs::read_dir(golden.join(kind)) else {
        return vec![Trial::test(name("folder_is_absent"), || Ok(())).with_ignored_flag(true)];
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let trial = |path: PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(replay) = router_state::replay_of(kind, &stem) else {
            return Trial::test(name(&stem), || Ok(())).with_ignored_flag(true);
        };
        let run = move || router_state::replay(&path, replay).map(|_| ()).map_err(Failed::from);
        Trial::test(name(&stem), run)
    };
    paths.into_iter().map(trial).collect()
}

/// Recorded traces and their rows: each runs to its end with every request accounted for.
const RECORDED_TRACES: [(&str, u64); 4] = [
    ("mooncake/conversation_trace.jsonl.gz", 12_031),
    ("mooncake/synthetic_trace.jsonl.gz", 3_993),
    ("azure2023/AzureLLMInferenceTrace_code.csv.gz", 8_819),
    ("azure2023/AzureLLMInferenceTrace_conv.csv.gz", 19_366),
];

fn trace_trial(path: PathBuf, rows: u64) -> Trial {
    let name = format!("trace::{}", path.file_name().unwrap_or_default().to_string_lossy());
    let ignored = !path.exists();
    let run = move || {
        let overrides = [("workload.trace", json!(absolute(&path)?)), ("pools.0.replicas", json!(4))];
        let summary = summary(Origin::CommandLine, overrides)?;
        let requests = &summary.requests;
        let ended = requests.completed + requests.failed + requests.rejected + requests.unfinished;
        ensure(requests.arrived == rows, || format!("{} requests arrived of {rows} rows", requests.arrived))?;
        ensure(ended == rows, || format!("{ended} requests ended of {rows}"))?;
        ensure(requests.unfinished == 0, || format!("{} requests never ended", requests.unfinished))
    };
    Trial::test(name, run).with_ignored_flag(ignored)
}

/// One trial for each target of each measured server: its error is no larger than the target or, where that is known
/// to be missed, than the server's description accepts. docs/validation.md has the errors themselves.
fn measured_trials(shared: &Path) -> Vec<Trial> {
    let (folder, silicon) = (shared.join("groundtruth"), shared.join("silicon"));
    if !folder.is_dir() {
        return vec![Trial::test("measured::folder_is_absent", || Ok(())).with_ignored_flag(true)];
    }
    let silicon = silicon.is_dir().then_some(silicon);
    let options = Options { folder: &folder, silicon: silicon.as_deref(), only: None };
    let all = match validate(&options) {
        Ok(all) => all,
        Err(error) => {
            let why = error.to_string();
            return vec![Trial::test("measured::validate", move || Err(why.into()))];
        }
    };
    let mut trials = vec![shipped_errors(&all, silicon.is_some())];
    for server in &all {
        for verdict in server.verdicts() {
            let Target { figure, step_times, .. } = verdict.target;
            let name =
                format!("measured::{}::{}::{step_times:?}::{figure}", server.server.name, verdict.cell);
            let (accepted, error) = (verdict.accepted(), verdict.error * 100.0);
            trials.push(Trial::test(name, move || ensure(accepted, || format!("off by {error:+.1} %"))));
        }
        if let Some(why) = server.skipped.clone() {
            let name = format!("measured::{}::is_simulated", server.server.name);
            trials.push(Trial::test(name, move || Err(why.into())));
        }
    }
    trials
}

/// The errors that reports tell as their uncertainty are those of today's simulator.
fn shipped_errors(all: &[Validated], complete: bool) -> Trial {
    let models = trust::models(all);
    let run = move || {
        let models = models.map_err(|e| Failed::from(e.to_string()))?;
        let same = models.len() == trust::known().len()
            && models.iter().zip(trust::known()).all(|(model, known)| model.is_like(known));
        ensure(same, || {
            "planner/servers/errors.json is not what `forerun validate --errors` writes: write it anew".into()
        })
    };
    Trial::test("measured::shipped_errors", run).with_ignored_flag(!complete)
}

fn summary<const N: usize>(
    origin: Origin<'_>,
    overrides: [(&str, serde_json::Value); N],
) -> Result<Summary, Failed> {
    let overrides = overrides.map(|(path, value)| Override::new(path, value));
    let loaded = read(origin, &overrides).map_err(|e| Failed::from(e.to_string()))?;
    let assembled = assemble(&loaded).map_err(|e| Failed::from(e.to_string()))?;
    simulate(&assembled, None, &mut |_| ControlFlow::Continue(())).map_err(|e| Failed::from(e.to_string()))
}

fn absolute(path: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(|e| Failed::from(e.to_string()))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::from(otherwise())) }
}
