//! One decision of an endpoint picker without a run: what `forerun route` shows.

mod state;

use std::path::Path;

use forerun_policies::epp::explain::DecisionReport;
use forerun_policies::epp::prefix::PrefixMatch;
use forerun_policies::epp::{
    EndpointInfo, InFlight, Latency, Metrics, Options, RequestView, Scheduler, TieRule,
};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels, RequestId};
use forerun_sim::time::{Span, Time};

use crate::decision::{Explained, RequestReport};
use crate::error::{InputError, hint};
use crate::routing;
use crate::scenario::RouterSpec;
use crate::scenario::read::read_text;
use state::{EndpointSpec, State};

/// When the decision is made: late enough for metrics of any age that is accepted.
const NOW: Time = Time::from_nanos(state::AGE_MS_MAX * 1_000_000);

/// How the decision is made, beyond what the files say.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteOptions {
    /// Seed of what is drawn.
    pub seed: u64,
    /// Take equals in turn instead of drawing them.
    pub rotate: bool,
}

/// The decision of the configuration in the file `epp` (read as `spec` says) on the state in the file `state`.
///
/// # Errors
/// When a file cannot be read or is wrong, or the state names what the configuration does not have.
pub fn route(
    epp: &Path,
    spec: &RouterSpec,
    state: &Path,
    options: RouteOptions,
) -> Result<Explained, InputError> {
    let config = routing::load(epp, spec)?;
    let place = state.display().to_string();
    let state = State::parse(&read_text(state, "state")?).map_err(|error| error.at(&place))?;
    let tie_rule = if options.rotate { TieRule::Rotate } else { TieRule::Shuffle };
    let options = Options { seed: options.seed, tie_rule, ..Options::default() };
    let wrong = |why: String| InputError::new(why).at(&epp.display().to_string());
    let mut scheduler = Scheduler::new(&config, options).map_err(wrong)?;
    let mut labels = Labels::default();
    check_producers(&state, scheduler.prefix_producers()).map_err(|error| error.at(&place))?;
    for endpoint in &state.endpoints {
        // What the state says takes the place of an index that has seen nothing.
        endpoint.prefix.keys().for_each(|producer| scheduler.detach(producer));
    }
    for (number, endpoint) in state.endpoints.iter().enumerate() {
        let at = |error: InputError| error.at(&format!("endpoints.{number}")).at(&place);
        add(&mut scheduler, endpoint, &state, &mut labels).map_err(at)?;
    }
    let request = &state.request;
    let prompt = match request.prompt_tokens {
        0 => Prompt::new(),
        tokens => Prompt::of(Content::private(0), tokens),
    };
    let headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let named = request.adapter.as_ref().or(request.model.as_ref());
    let view = RequestView {
        id: RequestId(0),
        model: named.map_or(Label::NONE, |name| labels.intern(name)),
        prompt: &prompt,
        max_tokens: request.max_tokens,
        priority: request.priority,
        headers: &headers,
    };
    let decision = scheduler.schedule(NOW, &view);
    let report = DecisionReport::new(&config, &scheduler, NOW, decision.as_ref().map_err(|&error| error));
    let asked = RequestReport { prompt_tokens: request.prompt_tokens, ..RequestReport::default() };
    Ok(Explained::new(epp.display().to_string(), asked, Some(report)))
}

/// A producer that no plugin reads would be a slip of the pen.
fn check_producers(state: &State, known: &[String]) -> Result<(), InputError> {
    for (number, endpoint) in state.endpoints.iter().enumerate() {
        if let Some(name) = endpoint.prefix.keys().find(|name| !known.contains(name)) {
            let hint = hint(name, known.iter().map(String::as_str));
            let read = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(InputError::new(format!(
                "endpoints.{number}.prefix: no plugin reads matches of `{name}`{hint}; those that are read: {read}"
            )));
        }
    }
    Ok(())
}

/// Adds an endpoint with everything that the state says of it.
fn add(
    scheduler: &mut Scheduler,
    spec: &EndpointSpec,
    state: &State,
    labels: &mut Labels,
) -> Result<(), InputError> {
    let number = scheduler.add_endpoint(EndpointInfo {
        namespace: "default".to_owned(),
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        block_size: spec.block_size,
        num_gpu_blocks: spec.num_gpu_blocks,
        topology: None,
    });
    if let Some(metrics) = &spec.metrics {
        let mut intern = |names: &[String]| names.iter().map(|name| labels.intern(name)).collect();
        let scraped = Metrics {
            waiting: metrics.waiting,
            running: metrics.running,
            kv_usage: metrics.kv_usage,
            max_lora: metrics.max_lora,
            active_adapters: intern(&metrics.running_adapters),
            waiting_adapters: intern(&metrics.waiting_adapters),
        };
        let age = Span::from_nanos((metrics.age_ms * 1e6) as u64);
        scheduler.scrape(Time::from_nanos(NOW.as_nanos() - age.as_nanos()), number, scraped);
    }
    for (producer, prefix) in &spec.prefix {
        let total_blocks = prefix.total_blocks(state.request.prompt_tokens);
        let cached_blocks = prefix.cached_blocks.unwrap_or(prefix.matched_blocks);
        let (matched_blocks, block_tokens) = (prefix.matched_blocks, prefix.block_tokens);
        let found = PrefixMatch { matched_blocks, cached_blocks, total_blocks, block_tokens };
        scheduler.set_match(producer, number, Some(found));
    }
    if let Some(load) = spec.in_flight
        && !scheduler.set_in_flight(number, InFlight { requests: load.requests, tokens: load.tokens })
    {
        return Err(InputError::new("`in_flight` is read by no plugin of the configuration: remove it"));
    }
    if let Some(latency) = spec.latency {
        scheduler.set_latency(
            number,
            Some(Latency {
                ttft_headroom: latency.ttft_headroom_ms,
                tpot_headroom: latency.tpot_headroom_ms,
                ttft: latency.ttft_ms,
                tpot: latency.tpot_ms,
                dispatched: latency.dispatched,
            }),
        );
    }
    for (name, &value) in &spec.attributes {
        if !scheduler.set_attribute(name, number, value) {
            return Err(InputError::new(format!(
                "attributes.{name} is read by no plugin of the configuration: remove it"
            )));
        }
    }
    Ok(())
}
