//! A pool that knows runs of blocks instead of blocks: every observable is that of the id-exact
//! [`block_pool`](super::block_pool), at a cost that does not depend on how many blocks a request has.
//!
//! What makes it possible, and exact:
//!
//! * The free queue is always unregistered blocks, then registered ones in order of release. Nobody can tell
//!   unregistered free blocks apart: they are a number. Registered free blocks form a least-recently-used list
//!   of runs; the front run loses its last block first.
//! * What is cached is closed under prefixes. Whoever released block `p` last released a registered block
//!   `p - 1` of the same text right after it, or that one is still held: `p - 1` is evicted later than `p`.
//!   So the cached texts are a tree (`tree`), and a find is a walk from its root.
//! * Each node of the tree is a run of blocks in which nothing changes from block to block: the same copies in
//!   the same order of registration, each with one count of references and one place in the list. What touches
//!   a part of a node splits it.
//! * A lookup takes the oldest copy of a block, and a held copy does not go away: what a request found is the
//!   first copy of its node for as long as the request holds it. So a chain does not list what it holds; where
//!   its text ends in the tree, how many blocks it found and its own number say everything.
//!
//! Two texts are told apart by a 64-bit key at each branch of the tree, as block hashes are.

mod chain;
mod check;
mod copies;
mod tree;
mod watches;

#[cfg(test)]
mod equivalence;
#[cfg(test)]
mod tests;

pub use chain::ExtentChain;
use tree::{Place, Tree};

use super::{Hit, Pool, TokenSource, Touch};

/// All KV blocks of one replica, as runs.
#[derive(Clone, Debug)]
pub struct ExtentPool {
    usable: u32,
    /// Free blocks whose contents nobody knows.
    blank: u32,
    /// Blocks that were reserved and not granted yet.
    reserved: u32,
    tree: Tree,
    /// Where the last find ended, until anything changes.
    found: Option<Place>,
    /// How many chains registered blocks; it numbers them.
    owners: u32,
}

impl Pool for ExtentPool {
    const LOCKSTEP: bool = true;

    type Chain = ExtentChain;

    fn new(num_blocks: u32, block_tokens: u32) -> Self {
        assert!(num_blocks > 0, "a pool has at least the null block");
        let usable = num_blocks - 1;
        Self { usable, blank: usable, reserved: 0, tree: Tree::new(block_tokens), found: None, owners: 0 }
    }

    fn chain(&mut self, tokens: &TokenSource) -> ExtentChain {
        ExtentChain::new(tokens, self.tree.block_tokens())
    }

    fn free(&self) -> u32 {
        self.blank + self.tree.idle()
    }

    fn usable(&self) -> u32 {
        self.usable
    }

    fn held(&self, chain: &ExtentChain) -> u32 {
        chain.held
    }

    fn find(&mut self, chain: &mut ExtentChain, blocks_max: u32, known: u32) -> Hit {
        chain.learn(known);
        let place = self.tree.find(chain, blocks_max);
        self.found = Some(place);
        Hit { blocks: place.blocks, unreferenced: place.idle }
    }

    fn attach(&mut self, chain: &mut ExtentChain) {
        debug_assert_eq!(chain.held, 0, "only a chain that holds nothing can be given a prefix");
        let place = self.found.take().expect("an attach follows a find at once");
        self.tree.attach(chain, &place);
        chain.held = place.blocks;
    }

    fn take(&mut self, chain: &mut ExtentChain, count: u32) {
        self.reserve(count);
        self.grant(chain, count);
    }

    fn reserve(&mut self, count: u32) {
        assert!(count <= self.free(), "took {count} of {} free blocks", self.free());
        self.found = None;
        let blank = count.min(self.blank);
        self.blank -= blank;
        self.tree.evict(count - blank);
        self.reserved += count;
    }

    fn grant(&mut self, chain: &mut ExtentChain, count: u32) {
        debug_assert!(count <= self.reserved, "granted {count} of {} reserved blocks", self.reserved);
        self.reserved -= count;
        chain.held += count;
    }

    fn register(&mut self, chain: &mut ExtentChain, from: u32, to: u32, known: u32) {
        debug_assert_eq!(from, chain.registered, "blocks are registered once, in order");
        debug_assert!(from <= to && to <= chain.held, "only held blocks are registered");
        chain.learn(known);
        if from == to {
            return;
        }
        self.found = None;
        if chain.owner == 0 {
            // 0 is nobody. A number comes back after four billion requests, when no copy has it any more.
            self.owners = self.owners.checked_add(1).unwrap_or(1);
            chain.owner = self.owners;
        }
        self.tree.register(chain, to);
    }

    fn release(&mut self, chain: &mut ExtentChain) {
        self.found = None;
        self.blank += chain.held - chain.registered;
        self.tree.release(chain);
        chain.forget();
    }

    fn watch(&mut self, chain: &ExtentChain, watcher: u32, from: u32, to: u32) {
        self.tree.watch(chain, watcher, from, to);
    }

    fn touch_held(&mut self, chain: &ExtentChain) {
        self.tree.touch_held(chain);
    }

    fn unwatch(&mut self, watcher: u32) {
        self.tree.watches.forget(watcher);
    }

    fn is_watched(&self) -> bool {
        !self.tree.watches.is_empty()
    }

    fn touched(&mut self) -> Vec<Touch> {
        self.tree.watches.take_touched()
    }

    fn cached(&self, chain: &ExtentChain, from: u32, to: u32) -> u32 {
        if self.tree.block_tokens() != chain.block_tokens {
            return 0;
        }
        let to = to.min(chain.full_blocks());
        self.tree.find(chain, to).blocks.saturating_sub(from)
    }

    fn assert_consistent<'a>(&self, chains: impl Iterator<Item = &'a ExtentChain>) {
        self.check(chains);
    }
}
