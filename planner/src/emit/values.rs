//! Values of llm-d's Helm charts, in the shapes of their published samples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_saphyr::LitString;

use super::arguments;
use super::objects::{GATEWAY, Port, SERVING_PORT, Selector, pod_labels, request_timeout};
use super::verdict::{RouterVerdict, Servers, Serving, Verdict};
use crate::scenario::Role;

/// Port of vLLM behind the decode pod's routing sidecar (chart value `routing.proxy.targetPort`).
const BEHIND_PROXY: u16 = 8200;
/// Port of the NIXL side channel.
const NIXL_PORT: u16 = 5600;
/// Port of vLLM's KV events.
const KV_EVENTS_PORT: u16 = 5557;
/// Name of the endpoint picker's configuration in its config map.
const PLUGINS_FILE: &str = "forerun.yaml";
/// Room for weights of unknown size, in GiB.
const UNKNOWN_WEIGHTS_GIB: f64 = 200.0;

/// Values of the llm-d-modelservice chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelService {
    /// LeaderWorkerSets instead of Deployments.
    pub multinode: bool,
    /// The model.
    pub model_artifacts: ModelArtifacts,
    /// Ports and the routing sidecar.
    pub routing: Routing,
    /// Kind of accelerator.
    pub accelerator: Accelerator,
    /// Pods that decode, or do both.
    pub decode: RolePods,
    /// Pods that prefill.
    pub prefill: RolePods,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelArtifacts {
    /// Name in requests.
    pub name: String,
    /// Labels of all its pods.
    pub labels: BTreeMap<String, String>,
    /// Source.
    pub uri: String,
    /// Room for them.
    pub size: String,
}

/// Ports and the routing sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Port of the pods.
    pub service_port: u16,
    /// The sidecar.
    pub proxy: Proxy,
}

/// The routing sidecar of decode pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// How prefill and decode exchange KV blocks.
    pub connector: String,
    /// TLS between pods.
    pub secure: bool,
}

/// Kind of accelerator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Its vendor.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Pods of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolePods {
    /// Whether there are any.
    pub create: bool,
    /// How many.
    pub replicas: u32,
    /// GPUs of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<Parallelism>,
    /// Nodes that they may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Their containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
}

/// How a model is spread over GPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parallelism {
    /// Tensor parallelism.
    pub tensor: u32,
    /// Data parallelism.
    pub data: u32,
    /// Data-parallel ranks of each pod.
    pub data_local: u32,
    /// Pods of each replica.
    pub workers: u32,
}

/// A container of vLLM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// `vllmServe`: the chart adds `vllm serve`, the model, the port and the parallelism.
    pub model_command: String,
    /// Further arguments.
    pub args: Vec<String>,
    /// Environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Ports.
    pub ports: Vec<ContainerPort>,
    /// GPUs.
    pub resources: Resources,
    /// Whether the weights are mounted.
    pub mount_model_volume: bool,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, unless taken from the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Where the value is taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// A value of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// A field.
    pub field_ref: FieldRef,
}

/// A field of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// Its path.
    pub field_path: String,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// The number.
    pub container_port: u16,
    /// The protocol.
    pub protocol: String,
}

/// What a container reserves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// At most.
    pub limits: BTreeMap<String, String>,
    /// At least.
    pub requests: BTreeMap<String, String>,
}

impl ModelService {
    /// The values of `verdict`.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Self {
        let (decode, prefill) = match &verdict.serving {
            Serving::Aggregated(servers) => (pods(verdict, Role::Both, servers), RolePods::default()),
            Serving::Disaggregated { prefill, decode } => {
                (pods(verdict, Role::Decode, decode), pods(verdict, Role::Prefill, prefill))
            }
        };
        let weights_gib = verdict.weights_gib.unwrap_or(UNKNOWN_WEIGHTS_GIB);
        Self {
            multinode: false,
            model_artifacts: ModelArtifacts {
                name: verdict.model.clone(),
                labels: pod_labels(verdict),
                uri: format!("hf://{}", verdict.model),
                // A fifth more than the weights: the repository holds more than them.
                size: format!("{}Gi", (weights_gib * 1.2).ceil()),
            },
            routing: Routing {
                service_port: SERVING_PORT,
                proxy: Proxy { connector: "nixlv2".to_owned(), secure: false },
            },
            accelerator: Accelerator { kind: "nvidia".to_owned() },
            decode,
            prefill,
        }
    }
}

fn pods(verdict: &Verdict, role: Role, servers: &Servers) -> RolePods {
    let product = servers.gpu_product.iter();
    let gpus: BTreeMap<String, String> =
        [("nvidia.com/gpu".to_owned(), servers.tensor_parallel.to_string())].into();
    let mut ports = vec![if role == Role::Prefill { SERVING_PORT } else { BEHIND_PROXY }];
    let mut env = Vec::new();
    if role != Role::Both {
        ports.push(NIXL_PORT);
        env.push(plain("UCX_TLS", "cuda_ipc,cuda_copy,tcp"));
        env.push(of_pod("VLLM_NIXL_SIDE_CHANNEL_HOST"));
        env.push(plain("VLLM_NIXL_SIDE_CHANNEL_PORT", &NIXL_PORT.to_string()));
    }
    if verdict.router.as_ref().is_some_and(|router| router.kv_events) {
        ports.push(KV_EVENTS_PORT);
        env.push(of_pod("POD_IP"));
    }
    let port = |container_port| ContainerPort { container_port, protocol: "TCP".to_owned() };
    let container = Container {
        name: "vllm".to_owned(),
        image: verdict.image.clone(),
        model_command: "vllmServe".to_owned(),
        args: arguments::of(verdict, role, servers, false),
        env,
        ports: ports.into_iter().map(port).collect(),
        resources: Resources { limits: gpus.clone(), requests: gpus },
        mount_model_volume: true,
    };
    RolePods {
        create: true,
        replicas: servers.replicas,
        parallelism: Some(Parallelism {
            tensor: servers.tensor_parallel,
            data: 1,
            data_local: 1,
            workers: 1,
        }),
        node_selector: product.map(|name| ("nvidia.com/gpu.product".to_owned(), name.clone())).collect(),
        containers: vec![container],
    }
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

/// The pod's own address.
fn of_pod(name: &str) -> EnvVar {
    let field_ref = FieldRef { field_path: "status.podIP".to_owned() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(ValueFrom { field_ref }) }
}

/// Values of the llm-d-router-gateway chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterValues {
    /// The router.
    pub router: Router,
    /// Who runs the gateway.
    pub provider: Provider,
    /// The chart's own route: none, as httproute.yaml has one.
    pub http_route: ChartRoute,
}

/// The router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Router {
    /// The endpoint picker.
    pub epp: Picker,
    /// The servers it chooses from.
    pub model_servers: ModelServers,
    /// Their pool.
    pub inference_pool: ChartPool,
}

/// The endpoint picker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Picker {
    /// One: its in-flight counts are its own.
    pub replicas: u32,
    /// The file of its configuration.
    pub plugins_config_file: String,
    /// Configurations by file.
    pub plugins_custom_config: BTreeMap<String, LitString>,
}

/// The servers that a picker chooses from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelServers {
    /// The engine.
    #[serde(rename = "type")]
    pub kind: String,
    /// The protocol.
    pub protocol: String,
    /// Where they listen.
    pub target_ports: Vec<Port>,
    /// Which pods they are.
    #[serde(flatten)]
    pub selector: Selector,
}

/// The chart's pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartPool {
    /// Whether the chart makes it.
    pub create: bool,
    /// What happens without the picker.
    pub failure_mode: String,
}

/// Who runs the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provider {
    /// Its name.
    pub name: String,
}

/// The chart's own route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartRoute {
    /// Whether the chart makes it.
    pub create: bool,
    /// The gateway.
    pub inference_gateway_name: String,
    /// How long a request may take.
    pub request_timeout: String,
}

impl RouterValues {
    /// The values of `verdict`, which has this router.
    #[must_use]
    pub fn of(verdict: &Verdict, router: &RouterVerdict) -> Self {
        let config = [(PLUGINS_FILE.to_owned(), LitString(router.config.clone()))];
        Self {
            router: Router {
                epp: Picker {
                    replicas: 1,
                    plugins_config_file: PLUGINS_FILE.to_owned(),
                    plugins_custom_config: config.into(),
                },
                model_servers: ModelServers {
                    kind: "vllm".to_owned(),
                    protocol: "http".to_owned(),
                    target_ports: vec![Port { number: SERVING_PORT }],
                    selector: Selector { match_labels: pod_labels(verdict) },
                },
                inference_pool: ChartPool { create: true, failure_mode: "FailOpen".to_owned() },
            },
            provider: Provider { name: "none".to_owned() },
            http_route: ChartRoute {
                create: false,
                inference_gateway_name: GATEWAY.to_owned(),
                request_timeout: request_timeout(verdict),
            },
        }
    }
}
