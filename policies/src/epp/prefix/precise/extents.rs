//! The index over runs of blocks: exact while it has room for all keys, which is the rule: its default size is many
//! times what a fleet can hold. (When keys are forgotten by age, [`BlockKvIndex`](super::BlockKvIndex) is to be used.)

use smallvec::SmallVec;

use super::config::{KvIndexConfig, TierWeights};
use super::found::{Found, Kind, Presence};
use super::{KvIndex, Text};
use crate::epp::prefix::tree::{NodeId, Place, Tree};

/// The entries of every block of a node, oldest first.
type Entries = SmallVec<[(u32, Kind); 4]>;

/// See the module's description.
#[derive(Clone, Debug)]
pub struct ExtentKvIndex {
    pod_cache_size: usize,
    tree: Tree<Entries>,
    /// Scratch: the nodes of one operation, and the pods without a gap so far.
    path: Vec<NodeId>,
    pods: Vec<u32>,
}

impl KvIndex for ExtentKvIndex {
    fn new(config: KvIndexConfig) -> Self {
        let pod_cache_size = config.pod_cache_size;
        Self { pod_cache_size, tree: Tree::default(), path: Vec::new(), pods: Vec::new() }
    }

    fn add(&mut self, pod: u32, kind: Kind, text: &Text, from: u32) {
        if from >= text.blocks() {
            return;
        }
        self.cut(text, from, true);
        for &id in &self.path {
            let entries = &mut self.tree[id].known;
            entries.retain(|entry| *entry != (pod, kind));
            entries.push((pod, kind));
            if entries.len() > self.pod_cache_size {
                entries.remove(0);
            }
        }
        self.prune();
    }

    fn evict(&mut self, pod: u32, kind: Kind, text: &Text, from: u32) {
        if from >= text.blocks() {
            return;
        }
        self.cut(text, from, false);
        for &id in &self.path {
            self.tree[id].known.retain(|entry| *entry != (pod, kind));
        }
        self.prune();
    }

    fn clear(&mut self, pod: u32) {
        for id in self.tree.ids() {
            self.tree[id].known.retain(|entry| entry.0 != pod);
            self.tree.prune_if_used(id, SmallVec::is_empty);
        }
    }

    fn find(&mut self, text: &Text, weights: &TierWeights, found: &mut [Found]) {
        found.fill(Found::default());
        let mut place = Place::default();
        let mut at = 0;
        while let Some(agreed) = self.tree.advance(text, &mut place) {
            let entries = &self.tree[place.node].known;
            if at == 0 {
                self.pods.clear();
                self.pods.extend(entries.iter().map(|entry| entry.0));
                self.pods.sort_unstable();
                self.pods.dedup();
            }
            self.pods.retain(|&pod| {
                let mut presence = Presence::default();
                entries
                    .iter()
                    .filter(|entry| entry.0 == pod)
                    .for_each(|entry| presence.add(entry.1, weights));
                if let Some(found) = found.get_mut(pod as usize)
                    && !presence.is_absent()
                {
                    found.extend(at, agreed - at, presence);
                }
                !presence.is_absent()
            });
            if self.pods.is_empty() || agreed < self.tree[place.node].end {
                break;
            }
            at = agreed;
        }
    }
}

impl ExtentKvIndex {
    /// How many runs of blocks the index distinguishes.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.tree.len()
    }

    /// Cuts the tree so that the blocks `from..` of `text`, to its end, are whole nodes: the path. What is not known
    /// yet is added where `grows`, else it is left out.
    fn cut(&mut self, text: &Text, from: u32, grows: bool) {
        self.path.clear();
        let mut place = Place::default();
        while place.blocks < text.blocks() {
            if self.tree.advance(text, &mut place).is_none() {
                if !grows {
                    break;
                }
                self.tree.grow(text, &mut place);
            }
            if place.blocks < self.tree[place.node].end {
                place.node = self.split(text, place.node, place.blocks);
            }
            let (start, end) = (self.tree[place.node].start, self.tree[place.node].end);
            if start < from && from < end {
                self.split(text, place.node, from);
            }
            if end > from {
                self.path.push(place.node);
            }
        }
    }

    /// Drops the nodes at the end of the path that have no entries, and their ancestors.
    fn prune(&mut self) {
        for &id in self.path.iter().rev() {
            self.tree.prune_if_used(id, SmallVec::is_empty);
        }
    }

    fn split(&mut self, text: &Text, id: NodeId, at: u32) -> NodeId {
        let upper = self.tree.split(text, id, at);
        self.tree[upper].known = self.tree[id].known.clone();
        upper
    }
}
