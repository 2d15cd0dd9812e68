//! vLLM's arguments of a pool, completed by its defaults; what makes no engine is refused with the mend.

use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP};
use forerun_sim::cost::tables::Limits;
use forerun_sim::engine::config::{EngineConfig, Policy, batch_defaults};
use forerun_sim::kv::sizing::{GPU_MEMORY_UTILIZATION, SizingInput};

use crate::assemble::Hardware;
use crate::error::InputError;
use crate::hardware::sized_blocks;
use crate::scenario::{EngineArgs, OverheadSpec, SchedulingPolicy};

/// Step times are tabulated by the tokens of a batch: no GPU computes a million in a step.
const BATCH_TOKENS_MAX: u32 = 1 << 20;

/// What the engine and the overheads say of step times.
pub(crate) fn limits(engine: &EngineConfig, overhead: &OverheadSpec) -> Limits {
    Limits {
        max_num_seqs: engine.most_logits(),
        max_num_batched_tokens: engine.max_num_batched_tokens,
        max_model_len: engine.max_model_len,
        cpu_per_step: overhead.engine_per_step.map_or(CPU_PER_STEP, |duration| duration.0),
        cpu_per_request: overhead.engine_per_request.map_or(CPU_PER_REQUEST, |duration| duration.0),
    }
}

/// vLLM's arguments, completed by its defaults for this GPU and model.
pub(crate) fn engine_config(args: &EngineArgs, hardware: &Hardware) -> Result<EngineConfig, InputError> {
    let Hardware { gpu, model, tensor_parallel, data_parallel, kv_element_bytes, lora, draft } = hardware;
    if args.enable_expert_parallel == Some(true) {
        return Err(InputError::new(
            "`enable_expert_parallel` is not modelled: remove it; `tensor_parallel` splits every expert",
        ));
    }
    let max_model_len = args.max_model_len.unwrap_or(model.shape.max_model_len);
    if max_model_len == 0 {
        return Err(InputError::new("`max_model_len` is 0: no request would fit; it must be at least 1"));
    }
    let defaults = batch_defaults(gpu.memory_bytes(), gpu.small_batch_class).capped(max_model_len);
    let max_num_batched_tokens = args.max_num_batched_tokens.unwrap_or(defaults.max_num_batched_tokens);
    let max_num_seqs = args.max_num_seqs.unwrap_or(defaults.max_num_seqs.min(max_num_batched_tokens));
    let block_size = args.block_size.unwrap_or(16);
    let utilization = args.gpu_memory_utilization.unwrap_or(GPU_MEMORY_UTILIZATION);
    if !(utilization > 0.0 && utilization <= 1.0) {
        return Err(InputError::new(format!(
            "`gpu_memory_utilization` is {utilization}: it is a share, above 0 and at most 1"
        )));
    }
    if block_size == 0 || block_size > 4096 {
        return Err(InputError::new(format!("`block_size` is {block_size}: it must be from 1 to 4096")));
    }
    let max_loras = match lora {
        Some(lora) => lora.slots(args.max_loras)?,
        None => args.max_loras.unwrap_or(1),
    };
    let input = SizingInput {
        gpu,
        model,
        tensor_parallel: *tensor_parallel,
        data_parallel: *data_parallel,
        gpu_memory_utilization: utilization,
        kv_element_bytes: *kv_element_bytes,
        block_size,
        max_num_batched_tokens,
        max_num_seqs,
        max_model_len,
        adapter_bytes: lora.map_or(0, |lora| lora.slot_bytes(max_loras)),
        draft: draft.as_ref().and_then(|draft| draft.model.as_ref()),
    };
    let num_gpu_blocks = match args.num_gpu_blocks {
        Some(blocks) => blocks,
        None => sized_blocks(&input)?,
    };
    let config = EngineConfig {
        block_size,
        num_gpu_blocks,
        max_num_batched_tokens,
        max_num_seqs,
        max_num_active_seqs: args.max_num_active_seqs,
        max_model_len,
        long_prefill_token_threshold: args.long_prefill_token_threshold.unwrap_or(0),
        long_prefill_token_threshold_adaptive: args.long_prefill_token_threshold_adaptive.unwrap_or(false),
        policy: match args.scheduling_policy {
            None | Some(SchedulingPolicy::Fcfs) => Policy::Fcfs,
            Some(SchedulingPolicy::Priority) => Policy::Priority,
        },
        reserve_full_isl: args.scheduler_reserve_full_isl.unwrap_or(true),
        watermark: args.watermark.unwrap_or(0.0),
        prefix_caching: args.enable_prefix_caching.unwrap_or(true),
        chunked_prefill: args.enable_chunked_prefill.unwrap_or(true),
        max_loras: Some(max_loras),
        async_scheduling: match draft {
            Some(draft) => draft.async_scheduling(args.async_scheduling)?,
            None => args.async_scheduling.unwrap_or(true),
        },
        max_num_queued_reqs: args.max_num_queued_reqs,
        speculation: draft.as_ref().map(|draft| draft.speculation),
    };
    if max_num_batched_tokens > BATCH_TOKENS_MAX {
        return Err(InputError::new(format!(
            "`max_num_batched_tokens` is {max_num_batched_tokens}: at most {BATCH_TOKENS_MAX} are simulated; vLLM's \
             default here is {}",
            defaults.max_num_batched_tokens
        )));
    }
    config.check().map_err(InputError::new)?;
    Ok(config)
}
