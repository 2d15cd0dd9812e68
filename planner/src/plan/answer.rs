//! What `forerun plan` answers: the fleet, how sure it is, what else was close, and why everything else was left out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::confirm::Confirmation;
use super::runs::Trial;
use crate::scenario::EngineArgs;
use crate::scenario::read::Loaded;
use crate::trial::Setting;

/// Name of the JSON document.
pub(super) const SCHEMA: &str = "forerun/plan/v1";

/// The whole answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Plan {
    /// `forerun/plan/v1`.
    pub schema: &'static str,
    /// What was asked about, in words.
    pub about: Vec<String>,
    /// The cheapest fleet that is shown to hold the SLO; null when none is.
    pub fleet: Option<Fleet>,
    /// How sure that is.
    pub confirmation: Confirmation,
    /// The cheapest fleet of another kind, as far as one was sized.
    pub runner_up: Option<Fleet>,
    /// What the runner-up costs more, as a share.
    pub margin: Option<f64>,
    /// The cheapest fleet whose replicas all do prefill and decode, and the cheapest with prefill and decode apart.
    pub by_roles: Vec<ByRoles>,
    /// Fleets of which none is both cheaper and faster than another: price, TTFT p95, TPOT p95.
    pub pareto: Vec<Fleet>,
    /// What the answer would be if things were a little different.
    pub sensitivity: Vec<Sensitivity>,
    /// Multiple of the traffic up to which the fleet holds the SLO.
    pub headroom: Option<f64>,
    /// The fullest minute as a multiple of the mean one.
    pub peak_to_mean: Option<f64>,
    /// How far step times may be off.
    pub step_times: StepTimesDoubt,
    /// US dollars of a GPU hour, by GPU.
    pub gpu_hour_usd: BTreeMap<String, f64>,
    /// Where these prices come from, where the scenario does not say them.
    pub price_sources: Vec<String>,
    /// Everything that was left out, with the reason.
    pub rejected: Vec<Rejected>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// The simulations behind the answer.
    pub simulation: Simulation,
    /// How the fleet serves, for what is emitted.
    #[serde(skip)]
    pub(crate) chosen: Option<Chosen>,
}

/// The fleet as it was simulated.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// The scenario, completed.
    pub loaded: Loaded,
    /// How the fleet serves it.
    pub setting: Setting,
    /// Replicas of each part, spare ones included.
    pub replicas: Vec<u32>,
}

/// A fleet.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Fleet {
    /// In words.
    pub name: String,
    /// Replicas of each kind.
    pub parts: Vec<FleetPart>,
    /// Routing policy.
    pub router: String,
    /// vLLM's arguments that differ from the scenario's.
    pub engine: EngineArgs,
    /// Host memory for KV of each replica that was added, GiB.
    pub host_memory_gib: Option<f64>,
    /// GPUs, those of spare replicas included.
    pub gpus: u32,
    /// US dollars an hour.
    pub usd_per_hour: f64,
    /// US dollars for a million output tokens at this traffic.
    pub usd_per_million_output_tokens: Option<f64>,
    /// What it does.
    pub figures: Trial,
}

/// Replicas of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FleetPart {
    /// `both`, `prefill` or `decode`.
    pub role: &'static str,
    /// Their GPU.
    pub gpu: String,
    /// GPUs of each.
    pub tensor_parallel: u32,
    /// How many, spare ones included.
    pub replicas: u32,
    /// How many of them may fail.
    pub spare: u32,
}

/// The best of one way to divide the work.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ByRoles {
    /// Whether prefill and decode are on replicas of their own.
    pub apart: bool,
    /// Its cheapest fleet; null where none was sized on the whole traffic.
    pub fleet: Option<Fleet>,
    /// Why there is none, for the kind that came nearest.
    pub why_not: Option<String>,
}

/// One question of what if.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sensitivity {
    /// What is different.
    pub change: String,
    /// Whether the fleet still holds the SLO.
    pub holds: bool,
    /// The cheapest fleet of the same kind that does; null when none was found.
    pub fleet: Option<String>,
    /// Its price, US dollars an hour.
    pub usd_per_hour: Option<f64>,
}

/// How far step times may be off, and what that means.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct StepTimesDoubt {
    /// The least trusted grade of the fleet's GPUs.
    pub grade: String,
    /// Median of real over simulated step times that was assumed.
    pub median: f64,
    /// Standard deviation of its logarithm.
    pub deviation: f64,
    /// Where these two come from.
    pub source: String,
    /// The multiple of all step times up to which the fleet holds the SLO.
    pub limit: Option<f64>,
    /// Probability that it holds.
    pub slo_holds: Option<f64>,
    /// The cheapest fleet of the same kind that holds with step times that 90 % of servers do not exceed.
    pub fleet_90: Option<String>,
    /// Its price, US dollars an hour.
    pub usd_per_hour_90: Option<f64>,
}

/// A kind of fleet that was left out.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Rejected {
    /// The fleet that decided: the cheapest of its kind that held, or else the dearest that did not; the kind where
    /// nothing was run.
    pub kind: String,
    /// Its price, US dollars an hour; null where nothing was run.
    pub usd_per_hour: Option<f64>,
    /// Why.
    pub why: String,
}

/// The simulations behind the answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Simulation {
    /// Kinds of fleets that were considered.
    pub kinds: u64,
    /// Runs.
    pub runs: u64,
    /// Requests of all runs.
    pub requests: u64,
    /// Requests of the runs that it took to find the fleet and be sure of it.
    pub search_requests: u64,
    /// Requests of each run, by round of the race.
    pub requests_by_round: Vec<u64>,
    /// Wall-clock time in seconds.
    pub wall_s: Option<f64>,
}

impl Plan {
    /// The JSON document.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan is plain data") + "\n"
    }
}
