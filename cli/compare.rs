//! `forerun compare`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use forerun_planner::compare::{Options, Plan, VariantNames, candidates};
use forerun_planner::error::Error;
use forerun_reports::compare::MethodKind;
use forerun_reports::markdown;
use serde_json::json;

use crate::NOT_HELD;
use crate::output::{ReportFormat, print, print_document};
use crate::progress::Bar;
use crate::scenario::ScenarioArgs;

const EXAMPLES: &str = "\
Variants are compared in the order: --router, --scenario, --variant. The first is the baseline. A single one is held
against the scenario as given. --set and the other flags hold for all variants.

Examples:
  forerun compare fleet.yaml --router round-robin --router least-requests
  forerun compare fleet.yaml --router epp-today.yaml --router epp-tomorrow.yaml
  forerun compare --scenario today.yaml --scenario tomorrow.yaml
  forerun compare fleet.yaml --variant 'four:' --variant 'six: pools.0.replicas=6'
  forerun compare fleet.yaml --variant 'small batches: engine.max_num_seqs=64; engine.max_num_batched_tokens=2048'
  forerun compare fleet.yaml --router least-requests --format markdown --assert-not-worse

Exit codes: 0 done; 1 --assert-not-worse and some variant is shown to be worse; 2 wrong input; 3 a bug.";

/// Which variant is better on the same traffic, by how much, and is the difference real?
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// A variant with this routing policy: a name of `forerun catalog`, or a file of llm-d's EndpointPickerConfig.
    #[arg(long = "router", value_name = "NAME|FILE")]
    routers: Vec<String>,
    /// A variant with a scenario file of its own.
    #[arg(long = "scenario", value_name = "FILE")]
    scenarios: Vec<PathBuf>,
    /// A variant with fields of its own, as 'NAME: PATH=VALUE; PATH=VALUE', or NAME=FILE.
    #[arg(long = "variant", value_name = "NAME: PATH=VALUE")]
    variants: Vec<String>,
    /// Where intervals come from. Without it: replications (10, or as the scenario says); windows for recorded traces
    /// and for a single replication.
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// A difference that is shown to be within this share of the baseline's figure counts as none.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, allow_negative_numbers = true)]
    margin: f64,
    /// Instead of the comparison, show for each variant why its router sent this request where it did. The id is that of
    /// the outcomes file.
    #[arg(long, value_name = "REQUEST", conflicts_with = "assert_not_worse")]
    explain: Option<String>,
    /// Exit with code 1 when some variant is shown to be worse than the first in some figure.
    #[arg(long)]
    assert_not_worse: bool,
    /// How to print the comparison.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// Where intervals come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    /// Several runs of each variant, with seeds of their own.
    Replications,
    /// One run of each variant, cut into windows of time.
    Windows,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let names = VariantNames {
        routers: args.routers.clone(),
        scenarios: args.scenarios.clone(),
        variants: args.variants.clone(),
    };
    let overrides = args.scenario.overrides(Vec::new()).map_err(Error::Input)?;
    let candidates = candidates(args.scenario.origin(), &overrides, &names).map_err(Error::Input)?;
    let kind = args.method.map(|method| match method {
        Method::Replications => MethodKind::Replications,
        Method::Windows => MethodKind::Windows,
    });
    let plan = Plan::new(candidates, Options { kind, margin: args.margin }).map_err(Error::Input)?;
    if let Some(id) = &args.explain {
        return explain(plan, id, args.format);
    }
    let mut comparison = Bar::during(plan.requests(), |watch| plan.run(watch))?;
    if args.format.is_pasted() {
        comparison.simulation.wall_s = None;
    }
    args.format.print(|| comparison.to_document(), || comparison.to_json())?;
    let failed = args.assert_not_worse && comparison.some_worse();
    Ok(if failed { ExitCode::from(NOT_HELD) } else { ExitCode::SUCCESS })
}

/// Shows the decision of each variant on one request.
fn explain(plan: Plan, id: &str, format: ReportFormat) -> anyhow::Result<ExitCode> {
    let explained = Bar::during(None, |watch| plan.explain(id, watch))?;
    if let ReportFormat::Json = format {
        let all: Vec<_> =
            explained.iter().map(|(name, one)| json!({"variant": name, "decision": one})).collect();
        print(&serde_json::to_string_pretty(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, one) in &explained {
        let mut document = one.to_document();
        document.title = format!("{name}: {}", document.title);
        match format {
            ReportFormat::Markdown => print(&markdown::render(&document))?,
            _ => print_document(&document)?,
        }
        print("")?;
    }
    Ok(ExitCode::SUCCESS)
}
