//! What share of the prompts was seen before, and what a cache of a given size would still hold of it.

use forerun_sim::request::Request;
use schemars::JsonSchema;
use serde::Serialize;

use super::lengths::{Distribution, Figures};
use super::texts::{Reuse, Served, Texts};

/// Cache sizes that are always measured, in tokens: these times powers of ten, from a thousand to a trillion.
const SIZES: [u64; 6] = [10, 15, 20, 30, 50, 70];
const MAGNITUDES: u32 = 9;

/// Reuse within these times is reported, in seconds.
const WITHIN_S: [u64; 4] = [10, 60, 300, 600];

/// Prefix sharing, as vLLM's prefix cache would see it on one replica that serves everything.
///
/// Only full blocks are shared, and at least one token of a prompt is always computed. Requests are taken one
/// after the other: what a request asks and answers is in the cache as soon as it has arrived.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Prefixes {
    /// Tokens per block.
    pub block_tokens: u32,
    /// Tokens of all prompts.
    pub prompt_tokens: u64,
    /// Those that a cache without limit would have held.
    pub seen_tokens: u64,
    /// Their share of all.
    pub seen_share: Option<f64>,
    /// That share, request by request, in percent.
    pub request_percent: Figures,
    /// What a cache of limited size (least recently used evicted first) would have held. Sizes beyond the
    /// first that holds everything are left out.
    pub by_cache: Vec<CacheHits>,
    /// How long ago a reused token was last used.
    pub reuse_s: Figures,
    /// Share of the reused tokens that come back within a time.
    pub reused_within: Vec<Within>,
    /// The prefixes whose reuse saves the most tokens, most first.
    pub top: Vec<TopPrefix>,
    /// When not `null`, the least recently used texts were forgotten to bound memory: hits of caches beyond
    /// this size, and of the limitless one, are lower bounds.
    pub exact_up_to_tokens: Option<u64>,
}

/// What a cache would have held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CacheHits {
    /// Its size in tokens.
    pub cache_tokens: u64,
    /// Prompt tokens found in it.
    pub hit_tokens: u64,
    /// Their share of all prompt tokens.
    pub hit_share: Option<f64>,
}

/// Reuse within a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Within {
    /// The time.
    pub seconds: u64,
    /// Share of the reused tokens.
    pub share: Option<f64>,
}

/// A prefix that many requests begin with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TopPrefix {
    /// Tokens before the part that these requests share among themselves: the prefix of a larger group.
    pub from_tokens: u64,
    /// Tokens up to its end.
    pub to_tokens: u64,
    /// Requests that begin with it, those of the warm-up included.
    pub requests: u64,
    /// Tokens of this part that were seen before, as a share of all prompt tokens.
    pub seen_share: Option<f64>,
}

/// What is measured of prefixes.
#[derive(Clone, Debug)]
pub(super) struct Sharing {
    texts: Texts,
    block_tokens: u32,
    answers: bool,
    prompt_tokens: u64,
    /// Prompt tokens of the warm-up: they are in the texts' own counts.
    warm_up_tokens: u64,
    seen_blocks: u64,
    curve: Curve,
    request_permille: Distribution,
    ages_ms: Distribution,
}

/// Hits by cache size, exact at chosen sizes.
#[derive(Clone, Debug)]
struct Curve {
    /// Cache sizes in blocks, ascending.
    sizes: Vec<u64>,
    /// Blocks that sizes from this one on hold, whole runs of them.
    from_here: Vec<u64>,
    /// Blocks of runs that this size holds in part.
    here: Vec<u64>,
}

impl Curve {
    fn new(mut sizes: Vec<u64>) -> Self {
        sizes.retain(|&size| size > 0);
        sizes.sort_unstable();
        sizes.dedup();
        let none = vec![0; sizes.len() + 1];
        Self { sizes, from_here: none.clone(), here: none }
    }

    /// Adds `blocks` blocks of which the first has `above` blocks above it.
    fn add(&mut self, above: u64, blocks: u64) {
        let partly = self.sizes.partition_point(|&size| size <= above);
        let wholly = self.sizes.partition_point(|&size| size < above + blocks);
        for at in partly..wholly {
            self.here[at] += self.sizes[at] - above;
        }
        self.from_here[wholly] += blocks;
    }

    /// Each size and the blocks that it holds.
    fn hits(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut held = 0;
        self.sizes.iter().enumerate().map(move |(at, &size)| {
            held += self.from_here[at];
            (size, held + self.here[at])
        })
    }
}

impl Sharing {
    /// Measures in blocks of `block_tokens`; caches of `cache_tokens` in addition to the usual sizes.
    pub(super) fn new(block_tokens: u32, answers: bool, cache_tokens: &[u64], texts_max: usize) -> Self {
        let usual = (0..MAGNITUDES).flat_map(|power| SIZES.map(|size| size * 100 * 10_u64.pow(power)));
        let sizes = usual.chain(cache_tokens.iter().copied()).map(|tokens| tokens / u64::from(block_tokens));
        Self {
            texts: Texts::new(block_tokens, texts_max),
            block_tokens,
            answers,
            prompt_tokens: 0,
            warm_up_tokens: 0,
            seen_blocks: 0,
            curve: Curve::new(sizes.collect()),
            request_permille: Distribution::new(),
            ages_ms: Distribution::new(),
        }
    }

    pub(super) fn record(&mut self, request: &Request, measured: bool) {
        let tokens = request.prompt.tokens();
        // The last generated token is never an input, so its keys and values are not computed.
        let answer = if self.answers { request.output_tokens.saturating_sub(1) } else { 0 };
        let answer = answer.min(u32::MAX - tokens);
        let prompt = request.prompt.segments().iter().map(|segment| (segment.content, segment.tokens));
        let path = prompt.chain(std::iter::once((request.output, answer)));
        // vLLM computes at least the last prompt token: get_computed_blocks(num_tokens - 1).
        let most = tokens.saturating_sub(1) / self.block_tokens;
        let served = Served { model: request.model, adapter: request.adapter };
        let mut seen = 0;
        let (curve, ages_ms) = (&mut self.curve, &mut self.ages_ms);
        self.texts.touch(served, path, most, request.arrival, |Reuse { blocks, above, age }| {
            if measured {
                seen += u64::from(blocks);
                curve.add(above, u64::from(blocks));
                ages_ms.record_n(age.as_nanos() / 1_000_000, u64::from(blocks));
            }
        });
        if !measured {
            self.warm_up_tokens += u64::from(tokens);
            return;
        }
        self.prompt_tokens += u64::from(tokens);
        self.seen_blocks += seen;
        if tokens > 0 {
            let seen_tokens = seen * u64::from(self.block_tokens);
            self.request_permille.record(seen_tokens * 1000 / u64::from(tokens));
        }
    }

    pub(super) fn figures(&self, top: usize) -> Prefixes {
        let block_tokens = u64::from(self.block_tokens);
        let all = self.prompt_tokens;
        let share = |tokens: u64| (all > 0).then(|| tokens as f64 / all as f64);
        let seen_tokens = self.seen_blocks * block_tokens;
        let ever = all + self.warm_up_tokens;
        let top = self.texts.top(top).into_iter().map(|prefix| TopPrefix {
            from_tokens: u64::from(prefix.from_blocks) * block_tokens,
            to_tokens: u64::from(prefix.to_blocks) * block_tokens,
            requests: prefix.requests,
            seen_share: (ever > 0).then(|| (prefix.reused_blocks * block_tokens) as f64 / ever as f64),
        });
        Prefixes {
            block_tokens: self.block_tokens,
            prompt_tokens: all,
            seen_tokens,
            seen_share: share(seen_tokens),
            request_percent: self.request_permille.figures(10.0),
            by_cache: self.by_cache(),
            reuse_s: self.ages_ms.figures(1000.0),
            reused_within: WITHIN_S
                .map(|seconds| Within { seconds, share: self.ages_ms.share_up_to(seconds * 1000) })
                .into(),
            top: top.collect(),
            exact_up_to_tokens: self.texts.exact_blocks().map(|blocks| blocks * block_tokens),
        }
    }

    /// The curve up to the first size that holds all that was ever seen.
    fn by_cache(&self) -> Vec<CacheHits> {
        let block_tokens = u64::from(self.block_tokens);
        let mut points = Vec::new();
        for (size, blocks) in self.curve.hits() {
            let hit_tokens = blocks * block_tokens;
            points.push(CacheHits {
                cache_tokens: size * block_tokens,
                hit_tokens,
                hit_share: (self.prompt_tokens > 0).then(|| hit_tokens as f64 / self.prompt_tokens as f64),
            });
            if blocks == self.seen_blocks {
                break;
            }
        }
        points
    }
}

impl Prefixes {
    /// Share of the prompt tokens that a cache of `cache_tokens` would have held: exact at the sizes that were
    /// asked for, a straight line between its neighbours elsewhere. `None` without prompts.
    #[must_use]
    pub fn hit_share(&self, cache_tokens: u64) -> Option<f64> {
        let after = self.by_cache.partition_point(|point| point.cache_tokens < cache_tokens);
        let Some(high) = self.by_cache.get(after) else {
            return self.by_cache.last().map_or(self.seen_share, |point| point.hit_share);
        };
        let low = after.checked_sub(1).map_or((0, 0.0), |at| {
            let low = &self.by_cache[at];
            (low.cache_tokens, low.hit_share.unwrap_or(0.0))
        });
        let way = (cache_tokens - low.0) as f64 / (high.cache_tokens - low.0) as f64;
        high.hit_share.map(|share| low.1 + (share - low.1) * way)
    }

    /// The cache size that holds `part` (0 to 1) of what a limitless one holds, on a straight line between the
    /// sizes measured. `None` when nothing is ever seen twice.
    #[must_use]
    pub fn cache_tokens_for(&self, part: f64) -> Option<f64> {
        let wanted = part * self.seen_tokens as f64;
        let mut low = (0.0, 0.0);
        for point in &self.by_cache {
            let high = (point.cache_tokens as f64, point.hit_tokens as f64);
            if high.1 >= wanted && high.1 > low.1 {
                return Some(low.0 + (high.0 - low.0) * (wanted - low.1).max(0.0) / (high.1 - low.1));
            }
            low = high;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_exact_at_its_sizes() {
        let mut curve = Curve::new(vec![2, 4, 10, 7, 4, 0]);
        // Depths 1 to 3, 4 and 5, 9 to 12.
        curve.add(0, 3);
        curve.add(3, 2);
        curve.add(8, 4);
        let hits: Vec<_> = curve.hits().collect();
        assert_eq!(hits, [(2, 2), (4, 4), (7, 5), (10, 7)]);
    }
}
