//! Manifests as people write them, and as they should not.

use super::*;
use crate::assemble::assemble;
use crate::scenario::{EngineArgs, Role};

const DEPLOYMENT: &str = include_str!("../../../examples/manifests/current.yaml");
const KSERVE: &str = include_str!("../../../tests/fixtures/manifests/inference-service.yaml");
const PREFILL_DECODE: &str = include_str!("../../../tests/fixtures/manifests/prefill-decode-list.yaml");

/// A Deployment of one container with this command line.
fn deployment(command: &str) -> String {
    format!(
        "kind: Deployment\nmetadata: {{name: d}}\nspec:\n  template:\n    spec:\n      containers:\n        - \
         {{name: c, image: vllm/vllm-openai, command: {command}}}\n"
    )
}

fn understood(command: &str) -> Current {
    parse(&deployment(command)).unwrap_or_else(|e| panic!("{command}: {e}"))
}

fn engine(command: &str) -> EngineArgs {
    understood(command).pools[0].engine.clone().expect("arguments")
}

#[test]
fn a_deployment_becomes_a_pool() {
    let current = parse(DEPLOYMENT).unwrap();
    assert_eq!(current.model.as_deref(), Some("Qwen/Qwen3-14B"));
    let [pool] = current.pools.as_slice() else { panic!("one pool: {:?}", current.pools) };
    assert_eq!(pool.name.as_deref(), Some("chat"));
    assert_eq!(
        (pool.gpu.as_deref(), pool.tensor_parallel, pool.replicas),
        (Some("h100-sxm"), Some(2), Some(3))
    );
    let expected = EngineArgs {
        max_model_len: Some(32_768),
        gpu_memory_utilization: Some(0.9),
        max_num_seqs: Some(256),
        enable_prefix_caching: Some(true),
        ..EngineArgs::default()
    };
    assert_eq!(pool.engine, Some(expected));
    assert_eq!(
        current.notes,
        ["Deployment chat: `--enforce-eager` is not modelled (running without CUDA graphs: \
                                real decode steps are slower): left out"]
    );
}

#[test]
fn an_inference_service_stands_on_its_runtime() {
    let current = parse(KSERVE).unwrap();
    assert_eq!(current.model.as_deref(), Some("meta-llama/Llama-3.1-8B"));
    let pool = &current.pools[0];
    assert_eq!((pool.gpu.as_deref(), pool.replicas), (Some("a100-sxm-80gb"), Some(2)));
    let engine = pool.engine.clone().unwrap();
    assert_eq!(engine.max_num_batched_tokens, Some(4096), "from the runtime");
    assert_eq!(engine.max_model_len, Some(16_000), "the service's own, over the runtime's");
    assert!(current.notes.iter().any(|note| note.contains("from 2 to 5 replicas")), "{:?}", current.notes);
}

#[test]
fn a_list_of_two_roles_is_two_pools() {
    let current = parse(PREFILL_DECODE).unwrap();
    let roles: Vec<_> = current.pools.iter().map(|pool| (pool.role, pool.tensor_parallel)).collect();
    assert_eq!(roles, [(Some(Role::Prefill), Some(1)), (Some(Role::Decode), Some(4))]);
    assert!(current.notes.iter().any(|note| note.contains("--kv-transfer-config")), "{:?}", current.notes);
}

#[test]
fn the_baseline_can_be_assembled() {
    let mut loaded = parse(DEPLOYMENT).unwrap().to_scenario(Path::new(""));
    loaded.scenario.workload = serde_saphyr::from_str("{preset: azure-conv, requests: 5}").unwrap();
    let assembled = assemble(&loaded).unwrap();
    assert_eq!(assembled.fleet.pools[0].replicas, 3);
    assert_eq!(assembled.fleet.pools[0].engine.max_model_len, 32_768);
}

#[test]
fn flags_are_read_in_every_form_that_vllm_takes() {
    for command in [
        "[vllm, serve, Qwen/Qwen3-8B, --max-num-seqs=64, --max-model-len=8K]",
        "[vllm, serve, Qwen/Qwen3-8B, --max-num-seqs, '64', --max-model-len, '8192']",
        "[vllm, serve, Qwen/Qwen3-8B, --max_num_seqs, 64, --max_model_len=8192]",
        "[python3, -m, vllm.entrypoints.openai.api_server, --model, Qwen/Qwen3-8B, --max-num-seqs=64, --max-model-len=8K]",
        "[/bin/sh, -c, 'vllm serve Qwen/Qwen3-8B --max-num-seqs 64 --max-model-len 8K --port 8000']",
    ] {
        let current = understood(command);
        assert_eq!(current.model.as_deref(), Some("Qwen/Qwen3-8B"), "{command}");
        let engine = current.pools[0].engine.clone().unwrap();
        assert_eq!((engine.max_num_seqs, engine.max_model_len), (Some(64), Some(8192)), "{command}");
    }
    assert_eq!(engine("[vllm, serve, a/b, --max-model-len, 32.5k]").max_model_len, Some(32_500));
    assert_eq!(engine("[vllm, serve, a/b, --max-model-len, '-1']").max_model_len, None, "as long as fits");
    assert_eq!(engine("[vllm, serve, a/b, --no-enable-prefix-caching]").enable_prefix_caching, Some(false));
    assert_eq!(understood("[vllm, serve, a/b, -tp, '4']").pools[0].tensor_parallel, Some(4));
    let last = engine("[vllm, serve, a/b, --max-num-seqs=8, --max-num-seqs=9]");
    assert_eq!(last.max_num_seqs, Some(9), "the last one counts");
}

#[test]
fn what_is_not_understood_is_said() {
    let noted = |command: &str, part: &str| {
        let notes = understood(command).notes;
        assert!(notes.iter().any(|note| note.contains(part)), "{command}: {part} is not in {notes:?}");
    };
    noted("[vllm, serve, a/b, --frobnicate, '3']", "`--frobnicate` was not understood");
    noted("[vllm, serve, a/b, --speculative-config, '{}']", "speculative decoding");
    noted("[vllm, serve, /models/mine]", "the model is at `/models/mine`");
    noted("[vllm, serve, $(MODEL)]", "name it with --model");
    noted("[vllm, serve, a/b, --pipeline-parallel-size=2]", "pipeline parallelism of 2 is not modelled");
    noted("[vllm, serve, a/b]", "no node selector names the GPU");
    assert_eq!(understood("[vllm, serve, a/b, -dp=3]").pools[0].replicas, Some(3));
}

#[test]
fn malformed_manifests_are_refused_with_the_place_and_the_mend() {
    let refused = |text: &str, parts: &[&str]| {
        let error = parse(text).expect_err(text).to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in: {error}"));
    };
    refused("", &["found: nothing", "Deployment"]);
    refused("kind: Service\n", &["found: Service"]);
    refused("kind: [\n", &[":"]);
    refused("a: *b\n", &[]);
    refused(&deployment("[vllm, serve, a/b, --max-num-seqs=many]"), &["Deployment d", "--max-num-seqs many"]);
    refused(&deployment("[vllm, serve, a/b, --max-model-len, 1.5K]"), &["--max-model-len 1.5K"]);
    refused(&deployment("[vllm, serve, a/b, -tp, '0']"), &["--tensor-parallel-size 0", "from 1 to 1024"]);
    refused(&deployment("[vllm, serve, a/b, --max-num-seqs]"), &["`--max-num-seqs` has no value"]);
    refused(&deployment("[vllm, {serve: 1}]"), &["`command`", "a list of texts"]);
    let text =
        deployment("[vllm, serve, a/b]").replace("spec:\n  template", "spec:\n  replicas: three\n  template");
    refused(&text, &["Deployment d", "`spec.replicas` is \"three\""]);
    refused(
        "kind: InferenceService\nmetadata: {name: i}\nspec: {}\n",
        &["InferenceService i", "spec.predictor"],
    );
}

proptest::proptest! {
    #[test]
    fn nothing_panics(text in "[ -~\n]{0,200}", word in "[!-~]{0,12}", value in "[ -~]{0,12}") {
        let _ = parse(&text);
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let _ = parse(&deployment(&format!("[vllm, serve, {}, {}]", quote(&word), quote(&value))));
        let _ = parse(&deployment(&format!("[sh, -c, {}]", quote(&format!("vllm {word} {value}")))));
    }
}
