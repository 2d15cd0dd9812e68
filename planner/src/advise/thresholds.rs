//! The thresholds of the signal table. All are flags; these are their defaults.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::InputError;

/// Where a row's answer turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Thresholds {
    /// Share of GPUs (or GPU-hours) that a feature must save, 0 to 1.
    pub min_gain: f64,
    /// Growth of the traffic within which a change of the answer makes it "not yet".
    pub growth: f64,
    /// Share of one GPU's usable memory from which on weights count as near its limit.
    pub weights_share: f64,
    /// Time without requests after which a replica would be stopped, seconds.
    pub cooldown_s: f64,
    /// From the decision to start a replica to its first token, seconds.
    pub cold_start_s: f64,
    /// How long the router holds a request while there is no replica, seconds.
    pub queue_ttl_s: f64,
    /// Host memory for KV that is tried, GiB for each replica.
    pub host_memory_gib: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            // Less is within what a move of several Deployments and a routing layer costs to run.
            min_gain: 0.15,
            growth: 2.0,
            // What is left at 80 % is a cache of about the size of the profiling run's activations.
            weights_share: 0.8,
            // KEDA's cooldown in llm-d's guide (guides/workload-autoscaling/keda-epp).
            cooldown_s: 300.0,
            // Qwen3-32B on one H100, vLLM 0.26 on GKE: image, imports, weights, engine start; published by llm-d.
            cold_start_s: 277.8,
            // EPP's noEndpointRequestTTL.
            queue_ttl_s: 60.0,
            // What a server of eight GPUs and 2 TiB has for each of them, with as much left.
            host_memory_gib: 100.0,
        }
    }
}

impl Thresholds {
    /// Whether all are possible.
    ///
    /// # Errors
    /// When a share is none, or a time is no length of time.
    pub fn check(&self) -> Result<(), InputError> {
        for (flag, value) in [("--min-gain", self.min_gain), ("--weights-share", self.weights_share)] {
            if !(value > 0.0 && value <= 1.0) {
                let why = "it is a share, above 0 and at most 1; write for example 0.15";
                return Err(InputError::new(format!("{flag} {value}: {why}")));
            }
        }
        if !(1.0..=crate::trial::TRAFFIC_MAX).contains(&self.growth) {
            return Err(InputError::new(format!(
                "--growth {}: a multiple of the traffic from 1 to {}",
                self.growth,
                crate::trial::TRAFFIC_MAX
            )));
        }
        if !(0.1..=65_536.0).contains(&self.host_memory_gib) {
            return Err(InputError::new(format!(
                "--host-memory {}: GiB for each replica, from 0.1 to 65536",
                self.host_memory_gib
            )));
        }
        let times = [
            ("--cooldown", self.cooldown_s),
            ("--cold-start", self.cold_start_s),
            ("--queue-ttl", self.queue_ttl_s),
        ];
        for (flag, value) in times {
            if !(0.0..=86_400.0).contains(&value) {
                return Err(InputError::new(format!("{flag} {value}: seconds, from 0 to a day (86400)")));
            }
        }
        Ok(())
    }
}
