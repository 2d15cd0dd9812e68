//! The producer: KV events and requests in, matches out.

use std::collections::VecDeque;

use forerun_sim::prompt::Prompt;
use forerun_sim::request::Label;
use forerun_sim::time::{Span, Time};

use super::super::text::mix;
use super::super::{PrefixMatch, PrefixProducer, estimate};
use super::{ExtentKvIndex, Found, Kind, KvIndex, PreciseConfig, Text};
use crate::epp::{EndpointInfo, RequestView};

/// What a pod reports of its KV cache, by the text of the blocks.
#[derive(Clone, Debug)]
pub enum KvEvent {
    /// It has blocks from this one on, to the end of the text.
    Stored {
        /// Where.
        kind: Kind,
        /// The text up to the last of the blocks.
        text: Text,
        /// The first of the blocks.
        from: u32,
    },
    /// It no longer has blocks from this one on, to the end of the text.
    Removed {
        /// Where.
        kind: Kind,
        /// The text up to the last of the blocks.
        text: Text,
        /// The first of the blocks.
        from: u32,
    },
    /// It has nothing any more.
    Cleared,
}

/// `precise-prefix-cache-producer` over either form of the index.
#[derive(Clone, Debug)]
pub struct PreciseProducer<I = ExtentKvIndex> {
    config: PreciseConfig,
    index: I,
    found: Vec<Found>,
    /// What has happened and is not known yet, by the instant when it will be.
    events: VecDeque<(Time, u32, KvEvent)>,
    /// Speculative entries by the end of their time.
    speculative: VecDeque<(Time, u32, Text)>,
}

impl<I: KvIndex> PreciseProducer<I> {
    /// A producer that has seen nothing.
    #[must_use]
    pub fn new(config: PreciseConfig) -> Self {
        let index = I::new(config.index);
        Self { config, index, found: Vec::new(), events: VecDeque::new(), speculative: VecDeque::new() }
    }

    /// The full blocks of a prompt as the engine names them: the text of its events.
    #[must_use]
    pub fn engine_text(&self, model: Label, prompt: &Prompt) -> Text {
        Text::of(prompt, root(model, true), self.config.block_size_tokens).full_blocks()
    }

    /// `endpoint` reports `event` at `now`. Events come in the order of time.
    pub fn report(&mut self, now: Time, endpoint: u32, event: KvEvent) {
        self.events.push_back((later(now, self.config.event_delay), endpoint, event));
    }

    fn text_of(&self, request: &RequestView<'_>) -> Text {
        match self.config.estimated_bytes_per_token {
            None => self.engine_text(request.model, request.prompt),
            Some(bytes) => {
                let root = root(request.model, false);
                estimate::text_of(request.prompt, root, self.config.block_size_tokens, bytes).full_blocks()
            }
        }
    }

    /// Learns what has become known by `now`.
    fn catch_up(&mut self, now: Time) {
        while self.events.front().is_some_and(|event| event.0 <= now) {
            let Some((_, pod, event)) = self.events.pop_front() else { break };
            match event {
                KvEvent::Stored { kind, text, from } => self.index.add(pod, kind, &text, from),
                KvEvent::Removed { kind, text, from } => self.index.evict(pod, kind, &text, from),
                KvEvent::Cleared => self.index.clear(pod),
            }
        }
        while self.speculative.front().is_some_and(|entry| entry.0 <= now) {
            let Some((_, pod, text)) = self.speculative.pop_front() else { break };
            self.index.evict(pod, Kind::SPECULATIVE, &text, 0);
        }
    }
}

impl<I: KvIndex> PrefixProducer for PreciseProducer<I> {
    fn add_endpoint(&mut self, _: &EndpointInfo) {
        self.found.push(Found::default());
    }

    fn remove_endpoint(&mut self, endpoint: u32) {
        self.index.clear(endpoint);
        self.events.retain(|event| event.1 != endpoint);
        self.speculative.retain(|entry| entry.1 != endpoint);
    }

    fn produce(&mut self, now: Time, request: &RequestView<'_>, matches: &mut [Option<PrefixMatch>]) {
        self.catch_up(now);
        let text = self.text_of(request);
        let (total_blocks, block_tokens) = (text.blocks(), text.block_tokens());
        if total_blocks == 0 {
            return;
        }
        self.index.find(&text, &self.config.weights, &mut self.found);
        for (place, found) in matches.iter_mut().zip(&self.found) {
            let (matched_blocks, cached_blocks) = (found.matched(), found.cached);
            *place = Some(PrefixMatch { matched_blocks, cached_blocks, total_blocks, block_tokens });
        }
    }

    fn pre_request(&mut self, now: Time, request: &RequestView<'_>, targets: &[u32]) {
        if !self.config.speculative_indexing {
            return;
        }
        let text = self.text_of(request);
        let end = later(now, self.config.speculative_ttl);
        for &target in targets {
            self.index.add(target, Kind::SPECULATIVE, &text, 0);
            self.speculative.push_back((end, target, text.clone()));
        }
    }
}

/// Where a model's texts begin. Estimated tokens are never equal to real ones.
fn root(model: Label, is_real: bool) -> u64 {
    mix(u64::from(model.0), u64::from(is_real))
}

fn later(now: Time, span: Span) -> Time {
    Time::from_nanos(now.as_nanos().saturating_add(span.as_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::prompt::Content;
    use forerun_sim::request::RequestId;

    const MODEL: Label = Label(1);

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    fn producer(config: PreciseConfig) -> PreciseProducer {
        let mut producer = PreciseProducer::new(config);
        (0..2).for_each(|_| producer.add_endpoint(&EndpointInfo::default()));
        producer
    }

    /// Runs `ask` with a request of 40 tokens: two full blocks.
    fn with_request<R>(ask: impl FnOnce(&RequestView<'_>) -> R) -> R {
        let prompt = &Prompt::of(Content::shared(0), 40);
        ask(&RequestView {
            id: RequestId(0),
            model: MODEL,
            prompt,
            max_tokens: None,
            priority: 0,
            headers: &[],
        })
    }

    /// The matched blocks of the request on both endpoints, of how many.
    fn matches(producer: &mut PreciseProducer, now: Time) -> ([u32; 2], u32) {
        let mut matches = [None; 2];
        with_request(|request| producer.produce(now, request, &mut matches));
        let matches = matches.map(|found| found.expect("a match is published"));
        (matches.map(|found| found.matched_blocks), matches[0].total_blocks)
    }

    fn stored(producer: &PreciseProducer) -> KvEvent {
        let text = with_request(|request| producer.engine_text(MODEL, request.prompt));
        KvEvent::Stored { kind: Kind::GPU, text, from: 0 }
    }

    #[test]
    fn an_event_takes_effect_after_its_delay() {
        let event_delay = Span::from_millis(10);
        let mut producer = producer(PreciseConfig { event_delay, ..PreciseConfig::default() });
        producer.report(at(0), 1, stored(&producer));
        assert_eq!(matches(&mut producer, at(9)), ([0, 0], 2), "only full blocks count");
        assert_eq!(matches(&mut producer, at(10)), ([0, 2], 2));
    }

    #[test]
    fn speculative_entries_live_for_two_seconds() {
        let mut producer = producer(PreciseConfig { speculative_indexing: true, ..PreciseConfig::default() });
        with_request(|request| producer.pre_request(at(0), request, &[0]));
        assert_eq!(matches(&mut producer, at(1_999)).0, [2, 0]);
        assert_eq!(matches(&mut producer, at(2_000)).0, [0, 0]);
    }

    #[test]
    fn estimated_tokens_never_match_what_engines_report() {
        let estimated_bytes_per_token = Some(4.0);
        let mut producer = producer(PreciseConfig { estimated_bytes_per_token, ..PreciseConfig::default() });
        producer.report(at(0), 0, stored(&producer));
        assert_eq!(matches(&mut producer, at(1)).0, [0, 0]);
    }

    #[test]
    fn a_prompt_without_a_full_block_publishes_nothing() {
        let mut producer = producer(PreciseConfig { block_size_tokens: 64, ..PreciseConfig::default() });
        let mut matches = [None; 2];
        with_request(|request| producer.produce(at(0), request, &mut matches));
        assert_eq!(matches, [None; 2]);
    }
}
