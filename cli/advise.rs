//! `forerun advise`.

use std::path::PathBuf;
use std::process::ExitCode;

use forerun_planner::advise::{Asked, REQUESTS, Thresholds, advise};
use forerun_planner::current;
use forerun_planner::error::Error;

use crate::emit::EmitArgs;
use crate::output::ReportFormat;
use crate::progress::Bar;
use crate::scenario::QuestionArgs;

const EXAMPLES: &str = "\
The scenario's first pool is one replica; how many of them are needed, and how requests are routed, is searched.

Examples:
  forerun advise                                       the built-in scenario
  forerun advise --preset azure-conv --model Qwen/Qwen3-14B --gpu h100-sxm --slo ttft=2s,tpot=50ms
  forerun advise --trace conversation.jsonl.gz --model meta-llama/Llama-3.1-70B --gpu h200-sxm
  forerun advise --preset azure-conv --current examples/manifests/current.yaml --emit deploy
  forerun advise fleet.yaml --min-gain 0.25 --format markdown

Exit codes: 0 done; 2 wrong input; 3 a bug.";

/// Which of llm-d's features would pay for this traffic, or is one vLLM the right answer?
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    question: QuestionArgs,
    /// Share of GPUs, or GPU-hours, that a feature must save.
    #[arg(long, value_name = "SHARE", default_value_t = Thresholds::default().min_gain, allow_negative_numbers = true)]
    min_gain: f64,
    /// Growth of the traffic within which a change of the answer makes it "not yet".
    #[arg(long, value_name = "TIMES", default_value_t = Thresholds::default().growth, allow_negative_numbers = true)]
    growth: f64,
    /// Share of one GPU's usable memory from which on weights count as near its limit.
    #[arg(long, value_name = "SHARE", default_value_t = Thresholds::default().weights_share, allow_negative_numbers = true)]
    weights_share: f64,
    /// Seconds without requests after which replicas would be stopped (KEDA's cooldown in llm-d's guide).
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().cooldown_s, allow_negative_numbers = true)]
    cooldown: f64,
    /// Seconds from starting a replica to its first token (published for Qwen3-32B on one H100).
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().cold_start_s, allow_negative_numbers = true)]
    cold_start: f64,
    /// Seconds for which the endpoint picker holds a request without a replica (its default).
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().queue_ttl_s, allow_negative_numbers = true)]
    queue_ttl: f64,
    /// Requests of each trial run.
    #[arg(long, value_name = "N", default_value_t = REQUESTS)]
    trial_requests: u64,
    /// The largest fleet that is tried.
    #[arg(long, value_name = "N", default_value_t = Asked::default().replicas_max)]
    max_replicas: u32,
    /// GiB of host memory for KV that is tried on each replica.
    #[arg(long, value_name = "GIB", default_value_t = Thresholds::default().host_memory_gib, allow_negative_numbers = true)]
    host_memory: f64,
    /// Kubernetes manifests of what serves today: they stand in place of the scenario's fleet, and are compared with
    /// the verdict.
    #[arg(long, value_name = "FILE")]
    current: Option<PathBuf>,
    #[command(flatten)]
    emit: EmitArgs,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = args.question.read().map_err(Error::Input)?;
    let asked = Asked {
        thresholds: Thresholds {
            min_gain: args.min_gain,
            growth: args.growth,
            weights_share: args.weights_share,
            cooldown_s: args.cooldown,
            cold_start_s: args.cold_start,
            queue_ttl_s: args.queue_ttl,
            host_memory_gib: args.host_memory,
        },
        requests: args.trial_requests,
        replicas_max: args.max_replicas,
        current: args.current.as_deref().map(current::read).transpose().map_err(Error::Input)?,
    };
    let mut advice = Bar::during(None, |watch| advise(&loaded, &asked, watch))?;
    if args.format.is_pasted() {
        advice.simulation.wall_s = None;
    }
    args.format.print(|| advice.to_document(), || advice.to_json())?;
    args.emit.write(|names, folder| advice.emit(names, folder))?;
    Ok(ExitCode::SUCCESS)
}
