//! The flags that name measured runs and the server that they were measured on.

use std::path::PathBuf;

use forerun_planner::error::{Error, InputError};
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{Loaded, Origin, read};
use forerun_planner::served::MeasuredFiles;

/// What was measured, and where.
#[derive(Clone, clap::Args)]
pub(super) struct MeasuredArgs {
    /// Results of a load generator: `vllm bench serve --save-detailed`, guidellm, inference-perf, TraceV2, our own
    /// outcomes, or another table.
    #[arg(long = "from", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The server as a scenario: model, GPU, vLLM's arguments. Its workload gives way to the measured requests; its
    /// `workload.loop` and `client` hold.
    #[arg(long, value_name = "FILE")]
    scenario: PathBuf,
    /// For tables: the file's name for one of our columns, as OURS=NAME; may be repeated.
    #[arg(long = "column", value_name = "OURS=NAME")]
    columns: Vec<String>,
    /// Set any field of the scenario; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
}

impl MeasuredArgs {
    /// The files.
    pub(super) fn files(&self) -> Result<MeasuredFiles, Error> {
        let pair = |text: &String| {
            let (ours, theirs) = text.split_once('=').ok_or_else(|| {
                InputError::new(format!("--column {text}: write OURS=NAME, as in arrival_s=send_time_us"))
            })?;
            Ok((ours.to_owned(), theirs.to_owned()))
        };
        let columns = self.columns.iter().map(pair).collect::<Result<_, InputError>>()?;
        Ok(MeasuredFiles { paths: self.files.clone(), columns })
    }

    /// The scenario.
    pub(super) fn server(&self) -> Result<Loaded, Error> {
        let overrides = self.overrides.iter().map(|text| text.parse::<Override>());
        Ok(read(Origin::File(&self.scenario), &overrides.collect::<Result<Vec<_>, _>>()?)?)
    }
}
