//! The producer: requests in, matches out.

use forerun_sim::time::Time;

use super::super::text::mix;
use super::super::{PrefixMatch, PrefixProducer};
use super::{ApproxConfig, ConfigError, ExtentIndex, PrefixIndex, Text};
use crate::epp::{EndpointInfo, RequestView};

/// What an endpoint publishes of its cache.
#[derive(Clone, Copy, Debug)]
struct Cache {
    block_size: u32,
    num_gpu_blocks: u32,
    alive: bool,
}

/// `approx-prefix-cache-producer` over either form of the index.
#[derive(Clone, Debug, Default)]
pub struct ApproxProducer<I = ExtentIndex> {
    config: ApproxConfig,
    index: I,
    caches: Vec<Cache>,
    counts: Vec<u32>,
}

impl<I: PrefixIndex> ApproxProducer<I> {
    /// A producer that has seen nothing.
    ///
    /// # Errors
    /// Parameters that upstream refuses.
    pub fn new(config: ApproxConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config, index: I::default(), caches: Vec::new(), counts: Vec::new() })
    }

    /// What it has remembered.
    #[must_use]
    pub fn index(&self) -> &I {
        &self.index
    }

    /// A new value of `num_gpu_blocks` on an endpoint. A list that exists keeps its capacity.
    pub fn set_num_gpu_blocks(&mut self, endpoint: u32, blocks: u32) {
        self.caches[endpoint as usize].num_gpu_blocks = blocks;
    }

    /// Tokens of a block: the first endpoint says it for all.
    #[must_use]
    pub fn block_tokens(&self) -> u32 {
        let first = self.caches.iter().find(|cache| cache.alive);
        self.config.block_tokens(first.map_or(0, |cache| cache.block_size))
    }

    /// A text without tokens, to be filled and passed to [`count`](Self::count) and [`insert`](Self::insert).
    /// `root` stands for the model's name and the cache salt.
    #[must_use]
    pub fn text(&self, root: u64) -> Text {
        Text::new(root, self.block_tokens())
    }

    /// The part of `text` that is looked at.
    #[must_use]
    pub fn cut(&self, text: Text) -> Text {
        let blocks_max = self.config.blocks_max(text.block_tokens());
        text.capped(blocks_max)
    }

    /// How many blocks of the cut `text` each endpoint has, by endpoint.
    pub fn count(&mut self, text: &Text) -> &[u32] {
        self.counts.clear();
        self.counts.resize(self.caches.len(), 0);
        self.index.count_matches(text, &mut self.counts);
        &self.counts
    }

    /// The cut `text` is on its way to `endpoint`.
    pub fn insert(&mut self, endpoint: u32, text: &Text) {
        let capacity = self.config.capacity(self.caches[endpoint as usize].num_gpu_blocks);
        self.index.insert(endpoint, capacity, text);
    }

    fn text_of(&self, request: &RequestView<'_>) -> Text {
        let root = mix(u64::from(request.model.0), 0);
        self.cut(Text::of(request.prompt, root, self.block_tokens()))
    }
}

impl<I: PrefixIndex> PrefixProducer for ApproxProducer<I> {
    fn add_endpoint(&mut self, info: &EndpointInfo) {
        let &EndpointInfo { block_size, num_gpu_blocks, .. } = info;
        self.caches.push(Cache { block_size, num_gpu_blocks, alive: true });
    }

    fn remove_endpoint(&mut self, endpoint: u32) {
        self.caches[endpoint as usize].alive = false;
        self.index.remove(endpoint);
    }

    fn forget_endpoint(&mut self, endpoint: u32) {
        self.index.remove(endpoint);
    }

    fn produce(&mut self, _: Time, request: &RequestView<'_>, matches: &mut [Option<PrefixMatch>]) {
        let text = self.text_of(request);
        let (total_blocks, block_tokens) = (text.blocks(), text.block_tokens());
        for (place, &blocks) in matches.iter_mut().zip(self.count(&text)) {
            let (matched_blocks, cached_blocks) = (blocks, blocks);
            *place = Some(PrefixMatch { matched_blocks, cached_blocks, total_blocks, block_tokens });
        }
    }

    fn pre_request(&mut self, _: Time, request: &RequestView<'_>, targets: &[u32]) {
        let text = self.text_of(request);
        targets.iter().for_each(|&target| self.insert(target, &text));
    }
}
