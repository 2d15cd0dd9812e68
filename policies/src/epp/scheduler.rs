//! The scheduler: one decision from what the router knows.

use forerun_sim::request::RequestId;
use forerun_sim::time::{Span, Time};
use serde_json::Value;
use smallvec::SmallVec;

use super::config::{Config, Plugin};
use super::deciders::{self, Decider};
use super::handlers::Disaggregation;
use super::in_flight::{InFlightLoad, ProducerOrder};
use super::pickers::{self, TieRule};
use super::plugin::{
    Context, DEFAULT_PREFIX_PRODUCER, Dispatch, Filter, Names, Notes, Picker, Picks, Scorer, parameters,
};
use super::prefix::approx::{ApproxConfig, ApproxProducer, ExtentIndex};
use super::prefix::{PrefixMatch, PrefixProducer};
use super::{EndpointInfo, EndpointState, InFlight, Latency, Metrics, RequestView, filters, scorers};

/// What a configuration file leaves open.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The run's seed.
    pub seed: u64,
    /// How equals are chosen among.
    pub tie_rule: TieRule,
    /// Which producer runs first.
    pub producer_order: ProducerOrder,
    /// How often endpoints are scraped: the picker's flag `--refresh-metrics-interval`.
    pub scrape: Span,
    /// From the end of a step to the effect of its KV events on a precise index.
    pub kv_event_delay: Span,
}

impl Default for Options {
    fn default() -> Self {
        let (tie_rule, producer_order) = (TieRule::default(), ProducerOrder::default());
        Self { seed: 0, tie_rule, producer_order, scrape: SCRAPE_MIN, kv_event_delay: Span::ZERO }
    }
}

/// The default of `--refresh-metrics-interval`, and the least that upstream takes for it.
pub const SCRAPE_MIN: Span = Span::from_millis(50);

/// Why nothing was picked: "no endpoints available", HTTP 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoints available")]
pub struct NoEndpoints;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The endpoint that answers the client.
    pub primary: u32,
    /// The endpoint that prefills, if that is another profile's pick.
    pub prefill: Option<u32>,
    /// All picks, by profile in the order of the configuration.
    pub picks: Picks,
    /// Tokens to be counted in flight, by profile.
    tokens: SmallVec<[u64; 3]>,
    notes: Notes,
}

/// What the last decision's run of one profile did; its buffers are used again.
#[derive(Clone, Debug, Default)]
pub struct ProfileRun {
    /// Whether the profile ran at all.
    pub ran: bool,
    /// The endpoints that each filter kept, in the profile's order of filters.
    pub kept: Vec<Vec<u32>>,
    /// The endpoints that were left.
    pub candidates: Vec<u32>,
    /// Raw scores: for each scorer, one for each candidate.
    pub scores: Vec<f64>,
    /// Weighted sums of the scores, each clamped to 0..1 before it is weighed.
    pub totals: Vec<f64>,
    /// What was picked, the best first.
    pub picked: Vec<u32>,
}

impl ProfileRun {
    /// The candidates with the best total.
    #[must_use]
    pub fn tied(&self) -> Vec<u32> {
        let best = self.totals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best_ones = self.candidates.iter().zip(&self.totals).filter(|&(_, &total)| total >= best);
        best_ones.map(|(&endpoint, _)| endpoint).collect()
    }
}

/// One scheduling profile: places in the scheduler's lists of plugins.
struct Profile {
    name: String,
    filters: Vec<usize>,
    scorers: Vec<(usize, f64)>,
    picker: usize,
}

/// Which profiles run.
enum Handler {
    Single,
    Disaggregated { decode: usize, prefill: Option<usize>, decider: Option<Decider>, prefill_first: bool },
}

/// The plugins of a configuration at work. Endpoints are numbered in the order in which they are added.
pub struct Scheduler {
    names: Names,
    infos: Vec<EndpointInfo>,
    endpoints: Vec<EndpointState>,
    live: Vec<u32>,
    matches: Vec<Vec<Option<PrefixMatch>>>,
    producers: Vec<(usize, Box<dyn PrefixProducer>)>,
    in_flight: Option<InFlightLoad>,
    filters: Vec<Box<dyn Filter>>,
    scorers: Vec<Box<dyn Scorer>>,
    pickers: Vec<Box<dyn Picker>>,
    profiles: Vec<Profile>,
    /// The profile named "prefill": upstream's plugins know it by that name.
    prefill_profile: Option<usize>,
    handler: Handler,
    runs: Vec<ProfileRun>,
    /// Picks of a recorded router, while it is followed; empty otherwise.
    forced_picks: Picks,
}

impl Scheduler {
    /// A scheduler without endpoints. Approximate prefix producers work at once; others are to be attached.
    ///
    /// # Errors
    /// When the configuration names what the simulator does not have, or parameters that are not valid.
    pub fn new(config: &Config, options: Options) -> Result<Self, String> {
        let mut scheduler = Self {
            names: Names::new(config.profiles.iter().map(|profile| profile.name.clone()).collect()),
            infos: Vec::new(),
            endpoints: Vec::new(),
            live: Vec::new(),
            matches: Vec::new(),
            producers: Vec::new(),
            in_flight: None,
            filters: Vec::new(),
            scorers: Vec::new(),
            pickers: Vec::new(),
            profiles: Vec::new(),
            prefill_profile: config.profiles.iter().position(|profile| profile.name == "prefill"),
            handler: Handler::Single,
            runs: vec![ProfileRun::default(); config.profiles.len()],
            forced_picks: Picks::new(),
        };
        scheduler.add_profiles(config, options)?;
        scheduler.handler = handler(config, &mut scheduler.names)?;
        if let Some(plugin) = config.plugins.iter().find(|plugin| plugin.kind == "inflight-load-producer") {
            let order = options.producer_order;
            let made = InFlightLoad::new(&plugin.parameters, &mut scheduler.names, order);
            scheduler.in_flight = Some(made.map_err(|reason| plugin.wrong(&reason))?);
        }
        for (run, profile) in scheduler.runs.iter_mut().zip(&scheduler.profiles) {
            run.kept.resize_with(profile.filters.len(), Vec::new);
        }
        scheduler.matches.resize_with(scheduler.names.producers().len(), Vec::new);
        for plugin in config.plugins.iter().filter(|plugin| plugin.kind == DEFAULT_PREFIX_PRODUCER) {
            let made = parameters::<ApproxConfig>(&plugin.parameters).and_then(|config| {
                ApproxProducer::<ExtentIndex>::new(config).map_err(|error| error.to_string())
            });
            let producer = made.map_err(|reason| plugin.wrong(&reason))?;
            scheduler.attach(&plugin.name, Box::new(producer));
        }
        Ok(scheduler)
    }

    fn add_profiles(&mut self, config: &Config, options: Options) -> Result<(), String> {
        let seed = options.seed;
        // A plugin that several profiles name is one instance with one state.
        let (mut filter_names, mut scorer_names, mut picker_names) = (Vec::new(), Vec::new(), Vec::new());
        for profile in &config.profiles {
            let names = &mut self.names;
            let filters = profile.filters.iter().map(|name| {
                instance(config, name, &mut filter_names, &mut self.filters, |plugin| {
                    filters::make(&plugin.kind, &plugin.parameters, names, seed)
                })
            });
            let filters = filters.collect::<Result<_, _>>()?;
            let names = &mut self.names;
            let scorers = profile.scorers.iter().map(|(name, weight)| {
                let place = instance(config, name, &mut scorer_names, &mut self.scorers, |plugin| {
                    scorers::make(&plugin.kind, &plugin.parameters, names)
                });
                Ok((place?, *weight))
            });
            let scorers = scorers.collect::<Result<_, String>>()?;
            let picker = instance(config, &profile.picker, &mut picker_names, &mut self.pickers, |plugin| {
                pickers::make(&plugin.kind, &plugin.parameters, options.tie_rule, seed)
            })?;
            self.profiles.push(Profile { name: profile.name.clone(), filters, scorers, picker });
        }
        Ok(())
    }

    /// Adds an endpoint; returns its number.
    pub fn add_endpoint(&mut self, info: EndpointInfo) -> u32 {
        let number = u32::try_from(self.infos.len()).expect("fewer than 2^32 endpoints");
        self.filters.iter_mut().for_each(|filter| filter.add_endpoint(&info));
        self.scorers.iter_mut().for_each(|scorer| scorer.add_endpoint(&info));
        self.producers.iter_mut().for_each(|(_, producer)| producer.add_endpoint(&info));
        self.matches.iter_mut().for_each(|matches| matches.push(None));
        self.endpoints.push(EndpointState {
            in_flight: self.in_flight.as_ref().map(|_| InFlight::default()),
            attributes: vec![None; self.names.attributes().len()],
            topology: info.topology,
            ..EndpointState::default()
        });
        self.infos.push(info);
        self.live.push(number);
        number
    }

    /// Takes an endpoint out for good. Its number is not given again.
    pub fn remove_endpoint(&mut self, endpoint: u32) {
        self.live.retain(|&live| live != endpoint);
        self.producers.iter_mut().for_each(|(_, producer)| producer.remove_endpoint(endpoint));
    }

    /// Lets requests go to an endpoint, or to it no more.
    pub fn set_ready(&mut self, endpoint: u32, ready: bool) {
        match self.live.binary_search(&endpoint) {
            Ok(at) if !ready => {
                self.live.remove(at);
            }
            Err(at) if ready => self.live.insert(at, endpoint),
            _ => {}
        }
    }

    /// An endpoint has lost what it cached.
    pub fn forget_endpoint(&mut self, endpoint: u32) {
        self.producers.iter_mut().for_each(|(_, producer)| producer.forget_endpoint(endpoint));
    }

    /// Lets `producer` publish under a plugin's name, after those that were attached before. Without a producer, a
    /// name's matches are what [`Scheduler::set_match`] says.
    pub fn attach(&mut self, name: &str, mut producer: Box<dyn PrefixProducer>) {
        let slot = self.names.producer(name);
        let endpoints = self.infos.len();
        self.matches.resize_with(self.names.producers().len(), || vec![None; endpoints]);
        self.infos.iter().for_each(|info| producer.add_endpoint(info));
        self.producers.push((slot, producer));
    }

    /// The names of the prefix producers that some plugin reads.
    #[must_use]
    pub fn prefix_producers(&self) -> &[String] {
        self.names.producers()
    }

    /// What a scrape said of an endpoint at `now`.
    pub fn scrape(&mut self, now: Time, endpoint: u32, mut metrics: Metrics) {
        for adapters in [&mut metrics.active_adapters, &mut metrics.waiting_adapters] {
            adapters.sort_unstable();
            adapters.dedup();
        }
        let state = &mut self.endpoints[endpoint as usize];
        state.metrics = metrics;
        state.scraped_at = Some(now);
    }

    /// Publishes a match under a producer's name, for a producer that is not attached.
    pub fn set_match(&mut self, producer: &str, endpoint: u32, prefix: Option<PrefixMatch>) {
        let slot = self.names.producer(producer);
        let endpoints = self.infos.len();
        self.matches.resize_with(self.names.producers().len(), || vec![None; endpoints]);
        self.matches[slot][endpoint as usize] = prefix;
    }

    /// What a producer last published for an endpoint.
    #[must_use]
    pub fn prefix(&self, producer: &str, endpoint: u32) -> Option<PrefixMatch> {
        let slot = self.names.producers().iter().position(|name| name == producer)?;
        self.matches[slot].get(endpoint as usize).copied().flatten()
    }

    /// Publishes a latency prediction for the next request.
    pub fn set_latency(&mut self, endpoint: u32, latency: Option<Latency>) {
        self.endpoints[endpoint as usize].latency = latency;
    }

    /// Leaves the matches of a producer to [`Scheduler::set_match`].
    pub fn detach(&mut self, name: &str) {
        let slot = self.names.producer(name);
        self.producers.retain(|(attached, _)| *attached != slot);
    }

    /// Publishes a custom metric of an endpoint; whether any plugin reads it.
    pub fn set_attribute(&mut self, name: &str, endpoint: u32, value: f64) -> bool {
        let slot = self.names.attributes().iter().position(|known| known == name);
        if let Some(slot) = slot {
            self.endpoints[endpoint as usize].attributes[slot] = Some(value);
        }
        slot.is_some()
    }

    /// Sets what is in flight on an endpoint; whether any plugin counts it.
    pub fn set_in_flight(&mut self, endpoint: u32, in_flight: InFlight) -> bool {
        if self.in_flight.is_some() {
            self.endpoints[endpoint as usize].in_flight = Some(in_flight);
        }
        self.in_flight.is_some()
    }

    /// The numbers of the endpoints that live.
    #[must_use]
    pub fn live(&self) -> &[u32] {
        &self.live
    }

    /// What never changes about an endpoint.
    #[must_use]
    pub fn info(&self, endpoint: u32) -> &EndpointInfo {
        &self.infos[endpoint as usize]
    }

    /// What is known of all endpoints.
    #[must_use]
    pub fn endpoints(&self) -> &[EndpointState] {
        &self.endpoints
    }

    /// What is known of an endpoint.
    #[must_use]
    pub fn endpoint(&self, endpoint: u32) -> &EndpointState {
        &self.endpoints[endpoint as usize]
    }

    /// What the last decision did, by profile: its name and its run.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &ProfileRun)> {
        self.profiles.iter().map(|profile| profile.name.as_str()).zip(&self.runs)
    }

    /// Decides as [`Scheduler::schedule`] does, but takes the given picks, one for each profile, instead of its pickers':
    /// to follow a recorded router whose random choices are known.
    ///
    /// # Errors
    /// As [`Scheduler::schedule`].
    pub fn schedule_as(
        &mut self,
        now: Time,
        request: &RequestView<'_>,
        picks: &[Option<u32>],
    ) -> Result<Decision, NoEndpoints> {
        self.forced_picks.clear();
        self.forced_picks.extend_from_slice(picks);
        let decision = self.schedule(now, request);
        self.forced_picks.clear();
        decision
    }

    /// Decides where `request` goes. Nothing is committed: that is [`Scheduler::pre_request`].
    ///
    /// # Errors
    /// When the filters of the profile that must pick leave no endpoint.
    pub fn schedule(&mut self, now: Time, request: &RequestView<'_>) -> Result<Decision, NoEndpoints> {
        for (slot, producer) in &mut self.producers {
            let matches = &mut self.matches[*slot];
            matches.fill(None);
            producer.produce(now, request, matches);
        }
        if let Some(load) = &self.in_flight {
            load.publish(request, &self.matches[load.producer], &mut self.endpoints);
        }
        self.runs.iter_mut().for_each(|run| run.ran = false);
        let mut notes = Notes::default();
        let (primary, prefill) = self.run_handler(now, request, &mut notes)?;
        let mut picks: Picks = smallvec::smallvec![None; self.profiles.len()];
        for profile in [Some(primary), prefill].into_iter().flatten() {
            picks[profile] = self.runs[profile].picked.first().copied();
        }
        let tokens = picks.iter().map(|&pick| match (&self.in_flight, pick) {
            (Some(load), Some(endpoint)) => {
                load.committed(request, self.matches[load.producer][endpoint as usize])
            }
            _ => 0,
        });
        let tokens = tokens.collect();
        let prefill = prefill.and_then(|profile| picks[profile]);
        Ok(Decision { primary: picks[primary].ok_or(NoEndpoints)?, prefill, picks, tokens, notes })
    }

    /// Runs the profiles; the primary one and the prefill one, each of which picked.
    fn run_handler(
        &mut self,
        now: Time,
        request: &RequestView<'_>,
        notes: &mut Notes,
    ) -> Result<(usize, Option<usize>), NoEndpoints> {
        let Handler::Disaggregated { decode, prefill, prefill_first, .. } = self.handler else {
            self.run_profile(0, now, request, None, notes)?;
            return Ok((0, None));
        };
        if prefill_first {
            let prefill =
                prefill.filter(|&prefill| self.run_profile(prefill, now, request, None, notes).is_ok());
            let peer = prefill.map(|prefill| self.runs[prefill].picked[0]);
            self.run_profile(decode, now, request, peer, notes)?;
            return Ok((decode, prefill));
        }
        let picked = self.run_profile(decode, now, request, None, notes)?;
        let prefill = prefill.filter(|&prefill| {
            self.disaggregates(now, request, picked)
                && self.run_profile(prefill, now, request, Some(picked), notes).is_ok()
        });
        Ok((decode, prefill))
    }

    fn disaggregates(&self, now: Time, request: &RequestView<'_>, decode: u32) -> bool {
        let Handler::Disaggregated { decider: Some(decider), .. } = &self.handler else { return false };
        let (endpoints, matches) = (&self.endpoints, &self.matches);
        decider.disaggregates(&Context { now, request, endpoints, matches, peer_topology: None }, decode)
    }

    /// Runs one profile; its pick.
    fn run_profile(
        &mut self,
        profile: usize,
        now: Time,
        request: &RequestView<'_>,
        peer: Option<u32>,
        notes: &mut Notes,
    ) -> Result<u32, NoEndpoints> {
        let peer_topology = peer.and_then(|peer| self.endpoints[peer as usize].topology);
        let (endpoints, matches) = (&self.endpoints, &self.matches);
        let context = Context { now, request, endpoints, matches, peer_topology };
        let Profile { filters, scorers, picker, .. } = &self.profiles[profile];
        let run = &mut self.runs[profile];
        run.ran = true;
        run.candidates.clone_from(&self.live);
        run.totals.clear();
        run.picked.clear();
        run.kept.iter_mut().for_each(Vec::clear);
        for (&filter, kept) in filters.iter().zip(&mut run.kept) {
            self.filters[filter].filter(&context, &mut run.candidates, notes);
            kept.extend_from_slice(&run.candidates);
            if run.candidates.is_empty() {
                break;
            }
        }
        if run.candidates.is_empty() {
            return Err(NoEndpoints);
        }
        let count = run.candidates.len();
        run.scores.clear();
        run.scores.resize(count * scorers.len(), 0.0);
        run.totals.resize(count, 0.0);
        for (&(scorer, weight), scores) in scorers.iter().zip(run.scores.chunks_exact_mut(count)) {
            self.scorers[scorer].score(&context, &run.candidates, scores, notes);
            for (total, score) in run.totals.iter_mut().zip(scores) {
                *total += score.clamp(0.0, 1.0) * weight;
            }
        }
        self.pickers[*picker].pick(&run.candidates, &run.totals, &mut run.picked);
        if let Some(&Some(forced)) = self.forced_picks.get(profile) {
            run.picked.clear();
            run.picked.push(forced);
        }
        run.picked.first().copied().ok_or(NoEndpoints)
    }

    /// The request is on its way: what the decision implies is remembered.
    pub fn pre_request(&mut self, now: Time, request: &RequestView<'_>, decision: &Decision) {
        let prefill = self.prefill_profile.and_then(|profile| decision.picks[profile]);
        let targets: SmallVec<[u32; 2]> = std::iter::once(decision.primary).chain(prefill).collect();
        self.producers.iter_mut().for_each(|(_, producer)| producer.pre_request(now, request, &targets));
        if let Some(load) = &mut self.in_flight {
            for (profile, (&pick, &tokens)) in decision.picks.iter().zip(&decision.tokens).enumerate() {
                if let Some(endpoint) = pick {
                    let is_prefill = Some(profile) == self.prefill_profile;
                    load.commit(request.id, endpoint, is_prefill, tokens, &mut self.endpoints);
                }
            }
        }
        let (primary, picks, notes) = (decision.primary, &decision.picks, decision.notes);
        let dispatch = Dispatch { now, request, primary, prefill, picks, notes };
        self.filters.iter_mut().for_each(|filter| filter.pre_request(&dispatch));
        self.scorers.iter_mut().for_each(|scorer| scorer.pre_request(&dispatch));
    }

    /// The first chunk of a streamed answer came.
    pub fn first_chunk(&mut self, request: RequestId) {
        if let Some(load) = &mut self.in_flight {
            load.first_chunk(request, &mut self.endpoints);
        }
    }

    /// The request ended, in whatever way.
    pub fn ended(&mut self, request: RequestId) {
        if let Some(load) = &mut self.in_flight {
            load.ended(request, &mut self.endpoints);
        }
    }
}

/// The place of the instance of plugin `name` in `made`, which is made on first use.
fn instance<P: ?Sized>(
    config: &Config,
    name: &str,
    known: &mut Vec<String>,
    made: &mut Vec<Box<P>>,
    make: impl FnOnce(&Plugin) -> Result<Option<Box<P>>, String>,
) -> Result<usize, String> {
    if let Some(place) = known.iter().position(|known| known == name) {
        return Ok(place);
    }
    let plugin = config.plugin(name).ok_or_else(|| format!("plugin '{name}' is not configured"))?;
    let plugin = make(plugin)
        .map_err(|reason| plugin.wrong(&reason))?
        .ok_or_else(|| plugin.wrong("is not simulated"))?;
    known.push(name.to_owned());
    made.push(plugin);
    Ok(made.len() - 1)
}

fn handler(config: &Config, names: &mut Names) -> Result<Handler, String> {
    let plugin = config.plugin(&config.handler).ok_or("no profile handler configured")?;
    let disaggregation = match plugin.kind.as_str() {
        "single-profile-handler" => return Ok(Handler::Single),
        "disagg-profile-handler" => {
            Disaggregation::new(&plugin.parameters).map_err(|reason| plugin.wrong(&reason))?
        }
        _ => return Err(plugin.wrong("is not simulated")),
    };
    let decode = names
        .profile(&disaggregation.decode)
        .ok_or_else(|| plugin.wrong(&format!("there is no profile '{}' to decode", disaggregation.decode)))?;
    let decider = |name: &String| {
        let decider =
            config.plugin(name).ok_or_else(|| plugin.wrong(&format!("decider '{name}' is missing")))?;
        deciders::make(&decider.kind, &decider.parameters, names)
            .map_err(|reason| decider.wrong(&reason))?
            .ok_or_else(|| decider.wrong("does not decide"))
    };
    let decider = disaggregation.prefill_decider.as_ref().map(decider).transpose()?;
    let prefill = names.profile(&disaggregation.prefill);
    Ok(Handler::Disaggregated { decode, prefill, decider, prefill_first: disaggregation.prefill_first })
}

/// Checks the parameters of a plugin by making it; those of types that are made elsewhere are not looked at.
pub(super) fn check(kind: &str, value: &Value) -> Result<(), String> {
    let names = &mut Names::default();
    filters::make(kind, value, names, 0)?;
    scorers::make(kind, value, names)?;
    pickers::make(kind, value, TieRule::default(), 0)?;
    deciders::make(kind, value, names)?;
    match kind {
        "inflight-load-producer" => {
            InFlightLoad::new(value, names, ProducerOrder::default())?;
        }
        DEFAULT_PREFIX_PRODUCER => {
            parameters::<ApproxConfig>(value)?.check().map_err(|error| error.to_string())?;
        }
        _ => {}
    }
    Ok(())
}
