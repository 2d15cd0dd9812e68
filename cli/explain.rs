//! `forerun explain`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::error::{Error, InputError};
use forerun_planner::explain::{StepQuestion, explain_step};
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{self, Origin};
use serde_json::{Value, json};

use crate::output::{Format, print, print_document};

const EXAMPLES: &str = "\
Examples:
  forerun explain step --model qwen3-14b --gpu h100 --decode 64 --kv 4000
  forerun explain step --scenario fleet.yaml --prefill 512 --decode 64 --kv 4000
  forerun explain step --model gpt-oss-120b --gpu h100 --tensor-parallel 2 --prefill 2048 --format json";

/// Where does a figure come from?
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// One engine step's time, op by op: formulas, constants and their sources.
    Step(Box<Step>),
}

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
struct Step {
    /// Scenario file: its model, types, engine arguments and pools. Without one: what the flags say.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// The scenario's pool of this name (the first one).
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Model: a name of `forerun catalog` or the path of a Hugging Face config.json.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// GPU of the first pool: a name of `forerun catalog`.
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
    /// GPUs of each replica of the first pool.
    #[arg(long, value_name = "N")]
    tensor_parallel: Option<u32>,
    /// Type of the weights.
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
    /// Type of the KV cache: auto or fp8.
    #[arg(long, value_name = "TYPE")]
    kv_cache_dtype: Option<String>,
    /// Set any field of the scenario; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
    /// Prompt tokens that one request computes in the step.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    prefill: u32,
    /// Tokens of that prompt that were computed before.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    history: u32,
    /// Requests that extend their output by a token.
    #[arg(long, value_name = "REQUESTS", default_value_t = 0)]
    decode: u32,
    /// Tokens of context that each of them reads.
    #[arg(long, value_name = "TOKENS", default_value_t = 1000)]
    kv: u32,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let What::Step(step) = &args.what;
    let overrides = step.overrides().map_err(Error::Input)?;
    let origin = step.scenario.as_deref().map_or(Origin::CommandLine, Origin::File);
    let loaded = read::read(origin, &overrides).map_err(Error::Input)?;
    let Step { prefill, history, decode, kv, .. } = **step;
    let question = StepQuestion { prefill, history, decode, kv };
    let explanation = explain_step(&loaded, step.pool.as_deref(), question).map_err(Error::Input)?;
    match step.format {
        Format::Table => print_document(&explanation.document())?,
        Format::Json => print(&serde_json::to_string_pretty(&explanation.json())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Step {
    /// The flags as overrides of the scenario, before those of `--set`.
    fn overrides(&self) -> Result<Vec<Override>, InputError> {
        let text = |value: &Option<String>| value.as_ref().map(|value| json!(value));
        let flags: [(&str, Option<Value>); 5] = [
            ("model", text(&self.model)),
            ("dtype", text(&self.dtype)),
            ("kv_cache_dtype", text(&self.kv_cache_dtype)),
            ("pools.0.gpu", text(&self.gpu)),
            ("pools.0.tensor_parallel", self.tensor_parallel.map(|gpus| json!(gpus))),
        ];
        let given = flags.into_iter().filter_map(|(path, value)| Some(Override::new(path, value?)));
        let mut all: Vec<_> = given.collect();
        for text in &self.overrides {
            all.push(text.parse()?);
        }
        Ok(all)
    }
}
