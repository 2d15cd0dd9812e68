//! From a scenario to a fleet that could exist: names looked up, vLLM's defaults filled in, contradictions
//! and impossible hardware refused with the mend.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use forerun_reports::slo::Slo;
use forerun_reports::summary::CostModelSource;
use forerun_sim::catalog::{self, Gpu, Model};
use forerun_sim::cost::closed_form::{ClosedForm, ClosedFormInput};
use forerun_sim::cost::drafted::Drafted;
use forerun_sim::cost::tables::Limits;
pub use forerun_sim::fleet::KvForm;
use forerun_sim::fleet::{self, Client, DataParallel, FleetConfig, Overhead, PoolConfig};
use forerun_sim::time::{Span, Time};
use forerun_workloads::open::{Workload, open};
use forerun_workloads::units::Duration;

use crate::engine::{engine_config, limits};
use crate::error::InputError;
use crate::faults::faults;
use crate::hardware::{
    self, DEFAULT_GPU, DEFAULT_MODEL, check_split, find_gpu, find_model, kv_element_bytes,
};
use crate::kv;
use crate::lora::{self, Lora};
use crate::profile::{self, StepCost};
use crate::routing::Routing;
use crate::scenario::read::Loaded;
use crate::scenario::{OverheadSpec, PoolSpec, Role, Scenario};
use crate::speculative::Draft;
pub use crate::trial::Alteration;

/// Default overheads; see [`OverheadSpec`] for where they come from.
const GATEWAY: Span = Span::from_millis(2);
pub(crate) const API_SERVER: Span = Span::from_millis(5);
pub(crate) const TOKENIZE_PER_1K_TOKENS: Span = Span::from_nanos(500_000);

/// Bounds that keep memory bounded: replicas of a fleet, and KV blocks of all of them (40 bytes each).
const REPLICAS_MAX: u64 = 16_384;
const BLOCKS_MAX: u64 = 64 << 20;

/// Ranks of a server: the largest published deployments have 32.
const RANKS_MAX: u32 = 64;

/// More replications say nothing new: an interval narrows with the square root of their number.
pub const REPLICATIONS_MAX: u32 = 1000;

/// Everything that a run needs.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The fleet.
    pub fleet: FleetConfig,
    /// The routing policy.
    pub router: Routing,
    /// What arrives.
    pub workload: Arc<Workload>,
    /// How requests differ from the workload's.
    pub alteration: Alteration,
    /// What is asked of the run.
    pub slo: Slo,
    /// Seed of every random stream.
    pub seed: u64,
    /// How many runs, with seeds that follow from `seed`; `None` when the scenario does not say.
    pub replications: Option<u32>,
    /// US dollars per GPU hour by pool.
    pub gpu_hour_usd: Option<BTreeMap<String, f64>>,
    /// Where the prices come from, when the scenario does not say them.
    pub price_source: Option<String>,
    /// Where each pool's step times come from.
    pub cost_models: Vec<CostModelSource>,
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
    assemble_with(loaded, &crate::served::Constants::new())
}

/// The same with constants of a live server, over those of profiles.
pub(crate) fn assemble_with(
    loaded: &Loaded,
    constants: &crate::served::Constants,
) -> Result<Assembled, InputError> {
    let scenario = &loaded.scenario;
    let in_file = |error: InputError| error.at(&loaded.name);
    let slo = scenario.slo.clone().unwrap_or_default().resolve().map_err(in_file)?;
    let router = Routing::of(scenario.router.as_ref(), &loaded.base).map_err(in_file)?;
    let pools = pools(scenario, &loaded.base, constants).map_err(in_file)?;
    let priced: Vec<_> = pools.iter().map(ResolvedPool::priced).collect();
    let prices = hardware::prices(scenario, &priced).map_err(in_file)?;
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
    let spec = &lora::workload(spec.clone(), scenario.lora.as_ref()).map_err(in_file)?;
    let workload = Arc::new(open(spec, &loaded.base).map_err(|e| in_file(e.into()))?);
    let overhead = scenario.overhead.clone().unwrap_or_default();
    check_overhead(&overhead).map_err(in_file)?;
    let configs: Vec<PoolConfig> = pools.iter().map(|pool| pool.config.clone()).collect();
    let parts = scenario.split.as_ref().map(|spec| crate::split::split(spec, &configs));
    let several = configs.iter().find(|pool| pool.data_parallel.ranks > 1);
    if let (Some(pool), Some(_)) = (several, &scenario.faults) {
        return Err(in_file(InputError::new(format!(
            "`faults` of data parallel servers (pool `{}`) are not modelled: leave out `data_parallel`, or `faults`",
            pool.name
        ))));
    }
    let faults = faults(scenario.faults.as_ref(), &configs).map_err(in_file)?;
    let fleet = FleetConfig {
        pools: configs,
        split: parts.transpose().map_err(in_file)?,
        kv: KvForm::default(),
        overhead: fixed_costs(pools.first().map_or(&overhead, |pool| &pool.overhead)),
        client: Client {
            timeout: spec.client.timeout.map(|duration| duration.0),
            retries: spec.client.retries,
        },
        disaggregation: kv::disaggregation(scenario).map_err(in_file)?,
        below_host: kv::below_host(scenario).map_err(in_file)?,
        faults,
        warm_up,
        horizon,
    };
    let mut about =
        vec![pools.iter().map(ResolvedPool::about).collect::<Vec<_>>().join(" + ") + ", " + router.name()];
    about.push(workload.about.clone());
    about.extend(pools.iter().map(|pool| pool.step_cost.trust.clone()));
    about.extend(pools.first().and_then(|pool| pool.draft.as_ref()).map(Draft::about));
    about.dedup();
    let mut warnings = workload.warnings.clone();
    warnings.extend_from_slice(router.warnings());
    for pool in &pools {
        let own = pool.step_cost.warnings.iter().cloned();
        for warning in own.chain(hardware::warnings(pool.gpu, &pool.model)) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
    Ok(Assembled {
        fleet,
        router,
        workload,
        alteration: Alteration::default(),
        slo,
        seed: run.seed.unwrap_or(1),
        replications,
        gpu_hour_usd: prices.by_pool,
        price_source: prices.source,
        cost_models: pools.iter().map(ResolvedPool::cost_model_source).collect(),
        about,
        warnings,
    })
}

/// The labels of a pool's pods: its own, and llm-d's label of its role where the scenario gives one.
fn labels(spec: &PoolSpec) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    if let Some(role) = spec.role {
        let role = match role {
            Role::Both => "both",
            Role::Prefill => "prefill",
            Role::Decode => "decode",
        };
        labels.entry("llm-d.ai/role".to_owned()).or_insert_with(|| role.to_owned());
    }
    labels
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
    draft: Option<Draft>,
    /// The scenario's, completed by the pool's profile; between client and engine those of the first pool hold.
    overhead: OverheadSpec,
}

impl ResolvedPool {
    fn about(&self) -> String {
        let PoolConfig { replicas, gpus, engine, .. } = &self.config;
        let tensor_parallel = if *gpus > 1 { format!(" TP {gpus}") } else { String::new() };
        let ranks = engine_ranks(&self.config);
        let tokens = u64::from(engine.num_gpu_blocks - 1) * u64::from(engine.block_size);
        format!(
            "{replicas} x {} on {}{tensor_parallel}{ranks} ({}k KV tokens each)",
            self.model.name,
            self.gpu.name,
            tokens / 1000
        )
    }

    fn priced(&self) -> hardware::PricedPool<'_> {
        (&self.config.name, &self.gpu_name, self.gpu)
    }

    fn cost_model_source(&self) -> CostModelSource {
        CostModelSource {
            pool: self.config.name.clone(),
            gpu: self.gpu.name.clone(),
            model: self.model.name.clone(),
            grade: self.step_cost.grade.clone(),
            source: self.step_cost.source.clone(),
            uncertainty: self.step_cost.uncertainty.clone(),
        }
    }
}

/// Ranks in words, where a server has several.
fn engine_ranks(config: &PoolConfig) -> String {
    match config.data_parallel {
        DataParallel { ranks: 1, .. } => String::new(),
        DataParallel { ranks, lock_step } => {
            let together = if lock_step { ", in lock-step" } else { "" };
            format!(" as ranks of servers of {ranks}{together} (not golden-tested)")
        }
    }
}

fn pools(
    scenario: &Scenario,
    base: &Path,
    constants: &crate::served::Constants,
) -> Result<Vec<ResolvedPool>, InputError> {
    let one = [PoolSpec::default()];
    let specs = scenario.pools.as_deref().unwrap_or(&one);
    if specs.is_empty() {
        return Err(InputError::new(
            "`pools` is empty: a fleet has at least one pool, for example {gpu: h100-sxm, replicas: 4}",
        ));
    }
    let mut pools: Vec<ResolvedPool> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let pool = resolve_pool(scenario, spec, index, base, constants)
            .map_err(|e| e.at(&format!("pools.{index}")))?;
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
    kv::check(&pools.iter().map(|pool| &pool.config).collect::<Vec<_>>())?;
    Ok(pools)
}

fn resolve_pool(
    scenario: &Scenario,
    spec: &PoolSpec,
    index: usize,
    base: &Path,
    constants: &crate::served::Constants,
) -> Result<ResolvedPool, InputError> {
    let replicas = spec.replicas.unwrap_or(1);
    if replicas == 0 {
        return Err(InputError::new("`replicas` is 0: nothing could serve a request; set at least 1"));
    }
    let hardware = Hardware::new(scenario, spec, base)?;
    let gpu_name = spec.gpu.as_deref().unwrap_or(&hardware.gpu.name);
    let profile = spec.profile.as_ref().or(scenario.profile.as_ref());
    let profile = profile.map(|path| profile::ReadProfile::open(&base.join(path), &hardware)).transpose()?;
    let mut constants = constants.clone();
    if let Some(profile::ReadProfile::Served { constants: fitted, .. }) = &profile {
        fitted.iter().for_each(|(constant, value)| _ = constants.entry(*constant).or_insert(*value));
    }
    let overhead = crate::served::overhead_with(&constants, &scenario.overhead.clone().unwrap_or_default());
    let args = spec.engine.clone().unwrap_or_default().or(&scenario.engine.clone().unwrap_or_default());
    let engine = engine_config(&crate::served::engine_with(&constants, &args), &hardware)?;
    let limits = limits(&engine, &overhead);
    if profile.is_some() && hardware.data_parallel > 1 && hardware.model.shape.experts.is_some() {
        return Err(InputError::new(
            "`profile` does not say what experts take that data parallel ranks share: leave it out, or `data_parallel`",
        ));
    }
    let gpu = crate::served::gpu_with(&constants, &hardware.placed()).map_err(InputError::new)?;
    let step_cost = match &profile {
        Some(profile::ReadProfile::Tables { path }) => profile::cost(path, &hardware, &limits)?,
        Some(profile::ReadProfile::Served { source, uncertainty, .. }) => {
            profile::served_cost(source, uncertainty, &hardware, &gpu, &limits)?
        }
        None => hardware.closed_form_cost(&gpu, &limits)?,
    };
    let step_cost =
        hardware.with_draft(step_cost.scaled(scenario.step_time.unwrap_or_default())?, &limits)?;
    let Hardware { gpu, model, tensor_parallel, data_parallel, kv_element_bytes, lora, draft } = hardware;
    let slots = engine.max_loras.unwrap_or(1);
    let models = std::iter::once(&model).chain(draft.as_ref().and_then(|draft| draft.model.as_ref()));
    let gpu_token_bytes: u64 =
        models.map(|model| model.kv_bytes_per_token(tensor_parallel, kv_element_bytes)).sum();
    let kv_block_bytes = gpu_token_bytes * u64::from(tensor_parallel) * u64::from(engine.block_size);
    let default_name = if index == 0 { "pool".to_owned() } else { format!("pool{}", index + 1) };
    if let Some(name) = &spec.name {
        check_name(name)?;
    }
    let config = PoolConfig {
        name: spec.name.clone().unwrap_or(default_name),
        replicas: replicas * data_parallel,
        gpus: tensor_parallel,
        data_parallel: DataParallel { ranks: data_parallel, lock_step: model.shape.experts.is_some() },
        labels: labels(spec),
        model_names: std::iter::once(&model.name).chain(&model.aliases).cloned().collect(),
        role: match spec.role {
            None | Some(Role::Both) => fleet::Role::Both,
            Some(Role::Prefill) => fleet::Role::Prefill,
            Some(Role::Decode) => fleet::Role::Decode,
        },
        engine,
        cost: Arc::clone(&step_cost.cost),
        kv_block_bytes,
        host: kv::host_tier(scenario, tensor_parallel, kv_block_bytes)?,
        lora: lora.map(|lora| lora.config(slots)).transpose()?,
    };
    Ok(ResolvedPool { config, gpu, gpu_name: gpu_name.to_owned(), model, step_cost, draft, overhead })
}

/// What one replica of a pool runs on.
pub(crate) struct Hardware {
    pub(crate) gpu: &'static Gpu,
    pub(crate) model: Model,
    pub(crate) tensor_parallel: u32,
    /// Engines of each server.
    pub(crate) data_parallel: u32,
    pub(crate) kv_element_bytes: u32,
    pub(crate) lora: Option<Lora>,
    pub(crate) draft: Option<Draft>,
}

impl Hardware {
    pub(crate) fn new(scenario: &Scenario, spec: &PoolSpec, base: &Path) -> Result<Self, InputError> {
        let gpu = Self::gpu(scenario, spec, base)?;
        let name = spec.model.as_deref().or(scenario.model.as_deref()).unwrap_or(DEFAULT_MODEL);
        let model = find_model(name, base, scenario.dtype)?;
        let tensor_parallel = spec.tensor_parallel.unwrap_or(1);
        check_split(tensor_parallel, gpu, &model)?;
        let data_parallel = spec.data_parallel.unwrap_or(1);
        if !(1..=RANKS_MAX).contains(&data_parallel) {
            return Err(InputError::new(format!(
                "`data_parallel` is {data_parallel}: a server has from 1 to {RANKS_MAX} ranks"
            )));
        }
        let lora = Lora::of(scenario, &model)?;
        let draft = Draft::of(scenario, &model, base)?;
        if let Some(model) = draft.as_ref().and_then(|draft| draft.model.as_ref()) {
            check_split(tensor_parallel, gpu, model).map_err(|e| e.at("speculative.draft"))?;
        }
        let kv_element_bytes = kv_element_bytes(scenario.kv_cache_dtype);
        Ok(Self { gpu, model, tensor_parallel, data_parallel, kv_element_bytes, lora, draft })
    }

    /// A GPU of the catalog, or the one that the profile describes.
    ///
    /// # Errors
    /// When it is neither, or the profile is none.
    pub(crate) fn gpu(scenario: &Scenario, spec: &PoolSpec, base: &Path) -> Result<&'static Gpu, InputError> {
        let name = spec.gpu.as_deref();
        if let Some(known) = name.and_then(catalog::gpu) {
            return Ok(known);
        }
        let profiled = match spec.profile.as_ref().or(scenario.profile.as_ref()) {
            Some(path) => profile::device(&base.join(path), name)?,
            None => None,
        };
        profiled.map_or_else(|| find_gpu(name.unwrap_or(DEFAULT_GPU)), Ok)
    }

    /// The catalog's closed forms.
    pub(crate) fn closed_form(&self, limits: &Limits) -> Result<ClosedForm, InputError> {
        self.closed_form_of(self.gpu, limits)
    }

    /// Closed forms with the constants of `gpu`.
    pub(crate) fn closed_form_of(&self, gpu: &Gpu, limits: &Limits) -> Result<ClosedForm, InputError> {
        self.closed_form_with(gpu, &self.model, limits)
    }

    /// These step times and those of the draft, which closed forms with the catalog's constants give.
    fn with_draft(&self, model: StepCost, limits: &Limits) -> Result<StepCost, InputError> {
        let Some(draft) = &self.draft else { return Ok(model) };
        let Some(by) = &draft.model else { return Ok(StepCost { uncertainty: None, ..model }) };
        let by = Arc::new(self.closed_form_with(self.gpu, by, limits)?);
        let cost = Arc::new(Drafted::new(model.cost, by, draft.speculation.tokens));
        Ok(StepCost { cost, uncertainty: None, ..model })
    }

    fn closed_form_with(&self, gpu: &Gpu, model: &Model, limits: &Limits) -> Result<ClosedForm, InputError> {
        ClosedForm::new(&ClosedFormInput {
            gpu,
            model,
            tensor_parallel: self.tensor_parallel,
            data_parallel: self.data_parallel,
            kv_element_bytes: self.kv_element_bytes,
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            cpu_per_step: limits.cpu_per_step,
            cpu_per_request: limits.cpu_per_request,
        })
        .map_err(InputError::new)
    }

    /// Step times from closed forms with the constants of `gpu`: the catalog's, or other ones on trial.
    fn closed_form_cost(&self, gpu: &Gpu, limits: &Limits) -> Result<StepCost, InputError> {
        Ok(StepCost {
            cost: Arc::new(self.closed_form_of(gpu, limits)?),
            trust: format!("step times: closed forms, grade \"{}\" for {}", self.gpu.grade, self.gpu.name),
            grade: self.gpu.grade.to_string(),
            source: format!("closed forms; {}", self.gpu.kernel_source),
            warnings: hardware::grade_warning(self.gpu).into_iter().collect(),
            uncertainty: crate::served::trust::uncertainty(
                self.gpu,
                &self.model,
                crate::validate::StepTimes::ClosedForms.title(),
            ),
        })
    }

    /// What its fitted constants depend on.
    pub(crate) fn placed(&self) -> crate::served::Placed<'_> {
        crate::served::Placed {
            gpu: self.gpu,
            weights: self.model.shape.weights.linear,
            kv_element_bytes: self.kv_element_bytes,
        }
    }
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
