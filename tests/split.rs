//! Traffic that is split between pools, copies that nobody waits for, and several replicas of an endpoint picker.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Folder, Outcome, table};

/// Conversations of four turns of three tenants on two pools.
const SCENARIO: &str = "
model: Qwen/Qwen3-8B
workload:
  requests: 400
  synthetic:
    arrival: {poisson: {rate: 8}}
    input_tokens: 300
    output_tokens: 30
    sessions: {turns: 4, think: 1s}
pools: [{name: a, replicas: 2}, {name: b, replicas: 1}]
router: {preset: POLICY}
split: SPLIT
";

fn folder(policy: &str, split: &str) -> Folder {
    Folder::with_scenario(&SCENARIO.replace("POLICY", policy).replace("SPLIT", split))
}

fn pool_of(outcome: &Outcome) -> &str {
    outcome.text("replica").split('-').next().expect("a replica has its pool's name")
}

#[test]
fn weights_share_the_sessions_and_their_turns_stay_together() {
    let folder = folder("llm-d-default", "{by: session, weights: {a: 3, b: 1}}");
    let mut pools: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for outcome in folder.scenario_outcomes() {
        pools.entry(outcome.text("session").to_owned()).or_default().insert(pool_of(&outcome).to_owned());
    }
    assert!(pools.values().all(|pools| pools.len() == 1), "{pools:?}");
    let to_b = pools.values().filter(|pools| pools.contains("b")).count() as f64;
    let share = to_b / pools.len() as f64;
    // 5 standard deviations of a binomial with p = 1/4.
    let tolerance = 5.0 * (0.25 * 0.75 / pools.len() as f64).sqrt();
    assert!((share - 0.25).abs() < tolerance, "{share} of {}", pools.len());
}

#[test]
fn by_request_the_turns_of_a_session_are_parted() {
    let folder = folder("round-robin", "{weights: {a: 1, b: 1}}");
    let mut pools: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for outcome in folder.scenario_outcomes() {
        pools.entry(outcome.text("session").to_owned()).or_default().insert(pool_of(&outcome).to_owned());
    }
    assert!(pools.values().any(|pools| pools.len() == 2), "{pools:?}");
}

#[test]
fn copies_load_their_pool_and_change_nothing_for_clients() {
    for policy in ["round-robin", "least-requests", "llm-d-default"] {
        let without = folder(policy, "{weights: {a: 1, b: 0}}");
        let with = folder(policy, "{weights: {a: 1, b: 0}, mirror: 0.3}");
        let args = ["scenario.yaml", "--outcomes", "outcomes.csv"];
        let (alone, mirrored) = (without.summary(&args), with.summary(&args));
        assert_eq!(without.read("outcomes.csv"), with.read("outcomes.csv"), "{policy}");
        for key in ["/requests", "/ttft_ms", "/itl_ms", "/throughput/output_tokens_per_s", "/kv", "/by_pool"]
        {
            assert_eq!(alone.pointer(key), mirrored.pointer(key), "{policy}: {key}");
        }
        assert_eq!(alone["mirrored"], Value::Null);
        let count =
            |key: &str| mirrored["mirrored"][key].as_u64().unwrap_or_else(|| panic!("{key}: {mirrored}"));
        let ended = ["completed", "failed", "rejected", "unfinished"].map(count).iter().sum::<u64>();
        assert_eq!(count("sent"), ended);
        // 5 standard deviations of a binomial with n = 400 and p = 0.3.
        assert!(count("sent").abs_diff(120) < 46, "{policy}: {}", count("sent"));
        assert_eq!(count("output_tokens"), 30 * count("completed"));
        let sent_to = |name: &str| {
            let mut replicas = mirrored["replicas"].as_array().expect("replicas").iter();
            replicas.find(|replica| replica["name"] == name).expect(name)["requests"].clone()
        };
        assert_eq!(sent_to("b-0"), json!(count("sent")), "{policy}");
    }
}

#[test]
fn a_split_between_models_leaves_other_models_alone() {
    let text = "
workload: {trace: trace.csv}
pools: [{name: a, model: Qwen/Qwen3-8B}, {name: b, model: Qwen/Qwen3-14B}, {name: c, model: Qwen/Qwen3-32B, tensor_parallel: 2}]
split: {by: tenant, weights: {Qwen/Qwen3-8B: 1, Qwen/Qwen3-14B: 1}}
";
    let folder = Folder::with_scenario(text);
    let mut trace = String::from("arrival_s,input_tokens,output_tokens,tenant,model\n");
    for number in 0..60 {
        let model = ["", "Qwen/Qwen3-8B", "Qwen/Qwen3-32B"][number % 3];
        trace += &format!("{number},100,5,t{},{model}\n", number % 10);
    }
    folder.write("trace.csv", trace);
    let mut pools: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for outcome in folder.scenario_outcomes() {
        if outcome.text("model") == "Qwen/Qwen3-32B" {
            assert_eq!(pool_of(&outcome), "c");
        } else {
            pools.entry(outcome.text("tenant").to_owned()).or_default().insert(pool_of(&outcome).to_owned());
        }
    }
    assert!(pools.values().all(|pools| pools.len() == 1 && !pools.contains("c")), "{pools:?}");
    assert!(
        pools.values().any(|pools| pools.contains("a")) && pools.values().any(|pools| pools.contains("b"))
    );
}

/// A picker that sends each request to the pod with the fewest of its own in flight, equals in turn.
const COUNTING: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: active-request-scorer}, {type: max-score-picker}]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: active-request-scorer}, {pluginRef: max-score-picker}]
";

#[test]
fn pickers_that_know_nothing_of_each_other_choose_the_same_pod() {
    for (replicas, pods) in [(1, 2), (2, 1)] {
        let folder = Folder::with_scenario(&format!(
            "workload: {{trace: trace.csv}}\npools: [{{replicas: 2}}]\nrouter: {{epp: epp.yaml, tie_rule: rotate, replicas: {replicas}}}\n"
        ));
        folder.write("epp.yaml", COUNTING);
        folder.write("trace.csv", "arrival_s,input_tokens,output_tokens\n0,100,50\n0,100,50\n");
        let outcomes = folder.scenario_outcomes();
        let chosen: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.text("replica")).collect();
        assert_eq!(chosen.len(), pods, "{replicas} pickers: {chosen:?}");
    }
}

#[test]
fn a_picker_that_scrapes_seldom_sends_to_a_pod_that_has_long_been_taken() {
    let epp = COUNTING.replace("active-request-scorer", "kv-cache-utilization-scorer");
    // The first request's KV is there from its first step on; the second comes a second after it.
    let second_goes_elsewhere = |interval: &str| {
        let folder = Folder::with_scenario(&format!(
            "workload: {{trace: trace.csv}}\npools: [{{replicas: 2}}]\nrouter: {{epp: epp.yaml, tie_rule: rotate, replicas: 2, refresh_metrics_interval: {interval}}}\n"
        ));
        folder.write("epp.yaml", &epp);
        folder.write("trace.csv", "arrival_s,input_tokens,output_tokens\n0.1,4000,400\n1.1,4000,400\n");
        let outcomes = folder.scenario_outcomes();
        outcomes[0].text("replica") != outcomes[1].text("replica")
    };
    assert!(second_goes_elsewhere("50ms"));
    assert!(!second_goes_elsewhere("10s"), "each of the two pickers still begins with the first pod");
}

/// A precise index that believes nothing before the pod says so.
const PRECISE: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: token-producer, parameters: {modelName: m, vllm: {url: 'http://render:8000'}}}
- {type: precise-prefix-cache-producer}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- {type: max-score-picker}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: max-score-picker}]
";

#[test]
fn a_precise_index_knows_a_prompt_when_the_step_that_computes_it_has_ended_and_its_events_have_come() {
    // 8,000 tokens take a step of more than 100 ms; equals are taken in turn.
    let finds_it = |after: &str, delay: &str| {
        let folder = Folder::with_scenario(&format!(
            "workload: {{trace: trace.csv}}\npools: [{{replicas: 2}}]\nrouter: {{epp: epp.yaml, tie_rule: rotate, kv_event_delay: {delay}}}\n"
        ));
        folder.write("epp.yaml", PRECISE);
        let header = "arrival_s,input_tokens,output_tokens,prefix_group,prefix_tokens";
        folder.write("trace.csv", format!("{header}\n0,8000,5,g,7000\n{after},7100,5,g,7000\n"));
        let outcomes = folder.scenario_outcomes();
        outcomes[0].text("replica") == outcomes[1].text("replica")
    };
    assert!(!finds_it("0.1", "0"), "its blocks are registered, and no event has told");
    assert!(finds_it("0.5", "0"));
    assert!(!finds_it("0.5", "2s"), "the events are on their way");
    assert!(finds_it("5", "2s"));
}

#[test]
fn the_order_of_producers_says_whether_scorers_see_uncached_or_whole_prompts() {
    let epp = COUNTING
        .replace(
            "{type: active-request-scorer}",
            "{type: inflight-load-producer}, {type: prefix-cache-scorer}, {type: token-load-scorer}",
        )
        .replace(
            "{pluginRef: active-request-scorer}",
            "{pluginRef: token-load-scorer}, {pluginRef: prefix-cache-scorer}",
        );
    let folder = Folder::new();
    folder.write("epp.yaml", epp);
    folder
        .write("trace.csv", "arrival_s,input_tokens,output_tokens,session,turn\n0,640,5,s,1\n9,700,5,s,2\n");
    let uncached = |order: &str| {
        folder.write(
            "scenario.yaml",
            format!("workload: {{trace: trace.csv}}\nrouter: {{epp: epp.yaml, producer_order: {order}}}\n"),
        );
        let run = folder.run(&["simulate", "scenario.yaml", "--explain", "1", "--format", "json"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let report: Value = serde_json::from_str(&run.stdout).expect("a decision");
        report["endpoints"][0]["uncached_tokens"].as_u64().expect("it is counted")
    };
    assert_eq!(uncached("in-flight-first"), 700);
    assert!(uncached("prefix-first") < 200, "the first turn is cached");
}

#[test]
fn a_request_that_waits_takes_the_place_of_sheddable_ones() {
    let epp = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: queue-scorer}
- {type: max-score-picker}
- {type: inflight-load-producer}
- {type: concurrency-detector, parameters: {maxConcurrency: 3}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: queue-scorer}, {pluginRef: max-score-picker}]}
flowControl: {enableEviction: true, saturationDetector: {pluginRef: concurrency-detector}}
";
    // vLLM's priorities: lower is served first; llm-d's are their negatives.
    let trace = "id,arrival_s,input_tokens,output_tokens,priority\n\
                 oldest,0,100,2000,5\nyounger,0.1,100,2000,5\nlowest,0.2,100,2000,9\nurgent,1,100,5,0\n";
    for (eviction, evicted) in [("true", vec!["lowest", "younger"]), ("false", vec![])] {
        let folder = Folder::with_scenario("workload: {trace: trace.csv}\nrouter: {epp: epp.yaml}\n");
        folder.write("epp.yaml", epp.replace("enableEviction: true", &format!("enableEviction: {eviction}")));
        folder.write("trace.csv", trace);
        let summary = folder.summary(&["scenario.yaml", "--outcomes", "outcomes.csv"]);
        let outcomes = table(&folder.read("outcomes.csv"));
        let mut gone: Vec<_> =
            outcomes.iter().filter(|o| o.text("reason") == "evicted").map(|o| o.text("id")).collect();
        gone.sort_unstable();
        assert_eq!(gone, evicted, "enableEviction: {eviction}");
        assert_eq!(summary["failures"]["shed"], json!(evicted.len()));
        let urgent = outcomes.iter().find(|outcome| outcome.text("id") == "urgent").expect("its line");
        let waited_s = (urgent.nanos("first_token_s") - urgent.nanos("arrival_s")) as f64 / 1e9;
        assert_eq!(waited_s < 0.1, !evicted.is_empty(), "it waited {waited_s} s");
    }
}
