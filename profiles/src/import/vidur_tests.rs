use std::fmt::Write as _;
use std::fs;

use forerun_sim::catalog;
use tempfile::TempDir;

use super::*;

/// Kernels of Llama-3.1-8B on an A100 and an H100, 0.1 ms and a thousandth more for each token; token counts descend,
/// as in some of Vidur's files. Attention on the A100 reads at half of its bandwidth.
fn tables() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut mlp = String::from("n_head,n_kv_head,n_embd,n_expanded_embd,tp,num_tokens");
    for (kernel, _) in KERNELS {
        let _ = write!(mlp, ",{kernel}_ms");
    }
    mlp += ",input_layernorm_ms,post_attention_layernorm_ms,add_ms\n";
    for (tp, tokens) in [1, 2].iter().flat_map(|tp| [512u32, 64, 1].map(|tokens| (tp, tokens))) {
        let ms = (0.1 + f64::from(tokens) / 1e3) / f64::from(*tp);
        let all = vec![ms.to_string(); KERNELS.len()].join(",");
        let _ = writeln!(mlp, "32,8,4096,14336,{tp},{tokens},{all},0.01,0.03,0.5");
    }
    for gpu in ["a100", "h100"] {
        fs::write(folder.path().join(format!("mlp_{gpu}_model.csv")), &mlp).unwrap();
    }
    let mut attention = String::from(
        "n_embd,n_q_head,n_kv_head,block_size,tp,batch_size,prefill_chunk_size,kv_cache_size,attn_ms\n",
    );
    for (batch, context) in [(1, 64), (1, 4096), (128, 64), (128, 4096)] {
        let bytes = f64::from(batch * context) * 4096.0;
        let _ = writeln!(
            attention,
            "4096,32,8,16,1,{batch},0,{context},{}",
            0.01 + bytes / (0.5 * 2.039e12) * 1e3
        );
    }
    for (chunk, cached) in [(64, 0), (64, 2048), (1024, 0), (1024, 2048)] {
        let _ = writeln!(
            attention,
            "4096,32,8,16,1,1,{chunk},{cached},{}",
            f64::from(chunk * (cached + chunk)) / 1e6
        );
    }
    fs::write(folder.path().join("attention_a100.csv"), attention).unwrap();
    folder
}

fn options(gpu: &str, tensor_parallel: u32) -> Options<'static> {
    let model = catalog::model("llama-3.1-8b");
    Options { gpu: catalog::gpu(gpu), model, tensor_parallel: Some(tensor_parallel), ..Options::default() }
}

fn imported(folder: &TempDir, options: &Options<'_>) -> Result<Profile, ImportError> {
    import(folder.path(), &Tables::find(folder.path()).unwrap(), options)
}

#[test]
fn rows_in_descending_order_and_milliseconds_become_rising_microseconds() {
    let profile = imported(&tables(), &options("a100", 1)).unwrap();
    let op = profile.per_layer.iter().find(|op| op.op == "down_proj").unwrap();
    assert_eq!((op.at.as_slice(), op.us.as_slice()), (&[1, 64, 512][..], &[101.0, 164.0, 612.0][..]));
    let norms = profile.per_layer.iter().find(|op| op.op == "norms").unwrap();
    assert_eq!((norms.times, norms.us[0]), (2.0, 20.0), "the mean of both, twice");
    let half = imported(&tables(), &options("a100", 2)).unwrap();
    let op = half.per_layer.iter().find(|op| op.op == "down_proj").unwrap();
    assert_eq!(op.us[..1], [50.5], "of tp 2");
}

#[test]
fn attention_is_used_where_it_was_measured() {
    let measured = imported(&tables(), &options("a100", 1)).unwrap();
    assert_eq!(
        (measured.attention.decodes.as_slice(), measured.attention.contexts.as_slice()),
        (&[1, 128][..], &[64, 4096][..])
    );
    assert_eq!(measured.attention.chunks, [0, 64, 1024]);
    assert!(measured.attention.mixed_us.is_some(), "decodes beside prompts fill tiles on an A100");
    for options in [options("a100", 2), options("h100", 1)] {
        let notes = imported(&tables(), &options).unwrap().notes;
        assert!(notes.iter().any(|note| note.contains("decode attention is a closed form")), "{notes:?}");
    }
}

#[test]
fn decodes_that_read_faster_than_the_gpu_are_refused_and_the_matrices_kept() {
    let folder = tables();
    let path = folder.path().join("attention_a100.csv");
    let text = fs::read_to_string(&path).unwrap();
    let slow = text.lines().find(|line| line.starts_with("4096,32,8,16,1,128,0,4096")).unwrap();
    fs::write(&path, text.replace(slow, "4096,32,8,16,1,128,0,4096,0.1")).unwrap();
    let profile = imported(&folder, &options("a100", 1)).unwrap();
    let refusal = "decode attention is not used: it implies up to 21.5 TB/s, and a100-sxm-80gb has 2.0";
    assert!(profile.notes.iter().any(|note| note.contains(refusal)), "{:?}", profile.notes);
    assert_eq!(profile.per_layer.iter().find(|op| op.op == "o_proj").unwrap().us[..1], [101.0]);
    assert_eq!(profile.attention.chunks, [0, 64, 1024], "its prefills are sound");
}

#[test]
fn a_choice_that_the_folder_leaves_open_is_asked_for() {
    let folder = tables();
    let qwen = Options { model: catalog::model("qwen3-14b"), ..options("a100", 1) };
    for (options, part) in [
        (Options { gpu: None, ..options("a100", 1) }, "a100-sxm-80gb, h100-sxm: choose one with --gpu"),
        (Options { model: None, ..options("a100", 1) }, "--model"),
        (qwen, "has no rows of qwen/qwen3-14b"),
    ] {
        let why = imported(&folder, &options).unwrap_err().to_string();
        assert!(why.to_lowercase().contains(&part.to_lowercase()) && !why.contains('\n'), "{why}");
    }
}
