//! What a request may have: vLLM's `KVCacheManager` for one full-attention group
//! (v1/core/kv_cache_manager.py, v1/core/single_type_kv_cache_manager.py, 0.32).

use crate::kv::block_pool::{BlockId, BlockPool};
use crate::prompt::{BlockHash, Content, HashChain, Prompt};

/// The KV side of one request.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Blocks held, in order of position.
    table: Vec<BlockId>,
    /// How many leading blocks of the table are registered; `None` before the first allocation.
    registered: Option<u32>,
    /// Hashes of all full blocks of known tokens.
    hashes: Vec<BlockHash>,
    hasher: HashChain,
}

impl Chain {
    /// The chain of a request that holds nothing yet.
    #[must_use]
    pub fn new(block_tokens: u32, adapter: Option<u32>, salt: u64) -> Self {
        Self {
            table: Vec::new(),
            registered: None,
            hashes: Vec::new(),
            hasher: HashChain::new(block_tokens, adapter, salt),
        }
    }

    /// Hashes the blocks that became full now that `known` tokens are known.
    pub fn learn(&mut self, prompt: &Prompt, output: Content, known: u32) {
        self.hasher.extend(&mut self.hashes, prompt, output, known);
    }

    /// Block ids held, in order of position.
    #[must_use]
    pub fn table(&self) -> &[BlockId] {
        &self.table
    }

    /// Hashes of the full blocks of known tokens, in order of position.
    #[must_use]
    pub fn hashes(&self) -> &[BlockHash] {
        &self.hashes
    }
}

/// What one allocation asks for. All counts are tokens.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Already computed, not counting the prefix hit.
    pub computed: u32,
    /// To be computed in this step.
    pub new: u32,
    /// Prompt plus emitted output.
    pub known: u32,
    /// Require room for all known tokens, not just for this step's (`scheduler_reserve_full_isl`).
    pub full_sequence: bool,
    /// Keep this many blocks free beside (`watermark`).
    pub spare_blocks: u32,
}

/// Hands out KV blocks to the requests of one replica.
#[derive(Clone, Debug)]
pub struct KvManager {
    pool: BlockPool,
    block_tokens: u32,
    prefix_caching: bool,
    max_model_len: u32,
    /// Blocks of the prefix hit found last.
    hits: Vec<BlockId>,
}

impl KvManager {
    /// A manager of `num_blocks` blocks (the null block included) of `block_tokens` tokens.
    #[must_use]
    pub fn new(num_blocks: u32, block_tokens: u32, prefix_caching: bool, max_model_len: u32) -> Self {
        Self {
            pool: BlockPool::new(num_blocks),
            block_tokens,
            prefix_caching,
            max_model_len,
            hits: Vec::new(),
        }
    }

    /// The pool itself.
    #[must_use]
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// Finds the longest cached prefix of a request that holds nothing, and keeps it for the
    /// [`allocate`](Self::allocate) that follows. Returns its length in tokens.
    ///
    /// At most `known - 1` tokens: the last one must be computed to have logits. A fully cached prompt of
    /// 64 tokens hits 48.
    pub fn find_prefix(&mut self, chain: &Chain, known: u32) -> u32 {
        self.hits.clear();
        if self.prefix_caching {
            let longest = (known - 1) / self.block_tokens;
            let hashes = &chain.hashes[..longest as usize];
            self.hits.extend(hashes.iter().map_while(|&hash| self.pool.lookup(hash)));
        }
        self.hits.len() as u32 * self.block_tokens
    }

    /// Forgets the prefix found last: what follows allocates for a running request.
    pub fn no_prefix(&mut self) {
        self.hits.clear();
    }

    /// Whether a block is cached here. Changes nothing.
    #[must_use]
    pub fn holds(&self, hash: BlockHash) -> bool {
        self.prefix_caching && self.pool.lookup(hash).is_some()
    }

    /// Gives `chain` the found prefix and blocks for the tokens of this step, and registers the blocks that
    /// this step fills: a request admitted later in the same step already hits them. `false`, and nothing
    /// changed, when the free blocks do not suffice.
    pub fn allocate(&mut self, chain: &mut Chain, demand: &Demand) -> bool {
        let total = demand.computed + self.hits.len() as u32 * self.block_tokens;
        let available = self.pool.free();
        if demand.full_sequence {
            let whole = demand.known.min(self.max_model_len);
            if self.blocks_needed(chain, whole) + demand.spare_blocks > available {
                return false;
            }
        }
        let slots = (total + demand.new).min(self.max_model_len);
        if self.blocks_needed(chain, slots) + demand.spare_blocks > available {
            return false;
        }
        if chain.registered.is_none() && !self.hits.is_empty() {
            self.pool.touch(&self.hits);
            chain.table.extend_from_slice(&self.hits);
            chain.registered = Some(self.hits.len() as u32);
        }
        let missing = slots.div_ceil(self.block_tokens).saturating_sub(chain.table.len() as u32);
        self.pool.take(missing, &mut chain.table);
        self.register(chain, (total + demand.new).min(demand.known));
        true
    }

    /// Registers every block of `chain` that `tokens` computed tokens fill.
    pub fn register(&mut self, chain: &mut Chain, tokens: u32) {
        if !self.prefix_caching {
            return;
        }
        let (done, full) = (chain.registered.unwrap_or(0), tokens / self.block_tokens);
        for k in done..full {
            self.pool.register(chain.table[k as usize], chain.hashes[k as usize]);
        }
        if full > done {
            chain.registered = Some(full);
        }
    }

    /// Takes back all blocks of `chain`.
    pub fn release(&mut self, chain: &mut Chain) {
        self.pool.release(&chain.table);
        chain.table.clear();
        chain.registered = None;
    }

    /// Blocks that leave the free queue so that `chain` can hold `tokens` tokens: new ones, and hit blocks
    /// that nobody else references.
    fn blocks_needed(&self, chain: &Chain, tokens: u32) -> u32 {
        let owned = (self.hits.len() + chain.table.len()) as u32;
        let revived = self.hits.iter().filter(|&&block| self.pool.refs(block) == 0).count() as u32;
        tokens.div_ceil(self.block_tokens).saturating_sub(owned) + revived
    }
}
