//! A profile: what was measured of a GPU, as one JSON file, and the cost model that it gives a replica.

use forerun_sim::catalog::{AllReduce, Gpu, Model};
use forerun_sim::cost::cuda_graphs::LARGEST_GRAPH;
use forerun_sim::cost::tables::{Attention, Curve, Kernel, Kernels, Plane, Skew, Solid};
use serde::{Deserialize, Serialize};

use crate::measured::Measured;

/// The version of the format.
pub const SCHEMA: &str = "forerun-profile/1";

/// The grade of a profile that was measured on the device at hand.
pub const MEASURED_HERE: &str = "measured here";

/// Times of the kernels of a model on a GPU. Times are microseconds; counts are tokens or sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`SCHEMA`].
    pub schema: String,
    /// Unit of all times: `us`.
    pub time_unit: String,
    /// How far to trust it: `measured tables` of others, or `measured here`.
    pub grade: String,
    /// Who measured it, and under which licence.
    pub source: String,
    /// The engine whose kernels were measured.
    pub engine: String,
    /// The GPU, as the source calls it.
    pub gpu: String,
    /// The model.
    pub model: String,
    /// GPUs over which it was split.
    pub tensor_parallel: u32,
    /// Type of weights and activations.
    pub dtype: String,
    /// Type of the KV cache: `auto` for that of activations, or `fp8`.
    #[serde(default = "auto")]
    pub kv_cache_dtype: String,
    /// What of the source was not used, and why.
    pub notes: Vec<String>,
    /// Kernels by the tokens of a step, in each layer.
    pub per_layer: Vec<Op>,
    /// Kernels by the tokens of a step, once in it.
    pub per_step: Vec<Op>,
    /// Kernels by the sequences that sample, once in a step.
    pub per_sequence: Vec<Op>,
    /// The experts of a layer.
    pub moe: Option<Moe>,
    /// One all-reduce of a layer's two, by the tokens of a step; without it they are the catalog's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_reduce: Option<Op>,
    /// Attention of one layer.
    pub attention: Grids,
    /// The engine's largest CUDA graph, tokens: 0 for an engine without, vLLM's 512 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_graph: Option<u32>,
    /// The device as an entry of the catalog, its peaks those that were reached: for a scenario whose GPU the catalog
    /// does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Gpu>,
    /// What `forerun calibrate run` measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

/// The KV cache of a profile that does not say.
fn auto() -> String {
    "auto".into()
}

/// Times of one kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Op {
    /// Its name in the source.
    pub op: String,
    /// Where its times come from, when that is not the profile's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How often it runs.
    pub times: f64,
    /// Tokens or sequences, ascending.
    pub at: Vec<u32>,
    /// Times, non-decreasing.
    pub us: Vec<f64>,
}

/// Times of the experts of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moe {
    /// Experts of a layer, and those that a token activates.
    pub experts: u32,
    /// See `experts`.
    pub experts_per_token: u32,
    /// Tokens of a step.
    pub tokens: Vec<u32>,
    /// Experts that they activate together.
    pub activated: Vec<u32>,
    /// Times, tokens by experts.
    pub us: Vec<f64>,
}

/// Times of attention. All grids are complete and rise along every axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grids {
    /// Number of decodes.
    pub decodes: Vec<u32>,
    /// Context of each.
    pub contexts: Vec<u32>,
    /// Decodes by contexts.
    pub decode_us: Vec<f64>,
    /// Tokens of a prefill.
    pub chunks: Vec<u32>,
    /// Tokens computed before.
    pub histories: Vec<u32>,
    /// Chunks by histories.
    pub prefill_us: Vec<f64>,
    /// Chunks by histories by decodes by contexts, on the axes above.
    pub mixed_us: Option<Vec<f64>>,
    /// How unequal decodes take longer.
    pub skew: Option<SkewTable>,
    /// Where the times come from, when that is not the profile's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Share of the way from the time at the mean context to that at the longest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkewTable {
    /// Number of decodes.
    pub decodes: Vec<u32>,
    /// Share without a prefill.
    pub alone: Vec<f64>,
    /// Share with one.
    pub mixed: Vec<f64>,
}

impl Profile {
    /// The profile in a text.
    ///
    /// # Errors
    /// When it is not one of this version.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let profile: Self = serde_json::from_slice(json).map_err(|e| format!("is not a profile: {e}"))?;
        if profile.schema != SCHEMA {
            return Err(format!("has `schema` {:?}: this version reads {SCHEMA:?}", profile.schema));
        }
        if profile.time_unit != "us" {
            return Err(format!("has `time_unit` {:?}: it must be \"us\"", profile.time_unit));
        }
        Ok(profile)
    }

    /// Its text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a profile is plain data")
    }

    /// The kernels of `model`, split over `tensor_parallel` of `gpu`.
    ///
    /// # Errors
    /// When the profile is of something else, or its tables are not times that rise.
    pub fn kernels(&self, gpu: &Gpu, model: &Model, tensor_parallel: u32) -> Result<Kernels, String> {
        self.check_match(gpu, model, tensor_parallel)?;
        let layers = f64::from(model.shape.layers);
        let mut by_tokens = curves(&self.per_layer, layers)?;
        by_tokens.extend(curves(&self.per_step, 1.0)?);
        if let Some(moe) = &self.moe {
            let curve = moe.curve().map_err(|why| format!("`moe`: {why}"))?;
            by_tokens.push(Kernel { name: "experts".into(), calls: layers, curve });
        }
        if let Some(op) = &self.all_reduce {
            by_tokens.extend(curves(std::slice::from_ref(op), layers)?);
        } else if tensor_parallel > 1 {
            let figures = gpu.all_reduce.iter().find(|entry| entry.gpus == tensor_parallel);
            let figures = figures.ok_or_else(|| {
                format!("{} has no all-reduce figures for tensor_parallel {tensor_parallel}", gpu.name)
            })?;
            let curve = all_reduce(figures, model)?;
            by_tokens.push(Kernel { name: "all-reduce (catalog)".into(), calls: 2.0 * layers, curve });
        }
        Ok(Kernels {
            by_tokens,
            by_samples: curves(&self.per_sequence, 1.0)?,
            attention: self.attention.build().map_err(|why| format!("`attention`: {why}"))?,
            layers,
            largest_graph: self.largest_graph.unwrap_or(LARGEST_GRAPH),
        })
    }

    /// Whether it is of weights and a KV cache of these types. Both forms of 16 bits take as long.
    ///
    /// # Errors
    /// When it is not: says what the scenario can be changed to.
    pub fn check_types(&self, model: &Model, kv_element_bytes: u32) -> Result<(), String> {
        let sixteen = |dtype: &str| matches!(dtype, "bf16" | "fp16" | "bfloat16" | "float16");
        let weights = model.shape.weights.linear.to_string();
        if self.dtype != weights && !(sixteen(&self.dtype) && sixteen(&weights)) {
            return Err(format!(
                "was measured with {} weights, and the scenario has {weights}: set `dtype: {}`, or name a profile of {weights}",
                self.dtype, self.dtype
            ));
        }
        let cache = if kv_element_bytes == 1 { "fp8" } else { "auto" };
        if self.kv_cache_dtype != cache {
            return Err(format!(
                "was measured with a KV cache of type {}, and the scenario has {cache}: set `kv_cache_dtype: {}`, or name a profile of {cache}",
                self.kv_cache_dtype, self.kv_cache_dtype
            ));
        }
        Ok(())
    }

    fn check_match(&self, gpu: &Gpu, model: &Model, tensor_parallel: u32) -> Result<(), String> {
        let plain = |name: &str| -> String {
            name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
        };
        let same = |names: &[&str], name: &str| names.iter().any(|own| plain(own) == plain(name));
        let gpu_names: Vec<&str> =
            [&gpu.name, &gpu.title].into_iter().chain(&gpu.aliases).map(String::as_str).collect();
        if !same(&gpu_names, &self.gpu) {
            return Err(format!("was measured on {}, not on {}", self.gpu, gpu.name));
        }
        let model_names: Vec<&str> =
            std::iter::once(&model.name).chain(&model.aliases).map(String::as_str).collect();
        if !same(&model_names, &self.model) {
            return Err(format!("was measured with {}, not with {}", self.model, model.name));
        }
        if self.tensor_parallel != tensor_parallel {
            return Err(format!(
                "was measured with tensor_parallel {}, not {tensor_parallel}",
                self.tensor_parallel
            ));
        }
        Ok(())
    }
}

fn curves(ops: &[Op], times: f64) -> Result<Vec<Kernel>, String> {
    let curve = |op: &Op| {
        let curve = Curve::new(op.at.clone(), op.us.clone()).map_err(|why| format!("`{}`: {why}", op.op))?;
        if !(op.times.is_finite() && op.times > 0.0) {
            return Err(format!("`{}`: runs {} times", op.op, op.times));
        }
        Ok(Kernel { name: op.op.clone(), calls: op.times * times, curve })
    };
    ops.iter().map(curve).collect()
}

/// One all-reduce of the residual stream over `2 (n - 1) / n` times its bytes, two bytes an element.
fn all_reduce(figures: &AllReduce, model: &Model) -> Result<Curve, String> {
    let gpus = f64::from(figures.gpus);
    let token_bytes = f64::from(model.shape.hidden) * 2.0 * 2.0 * (gpus - 1.0) / gpus;
    let us =
        |tokens: u32| figures.launch_us + f64::from(tokens) * token_bytes / figures.bus_bytes_per_s * 1e6;
    Curve::new(vec![1, 1 << 20], vec![us(1), us(1 << 20)])
}

impl Moe {
    /// Time by tokens, when each token activates its experts independently of the others: `B` tokens touch
    /// `N (1 - ((N - k) / N)^B)` experts.
    fn curve(&self) -> Result<Curve, String> {
        let plane = Plane::new(self.tokens.clone(), self.activated.clone(), self.us.clone())?;
        if self.experts == 0 || self.experts_per_token == 0 || self.experts_per_token > self.experts {
            return Err(format!("{} of {} experts are activated", self.experts_per_token, self.experts));
        }
        let experts = f64::from(self.experts);
        let idle = 1.0 - f64::from(self.experts_per_token) / experts;
        let last = self.tokens.last().copied().unwrap_or(1).min(1 << 17);
        let mut untouched = 1.0;
        let mut us = Vec::new();
        for tokens in 1..=last {
            untouched *= idle;
            us.push(plane.us(f64::from(tokens), experts * (1.0 - untouched)));
        }
        Curve::new((1..=last).collect(), us)
    }
}

impl Grids {
    fn build(&self) -> Result<Attention, String> {
        let decode = Plane::new(self.decodes.clone(), self.contexts.clone(), self.decode_us.clone())?;
        let prefill = Plane::new(self.chunks.clone(), self.histories.clone(), self.prefill_us.clone())?;
        let axes = [&self.chunks, &self.histories, &self.decodes, &self.contexts].map(Clone::clone);
        let mixed = self.mixed_us.as_ref().map(|us| Solid::new(axes, us.clone())).transpose()?;
        let skew = self
            .skew
            .as_ref()
            .map(|skew| Skew::new(skew.decodes.clone(), skew.alone.clone(), skew.mixed.clone()))
            .transpose()?;
        Attention::new(decode, prefill, mixed, skew)
    }
}
