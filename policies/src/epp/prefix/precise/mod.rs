//! `precise-prefix-cache-producer`: what each pod says it has cached, from its KV events.
//!
//! Source: llm-d-router at ebab6879, `plugins/requestcontrol/dataproducer/preciseprefixcache` over llm-d-kv-cache, and
//! its recordings.

mod blocks;
mod config;
#[cfg(test)]
mod equivalence;
mod extents;
mod found;
mod parameters;
mod producer;

pub use blocks::BlockKvIndex;
pub use config::{KvIndexConfig, PreciseConfig, TierWeights};
pub use extents::ExtentKvIndex;
pub use found::{Found, Kind};
pub use producer::{KvEvent, PreciseProducer};

use super::text::Text;

/// Which pods hold which blocks in which tier. Each block remembers a limited number of (pod, kind) entries: the
/// youngest ones.
pub trait KvIndex: Send {
    /// An index without blocks.
    fn new(config: KvIndexConfig) -> Self;

    /// `pod` has blocks `from..` of `text`, to its end.
    fn add(&mut self, pod: u32, kind: Kind, text: &Text, from: u32);

    /// `pod` no longer has blocks `from..` of `text`, to its end.
    fn evict(&mut self, pod: u32, kind: Kind, text: &Text, from: u32);

    /// `pod` has nothing any more.
    fn clear(&mut self, pod: u32);

    /// What each pod has of `text`, by pod: its leading blocks without a gap.
    fn find(&mut self, text: &Text, weights: &TierWeights, found: &mut [Found]);
}
