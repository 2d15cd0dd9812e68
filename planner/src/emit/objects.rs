//! Kubernetes objects: the Gateway API's route, the inference pool, a Deployment's patch.
//!
//! Shapes: gateway.networking.k8s.io/v1, inference.networking.k8s.io/v1, apps/v1.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;
use crate::scenario::Role;

/// Port on which model servers, or their routing sidecars, listen.
pub(super) const SERVING_PORT: u16 = 8000;
/// The gateway of llm-d's guides, and its service.
pub(super) const GATEWAY: &str = "inference-gateway";
/// Port of the endpoint picker's external-processing service.
const PICKER_PORT: u16 = 9002;

/// Name and place of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource<S> {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name and place.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
}

impl<S> Resource<S> {
    pub(super) fn new(api_version: &str, kind: &str, verdict: &Verdict, name: String, spec: S) -> Self {
        let metadata = Metadata { name, namespace: verdict.namespace.clone() };
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), metadata, spec }
    }
}

/// Labels that all model servers of a verdict carry, whatever their role.
pub(super) fn pod_labels(verdict: &Verdict) -> BTreeMap<String, String> {
    let labels =
        [("llm-d.ai/inference-serving", "true".to_owned()), ("llm-d.ai/model", verdict.model_label())];
    labels.map(|(key, value)| (key.to_owned(), value)).into()
}

/// The Deployment of a role, as the modelservice chart names it.
pub(super) fn deployment(verdict: &Verdict, role: Role) -> String {
    format!("{}-llm-d-modelservice-{}", verdict.name, role.deployed_as())
}

/// The model servers that the endpoint picker chooses from.
pub type InferencePool = Resource<InferencePoolSpec>;

/// Spec of an [`InferencePool`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InferencePoolSpec {
    /// Where they listen.
    pub target_ports: Vec<Port>,
    /// Which pods they are.
    pub selector: Selector,
    /// Who chooses.
    pub endpoint_picker_ref: PickerRef,
}

/// A port number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The number.
    pub number: u16,
}

/// Pods by their labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// All of these.
    pub match_labels: BTreeMap<String, String>,
}

/// The endpoint picker's service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PickerRef {
    /// Name of the service.
    pub name: String,
    /// Its port.
    pub port: Port,
    /// What happens without it.
    pub failure_mode: String,
}

impl InferencePool {
    /// The pool of `verdict`.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let spec = InferencePoolSpec {
            target_ports: vec![Port { number: SERVING_PORT }],
            selector: Selector { match_labels: pod_labels(verdict) },
            endpoint_picker_ref: PickerRef {
                name: format!("{}-epp", verdict.name),
                port: Port { number: PICKER_PORT },
                failure_mode: "FailOpen".to_owned(),
            },
        };
        Self::new("inference.networking.k8s.io/v1", "InferencePool", verdict, verdict.name.clone(), spec)
    }
}

/// Traffic by weights.
pub type HttpRoute = Resource<RouteSpec>;

/// Spec of an [`HttpRoute`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// Gateways that serve it.
    pub parent_refs: Vec<ParentRef>,
    /// Its rules.
    pub rules: Vec<RouteRule>,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentRef {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// Where matching requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// Which requests.
    pub matches: Vec<RouteMatch>,
    /// To which backends.
    pub backend_refs: Vec<BackendRef>,
    /// How long a request may take.
    pub timeouts: Timeouts,
}

/// Requests by path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathMatch {
    /// How it is compared.
    #[serde(rename = "type")]
    pub kind: String,
    /// With what.
    pub value: String,
}

/// A backend and its weight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRef {
    /// API group; empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Port; an InferencePool has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of the traffic, relative to the other weights.
    pub weight: u32,
}

/// Limits of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From its start to the end of the answer.
    pub request: String,
}

impl HttpRoute {
    /// The route of `verdict`: all to its pool, or shared with what serves today.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let today = verdict.today.as_ref();
        let old = today.map(|today| match today.inference_pool {
            true => inference_pool(&today.name, today.weight),
            false => BackendRef {
                group: String::new(),
                kind: "Service".to_owned(),
                name: today.name.clone(),
                port: Some(80),
                weight: today.weight,
            },
        });
        let new = inference_pool(&verdict.name, 100 - today.map_or(0, |today| today.weight));
        let gateway = ParentRef {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            name: GATEWAY.to_owned(),
        };
        let rule = RouteRule {
            matches: vec![RouteMatch {
                path: PathMatch { kind: "PathPrefix".to_owned(), value: "/".to_owned() },
            }],
            backend_refs: std::iter::once(new).chain(old).collect(),
            timeouts: Timeouts { request: request_timeout(verdict) },
        };
        let spec = RouteSpec { parent_refs: vec![gateway], rules: vec![rule] };
        Self::new("gateway.networking.k8s.io/v1", "HTTPRoute", verdict, verdict.name.clone(), spec)
    }
}

fn inference_pool(name: &str, weight: u32) -> BackendRef {
    BackendRef {
        group: "inference.networking.k8s.io".to_owned(),
        kind: "InferencePool".to_owned(),
        name: name.to_owned(),
        port: None,
        weight,
    }
}

/// The charts' 300 s, or what a request needs that waits for a cold start.
pub(super) fn request_timeout(verdict: &Verdict) -> String {
    const USUAL_S: f64 = 300.0;
    let scaling = verdict.autoscaling.as_ref().filter(|scaling| scaling.min_replicas == 0);
    let seconds = scaling.map_or(USUAL_S, |scaling| USUAL_S.max(scaling.cold_start_s.ceil() + USUAL_S));
    format!("{seconds}s")
}

/// The part of a Deployment that gives vLLM's caches a place (llm-d issue 1430).
pub type EmptyDirPatch = Resource<PatchSpec>;

/// Spec of an [`EmptyDirPatch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchSpec {
    /// The pod.
    pub template: PodTemplate,
}

/// A pod's template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTemplate {
    /// What it is.
    pub spec: PodSpec,
}

/// Containers and volumes of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSpec {
    /// Containers.
    pub containers: Vec<MountingContainer>,
    /// Volumes.
    pub volumes: Vec<EmptyDirVolume>,
}

/// A container and what it mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountingContainer {
    /// Which container.
    pub name: String,
    /// Its mounts.
    pub volume_mounts: Vec<VolumeMount>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Where.
    pub mount_path: String,
    /// Which volume.
    pub name: String,
}

/// A volume of the pod's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirVolume {
    /// Name.
    pub name: String,
    /// Its options: none.
    pub empty_dir: BTreeMap<String, String>,
}

impl EmptyDirPatch {
    /// The patch of one role's Deployment.
    #[must_use]
    pub fn of(verdict: &Verdict, role: Role) -> Self {
        let places = [("/.triton", "triton-cache"), ("/.config", "vllm-config")];
        let mount = |(path, name): (&str, &str)| VolumeMount { mount_path: path.into(), name: name.into() };
        let volume =
            |(_, name): (&str, &str)| EmptyDirVolume { name: name.into(), empty_dir: BTreeMap::new() };
        let container =
            MountingContainer { name: "vllm".to_owned(), volume_mounts: places.map(mount).into() };
        let spec = PodSpec { containers: vec![container], volumes: places.map(volume).into() };
        let spec = PatchSpec { template: PodTemplate { spec } };
        Self::new("apps/v1", "Deployment", verdict, deployment(verdict, role), spec)
    }
}
