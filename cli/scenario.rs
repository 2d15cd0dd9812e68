//! The flags that name a scenario and change its common fields, for every command that runs one.

use std::path::{Path, PathBuf};

use forerun_planner::error::InputError;
use forerun_planner::scenario::SloSpec;
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{self, Loaded, Origin};
use serde_json::{Value, json};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct ScenarioArgs {
    /// Scenario file. Without one: what the flags say, or the built-in scenario (tenants with long system
    /// prompts on four replicas).
    pub(crate) scenario: Option<PathBuf>,
    /// Replay this trace (Mooncake JSONL, Azure CSV, generic CSV or JSONL; .gz and .zst as they are).
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    trace: Option<PathBuf>,
    /// Generate this workload of `forerun catalog`.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Model: a name of `forerun catalog` or the path of a Hugging Face config.json.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// GPU of the first pool: a name of `forerun catalog`.
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// Replicas of the first pool.
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Requests per second: scales a trace, sets a generator's rate.
    #[arg(long, value_name = "REQ/S", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Seed of every random stream.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Runs with seeds that follow from the seed.
    #[arg(long, value_name = "N")]
    replications: Option<u32>,
    /// Set any field of the scenario; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
}

/// What to ask about: a scenario whose SLO a flag may set.
#[derive(clap::Args)]
pub(crate) struct QuestionArgs {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// What must hold, such as ttft=2s,tpot=50ms,attainment=0.95; stands in place of the scenario's.
    #[arg(long, value_name = "LIMITS")]
    slo: Option<SloSpec>,
}

impl QuestionArgs {
    /// The scenario with the changes of the flags.
    pub(crate) fn read(&self) -> Result<Loaded, InputError> {
        let slo = self.slo.as_ref().map(|slo| Override::new("slo", json!(slo)));
        self.scenario.read(slo.into_iter().collect())
    }
}

impl ScenarioArgs {
    /// The scenario with the changes of the flags and `more`.
    pub(crate) fn read(&self, more: Vec<Override>) -> Result<Loaded, InputError> {
        read::read(self.origin(), &self.overrides(more)?)
    }

    /// Where the scenario comes from.
    pub(crate) fn origin(&self) -> Origin<'_> {
        match &self.scenario {
            Some(path) => Origin::File(path),
            None if self.trace.is_some() || self.preset.is_some() => Origin::CommandLine,
            None => Origin::BuiltIn,
        }
    }

    /// The flags as overrides of the scenario, then `more`, then those of `--set`.
    pub(crate) fn overrides(&self, more: Vec<Override>) -> Result<Vec<Override>, InputError> {
        let mut all = Vec::new();
        let mut set = |path: &str, value: Value| all.push(Override::new(path, value));
        if let Some((kind, name)) = self.workload()? {
            for other in ["trace", "preset", "synthetic"] {
                set(&format!("workload.{other}"), if other == kind { json!(name) } else { Value::Null });
            }
        }
        if let Some(model) = &self.model {
            set("model", json!(model));
        }
        if let Some(gpu) = &self.gpu {
            set("pools.0.gpu", json!(gpu));
        }
        if let Some(replicas) = self.replicas {
            set("pools.0.replicas", json!(replicas));
        }
        if let Some(rate) = self.rate {
            // JSON has no such number: it would be taken for none.
            if !rate.is_finite() {
                return Err(InputError::new(format!(
                    "--rate {rate}: a finite number of requests per second is needed"
                )));
            }
            set("workload.rate", json!(rate));
        }
        if let Some(seed) = self.seed {
            set("run.seed", json!(seed));
        }
        if let Some(replications) = self.replications {
            set("run.replications", json!(replications));
        }
        all.extend(more);
        for text in &self.overrides {
            all.push(text.parse()?);
        }
        Ok(all)
    }

    /// The workload that a flag names: its key in the scenario and its value.
    fn workload(&self) -> Result<Option<(&'static str, String)>, InputError> {
        if let Some(preset) = &self.preset {
            return Ok(Some(("preset", preset.clone())));
        }
        let Some(trace) = &self.trace else { return Ok(None) };
        Ok(Some(("trace", absolute("--trace", trace)?)))
    }
}

/// A path on the command line starts from the current folder, not from the scenario's.
pub(crate) fn absolute(flag: &str, path: &Path) -> Result<String, InputError> {
    let wrong = |why: &str| InputError::new(format!("{flag} {}: {why}", path.display()));
    let absolute = std::path::absolute(path).map_err(|e| wrong(&e.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| wrong("is not UTF-8"))
}
