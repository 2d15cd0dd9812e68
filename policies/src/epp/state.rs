//! What the router knows of each endpoint: static facts, scraped metrics and attributes that producers publish.

use std::collections::BTreeMap;

use forerun_sim::request::Label;
use forerun_sim::time::Time;

/// Host, rack, zone and region of an endpoint, each an interned name; [`Label::NONE`] where it is not known.
pub type Topology = [Label; 4];

/// What never changes while an endpoint lives.
#[derive(Clone, Debug, Default)]
pub struct EndpointInfo {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Labels of the pod, such as `llm-d.ai/role`.
    pub labels: BTreeMap<String, String>,
    /// `block_size` of vLLM's `cache_config_info`, in tokens; 0 when the metric is absent.
    pub block_size: u32,
    /// `num_gpu_blocks` of vLLM's `cache_config_info`; 0 when the metric is absent.
    pub num_gpu_blocks: u32,
    /// Where the endpoint is, where that is published.
    pub topology: Option<Topology>,
}

/// What one scrape of an endpoint's `/metrics` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// `vllm:num_requests_waiting`.
    pub waiting: u32,
    /// `vllm:num_requests_running`.
    pub running: u32,
    /// `vllm:kv_cache_usage_perc`, 0 to 1.
    pub kv_usage: f64,
    /// `max_lora` of `vllm:lora_requests_info`: 0 until the pod has stepped once.
    pub max_lora: u32,
    /// Adapters with running requests.
    pub active_adapters: Vec<Label>,
    /// Adapters with waiting requests only.
    pub waiting_adapters: Vec<Label>,
}

/// Requests and tokens that this router sent to an endpoint and that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Requests.
    pub requests: u32,
    /// Tokens that they still have to be prefilled (and, if so configured, to be decoded).
    pub tokens: u64,
}

/// What the latency predictor says of this request on an endpoint, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// TTFT limit minus predicted TTFT (minus the TTFT alone without a limit).
    pub ttft_headroom: f64,
    /// TPOT limit minus predicted TPOT.
    pub tpot_headroom: f64,
    /// Predicted TTFT.
    pub ttft: f64,
    /// Predicted time per output token.
    pub tpot: f64,
    /// Requests that the predictor knows to be dispatched to the endpoint.
    pub dispatched: u32,
}

impl Latency {
    /// Whether both limits are predicted to hold.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.ttft_headroom >= 0.0 && self.tpot_headroom >= 0.0
    }
}

/// One endpoint as a decision sees it. Prefix matches are kept apart, by producer.
#[derive(Clone, Debug, Default)]
pub struct EndpointState {
    /// The last scrape; zeros before the first one.
    pub metrics: Metrics,
    /// When it was scraped; `None` before the first scrape.
    pub scraped_at: Option<Time>,
    /// Published by the in-flight load producer.
    pub in_flight: Option<InFlight>,
    /// Tokens of the request at hand that this endpoint would have to compute; by the same producer.
    pub uncached_tokens: Option<u64>,
    /// Published by the latency predictor, for the request at hand.
    pub latency: Option<Latency>,
    /// Custom metrics by the slot given to their names when the configuration was built.
    pub attributes: Vec<Option<f64>>,
    /// Sizes of the request's multimodal items: those whose embeddings this endpoint holds, and all.
    pub embeddings: Option<(u64, u64)>,
    /// Where the endpoint is.
    pub topology: Option<Topology>,
}

impl EndpointState {
    /// The custom metric of a slot, where the endpoint has it.
    #[must_use]
    pub fn attribute(&self, slot: usize) -> Option<f64> {
        self.attributes.get(slot).copied().flatten()
    }
}
