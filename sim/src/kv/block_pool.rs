//! The id-exact pool of KV blocks: vLLM's `BlockPool` (v1/core/block_pool.py, 0.32), block id by block id.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::{Hit, Pool, TokenSource, Touch};
use crate::prompt::{BlockHash, HashChain};

/// Number of a KV block. Block 0 is vLLM's null block: it is never handed out.
pub type BlockId = u32;

/// End of a list, and "no block": the null block doubles as the sentinel of every list.
const NIL: BlockId = 0;

#[derive(Clone, Debug)]
struct Block {
    refs: u32,
    hash: Option<BlockHash>,
    /// Neighbours in the free queue; meaningful while `refs == 0`.
    free_prev: BlockId,
    free_next: BlockId,
    /// Neighbours among the blocks of the same hash, in order of registration.
    copy_prev: BlockId,
    copy_next: BlockId,
}

/// First and last block registered under one hash.
#[derive(Clone, Copy, Debug)]
struct Copies {
    first: BlockId,
    last: BlockId,
}

/// The blocks of one request.
#[derive(Clone, Debug)]
pub struct BlockChain {
    /// Blocks held, in order of position.
    table: Vec<BlockId>,
    tokens: TokenSource,
    /// Hashes of the leading full blocks of known tokens, as far as they were needed.
    hashes: Vec<BlockHash>,
    hasher: HashChain,
}

impl BlockChain {
    /// Block ids held, in order of position.
    #[must_use]
    pub fn table(&self) -> &[BlockId] {
        &self.table
    }

    fn learn(&mut self, known: u32) {
        self.hasher.extend(&mut self.hashes, &self.tokens.prompt, self.tokens.output, known);
    }
}

/// All KV blocks of one replica.
#[derive(Clone, Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    block_tokens: u32,
    free: u32,
    cached: FxHashMap<BlockHash, Copies>,
    /// The blocks found last.
    found: Vec<BlockId>,
    /// Blocks reserved and not yet granted.
    reserved: Vec<BlockId>,
    /// Watched blocks: who watches them, at which position.
    watched: FxHashMap<BlockId, SmallVec<[(u32, u32); 1]>>,
    touched: Vec<Touch>,
}

impl Pool for BlockPool {
    const LOCKSTEP: bool = false;

    type Chain = BlockChain;

    fn new(num_blocks: u32, block_tokens: u32) -> Self {
        assert!(num_blocks > 0, "a pool has at least the null block");
        let blocks = (0..num_blocks)
            .map(|id| Block {
                refs: 0,
                hash: None,
                free_prev: id.checked_sub(1).unwrap_or(num_blocks - 1),
                free_next: (id + 1) % num_blocks,
                copy_prev: NIL,
                copy_next: NIL,
            })
            .collect();
        Self {
            blocks,
            block_tokens,
            free: num_blocks - 1,
            cached: FxHashMap::default(),
            found: Vec::new(),
            reserved: Vec::new(),
            watched: FxHashMap::default(),
            touched: Vec::new(),
        }
    }

    fn chain(&mut self, tokens: &TokenSource) -> BlockChain {
        let mut chain = BlockChain {
            table: Vec::new(),
            tokens: tokens.clone(),
            hashes: Vec::new(),
            hasher: HashChain::new(self.block_tokens, tokens.adapter, tokens.salt),
        };
        chain.learn(tokens.prompt.tokens());
        chain
    }

    fn free(&self) -> u32 {
        self.free
    }

    fn usable(&self) -> u32 {
        self.blocks.len() as u32 - 1
    }

    fn held(&self, chain: &BlockChain) -> u32 {
        chain.table.len() as u32
    }

    fn find(&mut self, chain: &mut BlockChain, blocks_max: u32, known: u32) -> Hit {
        chain.learn(known);
        let hashes = &chain.hashes[..blocks_max as usize];
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        found.extend(hashes.iter().map_while(|&hash| self.lookup(hash)));
        let unreferenced = found.iter().filter(|&&block| self.refs(block) == 0).count() as u32;
        self.found = found;
        Hit { blocks: self.found.len() as u32, unreferenced }
    }

    fn attach(&mut self, chain: &mut BlockChain) {
        let found = std::mem::take(&mut self.found);
        self.touch(&found);
        chain.table.extend_from_slice(&found);
        self.found = found;
    }

    fn take(&mut self, chain: &mut BlockChain, count: u32) {
        self.take_into(&mut chain.table, count);
    }

    fn reserve(&mut self, count: u32) {
        let mut reserved = std::mem::take(&mut self.reserved);
        self.take_into(&mut reserved, count);
        self.reserved = reserved;
    }

    fn grant(&mut self, chain: &mut BlockChain, count: u32) {
        let kept = self.reserved.len() - count as usize;
        chain.table.extend(self.reserved.drain(kept..));
    }

    fn register(&mut self, chain: &mut BlockChain, from: u32, to: u32, known: u32) {
        chain.learn(known);
        for position in from..to {
            self.register_block(chain.table[position as usize], chain.hashes[position as usize]);
        }
    }

    fn release(&mut self, chain: &mut BlockChain) {
        self.release_blocks(&chain.table);
        chain.table.clear();
    }

    fn watch(&mut self, chain: &BlockChain, watcher: u32, from: u32, to: u32) {
        for position in from..to {
            let watchers = self.watched.entry(chain.table[position as usize]).or_default();
            watchers.push((watcher, position));
        }
    }

    fn touch_held(&mut self, chain: &BlockChain) {
        chain.table.iter().for_each(|&id| self.note_touch(id));
    }

    fn unwatch(&mut self, watcher: u32) {
        self.watched.retain(|_, watchers| {
            watchers.retain(|(other, _)| *other != watcher);
            !watchers.is_empty()
        });
    }

    fn is_watched(&self) -> bool {
        !self.watched.is_empty()
    }

    fn touched(&mut self) -> Vec<Touch> {
        std::mem::take(&mut self.touched)
    }

    fn cached(&self, chain: &BlockChain, from: u32, to: u32) -> u32 {
        let hashes = chain.hashes.iter().take(to as usize).skip(from as usize);
        hashes.take_while(|hash| self.cached.contains_key(hash)).count() as u32
    }

    fn assert_consistent<'a>(&self, chains: impl Iterator<Item = &'a BlockChain>) {
        let mut refs = vec![0u32; self.blocks.len()];
        for &id in chains.flat_map(|chain| &chain.table).chain(&self.reserved) {
            refs[id as usize] += 1;
        }
        let mut referenced = 0;
        for (id, block) in self.blocks.iter().enumerate().skip(1) {
            assert_eq!(block.refs, refs[id], "references of block {id}");
            referenced += u32::from(block.refs > 0);
        }
        assert_eq!(self.free + referenced, self.usable(), "free + referenced = usable");
        let (mut id, mut queued) = (self.blocks[NIL as usize].free_next, 0);
        while id != NIL {
            assert_eq!(self.blocks[id as usize].refs, 0, "block {id} is in the free queue");
            queued += 1;
            id = self.blocks[id as usize].free_next;
        }
        assert_eq!(queued, self.free, "length of the free queue");
    }
}

impl BlockPool {
    /// How many requests reference `block`.
    fn refs(&self, block: BlockId) -> u32 {
        self.blocks[block as usize].refs
    }

    /// The block that holds `hash`: the one registered first.
    fn lookup(&self, hash: BlockHash) -> Option<BlockId> {
        self.cached.get(&hash).map(|copies| copies.first)
    }

    /// Takes `count` blocks from the front of the free queue, evicting what they cached, and appends their
    /// ids to `table`.
    ///
    /// # Panics
    /// When fewer than `count` blocks are free: the caller checks first.
    fn take_into(&mut self, table: &mut Vec<BlockId>, count: u32) {
        assert!(count <= self.free, "took {count} of {} free blocks", self.free);
        for _ in 0..count {
            let id = self.blocks[NIL as usize].free_next;
            self.unlink_free(id);
            self.evict(id);
            if !self.watched.is_empty() {
                self.note_touch(id);
                self.watched.remove(&id);
            }
            self.blocks[id as usize].refs = 1;
            table.push(id);
        }
    }

    /// Adds a reference to each of `blocks`; a free one leaves the free queue, its contents kept.
    fn touch(&mut self, blocks: &[BlockId]) {
        for &id in blocks {
            if self.blocks[id as usize].refs == 0 {
                self.unlink_free(id);
            }
            self.blocks[id as usize].refs += 1;
            if !self.watched.is_empty() {
                self.note_touch(id);
            }
        }
    }

    fn note_touch(&mut self, id: BlockId) {
        let watchers = self.watched.get(&id).into_iter().flatten();
        let touches = watchers.map(|&(watcher, at)| Touch { watcher, from: at, to: at + 1 });
        self.touched.extend(touches);
    }

    /// Drops one reference from each block of a request's `table`, last block first: of one chain, the tail
    /// is evicted before the head. Unhashed blocks that become free go to the front of the free queue, the
    /// last block of the table foremost; hashed ones to its back.
    fn release_blocks(&mut self, table: &[BlockId]) {
        // The unhashed blocks of one release are prepended as one list: each goes behind the one before.
        let mut front = NIL;
        for &id in table.iter().rev() {
            let block = &mut self.blocks[id as usize];
            debug_assert!(block.refs > 0, "block {id} released more often than taken");
            block.refs -= 1;
            if block.refs > 0 {
                continue;
            }
            if block.hash.is_some() {
                let last = self.blocks[NIL as usize].free_prev;
                self.link_free_after(last, id);
            } else {
                self.link_free_after(front, id);
                front = id;
            }
        }
    }

    /// Names the contents of `block`, so that a later prompt can hit it.
    fn register_block(&mut self, block: BlockId, hash: BlockHash) {
        debug_assert!(self.blocks[block as usize].hash.is_none(), "block {block} is registered twice");
        self.blocks[block as usize].hash = Some(hash);
        match self.cached.get_mut(&hash) {
            None => {
                self.cached.insert(hash, Copies { first: block, last: block });
            }
            Some(copies) => {
                let last = copies.last;
                copies.last = block;
                self.blocks[last as usize].copy_next = block;
                self.blocks[block as usize].copy_prev = last;
            }
        }
    }

    /// Forgets the contents of `block`.
    fn evict(&mut self, block: BlockId) {
        let Some(hash) = self.blocks[block as usize].hash.take() else { return };
        let (prev, next) = (self.blocks[block as usize].copy_prev, self.blocks[block as usize].copy_next);
        self.blocks[block as usize].copy_prev = NIL;
        self.blocks[block as usize].copy_next = NIL;
        if prev == NIL && next == NIL {
            self.cached.remove(&hash);
            return;
        }
        let copies = self.cached.get_mut(&hash).expect("a hashed block is in the cache map");
        if prev == NIL {
            copies.first = next;
        } else {
            self.blocks[prev as usize].copy_next = next;
        }
        if next == NIL {
            copies.last = prev;
        } else {
            self.blocks[next as usize].copy_prev = prev;
        }
    }

    fn unlink_free(&mut self, id: BlockId) {
        let (prev, next) = (self.blocks[id as usize].free_prev, self.blocks[id as usize].free_next);
        self.blocks[prev as usize].free_next = next;
        self.blocks[next as usize].free_prev = prev;
        self.free -= 1;
    }

    fn link_free_after(&mut self, prev: BlockId, id: BlockId) {
        let next = self.blocks[prev as usize].free_next;
        self.blocks[id as usize].free_prev = prev;
        self.blocks[id as usize].free_next = next;
        self.blocks[prev as usize].free_next = id;
        self.blocks[next as usize].free_prev = id;
        self.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{Content, HashChain, Prompt};

    fn hashes(count: u32) -> Vec<BlockHash> {
        let mut out = Vec::new();
        let prompt = Prompt::of(Content::shared(0), count * 16);
        HashChain::new(16, None, 0).extend(&mut out, &prompt, Content::generated(0), count * 16);
        out
    }

    fn taken(pool: &mut BlockPool, count: u32) -> Vec<BlockId> {
        let mut table = Vec::new();
        pool.take_into(&mut table, count);
        table
    }

    #[test]
    fn blocks_are_first_handed_out_in_order_of_id() {
        assert_eq!(taken(&mut BlockPool::new(5, 16), 4), [1, 2, 3, 4]);
    }

    #[test]
    fn unhashed_blocks_are_reused_at_once_from_the_end_of_the_released_table() {
        let mut pool = BlockPool::new(10, 16);
        let table = taken(&mut pool, 3);
        pool.release_blocks(&table);
        assert_eq!(taken(&mut pool, 4), [3, 2, 1, 4]);
    }

    #[test]
    fn hashed_blocks_are_evicted_last_and_tail_first() {
        let mut pool = BlockPool::new(6, 16);
        let table = taken(&mut pool, 3);
        let hashes = hashes(3);
        table.iter().zip(&hashes).for_each(|(&block, &hash)| pool.register_block(block, hash));
        pool.release_blocks(&table);
        assert_eq!(taken(&mut pool, 3), [4, 5, 3], "fresh blocks first, then the chain's tail");
        assert_eq!(pool.lookup(hashes[2]), None);
        assert_eq!(pool.lookup(hashes[0]), Some(1));
    }

    #[test]
    fn a_hit_takes_a_free_block_out_of_the_queue_and_keeps_its_contents() {
        let mut pool = BlockPool::new(3, 16);
        let table = taken(&mut pool, 1);
        let hash = hashes(1)[0];
        pool.register_block(1, hash);
        pool.release_blocks(&table);
        pool.touch(&[1]);
        assert_eq!(pool.free(), 1);
        assert_eq!(taken(&mut pool, 1), [2]);
        assert_eq!(pool.lookup(hash), Some(1));
    }

    #[test]
    fn of_equal_blocks_the_first_registered_is_hit_until_it_is_evicted() {
        let mut pool = BlockPool::new(4, 16);
        taken(&mut pool, 3);
        let hash = hashes(1)[0];
        for block in [2, 1, 3] {
            pool.register_block(block, hash);
        }
        assert_eq!(pool.lookup(hash), Some(2));
        pool.release_blocks(&[2]);
        taken(&mut pool, 1);
        assert_eq!(pool.lookup(hash), Some(1));
    }
}
