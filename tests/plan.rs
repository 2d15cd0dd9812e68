//! `forerun plan` and `forerun advise` as their users run them: from manifests, to files.

use serde_json::Value;

use crate::support::{Folder, conforms};

/// Tenants with prompts of their own, small enough to plan for often.
const TENANTS: &str = "
model: meta-llama/Llama-3.1-8B
workload:
  requests: 600
  synthetic:
    arrival: {poisson: {rate: 20}}
    input_tokens: {lognormal: {median: 200, sigma: 0.5}}
    output_tokens: {lognormal: {median: 60, sigma: 0.5}}
    shared_prefix: {groups: 12, tokens: 2000}
slo: {ttft: 1s, tpot: 50ms, attainment: 0.95}
";

/// What every plan of these tests may use.
const FEW: [&str; 8] = ["--gpus", "h100-sxm", "--tp", "1", "--roles", "together", "--batch-tokens", "8192"];

fn run(folder: &Folder, args: &[&str]) -> String {
    let run = folder.run(args);
    assert_eq!(run.code, Some(0), "{args:?}: {}{}", run.stdout, run.stderr);
    run.stdout
}

/// The document keeps to its published schema.
fn answers_to(folder: &Folder, name: &str, document: &Value) {
    let schema: Value = serde_json::from_str(&run(folder, &["schema", name])).expect("a schema");
    conforms(&schema, &schema, document).unwrap_or_else(|why| panic!("{name}: {why}"));
}

#[test]
fn a_plan_becomes_files_that_run_again_and_have_no_known_hazard() {
    let folder = Folder::with_scenario(TENANTS);
    let args =
        ["plan", "scenario.yaml", "--policies", "llm-d-prefix", "--emit", "deploy", "--format", "json"];
    let plan: Value = serde_json::from_str(&run(&folder, &[&args[..], &FEW].concat())).expect("JSON");
    answers_to(&folder, "plan", &plan);
    assert_eq!(plan["fleet"]["router"], "llm-d-prefix");
    for file in
        ["forerun.yaml", "epp-config.yaml", "modelservice-values.yaml", "httproute.yaml", "vllm-args.txt"]
    {
        assert!(folder.path("deploy").join(file).is_file(), "{file}");
    }
    let lint = run(&folder, &["lint", "deploy/epp-config.yaml", "--scenario", "deploy/forerun.yaml"]);
    assert!(lint.contains("no known hazard"), "{lint}");
    let again = run(&folder, &["simulate", "deploy/forerun.yaml", "--format", "json"]);
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!(again["slo_checks"][0]["holds"], true);
}

#[test]
fn a_plan_is_shown_as_a_table_and_missed_targets_have_their_exit_code() {
    let folder = Folder::with_scenario(TENANTS);
    let table =
        run(&folder, &[&["plan", "scenario.yaml", "--policies", "least-requests"][..], &FEW].concat());
    assert!(table.contains("The cheapest fleet that holds the SLO") && table.contains("What if"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    let never =
        ["plan", "scenario.yaml", "--slo", "ttft=1ms,attainment=0.9", "--max-replicas", "2", "--emit", "no"];
    let missed = folder.run(&[&never[..], &FEW].concat());
    assert_eq!(missed.code, Some(1), "{}", missed.stderr);
    assert!(!folder.path("no").exists(), "nothing is written for no fleet");
    for (args, part) in [
        (&["--gpus", "h100-sxn"][..], "did you mean"),
        (&["--max-gpus", "h100-sxm"], "h100-sxm=32"),
        (&["--confidence", "2"], "--confidence"),
        (&["--host-memory=-1"], "--host-memory"),
    ] {
        let wrong = folder.run(&[&["plan", "scenario.yaml"], args].concat());
        assert_eq!(wrong.code, Some(2), "{args:?}");
        assert!(wrong.stderr.contains(part) && wrong.stderr.lines().count() == 1, "{}", wrong.stderr);
    }
}

/// A case of AIConfigurator 0.12: model, prompt and answer tokens, limits on means, and its best fleets.
struct Case {
    model: &'static str,
    tokens: [u32; 2],
    slo: &'static str,
    together: &'static str,
    apart: &'static str,
    /// A rate that its better way holds, and the other does not.
    rate: f64,
    better: Way,
}

#[derive(Debug, PartialEq)]
enum Way {
    Together,
    Apart,
}

/// What AIConfigurator assumes of prefill and decode apart, and not of both together: latencies of prefills times 1.1,
/// of decodes times 1.08, and rates times 0.9 and 0.92 (its sdk/picking.py and sdk/task.py).
const FACTORS: &str = "step_time={prefill: 1.1, decode: 1.08}";
const RATE_FACTOR: f64 = 0.9;

#[test]
fn with_a_static_planners_factors_its_ranking_of_together_and_apart_is_ours() {
    let folder = Folder::with_scenario(include_str!("../examples/static-planner.yaml"));
    let cases = [
        Case {
            model: "Qwen/Qwen3-32B",
            tokens: [4000, 1000],
            slo: "{ttft_mean: 2s, tpot_mean: 30ms}",
            together: "[{tensor_parallel: 4, replicas: 4}]",
            apart: "[{role: prefill, replicas: 8}, {role: decode, tensor_parallel: 4, replicas: 2}]",
            rate: 11.3,
            better: Way::Together,
        },
        Case {
            model: "meta-llama/Llama-3.1-8B",
            tokens: [1000, 200],
            slo: "{ttft_mean: 1s, tpot_mean: 20ms}",
            together: "[{replicas: 8}]",
            apart: "[{role: prefill, replicas: 5}, {role: decode, replicas: 3}]",
            rate: 170.0,
            better: Way::Together,
        },
        Case {
            model: "meta-llama/Llama-3.1-70B",
            tokens: [4000, 1000],
            slo: "{ttft_mean: 2s, tpot_mean: 40ms}",
            together: "[{tensor_parallel: 8, replicas: 2}]",
            apart: "[{role: prefill, tensor_parallel: 2, replicas: 4}, {role: decode, tensor_parallel: 8, replicas: 1}]",
            rate: 6.2,
            better: Way::Apart,
        },
    ];
    for case in &cases {
        for (way, pools) in [(Way::Together, case.together), (Way::Apart, case.apart)] {
            let rate = if way == Way::Apart { case.rate / RATE_FACTOR } else { case.rate };
            // Long enough for batches to fill, and for a backlog to show.
            let lasts = f64::from(case.tokens[1]) * 0.4;
            let changes = [
                format!("model={}", case.model),
                format!("slo={}", case.slo),
                format!("pools={pools}"),
                format!("run.warm_up={}s", lasts / 8.0),
                format!("workload.requests={}", (rate * lasts) as u64),
                format!("workload.synthetic.arrival.poisson.rate={rate}"),
                format!("workload.synthetic.input_tokens={}", case.tokens[0]),
                format!("workload.synthetic.output_tokens={}", case.tokens[1]),
            ];
            let apart = ["router=null".to_owned(), FACTORS.to_owned()];
            let apart = apart.iter().filter(|_| way == Way::Apart);
            let sets = changes.iter().chain(apart).flat_map(|change| ["--set", change]);
            let summary = folder.summary(&["scenario.yaml"].into_iter().chain(sets).collect::<Vec<_>>());
            let holds =
                summary["slo_checks"].as_array().expect("limits").iter().all(|check| check["holds"] == true);
            assert_eq!(holds, way == case.better, "{} {way:?}: {}", case.model, summary["slo_checks"]);
        }
    }
}

#[test]
fn advice_stands_on_todays_manifests_and_becomes_files() {
    let folder = Folder::with_scenario("workload: {preset: azure-conv, rate: 2, requests: 400}");
    folder.write("today.yaml", include_str!("../examples/manifests/current.yaml"));
    let args = [
        "advise",
        "scenario.yaml",
        "--current",
        "today.yaml",
        "--trial-requests",
        "200",
        "--replications",
        "2",
    ];
    let advice =
        run(&folder, &[&args[..], &["--emit", "deploy", "--openshift", "--format", "json"]].concat());
    let advice: Value = serde_json::from_str(&advice).expect("JSON");
    answers_to(&folder, "advise", &advice);
    assert_eq!((advice["today"]["name"].as_str(), advice["today"]["gpus"].as_u64()), (Some("chat"), Some(6)));
    let ogx = folder.read("deploy/ogx-run-config.yaml");
    assert!(ogx.contains("@today"), "{ogx}");
    assert!(folder.path("deploy/openshift-emptydirs-patch.yaml").is_file());
    let nothing = folder.run(&["advise", "scenario.yaml", "--current", "scenario.yaml"]);
    assert_eq!(nothing.code, Some(2));
    assert!(nothing.stderr.contains("no server that runs vLLM"), "{}", nothing.stderr);
}
