//! The endpoint picker as a router of the simulated fleet.
//!
//! As upstream: metrics are as old as the last scrape (every 50 ms by default), a decision is made on what is known when the
//! request arrives, and what follows from it (counters in flight, index entries) is seen by later decisions only once
//! the picker has answered.

use std::sync::Arc;

use forerun_sim::request::{Rejection, ReplicaId, Request, RequestId};
use forerun_sim::rng::Stream;
use forerun_sim::router::{
    Admission, Choice, Endpoint, EndpointInfo as SimEndpoint, Needs, Release, Router, View,
};
use forerun_sim::time::Time;
use rustc_hash::FxHashMap;

use super::config::Config;
use super::explain::DecisionReport;
use super::picker::Picker;
use super::scheduler::Options;

/// The replicas of the endpoint picker of one model's pool. They share nothing but what their clients bring back.
struct Pickers {
    replicas: Vec<Picker>,
    /// The replica that gets the next request.
    next: usize,
    /// The token that the client of each session has, where a plugin reads it.
    tokens: FxHashMap<u64, String>,
}

/// Which picker knows a request: its model's, and which replica of it.
#[derive(Clone, Copy)]
struct Owner {
    model: usize,
    replica: usize,
}

/// `EndpointPickerConfig` as a router: one endpoint picker for each model, as each InferencePool has its own. Several
/// replicas of a picker get requests in turn, and each knows only what it has decided itself.
pub struct EppRouter {
    config: Arc<Config>,
    options: Options,
    replicas: usize,
    /// By model.
    pickers: Vec<Pickers>,
    /// The model of each replica of the fleet.
    model_of: Vec<usize>,
    owners: FxHashMap<RequestId, Owner>,
    needs: Needs,
    /// Id of the request whose decision is kept.
    wanted: Option<String>,
    kept: Option<DecisionReport>,
}

impl EppRouter {
    /// The router of `config`. Random choices come from streams of their own.
    ///
    /// # Errors
    /// When the configuration names what the simulator does not have, or parameters that are not valid.
    pub fn new(config: Arc<Config>, options: Options) -> Result<Self, String> {
        let picker = Picker::new(&config, options)?;
        let needs = Needs {
            scrape: Some(options.scrape),
            adapters: picker.needs_adapters(),
            kv_events: picker.is_precise().then_some(options.kv_event_delay),
            feedback: true,
        };
        Ok(Self {
            config,
            options,
            replicas: 1,
            pickers: Vec::new(),
            model_of: Vec::new(),
            owners: FxHashMap::default(),
            needs,
            wanted: None,
            kept: None,
        })
    }

    /// The same with so many replicas of each picker.
    ///
    /// # Panics
    /// When there are none.
    #[must_use]
    pub fn with_replicas(self, replicas: u32) -> Self {
        assert!(replicas > 0, "somebody has to pick");
        Self { replicas: replicas as usize, ..self }
    }

    /// From now on, keeps the last decision on the request of this id for [`explained`](Self::explained).
    pub fn explain(&mut self, id: &str) {
        self.wanted = Some(id.to_owned());
    }

    /// The decision that was kept; `None` when the request never came so far.
    pub fn explained(&mut self) -> Option<DecisionReport> {
        self.kept.take()
    }

    fn pickers(&self, model: usize, endpoints: &[SimEndpoint]) -> Pickers {
        let mut seeds = Stream::new(self.options.seed, "router replicas");
        let own: Vec<_> =
            endpoints.iter().filter(|endpoint| endpoint.model as usize == model).cloned().collect();
        let replica = |number| {
            // The first has the seed of a picker without others.
            let seed = if number == 0 { self.options.seed } else { seeds.bits() };
            let options = Options { seed, ..self.options };
            let mut picker = Picker::new(&self.config, options).expect("it was made before");
            picker.start(own.clone());
            picker
        };
        let replicas = (0..self.replicas).map(replica).collect();
        Pickers { replicas, next: 0, tokens: FxHashMap::default() }
    }

    fn picker(&mut self, Owner { model, replica }: Owner) -> &mut Picker {
        &mut self.pickers[model].replicas[replica]
    }
}

impl Router for EppRouter {
    fn needs(&self) -> Needs {
        self.needs
    }

    fn start(&mut self, endpoints: &[SimEndpoint]) {
        self.model_of = endpoints.iter().map(|endpoint| endpoint.model as usize).collect();
        let models = self.model_of.iter().max().map_or(0, |last| last + 1);
        self.pickers = (0..models).map(|model| self.pickers(model, endpoints)).collect();
    }

    fn admit(&mut self, now: Time, request: &Request, endpoints: &[Endpoint]) -> Admission {
        let model = self.model_of[endpoints[0].replica.0 as usize];
        let pickers = &mut self.pickers[model];
        let replica = pickers.next;
        pickers.next = (replica + 1) % pickers.replicas.len();
        let admission = pickers.replicas[replica].admit(now, request, endpoints);
        if !matches!(admission, Admission::Refuse(_)) {
            self.owners.insert(request.id, Owner { model, replica });
        }
        admission
    }

    fn place(&mut self, now: Time, request: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        let owner = *self.owners.get(&request.id).expect("who is placed was admitted");
        let Pickers { replicas, tokens, .. } = &mut self.pickers[owner.model];
        let picker = &mut replicas[owner.replica];
        let choice = picker.place(now, request, view, tokens);
        if self.wanted.as_ref().is_some_and(|id| request.is_called(id)) {
            self.kept = picker.report(&self.config, now, request.id, &choice);
        }
        if choice.is_err() {
            self.owners.remove(&request.id);
        }
        choice
    }

    fn release(&mut self, now: Time, endpoints: &[Endpoint]) -> Option<Release> {
        let model = self.model_of[endpoints[0].replica.0 as usize];
        self.pickers[model].replicas.iter_mut().find_map(|picker| picker.release(now, endpoints))
    }

    fn next_release(&self, now: Time) -> Option<Time> {
        let all = self.pickers.iter().flat_map(|pickers| &pickers.replicas);
        all.filter_map(|picker| picker.next_release(now)).min()
    }

    fn committed(&mut self, now: Time, request: &Request, choice: Choice) {
        if let Some(&owner) = self.owners.get(&request.id) {
            self.picker(owner).committed(now, request, choice);
        }
    }

    fn first_token(&mut self, _: Time, request: RequestId) {
        if let Some(&owner) = self.owners.get(&request) {
            self.picker(owner).first_token(request);
        }
    }

    fn lost(&mut self, _: Time, replica: ReplicaId) {
        let model = self.model_of[replica.0 as usize];
        self.pickers[model].replicas.iter_mut().for_each(|picker| picker.lost(replica));
    }

    fn ended(&mut self, now: Time, request: RequestId) {
        if let Some(owner) = self.owners.remove(&request) {
            self.picker(owner).ended(now, request);
        }
    }
}
