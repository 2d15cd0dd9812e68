//! `forerun compare` as its users run it.

use serde_json::Value;

use crate::support::{Folder, conforms};

/// Tenants on three replicas, small enough to run often.
const FLEET: &str = "
model: Qwen/Qwen3-8B
workload:
  requests: 400
  synthetic:
    arrival: {poisson: {rate: 60}}
    input_tokens: {lognormal: {median: 400, sigma: 0.8}}
    output_tokens: {uniform: {min: 1, max: 60}}
    shared_prefix: {groups: 6, tokens: 800, zipf: 1.0}
slo: {ttft: 300ms, attainment: 0.9}
pools: [{name: vllm, replicas: 3}]
run: {replications: 5}
";

const ROUTERS: [&str; 6] = ["--router", "round-robin", "--router", "random", "--router", "least-requests"];

fn compare(folder: &Folder, args: &[&str]) -> String {
    let run = folder.run(&[&["compare"], args].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}: {}", run.stdout);
    run.stdout
}

fn json(folder: &Folder, args: &[&str]) -> Value {
    let text = compare(folder, &[args, &["--format", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn without_wall(mut comparison: Value) -> String {
    let simulation = comparison["simulation"].as_object_mut().expect("a section");
    assert!(simulation.remove("wall_s").is_some_and(|wall_s| wall_s.is_number()));
    comparison.to_string()
}

#[test]
fn two_comparisons_give_the_same_bytes_and_conform_to_the_schema() {
    let folder = Folder::with_scenario(FLEET);
    let args = [&["scenario.yaml"][..], &ROUTERS].concat();
    let comparison = json(&folder, &args);
    let schema = folder.run(&["schema", "compare"]).stdout;
    let schema: Value = serde_json::from_str(&schema).expect("a schema is JSON");
    conforms(&schema, &schema, &comparison).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(without_wall(comparison), without_wall(json(&folder, &args)));
    let markdown = [&args[..], &["--format", "markdown"]].concat();
    assert_eq!(compare(&folder, &markdown), compare(&folder, &markdown));
}

#[test]
fn every_variant_is_sent_the_same_requests_by_each_of_the_same_seeds() {
    let folder = Folder::with_scenario(FLEET);
    let comparison = json(&folder, &[&["scenario.yaml"][..], &ROUTERS].concat());
    assert_eq!(comparison["schema"], "forerun/compare/v1");
    assert_eq!(comparison["baseline"], "round-robin");
    let traffic = &comparison["traffic"];
    for key in ["same_requests", "same_arrivals", "paired"] {
        assert_eq!(traffic[key], true, "{traffic}");
    }
    assert_eq!(
        (traffic["requests"].as_u64(), comparison["simulation"]["runs"].as_u64()),
        (Some(2000), Some(15))
    );
    // The first seed is the scenario's: its runs are those of `simulate`.
    let seeds = comparison["method"]["seeds"].as_array().expect("a list");
    let ttft = |router: &str| {
        let of = |seed: &Value| {
            let args =
                ["scenario.yaml", "--router", router, "--replications", "1", "--seed", &seed.to_string()];
            folder.summary(&args)["ttft_ms"]["mean"].as_f64().expect("a figure")
        };
        seeds.iter().map(of).sum::<f64>() / seeds.len() as f64
    };
    for (place, router) in ["round-robin", "random", "least-requests"].into_iter().enumerate() {
        let mean =
            comparison["variants"][place]["figures"]["ttft_mean_ms"]["mean"].as_f64().expect("a figure");
        assert!((mean / ttft(router) - 1.0).abs() < 1e-12, "{router}");
    }
}

#[test]
fn a_variant_of_fields_is_held_against_the_scenario_and_asserted() {
    let folder = Folder::with_scenario(FLEET);
    let assert_not_worse = |variant: &str| {
        let args = ["compare", "scenario.yaml", "--variant", variant, "--assert-not-worse"];
        let run = folder.run(&args);
        (run.code, run.stdout)
    };
    let (code, table) = assert_not_worse("one: pools.0.replicas=1; engine.max_num_seqs=8");
    assert_eq!(code, Some(1), "{table}");
    assert!(table.contains("one against as given") && table.contains("worse"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(!table.contains('\u{1b}'), "no colour without a terminal");
    let (code, table) = assert_not_worse("same:");
    assert_eq!(code, Some(0), "{table}");
    assert!(!table.contains("better") || table.contains("verdicts of better"), "{table}");
}

#[test]
fn scenario_files_are_compared_and_markdown_has_their_table() {
    let folder = Folder::with_scenario(FLEET);
    folder.write("big.yaml", FLEET.replace("replicas: 3", "replicas: 9"));
    let text =
        compare(&folder, &["--scenario", "scenario.yaml", "--scenario", "big.yaml", "--format", "markdown"]);
    assert!(text.starts_with("## big against scenario\n"), "{text}");
    assert!(text.contains("| big against scenario | change | 95 % from | to | verdict |"), "{text}");
    assert!(text.contains("| **better** |"), "{text}");
}

#[test]
fn a_recorded_trace_is_run_once_and_cut_into_windows() {
    let folder = Folder::new();
    let rows = (0..800).map(|row| format!("{}.{:02},{},20\n", row / 20, row % 20 * 5, 300 + row * 37 % 900));
    folder
        .write("trace.csv", "arrival_s,input_tokens,output_tokens\n".to_owned() + &rows.collect::<String>());
    let variants = ["--replicas", "2", "--variant", "two:", "--variant", "six: pools.0.replicas=6"];
    let comparison = json(&folder, &[&["--trace", "trace.csv"][..], &variants].concat());
    assert_eq!(comparison["method"]["kind"], "windows");
    assert_eq!(comparison["simulation"]["runs"], 2);
    assert_eq!(comparison["pairs"][0]["figures"]["ttft_mean_ms"]["verdict"], "better");
    assert!(comparison["pairs"][0]["figures"]["itl_mean_ms"]["interval"].is_null());
}

#[test]
fn what_cannot_be_compared_is_refused_with_its_mend() {
    let folder = Folder::with_scenario(FLEET);
    for (args, part) in [
        (&["scenario.yaml"][..], "--router round-robin --router least-requests"),
        (&["scenario.yaml", "--router", "round-robyn"], "did you mean `round-robin`?"),
        (&["scenario.yaml", "--router", "random", "--router", "random"], "two variants are called `random`"),
        (&["scenario.yaml", "--variant", "pools.0.replicas=4"], "it has no name"),
        (&["scenario.yaml", "--variant", "x: pols.0.replicas=4"], "pols"),
        (&["scenario.yaml", "--variant", "x=missing.yaml"], "missing.yaml"),
        (&["--scenario", "missing.yaml", "--router", "random"], "missing.yaml"),
        (&["scenario.yaml", "--router", "random", "--margin", "-1"], "--margin -1"),
        (&["scenario.yaml", "--router", "random", "--replications", "0"], "`run.replications` is 0"),
    ] {
        let run = folder.run(&[&["compare"], args].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{args:?}: {}", run.stderr);
    }
}
