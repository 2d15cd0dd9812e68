//! From a scenario to a fleet that could exist: names looked up, vLLM's defaults filled in, contradictions
//! and impossible hardware refused with the mend.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use forerun_policies::{PRESETS, Preset};
use forerun_reports::slo::Slo;
use forerun_sim::catalog::{self, Gpu, Model};
use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP, ClosedForm, ClosedFormInput};
use forerun_sim::cost::tables::Limits;
use forerun_sim::engine::config::{EngineConfig, Policy, batch_defaults};
pub use forerun_sim::fleet::KvForm;
use forerun_sim::fleet::{Client, FleetConfig, Overhead, PoolConfig};
use forerun_sim::kv::sizing::{GPU_MEMORY_UTILIZATION, KvSizing, SizingInput};
use forerun_sim::time::{Span, Time};
use forerun_workloads::open::{Workload, open};
use forerun_workloads::units::Duration;

use crate::error::{InputError, hint};
use crate::profile::{self, StepCost};
use crate::scenario::read::Loaded;
use crate::scenario::{
    Dtype, EngineArgs, GpuPrice, OverheadSpec, PoolSpec, Role, Scenario, SchedulingPolicy,
};

/// Model and GPU of a scenario that names none.
const DEFAULT_MODEL: &str = "meta-llama/Llama-3.1-8B";
const DEFAULT_GPU: &str = "h100-sxm";

/// Default overheads; see [`OverheadSpec`] for where they come from.
const GATEWAY: Span = Span::from_millis(2);
const API_SERVER: Span = Span::from_millis(5);
const TOKENIZE_PER_1K_TOKENS: Span = Span::from_nanos(500_000);

/// Bounds that keep memory bounded: replicas of a fleet, and KV blocks of all of them (40 bytes each).
const REPLICAS_MAX: u64 = 16_384;
const BLOCKS_MAX: u64 = 64 << 20;

/// More replications say nothing new: an interval narrows with the square root of their number.
pub const REPLICATIONS_MAX: u32 = 1000;

/// Step times are tabulated by the tokens of a batch: no GPU computes a million in a step.
const BATCH_TOKENS_MAX: u32 = 1 << 20;

/// Bytes of a bf16 or fp16 element.
const ELEMENT_BYTES: u32 = 2;

/// Everything that a run needs.
#[derive(Debug)]
pub struct Assembled {
    /// The fleet.
    pub fleet: FleetConfig,
    /// The routing policy.
    pub router: Preset,
    /// What arrives.
    pub workload: Workload,
    /// What is asked of the run.
    pub slo: Slo,
    /// Seed of every random stream.
    pub seed: u64,
    /// How many runs, with seeds that follow from `seed`; `None` when the scenario does not say.
    pub replications: Option<u32>,
    /// US dollars per GPU hour by pool.
    pub gpu_hour_usd: Option<BTreeMap<String, f64>>,
    /// What is simulated, in words.
    pub about: Vec<String>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
}

impl Assembled {
    /// Names of the replicas, in order.
    #[must_use]
    pub fn replica_names(&self) -> Vec<String> {
        let pools = self.fleet.pools.iter();
        pools.flat_map(|pool| (0..pool.replicas).map(|number| format!("{}-{number}", pool.name))).collect()
    }

    /// The pool of each replica, in order.
    #[must_use]
    pub fn pool_of_replicas(&self) -> Vec<String> {
        let pools = self.fleet.pools.iter();
        pools.flat_map(|pool| (0..pool.replicas).map(|_| pool.name.clone())).collect()
    }
}

/// Assembles what `loaded` describes. Reads the files that it names.
///
/// # Errors
/// When a name is unknown, a file is wrong, a value is out of range, or the fleet could not exist.
pub fn assemble(loaded: &Loaded) -> Result<Assembled, InputError> {
    let scenario = &loaded.scenario;
    let in_file = |error: InputError| error.at(&loaded.name);
    check_dtype(scenario.dtype.unwrap_or_default()).map_err(in_file)?;
    let slo = scenario.slo.clone().unwrap_or_default().resolve().map_err(in_file)?;
    let router = router(scenario).map_err(in_file)?;
    let pools = pools(scenario, &loaded.base).map_err(in_file)?;
    let gpu_hour_usd = prices(scenario, &pools).map_err(in_file)?;
    let run = scenario.run.clone().unwrap_or_default();
    let replications = run.replications;
    if replications.is_some_and(|count| !(1..=REPLICATIONS_MAX).contains(&count)) {
        return Err(in_file(InputError::new(format!(
            "`run.replications` is {}: it is a number from 1 to {REPLICATIONS_MAX}",
            replications.unwrap_or_default()
        ))));
    }
    let warm_up = Time::ZERO + run.warm_up.map_or(Span::ZERO, |duration| duration.0);
    let horizon = run.horizon.map(|duration| Time::ZERO + duration.0);
    if horizon.is_some_and(|horizon| horizon <= warm_up) {
        return Err(in_file(InputError::new(
            "`run.horizon` is not later than `run.warm_up`: nothing would be observed; raise the one or lower the other",
        )));
    }
    let spec = scenario.workload.as_ref().ok_or_else(|| {
        in_file(InputError::new("there is no `workload`: name a `trace`, a `preset` or a `synthetic` one"))
    })?;
    let workload = open(spec, &loaded.base).map_err(|e| in_file(e.into()))?;
    let overhead = scenario.overhead.clone().unwrap_or_default();
    check_overhead(&overhead).map_err(in_file)?;
    let fleet = FleetConfig {
        pools: pools.iter().map(|pool| pool.config.clone()).collect(),
        kv: KvForm::default(),
        overhead: fixed_costs(&overhead),
        client: Client {
            timeout: spec.client.timeout.map(|duration| duration.0),
            retries: spec.client.retries,
        },
        warm_up,
        horizon,
    };
    let mut about =
        vec![pools.iter().map(ResolvedPool::about).collect::<Vec<_>>().join(" + ") + ", " + router.name];
    about.push(workload.about.clone());
    about.extend(pools.iter().map(|pool| pool.step_cost.trust.clone()));
    about.dedup();
    let mut warnings = workload.warnings.clone();
    warnings.extend(pools.iter().flat_map(|pool| pool.step_cost.warnings.clone()));
    warnings.dedup();
    Ok(Assembled {
        fleet,
        router,
        workload,
        slo,
        seed: run.seed.unwrap_or(1),
        replications,
        gpu_hour_usd,
        about,
        warnings,
    })
}

fn check_dtype(dtype: Dtype) -> Result<(), InputError> {
    match dtype {
        Dtype::Bf16 | Dtype::Fp16 => Ok(()),
        Dtype::Fp8 | Dtype::Mxfp4 | Dtype::W4a16 | Dtype::W8a8 => {
            Err(InputError::new("this version models weights in bf16 and fp16 only: set `dtype: bf16`"))
        }
    }
}

fn router(scenario: &Scenario) -> Result<Preset, InputError> {
    let name = scenario.router.as_ref().map_or("round-robin", |router| &router.preset);
    Preset::find(name).ok_or_else(|| {
        let known = PRESETS.map(|preset| preset.name);
        InputError::new(format!(
            "`router.preset: {name}` is not a policy of this version{}; known: {}",
            hint(name, known),
            known.join(", ")
        ))
    })
}

/// Longer times would be mistakes, and their sum could leave simulated time.
fn check_overhead(spec: &OverheadSpec) -> Result<(), InputError> {
    let hour = Span::from_secs(3600);
    let second = Span::from_secs(1);
    let given = [
        ("gateway", spec.gateway, hour),
        ("epp", spec.epp, hour),
        ("api_server", spec.api_server, hour),
        ("tokenize_per_1k_tokens", spec.tokenize_per_1k_tokens, hour),
        ("engine_per_step", spec.engine_per_step, second),
        ("engine_per_request", spec.engine_per_request, second),
    ];
    for (name, value, most) in given {
        if let Some(value) = value.filter(|value| value.0 > most) {
            let most = Duration(most);
            return Err(InputError::new(format!("`overhead.{name}` is {value}: at most {most} is possible")));
        }
    }
    Ok(())
}

fn fixed_costs(spec: &OverheadSpec) -> Overhead {
    let or = |given: Option<Duration>, default| given.map_or(default, |duration| duration.0);
    Overhead {
        gateway: or(spec.gateway, GATEWAY),
        picker: or(spec.epp, Span::ZERO),
        api_server: or(spec.api_server, API_SERVER),
        tokenize_per_1k_tokens: or(spec.tokenize_per_1k_tokens, TOKENIZE_PER_1K_TOKENS),
    }
}

/// A pool whose names are resolved.
struct ResolvedPool {
    config: PoolConfig,
    gpu: &'static Gpu,
    gpu_name: String,
    model: Model,
    step_cost: StepCost,
}

impl ResolvedPool {
    fn about(&self) -> String {
        let PoolConfig { replicas, gpus, engine, .. } = &self.config;
        let tensor_parallel = if *gpus > 1 { format!(" TP {gpus}") } else { String::new() };
        let tokens = u64::from(engine.num_gpu_blocks - 1) * u64::from(engine.block_size);
        format!(
            "{replicas} x {} on {}{tensor_parallel} ({}k KV tokens each)",
            self.model.name,
            self.gpu.name,
            tokens / 1000
        )
    }
}

fn pools(scenario: &Scenario, base: &Path) -> Result<Vec<ResolvedPool>, InputError> {
    let one = [PoolSpec::default()];
    let specs = scenario.pools.as_deref().unwrap_or(&one);
    if specs.is_empty() {
        return Err(InputError::new(
            "`pools` is empty: a fleet has at least one pool, for example {gpu: h100-sxm, replicas: 4}",
        ));
    }
    let mut pools: Vec<ResolvedPool> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let pool = resolve_pool(scenario, spec, index, base).map_err(|e| e.at(&format!("pools.{index}")))?;
        if pools.iter().any(|other| other.config.name == pool.config.name) {
            return Err(InputError::new(format!("two pools are called `{}`: rename one", pool.config.name)));
        }
        pools.push(pool);
    }
    let replicas: u64 = pools.iter().map(|pool| u64::from(pool.config.replicas)).sum();
    if replicas > REPLICAS_MAX {
        return Err(InputError::new(format!(
            "the fleet has {replicas} replicas: at most {REPLICAS_MAX} are simulated"
        )));
    }
    let blocks =
        |pool: &ResolvedPool| u64::from(pool.config.replicas) * u64::from(pool.config.engine.num_gpu_blocks);
    let blocks: u64 = pools.iter().map(blocks).sum();
    if blocks > BLOCKS_MAX {
        return Err(InputError::new(format!(
            "the fleet has {blocks} KV blocks: at most {BLOCKS_MAX} are simulated; lower `replicas` or `num_gpu_blocks`"
        )));
    }
    Ok(pools)
}

fn resolve_pool(
    scenario: &Scenario,
    spec: &PoolSpec,
    index: usize,
    base: &Path,
) -> Result<ResolvedPool, InputError> {
    if matches!(spec.role, Some(Role::Prefill | Role::Decode)) {
        return Err(InputError::new(
            "this version models pools of `role: both` only: prefill/decode disaggregation is not modelled; remove `role`",
        ));
    }
    let replicas = spec.replicas.unwrap_or(1);
    if replicas == 0 {
        return Err(InputError::new("`replicas` is 0: nothing could serve a request; set at least 1"));
    }
    let gpu_name = spec.gpu.as_deref().unwrap_or(DEFAULT_GPU);
    let gpu = find_gpu(gpu_name)?;
    let model =
        find_model(spec.model.as_deref().or(scenario.model.as_deref()).unwrap_or(DEFAULT_MODEL), base)?;
    let tensor_parallel = spec.tensor_parallel.unwrap_or(1);
    check_split(tensor_parallel, gpu, &model)?;
    let args = spec.engine.clone().unwrap_or_default().or(&scenario.engine.clone().unwrap_or_default());
    let overhead = scenario.overhead.clone().unwrap_or_default();
    let engine = engine_config(&args, gpu, &model, tensor_parallel)?;
    let limits = Limits {
        max_num_seqs: engine.max_num_seqs,
        max_num_batched_tokens: engine.max_num_batched_tokens,
        max_model_len: engine.max_model_len,
        cpu_per_step: overhead.engine_per_step.map_or(CPU_PER_STEP, |duration| duration.0),
        cpu_per_request: overhead.engine_per_request.map_or(CPU_PER_REQUEST, |duration| duration.0),
    };
    let step_cost = match spec.profile.as_ref().or(scenario.profile.as_ref()) {
        Some(path) => profile::cost(&base.join(path), gpu, &model, tensor_parallel, &limits)?,
        None => closed_form(gpu, &model, tensor_parallel, &limits)?,
    };
    let default_name = if index == 0 { "pool".to_owned() } else { format!("pool{}", index + 1) };
    if let Some(name) = &spec.name {
        check_name(name)?;
    }
    let config = PoolConfig {
        name: spec.name.clone().unwrap_or(default_name),
        replicas,
        gpus: tensor_parallel,
        labels: BTreeMap::new(),
        model_names: std::iter::once(&model.name).chain(&model.aliases).cloned().collect(),
        engine,
        cost: Arc::clone(&step_cost.cost),
    };
    Ok(ResolvedPool { config, gpu, gpu_name: gpu_name.to_owned(), model, step_cost })
}

/// Step times from the catalog's closed forms.
fn closed_form(
    gpu: &Gpu,
    model: &Model,
    tensor_parallel: u32,
    limits: &Limits,
) -> Result<StepCost, InputError> {
    let cost = ClosedForm::new(&ClosedFormInput {
        gpu,
        model,
        tensor_parallel,
        max_num_seqs: limits.max_num_seqs,
        max_num_batched_tokens: limits.max_num_batched_tokens,
        cpu_per_step: limits.cpu_per_step,
        cpu_per_request: limits.cpu_per_request,
    });
    let trust = format!("step times: closed forms, grade \"{}\" for {}", gpu.grade, gpu.name);
    Ok(StepCost { cost: Arc::new(cost.map_err(InputError::new)?), trust, warnings: Vec::new() })
}

/// A model is split by its attention heads, over as many GPUs as there are figures for.
fn check_split(tensor_parallel: u32, gpu: &Gpu, model: &Model) -> Result<(), InputError> {
    let heads = model.config.num_attention_heads;
    let mut possible = splits(gpu, heads);
    if possible.any(|gpus| gpus == tensor_parallel) {
        return Ok(());
    }
    let possible: Vec<_> = splits(gpu, heads).map(|gpus| gpus.to_string()).collect();
    Err(InputError::new(format!(
        "`tensor_parallel: {tensor_parallel}` is not possible for {} ({heads} attention heads) on {}: use one of {}",
        model.name,
        gpu.name,
        possible.join(", ")
    )))
}

/// The numbers of GPUs over which `heads` can be split.
fn splits(gpu: &Gpu, heads: u32) -> impl Iterator<Item = u32> {
    let several = gpu.all_reduce.iter().map(|entry| entry.gpus).filter(|&gpus| gpus > 1);
    std::iter::once(1).chain(several).filter(move |&gpus| heads.is_multiple_of(gpus))
}

/// Replicas are called after their pool, in tables and CSV files.
fn check_name(name: &str) -> Result<(), InputError> {
    const CHARS_MAX: usize = 100;
    if name.is_empty() || name.chars().count() > CHARS_MAX || name.chars().any(|c| c.is_control()) {
        let why = format!("a name has 1 to {CHARS_MAX} characters, none of them a control character");
        return Err(InputError::new(format!("`name: {name}`: {why}")));
    }
    Ok(())
}

fn find_gpu(name: &str) -> Result<&'static Gpu, InputError> {
    catalog::gpu(name).ok_or_else(|| {
        let known = catalog::gpus().iter().map(|gpu| gpu.name.as_str());
        let list = known.clone().collect::<Vec<_>>().join(", ");
        InputError::new(format!("`gpu: {name}` is not in the catalog{}; known: {list}", hint(name, known)))
    })
}

/// A model of the catalog, or the config.json at `base`/`name`.
fn find_model(name: &str, base: &Path) -> Result<Model, InputError> {
    if let Some(model) = catalog::model(name) {
        return Ok(model.clone());
    }
    let path = base.join(name);
    if !name.ends_with(".json") && !path.is_file() {
        let known = catalog::models()
            .iter()
            .flat_map(|m| std::iter::once(&m.name).chain(&m.aliases))
            .map(String::as_str);
        return Err(InputError::new(format!(
            "`model: {name}` is not in the catalog{}; `forerun catalog` lists what is, and the path of a Hugging Face config.json works too",
            hint(name, known)
        )));
    }
    let wrong = |why: String| InputError::new(format!("model {}: {why}", path.display()));
    let size = fs::metadata(&path).map_err(|e| wrong(e.to_string()))?.len();
    if size > 1 << 20 {
        return Err(wrong(format!("has {size} bytes: a config.json has at most 1 MiB")));
    }
    let json = fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
    Model::from_hf_config(name, &json).map_err(|e| wrong(e.to_string()))
}

/// vLLM's arguments, completed by its defaults for this GPU and model.
fn engine_config(
    args: &EngineArgs,
    gpu: &Gpu,
    model: &Model,
    tensor_parallel: u32,
) -> Result<EngineConfig, InputError> {
    let max_model_len = args.max_model_len.unwrap_or(model.config.max_position_embeddings);
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
    let input = SizingInput {
        gpu,
        model,
        tensor_parallel,
        gpu_memory_utilization: utilization,
        weight_bytes: ELEMENT_BYTES,
        kv_element_bytes: ELEMENT_BYTES,
        block_size,
        max_num_batched_tokens,
        max_num_seqs,
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
        max_loras: Some(args.max_loras.unwrap_or(1)),
        async_scheduling: args.async_scheduling.unwrap_or(true),
        max_num_queued_reqs: args.max_num_queued_reqs,
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

/// KV blocks by the sizing formula; when the model does not fit, by how much and what would.
fn sized_blocks(input: &SizingInput<'_>) -> Result<u32, InputError> {
    let sizing = KvSizing::new(input);
    if sizing.num_blocks > 1 {
        return Ok(sizing.num_blocks);
    }
    let mut splits = splits(input.gpu, input.model.config.num_attention_heads);
    let fits = splits
        .find(|&tensor_parallel| KvSizing::new(&SizingInput { tensor_parallel, ..*input }).num_blocks > 1);
    let mend = fits.map_or_else(
        || "no tensor_parallel of this GPU's catalog entry is enough".to_owned(),
        |tp| format!("it fits with `tensor_parallel: {tp}`"),
    );
    Err(InputError::new(format!(
        "{} does not fit {} with tensor_parallel {}: weights {:.1} GiB, activations {:.1} GiB and {:.2} GiB beside them exceed the {:.1} GiB that vLLM may use by {:.1} GiB; {mend}",
        input.model.name,
        input.gpu.name,
        input.tensor_parallel,
        sizing.weights_gib,
        sizing.activation_gib,
        sizing.non_torch_gib,
        sizing.requested_gib,
        -sizing.free_gib(),
    )))
}

/// US dollars per GPU hour of each pool.
fn prices(scenario: &Scenario, pools: &[ResolvedPool]) -> Result<Option<BTreeMap<String, f64>>, InputError> {
    let Some(cost) = &scenario.cost else { return Ok(None) };
    if let GpuPrice::ByGpu(by_gpu) = &cost.gpu_hour_usd {
        for name in by_gpu.keys() {
            find_gpu(name).map_err(|e| e.at("cost.gpu_hour_usd"))?;
        }
    }
    let mut prices = BTreeMap::new();
    for pool in pools {
        let price = match &cost.gpu_hour_usd {
            GpuPrice::Same(price) => *price,
            GpuPrice::ByGpu(by_gpu) => {
                let own = by_gpu.iter().find(|(name, _)| **name == pool.gpu_name || **name == pool.gpu.name);
                *own.map(|(_, price)| price).ok_or_else(|| {
                    InputError::new(format!(
                        "`cost.gpu_hour_usd` has no price for {}: add one",
                        pool.gpu.name
                    ))
                })?
            }
        };
        if !(price >= 0.0 && price.is_finite()) {
            return Err(InputError::new(format!(
                "`cost.gpu_hour_usd` is {price}: a price is a number from 0 up"
            )));
        }
        prices.insert(pool.config.name.clone(), price);
    }
    Ok(Some(prices))
}
