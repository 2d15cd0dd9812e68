//! `forerun calibrate`.

mod check;
mod measured;
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use forerun_planner::calibrate::{ImportOptions, about, import};
use forerun_planner::error::Error;
use forerun_planner::fits::{fit, report, update};

use crate::calibrate_run;
use crate::output::print;

/// Make the cost model true for a GPU.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Subcommand)]
enum Command {
    /// Time kernels on a device here and write a profile of it; `forerun calibrate run --help` lists the options.
    #[command(disable_help_flag = true)]
    Run {
        /// Options of `forerun-calibrate`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Turn measured kernel tables into a profile, which a scenario names with `profile: FILE`.
    Import {
        /// Folder with the tables: LLMServingSim's, AIConfigurator's or Vidur's layout.
        folder: PathBuf,
        /// Their GPU, where the folder does not say it: a name of `forerun catalog`.
        #[arg(long, value_name = "NAME")]
        gpu: Option<String>,
        /// Model to compose a profile of, where the folder does not say it.
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Type of the model's weights.
        #[arg(long, value_name = "TYPE", requires = "model")]
        dtype: Option<String>,
        /// Type of the KV cache: auto or fp8.
        #[arg(long, value_name = "TYPE")]
        kv_cache_dtype: Option<String>,
        /// GPUs that the model is split over.
        #[arg(long, value_name = "N")]
        tensor_parallel: Option<u32>,
        /// Use skew_fit.csv even where meta.yaml says that it is of another run.
        #[arg(long)]
        foreign_skew: bool,
        /// Profile to write: `.json`, or compressed `.json.gz` or `.json.zst`.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Fit the catalog's constants to kernel tables: errors in sample, held out, and on GPUs not fitted to.
    Fit {
        /// Folder with a folder of tables for each GPU (AIConfigurator's layout).
        folder: PathBuf,
        /// Put the report between the markers of this Markdown file.
        #[arg(long, value_name = "FILE")]
        update: Option<PathBuf>,
    },
    /// How near does the simulator come to a measured run? Every metric and percentile, predicted and measured.
    Check(Box<check::Args>),
    /// Fit the constants of a live server to its measured runs: a profile of what they tell, and what they do not.
    Serve(Box<serve::Args>),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.command.clone() {
        Command::Run { options } => return calibrate_run::run(&options),
        Command::Import {
            folder,
            gpu,
            model,
            dtype,
            kv_cache_dtype,
            tensor_parallel,
            foreign_skew,
            output,
        } => {
            let options = ImportOptions { foreign_skew, gpu, model, dtype, kv_cache_dtype, tensor_parallel };
            let profile = import(&folder, &output, &options).map_err(Error::Input)?;
            print(&format!("{}: {}", output.display(), about(&profile).join("\n")))?;
        }
        Command::Check(args) => return check::run(&args),
        Command::Serve(args) => return serve::run(&args),
        Command::Fit { folder, update: document } => {
            let all = fit(&folder).map_err(Error::Input)?;
            if let Some(document) = document {
                update(&all, &document).map_err(Error::Input)?;
            }
            print(&report(&all))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
