//! KV memory of one replica: how many blocks there are ([`sizing`]), what a request may have ([`manager`]), and
//! which blocks are free and which are cached: a [`Pool`], of which [`block_pool`] is the id-exact form and
//! [`extent_pool`] the fast one.

pub mod block_pool;
pub mod extent_pool;
pub mod manager;
pub mod sizing;
pub mod tiers;

use crate::prompt::{Content, Prompt};

/// The tokens of one request, as far as caching them is concerned.
#[derive(Clone, Debug)]
pub struct TokenSource {
    /// What it asks.
    pub prompt: Prompt,
    /// Identity of what it generates.
    pub output: Content,
    /// LoRA adapter: requests of different adapters share no block.
    pub adapter: Option<u32>,
    /// Requests of different salts share no block.
    pub salt: u64,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hit {
    /// Leading blocks that are cached.
    pub blocks: u32,
    /// Of those, blocks that nobody references: they leave the free queue when they are attached.
    pub unreferenced: u32,
}

/// Watched blocks that somebody took, or found in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Who watches them.
    pub watcher: u32,
    /// Their first position in the watched chain.
    pub from: u32,
    /// The position after their last one. At the ends, more positions of the chain may be named than were watched.
    pub to: u32,
}

/// Blocks of KV memory: free, referenced, cached. Semantics are vLLM's `BlockPool` (v1/core/block_pool.py, 0.32).
///
/// Free blocks form one queue in eviction order. A block that is taken loses its contents. Of a released chain,
/// last block first, blocks that nobody references any more and whose contents were never registered go to the
/// front; registered ones to the back. Equal blocks are not merged; a lookup returns the one registered first.
pub trait Pool: std::fmt::Debug + Send + Sized {
    /// Whether decodes may run in lockstep, their blocks reserved for all of them together. Then blocks are the
    /// same in number but not in id.
    const LOCKSTEP: bool;

    /// The blocks of one request, in order of position, and the identity of its tokens.
    type Chain: Clone + std::fmt::Debug + Send;

    /// A pool of `num_blocks` blocks of `block_tokens` tokens, of which `num_blocks - 1` are usable (block 0 is
    /// vLLM's null block).
    fn new(num_blocks: u32, block_tokens: u32) -> Self;

    /// The chain of a request that holds nothing yet.
    fn chain(&mut self, tokens: &TokenSource) -> Self::Chain;

    /// Blocks that nobody references.
    fn free(&self) -> u32;

    /// Blocks that can be handed out.
    fn usable(&self) -> u32;

    /// Blocks that a chain holds.
    fn held(&self, chain: &Self::Chain) -> u32;

    /// The longest run of leading blocks of `chain`, at most `blocks_max`, whose contents are cached. All of them
    /// are full of the request's `known` tokens. The find is kept for an [`attach`](Self::attach) that follows at
    /// once.
    fn find(&mut self, chain: &mut Self::Chain, blocks_max: u32, known: u32) -> Hit;

    /// Gives the found blocks to `chain`, which holds nothing.
    fn attach(&mut self, chain: &mut Self::Chain);

    /// Gives `count` free blocks to `chain`; the caller has checked that there are as many.
    fn take(&mut self, chain: &mut Self::Chain, count: u32);

    /// Takes `count` free blocks that are granted to their chains later.
    fn reserve(&mut self, count: u32);

    /// Gives `count` reserved blocks to `chain`.
    fn grant(&mut self, chain: &mut Self::Chain, count: u32);

    /// Names the contents of blocks `from..to` of `chain`, all held and full of known tokens: later lookups may
    /// find them. `known` is how many tokens of the request are known.
    fn register(&mut self, chain: &mut Self::Chain, from: u32, to: u32, known: u32);

    /// Takes back all blocks of `chain`.
    fn release(&mut self, chain: &mut Self::Chain);

    /// Notes from now on who takes blocks `from..to` of `chain`, all registered, or finds them. A block that was taken
    /// is not watched any more.
    fn watch(&mut self, chain: &Self::Chain, watcher: u32, from: u32, to: u32);

    /// Notes all watched blocks of `chain` as taken.
    fn touch_held(&mut self, chain: &Self::Chain);

    /// Forgets a watcher.
    fn unwatch(&mut self, watcher: u32);

    /// Whether anything is watched.
    fn is_watched(&self) -> bool;

    /// What was taken or found of the watched blocks since the last call.
    fn touched(&mut self) -> Vec<Touch>;

    /// How many blocks of `chain`, which may belong to another pool, are cached here without a gap from block `from`
    /// on, at most up to block `to`. Changes nothing.
    fn cached(&self, chain: &Self::Chain, from: u32, to: u32) -> u32;

    /// Checks the laws of the pool against all chains that hold blocks.
    ///
    /// # Panics
    /// When one is broken.
    fn assert_consistent<'a>(&self, chains: impl Iterator<Item = &'a Self::Chain>)
    where
        Self::Chain: 'a;
}
