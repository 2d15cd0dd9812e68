//! `forerun lint`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::error::Error;
use forerun_planner::lint::{Duration, Pods, Surroundings, lint_file};
use forerun_planner::scenario::read::{self, Origin};

use crate::NOT_HELD;
use crate::output::{Format, print, print_document};

const EXAMPLES: &str = "\
Examples:
  forerun lint epp.yaml                                what can be said of the file alone
  forerun lint epp.yaml --scenario fleet.yaml          with the numbers of these pods
  forerun lint epp.yaml --cold-start 95s --epp-replicas 3

Exit codes: 0 no errors; 1 a finding of level error; 2 wrong input; 3 a bug.";

/// What does a router configuration do that its author may not expect?
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An EndpointPickerConfig, as it is rolled out.
    #[arg(value_name = "EPP.YAML")]
    file: PathBuf,
    /// The fleet that it routes to.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Replicas of the endpoint picker.
    #[arg(long, value_name = "N", default_value_t = 1)]
    epp_replicas: u32,
    /// How long a new replica takes to its first answer. Without it: 277.8s, as published for Qwen3-32B on an H100.
    #[arg(long, value_name = "DURATION")]
    cold_start: Option<Duration>,
    /// How long the gateway waits for an answer. Without it: 300s, as in llm-d's guides.
    #[arg(long, value_name = "DURATION")]
    route_timeout: Option<Duration>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let pods = match &args.scenario {
        Some(path) => {
            let loaded = read::read(Origin::File(path), &[]).map_err(Error::Input)?;
            Pods::of(&loaded).map_err(Error::Input)?
        }
        None => None,
    };
    let surroundings = Surroundings {
        pods,
        epp_replicas: args.epp_replicas,
        cold_start: args.cold_start.map(|duration| duration.span()),
        route_timeout: args.route_timeout.map(|duration| duration.span()),
    };
    let report = lint_file(&args.file, &surroundings).map_err(Error::Input)?;
    match args.format {
        Format::Table => print_document(&report.to_document())?,
        Format::Json => print(&report.to_json()?)?,
    }
    Ok(if report.has_errors() { ExitCode::from(NOT_HELD) } else { ExitCode::SUCCESS })
}
