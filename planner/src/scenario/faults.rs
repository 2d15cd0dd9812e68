//! `faults:`: what goes wrong in a fleet, or is done to it, while it serves.

use forerun_workloads::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Replicas that die, updates that replace them, links that slow down.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultsSpec {
    /// What becomes of the requests of a replica that dies (fail).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<LostSpec>,
    /// How often a request is sent again at most (3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// From a replica's death to its return (278s: a published cold start, Qwen3-32B on one H100 in GKE).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Duration>,
    /// Replicas that die at a given time: one, or those of a node together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crashes: Vec<CrashSpec>,
    /// Replicas that die by chance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub random: Vec<RandomSpec>,
    /// Network links that slow down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<SlowLinkSpec>,
    /// Rolling updates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollouts: Vec<RolloutSpec>,
}

/// What becomes of the requests of a replica that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LostSpec {
    /// Their clients get an error.
    Fail,
    /// The gateway sends them again.
    Retry,
}

/// Replicas that die at a given time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrashSpec {
    /// Their pool (the only one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Their numbers in the pool.
    pub replicas: Vec<u32>,
    /// When.
    pub at: Duration,
    /// From their death to their return (`restart`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Duration>,
}

/// Replicas that die by chance, each for itself, after exponentially distributed times.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RandomSpec {
    /// Their pool (the only one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Mean time between failures of one replica.
    pub mtbf: Duration,
    /// From their death to their return (`restart`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Duration>,
}

/// Network links of replicas that slow down.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowLinkSpec {
    /// Their pool (the only one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Their numbers in the pool.
    pub replicas: Vec<u32>,
    /// When.
    pub at: Duration,
    /// For how long.
    #[serde(rename = "for")]
    pub lasts: Duration,
    /// What is left of their throughput, above 0 and at most 1.
    pub share: f64,
}

/// A rolling update of a pool, as a Kubernetes Deployment does it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The pool (the only one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// When it begins.
    pub at: Duration,
    /// Replicas started beyond the pool's number (a quarter, rounded up).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<u32>,
    /// Replicas that may be missing (a quarter, rounded down).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    /// How long a replica that is replaced may finish what it has (30s: `terminationGracePeriodSeconds`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// How long a new replica takes to start (`restart`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Duration>,
}
