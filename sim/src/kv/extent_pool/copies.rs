//! Physical copies of the tree's nodes, and the list of those that nobody references, in order of eviction.

use super::tree::NodeId;

/// Index of a copy. 0 is the end of every list, and "no copy".
pub(super) type CopyId = u32;

/// One physical copy of all blocks of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copy {
    pub(super) node: NodeId,
    /// Chains that hold it.
    pub(super) refs: u32,
    /// The chain that registered it.
    pub(super) owner: u32,
    /// The copies of the node that were registered before and after it.
    pub(super) older: CopyId,
    pub(super) younger: CopyId,
    /// Neighbours in the list of evictable copies; meaningful while `refs == 0`.
    prev: CopyId,
    next: CopyId,
}

/// All copies of a pool.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    /// Number 0 is the sentinel of the list.
    slots: Vec<Copy>,
    /// Unused slots, linked by `next`.
    vacant: CopyId,
}

impl std::ops::Index<CopyId> for Copies {
    type Output = Copy;
    fn index(&self, id: CopyId) -> &Copy {
        &self.slots[id as usize]
    }
}

impl std::ops::IndexMut<CopyId> for Copies {
    fn index_mut(&mut self, id: CopyId) -> &mut Copy {
        &mut self.slots[id as usize]
    }
}

impl Copies {
    pub(super) fn new() -> Self {
        Self { slots: vec![Copy::default()], vacant: 0 }
    }

    pub(super) fn insert(&mut self, node: NodeId, refs: u32, owner: u32) -> CopyId {
        let copy = Copy { node, refs, owner, ..Copy::default() };
        if self.vacant == 0 {
            self.slots.push(copy);
            return self.slots.len() as CopyId - 1;
        }
        let id = self.vacant;
        self.vacant = self[id].next;
        self[id] = copy;
        id
    }

    pub(super) fn remove(&mut self, id: CopyId) {
        self[id] = Copy { next: self.vacant, ..Copy::default() };
        self.vacant = id;
    }

    /// The copy that is evicted first.
    pub(super) fn front(&self) -> CopyId {
        self[0].next
    }

    /// The copy that is evicted after `id`.
    pub(super) fn next(&self, id: CopyId) -> CopyId {
        self[id].next
    }

    /// The copy that is evicted before `id`.
    pub(super) fn prev(&self, id: CopyId) -> CopyId {
        self[id].prev
    }

    /// Makes `id` the copy that is evicted last.
    pub(super) fn push_back(&mut self, id: CopyId) {
        self.link_after(self[0].prev, id);
    }

    /// Lets `id` be evicted right after `prev`.
    pub(super) fn link_after(&mut self, prev: CopyId, id: CopyId) {
        let next = self[prev].next;
        (self[id].prev, self[id].next) = (prev, next);
        self[prev].next = id;
        self[next].prev = id;
    }

    /// Takes `id` off the list.
    pub(super) fn unlink(&mut self, id: CopyId) {
        let (prev, next) = (self[id].prev, self[id].next);
        self[prev].next = next;
        self[next].prev = prev;
    }
}
