//! `forerun gate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forerun_planner::compare::router_override;
use forerun_planner::error::{Error, InputError};
use forerun_planner::gate::{Baseline, Tolerances, gate, record};
use forerun_planner::scenario::overrides::Override;
use forerun_planner::scenario::read::{self, Origin};
use serde_json::json;

use crate::NOT_HELD;
use crate::output::{ReportFormat, print};
use crate::progress::Bar;

const EXAMPLES: &str = "\
Examples:
  forerun gate --record base.json fleet.yaml           once, on the main branch
  forerun gate --baseline base.json --router new.yaml  on every change of the router's configuration
  forerun gate --baseline base.json --scenario fleet.yaml --junit gate.xml --format markdown
  forerun gate --baseline base.json --set pools.0.replicas=3 --tolerances tolerances.yaml

Exit codes: 0 recorded, or not worse; 1 worse, or not shown to be no worse; 2 wrong input; 3 a bug.";

/// Did this change make anything worse? An exit code for CI.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The scenario to record; without one the built-in scenario.
    #[arg(conflicts_with = "baseline")]
    recorded: Option<PathBuf>,
    /// Run the scenario and write its figures to this file.
    #[arg(long, value_name = "FILE", required_unless_present = "baseline", conflicts_with = "baseline")]
    record: Option<PathBuf>,
    /// Hold the changed scenario against this file.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// The changed scenario; without one the baseline's own, with the changes of --router and --set.
    #[arg(long, value_name = "FILE", requires = "baseline")]
    scenario: Option<PathBuf>,
    /// The changed routing policy: a name of `forerun catalog`, or a file of llm-d's EndpointPickerConfig.
    #[arg(long, value_name = "NAME|FILE")]
    router: Option<String>,
    /// Set any field of the scenario; may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
    /// How much worse each figure may be: YAML such as `ttft_p95_ms: 0.05`.
    #[arg(long, value_name = "FILE", requires = "baseline")]
    tolerances: Option<PathBuf>,
    /// Replications to record: the most that later comparisons can use (20, or as the scenario says).
    #[arg(long, value_name = "N", requires = "record")]
    replications: Option<u32>,
    /// Write the answer as JUnit XML to this file, too.
    #[arg(long, value_name = "FILE", requires = "baseline")]
    junit: Option<PathBuf>,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut overrides = Vec::new();
    for text in &args.overrides {
        overrides.push(text.parse().map_err(Error::Input)?);
    }
    if let Some(router) = &args.router {
        overrides.insert(0, router_override(router).map_err(Error::Input)?);
    }
    match (&args.record, &args.baseline) {
        (Some(path), _) => recorded(args, path, overrides),
        (None, Some(path)) => compared(args, path, &overrides),
        (None, None) => Err(Error::Input(InputError::new("name --record FILE or --baseline FILE")).into()),
    }
}

fn recorded(args: &Args, path: &Path, mut overrides: Vec<Override>) -> anyhow::Result<ExitCode> {
    let origin = args.recorded.as_deref().map_or(Origin::BuiltIn, Origin::File);
    if let Some(replications) = args.replications {
        overrides.push(Override::new("run.replications", json!(replications)));
    }
    let loaded = read::read(origin, &overrides).map_err(Error::Input)?;
    let baseline = Bar::during(None, |watch| record(&loaded, watch))?;
    baseline.write(path).map_err(Error::Input)?;
    print(&format!("{}: {} runs of {} recorded", path.display(), baseline.runs.len(), baseline.name))?;
    Ok(ExitCode::SUCCESS)
}

fn compared(args: &Args, path: &Path, overrides: &[Override]) -> anyhow::Result<ExitCode> {
    let baseline = Baseline::read(path).map_err(Error::Input)?;
    let tolerances = match &args.tolerances {
        Some(path) => Tolerances::read(path).map_err(Error::Input)?,
        None => Tolerances::default(),
    };
    let loaded = match &args.scenario {
        Some(scenario) => read::read(Origin::File(scenario), overrides),
        None => baseline.scenario(Path::new(""), overrides),
    };
    let loaded = loaded.map_err(Error::Input)?;
    let answer = Bar::during(None, |watch| gate(&baseline, &loaded, &tolerances, watch))?;
    if let Some(path) = &args.junit {
        answer.write_junit(path).map_err(Error::Input)?;
    }
    args.format.print(|| answer.to_document(), || answer.to_json())?;
    Ok(if answer.passes() { ExitCode::SUCCESS } else { ExitCode::from(NOT_HELD) })
}
