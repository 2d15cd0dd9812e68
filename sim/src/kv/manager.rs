//! What a request may have: vLLM's `KVCacheManager` for one full-attention group
//! (v1/core/kv_cache_manager.py, v1/core/single_type_kv_cache_manager.py, 0.32), over any [`Pool`].

use super::{Hit, Pool, TokenSource, Touch};

/// The KV side of one request.
#[derive(Clone, Debug)]
pub struct Holding<P: Pool> {
    chain: P::Chain,
    /// How many leading blocks are registered; `None` before the first of them.
    registered: Option<u32>,
}

impl<P: Pool> Holding<P> {
    /// The blocks held.
    #[must_use]
    pub fn chain(&self) -> &P::Chain {
        &self.chain
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
    /// To have slots for beside: what a draft writes.
    pub lookahead: u32,
    /// Require room for all known tokens, not just for this step's (`scheduler_reserve_full_isl`).
    pub full_sequence: bool,
    /// Keep this many blocks free beside (`watermark`).
    pub spare_blocks: u32,
}

/// Hands out KV blocks to the requests of one replica.
#[derive(Clone, Debug)]
pub struct KvManager<P: Pool> {
    pool: P,
    block_tokens: u32,
    prefix_caching: bool,
    max_model_len: u32,
    /// The prefix hit found last.
    hit: Hit,
}

impl<P: Pool> KvManager<P> {
    /// A manager of `num_blocks` blocks (the null block included) of `block_tokens` tokens.
    #[must_use]
    pub fn new(num_blocks: u32, block_tokens: u32, prefix_caching: bool, max_model_len: u32) -> Self {
        let pool = P::new(num_blocks, block_tokens);
        Self { pool, block_tokens, prefix_caching, max_model_len, hit: Hit::default() }
    }

    /// The pool itself.
    #[must_use]
    pub fn pool(&self) -> &P {
        &self.pool
    }

    /// The holding of a request that has nothing yet.
    #[must_use]
    pub fn holding(&mut self, tokens: &TokenSource) -> Holding<P> {
        Holding { chain: self.pool.chain(tokens), registered: None }
    }

    /// Finds the longest cached prefix of a request that holds nothing, and keeps it for the
    /// [`allocate`](Self::allocate) that follows. Returns its length in tokens.
    ///
    /// At most `known - 1` tokens: the last one must be computed to have logits. A fully cached prompt of
    /// 64 tokens hits 48.
    pub fn find_prefix(&mut self, holding: &mut Holding<P>, known: u32) -> u32 {
        self.hit = if self.prefix_caching {
            self.pool.find(&mut holding.chain, (known - 1) / self.block_tokens, known)
        } else {
            Hit::default()
        };
        self.hit.blocks * self.block_tokens
    }

    /// Forgets the prefix found last: what follows allocates for a running request.
    pub fn no_prefix(&mut self) {
        self.hit = Hit::default();
    }

    /// Gives `holding` the found prefix and blocks for the tokens of this step, and registers the blocks that
    /// this step fills: a request admitted later in the same step already hits them. `false`, and nothing
    /// changed, when the free blocks do not suffice.
    pub fn allocate(&mut self, holding: &mut Holding<P>, demand: &Demand) -> bool {
        let total = demand.computed + self.hit.blocks * self.block_tokens;
        let available = self.pool.free();
        if demand.full_sequence {
            let whole = demand.known.min(self.max_model_len);
            if self.blocks_needed(holding, whole) + demand.spare_blocks > available {
                return false;
            }
        }
        let slots = (total + demand.new + demand.lookahead).min(self.max_model_len);
        if self.blocks_needed(holding, slots) + demand.spare_blocks > available {
            return false;
        }
        if holding.registered.is_none() && self.hit.blocks > 0 {
            self.pool.attach(&mut holding.chain);
            holding.registered = Some(self.hit.blocks);
        }
        let missing = slots.div_ceil(self.block_tokens).saturating_sub(self.pool.held(&holding.chain));
        if missing > 0 {
            self.pool.take(&mut holding.chain, missing);
        }
        self.register(holding, (total + demand.new).min(demand.known), demand.known);
        true
    }

    /// Gives `holding` the found prefix and blocks for `external` tokens that follow it and are loaded into them;
    /// `reserved` blocks stay free beside. Nothing is registered before the load is over. `false`, and nothing
    /// changed, when the free blocks do not suffice.
    pub fn allocate_for_load(
        &mut self,
        holding: &mut Holding<P>,
        demand: &Demand,
        external: u32,
        reserved: u32,
    ) -> bool {
        let available = self.pool.free();
        let whole = if demand.full_sequence { demand.known.min(self.max_model_len) } else { 0 };
        if self.blocks_needed(holding, whole) + demand.spare_blocks > available {
            return false;
        }
        let slots = (self.hit.blocks * self.block_tokens + external).min(self.max_model_len);
        if self.blocks_needed(holding, slots) + demand.spare_blocks + reserved > available {
            return false;
        }
        if self.hit.blocks > 0 {
            self.pool.attach(&mut holding.chain);
        }
        holding.registered = Some(self.hit.blocks);
        self.pool.take(&mut holding.chain, slots.div_ceil(self.block_tokens) - self.hit.blocks);
        true
    }

    /// Takes `blocks` free blocks for requests that decode in lockstep.
    pub fn reserve(&mut self, blocks: u32) {
        self.pool.reserve(blocks);
    }

    /// Gives `blocks` of the reserved blocks to a request.
    pub fn grant(&mut self, holding: &mut Holding<P>, blocks: u32) {
        if blocks > 0 {
            self.pool.grant(&mut holding.chain, blocks);
        }
    }

    /// Registers every block that `tokens` computed tokens fill; `known` tokens are known.
    pub fn register(&mut self, holding: &mut Holding<P>, tokens: u32, known: u32) {
        let (done, full) = (holding.registered.unwrap_or(0), tokens / self.block_tokens);
        if self.prefix_caching && full > done {
            self.pool.register(&mut holding.chain, done, full, known);
            holding.registered = Some(full);
        }
    }

    /// Takes back all blocks of a request.
    pub fn release(&mut self, holding: &mut Holding<P>) {
        self.pool.release(&mut holding.chain);
        holding.registered = None;
    }

    /// Notes from now on who takes blocks `from..to` of a request, as far as they are registered.
    pub fn watch(&mut self, holding: &Holding<P>, watcher: u32, from: u32, to: u32) {
        let to = to.min(holding.registered.unwrap_or(0));
        if from < to {
            self.pool.watch(&holding.chain, watcher, from, to);
        }
    }

    /// Notes all watched blocks of a request as taken.
    pub fn touch(&mut self, holding: &Holding<P>) {
        if self.pool.is_watched() {
            self.pool.touch_held(&holding.chain);
        }
    }

    /// Forgets a watcher.
    pub fn unwatch(&mut self, watcher: u32) {
        self.pool.unwatch(watcher);
    }

    /// Whether any block is watched.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.pool.is_watched()
    }

    /// What was taken or found of the watched blocks since the last call.
    pub fn touched(&mut self) -> Vec<Touch> {
        self.pool.touched()
    }

    /// Blocks that leave the free queue so that a request can hold `tokens` tokens: new ones, and hit blocks
    /// that nobody else references.
    fn blocks_needed(&self, holding: &Holding<P>, tokens: u32) -> u32 {
        let owned = self.hit.blocks + self.pool.held(&holding.chain);
        tokens.div_ceil(self.block_tokens).saturating_sub(owned) + self.hit.unreferenced
    }
}
