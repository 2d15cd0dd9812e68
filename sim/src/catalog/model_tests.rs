//! Models of the catalog, and config.json files.

use super::*;
use crate::catalog::model;

#[test]
fn kv_bytes_match_the_published_figures() {
    let bytes = |name, tp| model(name).unwrap().kv_bytes_per_token(tp, 2);
    assert_eq!(bytes("llama-3.1-8b", 1), 131_072);
    assert_eq!(bytes("llama-3.1-70b", 1), 327_680);
    assert_eq!(bytes("llama-3.1-70b", 8), 40_960);
    assert_eq!(bytes("deepseek-v3", 1), 70_272);
    assert_eq!(bytes("deepseek-v3", 8), 70_272, "every GPU keeps the latent vector whole");
}

#[test]
fn parameter_counts_match_the_published_figures() {
    let billions = |name| model(name).unwrap().parameters() as f64 / 1e9;
    for (name, published) in [
        ("llama-2-7b", 6.74),
        ("llama-2-70b", 68.98),
        ("codellama-34b", 33.74),
        ("llama-3.1-8b", 8.03),
        ("llama-3.1-70b", 70.6),
        ("mistral-7b", 7.25),
        ("mixtral-8x7b", 46.7),
        ("qwen3-8b", 8.19),
        ("qwen3-14b", 14.77),
        ("qwen3-32b", 32.76),
        ("qwen3-30b-a3b", 30.5),
        ("gpt-oss-20b", 20.9),
        ("gpt-oss-120b", 116.8),
        ("granite-3.1-8b", 8.17),
        ("deepseek-v3", 671.0),
    ] {
        assert!((billions(name) - published).abs() < 0.01 * published, "{name}: {}", billions(name));
    }
}

#[test]
fn quantised_weights_have_the_size_of_their_checkpoints() {
    let gib = |model: &Model| model.weight_bytes() / (1u64 << 30) as f64;
    // Sizes of the safetensors files on Hugging Face: 60.8 GiB, 12.8 GiB.
    for (name, published) in [("gpt-oss-120b", 60.8), ("gpt-oss-20b", 12.8)] {
        let ours = gib(model(name).unwrap());
        assert!((ours / published - 1.0).abs() < 0.02, "{name}: {ours} GiB");
    }
    let plain = model("llama-3.1-8b").unwrap().clone();
    let sizes = [WeightType::Bf16, WeightType::Fp8, WeightType::W4a16]
        .map(|weights| gib(&plain.clone().with_weights(weights)));
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    assert!(sizes[1] > sizes[0] / 2.0, "embedding and LM head stay in 16 bits");
}

#[test]
fn mxfp4_is_for_the_experts_alone() {
    let weights = model("gpt-oss-20b").unwrap().shape.weights;
    assert_eq!(weights, Weights { linear: WeightType::Bf16, experts: WeightType::Mxfp4 });
}

const BASE: &str = r#""hidden_size":64,"num_hidden_layers":2,"num_attention_heads":4,"intermediate_size":128,
    "vocab_size":100,"max_position_embeddings":8192"#;

fn read(family: &str, extra: &str) -> Result<Model, ModelError> {
    Model::from_hf_config("m", &format!(r#"{{"model_type":"{family}",{BASE}{extra}}}"#))
}

#[test]
fn an_unknown_architecture_is_refused_with_those_that_are_known() {
    let error = read("mamba", "").unwrap_err().to_string();
    assert!(error.contains("`model_type: mamba`") && error.contains("llama") && error.contains("gpt_oss"));
}

#[test]
fn every_known_family_is_read() {
    for family in ["llama", "mistral", "qwen2", "qwen3", "granite"] {
        assert_eq!(read(family, "").unwrap().shape.experts, None, "{family}");
    }
    let experts = r#","num_experts":8,"num_experts_per_tok":2,"moe_intermediate_size":32"#;
    for family in ["mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "deepseek_v2", "deepseek_v3"] {
        let shape = read(family, experts).unwrap().shape;
        assert_eq!((shape.experts.unwrap().count, shape.dense_layers), (8, 0), "{family}");
    }
}

#[test]
fn sliding_windows_are_read_as_each_family_means_them() {
    let window = |family, extra| read(family, extra).unwrap().shape.window;
    let all = Some(Window { tokens: 4096, layers: 2 });
    assert_eq!(window("mistral", r#","sliding_window":4096"#), all);
    assert_eq!(window("mistral", r#","sliding_window":null"#), None);
    assert_eq!(window("qwen3", r#","sliding_window":4096"#), None, "switched off unless said otherwise");
    assert_eq!(
        window("qwen2", r#","sliding_window":4096,"use_sliding_window":true,"max_window_layers":1"#),
        Some(Window { tokens: 4096, layers: 1 })
    );
    let types = r#","sliding_window":128,"layer_types":["sliding_attention","full_attention"]"#;
    assert_eq!(window("llama", types), Some(Window { tokens: 128, layers: 1 }));
}

#[test]
fn quantisation_is_read_from_the_config() {
    let linear = |quantization: &str| {
        read("llama", &format!(r#","quantization_config":{quantization}"#))
            .map(|model| model.shape.weights.linear)
    };
    assert_eq!(linear(r#"{"quant_method":"fp8"}"#), Ok(WeightType::Fp8));
    assert_eq!(linear(r#"{"quant_method":"awq","bits":4}"#), Ok(WeightType::W4a16));
    assert_eq!(linear(r#"{"quant_method":"gptq","bits":4}"#), Ok(WeightType::W4a16));
    let groups = |weights: &str, activations: &str| {
        linear(&format!(
            r#"{{"quant_method":"compressed-tensors","config_groups":{{"group_0":
                {{"weights":{weights},"input_activations":{activations}}}}}}}"#
        ))
    };
    let int8 = r#"{"num_bits":8,"type":"int"}"#;
    assert_eq!(
        groups(r#"{"num_bits":8,"type":"float"}"#, r#"{"num_bits":8,"type":"float"}"#),
        Ok(WeightType::Fp8)
    );
    assert_eq!(groups(int8, int8), Ok(WeightType::W8a8));
    assert_eq!(groups(r#"{"num_bits":4,"type":"int"}"#, "null"), Ok(WeightType::W4a16));
    for refused in [r#"{"quant_method":"bitsandbytes"}"#, r#"{"quant_method":"gptq","bits":3}"#, "{}"] {
        assert!(matches!(linear(refused), Err(ModelError::Unsupported(_))), "{refused}");
    }
}

#[test]
fn impossible_shapes_are_refused_by_field() {
    for (family, extra, field) in [
        ("llama", r#","num_key_value_heads":0"#, "num_key_value_heads"),
        ("llama", r#","num_key_value_heads":8"#, "num_key_value_heads"),
        ("llama", r#","head_dim":0"#, "head_dim"),
        ("mixtral", r#","num_local_experts":8"#, "num_experts_per_tok"),
        ("mixtral", r#","num_local_experts":8,"num_experts_per_tok":9"#, "num_experts_per_tok"),
        ("mixtral", "", "no experts"),
        ("llama", r#","num_experts":8,"num_experts_per_tok":2"#, "experts"),
        (
            "deepseek_v3",
            r#","n_routed_experts":8,"num_experts_per_tok":2,"kv_lora_rank":512"#,
            "qk_nope_head_dim",
        ),
        (
            "gpt_oss",
            r#","num_local_experts":8,"num_experts_per_tok":2,"sliding_window":8,"layer_types":[]"#,
            "layer_types",
        ),
        (
            "llama",
            r#","sliding_window":8,"layer_types":["linear_attention","full_attention"]"#,
            "linear_attention",
        ),
    ] {
        let error = read(family, extra).unwrap_err().to_string();
        assert!(error.contains(field), "{family} {extra}: {error}");
    }
}

#[test]
fn an_adapter_of_rank_16_of_llama_3_1_8b_has_42_million_weights() {
    let bytes = |name: &str| crate::catalog::model(name).unwrap().adapter_bytes(16);
    assert_eq!(bytes("llama-3.1-8b"), 2 * 41_943_040, "as PEFT counts with all linear modules as targets");
    assert!(bytes("gpt-oss-20b") < bytes("llama-3.1-8b"), "routed experts have no adapters");
}
