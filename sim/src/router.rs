//! What a router sees and says: the trait that policies implement.
//!
//! A router is asked three things, always in this order: may the request come in now ([`Router::admit`]), which
//! replica serves it ([`Router::place`]), and, for requests that it held, who is next ([`Router::release`]). What it
//! wants to know beyond its own choices it says in [`Router::needs`]: nothing is measured for a router that does not
//! look.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cost::CostModel;
use crate::fleet::Role;
use crate::request::{Label, Rejection, ReplicaId, Request, RequestId};
use crate::time::{Span, Time};

/// What never changes about an endpoint during a run.
#[derive(Clone, Debug)]
pub struct EndpointInfo {
    /// Which replica.
    pub replica: ReplicaId,
    /// Its name.
    pub name: String,
    /// Number of the model that it serves: endpoints of one model are alternatives.
    pub model: u32,
    /// Labels of its pod, such as `llm-d.ai/role`.
    pub labels: BTreeMap<String, String>,
    /// What it does with a request.
    pub role: Role,
    /// Tokens per KV block.
    pub block_tokens: u32,
    /// KV blocks of its GPU, the null block included: what it reports as `num_gpu_blocks`.
    pub num_gpu_blocks: u32,
    /// Most distinct LoRA adapters in a batch.
    pub max_loras: u32,
    /// How long its steps take: what a latency predictor would learn.
    pub cost: Arc<dyn CostModel>,
}

/// What a model server publishes about itself, as of the end of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Requests in its queue (`vllm:num_requests_waiting`).
    pub waiting: u32,
    /// Requests in its batches (`vllm:num_requests_running`).
    pub running: u32,
    /// Share of KV blocks in use, 0 to 1 (`vllm:kv_cache_usage_perc`).
    pub kv_usage: f64,
}

/// What the router knows of one replica when it decides.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Which replica.
    pub replica: ReplicaId,
    /// Whether it takes requests: not while it drains, is down or starts. Some endpoint is.
    pub ready: bool,
    /// Requests sent to it and not yet ended: exact.
    pub in_flight: u32,
    /// What it had published when it was last scraped; zeros when the router does not scrape.
    pub metrics: Metrics,
}

/// The adapters that a replica published when it was last scraped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapters {
    /// Whether it ever published anything: a server does so first when it steps.
    pub published: bool,
    /// Adapters of running requests, each once.
    pub running: Vec<Label>,
    /// Adapters of waiting requests, each once.
    pub waiting: Vec<Label>,
}

/// What the replicas' caches hold, for a router that keeps an exact index of them; see [`Needs::kv_events`].
pub trait Caches {
    /// Leading tokens of the request's prompt whose KV blocks the endpoint's GPU holds: whole blocks.
    fn cached_tokens(&mut self, endpoint: usize) -> u32;

    /// Tokens of the prompt after its first `gpu_tokens` that the endpoint's host memory holds without a gap.
    fn host_tokens(&mut self, endpoint: usize, gpu_tokens: u32) -> u32 {
        let _ = (endpoint, gpu_tokens);
        0
    }
}

/// The fleet as a router sees it when it decides on a request.
pub struct View<'a> {
    /// The replicas that serve the request's model, in a fixed order; never empty.
    pub endpoints: &'a [Endpoint],
    /// Their adapters, in the same order; empty unless [`Needs::adapters`].
    pub adapters: &'a [Adapters],
    /// Their caches.
    pub caches: &'a mut dyn Caches,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index of the replica that answers it.
    pub endpoint: usize,
    /// Index of the replica that computes its prompt, when that is another one.
    pub prefill: Option<usize>,
}

impl Choice {
    /// One replica does all of it.
    #[must_use]
    pub fn alone(endpoint: usize) -> Self {
        Self { endpoint, prefill: None }
    }
}

/// Whether a request may be placed when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// At once.
    Pass,
    /// Later: the router keeps it until it releases it.
    Hold,
    /// Never.
    Refuse(Rejection),
}

/// A request that leaves the router's queue; or one in flight that the router takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which request.
    pub request: RequestId,
    /// Why it is turned away; `None` when it is to be placed now.
    pub refused: Option<Rejection>,
}

/// What a router wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The replicas' metrics, scraped so often.
    pub scrape: Option<Span>,
    /// The replicas' adapters, with the metrics.
    pub adapters: bool,
    /// What the replicas' GPUs hold, as their KV events tell: so long after the step that computed it. `None`: as it is.
    pub kv_events: Option<Span>,
    /// What becomes of requests: [`Router::committed`], [`Router::first_token`], [`Router::ended`].
    pub feedback: bool,
}

/// Chooses a replica for each request.
pub trait Router: Send {
    /// What it wants to be told.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// All replicas of the run, in the order of their [`ReplicaId`]s, before its first request.
    fn start(&mut self, endpoints: &[EndpointInfo]) {
        let _ = endpoints;
    }

    /// Whether a request that arrives may be placed.
    fn admit(&mut self, now: Time, request: &Request, endpoints: &[Endpoint]) -> Admission {
        let _ = (now, request, endpoints);
        Admission::Pass
    }

    /// Where the request goes.
    ///
    /// # Errors
    /// Why it goes nowhere.
    fn place(&mut self, now: Time, request: &Request, view: &mut View<'_>) -> Result<Choice, Rejection>;

    /// The next request that leaves the router's queue now. Asked again until there is none, after each arrival
    /// and at [`next_release`](Self::next_release).
    fn release(&mut self, now: Time, endpoints: &[Endpoint]) -> Option<Release> {
        let _ = (now, endpoints);
        None
    }

    /// When to ask for releases again; later than `now`.
    fn next_release(&self, now: Time) -> Option<Time> {
        let _ = now;
        None
    }

    /// The choice takes effect: the endpoint picker has answered, so its own counters and indices see the request
    /// from now on. Decisions made in between did not.
    fn committed(&mut self, now: Time, request: &Request, choice: Choice) {
        let _ = (now, request, choice);
    }

    /// The first token of a committed request passed the router.
    fn first_token(&mut self, now: Time, request: RequestId) {
        let _ = (now, request);
    }

    /// A replica died, and with it what it had cached.
    fn lost(&mut self, now: Time, replica: ReplicaId) {
        let _ = (now, replica);
    }

    /// A replica that had died takes requests again.
    fn back(&mut self, now: Time, replica: ReplicaId) {
        let _ = (now, replica);
    }

    /// A request that was held or placed ended, or its client took it back. It may come again.
    fn ended(&mut self, now: Time, request: RequestId) {
        let _ = (now, request);
    }
}
