//! A measured server calibrated on two of its loads: what the fit predicts of the others.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use forerun_planner::scenario::read::{Loaded, parse};
use forerun_planner::served::{MeasuredFiles, check, fit};
use libtest_mimic::{Failed, Trial};

/// The server, as its server_config.json has it.
const SERVER: &str = "
model: Qwen/Qwen3-14B
engine: {num_gpu_blocks: 18038, max_num_batched_tokens: 8192, max_num_seqs: 256}
pools: [{gpu: h100-sxm}]
";
/// The loads that the constants are fitted to.
const FITTED: [&str; 2] = ["agg_2rps", "agg_8rps"];
/// The others; the last has more requests than it serves, of which its client kept at most 256 in flight.
const OTHERS: [&str; 3] = ["agg_4rps", "agg_6rps", "agg_18rps_closed256"];
/// Figures, and how near they must come, in percent.
const HELD: [(&str, f64); 4] =
    [("E2E mean", 3.0), ("E2E p99", 5.0), ("TTFT mean", 10.0), ("requests/s", 5.0)];

/// One trial for each figure.
pub(crate) fn trials(groundtruth: &Path) -> Vec<Trial> {
    let folder = groundtruth.join("vllm-qwen3-14b-h100");
    if !folder.is_dir() {
        return vec![Trial::test("served::folder_is_absent", || Ok(())).with_ignored_flag(true)];
    }
    let trial = |(load, figure, within): (&'static str, &'static str, f64)| {
        let folder = folder.clone();
        Trial::test(format!("served::{load}::{figure}"), move || {
            let error = 100.0 * error(&folder, load, figure)?;
            match error.abs() <= within {
                true => Ok(()),
                false => Err(Failed::from(format!("off by {error:+.1} %, {within} % are allowed"))),
            }
        })
    };
    let all = OTHERS.into_iter().flat_map(|load| HELD.map(|(figure, within)| (load, figure, within)));
    all.map(trial).collect()
}

fn server(more: &str) -> Result<Loaded, Failed> {
    let scenario = parse(&format!("{SERVER}{more}"), &[]).map_err(|e| Failed::from(e.to_string()))?;
    Ok(Loaded { scenario, base: PathBuf::new(), name: "server".into() })
}

fn of(folder: &Path, loads: &[&str]) -> MeasuredFiles {
    let trace = |load: &&str| folder.join(load).join("trace.csv.gz");
    MeasuredFiles { paths: loads.iter().map(trace).collect(), ..MeasuredFiles::default() }
}

/// The profile, fitted once.
fn profile(folder: &Path) -> Result<String, Failed> {
    static PROFILE: OnceLock<Result<String, String>> = OnceLock::new();
    let fit = || {
        let server = server("").map_err(|_| "the server's scenario is wrong".to_owned())?;
        let fit = fit(&of(folder, &FITTED), &server, &|_| ControlFlow::Continue(()));
        fit.map(|fit| fit.profile.to_json()).map_err(|e| e.to_string())
    };
    PROFILE.get_or_init(fit).clone().map_err(Failed::from)
}

/// Predicted over measured, minus one.
fn error(folder: &Path, load: &str, figure: &str) -> Result<f64, Failed> {
    let said = |e: &dyn std::fmt::Display| Failed::from(e.to_string());
    let scratch = tempfile::tempdir().map_err(|e| said(&e))?;
    let path = scratch.path().join("served.json");
    std::fs::write(&path, profile(folder)?).map_err(|e| said(&e))?;
    let capped = if load.ends_with("closed256") { "workload: {loop: {at_most: 256}}\n" } else { "" };
    let server = server(&format!("{capped}profile: {}\n", path.display()))?;
    let checked =
        check(&of(folder, &[load]), &server, &|_| ControlFlow::Continue(())).map_err(|e| said(&e))?;
    let run = checked.runs.first().ok_or_else(|| Failed::from("no run"))?;
    run.error(figure).ok_or_else(|| Failed::from(format!("no figure {figure}")))
}
