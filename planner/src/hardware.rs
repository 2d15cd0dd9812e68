//! What a pool runs on: its GPU, its model with the types of weights and cache, whether they fit, and what they cost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use forerun_sim::catalog::{self, Gpu, Grade, Model, WeightType};
use forerun_sim::kv::sizing::{KvSizing, SizingInput};

use crate::error::{InputError, hint};
use crate::scenario::{Dtype, GpuPrice, KvCacheDtype, Scenario};

/// Model and GPU of a scenario that names none.
pub(crate) const DEFAULT_MODEL: &str = "meta-llama/Llama-3.1-8B";
/// See [`DEFAULT_MODEL`].
pub(crate) const DEFAULT_GPU: &str = "h100-sxm";

/// A GPU of the catalog.
///
/// # Errors
/// When there is none of this name: says which there are.
pub(crate) fn find_gpu(name: &str) -> Result<&'static Gpu, InputError> {
    catalog::gpu(name).ok_or_else(|| {
        let known = catalog::gpus().iter().map(|gpu| gpu.name.as_str());
        let list = known.clone().collect::<Vec<_>>().join(", ");
        InputError::new(format!("`gpu: {name}` is not in the catalog{}; known: {list}", hint(name, known)))
    })
}

/// A model of the catalog, or the config.json at `base`/`name`, with the scenario's type of weights.
///
/// # Errors
/// When there is neither, or the file is no config.json of a model that is known.
pub(crate) fn find_model(name: &str, base: &Path, dtype: Option<Dtype>) -> Result<Model, InputError> {
    let model = match catalog::model(name) {
        Some(model) => model.clone(),
        None => read_model(name, base)?,
    };
    Ok(match dtype {
        Some(dtype) => model.with_weights(weight_type(dtype)),
        None => model,
    })
}

fn weight_type(dtype: Dtype) -> WeightType {
    match dtype {
        Dtype::Bf16 => WeightType::Bf16,
        Dtype::Fp16 => WeightType::Fp16,
        Dtype::Fp8 => WeightType::Fp8,
        Dtype::Mxfp4 => WeightType::Mxfp4,
        Dtype::W4a16 => WeightType::W4a16,
        Dtype::W8a8 => WeightType::W8a8,
    }
}

fn read_model(name: &str, base: &Path) -> Result<Model, InputError> {
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

/// Bytes of an element of the KV cache.
pub(crate) fn kv_element_bytes(dtype: Option<KvCacheDtype>) -> u32 {
    match dtype {
        None | Some(KvCacheDtype::Auto) => 2,
        Some(KvCacheDtype::Fp8) => 1,
    }
}

/// A model is split by its attention heads, over as many GPUs as there are figures for.
///
/// # Errors
/// When it cannot be: says over how many it can.
pub(crate) fn check_split(tensor_parallel: u32, gpu: &Gpu, model: &Model) -> Result<(), InputError> {
    let heads = model.shape.heads;
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

/// KV blocks by the sizing formula.
///
/// # Errors
/// When the model does not fit: says by how much, and what would.
pub(crate) fn sized_blocks(input: &SizingInput<'_>) -> Result<u32, InputError> {
    let sizing = KvSizing::new(input);
    if sizing.num_blocks > 1 {
        return Ok(sizing.num_blocks);
    }
    let SizingInput { gpu, model, tensor_parallel, .. } = *input;
    Err(InputError::new(format!(
        "{} does not fit {} with tensor_parallel {tensor_parallel}: weights {:.1} GiB, activations {:.1} GiB and {:.2} GiB beside them exceed the {:.1} GiB that vLLM may use by {:.1} GiB; {}",
        model.name,
        gpu.name,
        sizing.weights_gib,
        sizing.activation_gib,
        sizing.non_torch_gib + sizing.adapter_gib,
        sizing.requested_gib,
        -sizing.free_gib(),
        mend(input),
    )))
}

/// The split over more GPUs, and the type of weights, with which the model would fit.
fn mend(input: &SizingInput<'_>) -> String {
    let fits = |input: &SizingInput<'_>| KvSizing::new(input).num_blocks > 1;
    let split = splits(input.gpu, input.model.shape.heads)
        .find(|&tensor_parallel| fits(&SizingInput { tensor_parallel, ..*input }));
    let smaller = [WeightType::Fp8, WeightType::W4a16].into_iter().find(|&weights| {
        let model = input.model.clone().with_weights(weights);
        model.weight_bytes() < input.model.weight_bytes() && fits(&SizingInput { model: &model, ..*input })
    });
    match (split, smaller) {
        (Some(tp), Some(weights)) => {
            format!("it fits with `tensor_parallel: {tp}`, or with `dtype: {weights}`")
        }
        (Some(tp), None) => format!("it fits with `tensor_parallel: {tp}`"),
        (None, Some(weights)) => {
            format!(
                "no tensor_parallel of this GPU's catalog entry is enough; it fits with `dtype: {weights}`"
            )
        }
        (None, None) => {
            "no tensor_parallel of this GPU's catalog entry is enough, nor are smaller weights".into()
        }
    }
}

/// What a reader should know of closed forms over a datasheet.
pub(crate) fn grade_warning(gpu: &Gpu) -> Option<String> {
    (gpu.grade == Grade::Datasheet)
        .then(|| format!("step times on {}: {}. Calibrate before trusting them", gpu.name, gpu.kernel_source))
}

/// What a reader should know of the types and the KV memory of this pair.
pub(crate) fn warnings(gpu: &Gpu, model: &Model) -> Vec<String> {
    let mut warnings = Vec::new();
    let weights = model.shape.weights;
    let eight_bits = |weights| match weights {
        WeightType::Fp8 => Some(gpu.peak_fp8_flops),
        WeightType::W8a8 => Some(gpu.peak_int8_flops),
        _ => None,
    };
    if let Some(None) = eight_bits(weights.linear) {
        warnings.push(format!(
            "{} does not multiply in {}: its weights are widened to 16 bits as they are read",
            gpu.name, weights.linear
        ));
    }
    if let Some(window) = model.shape.window {
        warnings.push(format!(
            "{} of {}'s {} layers see a window of {} tokens: their attention costs no more than it, but their KV blocks are modelled as held by every request for the whole window (not golden-tested)",
            window.layers, model.name, model.shape.layers, window.tokens
        ));
    }
    warnings
}

/// What pools pay for a GPU hour.
pub(crate) struct Prices {
    /// US dollars by pool; none when some pool's GPU has no price.
    pub(crate) by_pool: Option<BTreeMap<String, f64>>,
    /// Where the prices come from, when the scenario does not say them.
    pub(crate) source: Option<String>,
}

/// One pool's name, its GPU's name in the scenario, and its GPU.
pub(crate) type PricedPool<'a> = (&'a str, &'a str, &'static Gpu);

/// The scenario's prices, or the catalog's.
///
/// # Errors
/// When the scenario's name an unknown GPU, leave one out, or are no prices.
pub(crate) fn prices(scenario: &Scenario, pools: &[PricedPool<'_>]) -> Result<Prices, InputError> {
    let Some(cost) = &scenario.cost else { return Ok(list_prices(pools)) };
    if let GpuPrice::ByGpu(by_gpu) = &cost.gpu_hour_usd {
        for name in by_gpu.keys() {
            find_gpu(name).map_err(|e| e.at("cost.gpu_hour_usd"))?;
        }
    }
    let mut prices = BTreeMap::new();
    for &(pool, gpu_name, gpu) in pools {
        let price = match &cost.gpu_hour_usd {
            GpuPrice::Same(price) => *price,
            GpuPrice::ByGpu(by_gpu) => {
                let own = by_gpu.iter().find(|(name, _)| **name == gpu_name || **name == gpu.name);
                *own.map(|(_, price)| price).ok_or_else(|| {
                    InputError::new(format!("`cost.gpu_hour_usd` has no price for {}: add one", gpu.name))
                })?
            }
        };
        if !(price >= 0.0 && price.is_finite()) {
            return Err(InputError::new(format!(
                "`cost.gpu_hour_usd` is {price}: a price is a number from 0 up"
            )));
        }
        prices.insert(pool.to_owned(), price);
    }
    Ok(Prices { by_pool: Some(prices), source: None })
}

fn list_prices(pools: &[PricedPool<'_>]) -> Prices {
    let priced = |&(pool, _, gpu): &PricedPool<'_>| Some((pool.to_owned(), gpu.price.as_ref()?));
    let Some(prices) = pools.iter().map(priced).collect::<Option<Vec<_>>>() else {
        return Prices { by_pool: None, source: None };
    };
    let mut sources: Vec<String> = Vec::new();
    for ((_, _, gpu), (_, price)) in pools.iter().zip(&prices) {
        let source = format!("{} {} USD per GPU hour: {}", gpu.name, price.usd_per_gpu_hour, price.source);
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let by_pool = prices.into_iter().map(|(pool, price)| (pool, price.usd_per_gpu_hour)).collect();
    Prices { by_pool: Some(by_pool), source: Some(sources.join("; ")) }
}
