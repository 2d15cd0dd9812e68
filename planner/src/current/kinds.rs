//! Servers in Deployments, StatefulSets and KServe's InferenceServices.

use std::collections::BTreeMap;

use super::command;
use super::gpus::{self, Found};
use super::object::Object;
use crate::error::InputError;
use crate::scenario::Role;

/// A server that runs vLLM, as its manifest describes it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// How messages call it: `Deployment decode`.
    pub(super) place: String,
    pub(super) name: String,
    pub(super) replicas: Option<u32>,
    pub(super) role: Option<Role>,
    /// A GPU of the catalog, by name.
    pub(super) gpu: Option<String>,
    /// GPUs that each pod reserves.
    pub(super) gpus: Option<u32>,
    /// The words of its command line.
    pub(super) command: Vec<String>,
    /// The model, where the manifest names it outside of the command line.
    pub(super) model: Option<String>,
    /// What was not understood.
    pub(super) notes: Vec<String>,
}

/// The resource by which pods reserve GPUs.
const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// Labels and values by which llm-d tells roles apart.
const ROLE_LABEL: &str = "llm-d.ai/role";

/// The container that KServe takes for the server.
const KSERVE_CONTAINER: &str = "kserve-container";

/// All servers in `objects` that run vLLM. What could be one and is not understood is noted.
pub(super) fn servers(objects: &[Object<'_>], notes: &mut Vec<String>) -> Result<Vec<Server>, InputError> {
    let mut servers = Vec::new();
    for &object in objects {
        let server = match object.kind() {
            "Deployment" | "StatefulSet" => deployment(object),
            "InferenceService" => inference_service(object, objects),
            kind @ ("LeaderWorkerSet"
            | "LLMInferenceService"
            | "Pod"
            | "HorizontalPodAutoscaler"
            | "ScaledObject") => {
                notes.push(format!("{}: a {kind} is not read: left out", object.place()));
                Ok(None)
            }
            _ => Ok(None),
        };
        servers.extend(server.map_err(|error| error.at(&object.place()))?);
    }
    Ok(servers)
}

fn deployment(object: Object<'_>) -> Result<Option<Server>, InputError> {
    let Some(pod) = object.at("spec.template.spec") else { return Ok(None) };
    let Some(container) = pod.list("containers").find(|container| runs_vllm(*container)) else {
        return Ok(None);
    };
    let labels = object.at("spec.template.metadata").unwrap_or(object);
    let role = labels.entries("labels").find(|(label, _)| *label == ROLE_LABEL);
    let mut server = server_of(object, &[pod], &[container])?;
    server.replicas = object.whole("spec.replicas")?;
    server.role = role.and_then(|(_, role)| role.scalar()).and_then(|role| match role.as_str() {
        "prefill" => Some(Role::Prefill),
        "decode" => Some(Role::Decode),
        _ => None,
    });
    Ok(Some(server))
}

/// Whether a container's image or command names vLLM, or llm-d, whose images run it.
fn runs_vllm(container: Object<'_>) -> bool {
    let names = |text: &str| text.contains("vllm") || text.contains("llm-d-cuda") || text.contains("/llm-d:");
    container.text("image").is_some_and(names)
        || ["command", "args"].iter().any(|path| {
            container.list(path).any(|word| word.scalar().is_some_and(|word| word.contains("vllm")))
        })
}

/// An InferenceService: its predictor over the container of its runtime.
fn inference_service(object: Object<'_>, objects: &[Object<'_>]) -> Result<Option<Server>, InputError> {
    let Some(predictor) = object.at("spec.predictor") else {
        return Err(InputError::new("`spec.predictor` is not there: an InferenceService of v1beta1 has one"));
    };
    let own = predictor.list("containers").find(|c| c.text("name") == Some(KSERVE_CONTAINER));
    let own = own.or_else(|| predictor.list("containers").next()).or_else(|| predictor.at("model"));
    let Some(own) = own else {
        return Err(InputError::new(
            "`spec.predictor` has neither `model` nor `containers`: one of them is the server",
        ));
    };
    let runtime_name = own.text("runtime");
    let runtime = runtime_name.and_then(|name| find_runtime(objects, name));
    let base = runtime.and_then(|runtime| {
        let named = runtime.list("spec.containers").find(|c| c.text("name") == Some(KSERVE_CONTAINER));
        named.or_else(|| runtime.list("spec.containers").next())
    });
    let mut containers = Vec::from_iter(base);
    containers.push(own);
    let mut pods = Vec::from_iter(runtime.and_then(|runtime| runtime.at("spec")));
    pods.push(predictor);
    let mut server = server_of(object, &pods, &containers)?;
    if let (Some(name), None) = (runtime_name, runtime) {
        server.notes.push(format!(
            "its runtime `{name}` is not in the file, so its arguments are unknown: add the ServingRuntime to the file"
        ));
    }
    server.replicas = predictor.whole("minReplicas")?.filter(|&replicas| replicas > 0);
    let most = predictor.whole("maxReplicas")?;
    if let Some(most) = most.filter(|&most| most > server.replicas.unwrap_or(1)) {
        server.notes.push(format!(
            "it scales from {} to {most} replicas: {} are taken",
            predictor.whole("minReplicas")?.unwrap_or(1),
            server.replicas.unwrap_or(1)
        ));
    }
    server.model = own.text("storageUri").and_then(model_of_uri);
    if predictor.at("workerSpec").is_some() {
        server
            .notes
            .push("a server of several nodes (`workerSpec`) is not modelled: one node is taken".into());
    }
    Ok(Some(server))
}

fn find_runtime<'a>(objects: &[Object<'a>], name: &str) -> Option<Object<'a>> {
    let runtimes = ["ServingRuntime", "ClusterServingRuntime"];
    objects.iter().copied().find(|object| runtimes.contains(&object.kind()) && object.name() == name)
}

/// `hf://Qwen/Qwen3-8B:main` names a model; paths and images do not.
fn model_of_uri(uri: &str) -> Option<String> {
    let name = uri.strip_prefix("hf://")?;
    Some(name.split(':').next().unwrap_or(name).to_owned())
}

/// The server of `object` whose pod and container are described by several parts, later ones over earlier.
fn server_of(
    object: Object<'_>,
    pods: &[Object<'_>],
    containers: &[Object<'_>],
) -> Result<Server, InputError> {
    let mut env = BTreeMap::new();
    let (mut program, mut args, mut gpus) = (Vec::new(), Vec::new(), None);
    let mut notes = Vec::new();
    for container in containers {
        for variable in container.list("env") {
            let value = variable.at("value").and_then(Object::scalar);
            if let Some((name, value)) = variable.text("name").zip(value) {
                env.insert(name.to_owned(), value);
            }
        }
        let own = container.words("command")?;
        if !own.is_empty() {
            program = own;
        }
        args.extend(container.words("args")?);
        for kind in ["requests", "limits"] {
            // The name of the resource has a point, so it is no path.
            for (resource, quantity) in container.entries(&format!("resources.{kind}")) {
                if resource == GPU_RESOURCE {
                    gpus = Some(gpu_count(quantity)?);
                } else if resource.contains("gpu") || resource.contains("mig-") {
                    notes.push(format!("it reserves `{resource}`, which is not a GPU of the catalog"));
                }
            }
        }
    }
    notes.dedup();
    let found = pods.iter().rev().map(|pod| gpus::of_pod(*pod)).find(|found| *found != Found::Unsaid);
    let gpu = match found.unwrap_or(Found::Unsaid) {
        Found::Known(name) => Some(name.to_owned()),
        Found::Unknown(name) => {
            notes.push(format!("the GPU `{name}` is not in the catalog: name one with --gpu"));
            None
        }
        Found::Unsaid => {
            notes.push("no node selector names the GPU: name it with --gpu".into());
            None
        }
    };
    Ok(Server {
        place: object.place(),
        name: object.name().chars().take(63).collect(),
        replicas: None,
        role: None,
        gpu,
        gpus,
        command: command::words(&program, &args, &env),
        model: None,
        notes,
    })
}

fn gpu_count(quantity: Object<'_>) -> Result<u32, InputError> {
    let text = quantity.scalar().unwrap_or_default();
    text.parse()
        .map_err(|_| InputError::new(format!("`{GPU_RESOURCE}: {text}`: a whole number of GPUs is expected")))
}
