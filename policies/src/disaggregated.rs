//! Plain policies in a fleet with prefill replicas: one chooses who decodes, another one of its kind who prefills.

use forerun_sim::fleet::Role;
use forerun_sim::request::{Refusal, Rejection, Request};
use forerun_sim::router::{Caches, Choice, Endpoint, EndpointInfo, Router, View};
use forerun_sim::time::Time;

/// Every prompt is computed by a prefill replica, as llm-d's `always-disagg-pd-decider` has it. The decode replica is
/// chosen first, among those that decode; without a prefill replica of the request's model it does both.
pub struct Disaggregated {
    decode: Box<dyn Router>,
    prefill: Box<dyn Router>,
    /// By replica.
    roles: Vec<Role>,
}

impl Disaggregated {
    /// Two routers of one plain policy, which wants to be told nothing.
    #[must_use]
    pub fn new(decode: Box<dyn Router>, prefill: Box<dyn Router>) -> Self {
        Self { decode, prefill, roles: Vec::new() }
    }
}

impl Router for Disaggregated {
    fn start(&mut self, endpoints: &[EndpointInfo]) {
        self.roles = endpoints.iter().map(|endpoint| endpoint.role).collect();
    }

    fn place(&mut self, now: Time, request: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        let roles = &self.roles;
        let prefills = |endpoint: &Endpoint| roles[endpoint.replica.0 as usize] == Role::Prefill;
        let endpoint = place_among(&mut *self.decode, now, request, view, |one| one.ready && !prefills(one))
            .unwrap_or(Err(Rejection::Router(Refusal::NoEndpoint)))?;
        let prefill = place_among(&mut *self.prefill, now, request, view, |one| one.ready && prefills(one))
            .transpose()?;
        Ok(Choice { endpoint, prefill })
    }
}

/// The choice of `router` among some of the endpoints; `None` when there are none of them.
fn place_among(
    router: &mut dyn Router,
    now: Time,
    request: &Request,
    view: &mut View<'_>,
    is_one: impl Fn(&Endpoint) -> bool,
) -> Option<Result<usize, Rejection>> {
    let places: Vec<usize> = (0..view.endpoints.len()).filter(|&at| is_one(&view.endpoints[at])).collect();
    if places.is_empty() {
        return None;
    }
    let endpoints: Vec<Endpoint> = places.iter().map(|&at| view.endpoints[at]).collect();
    let mut caches = Part { caches: &mut *view.caches, places: &places };
    let mut part = View { endpoints: &endpoints, adapters: &[], caches: &mut caches };
    Some(router.place(now, request, &mut part).map(|choice| places[choice.endpoint]))
}

/// The caches of some of the endpoints.
struct Part<'a> {
    caches: &'a mut dyn Caches,
    places: &'a [usize],
}

impl Caches for Part<'_> {
    fn cached_tokens(&mut self, endpoint: usize) -> u32 {
        self.caches.cached_tokens(self.places[endpoint])
    }

    fn host_tokens(&mut self, endpoint: usize, gpu_tokens: u32) -> u32 {
        self.caches.host_tokens(self.places[endpoint], gpu_tokens)
    }
}
