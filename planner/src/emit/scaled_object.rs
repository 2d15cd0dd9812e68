//! KEDA's ScaledObject on the endpoint picker's metrics, in the shape of llm-d's autoscaling guide.

use serde::{Deserialize, Serialize};

use super::objects::{Resource, deployment};
use super::verdict::{Autoscaling, Servers, Verdict};
use crate::scenario::Role;

/// KEDA's polling interval of llm-d's guide, in seconds.
const POLLING_INTERVAL_S: u32 = 15;
/// Pool saturation at which llm-d's guide scales.
const SATURATION: &str = "0.7";

/// Replicas that follow metrics.
pub type ScaledObject = Resource<ScaledSpec>;

/// Spec of a [`ScaledObject`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaledSpec {
    /// What is scaled.
    pub scale_target_ref: TargetRef,
    /// Fewest replicas.
    pub min_replica_count: u32,
    /// Most replicas.
    pub max_replica_count: u32,
    /// Seconds between two looks.
    pub polling_interval: u32,
    /// Seconds without load before the last replica goes.
    pub cooldown_period: u32,
    /// What it follows: the trigger that wants most replicas decides.
    pub triggers: Vec<Trigger>,
}

/// What is scaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// A metric and its target per replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Where it comes from.
    #[serde(rename = "type")]
    pub kind: String,
    /// How the target is meant.
    pub metric_type: String,
    /// The query.
    pub metadata: TriggerQuery,
}

/// A Prometheus query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerQuery {
    /// Prometheus.
    pub server_address: String,
    /// PromQL.
    pub query: String,
    /// Target per replica.
    pub threshold: String,
    /// Above this the first replica is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_threshold: Option<String>,
}

impl ScaledObject {
    /// Scales the servers of one role. Bounds are per role in proportion to the verdict's replicas; the queue
    /// wakes a pool that was scaled to zero.
    #[must_use]
    pub fn of(verdict: &Verdict, role: Role, servers: &Servers, scaling: &Autoscaling) -> Self {
        let running = scaling.running_per_replica.to_string();
        let triggers = [
            ("llm_d_epp_flow_control_queue_size", "1", Some("0")),
            ("llm_d_epp_flow_control_pool_saturation", SATURATION, None),
            ("llm_d_epp_request_running", running.as_str(), None),
        ];
        let most: u64 = verdict.serving.roles().map(|(_, servers)| u64::from(servers.replicas)).sum();
        let part =
            |replicas: u32| u64::from(replicas).saturating_mul(servers.replicas.into()).div_ceil(most) as u32;
        let name = deployment(verdict, role);
        let spec = ScaledSpec {
            scale_target_ref: TargetRef {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: name.clone(),
            },
            min_replica_count: part(scaling.min_replicas),
            max_replica_count: part(scaling.max_replicas),
            polling_interval: POLLING_INTERVAL_S,
            cooldown_period: scaling.cooldown_s,
            triggers: triggers
                .map(|(metric, threshold, activation)| trigger(verdict, metric, threshold, activation))
                .into(),
        };
        Self::new("keda.sh/v1alpha1", "ScaledObject", verdict, name, spec)
    }
}

fn trigger(verdict: &Verdict, metric: &str, threshold: &str, activation: Option<&str>) -> Trigger {
    Trigger {
        kind: "prometheus".to_owned(),
        metric_type: "AverageValue".to_owned(),
        metadata: TriggerQuery {
            server_address: "http://prometheus-operated.monitoring.svc.cluster.local:9090".to_owned(),
            query: format!("sum({metric}{{namespace=\"{}\"}})", verdict.namespace),
            threshold: threshold.to_owned(),
            activation_threshold: activation.map(str::to_owned),
        },
    }
}
