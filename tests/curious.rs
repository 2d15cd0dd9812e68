//! A router that looks at everything it may, holds some requests and refuses others: what it sees decides what it
//! does, so that outcomes differ when two forms of the fleet show it different things.

use std::collections::VecDeque;

use forerun_sim::request::{Refusal, Rejection, Request, RequestId};
use forerun_sim::router::{
    Adapters, Admission, Choice, Endpoint, EndpointInfo, Needs, Release, Router, View,
};
use forerun_sim::time::{Span, Time};

use crate::harness::ns;

/// How long it holds a request.
const HELD: Span = Span::from_nanos(150_000);

/// The router; its name among the policies is "curious".
#[derive(Default)]
pub(crate) struct Curious {
    /// Requests held, with the time of their release.
    queue: VecDeque<(Time, RequestId)>,
    /// Committed requests of each replica that have no first token yet.
    prefilling: Vec<i64>,
    placed: Vec<(RequestId, usize)>,
}

impl Router for Curious {
    fn needs(&self) -> Needs {
        Needs { scrape: Some(ns(70_000)), adapters: true, kv_events: Some(ns(20_000)), feedback: true }
    }

    fn start(&mut self, endpoints: &[EndpointInfo]) {
        self.prefilling = vec![0; endpoints.len()];
    }

    fn admit(&mut self, now: Time, request: &Request, _: &[Endpoint]) -> Admission {
        match request.id.0 {
            id if id % 17 == 5 => Admission::Refuse(Rejection::Router(Refusal::Saturated)),
            id if id % 3 == 1 => {
                self.queue.push_back((now + HELD, request.id));
                Admission::Hold
            }
            _ => Admission::Pass,
        }
    }

    fn place(&mut self, _: Time, request: &Request, view: &mut View<'_>) -> Result<Choice, Rejection> {
        if request.id.0 % 19 == 6 {
            return Err(Rejection::Router(Refusal::NoEndpoint));
        }
        let mut best = (i64::MIN, 0);
        let ready = |(_, endpoint): &(usize, &Endpoint)| endpoint.ready;
        for (index, endpoint) in view.endpoints.iter().enumerate().filter(ready) {
            let Adapters { published, running, waiting } = &view.adapters[index];
            let adapters = running.len() + 2 * waiting.len() + usize::from(*published);
            let load = 3 * i64::from(endpoint.metrics.waiting) + i64::from(endpoint.metrics.running);
            let prefilling = self.prefilling[endpoint.replica.0 as usize];
            let full = (endpoint.metrics.kv_usage * 1e6) as i64;
            let cached = i64::from(view.caches.cached_tokens(index));
            let score = 1000 * cached - 5000 * load - full - 700 * adapters as i64 - 900 * prefilling;
            best = best.max((score, index));
        }
        Ok(Choice::alone(best.1))
    }

    fn release(&mut self, now: Time, _: &[Endpoint]) -> Option<Release> {
        let &(due, request) = self.queue.front()?;
        if due > now {
            return None;
        }
        self.queue.pop_front();
        let refused = (request.0 % 23 == 7).then_some(Rejection::Router(Refusal::Expired));
        Some(Release { request, refused })
    }

    fn next_release(&self, now: Time) -> Option<Time> {
        self.queue.front().map(|&(due, _)| due.max(now + ns(1)))
    }

    fn committed(&mut self, _: Time, request: &Request, choice: Choice) {
        // Endpoints of a model are counted from its first replica on; for load it does not matter which.
        let index = choice.endpoint.min(self.prefilling.len() - 1);
        self.prefilling[index] += 1;
        self.placed.push((request.id, index));
    }

    fn first_token(&mut self, _: Time, request: RequestId) {
        self.forget(request);
    }

    fn ended(&mut self, _: Time, request: RequestId) {
        self.forget(request);
        self.queue.retain(|&(_, held)| held != request);
    }
}

impl Curious {
    fn forget(&mut self, request: RequestId) {
        if let Some(at) = self.placed.iter().position(|&(id, _)| id == request) {
            let (_, index) = self.placed.swap_remove(at);
            self.prefilling[index] -= 1;
        }
    }
}
