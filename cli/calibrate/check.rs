//! `forerun calibrate check`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::served::check;

use super::measured::MeasuredArgs;
use crate::output::ReportFormat;
use crate::progress::Bar;

const EXAMPLES: &str = "\
Examples:
  forerun calibrate check --from bench.json --scenario server.yaml
  forerun calibrate check --from trace.csv --scenario server.yaml --format json
  forerun calibrate check --from log.csv --scenario server.yaml --column arrival_s=sent_us --column finished_s=last_us
  forerun calibrate check --from bench.json --scenario server.yaml --chart bench.svg";

/// How near does the simulator come to a measured run? Every metric and percentile, predicted and measured.
#[derive(Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    measured: MeasuredArgs,
    /// Draw the distributions of the only run into this SVG file.
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// How to print the comparison.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (files, server) = (args.measured.files()?, args.measured.server()?);
    let checked = Bar::during(None, |watch| check(&files, &server, watch))?;
    if let Some(path) = &args.chart {
        checked.draw(path)?;
    }
    let json = serde_json::to_string_pretty(&checked.json())?;
    args.format.print(|| checked.document(), || json)?;
    Ok(ExitCode::SUCCESS)
}
