//! Texts as a tree: a node is a run of blocks after the run of its parent. What is known of a run is its owner's
//! business; the tree knows which text it is, cuts it where texts part, and drops it when nobody needs it.

use rustc_hash::FxHashMap;

use super::text::{Pieces, Text, key_of, mix};

/// Index of a node. 0 is before every text: it has no blocks.
pub(super) type NodeId = u32;

/// Blocks `start..end` of a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Node<T> {
    parent: NodeId,
    pub(super) start: u32,
    pub(super) end: u32,
    /// Where its last block ends, in tokens: before the block's end where that is partial.
    token_end: u32,
    children: u32,
    /// Where the map has it.
    key: u64,
    /// The pieces of text that contain its tokens. A piece may begin before the first and end after the last.
    label: Pieces,
    /// What its owner knows of it.
    pub(super) known: T,
}

impl<T> Node<T> {
    pub(super) fn len(&self) -> u32 {
        self.end - self.start
    }
}

/// How far along a text a walk has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) node: NodeId,
    /// Blocks that were passed.
    pub(super) blocks: u32,
    /// The piece of the text that contains the last key's first token.
    piece: usize,
}

/// The texts, with what their owner knows of each run of blocks.
#[derive(Clone, Debug)]
pub(super) struct Tree<T> {
    nodes: Vec<Node<T>>,
    vacant: Vec<NodeId>,
    /// Node by parent and first block.
    map: FxHashMap<u64, NodeId>,
}

impl<T: Default> Default for Tree<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], vacant: Vec::new(), map: FxHashMap::default() }
    }
}

impl<T> std::ops::Index<NodeId> for Tree<T> {
    type Output = Node<T>;
    fn index(&self, id: NodeId) -> &Node<T> {
        &self.nodes[id as usize]
    }
}

impl<T> std::ops::IndexMut<NodeId> for Tree<T> {
    fn index_mut(&mut self, id: NodeId) -> &mut Node<T> {
        &mut self.nodes[id as usize]
    }
}

impl<T: Default> Tree<T> {
    /// Goes on along `text` into the next node: the block up to which that is the text, beyond `place`. `None`
    /// where the text ends or no text goes on like it.
    pub(super) fn advance(&self, text: &Text, place: &mut Place) -> Option<u32> {
        if place.blocks >= text.blocks() {
            return None;
        }
        let key = self.key(text, place);
        let &id = self.map.get(&key)?;
        let node = &self[id];
        let agreed = text.agree(&node.label, node.start, node.end, node.token_end, place.piece);
        debug_assert!(agreed > node.start, "equal keys are equal blocks");
        (place.node, place.blocks) = (id, agreed);
        Some(agreed)
    }

    /// A new node for the blocks of `text` behind `place`, up to its end; `place` moves there.
    pub(super) fn grow(&mut self, text: &Text, place: &mut Place) -> NodeId {
        let key = self.key(text, place);
        let node = Node {
            parent: place.node,
            start: place.blocks,
            end: text.blocks(),
            token_end: text.tokens(),
            children: 0,
            key,
            label: text.pieces_from(place.blocks, place.piece),
            known: T::default(),
        };
        self[place.node].children += 1;
        let id = self.insert(node);
        (place.node, place.blocks) = (id, text.blocks());
        id
    }

    fn insert(&mut self, node: Node<T>) -> NodeId {
        let key = node.key;
        let id = match self.vacant.pop() {
            Some(id) => {
                self[id] = node;
                id
            }
            None => {
                self.nodes.push(node);
                NodeId::try_from(self.nodes.len() - 1).expect("fewer than 2^32 nodes")
            }
        };
        self.map.insert(key, id);
        id
    }

    /// Cuts node `id` at block `at`, inside it; the number of the upper part, of which nothing is known yet. The
    /// lower part keeps number, children and what is known.
    pub(super) fn split(&mut self, text: &Text, id: NodeId, at: u32) -> NodeId {
        let token = at * text.block_tokens();
        let node = &mut self.nodes[id as usize];
        debug_assert!(node.start < at && at < node.end, "a cut leaves two parts");
        let cut = node.label.iter().position(|piece| token < piece.end).expect("the label contains the node");
        let mut label = Pieces::from_slice(&node.label[..=cut]);
        if label[cut].start >= token {
            label.pop();
        }
        node.label.drain(..cut);
        let upper = Node {
            parent: node.parent,
            start: node.start,
            end: at,
            token_end: token,
            children: 1,
            key: node.key,
            label,
            known: T::default(),
        };
        node.start = at;
        let end = token.saturating_add(text.block_tokens()).min(node.token_end);
        let upper = self.insert(upper);
        let node = &mut self.nodes[id as usize];
        node.key = key_of(identity(upper), &node.label, token, end);
        node.parent = upper;
        let key = node.key;
        self.map.insert(key, id);
        upper
    }

    /// Drops node `id` if nothing continues it and nothing is known of it, and so its ancestors.
    pub(super) fn prune(&mut self, mut id: NodeId, is_unknown: impl Fn(&T) -> bool) {
        while id != 0 && self[id].children == 0 && is_unknown(&self[id].known) {
            let node = std::mem::take(&mut self[id]);
            self.map.remove(&node.key);
            self.vacant.push(id);
            self[node.parent].children -= 1;
            id = node.parent;
        }
    }

    /// As [`prune`](Self::prune), for a number that may no longer be a node's.
    pub(super) fn prune_if_used(&mut self, id: NodeId, is_unknown: impl Fn(&T) -> bool) {
        if self[id].len() > 0 {
            self.prune(id, is_unknown);
        }
    }

    /// The numbers of all nodes, and of places where there is none: those have no blocks.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> + use<T> {
        1..self.nodes.len() as NodeId
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    fn key(&self, text: &Text, place: &mut Place) -> u64 {
        let parent = if place.node == 0 { text.root() } else { identity(place.node) };
        text.key(parent, place.blocks, &mut place.piece)
    }
}

/// Identity of a node as a parent.
fn identity(node: NodeId) -> u64 {
    mix(u64::from(node), 0x243f_6a88_85a3_08d3)
}
