//! `forerun calibrate serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::served::fit;

use super::measured::MeasuredArgs;
use crate::output::ReportFormat;
use crate::progress::Bar;

const EXAMPLES: &str = "\
Examples:
  forerun calibrate serve --from bench-2rps.json bench-8rps.json --scenario server.yaml -o served.json
  forerun simulate fleet.yaml --set profile=served.json";

/// Fit the constants of a live server to its measured runs: a profile of what they tell, and what they do not.
#[derive(Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Profile to write, which a scenario names with `profile: FILE`.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to print the fit.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (files, server) = (args.measured.files()?, args.measured.server()?);
    let fit = Bar::during(None, |watch| fit(&files, &server, watch))?;
    if let Some(path) = &args.output {
        fit.write(path)?;
    }
    let json = serde_json::to_string_pretty(&fit.json())?;
    args.format.print(|| fit.document(), || json)?;
    Ok(ExitCode::SUCCESS)
}
