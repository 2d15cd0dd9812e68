//! What is asked about: one replica, the traffic, the SLO, with what the scenario leaves open filled in.

use forerun_reports::summary::Uncertainty;
use forerun_sim::catalog::Gpu;

use crate::assemble::{Assembled, Hardware, assemble};
use crate::error::InputError;
use crate::hardware::{DEFAULT_MODEL, find_model};
use crate::scenario::read::Loaded;
use crate::scenario::{EngineArgs, PoolSpec, TiersSpec};
use crate::trial::{check_open, complete_slo, could_exist, slo_words};
use crate::words::{percent, tokens};

/// Splits that are tried for a model that does not fit one GPU.
const SPLITS: [u32; 4] = [1, 2, 4, 8];

/// One replica and its traffic.
pub(super) struct Subject {
    /// The scenario, with its first pool only, an SLO, and a split that the model fits.
    pub loaded: Loaded,
    /// The GPU.
    pub gpu: &'static Gpu,
    /// GPUs of a replica.
    pub tensor_parallel: u32,
    /// The smallest number of GPUs over which the model fits.
    pub fits: u32,
    /// Weights as a share of what vLLM may use of one GPU.
    pub weights_share: f64,
    /// Tokens that a replica's KV cache holds.
    pub kv_tokens: u64,
    /// Tokens of a KV block.
    pub block_size: u32,
    /// KV blocks of a replica.
    pub blocks: u32,
    /// vLLM's limit on prompt and answer together.
    pub max_model_len: u32,
    /// Most requests in a batch.
    pub max_num_seqs: u32,
    /// Adapters in a batch.
    pub max_loras: u32,
    /// KV tiers that the scenario offers: row 3 asks what they buy, all else is without them.
    pub offered: TiersSpec,
    /// Where step times come from.
    pub grade: String,
    /// How far they were off where servers were measured.
    pub uncertainty: Option<Uncertainty>,
    /// One replica in words.
    pub about: String,
    /// The traffic in words.
    pub workload: String,
    /// The SLO in words.
    pub slo: String,
    /// What was assumed or left out.
    pub notes: Vec<String>,
}

impl Subject {
    /// Completes and assembles the scenario.
    ///
    /// # Errors
    /// When it could not be run, or its traffic has no arrivals of its own.
    pub(super) fn new(loaded: &Loaded) -> Result<(Self, Assembled), InputError> {
        let mut notes = Vec::new();
        let mut loaded = loaded.clone();
        check_open(&loaded)?;
        complete_slo(&mut loaded, &mut notes);
        let offered = loaded.scenario.tiers.take().unwrap_or_default();
        if offered != TiersSpec::default() {
            notes.push(
                "the scenario's `tiers` are taken as an offer: row 3 says what they buy, all else is without them"
                    .to_owned(),
            );
        }
        let pools = loaded.scenario.pools.get_or_insert_default();
        if pools.len() > 1 {
            notes.push(format!("only the first of {} pools is considered", pools.len()));
        }
        let pool = pools.first().cloned().unwrap_or_else(PoolSpec::default);
        let (loaded, tensor_parallel, fits) = split(&loaded, pool.tensor_parallel, &mut notes)?;
        let assembled = assemble(&loaded)?;
        let uncertainty = assembled.cost_models.first().and_then(|model| model.uncertainty.clone());
        notes.extend(uncertainty.as_ref().map(Uncertainty::words));
        let scenario = &loaded.scenario;
        let gpu = Hardware::gpu(scenario, &pool, &loaded.base)?;
        let name = pool.model.as_deref().or(scenario.model.as_deref()).unwrap_or(DEFAULT_MODEL);
        let model = find_model(name, &loaded.base, scenario.dtype)?;
        let utilization = utilization(&pool, scenario.engine.as_ref());
        let usable = gpu.memory_gib * utilization * (1u64 << 30) as f64;
        let engine = &assembled.fleet.pools[0].engine;
        let kv_tokens = u64::from(engine.num_gpu_blocks - 1) * u64::from(engine.block_size);
        let weights_share = model.weight_bytes() / usable;
        let gpus = if tensor_parallel > 1 { format!("{tensor_parallel} x ") } else { String::new() };
        let about = format!(
            "One replica: {} on {gpus}{} (weights {} of one GPU, {} KV tokens).",
            model.name,
            gpu.name,
            percent(weights_share),
            tokens(kv_tokens as f64)
        );
        let subject = Self {
            gpu,
            tensor_parallel,
            fits,
            weights_share,
            kv_tokens,
            block_size: engine.block_size,
            blocks: engine.num_gpu_blocks,
            max_model_len: engine.max_model_len,
            max_num_seqs: engine.max_num_seqs,
            max_loras: engine.max_loras.unwrap_or(1),
            grade: assembled.cost_models.first().map_or_else(String::new, |model| model.grade.clone()),
            offered,
            uncertainty,
            about,
            workload: format!("Traffic: {}.", assembled.workload.about.trim_end_matches('.')),
            slo: format!("SLO: {}.", slo_words(scenario.slo.as_ref())),
            notes,
            loaded,
        };
        Ok((subject, assembled))
    }
}

/// The scenario with one pool of one replica over as many GPUs as it says, or else the fewest that do; how many these
/// are; the fewest that do.
fn split(
    loaded: &Loaded,
    given: Option<u32>,
    notes: &mut Vec<String>,
) -> Result<(Loaded, u32, u32), InputError> {
    if let Some(gpus) = given {
        let own = could_exist(loaded, gpus)?;
        let fits = SPLITS.into_iter().filter(|&fewer| fewer < gpus);
        let fits = fits.into_iter().find(|&fewer| could_exist(loaded, fewer).is_ok());
        return Ok((own, gpus, fits.unwrap_or(gpus)));
    }
    let mut first = None;
    for gpus in SPLITS {
        match could_exist(loaded, gpus) {
            Ok(own) => {
                if gpus > 1 {
                    notes.push(format!("the model does not fit fewer GPUs: each replica has {gpus}"));
                }
                return Ok((own, gpus, gpus));
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| InputError::new("no split was tried")))
}

fn utilization(pool: &PoolSpec, engine: Option<&EngineArgs>) -> f64 {
    let own = pool.engine.as_ref().and_then(|engine| engine.gpu_memory_utilization);
    let common = engine.and_then(|engine| engine.gpu_memory_utilization);
    own.or(common).unwrap_or(forerun_sim::kv::sizing::GPU_MEMORY_UTILIZATION)
}
