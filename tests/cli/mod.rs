//! The `forerun` command as its users run it: what it prints, writes and returns.

mod requests;
mod steps;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use forerun_planner::scenario::read;
use serde_json::{Value, json};

use crate::support::{Folder, Outcome, Run, conforms, wait};

/// A small run on two replicas.
const SMALL: &str = "
model: Qwen/Qwen3-8B
workload:
  requests: 60
  synthetic:
    arrival: {poisson: {rate: 20}}
    input_tokens: {lognormal: {median: 400, sigma: 0.8}}
    output_tokens: {uniform: {min: 1, max: 40}}
pools: [{name: vllm, replicas: 2}]
";

/// A workload of `count` requests of fixed lengths at `rate` per second.
fn fixed(count: u32, rate: f64, input: u32, output: u32) -> String {
    format!(
        "model: Qwen/Qwen3-8B\nworkload:\n  requests: {count}\n  synthetic:\n    arrival: {{constant: {{rate: {rate}}}}}\n    \
         input_tokens: {input}\n    output_tokens: {output}\n"
    )
}

fn requests(summary: &Value, what: &str) -> u64 {
    summary["requests"][what].as_u64().unwrap_or_else(|| panic!("requests.{what} of {summary}"))
}

/// Arrived requests have ended in one of four ways, each of them once.
fn assert_accounted(summary: &Value) {
    let ended = ["completed", "failed", "rejected", "unfinished"].map(|what| requests(summary, what));
    assert_eq!(requests(summary, "arrived"), ended.iter().sum::<u64>(), "{}", summary["requests"]);
}

/// What of a line does not depend on what serves it.
fn demand(outcomes: &[Outcome]) -> Vec<[&str; 4]> {
    let columns = ["id", "arrival_s", "input_tokens", "output_tokens"];
    let mut rows: Vec<_> = outcomes.iter().map(|o| columns.map(|column| o.text(column))).collect();
    rows.sort_unstable();
    rows
}

/// The most requests in flight at any time.
fn in_flight_most(outcomes: &[Outcome]) -> usize {
    let mut changes: Vec<(i64, i64)> =
        outcomes.iter().flat_map(|o| [(o.nanos("arrival_s"), 1), (o.nanos("finished_s"), -1)]).collect();
    // One that ends makes room for one that starts at the same time.
    changes.sort_unstable();
    let mut now = 0;
    let most = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    most.max().unwrap_or(0) as usize
}

fn stable(mut summary: Value) -> Value {
    let simulation = summary["simulation"].as_object_mut().expect("a section");
    assert!(simulation.remove("wall_s").is_some() && simulation.remove("requests_per_wall_s").is_some());
    summary
}

#[test]
fn without_arguments_the_built_in_scenario_runs_and_every_request_is_accounted_for() {
    let folder = Folder::new();
    let summary = folder.summary(&[]);
    assert_accounted(&summary);
    assert!(requests(&summary, "completed") > 1000);
    let built_in = read::parse(read::BUILT_IN, &[]).expect("the built-in scenario is right");
    let sent = built_in.workload.and_then(|workload| workload.requests);
    assert_eq!(Some(requests(&summary, "arrived") + requests(&summary, "warm_up")), sent);
    assert!(summary["kv"]["duplicate_prefill_tokens"].as_u64() > Some(0));
    assert!(folder.names().is_empty(), "nothing is written that was not asked for");
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    let folder = Folder::with_scenario(SMALL);
    let run =
        |file: &str| stable(folder.summary(&["scenario.yaml", "--router", "random", "--outcomes", file]));
    assert_eq!(run("a.csv").to_string(), run("b.csv").to_string());
    assert_eq!(folder.read("a.csv"), folder.read("b.csv"));
    stable(folder.summary(&["scenario.yaml", "--seed", "2", "--outcomes", "c.csv"]));
    assert_ne!(folder.read("a.csv"), folder.read("c.csv"), "another seed is another run");
}

#[test]
fn a_change_of_router_or_fleet_leaves_the_demand_as_it_is() {
    let folder = Folder::with_scenario(SMALL);
    let base = folder.scenario_outcomes();
    for change in [
        ["--router", "random"],
        ["--router", "least-requests"],
        ["--replicas", "5"],
        ["--set", "engine.max_num_seqs=1"],
        ["--model", "Qwen/Qwen3-14B"],
        ["--gpu", "h200-sxm"],
    ] {
        let changed = folder.outcomes(&["scenario.yaml", change[0], change[1]]);
        assert_eq!(demand(&base), demand(&changed), "{change:?}");
    }
}

#[test]
fn flags_override_the_scenario_and_set_overrides_flags() {
    let folder = Folder::with_scenario(SMALL);
    let replicas = |args: &[&str]| {
        let summary = folder.summary(&[&["scenario.yaml"], args].concat());
        summary["replicas"].as_array().expect("a list").len()
    };
    assert_eq!(replicas(&[]), 2);
    assert_eq!(replicas(&["--replicas", "3"]), 3);
    assert_eq!(replicas(&["--set", "pools.0.replicas=4"]), 4);
    assert_eq!(replicas(&["--replicas", "3", "--set", "pools.0.replicas=4"]), 4);
    assert_eq!(replicas(&["--set", "pools.1={name: more, replicas: 1}"]), 3);
    assert_eq!(folder.summary(&["scenario.yaml", "--seed", "9"])["seed"], 9);
    assert_eq!(requests(&folder.summary(&["scenario.yaml", "--set", "workload.requests=7"]), "arrived"), 7);
    let slow = folder.outcomes(&["scenario.yaml", "--rate", "2"]);
    let fast = folder.outcomes(&["scenario.yaml"]);
    let last = |outcomes: &[Outcome]| outcomes.iter().map(|o| o.nanos("arrival_s")).max();
    assert!(last(&slow) > last(&fast));
    let preset = folder.summary(&["scenario.yaml", "--preset", "azure-code"]);
    assert_eq!(requests(&preset, "arrived"), 60, "the workload's other keys stay");
}

#[test]
fn the_summary_has_every_key_of_its_format() {
    let summary = Folder::with_scenario(SMALL).summary(&["scenario.yaml"]);
    assert_eq!(summary["schema"], "forerun/summary/v1");
    let rates = ["requests_per_s", "input_tokens_per_s", "output_tokens_per_s"];
    let latency = ["mean", "p50", "p90", "p95", "p99", "max"];
    let sections: [(&str, &[&str]); 15] = [
        ("/requests", &["arrived", "completed", "failed", "rejected", "unfinished", "good"]),
        ("/ttft_ms", &latency),
        ("/tpot_ms", &latency),
        ("/itl_ms", &latency),
        ("/e2e_ms", &latency),
        ("/queue_ms", &latency),
        ("/throughput", &rates),
        ("/throughput/with_drain", &rates),
        ("/goodput", &["requests_per_s", "attainment"]),
        ("/kv", &["prompt_tokens", "duplicate_prefill_tokens", "hit_rate", "preemptions"]),
        ("/kv/hit_tokens", &["gpu", "cpu", "disk", "shared"]),
        (
            "/latency_ms_by_cause",
            &[
                "router_queue",
                "engine_queue_slots",
                "engine_queue_kv",
                "engine_queue_budget",
                "own_prefill",
                "transfer",
                "decode",
                "stalled_by_others_prefill",
            ],
        ),
        ("/failures", &["ttl", "timeout", "shed", "too_long", "fault"]),
        ("/replicas/0", &["name", "busy_fraction", "steps", "kv_usage_mean", "requests"]),
        ("/simulation", &["virtual_s", "wall_s", "steps", "requests_per_wall_s"]),
    ];
    for (section, keys) in sections {
        for key in keys {
            let value = summary.pointer(&format!("{section}/{key}"));
            assert!(value.is_some_and(|v| v.is_number() || v.is_string()), "{section}/{key} is {value:?}");
        }
    }
    for (key, is) in [("by_tenant", "{"), ("by_class", "{"), ("by_pool", "{"), ("warnings", "[")] {
        assert!(summary[key].to_string().starts_with(is), "{key}");
    }
    for key in ["gpu_hours", "usd", "usd_per_million_output_tokens"] {
        assert!(summary["cost"].get(key).is_some(), "cost.{key}");
    }
}

fn schema(name: &str) -> Value {
    let run = Folder::new().run(&["schema", name]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("a schema is JSON")
}

#[test]
fn summaries_conform_to_their_published_schema() {
    let schema = schema("summary");
    let folder = Folder::with_scenario(SMALL);
    let slo = "slo={ttft: 2s, tpot: 50ms, attainment: 0.9, ttft_p99: 3s}";
    let cost = "cost={gpu_hour_usd: 2.5}";
    for args in
        [&["--set", slo, "--set", cost][..], &["--set", "run.warm_up=1d"], &["--set", "run.horizon=1s"]]
    {
        let summary = folder.summary(&[&["scenario.yaml"], args].concat());
        conforms(&schema, &schema, &summary).unwrap_or_else(|why| panic!("{args:?}: {why}"));
        assert_accounted(&summary);
    }
    let nonsense = json!({"schema": "forerun/summary/v1", "seed": -1});
    assert!(conforms(&schema, &schema, &nonsense).is_err(), "the check can fail");
}

/// YAML files of the repository that are scenarios.
fn scenarios() -> Vec<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["examples", "planner/scenarios", "planner/scenarios/signals"]
        .iter()
        .filter_map(|folder| fs::read_dir(root.join(folder)).ok());
    let paths = files.flatten().map(|entry| entry.expect("a readable folder").path());
    let is_scenario = |path: &std::path::PathBuf| {
        // A router's configuration is no scenario.
        path.extension().is_some_and(|extension| extension == "yaml")
            && !fs::read_to_string(path).is_ok_and(|text| text.contains("kind: EndpointPickerConfig"))
    };
    paths.filter(is_scenario).collect()
}

#[test]
fn every_scenario_of_the_repository_conforms_to_the_schema_and_runs() {
    let schema = schema("scenario");
    let paths = scenarios();
    assert!(!paths.is_empty());
    for path in paths {
        let text = fs::read_to_string(&path).expect("a readable scenario");
        let scenario = read::parse(&text, &[]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let scenario = serde_json::to_value(&scenario).expect("scenarios are JSON");
        conforms(&schema, &schema, &scenario).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let name = path.to_str().expect("UTF-8");
        assert_accounted(&Folder::new().summary(&[name, "--set", "workload.requests=200"]));
    }
}

#[test]
fn outcomes_have_the_columns_of_their_format_in_order() {
    let folder = Folder::with_scenario(SMALL);
    assert_eq!(folder.scenario_outcomes().len(), 60);
    let csv = folder.read("outcomes.csv");
    let start = "id,arrival_s,tenant,session,turn,input_tokens,output_tokens,cached_tokens,prefill_replica,replica,\
                 model,adapter,class,scheduled_s,first_token_s,finished_s,ttft_ms,tpot_ms,e2e_ms,transfer_ms,\
                 cached_gpu_tokens,cached_cpu_tokens,cached_disk_tokens,cached_shared_tokens,preemptions,status,reason";
    assert!(csv.starts_with(start), "{}", csv.lines().next().unwrap_or_default());
    assert_eq!(folder.names(), ["outcomes.csv", "scenario.yaml"], "no temporary file is left");
}

#[test]
fn the_causes_of_every_latency_sum_to_it() {
    let folder = Folder::with_scenario(SMALL);
    // Few blocks and slots, so that requests wait for both and are preempted.
    let tight =
        "engine={num_gpu_blocks: 130, max_model_len: 2000, max_num_seqs: 8, max_num_batched_tokens: 512}";
    let outcomes = folder.outcomes(&["scenario.yaml", "--rate", "200", "--set", tight, "--replicas", "1"]);
    let causes = [
        "overhead_ms",
        "router_queue_ms",
        "engine_queue_step_ms",
        "engine_queue_slots_ms",
        "engine_queue_kv_ms",
        "engine_queue_budget_ms",
        "engine_queue_lora_ms",
        "own_prefill_ms",
        "transfer_ms",
        "decode_ms",
        "stalled_by_others_prefill_ms",
    ];
    for outcome in outcomes.iter().filter(|o| o.text("status") == "completed") {
        let sum: i64 = causes.iter().map(|cause| outcome.nanos(cause)).sum();
        assert_eq!(sum, outcome.nanos("e2e_ms"), "{outcome:?}");
    }
    let waited = |cause: &str| outcomes.iter().any(|o| o.nanos(cause) > 0);
    assert!(waited("engine_queue_kv_ms") || waited("engine_queue_slots_ms"));
}

#[test]
fn an_outcomes_file_is_a_trace_with_the_same_requests() {
    let folder = Folder::with_scenario(SMALL);
    let first = folder.scenario_outcomes();
    fs::rename(folder.path("outcomes.csv"), folder.path("recorded.csv")).expect("a writable folder");
    let again = folder.outcomes(&["scenario.yaml", "--trace", "recorded.csv"]);
    assert_eq!(first.len(), again.len());
    // A trace starts with its first request.
    let start = first.iter().map(|o| o.nanos("arrival_s")).min().expect("requests");
    let mut recorded: Vec<_> = first.iter().map(|o| (o.nanos("arrival_s") - start, o.text("id"))).collect();
    let mut replayed: Vec<_> = again.iter().map(|o| (o.nanos("arrival_s"), o.text("id"))).collect();
    recorded.sort_unstable();
    replayed.sort_unstable();
    assert_eq!(recorded, replayed);
}

#[test]
fn an_slo_that_is_asserted_decides_the_exit_code() {
    let folder = Folder::with_scenario(SMALL);
    let code = |args: &[&str]| folder.run(&[&["simulate", "scenario.yaml"], args].concat()).code;
    let slo = |limit: &str| format!("slo={{ttft: {limit}, attainment: 0.95}}");
    let (missed, held) = (slo("1ns"), slo("1h"));
    assert_eq!(code(&["--set", &missed, "--assert-slo"]), Some(1));
    assert_eq!(code(&["--set", &held, "--assert-slo"]), Some(0));
    assert_eq!(code(&["--set", &missed]), Some(0), "an SLO that is not asserted is only reported");
    assert_eq!(code(&["--set", "slo={e2e_p99: 1ms}", "--assert-slo"]), Some(1));
    assert_eq!(code(&["--set", "slo={e2e_p99: 1h}", "--assert-slo"]), Some(0));
}

#[test]
fn replications_have_means_and_intervals_and_the_first_is_the_single_run() {
    let folder = Folder::with_scenario(SMALL);
    let single = stable(folder.summary(&["scenario.yaml", "--outcomes", "one.csv"]));
    let args = ["scenario.yaml", "--replications", "4", "--outcomes", "first.csv"];
    let mut all = stable(folder.summary(&args));
    let again = stable(folder.summary(&args));
    assert_eq!(all.to_string(), again.to_string());
    assert_eq!(folder.read("one.csv"), folder.read("first.csv"));
    let schema = schema("summary");
    conforms(&schema, &schema, &all).unwrap_or_else(|why| panic!("{why}"));
    let replications = all.as_object_mut().and_then(|all| all.remove("replications")).expect("a section");
    assert_eq!(all.to_string(), single.to_string());
    assert!(single.get("replications").is_none());
    let ttft = &replications["figures"]["ttft_mean_ms"];
    let [low, mean, high] = ["/interval/low", "/mean", "/interval/high"]
        .map(|key| ttft.pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} of {ttft}")));
    assert!(low < mean && mean < high);
    let last = replications["seeds"][3].to_string();
    let last = folder.summary(&["scenario.yaml", "--seed", &last]);
    assert!(ttft["min"].as_f64() <= last["ttft_ms"]["mean"].as_f64());
    assert!(ttft["max"].as_f64() >= last["ttft_ms"]["mean"].as_f64());
    let table = folder.run(&["simulate", "scenario.yaml", "--set", "run.replications=4"]);
    assert!(table.code == Some(0) && table.stdout.contains("4 replications"), "{}", table.stdout);
    assert!(table.stdout.lines().all(|line| line.chars().count() <= 80), "{}", table.stdout);
}

#[test]
fn piped_output_is_plain_text_of_80_columns() {
    let folder = Folder::with_scenario(SMALL);
    for args in [&["simulate", "scenario.yaml"][..], &["catalog"]] {
        let Run { code, stdout, stderr } = folder.run(args);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
        assert!(!stdout.chars().any(|c| c.is_control() && c != '\n'), "no escape codes, no carriage returns");
        for line in stdout.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line:?} is wider than 80 columns");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    for args in [&["catalog", "--format", "json"][..], &["schema", "scenario"], &["simulate"]] {
        let mut child = folder.spawn(args);
        drop(child.stdout.take());
        let code = wait(&mut child, args);
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_hugging_face_config_is_a_model() {
    let folder = Folder::with_scenario(&SMALL.replace("Qwen/Qwen3-8B", "my/config.json"));
    fs::create_dir(folder.path("my")).expect("a writable folder");
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128_256,
        "max_position_embeddings": 8192, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    });
    folder.write("my/config.json", config.to_string());
    assert_accounted(&folder.summary(&["scenario.yaml"]));
    let smaller = folder.scenario_outcomes();
    let larger = folder.outcomes(&["scenario.yaml", "--model", "Qwen/Qwen3-14B"]);
    assert!(smaller[0].nanos("e2e_ms") < larger[0].nanos("e2e_ms"));
}

#[test]
fn compressed_traces_are_read_as_they_are() {
    let folder = Folder::with_scenario(SMALL);
    let rows = (0..50).map(|n| format!("{}.5,{},7\n", n, 100 + n)).collect::<String>();
    let trace = format!("arrival_s,input_tokens,output_tokens\n{rows}");
    folder.write("trace.csv", &trace);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(trace.as_bytes()).expect("memory takes it");
    folder.write("trace.csv.gz", gzip.finish().expect("memory takes it"));
    folder.write("trace.csv.zst", zstd::encode_all(trace.as_bytes(), 3).expect("memory takes it"));
    let outcomes = |name: &str| folder.outcomes(&["scenario.yaml", "--trace", name]);
    let plain = outcomes("trace.csv");
    assert_eq!(plain.len(), 50);
    assert_eq!(plain, outcomes("trace.csv.gz"));
    assert_eq!(plain, outcomes("trace.csv.zst"));
}

#[test]
fn columns_and_units_of_a_trace_can_be_named() {
    let folder = Folder::with_scenario(
        "workload:\n  trace: trace.csv\n  columns: {arrival_s: send_time_us, input_tokens: prompt, output_tokens: answer}\n  \
         units: {arrival_s: us}\n",
    );
    folder.write("trace.csv", "send_time_us,answer,prompt\n5000000,7,300\n5250000,8,400\n");
    let outcomes = folder.scenario_outcomes();
    let seen: Vec<_> = outcomes
        .iter()
        .map(|o| (o.nanos("arrival_s"), o.nanos("input_tokens"), o.nanos("output_tokens")))
        .collect();
    assert_eq!(seen, [(0, 300, 7), (250_000_000, 400, 8)]);
}

#[test]
fn every_preset_of_the_catalog_runs() {
    let folder = Folder::new();
    let catalog = folder.run(&["catalog", "--format", "json"]);
    assert_eq!(catalog.code, Some(0));
    let catalog: Value = serde_json::from_str(&catalog.stdout).expect("JSON");
    let names = |key: &str| {
        let list = catalog[key].as_array().unwrap_or_else(|| panic!("no {key}"));
        list.iter().map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    for preset in names("presets") {
        let summary = folder.summary(&["--preset", &preset, "--set", "workload.requests=200"]);
        assert_accounted(&summary);
        assert_eq!(requests(&summary, "arrived") + requests(&summary, "warm_up"), 200, "{preset}");
    }
    for policy in names("policies") {
        assert_accounted(&folder.summary(&["--router", &policy, "--set", "workload.requests=200"]));
    }
    for gpu in names("gpus") {
        let small = ["--model", "Qwen/Qwen3-8B", "--set", "dtype=fp8", "--set", "workload.requests=200"];
        assert_accounted(&folder.summary(&[&["--gpu", &gpu][..], &small].concat()));
    }
    for model in names("models") {
        let args = ["--model", &model, "--gpu", "h200-sxm", "--set", "workload.requests=200"];
        // The largest need eight GPUs; the heads of a small one may not split over them.
        let over_eight = [&args[..], &["--set", "pools.0.tensor_parallel=8"]].concat();
        let splits = folder.run(&[&["simulate"], &over_eight[..]].concat()).code == Some(0);
        assert_accounted(&folder.summary(if splits { &over_eight } else { &args }));
    }
}

#[test]
fn the_catalog_and_the_schemas_are_printed() {
    let table = Folder::new().run(&["catalog"]);
    assert_eq!(table.code, Some(0));
    for name in ["h100-sxm", "Qwen/Qwen3-14B", "azure-conv", "round-robin"] {
        assert!(table.stdout.contains(name), "{name}");
    }
    assert_eq!(schema("scenario")["$id"], "forerun/scenario/v1");
    assert!(schema("scenario")["properties"]["pools"].is_object());
    assert!(schema("summary")["properties"]["latency_ms_by_cause"].is_object());
    let help = Folder::new().run(&["simulate", "--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("--assert-slo"));
}

#[test]
fn an_outcomes_file_of_an_earlier_run_is_replaced_whole() {
    let folder = Folder::with_scenario(SMALL);
    folder.write("outcomes.csv", "x".repeat(1 << 20));
    assert_eq!(folder.scenario_outcomes().len(), 60);
}

#[test]
fn reports_name_the_grade_of_their_step_times_and_the_source_of_their_prices() {
    let folder = Folder::with_scenario(SMALL);
    let summary = folder.summary(&["scenario.yaml"]);
    let source = &summary["cost_model"][0];
    assert_eq!((source["gpu"].as_str(), source["grade"].as_str()), (Some("h100-sxm"), Some("fitted")));
    assert!(summary["cost"]["usd"].is_number());
    let price = summary["cost"]["price_source"].as_str().expect("the scenario names no price");
    assert!(price.contains("list price") && price.contains("assumption"), "{price}");
    let own = folder.summary(&["scenario.yaml", "--set", "cost.gpu_hour_usd=2"]);
    assert!(own["cost"].get("price_source").is_none());
    let datasheet = folder.summary(&["scenario.yaml", "--gpu", "mi300x"]);
    assert_eq!(datasheet["cost_model"][0]["grade"], "datasheet");
    assert!(datasheet["warnings"].to_string().contains("no tables of its own"));
}
