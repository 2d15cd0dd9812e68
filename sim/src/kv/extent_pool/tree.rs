//! The cached texts as a tree: a node is a run of blocks after the run of its parent, with a label that says
//! which text it is. Nodes are cut at blocks: texts that differ within a block part before it.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::chain::{Cursor, ExtentChain, Piece, Text, block_key, identity};
use super::copies::{Copies, CopyId};
use super::watches::Watches;

/// Index of a node. 0 is the root of all texts: it has no blocks.
pub(super) type NodeId = u32;

/// Blocks `start..end` of a text, all cached, each in the same copies.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    pub(super) start: u32,
    pub(super) end: u32,
    /// How many nodes continue it, and the exclusive or of their numbers: of a single child, its number.
    pub(super) children: u32,
    pub(super) children_xor: NodeId,
    /// Its copies, in order of registration. There is at least one.
    pub(super) oldest: CopyId,
    pub(super) youngest: CopyId,
    /// The chain that made it and may extend it: the label goes on with that chain's text.
    author: u32,
    /// Where the map has it.
    pub(super) key: u64,
    /// The pieces of text that contain its tokens. A piece may begin before the first and end after the last.
    pub(super) label: SmallVec<[Piece; 3]>,
}

impl Node {
    pub(super) fn len(&self) -> u32 {
        self.end - self.start
    }
}

/// How far a text is cached.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Leading blocks that are cached.
    pub(super) blocks: u32,
    /// Of those, blocks whose oldest copy nobody references.
    pub(super) idle: u32,
    /// The node of the last of them.
    node: NodeId,
    cursor: Cursor,
}

/// Everything that is cached, with its references.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    block_tokens: u32,
    pub(super) nodes: Vec<Node>,
    /// Unused nodes, linked by `parent`. They keep the memory of their labels.
    vacant: NodeId,
    /// Node by parent and first block.
    pub(super) map: FxHashMap<u64, NodeId>,
    pub(super) copies: Copies,
    /// Blocks of copies that nobody references.
    idle: u32,
    pub(super) watches: Watches,
}

impl Tree {
    pub(super) fn new(block_tokens: u32) -> Self {
        Self {
            block_tokens,
            nodes: vec![Node::default()],
            vacant: 0,
            map: FxHashMap::default(),
            copies: Copies::new(),
            idle: 0,
            watches: Watches::default(),
        }
    }

    pub(super) fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// Cached blocks that nobody references.
    pub(super) fn idle(&self) -> u32 {
        self.idle
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// How far the text of `chain` is cached, at most to block `to`.
    pub(super) fn find(&self, chain: &ExtentChain, to: u32) -> Place {
        let mut place = Place::default();
        while place.blocks < to {
            let key = chain.key(place.node, place.cursor, place.blocks * self.block_tokens);
            let Some(&id) = self.map.get(&key) else { break };
            let node = self.node(id);
            let agreed = self.agree(node, &chain.text, &mut place.cursor, to.min(node.end));
            if self.copies[node.oldest].refs == 0 {
                place.idle += agreed - place.blocks;
            }
            (place.node, place.blocks) = (id, agreed);
            if agreed < node.end {
                break;
            }
        }
        place
    }

    /// The block up to which `node`, whose first block is `text`'s at `cursor`, is that text, at most `to`.
    /// `cursor` moves there.
    fn agree(&self, node: &Node, text: &Text, cursor: &mut Cursor, to: u32) -> u32 {
        let limit = to * self.block_tokens;
        let mut agreed = node.start * self.block_tokens;
        for label in &node.label {
            let piece = text.piece(*cursor);
            if !piece.agrees(label) {
                break;
            }
            agreed = piece.end.min(label.end);
            if agreed >= limit || piece.end != label.end {
                break;
            }
            cursor.pass(&piece);
        }
        let block = if agreed >= limit { to } else { agreed / self.block_tokens };
        debug_assert!(block > node.start, "equal keys are equal blocks");
        cursor.seek(text, block * self.block_tokens);
        block
    }

    /// Adds a reference to the oldest copies of the blocks at `place`, for `chain`, which continues there.
    pub(super) fn attach(&mut self, chain: &mut ExtentChain, place: &Place) {
        let last = self.ending_at(place.node, place.blocks);
        let mut id = last;
        while id != 0 {
            let (oldest, parent, len) = (self.node(id).oldest, self.node(id).parent, self.node(id).len());
            if self.copies[oldest].refs == 0 {
                self.copies.unlink(oldest);
                self.idle -= len;
            }
            self.copies[oldest].refs += 1;
            if !self.watches.is_empty() {
                self.watches.touch(oldest, self.node(id).start, self.node(id).end);
            }
            id = parent;
        }
        chain.node = last;
        chain.cursor = place.cursor;
        (chain.attached, chain.registered) = (place.blocks, place.blocks);
    }

    /// Registers the blocks of `chain` up to `to`.
    pub(super) fn register(&mut self, chain: &mut ExtentChain, to: u32) {
        if self.may_extend(chain) {
            self.node_mut(chain.node).end = to;
            chain.registered = to;
            return;
        }
        while chain.registered < to {
            let at = chain.registered;
            chain.cursor.seek(&chain.text, at * self.block_tokens);
            let key = chain.key(chain.node, chain.cursor, at * self.block_tokens);
            if let Some(&id) = self.map.get(&key) {
                // Somebody else registered equal blocks: these are copies of them.
                let node = &self.nodes[id as usize];
                let agreed = self.agree(node, &chain.text, &mut chain.cursor, to.min(node.end));
                chain.node = self.ending_at(id, agreed);
                chain.copy = self.add_copy(chain.node, chain.owner);
                chain.registered = agreed;
            } else {
                self.grow(chain, key, to);
                chain.registered = to;
            }
        }
    }

    /// Whether the node that `chain` is at can simply become longer: it is a leaf that this chain made, and
    /// nobody else holds it, nor ever registered a copy of it.
    fn may_extend(&self, chain: &ExtentChain) -> bool {
        let node = self.node(chain.node);
        let oldest = &self.copies[node.oldest];
        node.author == chain.owner && node.children == 0 && oldest.refs == 1 && oldest.younger == 0
    }

    /// A leaf for the blocks of `chain` up to `to`.
    fn grow(&mut self, chain: &mut ExtentChain, key: u64, to: u32) {
        let id = self.vacant_node();
        let oldest = self.copies.insert(id, 1, chain.owner);
        let node = &mut self.nodes[id as usize];
        node.label.extend(chain.text.pieces(chain.cursor));
        (node.start, node.end) = (chain.registered, to);
        (node.parent, node.key) = (chain.node, key);
        (node.author, node.oldest, node.youngest) = (chain.owner, oldest, oldest);
        let parent = self.node_mut(chain.node);
        parent.children += 1;
        parent.children_xor ^= id;
        self.map.insert(key, id);
        chain.node = id;
    }

    /// A new copy of node `id`, with one reference: its youngest.
    fn add_copy(&mut self, id: NodeId, owner: u32) -> CopyId {
        let copy = self.copies.insert(id, 1, owner);
        self.append_copy(id, copy);
        copy
    }

    fn append_copy(&mut self, id: NodeId, copy: CopyId) {
        let node = &mut self.nodes[id as usize];
        let older = std::mem::replace(&mut node.youngest, copy);
        if older == 0 {
            node.oldest = copy;
        } else {
            self.copies[older].younger = copy;
        }
        self.copies[copy].older = older;
    }

    /// Drops the references of `chain`, last block first. Copies that become free will be evicted last, in that
    /// order.
    pub(super) fn release(&mut self, chain: &ExtentChain) {
        // The node after the current one, where both can be one again: alone in its place and just freed.
        let mut below = 0;
        let mut id = chain.node;
        while id != 0 {
            let parent = self.node(id).parent;
            let copy = self.held_copy(id, chain);
            self.copies[copy].refs -= 1;
            if self.copies[copy].refs > 0 {
                below = 0;
            } else {
                self.idle += self.node(id).len();
                self.copies.push_back(copy);
                let joins = |below| self.watches.agree(copy, self.node(below).oldest);
                if self.copies[self.node(id).oldest].younger != 0 {
                    below = 0;
                } else if below != 0 && self.node(id).children == 1 && joins(below) {
                    self.merge(id, below);
                } else {
                    below = id;
                }
            }
            id = parent;
        }
    }

    /// The copy of node `id` that `chain` holds. Of what it found it is the oldest: only older ones could be
    /// before it, and they were gone when it was found.
    pub(super) fn held_copy(&self, id: NodeId, chain: &ExtentChain) -> CopyId {
        let node = self.node(id);
        if node.end <= chain.attached {
            return node.oldest;
        }
        let guess = &self.copies[chain.copy];
        if guess.owner == chain.owner && guess.node == id {
            return chain.copy;
        }
        let mut copy = node.youngest;
        while self.copies[copy].owner != chain.owner {
            copy = self.copies[copy].older;
            debug_assert_ne!(copy, 0, "a chain has a copy of each node that it registered");
        }
        copy
    }

    /// Notes from now on what happens to the copies of blocks `from..to` that `chain` holds.
    pub(super) fn watch(&mut self, chain: &ExtentChain, watcher: u32, from: u32, to: u32) {
        let mut id = chain.node;
        while id != 0 && self.node(id).end > from {
            if self.node(id).start < to {
                self.watches.add(self.held_copy(id, chain), watcher);
            }
            id = self.node(id).parent;
        }
    }

    /// Notes all watched blocks of `chain` as taken.
    pub(super) fn touch_held(&mut self, chain: &ExtentChain) {
        let mut id = chain.node;
        while id != 0 {
            let copy = self.held_copy(id, chain);
            self.watches.touch(copy, self.node(id).start, self.node(id).end);
            id = self.node(id).parent;
        }
    }

    /// Evicts `count` blocks: as many are idle.
    pub(super) fn evict(&mut self, mut count: u32) {
        self.idle -= count;
        while count > 0 {
            let copy = self.copies.front();
            let id = self.copies[copy].node;
            let (end, len) = (self.node(id).end, self.node(id).len());
            let evicted = count.min(len);
            count -= evicted;
            if !self.watches.is_empty() {
                self.watches.touch(copy, end - evicted, end);
            }
            let sole = self.node(id).oldest == copy && self.copies[copy].younger == 0;
            debug_assert!(!sole || self.node(id).children == 0, "what is cached has no gaps");
            if sole && evicted < len {
                self.node_mut(id).end -= evicted;
                continue;
            }
            if evicted < len {
                // The lower part keeps number, copy and place.
                self.split(id, end - evicted);
            }
            self.copies.unlink(copy);
            self.drop_copy(id, copy);
            if sole {
                self.remove(id);
            } else {
                self.join_child(id);
            }
        }
    }

    /// Removes `copy`, which is off the list of evictable ones, from node `id`.
    fn drop_copy(&mut self, id: NodeId, copy: CopyId) {
        let (older, younger) = (self.copies[copy].older, self.copies[copy].younger);
        if older == 0 {
            self.node_mut(id).oldest = younger;
        } else {
            self.copies[older].younger = younger;
        }
        if younger == 0 {
            self.node_mut(id).youngest = older;
        } else {
            self.copies[younger].older = older;
        }
        self.copies.remove(copy);
        self.watches.remove(copy);
    }

    /// The node that ends at block `at`, which lies in node `id` or ends it.
    fn ending_at(&mut self, id: NodeId, at: u32) -> NodeId {
        if self.node(id).end == at { id } else { self.split(id, at) }
    }

    /// Cuts node `id` at block `at`; the number of the upper part. The lower one keeps number, children and the
    /// chains that end with it, and is evicted first.
    fn split(&mut self, id: NodeId, at: u32) -> NodeId {
        let upper = self.vacant_node();
        let token = at * self.block_tokens;
        let mut label = std::mem::take(&mut self.node_mut(upper).label);
        let node = &mut self.nodes[id as usize];
        let cut = node.label.iter().position(|piece| token < piece.end).expect("the label contains the node");
        label.extend_from_slice(&node.label[..=cut]);
        node.label.drain(..cut);

        let (parent, key, start) = (node.parent, node.key, node.start);
        node.key = block_key(identity(upper), node.label.iter().copied(), token, self.block_tokens);
        (node.parent, node.start) = (upper, at);
        let (lower_key, mut copy) = (node.key, node.oldest);
        // It has no author: its label ends with it.
        let (children, children_xor) = (1, id);
        let node = Node { parent, start, end: at, children, children_xor, key, label, ..Node::default() };
        *self.node_mut(upper) = node;
        self.node_mut(parent).children_xor ^= id ^ upper;
        self.map.insert(key, upper);
        self.map.insert(lower_key, id);
        while copy != 0 {
            let old = self.copies[copy];
            let new = self.copies.insert(upper, old.refs, old.owner);
            self.append_copy(upper, new);
            self.watches.inherit(copy, new);
            if old.refs == 0 {
                self.copies.link_after(copy, new);
            }
            copy = old.younger;
        }
        upper
    }

    /// Joins node `id` with its child where it has one and nothing differs between them: as many copies of the
    /// same chains with as many references, evicted one right after the other. (Then no chain ends between them:
    /// it would have a reference to the upper one only.)
    fn join_child(&mut self, id: NodeId) {
        if self.node(id).children != 1 {
            return;
        }
        let child = self.node(id).children_xor;
        let (mut upper, mut lower) = (self.node(id).oldest, self.node(child).oldest);
        while upper != 0 && lower != 0 {
            let (above, below) = (&self.copies[upper], &self.copies[lower]);
            let apart = above.refs == 0 && self.copies.next(lower) != upper;
            let unlike = above.refs != below.refs || above.owner != below.owner;
            if apart || unlike || !self.watches.agree(upper, lower) {
                return;
            }
            (upper, lower) = (above.younger, below.younger);
        }
        if upper == lower {
            self.merge(id, child);
        }
    }

    /// Makes `upper` a part of `lower`, its only child. Nothing differs between their copies but, where nobody
    /// holds them, who registered them.
    fn merge(&mut self, upper: NodeId, lower: NodeId) {
        let Node { parent, start, mut oldest, key, .. } = *self.node(upper);
        let mut label = std::mem::take(&mut self.node_mut(upper).label);
        let node = &mut self.nodes[lower as usize];
        let cut = node.label[0].start;
        label.truncate(label.iter().take_while(|piece| piece.start < cut).count());
        if let Some(last) = label.last_mut() {
            // Above, it may be a longer cut of what it is a part of.
            last.end = last.end.min(cut);
        }
        label.append(&mut node.label);
        std::mem::swap(&mut label, &mut node.label);
        let lower_key = std::mem::replace(&mut node.key, key);
        (node.parent, node.start) = (parent, start);
        while oldest != 0 {
            let copy = self.copies[oldest];
            if copy.refs == 0 {
                self.copies.unlink(oldest);
            }
            self.copies.remove(oldest);
            self.watches.remove(oldest);
            oldest = copy.younger;
        }
        self.node_mut(parent).children_xor ^= upper ^ lower;
        self.map.remove(&lower_key);
        self.map.insert(key, lower);
        self.node_mut(upper).label = label;
        self.vacate(upper);
    }

    /// Removes a leaf.
    fn remove(&mut self, id: NodeId) {
        let Node { parent, key, .. } = *self.node(id);
        self.map.remove(&key);
        let above = self.node_mut(parent);
        above.children -= 1;
        above.children_xor ^= id;
        self.vacate(id);
    }

    /// An unused node with an empty label.
    fn vacant_node(&mut self) -> NodeId {
        if self.vacant == 0 {
            self.nodes.push(Node::default());
            return self.nodes.len() as NodeId - 1;
        }
        let id = self.vacant;
        self.vacant = self.node(id).parent;
        id
    }

    fn vacate(&mut self, id: NodeId) {
        let mut label = std::mem::take(&mut self.node_mut(id).label);
        label.clear();
        *self.node_mut(id) = Node { parent: self.vacant, label, ..Node::default() };
        self.vacant = id;
    }
}
