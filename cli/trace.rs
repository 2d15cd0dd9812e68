//! `forerun trace`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use forerun_planner::error::{Error, InputError};
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{self, Origin};
use forerun_planner::trace_info::{Asked, trace_info};
use serde_json::json;

use crate::output::{Format, print, print_document};

const EXAMPLES: &str = "\
Examples:
  forerun trace info conversation.jsonl.gz
  forerun trace info requests.csv --set workload.columns.arrival_s=send_time
  forerun trace info requests.csv --warm-up 10m --cache-tokens 400000 --format json
  forerun trace info --preset mooncake-conversation";

/// Traces: what is in one?
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rates, burstiness, idle time, lengths, prefix sharing by cache size, sessions and skew of a trace.
    Info(InfoArgs),
}

/// Rates, burstiness, idle time, lengths, prefix sharing by cache size, sessions and skew of a trace.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
struct InfoArgs {
    /// The trace (Mooncake JSONL, Azure CSV, generic CSV or JSONL; .gz and .zst as they are).
    #[arg(required_unless_present = "preset", conflicts_with = "preset")]
    file: Option<PathBuf>,
    /// Measure what this preset of `forerun catalog` generates instead.
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Leave out what arrives before this time, such as 10m; it still fills caches.
    #[arg(long, value_name = "TIME")]
    warm_up: Option<String>,
    /// Tokens of a KV block.
    #[arg(long, value_name = "TOKENS", default_value_t = 16)]
    block_tokens: u32,
    /// Measure prefix hits in a cache of this size too; may be repeated.
    #[arg(long, value_name = "TOKENS")]
    cache_tokens: Vec<u64>,
    /// Set a field of the scenario, such as workload.rate=20 or workload.columns.arrival_s=send_time; may be
    /// repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
    /// How to print the figures.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Info(args) => info(args),
    }
}

fn info(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let overrides = overrides(args).map_err(Error::Input)?;
    let loaded = read::read(Origin::CommandLine, &overrides).map_err(Error::Input)?;
    let warm_up = args.warm_up.as_deref().map(str::parse).transpose();
    let asked = Asked {
        warm_up: warm_up.map_err(|e| Error::Input(InputError::from(e).at("--warm-up")))?,
        block_tokens: Some(args.block_tokens),
        cache_tokens: args.cache_tokens.clone(),
    };
    let info = trace_info(&loaded, &asked).map_err(Error::Input)?;
    match args.format {
        Format::Table => print_document(&info.to_document())?,
        Format::Json => print(&info.to_json())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The flags as overrides of an empty scenario.
fn overrides(args: &InfoArgs) -> Result<Vec<Override>, InputError> {
    let mut all = Vec::new();
    if let Some(preset) = &args.preset {
        all.push(Override::new("workload.preset", json!(preset)));
    }
    if let Some(file) = &args.file {
        let path = file.to_str();
        let path = path.ok_or_else(|| InputError::new(format!("{}: is not UTF-8", file.display())))?;
        all.push(Override::new("workload.trace", json!(path)));
    }
    for text in &args.overrides {
        all.push(text.parse()?);
    }
    Ok(all)
}
