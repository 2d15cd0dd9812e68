//! `forerun catalog`.

use std::process::ExitCode;

use crate::output::{Format, print, print_document};

/// What can a scenario name?
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.format {
        Format::Table => print_document(&forerun_planner::catalog::document()?)?,
        Format::Json => print(&serde_json::to_string_pretty(&forerun_planner::catalog::json()?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}
