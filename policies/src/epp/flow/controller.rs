//! The flow controller: requests wait here while the pool is too full for their priority.
//!
//! A state machine with an explicit clock. Upstream runs a dispatch cycle at each arrival and each millisecond, and a
//! cycle dispatches at most one request: no more than 1,000 a second leave the queue, plus one per arrival.
//! Source: llm-d-router at ebab6879, `pkg/epp/flowcontrol`, and its recordings.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use forerun_sim::request::RequestId;
use forerun_sim::time::{Span, Time};

use super::band::{Band, BandConfig, Key, Queued};
use super::fairness::{LasConfig, Programs};
use super::ordering::after;
use super::usage_limit::UsageLimit;

/// How often cycles run without arrivals.
pub const CYCLE: Span = Span::from_millis(1);

/// How long requests may wait unless something else is configured.
const TTL_DEFAULT: Span = Span::from_secs(60);

/// What is configured under `flowControl`.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowConfig {
    /// Bytes that may wait over all priorities; no limit by default.
    pub max_bytes: Option<u64>,
    /// Requests that may wait over all priorities; no limit by default.
    pub max_requests: Option<u64>,
    /// How long a request may wait; zero is for ever.
    pub request_ttl: Span,
    /// How long one may wait that finds the pool without endpoints; zero is for ever.
    pub no_endpoint_ttl: Span,
    /// Priorities that are configured.
    pub bands: Vec<(i32, BandConfig)>,
    /// Any other priority from 0 up.
    pub default_band: BandConfig,
    /// Any other negative priority.
    pub default_negative_band: BandConfig,
    /// Ceilings of the priorities.
    pub usage_limit: UsageLimit,
    /// Parameters of `program-aware-fairness`.
    pub las: LasConfig,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_bytes: None,
            max_requests: None,
            request_ttl: TTL_DEFAULT,
            no_endpoint_ttl: TTL_DEFAULT,
            bands: Vec::new(),
            default_band: BandConfig::default(),
            default_negative_band: BandConfig::default(),
            usage_limit: UsageLimit::default(),
            las: LasConfig::default(),
        }
    }
}

/// A request that is to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which request.
    pub id: RequestId,
    /// Its flow: the fairness id of its header.
    pub flow: String,
    /// Higher ones go first.
    pub priority: i32,
    /// Size of its body.
    pub bytes: u64,
    /// How long it may wait, where it says so itself.
    pub ttl: Option<Span>,
    /// Its limit of the time to first token, where a header has one.
    pub ttft_limit: Option<Span>,
}

impl Waiting {
    /// A request without a size, a time to live and a limit.
    #[must_use]
    pub fn new(id: RequestId, flow: &str, priority: i32) -> Self {
        Self { id, flow: flow.to_owned(), priority, bytes: 0, ttl: None, ttft_limit: None }
    }
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// As many wait as may, of its priority or of all.
    QueueFull,
    /// It waited as long as it may; the pool has endpoints.
    Expired,
    /// It waited as long as it may; the pool has no endpoints.
    ExpiredWithoutEndpoints,
}

impl Shed {
    /// The HTTP status that the client gets.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::QueueFull | Self::Expired => 429,
            Self::ExpiredWithoutEndpoints => 503,
        }
    }
}

/// Requests that wait, by priority.
#[derive(Clone, Debug, Default)]
pub struct FlowController {
    config: FlowConfig,
    bands: BTreeMap<Reverse<i32>, Band>,
    /// When each waiting request expires, and where it waits.
    deadlines: BTreeSet<(Time, u64, i32, String, Time)>,
    programs: Programs,
    bytes: u64,
    requests: u64,
    arrivals: u64,
    priorities: Vec<i32>,
    ceilings: Vec<f64>,
}

impl FlowController {
    /// A controller without requests.
    #[must_use]
    pub fn new(config: FlowConfig) -> Self {
        let bands =
            config.bands.iter().map(|&(priority, band)| (Reverse(priority), Band::new(band))).collect();
        let programs = Programs::new(config.las);
        let mut controller = Self { config, bands, programs, ..Self::default() };
        controller.list_priorities();
        controller
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.requests
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Requests of `priority` that wait.
    #[must_use]
    pub fn waiting(&self, priority: i32) -> u64 {
        self.bands.get(&Reverse(priority)).map_or(0, Band::len)
    }

    /// The highest priority that waits.
    #[must_use]
    pub fn highest_waiting(&self) -> Option<i32> {
        let mut bands = self.bands.iter();
        bands.find_map(|(priority, band)| (band.len() > 0).then_some(priority.0))
    }

    /// Lets `request` wait. A cycle should follow.
    ///
    /// # Errors
    /// When the queue is full.
    pub fn enqueue(&mut self, now: Time, request: Waiting, has_endpoints: bool) -> Result<(), Shed> {
        let FlowConfig { max_bytes, max_requests, .. } = self.config;
        let band = self.band(request.priority);
        let is_full = band.is_full(request.bytes);
        let too_many = max_requests.is_some_and(|max| self.requests >= max);
        let too_big = max_bytes.is_some_and(|max| self.bytes.saturating_add(request.bytes) > max);
        if is_full || too_many || too_big {
            return Err(Shed::QueueFull);
        }
        let default = if has_endpoints { self.config.request_ttl } else { self.config.no_endpoint_ttl };
        let ttl = request.ttl.unwrap_or(default);
        let deadline = if ttl == Span::ZERO { Time::NEVER } else { after(now, ttl) };
        self.arrivals += 1;
        self.requests += 1;
        self.bytes += request.bytes;
        let arrival = self.arrivals;
        let band = self.band(request.priority);
        let key = (band.config.ordering.key(&request, now, deadline), arrival);
        let place = (deadline, arrival, request.priority, request.flow.clone(), key.0);
        band.insert(key, Queued { request, received: now, deadline });
        self.deadlines.insert(place);
        Ok(())
    }

    /// One dispatch cycle at a saturation: the request that goes, if one may.
    ///
    /// The priorities are visited from the highest down. At the first whose ceiling the saturation has reached the
    /// cycle ends: nobody overtakes a blocked higher priority.
    pub fn cycle(&mut self, now: Time, saturation: f64) -> Option<Waiting> {
        self.config.usage_limit.ceilings(saturation, &self.priorities, &mut self.ceilings);
        for (band, &ceiling) in self.bands.values_mut().zip(&self.ceilings) {
            if saturation >= ceiling {
                return None;
            }
            if let Some((flow, key)) = band.next(now, &mut self.programs) {
                let priority = band.flows[&flow][&key].request.priority;
                return self.take(priority, &flow, key).map(|queued| queued.request);
            }
        }
        None
    }

    /// The `cycles` that ran while nothing waited, all at one saturation.
    pub fn idle(&mut self, now: Time, cycles: u64, saturation: f64) {
        debug_assert!(self.is_empty(), "nobody waits in idle cycles");
        if cycles > 0 {
            self.config.usage_limit.pass(cycles - 1, saturation, self.priorities.len());
            self.cycle(now, saturation);
        }
    }

    /// Turns away whoever waited too long, the longest overdue first. (Upstream frees their places in the limits
    /// within a second; here it is at once.)
    pub fn expire(&mut self, now: Time, has_endpoints: bool) -> Vec<(Waiting, Shed)> {
        let reason = if has_endpoints { Shed::Expired } else { Shed::ExpiredWithoutEndpoints };
        std::iter::from_fn(|| self.expire_first(now)).map(|waiting| (waiting, reason)).collect()
    }

    /// Turns away the request that is overdue the longest, if any is.
    pub fn expire_first(&mut self, now: Time) -> Option<Waiting> {
        let (deadline, arrival, priority, flow, order) = self.deadlines.first().cloned()?;
        if deadline > now {
            return None;
        }
        self.take(priority, &flow, (order, arrival)).map(|queued| queued.request)
    }

    /// Takes a request out whose client has gone; whether it waited here.
    pub fn remove(&mut self, request: RequestId) -> bool {
        let place = self.deadlines.iter().find(|(_, arrival, priority, flow, order)| {
            let band = self.bands.get(&Reverse(*priority));
            let queued = band.and_then(|band| band.flows.get(flow)?.get(&(*order, *arrival)));
            queued.is_some_and(|queued| queued.request.id == request)
        });
        let Some((_, arrival, priority, flow, order)) = place.cloned() else { return false };
        self.take(priority, &flow, (order, arrival)).is_some()
    }

    /// When the next request expires, if it is not dispatched before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|place| place.0)
    }

    /// A dispatched request of `flow` was sent to an endpoint.
    pub fn dispatched(&mut self, flow: &str) {
        self.programs.dispatched(flow);
    }

    /// A request of `flow` has ended, after so many tokens.
    pub fn completed(&mut self, now: Time, flow: &str, prompt_tokens: u64, output_tokens: u64) {
        self.programs.completed(now, flow, prompt_tokens, output_tokens);
    }

    /// The band of a priority, made on first use.
    fn band(&mut self, priority: i32) -> &mut Band {
        if !self.bands.contains_key(&Reverse(priority)) {
            let FlowConfig { default_band, default_negative_band, .. } = self.config;
            let config = if priority < 0 { default_negative_band } else { default_band };
            self.bands.insert(Reverse(priority), Band::new(config));
            self.list_priorities();
        }
        self.bands.get_mut(&Reverse(priority)).expect("it is there now")
    }

    fn list_priorities(&mut self) {
        self.priorities = self.bands.keys().map(|priority| priority.0).collect();
    }

    fn take(&mut self, priority: i32, flow: &str, key: Key) -> Option<Queued> {
        let queued = self.bands.get_mut(&Reverse(priority))?.remove(flow, key)?;
        self.requests -= 1;
        self.bytes -= queued.request.bytes;
        self.deadlines.remove(&(queued.deadline, key.1, priority, flow.to_owned(), key.0));
        Some(queued)
    }
}
