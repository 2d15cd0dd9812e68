//! vLLM's command line for one role of a verdict.

use serde_json::{Value, json};

use super::verdict::{Servers, Verdict};
use crate::scenario::{EngineArgs, KvCacheDtype, Role, SchedulingPolicy, TiersSpec};

/// Arguments after the model's name. `tensor_parallel` is left out where a chart adds it by itself.
pub(super) fn of(verdict: &Verdict, role: Role, servers: &Servers, tensor_parallel: bool) -> Vec<String> {
    let mut arguments = Vec::new();
    if tensor_parallel {
        arguments.push(format!("--tensor-parallel-size={}", servers.tensor_parallel));
    }
    arguments.extend(engine(&servers.engine));
    if verdict.kv_cache_dtype == Some(KvCacheDtype::Fp8) {
        arguments.push("--kv-cache-dtype=fp8".to_owned());
    }
    if let Some(lora) = verdict.lora {
        arguments.push("--enable-lora".to_owned());
        if servers.engine.max_loras.is_none() {
            arguments.push(format!("--max-loras={}", lora.max_loras));
        }
        arguments.push(format!("--max-cpu-loras={}", lora.max_cpu_loras));
        arguments.push(format!("--max-lora-rank={}", lora.rank));
    }
    if let Some(gib) = verdict.tiers.cpu_gib.filter(|_| verdict.tiers.files) {
        arguments.push(format!("--kv-transfer-config={}", tiering(gib)));
    } else if let Some(gib) = verdict.tiers.cpu_gib {
        arguments.push("--kv-offloading-backend=native".to_owned());
        arguments.push(format!("--kv-offloading-size={gib}"));
    }
    if role != Role::Both {
        let connector = json!({"kv_connector": "NixlConnector", "kv_role": "kv_both"});
        arguments.push(format!("--kv-transfer-config={connector}"));
    }
    if verdict.router.as_ref().is_some_and(|router| router.kv_events) {
        // The endpoint picker subscribes to port 5557 of every pod, topic `kv@`, by default.
        let topic = format!("kv@$(POD_IP):8000@{}", verdict.model);
        let events = json!({
            "enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:5557", "topic": topic,
        });
        arguments.push(format!("--kv-events-config={events}"));
    }
    arguments
}

/// Where servers keep KV in files.
const FILES: &str = "/mnt/kv-cache";

/// What whoever deploys these tiers has to mind.
pub(crate) fn hazard(tiers: &TiersSpec) -> Option<String> {
    (tiers.disk.is_some() || tiers.shared.is_some()).then(|| {
        format!(
            "the files of KV are expected at {FILES}: mount them there; servers that share them need PYTHONHASHSEED=0, \
             without which each names the same blocks otherwise"
        )
    })
}

/// vLLM's multi-tier setup (docs.vllm.ai, KV offloading usage guide): host memory of so many GiB, and files below.
fn tiering(gib: f64) -> Value {
    json!({
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {
            "spec_name": "TieringOffloadingSpec",
            "cpu_bytes_to_use": (gib * f64::from(1u32 << 30)) as u64,
            "secondary_tiers": [{"type": "fs", "root_dir": FILES}],
        },
    })
}

/// The engine's own arguments, by vLLM's names, in the order of the scenario's.
fn engine(args: &EngineArgs) -> Vec<String> {
    let numbers = [
        ("block-size", args.block_size),
        ("num-gpu-blocks-override", args.num_gpu_blocks),
        ("max-num-batched-tokens", args.max_num_batched_tokens),
        ("max-num-seqs", args.max_num_seqs),
        ("max-num-active-seqs", args.max_num_active_seqs),
        ("max-model-len", args.max_model_len),
        ("long-prefill-token-threshold", args.long_prefill_token_threshold),
        ("max-loras", args.max_loras),
        ("max-num-queued-reqs", args.max_num_queued_reqs),
    ];
    let shares = [("gpu-memory-utilization", args.gpu_memory_utilization), ("watermark", args.watermark)];
    let switches = [
        ("long-prefill-token-threshold-adaptive", args.long_prefill_token_threshold_adaptive),
        ("scheduler-reserve-full-isl", args.scheduler_reserve_full_isl),
        ("enable-prefix-caching", args.enable_prefix_caching),
        ("enable-chunked-prefill", args.enable_chunked_prefill),
        ("async-scheduling", args.async_scheduling),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?)));
    let shares = shares.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?)));
    let switches = switches
        .into_iter()
        .filter_map(|(name, on)| Some(if on? { format!("--{name}") } else { format!("--no-{name}") }));
    let policy = args.scheduling_policy.map(|policy| {
        let policy = match policy {
            SchedulingPolicy::Fcfs => "fcfs",
            SchedulingPolicy::Priority => "priority",
        };
        format!("--scheduling-policy={policy}")
    });
    numbers.chain(shares).chain(switches).chain(policy).collect()
}
