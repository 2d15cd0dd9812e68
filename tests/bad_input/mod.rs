//! Wrong input: exit code 2, one message that names the place and the mend, and nothing written.

mod files;
mod mutations;
mod traces;

use crate::support::Folder;

/// A workload of a few requests.
const SMALL: &str = "workload: {preset: azure-conv, requests: 5}\n";

/// Runs `forerun simulate` with `args`, which must be refused with a message that has all `parts`.
#[track_caller]
fn refused(folder: &Folder, args: &[&str], parts: &[&str]) {
    let before = folder.names();
    let all = [&["simulate"], args, &["--format", "json", "--outcomes", "out.csv"]].concat();
    let run = folder.run(&all);
    let stderr = run.stderr.as_str();
    let context = format!("{args:?}: {stderr}");
    assert_eq!(run.code, Some(2), "{context}");
    assert_eq!(run.stdout, "", "{context}");
    assert!(!stderr.contains("panicked"), "{context}");
    // The command line's own errors have a usage below them.
    if !stderr.starts_with("error: ") {
        assert!(stderr.starts_with("forerun: ") && stderr.ends_with('\n'), "{context}");
        assert_eq!(stderr.lines().count(), 1, "{context}");
        assert!(stderr.len() < 4000, "{args:?}: a message of {} bytes", stderr.len());
    }
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in: {context}");
    }
    assert_eq!(folder.names(), before, "{context}");
}

/// Scenarios that must be refused, each with the parts of its message.
#[track_caller]
fn scenarios_refused(cases: &[(&str, &[&str])]) {
    for (text, parts) in cases {
        let folder = Folder::with_scenario(text);
        refused(&folder, &["scenario.yaml"], &[&["scenario.yaml: "], *parts].concat());
    }
}

/// The same, for keys beside the workload of [`SMALL`].
#[track_caller]
fn keys_refused(cases: &[(&str, &[&str])]) {
    let folder = Folder::new();
    for (text, parts) in cases {
        folder.write("scenario.yaml", format!("{SMALL}{text}\n"));
        refused(&folder, &["scenario.yaml"], &[&["scenario.yaml: "], *parts].concat());
    }
}

/// The same, for keys within the workload.
#[track_caller]
fn workloads_refused(cases: &[(&str, &[&str])]) {
    let folder = Folder::new();
    for (text, parts) in cases {
        folder.write("scenario.yaml", format!("workload: {{preset: azure-conv, {text}}}\n"));
        refused(&folder, &["scenario.yaml"], &[&["scenario.yaml: "], *parts].concat());
    }
}

#[test]
fn text_that_is_no_scenario_is_refused_at_its_line() {
    scenarios_refused(&[
        ("", &["is empty", "workload"]),
        ("\n \n", &["is empty"]),
        ("# nothing\n", &["there is no `workload`"]),
        ("null\n", &["1:1", "a map is expected here"]),
        ("hello\n", &["1:1", "a map is expected here"]),
        ("- a\n- b\n", &["1:1", "a map is expected here"]),
        ("workload: {preset: azure-co", &["1:11", "unclosed"]),
        ("workload:\n\tpreset: azure-conv\n", &["2:2", "tabs"]),
        ("workload: {preset: \"azure-conv\n", &["scenario.yaml: "]),
        ("workload: {preset: azure-conv\0}\n", &["1:30"]),
        ("  preset: azure-conv\nworkload:\n", &["scenario.yaml: "]),
        ("workload: {preset: a, preset: b}\n", &["1:23", "`preset`", "twice", "keep one"]),
        ("model: x\nworkload: {preset: a}\nmodel: y\n", &["3:1", "`model`", "twice"]),
        ("workload: {preset: a}\n---\nmodel: x\n", &["second document", "remove"]),
        ("workload: *w\n", &["1:11"]),
        ("workload: {preset: !!binary \"x\"}\n", &["scenario.yaml: "]),
    ]);
}

#[test]
fn a_scenario_that_is_not_text_or_too_large_is_refused() {
    let folder = Folder::new();
    folder.write("scenario.yaml", b"workload: {preset: azure-conv}\n# M\xfcller\n");
    refused(&folder, &["scenario.yaml"], &["scenario.yaml: line 2 is not UTF-8", "save"]);
    folder.write("scenario.yaml", "#".repeat(5 << 20));
    refused(&folder, &["scenario.yaml"], &["scenario.yaml: has more than 4194304 bytes"]);
    folder.write("scenario.yaml", b"\x1f\x8b\x08\x00\xff\xfe garbage \x00\x01");
    refused(&folder, &["scenario.yaml"], &["not UTF-8"]);
    if cfg!(unix) {
        refused(&folder, &["/dev/zero"], &["/dev/zero: has more than"]);
        refused(&folder, &["/dev/null"], &["/dev/null: is empty"]);
    }
}

#[test]
fn yaml_bombs_are_refused_in_bounded_memory() {
    let levels = (1..12).map(|level| {
        let parts = vec![format!("{{weight: 1, law: *l{}}}", level - 1); 9].join(", ");
        format!("        - {{weight: 1, law: &l{level} {{mix: [{parts}]}}}}\n")
    });
    let aliases = format!(
        "workload:\n  synthetic:\n    arrival: {{poisson: {{rate: 1}}}}\n    output_tokens: 3\n    input_tokens:\n      mix:\n        \
         - {{weight: 1, law: &l0 {{sum: [1, 2]}}}}\n{}",
        levels.collect::<String>()
    );
    let nested = |open: &str, close: &str, depth: usize| {
        let law = format!("{}3{}", open.repeat(depth), close.repeat(depth));
        format!(
            "workload: {{synthetic: {{arrival: {{poisson: {{rate: 1}}}}, output_tokens: 3, input_tokens: {law}}}}}\n"
        )
    };
    scenarios_refused(&[
        (&aliases, &["more values than any scenario has", "aliases"]),
        (&nested("{clip: {law: ", "}}", 2000), &["nested deeper", "flatten"]),
        (&nested("{sum: [", "]}", 5000), &["scenario.yaml: 1:", "nested deeper"]),
        (&format!("workload: {}", "[".repeat(100_000)), &["1:11"]),
        (&format!("workload: {}", "{a: ".repeat(100_000)), &["1:1"]),
        (&format!("{SMALL}model: {}\n", "x".repeat(3_000_000)), &["`model: xxx", "catalog"]),
        (&format!("{SMALL}{}: 1\n", "x".repeat(1000)), &["2:1", "unknown key"]),
    ]);
}

#[test]
fn an_unknown_key_is_told_the_nearest_known_one() {
    keys_refused(&[
        ("modle: x", &["2:1", "unknown key `modle`", "did you mean `model`?"]),
        ("engine: {max_num_sqs: 5}", &["2:10", "`max_num_sqs`", "`max_num_seqs`"]),
        ("pools: [{replica: 5}]", &["2:10", "`replica`", "did you mean `replicas`?"]),
        ("slo: {ttft_p98: 2s}", &["2:7", "did you mean `ttft_p99`?"]),
        ("slo: {classes: {batch: {ttftt: 2s}}}", &["did you mean `ttft`?"]),
        ("overhead: {gatway: 2ms}", &["did you mean `gateway`?"]),
        ("run: {sed: 2}", &["did you mean `seed`?"]),
        ("router: {prest: random}", &["did you mean `preset`?"]),
        ("cost: {gpu_hour_us: 1}", &["did you mean `gpu_hour_usd`?"]),
        ("zzz: 1", &["unknown key `zzz`", "known here: model"]),
    ]);
    workloads_refused(&[
        ("lop: open", &["`lop`", "did you mean `loop`?"]),
        ("loop: {closd: 3}", &["did you mean `closed`?"]),
        ("client: {time_out: 3s}", &["did you mean `timeout`?"]),
    ]);
}

#[test]
fn an_unknown_name_is_told_the_nearest_known_one() {
    keys_refused(&[
        ("model: Qwen/Qwen3-14", &["pools.0", "did you mean `Qwen/Qwen3-14B`?", "config.json"]),
        ("pools: [{gpu: h100-smx}]", &["pools.0", "did you mean `h100-sxm`?"]),
        ("router: {preset: round-robbin}", &["did you mean `round-robin`?"]),
        ("router: {replicas: 2}", &["`router.replicas` belongs to an endpoint picker"]),
        ("router: {preset: llm-d-default, replicas: 0}", &["`router.replicas` is 0", "from 1 to 64"]),
        ("router: {preset: llm-d-default, tie_rule: fair}", &["`fair`"]),
        (
            "router: {preset: llm-d-default, refresh_metrics_interval: 10ms}",
            &["`router.refresh_metrics_interval` is 10ms", "50ms"],
        ),
        ("router: {preset: llm-d-default, kv_event_delay: 1h}", &["`router.kv_event_delay` is 1h", "1min"]),
        ("split: {by: session}", &["missing field `weights`"]),
        ("split: {weights: {pool: 1}}", &["leaves nothing to split"]),
        ("split: {weights: {pool: 1, other: 1}}", &["`split.weights.other` is neither a pool nor a model"]),
        ("split: {weights: {pool: -1}}", &["`split.weights.pool` is -1"]),
        (
            "pools: [{name: a}, {name: b}]\nsplit: {weights: {a: 1, b: 1}, mirror: 0.1}",
            &["`split.mirror` sends copies to the one of weight 0, and 0 have that"],
        ),
        (
            "pools: [{name: a}, {name: b}]\nsplit: {weights: {a: 1, b: 0}, mirror: 1.5}",
            &["`split.mirror` is 1.5", "a share"],
        ),
        ("dtype: fp9", &["2:8", "`fp9`", "bf16"]),
        ("kv_cache_dtype: fp4", &["`fp4`", "auto"]),
        ("engine: {scheduling_policy: lifo}", &["`lifo`", "fcfs, priority"]),
        (
            "cost: {gpu_hour_usd: {h100-smx: 2, h100-sxm: 1}}",
            &["cost.gpu_hour_usd", "did you mean `h100-sxm`?"],
        ),
        ("pools: [{role: decoder}]", &["`decoder`", "both"]),
    ]);
    scenarios_refused(&[
        ("workload: {preset: azure-cov}\n", &["`azure-cov`", "did you mean `azure-conv`?"]),
        ("workload: {preset: azure-conv, stop: never}\n", &["`never`", "eos"]),
        ("workload: {trace: a.csv, format: mooncke}\n", &["`mooncke`", "mooncake"]),
    ]);
}

#[test]
fn a_wrong_endpoint_picker_configuration_is_named_with_its_place() {
    let folder = Folder::new();
    let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n";
    folder.write("unknown.yaml", format!("{head}- type: queue-scorrer\n"));
    folder.write("field.yaml", format!("{head}- type: queue-scorer\n  parametres: {{}}\n"));
    folder.write("version.yaml", "apiVersion: llm-d.ai/v9\nkind: EndpointPickerConfig\n");
    folder.write("unsimulated.yaml", format!("{head}- type: topology-affinity-scorer\n"));
    folder.write("binary.yaml", "\u{0}\u{1}");
    let cases = [
        ("unknown.yaml", "queue-scorrer"),
        ("field.yaml", "parametres"),
        ("version.yaml", "llm-d.ai/v9"),
        ("unsimulated.yaml", "topology-affinity-scorer"),
        ("binary.yaml", "binary.yaml"),
        ("absent.yaml", "absent.yaml"),
    ];
    for (file, part) in cases {
        refused(&folder, &["--set", &format!("router={{epp: {file}}}")], &[file, part]);
    }
    let both = ["--set", "router={epp: a.yaml, preset: random}"];
    refused(&folder, &both, &["both `preset` and `epp`"]);
}

#[test]
fn what_is_published_but_not_modelled_says_so() {
    let not_modelled = "is not modelled by this version";
    keys_refused(&[
        ("tiers: {shared: {capacity: 10TiB}}", &["`tiers` has no `cpu`", "add for example"]),
        ("tiers: {cpu: {capacity: 20GiB}, disk: {concurrency: 0}}", &["`tiers.disk.concurrency` is 0"]),
        ("tiers: {cpu: {capacity: 20GiB}, shared: {latency: 2h}}", &["`tiers.shared.latency` is 2h"]),
        ("tiers: {cpu: {capacity: 200 parsecs}}", &["is not an amount of memory"]),
        ("tiers: {cpu: {capacity: 1kB}}", &["`tiers.cpu.capacity`", "not even one chunk"]),
        ("tiers: {cpu: {capacity: 200GiB, blocks_per_chunk: 0}}", &["`tiers.cpu.blocks_per_chunk` is 0"]),
        ("fabric: {bandwidth: 25GB}", &["is not a bandwidth"]),
        ("fabric: {bandwidth: 1B/s}", &["`fabric.bandwidth`", "from 1MB/s"]),
        ("fabric: {efficiency: 0}", &["`fabric.efficiency` is 0"]),
        ("fabric: {lease: 2h}", &["`fabric.lease` is 2h"]),
        ("faults: {crashes: [{replicas: [7], at: 1s}]}", &["`faults.crashes.0.replicas` names 7"]),
        ("faults: {crashes: [{pool: x, replicas: [0], at: 1s}]}", &["`faults.crashes.0.pool` is `x`"]),
        ("faults: {random: [{mtbf: 1ms}]}", &["`faults.random.0.mtbf` is 1ms"]),
        ("faults: {links: [{replicas: [0], at: 1s, for: 1s, share: 0}]}", &["`faults.links.0.share` is 0"]),
        (
            "faults: {rollouts: [{at: 1s, max_surge: 0, max_unavailable: 0}]}",
            &["`faults.rollouts.0`", "set `max_surge`"],
        ),
        ("faults: {restart: 2d}", &["`faults.restart` is 2d"]),
        ("cache: warm", &["`cache`", not_modelled]),
        ("lora: {rank: 0}", &["`lora.rank` is 0", "from 1 to 512"]),
        ("lora: {max_loras: 4, max_cpu_loras: 2}", &["`lora.max_cpu_loras` is 2", "raise it"]),
        ("lora: {max_loras: 4}\nengine: {max_loras: 2}", &["`engine.max_loras` 2", "keep one"]),
        ("lora: {disk_bandwidth: 1B/s}", &["`lora.disk_bandwidth`", "from 1MB/s"]),
        ("lora: {adapters: 0}", &["`lora.adapters` is 0"]),
        ("autoscaling: {}", &["`autoscaling`", not_modelled]),
        ("run: {replications: 0}", &["`run.replications` is 0", "from 1 to 1000"]),
        ("pools: [{role: prefill}]", &["`pool` only prefills", "add a pool of `role: decode`"]),
        (
            "pools: [{role: prefill}, {role: decode, engine: {block_size: 32}}]",
            &["`pool` and `pool2` exchange KV", "the same `block_size`"],
        ),
        (
            "engine: {enable_expert_parallel: true}",
            &["`enable_expert_parallel` is not modelled", "remove it"],
        ),
    ]);
}

#[test]
fn a_fleet_that_could_not_exist_is_refused_with_one_that_could() {
    keys_refused(&[
        (
            "model: meta-llama/Llama-3.1-70B",
            &[
                "does not fit h100-sxm",
                "exceed",
                "GiB that vLLM may use by",
                "it fits with `tensor_parallel: 2`",
                "or with `dtype: fp8`",
            ],
        ),
        ("engine: {gpu_memory_utilization: 0.01}", &["does not fit", "no tensor_parallel"]),
        ("pools: [{replicas: 0}]", &["pools.0", "`replicas` is 0", "at least 1"]),
        ("pools: []", &["`pools` is empty", "for example"]),
        ("pools: [{tensor_parallel: 0}]", &["pools.0", "`tensor_parallel: 0`", "use one of 1, 2"]),
        ("pools: [{tensor_parallel: 3}]", &["`tensor_parallel: 3`", "32 attention heads", "use one of 1, 2"]),
        ("pools: [{tensor_parallel: 4000000000}]", &["use one of 1, 2"]),
        ("pools: [{replicas: 4000000000}]", &["at most 16384"]),
        (
            "pools: [{replicas: 99999999999999999999}]",
            &["2:20", "`99999999999999999999` is not a whole number"],
        ),
        ("pools: [{name: a}, {name: a}]", &["two pools are called `a`", "rename"]),
        ("pools: [{name: pool2}, {}]", &["two pools are called `pool2`"]),
        ("pools: [{name: ''}]", &["pools.0", "`name: `", "1 to 100 characters"]),
        ("pools: [{name: \"a\\nb\"}]", &["control character"]),
        ("engine: {num_gpu_blocks: 4000000000}", &["KV blocks: at most", "lower"]),
        ("engine: {num_gpu_blocks: 1000000}\npools: [{replicas: 16384}]", &["KV blocks: at most", "lower"]),
        ("engine: {num_gpu_blocks: 1}", &["leave none to use"]),
        ("engine: {num_gpu_blocks: 0}", &["leave none to use"]),
        ("cost: {gpu_hour_usd: -1}", &["`cost.gpu_hour_usd` is -1"]),
        ("cost: {gpu_hour_usd: {h200-sxm: 3}}", &["no price for h100-sxm", "add one"]),
    ]);
}

#[test]
fn engine_arguments_that_contradict_each_other_are_refused() {
    keys_refused(&[
        ("engine: {max_model_len: 4000000}", &["pools.0", "`max_model_len` (4000000)", "to at most"]),
        ("engine: {max_num_batched_tokens: 100, max_num_seqs: 200}", &["(100)", "`max_num_seqs` (200)"]),
        ("engine: {enable_chunked_prefill: false}", &["chunked prefill", "max_model_len", "raise the one"]),
        ("engine: {max_num_active_seqs: 5000}", &["`max_num_active_seqs` (5000)", "lower the one"]),
        ("engine: {block_size: 0}", &["`block_size` is 0", "from 1 to 4096"]),
        ("engine: {block_size: 4294967295}", &["from 1 to 4096"]),
        ("engine: {max_num_seqs: 0}", &["`max_num_seqs` is 0"]),
        ("engine: {max_num_batched_tokens: 0}", &["is 0"]),
        ("engine: {max_model_len: 0}", &["`max_model_len` is 0"]),
        ("engine: {max_loras: 0}", &["`max_loras` is 0"]),
        ("engine: {max_num_queued_reqs: 0}", &["`max_num_queued_reqs` is 0"]),
        ("engine: {max_num_seqs: -1}", &["2:24", "`-1` is not a whole number"]),
        ("engine: {max_num_seqs: 1.5}", &["`1.5` is not a whole number"]),
        ("engine: {max_num_seqs: many}", &["`many` is not a whole number"]),
        (
            "engine: {num_gpu_blocks: 9000, max_num_batched_tokens: 4294967295}",
            &["`max_num_batched_tokens` is 4294967295", "at most 1048576"],
        ),
        ("engine: {max_num_seqs: 4294967295, max_num_batched_tokens: 4294967295}", &["does not fit"]),
        ("engine: {gpu_memory_utilization: 0}", &["`gpu_memory_utilization` is 0", "at most 1"]),
        ("engine: {gpu_memory_utilization: 1.5}", &["`gpu_memory_utilization` is 1.5"]),
        ("engine: {gpu_memory_utilization: .nan}", &["NaN"]),
        ("engine: {watermark: 1}", &["`watermark` is 1"]),
        ("engine: {watermark: -0.1}", &["`watermark` is -0.1"]),
        ("engine: {enable_prefix_caching: perhaps}", &["2:33", "`perhaps` is not true or false"]),
        ("engine: [1]", &["2:9", "a map is expected"]),
        ("pools: {gpu: h100-sxm}", &["2:8", "a list is expected"]),
        ("pools: [5]", &["2:9", "a map is expected"]),
    ]);
}

#[test]
fn limits_times_and_seeds_out_of_range_are_refused() {
    keys_refused(&[
        ("run: {horizon: 10s, warm_up: 20s}", &["run.horizon", "run.warm_up", "raise the one"]),
        ("run: {horizon: 0s}", &["nothing would be observed"]),
        ("run: {seed: -1}", &["2:13", "`-1` is not a whole number"]),
        ("run: {seed: 1.5}", &["`1.5` is not a whole number"]),
        ("run: {warm_up: 200000d}", &["2:16", "146 years"]),
        ("slo: {attainment: 2}", &["`slo.attainment` is 2", "0.95"]),
        ("slo: {attainment: .nan}", &["NaN"]),
        ("slo: {ttft: fast}", &["2:13", "`fast` is not a length of time", "30s"]),
        ("slo: {ttft: .nan}", &["2:13", "`.nan` is not a finite number"]),
        ("slo: {ttft: -1s}", &["2:13", "at least 0"]),
        ("slo: {ttft: 5 parsecs}", &["`5 parsecs`", "write for example"]),
        ("overhead: {gateway: 500y}", &["`500y` is not a length of time"]),
        ("overhead: {gateway: 53000d}", &["`overhead.gateway`", "at most 1h"]),
        ("overhead: {engine_per_step: 53000d}", &["`overhead.engine_per_step`", "at most 1s"]),
        ("overhead: {engine_per_request: 2s}", &["at most 1s"]),
    ]);
}

#[test]
fn a_workload_that_contradicts_itself_is_refused() {
    scenarios_refused(&[
        ("model: Qwen/Qwen3-14B\n", &["there is no `workload`", "`trace`"]),
        ("workload:\n", &["there is no `workload`"]),
        ("workload: {}\n", &["names nothing to run", "give `trace`"]),
        ("workload: 5\n", &["1:11"]),
        ("workload: {preset: azure-conv, trace: x.csv}\n", &["both a trace and a preset", "keep one"]),
        ("workload: {trace: [1, 2]}\n", &["1:19", "text is expected"]),
    ]);
    let whole = "is not a whole number";
    workloads_refused(&[
        ("requests: 99999999999999999999", &["1:42", whole]),
        ("requests: -1", &["`-1`", whole]),
        ("requests: 0", &["`workload.requests` is 0"]),
        ("requests: 1.5", &["`1.5`", whole]),
        ("rate: 1e400", &["1:38", "`1e400` is not"]),
        ("rate: -1", &["`workload.rate` is -1"]),
        ("rate: .nan", &["NaN"]),
        ("rate: .inf", &["inf"]),
        ("rate: 0", &["`workload.rate` is 0"]),
        ("duration: 5 parsecs", &["1:42", "`5 parsecs`"]),
        ("duration: -3s", &["at least 0"]),
        ("duration: 1e400", &["`1e400` is not a finite number"]),
        ("duration: 0s", &["nothing would be sent"]),
        ("scale: thin", &["`workload.scale` is for traces"]),
        ("format: mooncake", &["is for traces"]),
        ("columns: {a: b}", &["is for traces"]),
        ("loop: closed", &["`closed` is not a loop", "{closed: 256}"]),
        ("loop: {closed: 0}", &["1:39", "a whole number from 1"]),
        ("loop: {closed: 2, users: 3}", &["with just these keys"]),
        ("loop: {users: 3}", &["{users: 500, think: 20s}"]),
        ("loop: {closed: 2000000}", &["at most 1000000"]),
        ("loop: {closed: 2}, rate: 5", &["has no effect in a closed loop"]),
        ("client: {retries: 2}", &["no `client.timeout`"]),
        ("client: {timeout: 0}", &["`client.timeout` is 0"]),
        ("client: {timeout: 5s, retries: 4000000000}", &["at most 100"]),
    ]);
}

#[test]
fn laws_that_cannot_be_drawn_from_are_refused() {
    let folder = Folder::new();
    let check = |key: &str, cases: &[(&str, &[&str])]| {
        for (law, parts) in cases {
            let mut keys =
                vec![("arrival", "{poisson: {rate: 20}}"), ("input_tokens", "100"), ("output_tokens", "10")];
            keys.retain(|(name, _)| *name != key);
            keys.push((key, law));
            let lines: String = keys.iter().map(|(name, law)| format!("    {name}: {law}\n")).collect();
            folder.write("scenario.yaml", format!("workload:\n  requests: 5\n  synthetic:\n{lines}"));
            refused(&folder, &["scenario.yaml"], &[&["scenario.yaml: "], *parts].concat());
        }
    };
    check(
        "input_tokens",
        &[
            ("-5", &["6:19", "`-5` is not a number of tokens", "write for example"]),
            ("0", &["`input_tokens`", "less than 0.5"]),
            ("1e400", &["`1e400` is not a finite number"]),
            ("99999999999999999999", &["is not a number of tokens"]),
            ("30s", &["`30s` is not a number of tokens"]),
            ("true", &["6:", "expected a law"]),
            ("[1, 2]", &["expected a law"]),
            ("{logormal: {median: 900, sigma: 1}}", &["6:20", "did you mean `lognormal`?"]),
            ("{lognormal: {median: 900}}", &["6:32", "`sigma`"]),
            ("{lognormal: {median: 900, sigma: -1}}", &["`input_tokens`", "`sigma` is -1"]),
            ("{lognormal: {median: 900, sigma: 1, mu: 2}}", &["unknown key `mu`"]),
            ("{gamma: {mean: 10, cv: 1}, uniform: {min: 1, max: 2}}", &["`gamma` and `uniform`", "keep one"]),
            ("{uniform: {min: 10, max: 5}}", &["`min` 10 is above `max` 5"]),
            ("{weibull: {shape: 0, scale: 5}}", &["`shape` is 0"]),
            ("{empirical: []}", &["lists no value"]),
            ("{empirical: none.csv}", &["none.csv"]),
            ("{mix: []}", &["nothing to choose from"]),
            ("{mix: [{weight: 0, law: 3}]}", &["weights are above 0"]),
            ("{sum: []}", &["lists no law"]),
        ],
    );
    check(
        "arrival",
        &[
            ("20", &["{poisson: {rate: 20}}"]),
            ("{poison: {rate: 20}}", &["6:15", "did you mean `poisson`?"]),
            ("{poisson: {rate: 0}}", &["`rate` is 0"]),
            ("{poisson: {}}", &["missing field `rate`"]),
            ("{gamma: {rate: 20, cv: -1}}", &["`cv` is -1"]),
        ],
    );
    check("shared_prefix", &[("{groups: 0, tokens: 10}", &["`shared_prefix.groups`"])]);
    check("adapters", &[("{count: 4000000000}", &["`adapters`", "at most"])]);
    check(
        "sessions",
        &[
            ("{turns: 0, think: 3s}", &["7:23", "from 1 to 1000"]),
            ("{turns: 3}", &["missing field `think`"]),
            ("{turns: 3, think: -3s}", &["7:33", "at least 0"]),
            ("{turns: {beta_geometric: [1]}, think: 3s}", &["length 1"]),
        ],
    );
}
