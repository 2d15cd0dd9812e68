//! `forerun calibrate check` and `serve`, from the command line to files.

use std::fs;

use serde_json::Value;

use crate::support::{Folder, Run};

/// The samples of the repository.
fn samples() -> Folder {
    let folder = Folder::new();
    for name in ["server.yaml", "bench.json", "measured-2rps.csv", "measured-10rps.csv"] {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/").to_owned() + name;
        folder.write(name, fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}")));
    }
    folder
}

fn calibrate(folder: &Folder, args: &[&str]) -> Run {
    folder.run(&[&["calibrate"], args].concat())
}

#[track_caller]
fn json(folder: &Folder, args: &[&str]) -> Value {
    let run = calibrate(folder, &[args, &["--format", "json"]].concat());
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn a_run_of_our_own_is_predicted_exactly() {
    let folder = Folder::with_scenario(
        "workload: {synthetic: {arrival: {poisson: {rate: 5}}, input_tokens: 700, output_tokens: 30}, requests: 80}\n",
    );
    let run = folder.run(&["simulate", "scenario.yaml", "--outcomes", "outcomes.csv"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let checked = json(&folder, &["check", "--from", "outcomes.csv", "--scenario", "scenario.yaml"]);
    let figures = checked["runs"][0]["figures"].as_object().unwrap();
    for (metric, statistic) in [("ttft_ms", "mean"), ("tpot_ms", "p99"), ("e2e_ms", "p50"), ("e2e_ms", "p99")]
    {
        let error = figures[metric][statistic]["error"].as_f64().unwrap();
        assert!(error.abs() < 1e-5, "{metric} {statistic}: {error}");
    }
    assert_eq!(checked["runs"][0]["requests"]["answered"], 80);
    let cdf = &checked["runs"][0]["cdf"]["e2e_ms"];
    assert_eq!(cdf["measured"].as_array().unwrap().len(), 101);
}

#[test]
fn a_fit_writes_a_profile_with_which_the_run_is_predicted() {
    let folder = samples();
    let files = ["--from", "measured-2rps.csv", "measured-10rps.csv", "--scenario", "server.yaml"];
    let error = |checked: &Value, run: usize| {
        checked["runs"][run]["figures"]["e2e_ms"]["mean"]["error"].as_f64().unwrap()
    };
    let before = json(&folder, &[&["check"], &files[..]].concat());
    assert!(
        error(&before, 0) < -0.08 && error(&before, 1) < -0.08,
        "the samples are slower than the catalog"
    );
    let fit = json(&folder, &[&["serve"], &files[..], &["-o", "served.json"]].concat());
    let api_server = &fit["profile"]["constants"]["api_server_ms"];
    let [low, high] = [0, 1].map(|end| api_server["interval"][end].as_f64().unwrap());
    assert!(low < 9.0 && 9.0 < high * 1.02, "9 ms were planted: {api_server}");
    let profile: Value = serde_json::from_str(&folder.read("served.json")).unwrap();
    assert_eq!(profile["schema"], "forerun-served/1");
    let after = json(&folder, &[&["check"], &files[..], &["--set", "profile=served.json"]].concat());
    assert!(error(&after, 0).abs() < 0.02 && error(&after, 1).abs() < 0.02, "{after}");
    let summary = folder.summary(&[
        "server.yaml",
        "--preset",
        "azure-conv",
        "--set",
        "workload.requests=20",
        "--set",
        "profile=served.json",
    ]);
    assert_eq!(summary["cost_model"][0]["grade"], "measured here");
    let uncertainty = &summary["cost_model"][0]["uncertainty"];
    assert!(uncertainty["errors"]["e2e_ms.mean"][0].is_number(), "{uncertainty}");
}

#[test]
fn a_chart_shows_both_distributions() {
    let folder = samples();
    let args = ["check", "--from", "bench.json", "--scenario", "server.yaml", "--chart", "bench.svg"];
    assert_eq!(calibrate(&folder, &args).code, Some(0));
    let chart = folder.read("bench.svg");
    assert!(chart.contains("measured") && chart.contains("predicted") && chart.contains("TTFT, ms"));
}

#[test]
fn wrong_input_is_one_message_and_nothing_is_written() {
    let folder = samples();
    folder.write("torn.json", &folder.read("bench.json")[..4000]);
    folder.write("short.csv", "arrival_s,input_tokens,output_tokens,e2e_ms\n0,10,5,100\n");
    folder.write("other.json", "{\"schema\": \"forerun-served/1\", \"gpu\": 3}");
    folder.write("pairs.yaml", "pools: [{gpu: h100-sxm}, {gpu: h100-sxm}]\n");
    let before = folder.names();
    for (args, part) in [
        (&["check", "--from", "torn.json", "--scenario", "server.yaml"][..], "torn.json:1: is no result"),
        (&["check", "--from", "none.json", "--scenario", "server.yaml"], "none.json"),
        (&["check", "--from", "bench.json", "--scenario", "none.yaml"], "none.yaml"),
        (&["check", "--from", "bench.json", "--scenario", "server.yaml", "--column", "a"], "write OURS=NAME"),
        (
            &["check", "--from", "bench.json", "--scenario", "server.yaml", "--column", "a=b"],
            "columns are for tables",
        ),
        (
            &["check", "--from", "bench.json", "bench.json", "--scenario", "server.yaml", "--chart", "c.svg"],
            "a chart is of one",
        ),
        (
            &["check", "--from", "bench.json", "--scenario", "server.yaml", "--set", "profile=other.json"],
            "other.json: is not a profile",
        ),
        (
            &["serve", "--from", "short.csv", "--scenario", "server.yaml", "-o", "p.json"],
            "at least 50 are needed",
        ),
        (&["serve", "--from", "bench.json", "--scenario", "pairs.yaml", "-o", "p.json"], "keep the pool"),
    ] {
        let run = calibrate(&folder, args);
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{args:?}: {}", run.stderr);
        assert_eq!(folder.names(), before, "{args:?}");
    }
}
