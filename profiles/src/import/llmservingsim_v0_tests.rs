use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// One layer of Llama-3.1-8B on an H100, 100 us for each product and 10 for each token; its decodes read 512 MiB in the
/// time given.
fn tables(decode_ms: f64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("H100/meta-llama/Llama-3.1-8B/tp1");
    fs::create_dir_all(&inner).unwrap();
    let mut layers = String::from("layer_name,input,kv_cache,tp_size,latency(ns)\n");
    let names =
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head", "rope"];
    for (name, tokens) in names.iter().flat_map(|name| [64u32, 1].map(|tokens| (name, tokens))) {
        let _ = writeln!(layers, "{name},{tokens},0,1,{}", 100_000 + 10_000 * tokens);
    }
    fs::write(inner.join("layers.csv"), layers).unwrap();
    let mut attention = String::from(
        "time_stats.attn_prefill.median,time_stats.attn_decode.median,n_embd,n_q_head,n_kv_head,num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size,is_prefill\n",
    );
    let _ =
        writeln!(attention, ",0.01,4096,32,8,1,1,0,1024,False\n,{decode_ms},4096,32,8,1,128,0,1024,False");
    let _ = writeln!(attention, "0.02,,4096,32,8,1,1,32,32,True\n0.2,,4096,32,8,1,1,1024,32,True");
    fs::write(inner.join("attention.csv"), attention).unwrap();
    (folder, inner)
}

#[test]
fn decode_attention_beyond_the_bandwidth_is_refused_and_the_products_kept() {
    let (_folder, inner) = tables(0.02);
    let profile = import(&inner, &Options::default()).unwrap();
    let refusal = "decode attention is not used: it implies up to 26.8 TB/s, and h100-sxm has 3.4";
    assert!(profile.notes.iter().any(|note| note.contains(refusal)), "{:?}", profile.notes);
    let us = |name: &str| profile.per_layer.iter().find(|op| op.op == name).unwrap().us[0];
    assert_eq!((us("qkv_proj"), us("gate_up_proj"), us("down_proj")), (330.0, 220.0, 110.0));
    assert!(us("rope") < 10.0, "a closed form");
    assert_eq!((profile.gpu.as_str(), profile.tensor_parallel), ("h100-sxm", 1));
    assert_eq!(profile.attention.chunks, [0, 32, 1024], "its prefills are sound");
}

#[test]
fn sound_decode_attention_is_used() {
    let (_folder, inner) = tables(0.3);
    let profile = import(&inner, &Options::default()).unwrap();
    assert_eq!(profile.attention.decode_us, [10.0, 300.0]);
}

#[test]
fn a_missing_layer_is_named() {
    let (_folder, inner) = tables(0.3);
    let text = fs::read_to_string(inner.join("layers.csv")).unwrap();
    fs::write(inner.join("layers.csv"), text.replace("k_proj", "other")).unwrap();
    let why = import(&inner, &Options::default()).unwrap_err().to_string();
    assert!(why.contains("has no rows of q_proj, k_proj, v_proj with tp_size 1"), "{why}");
}
