use std::fs;
use std::path::PathBuf;

use forerun_sim::catalog;
use tempfile::TempDir;

use super::*;
use crate::profile::Profile;

/// Tables of an H100: a matrix takes a microsecond for each million weights and a hundredth more for each token, 8-bit
/// ones half of it, `fp8_block` its 60 us floor; prompts a microsecond for each thousand pairs, decodes one for each
/// thousand tokens of context, an all-reduce over 2 GPUs one for each thousand *elements*.
fn tables() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("h100_sxm");
    fs::create_dir(&inner).unwrap();
    let sizes = [2048u32, 4096, 8192, 16_384, 65_536];
    let mut gemm = String::from("gemm_dtype,m,n,k,latency_us\n");
    for (n, k) in sizes.iter().flat_map(|n| sizes.iter().map(move |k| (n, k))) {
        for m in [1, 64, 512] {
            let us = f64::from(*n) * f64::from(*k) / 1e6 * (1.0 + 0.01 * f64::from(m));
            gemm += &format!(
                "bfloat16,{m},{n},{k},{us}\nfp8,{m},{n},{k},{}\nfp8_block,{m},{n},{k},60\n",
                us / 2.0
            );
        }
    }
    fs::write(inner.join("gemm.csv"), gemm).unwrap();
    let head =
        "attn_dtype,kv_cache_dtype,batch_size,LENGTH,num_heads,num_key_value_heads,head_dim,latency_us\n";
    let mut prompts = head.replace("LENGTH", "isl");
    for length in [16u32, 512, 4096, 16_384] {
        let pairs = f64::from(length) * f64::from(length + 1) / 2.0;
        prompts += &format!("bfloat16,bfloat16,1,{length},32,8,128,{}\n", 1.0 + pairs / 1e3);
        prompts += &format!("bfloat16,bfloat16,1,{length},64,8,128,1\n");
    }
    fs::write(inner.join("context_attention.csv"), prompts).unwrap();
    let mut decodes = head.replace("LENGTH", "context");
    for (batch, context) in [(1u32, 256u32), (1, 1024), (1, 4096), (64, 256), (64, 1024)] {
        decodes += &format!(
            "bfloat16,bfloat16,{batch},{context},32,8,128,{}\n",
            5.0 + f64::from(batch * context) / 1e3
        );
    }
    fs::write(inner.join("generation_attention.csv"), decodes).unwrap();
    let mut messages = String::from("kernel_source,allreduce_dtype,num_gpus,message_size,latency_us\n");
    for size in [1000, 1_000_000] {
        messages += &format!("vLLM_custom_graph,bfloat16,2,{size},{}\n", size / 1000);
        messages += &format!("vLLM_custom_eager,bfloat16,2,{size},{size}\n");
    }
    fs::write(inner.join("allreduce_vllm.csv"), messages).unwrap();
    (folder, inner)
}

fn options(model: &str, tensor_parallel: u32) -> Options<'static> {
    Options { model: catalog::model(model), tensor_parallel: Some(tensor_parallel), ..Options::default() }
}

fn op<'p>(profile: &'p Profile, name: &str) -> &'p Op {
    let mut ops = profile.per_layer.iter().chain(&profile.per_step).chain(&profile.per_sequence);
    ops.find(|op| op.op == name).unwrap()
}

#[test]
fn a_layer_is_composed_from_the_kernels_of_its_shapes() {
    let (_folder, inner) = tables();
    let profile = import(&inner, &options("llama-3.1-8b", 1)).unwrap();
    let first = |name: &str| op(&profile, name).us[0];
    // 4096 by 4096 is in the table; 28,672 lies between sizes, where the logarithm of time is linear in that of size.
    assert!((first("o_proj") - 4096.0 * 4096.0 / 1e6 * 1.01).abs() < 1e-2);
    assert!((first("gate_up_proj") / (4096.0 * 28_672.0 / 1e6 * 1.01) - 1.0).abs() < 1e-3);
    assert!((op(&profile, "norms").times - 2.0).abs() < 1e-9, "of a layer");
    let (gpu, model) = (catalog::gpu("h100").unwrap(), catalog::model("llama-3.1-8b").unwrap());
    assert!(profile.kernels(gpu, model, 1).is_ok());
    assert!(
        profile
            .notes
            .iter()
            .any(|note| note.contains("closed forms, not in the tables: embedding, norms, rope"))
    );
}

#[test]
fn beyond_the_largest_matrix_the_last_efficiency_is_held_and_noted() {
    let (_folder, inner) = tables();
    let profile = import(&inner, &options("llama-3.1-8b", 1)).unwrap();
    assert!((op(&profile, "lm_head").us[0] / (4096.0 * 128_256.0 / 1e6 * 1.01) - 1.0).abs() < 1e-3);
    assert!(
        profile.notes.iter().any(|note| note.contains("`lm_head` is 4096 by 128256")),
        "{:?}",
        profile.notes
    );
}

#[test]
fn messages_of_an_all_reduce_are_elements() {
    let (_folder, inner) = tables();
    fs::write(
        inner.join("context_attention.csv"),
        fs::read_to_string(inner.join("context_attention.csv")).unwrap().replace(",32,8,", ",16,4,"),
    )
    .unwrap();
    let profile = import(&inner, &options("llama-3.1-8b", 2)).unwrap();
    let link = profile.all_reduce.as_ref().unwrap();
    let at = link.at.iter().position(|&tokens| tokens == 64).unwrap();
    assert_eq!((link.times, link.us[at]), (2.0, 262.144), "64 tokens of 4096 elements");
}

#[test]
fn the_floor_of_fp8_block_is_not_used() {
    let (_folder, inner) = tables();
    let narrow = catalog::model("llama-3.1-8b").unwrap().clone().with_weights(WeightType::Fp8);
    let eight = import(&inner, &Options { model: Some(&narrow), ..Options::default() }).unwrap();
    let sixteen = import(&inner, &options("llama-3.1-8b", 1)).unwrap();
    assert!((op(&eight, "o_proj").us[0] * 2.0 - op(&sixteen, "o_proj").us[0]).abs() < 2e-3);
    assert_eq!(op(&eight, "lm_head"), op(&sixteen, "lm_head"), "it stays in 16 bits");
    assert_eq!((eight.dtype.as_str(), eight.kv_cache_dtype.as_str()), ("fp8", "auto"));
}

#[test]
fn decodes_beyond_the_measured_context_read_on_at_the_last_rate() {
    let (_folder, inner) = tables();
    let grids = import(&inner, &options("llama-3.1-8b", 1)).unwrap().attention;
    // 64 decodes of 4096 tokens were not measured: 64 of 1024 took 70.5 us.
    let us = grids.decode_us[grids.contexts.len() * 2 - 1];
    assert!((us - (5.0 + 64.0 * 4096.0 / 1e3)).abs() < 1e-2, "{us}");
}

#[test]
fn heads_that_were_not_measured_are_closed_forms_and_noted() {
    let (_folder, inner) = tables();
    let profile = import(&inner, &options("qwen3-8b", 4)).unwrap();
    for what in ["decode attention is a closed form", "prefill attention is a closed form"] {
        assert!(profile.notes.iter().any(|note| note.contains(what)), "{:?}", profile.notes);
    }
}

#[test]
fn what_the_tables_cannot_compose_is_refused() {
    let (_folder, inner) = tables();
    for (options, part) in [
        (Options::default(), "--model"),
        (options("deepseek-v3", 1), "latent attention"),
        (options("gpt-oss-20b", 1), "window"),
        (options("llama-3.1-8b", 3), "tensor_parallel 3"),
    ] {
        let why = import(&inner, &options).unwrap_err().to_string();
        assert!(why.contains(part) && !why.contains('\n'), "{why}");
    }
    fs::write(inner.join("gemm.csv"), "gemm_dtype,m,n,k,latency_us\nbfloat16,64,4096,6144,0.01\n").unwrap();
    let why = import(&inner, &options("llama-3.1-8b", 1)).unwrap_err().to_string();
    assert!(why.contains("has no matrix of n 6144, k 4096"), "{why}");
    let all = "gemm_dtype,m,n,k,latency_us\nbfloat16,64,4096,4096,0.01\n";
    fs::write(inner.join("gemm.csv"), all).unwrap();
    let why = import(&inner, &options("llama-3.1-8b", 1)).unwrap_err().to_string();
    assert!(why.contains("more FLOP/s than h100-sxm has"), "{why}");
}
