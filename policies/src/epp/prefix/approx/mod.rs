//! `approx-prefix-cache-producer`: what each server has been sent, remembered per server as long as an LRU list of
//! blocks is long. Nobody asks the servers: they may have evicted it, or hold more.
//!
//! Source: llm-d-router at ebab6879, `plugins/requestcontrol/dataproducer/approximateprefix`, and its recordings.

mod config;
#[cfg(test)]
mod equivalence;
mod extents;
mod lists;
mod producer;
mod reference;

pub use config::{ApproxConfig, ConfigError};
pub use extents::ExtentIndex;
pub use producer::ApproxProducer;
pub use reference::BlockIndex;

use super::text::Text;

/// Which server is believed to have which blocks.
pub trait PrefixIndex: Default + Send {
    /// Adds to `counts`, by server, how many blocks of `text` each one has among those before the first that nobody
    /// has. A server's blocks need not be contiguous: upstream does not ask for that.
    fn count_matches(&self, text: &Text, counts: &mut [u32]);

    /// Remembers that `server` was sent `text`. The `capacity` of its list, in blocks, is that of its first insert.
    fn insert(&mut self, server: u32, capacity: u32, text: &Text);

    /// Blocks in the server's list; `None` for one that was never sent anything.
    fn size(&self, server: u32) -> Option<u32>;

    /// Forgets `server`.
    fn remove(&mut self, server: u32);
}
