//! One decision of an endpoint picker in full: `forerun route`, and `--explain` of runs.

use serde_json::{Value, json};

use crate::support::Folder;

/// Prefill and decode, each by its own profile; every prompt is prefilled elsewhere.
const DISAGGREGATED: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: disagg-profile-handler, parameters: {deciders: {prefill: always-disagg-pd-decider}}}
- {type: always-disagg-pd-decider}
- {type: prefill-filter}
- {type: decode-filter}
- {type: queue-scorer}
- {type: prefix-cache-scorer}
- {type: max-score-picker}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: prefix-cache-scorer, weight: 2}, {pluginRef: max-score-picker}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer, weight: 0.5}, {pluginRef: max-score-picker}]
";

const POOLS: &str = "
workload:
  requests: 30
  synthetic: {arrival: {poisson: {rate: 6}}, input_tokens: 800, output_tokens: 20, shared_prefix: {groups: 2, tokens: 640}}
pools: [{name: p, role: prefill, replicas: 2}, {name: d, role: decode, replicas: 2}]
router: {epp: epp.yaml}
";

fn decision(folder: &Folder, args: &[&str]) -> Value {
    let run = folder.run(&[args, &["--format", "json"]].concat());
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", run.stdout))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Totals are sums of weighted scores, the equals are those with the largest, and what is picked is among them.
fn assert_adds_up(profile: &Value) {
    let number = |value: &Value| value.as_f64().expect("a number");
    let mut best = f64::NEG_INFINITY;
    for candidate in list(&profile["candidates"]) {
        let mut sum = 0.0;
        for (place, weighted) in list(&candidate["weighted"]).iter().enumerate() {
            let raw = number(&candidate["raw"][place]).clamp(0.0, 1.0);
            assert_eq!(*weighted, json!(raw * number(&profile["scorers"][place]["weight"])), "{candidate}");
            sum += number(weighted);
        }
        assert_eq!(candidate["total"], json!(sum), "{candidate}");
        best = best.max(sum);
    }
    for candidate in list(&profile["candidates"]) {
        let is_tied = list(&profile["tied"]).contains(&candidate["endpoint"]);
        assert_eq!(is_tied, number(&candidate["total"]) >= best, "{candidate}");
    }
    assert!(list(&profile["tied"]).contains(&profile["picked"][0]), "{profile}");
}

#[test]
fn a_state_and_a_configuration_give_every_filter_and_score() {
    let folder = Folder::new();
    folder.write("epp.yaml", DISAGGREGATED);
    let endpoint = |name: &str, role: &str, waiting: u32| {
        json!({"name": name, "labels": {"llm-d.ai/role": role}, "metrics": {"waiting": waiting},
               "prefix": {"approx-prefix-cache-producer": {"matched_blocks": waiting, "block_tokens": 64}}})
    };
    let endpoints = [
        endpoint("a", "decode", 4),
        endpoint("b", "decode", 0),
        endpoint("c", "prefill", 5),
        endpoint("d", "prefill", 9),
    ];
    let state = json!({"endpoints": endpoints, "request": {"prompt_tokens": 640}});
    folder.write("state.json", state.to_string());
    let report = decision(&folder, &["route", "--epp", "epp.yaml", "--state", "state.json"]);
    assert_eq!((&report["primary"], &report["prefill"]), (&json!("b"), &json!("d")), "{report}");
    list(&report["profiles"]).iter().for_each(assert_adds_up);
    let [prefill, decode] = list(&report["profiles"]) else { panic!("two profiles: {report}") };
    assert_eq!(prefill["filters"], json!([{"name": "prefill-filter", "kept": ["c", "d"]}]));
    assert_eq!(decode["filters"], json!([{"name": "decode-filter", "kept": ["a", "b"]}]));
    assert_eq!(
        prefill["candidates"][0],
        json!({"endpoint": "c", "raw": [0.5], "weighted": [1.0], "total": 1.0})
    );
    let table = folder.run(&["route", "--epp", "epp.yaml", "--state", "state.json"]).stdout;
    for part in ["Request: to b, its prompt to d", "keeps 2 of 4", "drops a, b", "x 0.5", "1.8000  picked"] {
        assert!(table.contains(part), "{part:?} is not in:\n{table}");
    }
}

#[test]
fn equals_are_drawn_by_seed_or_taken_in_turn() {
    let folder = Folder::new();
    folder.write("epp.yaml", "");
    folder
        .write("state.json", "{endpoints: [{name: a}, {name: b}, {name: c}], request: {prompt_tokens: 10}}");
    let args = ["route", "--epp", "epp.yaml", "--state", "state.json"];
    let picked = |more: &[&str]| decision(&folder, &[&args, more].concat())["primary"].clone();
    let drawn: Vec<Value> = (0..12).map(|seed: u32| picked(&["--seed", &seed.to_string()])).collect();
    assert!(drawn.iter().any(|one| *one != drawn[0]), "{drawn:?}");
    assert_eq!(picked(&["--rotate"]), json!("a"));
}

#[test]
fn a_wrong_state_is_one_message_with_its_place() {
    let folder = Folder::new();
    folder.write("epp.yaml", "");
    let cases = [
        ("{endpoints: [{name: a}]}", "state.json: 1:2: missing field `request`"),
        ("{endpoints: [{name: a, lables: {}}], request: {prompt_tokens: 1}}", "did you mean `labels`?"),
        (
            "{endpoints: [{name: a, prefix: {precise: {matched_blocks: 0, block_tokens: 64}}}], request: {prompt_tokens: 1}}",
            "state.json: endpoints.0.prefix: no plugin reads matches of `precise`",
        ),
        (
            "{endpoints: [{name: a, in_flight: {requests: 1}}], request: {prompt_tokens: 1}}",
            "state.json: endpoints.0: `in_flight` is read by no plugin",
        ),
    ];
    for (state, part) in cases {
        folder.write("state.json", state);
        let run = folder.run(&["route", "--epp", "epp.yaml", "--state", "state.json"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{state}: {}", run.stderr);
        assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{part:?}: {}", run.stderr);
    }
}

#[test]
fn a_run_explains_any_of_its_decisions_with_both_profiles() {
    let folder = Folder::with_scenario(POOLS);
    folder.write("epp.yaml", DISAGGREGATED);
    let outcomes = folder.scenario_outcomes();
    for number in [0, 17, 29] {
        let outcome =
            outcomes.iter().find(|outcome| outcome.text("id") == number.to_string()).expect("its line");
        let report = decision(&folder, &["simulate", "scenario.yaml", "--explain", &number.to_string()]);
        assert_eq!(report["primary"], json!(outcome.text("replica")), "{report}");
        assert_eq!(report["prefill"], json!(outcome.text("prefill_replica")), "{report}");
        list(&report["profiles"]).iter().for_each(assert_adds_up);
        let ttft_ns = (report["outcome"]["ttft_ms"].as_f64().expect("it was answered") * 1e6).round();
        assert_eq!(ttft_ns as i64, outcome.nanos("first_token_s") - outcome.nanos("arrival_s"));
    }
}

#[test]
fn a_comparison_explains_the_same_request_of_each_variant() {
    let folder = Folder::with_scenario(&POOLS.replace("pools:", "#").replace("router:", "#"));
    folder.write("epp.yaml", "");
    let args =
        ["compare", "scenario.yaml", "--router", "llm-d-default", "--router", "epp.yaml", "--explain", "5"];
    let all = decision(&folder, &args);
    let [a, b] = list(&all) else { panic!("two variants: {all}") };
    assert_eq!((&a["variant"], &b["variant"]), (&json!("llm-d-default"), &json!("epp")));
    // The preset is the picker without a file.
    assert_eq!(a["decision"]["profiles"], b["decision"]["profiles"]);
}

#[test]
fn what_has_no_scores_or_was_never_sent_cannot_be_explained() {
    let folder = Folder::with_scenario("workload: {preset: azure-conv, requests: 5}\n");
    for (args, part) in [
        (["--explain", "1", "--router", "round-robin"], "`round-robin` has no scores"),
        (["--explain", "5", "--router", "llm-d-default"], "--explain 5: no request of the run is called so"),
    ] {
        let run = folder.run(&[&["simulate", "scenario.yaml"], &args[..]].concat());
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains(part), "{part:?}: {}", run.stderr);
    }
}
