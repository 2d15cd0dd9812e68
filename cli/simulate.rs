//! `forerun simulate`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::assemble::{Assembled, KvForm, assemble};
use forerun_planner::compare::router_override;
use forerun_planner::decision::explain_request;
use forerun_planner::error::{Error, InputError};
use forerun_planner::replicate::{RunsProgress, replicate};
use forerun_planner::simulate::Progress;

use crate::NOT_HELD;
use crate::output::{Format, print, print_document};
use crate::progress::Bar;
use crate::scenario::ScenarioArgs;

const EXAMPLES: &str = "\
Examples:
  forerun simulate                                     the built-in scenario
  forerun simulate fleet.yaml                          a scenario of your own
  forerun simulate --trace conversation.jsonl.gz --model Qwen/Qwen3-14B --replicas 4
  forerun simulate fleet.yaml --router least-requests --outcomes outcomes.csv
  forerun simulate fleet.yaml --router epp.yaml         llm-d's endpoint picker with this configuration
  forerun simulate fleet.yaml --set pools.0.replicas=8 --set engine.max_num_seqs=256
  forerun simulate fleet.yaml --replications 10        means and 95 % intervals
  forerun simulate fleet.yaml --router epp.yaml --explain 17    why request 17 went where it did
  forerun simulate fleet.yaml --format json | jq .ttft_ms.p99

Exit codes: 0 done; 1 --assert-slo and the SLO does not hold; 2 wrong input; 3 a bug.";

/// What happens, exactly, in one scenario?
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    scenario: ScenarioArgs,
    /// Routing policy: a name of `forerun catalog`, or the file of an EndpointPickerConfig.
    #[arg(long, value_name = "NAME|FILE")]
    router: Option<String>,
    /// Write one CSV line per request to this file.
    #[arg(long, value_name = "FILE")]
    outcomes: Option<PathBuf>,
    /// Instead of the summary, show why the router sent this request where it did: every filter and every score. The id
    /// is that of the outcomes file.
    #[arg(long, value_name = "REQUEST", conflicts_with_all = ["outcomes", "assert_slo"])]
    explain: Option<String>,
    /// How KV blocks are kept: `extents` is fast; `exact` steps every request and block by itself. Both give the
    /// same results.
    #[arg(long, value_enum, default_value_t)]
    kv: Kv,
    /// Exit with code 1 when the scenario's SLO does not hold, or not in every replication.
    #[arg(long)]
    assert_slo: bool,
    /// How to print the summary.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How KV blocks are kept.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Kv {
    #[default]
    Extents,
    Exact,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let router = args.router.iter().map(|name| router_override(name));
    let router = router.collect::<Result<_, _>>().map_err(Error::Input)?;
    let loaded = args.scenario.read(router).map_err(Error::Input)?;
    let mut assembled = assemble(&loaded).map_err(Error::Input)?;
    assembled.fleet.kv = match args.kv {
        Kv::Extents => KvForm::Extents,
        Kv::Exact => KvForm::Exact,
    };
    if let Some(id) = &args.explain {
        return explain(&assembled, id, args.format);
    }
    if args.assert_slo && assembled.slo.attainment.is_none() && assembled.slo.aggregate.is_empty() {
        let why = "--assert-slo: the scenario has no limit on the whole run; add `attainment` or, say, `ttft_p99` to `slo`";
        return Err(Error::Input(InputError::new(why)).into());
    }
    let replications = assembled.replications.unwrap_or(1);
    let requests = assembled.workload.requests.map(|requests| requests * u64::from(replications));
    let summary = Bar::during(requests, |watch| replicate(&assembled, args.outcomes.as_deref(), watch))?;
    match args.format {
        Format::Table => print_document(&summary.to_document())?,
        Format::Json => print(&summary.to_json())?,
    }
    let held = match &summary.replications {
        Some(all) => all.slo_held.is_none_or(|held| held == all.count),
        None => summary.slo_checks.iter().all(|check| check.holds),
    };
    Ok(if args.assert_slo && !held { ExitCode::from(NOT_HELD) } else { ExitCode::SUCCESS })
}

/// Shows one decision of the run.
fn explain(assembled: &Assembled, id: &str, format: Format) -> anyhow::Result<ExitCode> {
    let explained = Bar::during(assembled.workload.requests, |watch| {
        let mut progress = |now: Progress| watch(RunsProgress { done: 0, runs: 1, ended: now.ended });
        explain_request(assembled, assembled.seed, id, &mut progress)
    })?;
    match format {
        Format::Table => print_document(&explained.to_document())?,
        Format::Json => print(&explained.to_json()?)?,
    }
    Ok(ExitCode::SUCCESS)
}
