//! `forerun calibrate serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::served::fit;
use forerun_reports::markdown;

use super::measured::MeasuredArgs;
use crate::output::{ReportFormat, print, print_document};
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
    let bar = Bar::new(None);
    let fit = fit(&files, &server, &|progress| bar.show(progress));
    bar.clear();
    let fit = fit?;
    if let Some(path) = &args.output {
        fit.write(path)?;
    }
    match args.format {
        ReportFormat::Table => print_document(&fit.document())?,
        ReportFormat::Json => print(&serde_json::to_string_pretty(&fit.json())?)?,
        ReportFormat::Markdown => print(&markdown::render(&fit.document()))?,
    }
    Ok(ExitCode::SUCCESS)
}
