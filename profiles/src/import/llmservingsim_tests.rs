use std::fs;
use std::path::PathBuf;

use forerun_sim::catalog;
use forerun_sim::cost::tables::{Limits, TableCost};
use forerun_sim::cost::{CostModel as _, StepShape};
use forerun_sim::time::Span;
use tempfile::TempDir;

use super::*;

const META: &str =
    "vllm_version: 0.19.0\nhardware: H100\nmodel: meta-llama/Llama-3.1-8B\nvariant: bf16\ntp_degrees: [1]\n";

/// Tables of a layer whose times are easily told: 10 us for its only kernel, attention of 1 us per decode and of
/// 1 us per 100 tokens of a prefill.
fn tables() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("tp1");
    fs::create_dir(&inner).unwrap();
    fs::write(folder.path().join("meta.yaml"), META).unwrap();
    fs::write(inner.join("dense.csv"), "layer,tokens,time_us\nmlp,1,10\nmlp,64,10\nembedding,1,3\n").unwrap();
    fs::write(inner.join("per_sequence.csv"), "layer,sequences,time_us\nlm_head,1,100\n").unwrap();
    let mut attention = String::from("prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n");
    for (n, kv) in [(1, 16), (1, 64), (4, 16), (4, 64)] {
        attention += &format!("0,0,{n},{kv},{n}\n100,0,{n},{kv},{}\n", n + 1);
    }
    attention += "100,0,0,0,1\n200,0,0,0,2\n";
    fs::write(inner.join("attention.csv"), attention).unwrap();
    (folder, inner)
}

#[test]
fn an_imported_profile_gives_the_times_of_its_tables() {
    let (_folder, inner) = tables();
    let profile = import(&inner, &Options::default()).unwrap();
    let profile = Profile::parse(profile.to_json().as_bytes()).unwrap();
    let model = catalog::model("llama-3.1-8b").unwrap();
    let kernels = profile.kernels(catalog::gpu("h100").unwrap(), model, 1).unwrap();
    let limits = Limits {
        max_num_seqs: 8,
        max_num_batched_tokens: 256,
        max_model_len: 4096,
        cpu_per_step: Span::ZERO,
        cpu_per_request: Span::ZERO,
    };
    assert_eq!(kernels.beyond(&limits).len(), 3, "tokens, sequences and context go beyond these tables");
    let cost = TableCost::new(kernels, &limits);
    let decodes =
        StepShape { decodes: 4, decode_context: 128, decode_longest: 32, sampled: 4, ..StepShape::default() };
    let us = cost.step(&decodes).gpu.as_nanos() as f64 / 1e3;
    assert!((us - (32.0 * (10.0 + 4.0) + 3.0 + 100.0)).abs() < 1e-3, "{us}");
}

#[test]
fn a_profile_serves_only_what_was_measured() {
    let (_folder, inner) = tables();
    let profile = import(&inner, &Options::default()).unwrap();
    let (h100, h200) = (catalog::gpu("h100").unwrap(), catalog::gpu("h200").unwrap());
    let (llama, qwen) = (catalog::model("llama-3.1-8b").unwrap(), catalog::model("qwen3-14b").unwrap());
    for (gpu, model, tensor_parallel, part) in [
        (h200, llama, 1, "on H100, not on h200"),
        (h100, qwen, 1, "not with Qwen"),
        (h100, llama, 2, "not 2"),
    ] {
        let why = profile.kernels(gpu, model, tensor_parallel).unwrap_err();
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn wrong_tables_are_refused_with_file_and_line() {
    for (file, text, part) in [
        ("dense.csv", "layer,tokens,time_us\nmlp,1,ten\n", "line 2: `time_us` is \"ten\""),
        ("dense.csv", "layer,tokens,time_us\nmlp,1,-3\n", "line 2: -3 is not a time"),
        ("dense.csv", "layer,count,time_us\nmlp,1,3\n", "has no column `tokens`"),
        ("dense.csv", "layer,tokens,time_us\n", "has no rows"),
        ("attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,1\n", "no rows"),
        ("../meta.yaml", "vllm_version: 1\n", "meta.yaml"),
    ] {
        let (_folder, inner) = tables();
        fs::write(inner.join(file), text).unwrap();
        let why = import(&inner, &Options::default()).unwrap_err().to_string();
        assert!(why.contains(part) && !why.contains('\n'), "{why}");
    }
}
