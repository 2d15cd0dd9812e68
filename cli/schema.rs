//! `forerun schema`.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::output::print;

/// The JSON Schema of a file format.
#[derive(clap::Args)]
#[command(
    after_help = "Example: forerun schema scenario > forerun-scenario.schema.json\n         (then in a scenario: # yaml-language-server: $schema=forerun-scenario.schema.json)"
)]
pub(crate) struct Args {
    /// Which format.
    #[arg(value_enum)]
    format: Name,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// What `forerun advise --format json` prints.
    Advise,
    /// The scenario file.
    Scenario,
    /// What `forerun simulate --format json` prints.
    Summary,
    /// What `forerun plan --format json` prints.
    Plan,
    /// What `forerun gate --format json` prints.
    Gate,
    /// What `forerun compare --format json` prints.
    Compare,
    /// What `forerun trace info --format json` prints.
    TraceInfo,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let schema = match args.format {
        Name::Advise => forerun_planner::schema::advise(),
        Name::Scenario => forerun_planner::schema::scenario(),
        Name::Plan => forerun_planner::schema::plan(),
        Name::Gate => forerun_planner::schema::gate(),
        Name::Compare => forerun_planner::schema::compare(),
        Name::Summary => forerun_planner::schema::summary(),
        Name::TraceInfo => forerun_planner::schema::trace_info(),
    };
    print(&serde_json::to_string_pretty(&schema)?)?;
    Ok(ExitCode::SUCCESS)
}
