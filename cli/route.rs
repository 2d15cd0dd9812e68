//! `forerun route`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::error::Error;
use forerun_planner::route::{RouteOptions, route};
use forerun_planner::scenario::{RouterSpec, UpstreamSpec};

use crate::output::{Format, print, print_document};

const EXAMPLES: &str = "\
Examples:
  forerun route --epp epp.yaml --state state.json
  forerun route --epp epp.yaml --state state.json --format json | jq .profiles[0].tied

Exit codes: 0 done; 2 wrong input; 3 a bug.";

/// Where does a router configuration send a request, and why?
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An EndpointPickerConfig.
    #[arg(long, value_name = "FILE")]
    epp: PathBuf,
    /// What the picker knows of its endpoints, and the request: JSON, or the same in YAML.
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Seed of what is drawn: which of several equals, what random pickers pick.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Take equals in turn, as routers after 0.10 do, instead of drawing them.
    #[arg(long)]
    rotate: bool,
    /// The router's `--allow-experimental-plugins`.
    #[arg(long)]
    allow_experimental: bool,
    /// Also accept names and versions of other router versions.
    #[arg(long)]
    lenient: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let spec = RouterSpec {
        upstream: args.lenient.then_some(UpstreamSpec::Lenient),
        allow_experimental: Some(args.allow_experimental),
        ..RouterSpec::default()
    };
    let options = RouteOptions { seed: args.seed, rotate: args.rotate };
    let explained = route(&args.epp, &spec, &args.state, options).map_err(Error::Input)?;
    match args.format {
        Format::Table => print_document(&explained.to_document())?,
        Format::Json => print(&explained.to_json()?)?,
    }
    Ok(ExitCode::SUCCESS)
}
