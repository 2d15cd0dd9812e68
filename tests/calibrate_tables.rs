//! `forerun calibrate`: tables of each layout become profiles that simulations and explanations use, and constants
//! are fitted to tables.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use crate::support::{Folder, Run};

const SCENARIO: &str = "
model: meta-llama/Llama-3.1-8B
workload: {requests: 20, synthetic: {arrival: {poisson: {rate: 4}}, input_tokens: 300, output_tokens: 20}}
engine: {max_num_seqs: 64, max_num_batched_tokens: 512, max_model_len: 4096}
pools: [{gpu: h100-sxm}]
";

/// A folder with the scenario, and with `tables` in the folder `at` of it.
fn with_tables(at: &str, tables: &[(&str, String)]) -> Folder {
    let folder = Folder::with_scenario(SCENARIO);
    fs::create_dir_all(folder.path(at)).expect("a writable folder");
    for (name, text) in tables {
        folder.write(&format!("{at}/{name}"), text);
    }
    folder
}

/// Folder and further arguments of an import, and tables of its layout: Llama-3.1-8B on an H100.
struct Layout {
    at: &'static str,
    args: &'static [&'static str],
    tables: Vec<(&'static str, String)>,
}

impl Layout {
    fn all() -> [Self; 4] {
        [llmservingsim(), llmservingsim_v0(), aiconfigurator(), vidur()]
    }

    fn folder(&self) -> Folder {
        with_tables(self.at, &self.tables)
    }

    fn import(&self, folder: &Folder) -> Run {
        folder.run(&[&["calibrate", "import", self.at, "-o", "profile.json.zst"], self.args].concat())
    }
}

fn llmservingsim() -> Layout {
    let mut dense = String::from("layer,tokens,time_us\n");
    for (layer, tokens) in
        ["qkv_proj", "down_proj", "layernorm", "embedding"].iter().flat_map(|l| [(l, 1), (l, 512)])
    {
        let _ = writeln!(dense, "{layer},{tokens},{}", 20 + tokens / 10);
    }
    let mut attention = String::from("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n");
    for (chunk, history, n, kv) in
        [(0, 0, 1, 64), (0, 0, 64, 64), (0, 0, 1, 4096), (0, 0, 64, 4096), (512, 0, 0, 0), (512, 0, 64, 4096)]
    {
        let _ = writeln!(attention, "{chunk},{history},{n},{kv},{}", 5 + chunk / 10 + n * kv / 4000);
    }
    let meta = "vllm_version: 0.19.0\nhardware: H100\nmodel: meta-llama/Llama-3.1-8B\nvariant: bf16\ntp_degrees: [1]\n";
    let heads = "layer,sequences,time_us\nlm_head,1,300\nlm_head,64,320\nsampler,1,20\nsampler,64,30\n";
    Layout {
        at: "own/tp1",
        args: &[],
        tables: vec![
            ("dense.csv", dense),
            ("per_sequence.csv", heads.into()),
            ("attention.csv", attention),
            ("meta.yaml", meta.into()),
        ],
    }
}

fn llmservingsim_v0() -> Layout {
    let mut layers = String::from("layer_name,input,kv_cache,tp_size,latency(ns)\n");
    for name in ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"] {
        let _ = writeln!(layers, "{name},1,0,1,30000\n{name},512,0,1,900000");
    }
    Layout { at: "H100/meta-llama/Llama-3.1-8B/tp1", args: &[], tables: vec![("layers.csv", layers)] }
}

fn aiconfigurator() -> Layout {
    let mut gemm = String::from("gemm_dtype,m,n,k,latency_us\n");
    let sizes = [4096u32, 8192, 65_536];
    for (n, k, m) in sizes.iter().flat_map(|n| sizes.iter().flat_map(move |k| [(n, k, 1u32), (n, k, 512)])) {
        let us = 3.0 + f64::from(*n) * f64::from(*k) * (2.0 / 3e6 + f64::from(m) / 4e8);
        let _ = writeln!(gemm, "bfloat16,{m},{n},{k},{us}\nfp8_block,{m},{n},{k},60");
    }
    let head =
        "attn_dtype,kv_cache_dtype,batch_size,LENGTH,num_heads,num_key_value_heads,head_dim,latency_us\n";
    let (mut prompts, mut decodes) = (head.replace("LENGTH", "isl"), head.replace("LENGTH", "context"));
    for length in [64, 512, 4096] {
        let _ = writeln!(prompts, "bfloat16,bfloat16,1,{length},32,8,128,{}", 10 + length / 20);
        for batch in [1, 64] {
            let us = 10 + batch * length / 600;
            let _ = writeln!(decodes, "bfloat16,bfloat16,{batch},{length},32,8,128,{us}");
        }
    }
    Layout {
        at: "tables/h100_sxm",
        args: &["--model", "llama-3.1-8b"],
        tables: vec![
            ("gemm.csv", gemm),
            ("context_attention.csv", prompts),
            ("generation_attention.csv", decodes),
        ],
    }
}

fn vidur() -> Layout {
    let kernels = "emb_ms,input_layernorm_ms,attn_pre_proj_ms,attn_rope_ms,attn_post_proj_ms,post_attention_layernorm_ms,mlp_up_proj_ms,mlp_act_ms,mlp_down_proj_ms";
    let mut mlp = format!("n_head,n_kv_head,n_embd,n_expanded_embd,vocab_size,tp,num_tokens,{kernels}\n");
    for tokens in [512, 64, 1] {
        let ms = vec![format!("{}", 0.03 + f64::from(tokens) / 1e3); 9].join(",");
        let _ = writeln!(mlp, "32,8,4096,14336,128256,1,{tokens},{ms}");
    }
    Layout {
        at: "vidur",
        args: &["--model", "llama-3.1-8b", "--tensor-parallel", "1"],
        tables: vec![("mlp_h100_Llama-3.1-8B.csv", mlp)],
    }
}

fn json(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("one JSON document")
}

/// A refusal: exit code 2 and one line that says this.
fn refused(run: &Run, part: &str) {
    assert_eq!(run.code, Some(2), "{}{}", run.stdout, run.stderr);
    assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{part}: {}", run.stderr);
}

#[test]
fn tables_of_each_layout_become_a_profile_that_runs() {
    for layout in Layout::all() {
        let folder = layout.folder();
        let run = layout.import(&folder);
        assert_eq!(run.code, Some(0), "{}: {}", layout.at, run.stderr);
        assert!(run.stdout.contains("Llama-3.1-8B on "), "{}", run.stdout);
        let summary = folder.summary(&["scenario.yaml", "--set", "profile=profile.json.zst"]);
        assert_eq!(summary["cost_model"][0]["grade"], "tables", "{}", layout.at);
        assert_eq!(summary["requests"]["completed"], 20, "{}", layout.at);
    }
}

#[test]
fn an_explained_step_shows_the_tables_of_the_scenarios_profile() {
    for layout in Layout::all() {
        let folder = layout.folder();
        assert_eq!(layout.import(&folder).code, Some(0), "{}", layout.at);
        let args = [
            "explain",
            "step",
            "--scenario",
            "scenario.yaml",
            "--prefill",
            "200",
            "--decode",
            "30",
            "--kv",
            "1000",
        ];
        let closed = json(&folder.run(&[&args[..], &["--format", "json"]].concat()));
        assert_eq!((&closed["profile"], &closed["grade"]), (&Value::Null, &Value::from("fitted")));
        let own = ["--set", "profile=profile.json.zst"];
        let step = json(&folder.run(&[&args[..], &own, &["--format", "json"]].concat()));
        assert_eq!(step["grade"], "tables");
        assert!(step["profile"]["path"].as_str().is_some_and(|path| path.ends_with("profile.json.zst")));
        let ops = step["ops"].as_array().expect("a list of ops");
        assert!(ops.iter().any(|op| op["name"] == "attention") && ops.iter().all(|op| op["form"].is_null()));
        let sum: u64 = ops.iter().map(|op| op["total_ns"].as_u64().expect("whole nanoseconds")).sum();
        assert_eq!(step["gpu_ns"].as_u64(), Some(sum), "{}", layout.at);
        assert_ne!(step["gpu_ns"], closed["gpu_ns"], "{}", layout.at);
        let text = folder.run(&[&args[..], &own].concat()).stdout;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("Measured tables") && text.contains("Grade: tables"), "{text}");
    }
}

#[test]
fn a_profile_of_other_types_is_refused_with_the_mend() {
    let layout = aiconfigurator();
    let folder = layout.folder();
    assert_eq!(layout.import(&folder).code, Some(0));
    for (set, part) in [
        ("dtype=fp8", "was measured with bf16 weights, and the scenario has fp8: set `dtype: bf16`"),
        ("kv_cache_dtype=fp8", "set `kv_cache_dtype: auto`, or name a profile of fp8"),
    ] {
        let sets = ["--set", "profile=profile.json.zst", "--set", set];
        refused(&folder.run(&[&["simulate", "scenario.yaml"], &sets[..]].concat()), part);
        let explain = ["explain", "step", "--scenario", "scenario.yaml", "--decode", "1"];
        refused(&folder.run(&[&explain[..], &sets].concat()), part);
    }
}

#[test]
fn an_import_that_cannot_be_is_refused_with_the_mend() {
    let layout = aiconfigurator();
    let folder = layout.folder();
    folder.write("empty", "");
    fs::create_dir(folder.path("nothing")).expect("a writable folder");
    for (args, part) in [
        (&["tables/h100_sxm"][..], "name one with --model"),
        (&["tables"], "holds tables further below"),
        (&["nothing"], "has no tables of a known layout"),
        (&["empty"], "is not a folder"),
        (&["tables/h100_sxm", "--model", "llama-3.1-8"], "is not in the catalog"),
        (&["tables/h100_sxm", "--model", "llama-3.1-8b", "--dtype", "fp7"], "`dtype: fp7`"),
        (&["tables/h100_sxm", "--model", "llama-3.1-8b", "--gpu", "h1000"], "`gpu: h1000`"),
        (&["tables/h100_sxm", "--model", "llama-3.1-8b", "--tensor-parallel", "5"], "tensor_parallel 5"),
        (&["tables/h100_sxm", "--model", "llama-3.1-8b", "--foreign-skew"], "leave out --foreign-skew"),
    ] {
        refused(&folder.run(&[&["calibrate", "import", "-o", "p.json"], args].concat()), part);
    }
    assert!(!folder.names().contains(&"p.json".to_owned()), "nothing is left behind");
    let own = llmservingsim();
    let run = own.folder().run(&["calibrate", "import", own.at, "-o", "p.json", "--gpu", "h200"]);
    refused(&run, "says itself what it is of");
}

#[test]
fn constants_are_fitted_and_reported() {
    let folder = aiconfigurator().folder();
    let (before, after) = ("<!-- forerun calibrate fit: begin -->", "<!-- forerun calibrate fit: end -->");
    folder.write("notes.md", format!("# Notes\n{before}\nold\n{after}\nkept\n"));
    let run = folder.run(&["calibrate", "fit", "tables", "--update", "notes.md"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for part in ["GEMM bf16", "h100-sxm", "compute_efficiency"] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    let notes = folder.read("notes.md");
    assert!(
        notes.contains("compute_efficiency") && notes.ends_with("kept\n") && !notes.contains("old"),
        "{notes}"
    );
    refused(&folder.run(&["calibrate", "fit", "vidur"]), "has none of the folders");
}
