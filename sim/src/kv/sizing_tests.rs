//! KV memory of measured servers.

use super::*;
use crate::catalog::{gpu, model};

fn sizing(gpu_name: &str, name: &str, tensor_parallel: u32, utilization: f64, max_num_seqs: u32) -> KvSizing {
    let gpu = gpu(gpu_name).unwrap();
    KvSizing::new(&SizingInput {
        gpu,
        model: model(name).unwrap(),
        tensor_parallel,
        data_parallel: 1,
        gpu_memory_utilization: utilization,
        kv_element_bytes: 2,
        block_size: 16,
        max_num_batched_tokens: if gpu.memory_gib > 70.0 { 8192 } else { 2048 },
        max_num_seqs,
        max_model_len: 32_768,
        adapter_bytes: 0,
        draft: None,
    })
}

#[test]
fn kv_memory_is_near_that_of_measured_servers() {
    // Error as a share of the memory that vLLM may use: what is left after the weights can be next to nothing.
    let measured = [
        ("h100", "llama-3.1-8b", 1, 0.9, 1024, 51.38),
        ("h100", "qwen3-32b", 2, 0.9, 1024, 34.49),
        ("h100", "qwen3-32b", 1, 0.9, 1024, 4.45),
        ("h100", "gpt-oss-120b", 1, 0.9, 1024, 3.33),
        // 18,038 blocks of 2.62 MB, vLLM 0.23
        ("h100", "qwen3-14b", 1, 0.92, 256, 44.04),
        // 2,588 blocks of 2 MiB, vLLM 0.19
        ("rtx4090", "llama-3.1-8b", 1, 0.9, 256, 5.05),
    ];
    for (gpu, name, tp, utilization, seqs, gib) in measured {
        let ours = sizing(gpu, name, tp, utilization, seqs);
        let error = (ours.free_gib() - gib) / ours.requested_gib;
        println!(
            "{gpu} {name} TP{tp}: {:.2} GiB, measured {gib} ({:.1} %), {} blocks",
            ours.free_gib(),
            (ours.free_gib() / gib - 1.0) * 100.0,
            ours.num_blocks
        );
        assert!(error.abs() < 0.02, "{name} TP{tp}: {:.2} GiB, measured {gib}", ours.free_gib());
    }
}

#[test]
fn a_model_that_does_not_fit_lacks_memory() {
    assert!(sizing("h100", "llama-3.1-70b", 1, 0.92, 256).free_gib() < -60.0);
}

#[test]
fn layers_with_a_window_take_blocks_of_the_same_pool() {
    // gpt-oss-20b: 12 layers of each kind are 2 groups of 12, each block one group's.
    let sizing = sizing("h100", "gpt-oss-20b", 1, 0.92, 256);
    assert_eq!(sizing.block_bytes, 12 * 2 * 8 * 64 * 2 * 16);
    let pool = sizing.free_gib() * GIB / sizing.block_bytes as f64;
    let held = 256.0 * 9.0;
    assert!(
        (f64::from(sizing.num_blocks) - (pool - held)).abs() < 2.0,
        "128 tokens are 9 blocks of each request"
    );
}
