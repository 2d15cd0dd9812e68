//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use candle_core::DType;
use clap::{Parser, ValueEnum};
use forerun_sim::catalog::{self, Gpu, Model};

use crate::device::{Kind, Target};

/// Models that fit: a whole small one for CPUs, a common one for GPUs.
const CPU_MODEL: &str = "HuggingFaceTB/SmolLM2-135M";
const GPU_MODEL: &str = "meta-llama/Llama-3.1-8B";

/// Times kernels on a device and writes a profile of it, which a scenario names with `profile: FILE`.
#[derive(Debug, Parser)]
#[command(name = "forerun calibrate run", version, max_term_width = 100)]
pub(crate) struct Args {
    /// What to measure: `cpu`, `cuda:N` or `metal`.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// The model whose shapes are measured: of the catalog, or a Hugging Face config.json. By default a small one on
    /// a CPU, Llama 3.1 8B on a GPU.
    #[arg(long)]
    model: Option<String>,
    /// What the catalog calls this GPU, for what cannot be measured here: all-reduce, price.
    #[arg(long)]
    gpu: Option<String>,
    /// GPUs over which the model is split: the shapes of one GPU's share are measured.
    #[arg(long, default_value_t = 1)]
    pub(crate) tensor_parallel: u32,
    /// Type of weights and activations. By default f32 on a CPU, f16 on metal, bf16 on CUDA.
    #[arg(long)]
    dtype: Option<Dtype>,
    /// Whose kernels the profile's tables are. By default vLLM's on CUDA, candle's own elsewhere.
    #[arg(long)]
    kernels: Option<Kernels>,
    /// How long to measure: 90s, 5m, 1h.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub(crate) budget: Duration,
    /// Threads that a CPU computes with. With one its CPU time is read, which others on the machine do not touch;
    /// with more the wall clock.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: u32,
    /// Most tokens of a step to measure.
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Longest context to measure.
    #[arg(long)]
    max_context: Option<u32>,
    /// Folder on the disk whose reading speed is measured.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) disk: Option<PathBuf>,
    /// Begin anew where an interrupted run could be continued.
    #[arg(long)]
    pub(crate) restart: bool,
    /// The profile to write. By default it is called after device and model.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Types that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// bfloat16.
    Bf16,
    /// float16.
    F16,
    /// float32.
    F32,
}

/// Whose kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernels {
    /// vLLM's, projected onto this device's ceilings.
    Vllm,
    /// candle's, as they were measured.
    Candle,
}

/// What is measured, and up to which size.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) model: Model,
    pub(crate) tensor_parallel: u32,
    pub(crate) dtype: DType,
    pub(crate) kernels: Kernels,
    pub(crate) known_gpu: Option<&'static Gpu>,
    pub(crate) max_tokens: u32,
    pub(crate) max_sequences: u32,
    pub(crate) max_context: u32,
}

impl Args {
    /// Completes what was not given by what suits `target`.
    ///
    /// # Errors
    /// When a name is unknown, or the model is not one whose kernels are timed.
    pub(crate) fn subject(&self, target: &Target) -> anyhow::Result<Subject> {
        let cpu = target.kind == Kind::Cpu;
        let model = find_model(self.model.as_deref().unwrap_or(if cpu { CPU_MODEL } else { GPU_MODEL }))?;
        check_model(&model, self.tensor_parallel)?;
        let known_gpu = match &self.gpu {
            None => catalog::gpu(&slug(&target.name)),
            Some(name) => Some(catalog::gpu(name).with_context(|| {
                format!("--gpu {name} is not in the catalog: `forerun catalog gpus` lists it")
            })?),
        };
        let dtype = self.dtype.unwrap_or(match target.kind {
            Kind::Cpu => Dtype::F32,
            Kind::Metal => Dtype::F16,
            Kind::Cuda => Dtype::Bf16,
        });
        let max_tokens = self.max_tokens.unwrap_or(if cpu { 512 } else { 8192 });
        let max_context = self.max_context.unwrap_or(if cpu { 2048 } else { 8192 });
        if !(16..=65_536).contains(&max_tokens) || !(32..=1 << 20).contains(&max_context) {
            bail!("--max-tokens is from 16 to 65536, --max-context from 32 to 1048576");
        }
        Ok(Subject {
            max_context: max_context.min(model.shape.max_model_len),
            model,
            tensor_parallel: self.tensor_parallel,
            dtype: match dtype {
                Dtype::Bf16 => DType::BF16,
                Dtype::F16 => DType::F16,
                Dtype::F32 => DType::F32,
            },
            kernels: self.kernels.unwrap_or(match target.kind {
                Kind::Cuda => Kernels::Vllm,
                Kind::Cpu | Kind::Metal => Kernels::Candle,
            }),
            known_gpu,
            max_tokens,
            max_sequences: max_tokens.min(if cpu { 64 } else { 256 }),
        })
    }

    /// Where the profile goes.
    pub(crate) fn output(&self, gpu: &str, model: &Model) -> PathBuf {
        let short = model.name.rsplit('/').next().unwrap_or(&model.name).trim_end_matches(".json");
        self.output.clone().unwrap_or_else(|| PathBuf::from(format!("{gpu}-{}.json", slug(short))))
    }
}

fn find_model(name: &str) -> anyhow::Result<Model> {
    if let Some(model) = catalog::model(name) {
        return Ok(model.clone());
    }
    let path = Path::new(name);
    if !path.is_file() {
        bail!("--model {name} is neither in the catalog (`forerun catalog models`) nor a config.json");
    }
    if path.metadata()?.len() > 1 << 20 {
        bail!("model {name}: a config.json has at most 1 MiB");
    }
    let json = std::fs::read_to_string(path).with_context(|| format!("model {name}"))?;
    Model::from_hf_config(name, &json).with_context(|| format!("model {name}"))
}

/// The kernels that are timed are those of dense models with grouped-query attention over the whole context.
fn check_model(model: &Model, tensor_parallel: u32) -> anyhow::Result<()> {
    let shape = &model.shape;
    let other = if shape.experts.is_some() {
        "experts"
    } else if matches!(shape.attention, catalog::Attention::Latent { .. }) {
        "latent attention"
    } else if shape.window.is_some() {
        "sliding windows"
    } else {
        ""
    };
    if !other.is_empty() {
        bail!(
            "{} has {other}, whose kernels are not timed: the device's ceiling does not depend on the model, take a dense one such as {GPU_MODEL}",
            model.name
        );
    }
    let catalog::Attention::Grouped { kv_heads, .. } = shape.attention else { unreachable!("checked above") };
    let splits = tensor_parallel > 0
        && [shape.heads, shape.mlp, shape.vocabulary].iter().all(|size| size.is_multiple_of(tensor_parallel))
        && (kv_heads.is_multiple_of(tensor_parallel) || tensor_parallel.is_multiple_of(kv_heads));
    if !splits || !shape.heads.is_multiple_of(kv_heads) {
        bail!("{} does not split over --tensor-parallel {tensor_parallel}", model.name);
    }
    Ok(())
}

/// A name in lower case, digits and single hyphens.
pub(crate) fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// A time such as 90s, 5m or 1h.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time from 1s to 24h: write 90s, 5m or 1h");
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let unit = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    if !(1.0..=86_400.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_have_a_unit_and_bounds() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "5", "m", "-5m", "0s", "25h", "5 weeks", "nans", "1e9h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_device_is_called_by_its_own_name() {
        assert_eq!(slug("NVIDIA H100 80GB HBM3"), "nvidia-h100-80gb-hbm3");
        assert_eq!(slug("AMD EPYC (Milan)"), "amd-epyc-milan");
    }

    #[test]
    fn models_whose_kernels_are_not_timed_are_refused() {
        for (name, why) in [("deepseek-v3", "experts"), ("mistral-7b", "sliding windows")] {
            let model = catalog::model(name);
            if let Some(model) = model.filter(|m| m.shape.experts.is_some() || m.shape.window.is_some()) {
                assert!(check_model(model, 1).unwrap_err().to_string().contains(why), "{name}");
            }
        }
        let llama = catalog::model("llama-3.1-8b").unwrap();
        assert!(
            check_model(llama, 8).is_ok() && check_model(llama, 3).is_err() && check_model(llama, 0).is_err()
        );
    }
}
