//! One endpoint picker at work: the scheduler with the gate in front of it, what it has been told, and when.

use forerun_sim::request::{Refusal, Rejection, ReplicaId, Request, RequestId};
use forerun_sim::router::{
    Adapters, Admission, Choice, Endpoint, EndpointInfo as SimEndpoint, Release, View,
};
use forerun_sim::time::{Span, Time};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::config::{Config, Plugin};
use super::explain::DecisionReport;
use super::gate::Gate;
use super::predictor::Predictor;
use super::prefix::precise::{ExtentKvIndex, Kind, PreciseConfig, PreciseProducer};
use super::prefix::{PrefixMatch, PrefixProducer};
use super::scheduler::{Decision, NoEndpoints, Options, Scheduler};
use super::session::encode_token;
use super::{EndpointInfo, Metrics, RequestView};

/// Where the simulated pods are.
const NAMESPACE: &str = "default";

/// One replica of the endpoint picker of one pool.
pub(super) struct Picker {
    scheduler: Scheduler,
    gate: Gate,
    precise: Vec<Precise>,
    predictor: Option<Predictor>,
    endpoints: Vec<SimEndpoint>,
    /// How often endpoints are scraped.
    scrape: Span,
    /// As of when the scheduler knows the endpoints' metrics.
    scraped: Option<Time>,
    needs_adapters: bool,
    /// What was decided and has not ended: with the decision until it takes effect.
    placed: FxHashMap<RequestId, Placed>,
    /// Whether a plugin reads sessions.
    by_session: bool,
    matches: Vec<Option<PrefixMatch>>,
}

/// A request that was placed.
struct Placed {
    decision: Option<Decision>,
    flow: u32,
    prompt_tokens: u64,
}

/// A precise producer: the caches as they are, and what was sent and is not there yet.
struct Precise {
    name: String,
    config: PreciseConfig,
    speculative: PreciseProducer<ExtentKvIndex>,
}

impl Picker {
    pub(super) fn new(config: &Config, options: Options) -> Result<Self, String> {
        let precise = config.plugins.iter().filter(|plugin| plugin.kind == "precise-prefix-cache-producer");
        let precise = precise.map(|plugin| Precise::new(config, plugin));
        let has = |kind: &str| config.plugins.iter().any(|plugin| plugin.kind == kind);
        let scores = |kind: &str| {
            let named = |name: &String| config.plugin(name).is_some_and(|plugin| plugin.kind == kind);
            let mut profiles = config.profiles.iter();
            profiles.any(|profile| profile.scorers.iter().any(|(name, _)| named(name)))
        };
        Ok(Self {
            scheduler: Scheduler::new(config, options)?,
            gate: Gate::new(config, options.seed)?,
            precise: precise.collect::<Result<_, _>>()?,
            predictor: has("predicted-latency-producer").then(|| Predictor::new(options.seed)),
            endpoints: Vec::new(),
            scrape: options.scrape,
            scraped: None,
            needs_adapters: scores("lora-affinity-scorer"),
            placed: FxHashMap::default(),
            by_session: has("session-affinity-scorer") || has("session-affinity-filter"),
            matches: Vec::new(),
        })
    }

    /// Takes over what the last scrape said, unless that is known already.
    fn refresh(&mut self, now: Time, endpoints: &[Endpoint], adapters: &[Adapters]) {
        let Some(before) = now.as_nanos().checked_sub(1) else { return };
        let at = Time::from_nanos(before / self.scrape.as_nanos() * self.scrape.as_nanos());
        if self.scraped == Some(at) {
            return;
        }
        self.scraped = Some(at);
        for (number, endpoint) in endpoints.iter().enumerate() {
            let mut metrics = Metrics {
                waiting: endpoint.metrics.waiting,
                running: endpoint.metrics.running,
                kv_usage: endpoint.metrics.kv_usage,
                ..Metrics::default()
            };
            if let Some(adapters) = adapters.get(number).filter(|adapters| adapters.published) {
                metrics.max_lora = self.endpoints[number].max_loras;
                metrics.active_adapters.clone_from(&adapters.running);
                metrics.waiting_adapters.clone_from(&adapters.waiting);
            }
            self.scheduler.scrape(at, number as u32, metrics);
        }
    }

    /// Publishes what the caches hold of the request, and what is on its way to them.
    fn publish_precise(&mut self, now: Time, request: &RequestView<'_>, view: &mut View<'_>) {
        for precise in &mut self.precise {
            self.matches.fill(None);
            precise.speculative.produce(now, request, &mut self.matches);
            for (number, found) in self.matches.iter_mut().enumerate() {
                if let Some(found) =
                    found.as_mut().filter(|_| precise.config.estimated_bytes_per_token.is_none())
                {
                    let gpu_tokens = view.caches.cached_tokens(number);
                    let host_tokens = view.caches.host_tokens(number, gpu_tokens);
                    let on_gpu = gpu_tokens / found.block_tokens;
                    let cached = (gpu_tokens + host_tokens) / found.block_tokens;
                    let weights = &precise.config.weights;
                    // Block by block, as upstream adds them: ten blocks of 0.8 are less than 8.
                    let weighed = (on_gpu..cached)
                        .fold(f64::from(on_gpu) * weights.of(Kind::GPU), |sum, _| {
                            sum + weights.of(Kind::CPU)
                        });
                    found.matched_blocks = found.matched_blocks.max(weighed as u32);
                    found.cached_blocks = found.cached_blocks.max(cached);
                }
                self.scheduler.set_match(&precise.name, number as u32, *found);
            }
        }
    }

    fn predict(&mut self, request: &RequestView<'_>) {
        let Some(predictor) = &mut self.predictor else { return };
        for number in 0..self.endpoints.len() {
            let state = self.scheduler.endpoint(number as u32);
            // The match of the last request stands in before this one's is known.
            let uncached = state.uncached_tokens.unwrap_or_else(|| request.prompt_tokens()) as f64;
            let latency =
                predictor.predict(number, request, state, uncached.min(request.prompt_tokens() as f64));
            self.scheduler.set_latency(number as u32, Some(latency));
        }
    }
}

impl Picker {
    pub(super) fn start(&mut self, endpoints: Vec<SimEndpoint>) {
        let infos: Vec<_> = endpoints.iter().map(endpoint_info).collect();
        self.gate.start(&infos);
        for (info, endpoint) in infos.into_iter().zip(&endpoints) {
            self.precise.iter_mut().for_each(|precise| precise.speculative.add_endpoint(&info));
            self.scheduler.add_endpoint(info);
            if let Some(predictor) = &mut self.predictor {
                let kv_tokens = f64::from(endpoint.num_gpu_blocks) * f64::from(endpoint.block_tokens);
                predictor.add_endpoint(endpoint.cost.clone(), kv_tokens);
            }
        }
        self.matches = vec![None; endpoints.len()];
        self.endpoints = endpoints;
    }

    pub(super) fn admit(&mut self, now: Time, request: &Request, endpoints: &[Endpoint]) -> Admission {
        if !self.gate.holds() && request.priority <= 0 {
            return Admission::Pass;
        }
        self.refresh(now, endpoints, &[]);
        self.scraped = self.scraped.filter(|_| !self.needs_adapters);
        let view = request_view(request, &[]);
        self.gate.admit(now, &view, &request.tenant.0.to_string(), self.scheduler.endpoints())
    }

    /// Decides on a request. `tokens` are those that the clients of its sessions have.
    pub(super) fn place(
        &mut self,
        now: Time,
        request: &Request,
        view: &mut View<'_>,
        tokens: &mut FxHashMap<u64, String>,
    ) -> Result<Choice, Rejection> {
        self.refresh(now, view.endpoints, view.adapters);
        for (number, endpoint) in view.endpoints.iter().enumerate() {
            self.scheduler.set_ready(number as u32, endpoint.ready);
        }
        let session = request.session.as_ref().map(|session| session.id).filter(|_| self.by_session);
        let id = session.map(|id| id.to_string());
        let token = session.and_then(|id| tokens.get(&id).cloned());
        let mut headers: SmallVec<[(&str, &str); 2]> = SmallVec::new();
        headers.extend(id.as_deref().map(|id| ("x-session-id", id)));
        headers.extend(token.as_deref().map(|token| ("x-session-token", token)));
        let asked = request_view(request, &headers);
        self.publish_precise(now, &asked, view);
        self.predict(&asked);
        if self.gate.denies(&asked, self.scheduler.endpoints()) {
            return Err(Rejection::Router(Refusal::Denied));
        }
        let decision = self.scheduler.schedule(now, &asked);
        let decision = decision.map_err(|_| Rejection::Router(Refusal::NoEndpoint))?;
        let endpoint = decision.primary as usize;
        let prefill = decision.prefill.map(|prefill| prefill as usize);
        if let Some(session) = session {
            tokens.insert(session, encode_token(NAMESPACE, &self.endpoints[endpoint].name));
        }
        let (flow, prompt_tokens) = (request.tenant.0, asked.prompt_tokens());
        self.gate.sent(now, request.id, asked.priority);
        self.placed.insert(request.id, Placed { decision: Some(decision), flow, prompt_tokens });
        Ok(Choice { endpoint, prefill })
    }

    /// The decision just made on `request`; `None` when it was denied before.
    pub(super) fn report(
        &self,
        config: &Config,
        now: Time,
        request: RequestId,
        choice: &Result<Choice, Rejection>,
    ) -> Option<DecisionReport> {
        let decision = match choice {
            Ok(_) => Ok(self.placed.get(&request)?.decision.as_ref()?),
            Err(Rejection::Router(Refusal::NoEndpoint)) => Err(NoEndpoints),
            Err(_) => return None,
        };
        Some(DecisionReport::new(config, &self.scheduler, now, decision))
    }

    pub(super) fn release(&mut self, now: Time, endpoints: &[Endpoint]) -> Option<Release> {
        if self.gate.holds() {
            self.refresh(now, endpoints, &[]);
            self.scraped = self.scraped.filter(|_| !self.needs_adapters);
        }
        self.gate.release(now, self.scheduler.endpoints())
    }

    /// When to ask for releases again.
    pub(super) fn next_release(&self, now: Time) -> Option<Time> {
        self.gate.next_release(now)
    }

    /// Whether it reads which adapters its endpoints have.
    pub(super) fn needs_adapters(&self) -> bool {
        self.needs_adapters
    }

    /// Whether it follows what its endpoints' caches hold.
    pub(super) fn is_precise(&self) -> bool {
        !self.precise.is_empty()
    }

    /// The first token of a request passed.
    pub(super) fn first_token(&mut self, request: RequestId) {
        self.scheduler.first_chunk(request);
    }

    pub(super) fn committed(&mut self, now: Time, request: &Request, _: Choice) {
        let Some(decision) = self.placed.get_mut(&request.id).and_then(|placed| placed.decision.take())
        else {
            return;
        };
        let session = request.session.as_ref().filter(|_| self.by_session);
        let id = session.map(|session| session.id.to_string());
        let headers: SmallVec<[_; 1]> = id.as_deref().map(|id| ("x-session-id", id)).into_iter().collect();
        let asked = request_view(request, &headers);
        self.scheduler.pre_request(now, &asked, &decision);
        for precise in &mut self.precise {
            precise.speculative.pre_request(now, &asked, &[decision.primary]);
        }
    }

    pub(super) fn lost(&mut self, replica: ReplicaId) {
        let Some(number) = self.endpoints.iter().position(|endpoint| endpoint.replica == replica) else {
            return;
        };
        self.scheduler.forget_endpoint(number as u32);
        self.precise.iter_mut().for_each(|precise| precise.speculative.forget_endpoint(number as u32));
    }

    pub(super) fn ended(&mut self, now: Time, request: RequestId) {
        let Some(placed) = self.placed.remove(&request) else { return self.gate.forget(request) };
        if placed.decision.is_none() {
            self.scheduler.ended(request);
        }
        self.gate.ended(request);
        if self.gate.holds() {
            self.gate.completed(now, &placed.flow.to_string(), placed.prompt_tokens, 0);
        }
    }
}

impl Precise {
    fn new(config: &Config, plugin: &Plugin) -> Result<Self, String> {
        let mut precise = PreciseConfig::read(&plugin.parameters).map_err(|reason| plugin.wrong(&reason))?;
        let mut tokens = config
            .plugins
            .iter()
            .filter(|plugin| matches!(plugin.kind.as_str(), "token-producer" | "tokenizer"));
        let real = |plugin: &Plugin| {
            ["vllm", "udsTokenizerConfig"].iter().any(|key| plugin.parameters.get(key).is_some())
        };
        if !tokens.any(real) {
            // The default backend: four bytes make a pseudo-token.
            precise.estimated_bytes_per_token = Some(4.0);
        }
        let speculative = PreciseProducer::new(precise.clone());
        Ok(Self { name: plugin.name.clone(), config: precise, speculative })
    }
}

/// An endpoint as the scheduler knows it.
fn endpoint_info(endpoint: &SimEndpoint) -> EndpointInfo {
    EndpointInfo {
        namespace: NAMESPACE.to_owned(),
        name: endpoint.name.clone(),
        labels: endpoint.labels.clone(),
        block_size: endpoint.block_tokens,
        num_gpu_blocks: endpoint.num_gpu_blocks,
        topology: None,
    }
}

/// A request as its headers and body show it. vLLM serves lower priority values first, llm-d higher ones: the sign
/// changes.
fn request_view<'a>(request: &'a Request, headers: &'a [(&'a str, &'a str)]) -> RequestView<'a> {
    RequestView {
        id: request.id,
        model: if request.adapter.is_some() { request.adapter } else { request.model },
        prompt: &request.prompt,
        max_tokens: request.max_tokens,
        priority: request.priority.saturating_neg(),
        headers,
    }
}
