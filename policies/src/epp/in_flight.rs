//! `inflight-load-producer`: what this router has sent and not yet seen end.

use forerun_sim::request::RequestId;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::Value;
use smallvec::SmallVec;

use super::plugin::{Names, parameters};
use super::prefix::PrefixMatch;
use super::{EndpointState, InFlight, RequestView};

/// Parameters of `inflight-load-producer`.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Whether a guess of the output counts as tokens too.
    add_estimated_output_tokens: bool,
    /// The guess: this times the prompt.
    output_ratio: f64,
    /// The most that is guessed.
    max_estimated_output_tokens: Option<i64>,
    /// The producer whose matches are not computed again; empty for the approximate one.
    prefix_match_info_producer_name: String,
    /// Whether replicas of the router share their counts; needs a syncer, which is not modelled.
    sync_cross_replica_state: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            add_estimated_output_tokens: false,
            output_ratio: 1.5,
            max_estimated_output_tokens: None,
            prefix_match_info_producer_name: String::new(),
            sync_cross_replica_state: true,
        }
    }
}

/// Which producer runs first. Upstream's order is random at each start, because the in-flight producer needs prefix
/// matches only optionally; it changes what scorers see, not what is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProducerOrder {
    /// The prefix producers: this request's uncached tokens are known per endpoint.
    #[default]
    PrefixFirst,
    /// The in-flight producer: the whole prompt counts as uncached everywhere.
    InFlightFirst,
}

/// Counts requests and tokens in flight.
///
/// Tokens of a request on an endpoint: (blocks - matched) * block + what lies beyond the hashed blocks; the partial
/// last block counts as a full one; the whole prompt without a match; plus the guess of the output, also bounded by
/// the client's `max_tokens`. Tokens are released at the first chunk, or at the end when they hold a guess of the
/// output; requests at the end. A prefill pick releases both at the first chunk.
/// Source: llm-d-router requestcontrol/dataproducer/inflightload.
pub(super) struct InFlightLoad {
    parameters: Parameters,
    order: ProducerOrder,
    /// The slot of the matches that it reads.
    pub(super) producer: usize,
    entries: FxHashMap<RequestId, SmallVec<[Entry; 2]>>,
}

/// What one profile's pick holds of an endpoint.
struct Entry {
    endpoint: u32,
    is_prefill: bool,
    requests: u32,
    tokens: u64,
}

impl InFlightLoad {
    pub(super) fn new(value: &Value, names: &mut Names, order: ProducerOrder) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let producer = names.producer(&parameters.prefix_match_info_producer_name);
        Ok(Self { parameters, order, producer, entries: FxHashMap::default() })
    }

    /// Tokens that `request` would commit on an endpoint with this match.
    pub(super) fn committed(&self, request: &RequestView<'_>, prefix: Option<PrefixMatch>) -> u64 {
        let prompt = request.prompt_tokens();
        let uncached = prefix.map_or(prompt, |prefix| {
            let block = u64::from(prefix.block_tokens);
            let missing = u64::from(prefix.total_blocks.saturating_sub(prefix.matched_blocks)) * block;
            missing + prompt.saturating_sub(u64::from(prefix.total_blocks) * block)
        });
        uncached + self.estimated_output(request)
    }

    fn estimated_output(&self, request: &RequestView<'_>) -> u64 {
        let prompt = request.prompt_tokens();
        if !self.parameters.add_estimated_output_tokens || prompt == 0 {
            return 0;
        }
        let mut tokens = (prompt as f64 * self.parameters.output_ratio).round() as i64;
        if let Some(max) = request.max_tokens {
            tokens = tokens.min(i64::from(max));
        }
        if let Some(max) = self.parameters.max_estimated_output_tokens {
            tokens = tokens.min(max);
        }
        u64::try_from(tokens).unwrap_or(0)
    }

    /// Writes this request's uncached tokens into every endpoint, as the scorers will see them.
    pub(super) fn publish(
        &self,
        request: &RequestView<'_>,
        matches: &[Option<PrefixMatch>],
        endpoints: &mut [EndpointState],
    ) {
        for (place, endpoint) in endpoints.iter_mut().enumerate() {
            let prefix = match self.order {
                ProducerOrder::PrefixFirst => matches.get(place).copied().flatten(),
                ProducerOrder::InFlightFirst => None,
            };
            endpoint.uncached_tokens = Some(self.committed(request, prefix));
        }
    }

    /// Counts one profile's pick of a request.
    pub(super) fn commit(
        &mut self,
        request: RequestId,
        endpoint: u32,
        is_prefill: bool,
        tokens: u64,
        endpoints: &mut [EndpointState],
    ) {
        let load = endpoints[endpoint as usize].in_flight.get_or_insert_default();
        load.requests += 1;
        load.tokens += tokens;
        self.entries.entry(request).or_default().push(Entry { endpoint, is_prefill, requests: 1, tokens });
    }

    /// The first chunk of the answer reached the router.
    pub(super) fn first_chunk(&mut self, request: RequestId, endpoints: &mut [EndpointState]) {
        let holds_output = self.parameters.add_estimated_output_tokens;
        for entry in self.entries.get_mut(&request).into_iter().flatten() {
            let load = endpoints[entry.endpoint as usize].in_flight.get_or_insert_default();
            if entry.is_prefill {
                entry.release_requests(load);
                entry.release_tokens(load);
            } else if !holds_output {
                entry.release_tokens(load);
            }
        }
    }

    /// The request ended, in whatever way.
    pub(super) fn ended(&mut self, request: RequestId, endpoints: &mut [EndpointState]) {
        for mut entry in self.entries.remove(&request).into_iter().flatten() {
            let load = endpoints[entry.endpoint as usize].in_flight.get_or_insert_default();
            entry.release_requests(load);
            entry.release_tokens(load);
        }
    }
}

impl Entry {
    fn release_requests(&mut self, load: &mut InFlight) {
        load.requests -= std::mem::take(&mut self.requests);
    }

    fn release_tokens(&mut self, load: &mut InFlight) {
        load.tokens -= std::mem::take(&mut self.tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::prompt::{Content, Prompt};
    use forerun_sim::request::Label;
    use serde_json::json;

    fn request(prompt: &Prompt, max_tokens: Option<u32>) -> RequestView<'_> {
        RequestView { id: RequestId(7), model: Label::NONE, prompt, max_tokens, priority: 0, headers: &[] }
    }

    fn producer(parameters: &Value) -> InFlightLoad {
        InFlightLoad::new(parameters, &mut Names::default(), ProducerOrder::PrefixFirst).unwrap()
    }

    fn matched(matched_blocks: u32, total_blocks: u32, block_tokens: u32) -> Option<PrefixMatch> {
        Some(PrefixMatch { matched_blocks, cached_blocks: matched_blocks, total_blocks, block_tokens })
    }

    #[test]
    fn a_partial_last_block_counts_in_full_and_what_is_not_hashed_too() {
        let prompt = Prompt::of(Content::private(0), 303);
        let load = producer(&json!(null));
        assert_eq!(load.committed(&request(&prompt, None), matched(0, 2, 256)), 512);
        assert_eq!(load.committed(&request(&prompt, None), matched(1, 2, 64)), 64 + 303 - 128);
        assert_eq!(load.committed(&request(&prompt, None), None), 303);
    }

    #[test]
    fn the_guessed_output_is_bounded_twice() {
        let prompt = Prompt::of(Content::private(0), 303);
        let load = producer(&json!({"addEstimatedOutputTokens": true, "maxEstimatedOutputTokens": 400}));
        assert_eq!(load.committed(&request(&prompt, None), None), 303 + 400);
        assert_eq!(load.committed(&request(&prompt, Some(100)), None), 303 + 100);
        let load = producer(&json!({"addEstimatedOutputTokens": true}));
        assert_eq!(load.committed(&request(&prompt, None), None), 303 + 455, "454.5 is rounded up");
    }

    #[test]
    fn tokens_go_with_the_first_chunk_and_requests_with_the_end() {
        for (parameters, after_first) in
            [(json!(null), [(1, 0), (0, 0)]), (json!({"addEstimatedOutputTokens": true}), [(1, 50), (0, 0)])]
        {
            let mut load = producer(&parameters);
            let mut endpoints = vec![EndpointState::default(); 2];
            let counts = |endpoints: &[EndpointState]| {
                let count = |state: &EndpointState| state.in_flight.map(|l| (l.requests, l.tokens)).unwrap();
                [count(&endpoints[0]), count(&endpoints[1])]
            };
            load.commit(RequestId(7), 0, false, 50, &mut endpoints);
            load.commit(RequestId(7), 1, true, 60, &mut endpoints);
            assert_eq!(counts(&endpoints), [(1, 50), (1, 60)]);
            load.first_chunk(RequestId(7), &mut endpoints);
            assert_eq!(counts(&endpoints), after_first);
            load.ended(RequestId(7), &mut endpoints);
            load.ended(RequestId(7), &mut endpoints);
            assert_eq!(counts(&endpoints), [(0, 0), (0, 0)]);
        }
    }
}
