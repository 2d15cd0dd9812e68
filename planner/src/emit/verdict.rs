//! What was found to be right for a workload: the input of everything that is emitted.

use crate::error::InputError;
use crate::scenario::{EngineArgs, KvCacheDtype};

/// The image that the llm-d charts run; a cluster should pin a version of it.
pub const IMAGE: &str = "ghcr.io/llm-d/llm-d-cuda:latest";

/// A fleet and how requests are routed to it, with the figures that were predicted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Name of the release: a DNS label, from which all names are made.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// The scenario that was simulated, as the user knows it.
    pub scenario: String,
    /// What the simulation predicts.
    pub predicted: Vec<Prediction>,
    /// What can go wrong in operation, one sentence each.
    pub hazards: Vec<String>,
    /// The model, by its Hugging Face name.
    pub model: String,
    /// Size of its weights in GiB, where known: room for the download.
    pub weights_gib: Option<f64>,
    /// Type of the KV cache, where it is not the model's own.
    pub kv_cache_dtype: Option<KvCacheDtype>,
    /// Container image of vLLM.
    pub image: String,
    /// What serves.
    pub serving: Serving,
    /// The scenario that was simulated, as YAML that names the emitted router configuration.
    pub simulated: Option<String>,
    /// llm-d's router; without one, the model servers stand alone.
    pub router: Option<RouterVerdict>,
    /// KV tiers below the GPU.
    pub tiers: Tiers,
    /// LoRA adapters.
    pub lora: Option<Lora>,
    /// Replicas that follow the load.
    pub autoscaling: Option<Autoscaling>,
    /// What serves today and keeps a share of the traffic.
    pub today: Option<Backend>,
    /// Whether the cluster is OpenShift.
    pub openshift: bool,
}

/// A predicted figure in words: `TTFT p95`, `412 ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// What it is.
    pub name: String,
    /// Its value with unit, and interval where there is one.
    pub value: String,
}

/// What serves.
#[derive(Clone, Debug, PartialEq)]
pub enum Serving {
    /// Every replica does prefill and decode.
    Aggregated(Servers),
    /// Prefill and decode on replicas of their own.
    Disaggregated {
        /// Replicas for prefill.
        prefill: Servers,
        /// Replicas for decode.
        decode: Servers,
    },
}

/// Equal replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Servers {
    /// Their GPU, by its name in the catalog.
    pub gpu: String,
    /// The value of the node label `nvidia.com/gpu.product` that selects it, where known.
    pub gpu_product: Option<String>,
    /// GPUs of each replica.
    pub tensor_parallel: u32,
    /// How many.
    pub replicas: u32,
    /// vLLM's arguments.
    pub engine: EngineArgs,
}

/// llm-d's router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterVerdict {
    /// The EndpointPickerConfig that was simulated, as YAML text: it is passed on unchanged.
    pub config: String,
    /// Whether it follows the servers' KV events (precise prefix routing).
    pub kv_events: bool,
    /// The oldest llm-d version that has all of it, such as `0.5`.
    pub llmd_min: Option<String>,
}

/// KV tiers below the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tiers {
    /// Host memory of each replica, in GiB.
    pub cpu_gib: Option<f64>,
    /// Files below it, on a disk of each replica or in a file system that all share.
    pub files: bool,
}

/// LoRA adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lora {
    /// Most adapters in a batch.
    pub max_loras: u32,
    /// Most adapters in CPU memory.
    pub max_cpu_loras: u32,
    /// Highest rank.
    pub rank: u32,
}

/// Replicas that follow the load, by KEDA on the endpoint picker's metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaling {
    /// Fewest replicas; 0 scales to zero.
    pub min_replicas: u32,
    /// Most replicas.
    pub max_replicas: u32,
    /// Time without load before the last replica goes, in seconds.
    pub cooldown_s: u32,
    /// From the decision to the first answer of a new replica, in seconds.
    pub cold_start_s: f64,
    /// Requests running on each replica at which one more is wanted.
    pub running_per_replica: u32,
}

/// What serves today.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its InferencePool or Service.
    pub name: String,
    /// Whether it is an InferencePool; otherwise a Service.
    pub inference_pool: bool,
    /// Its OpenAI-compatible URL, ending in `/v1`.
    pub url: String,
    /// Its share of the traffic in percent, from 0 to 100; the rest goes to the new pool.
    pub weight: u32,
}

impl Verdict {
    /// Whether the verdict can be deployed as it is.
    ///
    /// # Errors
    /// When a name, number or combination is impossible: the message has the mend.
    pub fn check(&self) -> Result<(), InputError> {
        for (what, name) in [("name", &self.name), ("namespace", &self.namespace)] {
            if !is_dns_label(name) {
                return Err(InputError::new(format!(
                    "the {what} `{name}` is not a DNS label: use at most 40 of a-z, 0-9 and -, first and last no -"
                )));
            }
        }
        if self.model.is_empty() || self.model.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InputError::new(format!("the model `{}` is not a name of Hugging Face", self.model)));
        }
        for (role, servers) in self.serving.roles() {
            if servers.replicas == 0 || servers.tensor_parallel == 0 {
                let why = "has no replicas or no GPUs: both are at least 1";
                return Err(InputError::new(format!("{} {why}", role.deployed_as())));
            }
        }
        if matches!(self.serving, Serving::Disaggregated { .. }) {
            if self.router.is_none() {
                let why = "prefill and decode on replicas of their own need a router: none is given";
                return Err(InputError::new(why));
            }
            if self.tiers.cpu_gib.is_some() {
                let why = "a CPU tier together with prefill/decode disaggregation needs two KV connectors in \
                           one server, which is not emitted: leave one of them out";
                return Err(InputError::new(why));
            }
        }
        if self.today.as_ref().is_some_and(|today| today.weight > 100) {
            return Err(InputError::new("today's backend keeps more than 100 % of the traffic"));
        }
        match &self.autoscaling {
            Some(a)
                if a.max_replicas == 0 || a.min_replicas > a.max_replicas || a.running_per_replica == 0 =>
            {
                Err(InputError::new("autoscaling needs min <= max replicas, max and running at least 1"))
            }
            Some(_) if self.router.is_none() => {
                Err(InputError::new("autoscaling follows the router's metrics, and there is no router"))
            }
            _ => Ok(()),
        }
    }

    /// The value of the label `llm-d.ai/model`: the model's name as a label may be written.
    #[must_use]
    pub fn model_label(&self) -> String {
        let label =
            self.model.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
        label.take(63).collect::<String>().trim_matches('-').to_owned()
    }
}

/// Names are made longer by what a chart appends.
fn is_dns_label(name: &str) -> bool {
    let within = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&name.len())
        && name.chars().all(within)
        && !name.starts_with('-')
        && !name.ends_with('-')
}
