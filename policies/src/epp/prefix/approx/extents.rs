//! The index over runs of blocks: a request costs what its text branches, not what it measures.
//!
//! What makes it exact:
//!
//! * An insert touches the blocks of a text in order, so the blocks of a node stay neighbours in a server's list of
//!   recency: one element of the list stands for the whole run, and loses its first block first.
//! * What an LRU list holds after any accesses is the most recently used distinct blocks, as many as fit. So a text
//!   is first brought to the end as a whole, and then the list is cut at its front: the same state as upstream's
//!   block by block.
//! * Blocks that one insert both adds and evicts stay findable upstream. Those are the leading blocks of a text
//!   that is longer than the list. They stay so until they enter the list once more and leave it by another insert:
//!   of a node they are always its first blocks, whatever the list holds of it always its last.

use smallvec::SmallVec;

use super::PrefixIndex;
use super::lists::{ElementId, Lists};
use crate::epp::prefix::text::Text;
use crate::epp::prefix::tree::{NodeId, Place, Tree};

/// What one server is believed to have of a node: blocks `start..ghosts_end` and `from..end`.
#[derive(Clone, Copy, Debug)]
struct Share {
    server: u32,
    /// Its place in the server's list; 0 when no block of it is in the list.
    element: ElementId,
    /// The blocks before this one are findable though they are not in the list.
    ghosts_end: u32,
    /// The blocks from this one on are in the list.
    from: u32,
}

/// The shares of a node, by server.
#[derive(Clone, Debug, Default)]
struct Shares(SmallVec<[Share; 1]>);

impl Shares {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn position(&self, server: u32) -> Result<usize, usize> {
        self.0.binary_search_by_key(&server, |share| share.server)
    }

    /// The block before which every block of `start..end` is findable on some server.
    fn covered(&self, start: u32, end: u32) -> u32 {
        let (mut ghosts, mut from) = (start, end);
        for share in &self.0 {
            if share.from == start {
                return end;
            }
            ghosts = ghosts.max(share.ghosts_end);
            from = from.min(share.from);
        }
        if from <= ghosts { end } else { ghosts }
    }
}

/// One server's list.
#[derive(Clone, Copy, Debug)]
struct Server {
    list: ElementId,
    /// Fixed when the list is made.
    capacity: u32,
    /// Blocks in the list.
    blocks: u32,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct ExtentIndex {
    tree: Tree<Shares>,
    lists: Lists,
    servers: Vec<Option<Server>>,
}

impl PrefixIndex for ExtentIndex {
    fn count_matches(&self, text: &Text, counts: &mut [u32]) {
        let mut place = Place::default();
        while let Some(agreed) = self.tree.advance(text, &mut place) {
            let node = &self.tree[place.node];
            let covered = node.known.covered(node.start, node.end).min(agreed);
            for share in &node.known.0 {
                let ghosts = share.ghosts_end.min(covered) - node.start;
                counts[share.server as usize] += ghosts + covered.saturating_sub(share.from);
            }
            if covered < node.end {
                break;
            }
        }
    }

    fn insert(&mut self, server: u32, capacity: u32, text: &Text) {
        let blocks = text.blocks();
        if blocks == 0 {
            return;
        }
        self.welcome(server, capacity);
        let mut place = Place::default();
        while place.blocks < blocks {
            let known = self.tree.advance(text, &mut place).is_some();
            let below = place.node;
            if !known {
                self.tree.grow(text, &mut place);
            } else if place.blocks < self.tree[below].end {
                place.node = self.split(text, below, place.blocks);
            }
            self.touch(server, place.node);
            if known {
                // Of the lower part of a cut perhaps nobody has anything.
                self.tree.prune(below, Shares::is_empty);
            }
        }
        let Some(Server { capacity, blocks: listed, .. }) = self.servers[server as usize] else { return };
        let own = blocks.saturating_sub(capacity);
        self.evict(server, listed.saturating_sub(capacity) - own, false);
        self.evict(server, own, true);
    }

    fn size(&self, server: u32) -> Option<u32> {
        self.servers.get(server as usize)?.map(|server| server.blocks)
    }

    fn remove(&mut self, server: u32) {
        let Some(Some(state)) = self.servers.get(server as usize).copied() else { return };
        self.evict(server, state.blocks, false);
        self.lists.remove(state.list);
        self.servers[server as usize] = None;
        // Findable blocks that are in no list remain.
        for id in self.tree.ids() {
            if let Ok(position) = self.tree[id].known.position(server) {
                self.tree[id].known.0.remove(position);
                self.tree.prune(id, Shares::is_empty);
            }
        }
    }
}

impl ExtentIndex {
    /// How many runs of blocks the index distinguishes.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.tree.len()
    }

    fn welcome(&mut self, server: u32, capacity: u32) {
        let index = server as usize;
        if index >= self.servers.len() {
            self.servers.resize(index + 1, None);
        }
        if self.servers[index].is_none() {
            self.servers[index] = Some(Server { list: self.lists.new_list(), capacity, blocks: 0 });
        }
    }

    fn server(&mut self, server: u32) -> &mut Server {
        self.servers[server as usize].as_mut().expect("whoever has blocks has a list")
    }

    /// Makes all blocks of node `id` the youngest of the server.
    fn touch(&mut self, server: u32, id: NodeId) {
        let state = self.servers[server as usize].as_mut().expect("an insert welcomes its server");
        let node = &mut self.tree[id];
        let (start, end, len) = (node.start, node.end, node.len());
        match node.known.position(server) {
            Ok(position) => {
                let share = &mut node.known.0[position];
                state.blocks += share.from - start;
                if share.from == end {
                    share.element = self.lists.push_back(state.list, id);
                } else {
                    self.lists.move_to_back(state.list, share.element);
                }
                (share.ghosts_end, share.from) = (start, start);
            }
            Err(position) => {
                state.blocks += len;
                let element = self.lists.push_back(state.list, id);
                node.known.0.insert(position, Share { server, element, ghosts_end: start, from: start });
            }
        }
    }

    /// Takes the `count` oldest blocks off the server's list; as ghosts they remain findable.
    fn evict(&mut self, server: u32, mut count: u32, as_ghosts: bool) {
        self.server(server).blocks -= count;
        let list = self.server(server).list;
        while count > 0 {
            let (element, id) = self.lists.front(list).expect("the list has that many blocks");
            let node = &mut self.tree[id];
            let (start, end) = (node.start, node.end);
            let position = node.known.position(server).expect("an element has its share");
            let share = &mut node.known.0[position];
            let evicted = count.min(end - share.from);
            count -= evicted;
            share.from += evicted;
            if as_ghosts {
                share.ghosts_end = share.from;
            }
            let (ghosts, gone) = (share.ghosts_end > start, share.from == end);
            if !gone {
                continue;
            }
            self.lists.remove(element);
            node.known.0[position].element = 0;
            if !ghosts {
                node.known.0.remove(position);
                self.tree.prune(id, Shares::is_empty);
            }
        }
    }

    /// Cuts node `id` at block `at`, and every share of it; the upper part. In every list it comes right before the
    /// lower one.
    fn split(&mut self, text: &Text, id: NodeId, at: u32) -> NodeId {
        let upper = self.tree.split(text, id, at);
        let (start, end) = (self.tree[upper].start, self.tree[id].end);
        let whole = std::mem::take(&mut self.tree[id].known);
        let mut parts = [Shares::default(), Shares::default()];
        for share in whole.0 {
            let head =
                Share { element: 0, ghosts_end: share.ghosts_end.min(at), from: share.from.min(at), ..share };
            let tail = Share { ghosts_end: share.ghosts_end.max(at), from: share.from.max(at), ..share };
            if head.from < at {
                let element = self.lists.insert_before(share.element, upper);
                parts[0].0.push(Share { element, ..head });
            } else if head.ghosts_end > start {
                parts[0].0.push(head);
            }
            if tail.from < end || tail.ghosts_end > at {
                parts[1].0.push(tail);
            }
        }
        let [head, tail] = parts;
        self.tree[upper].known = head;
        self.tree[id].known = tail;
        upper
    }
}
