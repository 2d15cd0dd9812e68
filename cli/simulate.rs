//! `forerun simulate`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::assemble::{KvForm, assemble};
use forerun_planner::error::{Error, InputError};
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{self, Origin};
use forerun_planner::simulate::simulate;
use serde_json::{Value, json};

use crate::SLO_FAILED;
use crate::output::{Format, print, print_document};
use crate::progress::Bar;

const EXAMPLES: &str = "\
Examples:
  forerun simulate                                     the built-in scenario
  forerun simulate fleet.yaml                          a scenario of your own
  forerun simulate --trace conversation.jsonl.gz --model Qwen/Qwen3-14B --replicas 4
  forerun simulate fleet.yaml --router least-requests --outcomes outcomes.csv
  forerun simulate fleet.yaml --set pools.0.replicas=8 --set engine.max_num_seqs=256
  forerun simulate fleet.yaml --format json | jq .ttft_ms.p99

Exit codes: 0 done; 1 --assert-slo and the SLO does not hold; 2 wrong input; 3 a bug.";

/// What happens, exactly, in one scenario?
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Scenario file. Without one: what the flags say, or the built-in scenario (tenants with long system
    /// prompts on four replicas).
    scenario: Option<PathBuf>,
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
    /// Routing policy: a name of `forerun catalog`.
    #[arg(long, value_name = "NAME")]
    router: Option<String>,
    /// Seed of every random stream.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Set any field of the scenario; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
    /// Write one CSV line per request to this file.
    #[arg(long, value_name = "FILE")]
    outcomes: Option<PathBuf>,
    /// How KV blocks are kept: `extents` is fast; `exact` steps every request and block by itself. Both give the
    /// same results.
    #[arg(long, value_enum, default_value_t)]
    kv: Kv,
    /// Exit with code 1 when the scenario's SLO does not hold.
    #[arg(long)]
    assert_slo: bool,
    /// How to print the summary.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How KV blocks are kept.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Kv {
    #[default]
    Extents,
    Exact,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let overrides = overrides(args).map_err(Error::Input)?;
    let origin = match &args.scenario {
        Some(path) => Origin::File(path),
        None if args.trace.is_some() || args.preset.is_some() => Origin::CommandLine,
        None => Origin::BuiltIn,
    };
    let loaded = read::read(origin, &overrides).map_err(Error::Input)?;
    let mut assembled = assemble(&loaded).map_err(Error::Input)?;
    assembled.fleet.kv = match args.kv {
        Kv::Extents => KvForm::Extents,
        Kv::Exact => KvForm::Exact,
    };
    if args.assert_slo && assembled.slo.attainment.is_none() && assembled.slo.aggregate.is_empty() {
        let why = "--assert-slo: the scenario has no limit on the whole run; add `attainment` or, say, `ttft_p99` to `slo`";
        return Err(Error::Input(InputError::new(why)).into());
    }
    let bar = Bar::new(assembled.workload.requests);
    let result = simulate(&assembled, args.outcomes.as_deref(), &mut |progress| bar.show(progress));
    bar.clear();
    let summary = result?;
    match args.format {
        Format::Table => print_document(&summary.to_document())?,
        Format::Json => print(&summary.to_json())?,
    }
    if args.assert_slo && summary.slo_checks.iter().any(|check| !check.holds) {
        return Ok(ExitCode::from(SLO_FAILED));
    }
    Ok(ExitCode::SUCCESS)
}

/// The flags as overrides of the scenario, before those of `--set`.
fn overrides(args: &Args) -> Result<Vec<Override>, InputError> {
    let mut all = Vec::new();
    let mut set = |path: &str, value: Value| all.push(Override::new(path, value));
    if let Some((kind, name)) = workload(args)? {
        for other in ["trace", "preset", "synthetic"] {
            set(&format!("workload.{other}"), if other == kind { json!(name) } else { Value::Null });
        }
    }
    if let Some(model) = &args.model {
        set("model", json!(model));
    }
    if let Some(gpu) = &args.gpu {
        set("pools.0.gpu", json!(gpu));
    }
    if let Some(replicas) = args.replicas {
        set("pools.0.replicas", json!(replicas));
    }
    if let Some(rate) = args.rate {
        // JSON has no such number: it would be taken for none.
        if !rate.is_finite() {
            return Err(InputError::new(format!(
                "--rate {rate}: a finite number of requests per second is needed"
            )));
        }
        set("workload.rate", json!(rate));
    }
    if let Some(router) = &args.router {
        set("router.preset", json!(router));
    }
    if let Some(seed) = args.seed {
        set("run.seed", json!(seed));
    }
    for text in &args.overrides {
        all.push(text.parse()?);
    }
    Ok(all)
}

/// The workload that a flag names: its key in the scenario and its value.
fn workload(args: &Args) -> Result<Option<(&'static str, String)>, InputError> {
    if let Some(preset) = &args.preset {
        return Ok(Some(("preset", preset.clone())));
    }
    let Some(trace) = &args.trace else { return Ok(None) };
    // A path on the command line starts from the current folder, not from the scenario's.
    let path = std::path::absolute(trace)
        .map_err(|e| InputError::new(format!("--trace {}: {e}", trace.display())))?;
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| InputError::new(format!("--trace {}: is not UTF-8", trace.display())))?;
    Ok(Some(("trace", path)))
}
