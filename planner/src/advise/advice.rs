//! What `forerun advise` answers: one row for each signal, a verdict, and how far to trust it.

use std::collections::BTreeMap;

use forerun_reports::statistics::{Difference, Interval, Sample};
use schemars::JsonSchema;
use serde::Serialize;

use super::thresholds::Thresholds;
use crate::scenario::read::Loaded;
use crate::trial::Setting;

/// Name of the JSON document.
pub(super) const SCHEMA: &str = "forerun/advise/v1";

/// Confidence of every interval.
pub(super) const CONFIDENCE: f64 = 0.95;

/// The whole answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Advice {
    /// `forerun/advise/v1`.
    pub schema: &'static str,
    /// What was asked about, in words: servers, traffic, SLO.
    pub about: Vec<String>,
    /// What is recommended.
    pub verdict: Verdict,
    /// The signals, in the order of the table.
    pub rows: Vec<Row>,
    /// What one replica can do.
    pub replica: ReplicaFacts,
    /// What serves today, where a manifest says so.
    pub today: Option<Today>,
    /// How far the verdict can be trusted.
    pub doubt: Doubt,
    /// What can go wrong in operation.
    pub hazards: Vec<String>,
    /// What could change the answer and was not simulated.
    pub not_simulated: Vec<String>,
    /// The thresholds that were used.
    pub thresholds: Thresholds,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// The simulations behind the answer.
    pub simulation: Simulation,
    /// The scenario, completed.
    #[serde(skip)]
    pub(crate) loaded: Loaded,
}

/// A row's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The signal holds, and acting on it pays.
    Yes,
    /// It does not pay.
    No,
    /// It does not pay now, or is not shown to: a little more traffic, or more runs, would change that.
    NotYet,
}

/// Which signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// More requests than one vLLM keeps responsive.
    Rate,
    /// Shared system prompts, context or history.
    Prefixes,
    /// A model near or beyond one GPU's memory.
    Memory,
    /// Several LoRA adapters.
    Adapters,
    /// Bursts with idle time between them.
    Bursts,
}

impl Signal {
    /// Its name in tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Rate => "1 sustained rate",
            Self::Prefixes => "2 shared prefixes",
            Self::Memory => "3 model and memory",
            Self::Adapters => "4 LoRA adapters",
            Self::Bursts => "5 bursts",
        }
    }
}

/// One row of the signal table.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Row {
    /// Which signal.
    pub signal: Signal,
    /// Whether acting on it pays.
    pub answer: Answer,
    /// What the traffic shows, in a few words.
    pub shows: String,
    /// What that is held against.
    pub threshold: String,
    /// What acting on it saves, where it was simulated or reckoned.
    pub gain: Option<Gain>,
    /// The evidence, one sentence each.
    pub evidence: Vec<String>,
    /// Where the answer would change, if that was found.
    pub flip: Option<String>,
    /// The figures behind the words, by name with unit.
    pub figures: BTreeMap<String, f64>,
}

/// What is saved, as a share of what the cheapest plain alternative needs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Gain {
    /// Of what.
    pub of: Saved,
    /// The share; negative when more is needed.
    pub share: f64,
    /// Its 95 % interval over paired seeds; null when there is one run, or nothing was simulated.
    pub interval: Option<Interval>,
    /// Pairs that it rests on; 0 when it was reckoned.
    pub pairs: u64,
}

/// What is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Saved {
    /// GPUs.
    Gpus,
    /// Hours of GPUs.
    GpuHours,
}

impl Gain {
    /// The mean of the shares that pairs of runs save.
    pub(super) fn of_pairs(of: Saved, shares: &[f64]) -> Option<Self> {
        let share = Sample::of(shares)?.mean;
        let interval = Difference::of_pairs(shares).map(|difference| difference.interval(CONFIDENCE));
        Some(Self { of, share, interval, pairs: shares.len() as u64 })
    }

    /// Whether it reaches `least` and, where it has an interval, is shown to be a gain at all.
    pub(super) fn answer(&self, least: f64) -> Answer {
        let shown = self.interval.is_none_or(|interval| interval.low > 0.0);
        match self.share >= least {
            true if shown => Answer::Yes,
            true => Answer::NotYet,
            false => Answer::No,
        }
    }
}

/// What is recommended.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Verdict {
    /// Which kind.
    pub kind: Kind,
    /// In one sentence.
    pub headline: String,
    /// Replicas, if any number holds the SLO.
    pub replicas: Option<u32>,
    /// GPUs of all replicas.
    pub gpus: Option<u32>,
    /// GPUs of each replica.
    pub tensor_parallel: u32,
    /// Routing policy.
    pub router: String,
    /// What to adopt, in this order, with the gain of each.
    pub parts: Vec<Part>,
    /// Components to run besides the model servers.
    pub lift: Vec<String>,
    /// The fleet as it was simulated.
    #[serde(skip)]
    pub(crate) chosen: Option<Chosen>,
}

/// A fleet as it was simulated.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// How it serves.
    pub setting: Setting,
    /// Replicas of each part.
    pub replicas: Vec<u32>,
}

/// What serves today, on the same traffic.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Today {
    /// Its name in the manifest.
    pub name: String,
    /// Replicas.
    pub replicas: u32,
    /// GPUs of all replicas.
    pub gpus: u32,
    /// Runs, one for each seed.
    pub runs: u64,
    /// Runs of these that held the SLO, each replica asked in turn as a Service does.
    pub runs_held: u64,
    /// Mean share of requests within every limit.
    pub attainment: Option<f64>,
    /// Mean of the 95th percentile of the time to first token, ms.
    pub ttft_p95_ms: Option<f64>,
    /// GPUs that the verdict saves, as a share of today's; negative when it needs more.
    pub saved: Option<f64>,
}

/// Kinds of verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One vLLM is the right answer.
    OneVllm,
    /// Several of them behind a plain load balancer.
    PlainReplicas,
    /// Parts of llm-d.
    LlmD,
    /// Nothing that was tried holds the SLO.
    Unreachable,
}

/// Something to adopt.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Part {
    /// What.
    pub name: String,
    /// What it saves.
    pub gain: Option<Gain>,
    /// The oldest version of llm-d that has it, where it needs llm-d.
    pub needs: Option<String>,
}

/// What one replica can do. Arithmetic on the KV cache's size, and one replica's highest rate by simulation.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ReplicaFacts {
    /// Weights as a share of what vLLM may use of one GPU.
    pub weights_share_of_one_gpu: f64,
    /// Tokens that the KV cache holds.
    pub kv_tokens: u64,
    /// The longest context that can be served: vLLM's limit, or the whole KV cache.
    pub longest_context_tokens: u64,
    /// Contexts of the traffic's mean length that fit at once; null when nothing was measured.
    pub resident_contexts: Option<u64>,
    /// Requests per second at which it still holds the SLO; null when it does at no rate that was tried.
    pub requests_per_s: Option<f64>,
    /// Requests in flight at that rate, by Little's law.
    pub in_flight: Option<f64>,
    /// Users at that rate, each of whom sends again after `user_gap_s`.
    pub users: Option<f64>,
    /// From one request of a user to the next, seconds.
    pub user_gap_s: f64,
    /// Whether the gap was measured in the traffic's sessions, not assumed.
    pub user_gap_measured: bool,
}

/// How far the verdict can be trusted: two kinds of doubt, kept apart.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Doubt {
    /// Fresh seeds with which the recommended fleet was run again.
    pub seeds: u64,
    /// How many of these runs held the SLO.
    pub seeds_held: u64,
    /// Grade of the step times: `tables`, `fitted` or `datasheet`.
    pub grade: String,
    /// Median of real over simulated step times that was assumed.
    pub step_time_median: f64,
    /// Standard deviation of its logarithm.
    pub step_time_deviation: f64,
    /// Where these two come from.
    pub step_time_source: String,
    /// The multiple of all step times up to which the SLO holds, mean of the seeds.
    pub step_time_limit: Option<f64>,
    /// Probability that the SLO holds when step times are off by that much.
    pub slo_holds: Option<f64>,
    /// Which measurement would sharpen the verdict most.
    pub sharpen: String,
}

/// The simulations behind the answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Simulation {
    /// Runs.
    pub runs: u64,
    /// Requests of all runs.
    pub requests: u64,
    /// Requests of each run; the first fifth of them warms it up.
    pub requests_per_run: u64,
    /// Seeds of paired runs.
    pub seeds: Vec<u64>,
    /// Wall-clock time in seconds.
    pub wall_s: Option<f64>,
}

impl Advice {
    /// The JSON document.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("an advice is plain data") + "\n"
    }

    /// The row of `signal`.
    #[must_use]
    pub fn row(&self, signal: Signal) -> Option<&Row> {
        self.rows.iter().find(|row| row.signal == signal)
    }
}
