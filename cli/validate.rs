//! `forerun validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use forerun_planner::error::InputError;
use forerun_planner::ladder;
use forerun_planner::ladder::policies::Ladder;
use forerun_planner::ladder::tiers::Tiers;
use forerun_planner::served::trust;
use forerun_planner::validate::{Options, report, update, validate, write};

use crate::output::print;

/// How near do the figures come to measured servers?
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder with one folder for each measured server.
    folder: PathBuf,
    /// Folder with kernel tables; without it only the catalog's closed forms are validated.
    #[arg(long, value_name = "DIR")]
    silicon: Option<PathBuf>,
    /// Only this server, one of its loads (`vllm-qwen3-14b-h100/agg_8rps`), or `llm-d-policy-ladder`.
    #[arg(long, value_name = "SERVER")]
    only: Option<String>,
    /// Write the report (servers.md) and charts of the distributions into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Put the report between the markers of this Markdown file, and the charts into a folder of its name beside it.
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// Write the errors by GPU, type of weights, class of model and kind of step times into this JSON file: what reports
    /// tell of their figures' uncertainty.
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.only.as_deref() == Some(ladder::FOLDER) {
        return run_ladder(args);
    }
    let options =
        Options { folder: &args.folder, silicon: args.silicon.as_deref(), only: args.only.as_deref() };
    let all = validate(&options)?;
    if let Some(folder) = &args.out {
        write(&all, folder)?;
    }
    if let Some(document) = &args.update {
        update(&all, document)?;
    }
    if let Some(path) = &args.errors {
        trust::write(&trust::models(&all)?, path)?;
    }
    print(&report(&all))?;
    Ok(ExitCode::SUCCESS)
}

/// llm-d's ladders are no servers with loads: their reports and places in a document are their own.
fn run_ladder(args: &Args) -> anyhow::Result<ExitCode> {
    if args.out.is_some() || args.errors.is_some() {
        bail!(InputError::new("the ladders have neither `--out` nor `--errors`: use `--update FILE`"));
    }
    let (policies, tiers) = (Ladder::climb(&args.folder)?, Tiers::climb(&args.folder)?);
    if let Some(document) = &args.update {
        policies.update(document)?;
        tiers.update(document)?;
    }
    print(&format!("{}\n{}", policies.report(""), tiers.report()))?;
    Ok(ExitCode::SUCCESS)
}
