//! `forerun plan`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use forerun_planner::error::{Error, InputError};
use forerun_planner::plan::{Asked, BATCH_TOKENS, Roles, SPLITS, plan};

use crate::NOT_HELD;
use crate::emit::EmitArgs;
use crate::output::ReportFormat;
use crate::progress::Bar;
use crate::scenario::QuestionArgs;

const EXAMPLES: &str = "\
The scenario says what arrives, the model and the SLO; its first pool is the pattern of every replica.

Examples:
  forerun plan                                          the built-in scenario
  forerun plan --preset azure-conv --model meta-llama/Llama-3.1-70B --rate 20 --set workload.duration=1h \\
    --gpus h100-sxm,h200-sxm,a100-sxm-80gb --slo ttft=2s,tpot=50ms,attainment=0.95
  forerun plan fleet.yaml --max-gpus h100-sxm=32 --survive 1 --roles together
  forerun plan fleet.yaml --emit deploy --namespace llm
  forerun plan fleet.yaml --resume runs.json --format json

Exit codes: 0 done; 1 no fleet is shown to hold the SLO; 2 wrong input; 3 a bug.";

/// The cheapest fleet that holds the SLO: GPUs, splits, replicas, prefill and decode together or apart, routing.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    question: QuestionArgs,
    /// GPUs to choose from; without it the first pool's, or else h100-sxm, h200-sxm and a100-sxm-80gb.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    gpus: Vec<String>,
    /// GPUs over which a replica may be split.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = SPLITS)]
    tp: Vec<u32>,
    /// Routing policies to choose from: round-robin, least-requests, llm-d-prefix, llm-d-precise, llm-d-lora. Without
    /// it those that may matter to the traffic.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    policies: Vec<String>,
    /// Whether prefill and decode may be on replicas of their own.
    #[arg(long, value_enum, default_value_t)]
    roles: RolesArg,
    /// Try fleets of two kinds of GPUs, too.
    #[arg(long)]
    mixed: bool,
    /// Values of max_num_batched_tokens to try on the best fleets.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = BATCH_TOKENS)]
    batch_tokens: Vec<u32>,
    /// Values of long_prefill_token_threshold to try on the best fleets.
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    prefill_chunks: Vec<u32>,
    /// Host memory for KV to try on the best fleets, GiB for each replica; taken to cost nothing.
    #[arg(long, value_name = "GIB,..", value_delimiter = ',', allow_negative_numbers = true)]
    host_memory: Vec<f64>,
    /// GPUs in stock, such as h100-sxm=32; may be repeated.
    #[arg(long, value_name = "NAME=N")]
    max_gpus: Vec<String>,
    /// Replicas of each kind that may fail while the others hold the SLO.
    #[arg(long, value_name = "N", default_value_t = 0)]
    survive: u32,
    /// Confidence with which the SLO must hold over seeds.
    #[arg(long, value_name = "SHARE", default_value_t = Asked::default().confidence, allow_negative_numbers = true)]
    confidence: f64,
    /// The largest number of replicas of one kind that is tried.
    #[arg(long, value_name = "N", default_value_t = Asked::default().replicas_max)]
    max_replicas: u32,
    /// Requests of the longest runs; without it the whole traffic.
    #[arg(long, value_name = "N")]
    trial_requests: Option<u64>,
    /// Keep the figures of every run in this file; what is there is not run again.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    emit: EmitArgs,
    /// How to print the plan.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// Where prefill and decode may be.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RolesArg {
    /// Both ways are tried.
    #[default]
    Any,
    /// Every replica does both.
    Together,
    /// Always on replicas of their own.
    Apart,
}

impl Args {
    fn asked(&self) -> Result<Asked, InputError> {
        Ok(Asked {
            gpus: self.gpus.clone(),
            splits: self.tp.clone(),
            policies: self.policies.clone(),
            roles: match self.roles {
                RolesArg::Any => Roles::Any,
                RolesArg::Together => Roles::Together,
                RolesArg::Apart => Roles::Apart,
            },
            mixed: self.mixed,
            batch_tokens: self.batch_tokens.clone(),
            prefill_chunks: self.prefill_chunks.clone(),
            host_memory_gib: self.host_memory.clone(),
            stock: self.max_gpus.iter().map(|text| stock(text)).collect::<Result<BTreeMap<_, _>, _>>()?,
            survive: self.survive,
            confidence: self.confidence,
            replicas_max: self.max_replicas,
            requests: self.trial_requests,
            resume: self.resume.clone(),
        })
    }
}

/// `h100-sxm=32`.
fn stock(text: &str) -> Result<(String, u32), InputError> {
    let parsed = text.split_once('=').and_then(|(gpu, count)| Some((gpu.trim(), count.trim().parse().ok()?)));
    let (gpu, count) = parsed.ok_or_else(|| {
        InputError::new(format!("--max-gpus {text}: write a GPU and how many there are, such as h100-sxm=32"))
    })?;
    Ok((gpu.to_owned(), count))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let loaded = args.question.read().map_err(Error::Input)?;
    let asked = args.asked().map_err(Error::Input)?;
    let mut plan = Bar::during(None, |watch| plan(&loaded, &asked, watch))?;
    if args.format.is_pasted() {
        plan.simulation.wall_s = None;
    }
    args.format.print(|| plan.to_document(), || plan.to_json())?;
    if plan.fleet.is_some() {
        args.emit.write(|names, folder| plan.emit(names, folder))?;
    }
    Ok(if plan.fleet.is_some() { ExitCode::SUCCESS } else { ExitCode::from(NOT_HELD) })
}
