//! Prefix matches: how much of a request's prompt each endpoint is believed to hold in its KV cache.

pub mod approx;
pub mod estimate;
pub mod precise;
mod text;
mod tree;

pub use text::Text;

use forerun_sim::time::Time;

use super::{EndpointInfo, RequestView};

/// What a producer publishes for one endpoint and one request (upstream's `PrefixCacheMatchInfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixMatch {
    /// Blocks that count as matched: weighted by tier where the producer weighs tiers.
    pub matched_blocks: u32,
    /// Blocks that are cached in any tier, unweighted.
    pub cached_blocks: u32,
    /// Blocks of the prompt.
    pub total_blocks: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
}

impl PrefixMatch {
    /// The matched share of the prompt, 0 to 1; 0 for a prompt without blocks.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.total_blocks == 0 {
            0.0
        } else {
            f64::from(self.matched_blocks) / f64::from(self.total_blocks)
        }
    }
}

/// A data producer that publishes prefix matches. Endpoints are numbered in the order in which they were added.
pub trait PrefixProducer: Send {
    /// A new endpoint: the next number.
    fn add_endpoint(&mut self, info: &EndpointInfo);

    /// The endpoint is gone, and with it what it cached.
    fn remove_endpoint(&mut self, endpoint: u32);

    /// The endpoint has lost what it cached, and stays.
    fn forget_endpoint(&mut self, endpoint: u32) {
        self.remove_endpoint(endpoint);
    }

    /// Writes the match of every endpoint, one place each. The places come as `None`; a producer that has
    /// nothing to say leaves them so.
    fn produce(&mut self, now: Time, request: &RequestView<'_>, matches: &mut [Option<PrefixMatch>]);

    /// The request is on its way to `targets`: the primary endpoint first, then the prefill profile's, if any.
    fn pre_request(&mut self, now: Time, request: &RequestView<'_>, targets: &[u32]);
}
