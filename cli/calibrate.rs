//! `forerun calibrate`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use forerun_planner::calibrate::import;
use forerun_planner::error::Error;

use crate::output::print;

/// Make the cost model true for a GPU.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turn measured kernel tables into a profile, which a scenario names with `profile: FILE`.
    Import {
        /// Folder with the tables (LLMServingSim 2.0 layout).
        folder: PathBuf,
        /// Profile to write: `.json`, or compressed `.json.gz` or `.json.zst`.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Import { folder, output } => {
            let about = import(folder, output).map_err(Error::Input)?;
            print(&about.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
