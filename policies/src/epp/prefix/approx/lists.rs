//! One least-recently-used list of tree nodes per server, all in one memory.

use crate::epp::prefix::tree::NodeId;

/// Index of an element, or of a list. 0 is none.
pub(super) type ElementId = u32;

#[derive(Clone, Copy, Debug, Default)]
struct Element {
    node: NodeId,
    prev: ElementId,
    next: ElementId,
}

/// The lists. A list is a ring through an element of its own, which stands before the first and after the last.
#[derive(Clone, Debug)]
pub(super) struct Lists {
    slots: Vec<Element>,
    vacant: Vec<ElementId>,
}

impl Default for Lists {
    fn default() -> Self {
        Self { slots: vec![Element::default()], vacant: Vec::new() }
    }
}

impl Lists {
    /// A new, empty list.
    pub(super) fn new_list(&mut self) -> ElementId {
        let list = self.slot(0);
        (self.at(list).prev, self.at(list).next) = (list, list);
        list
    }

    /// The oldest element of `list` and its node.
    pub(super) fn front(&self, list: ElementId) -> Option<(ElementId, NodeId)> {
        let id = self.slots[list as usize].next;
        (id != list).then(|| (id, self.slots[id as usize].node))
    }

    /// Adds `node` as the youngest of `list`.
    pub(super) fn push_back(&mut self, list: ElementId, node: NodeId) -> ElementId {
        self.insert_before(list, node)
    }

    /// Adds `node` right before element `next`.
    pub(super) fn insert_before(&mut self, next: ElementId, node: NodeId) -> ElementId {
        let id = self.slot(node);
        self.link_before(next, id);
        id
    }

    /// Makes `id` the youngest of `list`.
    pub(super) fn move_to_back(&mut self, list: ElementId, id: ElementId) {
        self.unlink(id);
        self.link_before(list, id);
    }

    /// Takes `id` off its list and forgets it.
    pub(super) fn remove(&mut self, id: ElementId) {
        self.unlink(id);
        self.vacant.push(id);
    }

    fn slot(&mut self, node: NodeId) -> ElementId {
        let element = Element { node, prev: 0, next: 0 };
        if let Some(id) = self.vacant.pop() {
            *self.at(id) = element;
            return id;
        }
        self.slots.push(element);
        ElementId::try_from(self.slots.len() - 1).expect("fewer than 2^32 elements")
    }

    fn at(&mut self, id: ElementId) -> &mut Element {
        &mut self.slots[id as usize]
    }

    fn link_before(&mut self, next: ElementId, id: ElementId) {
        let prev = self.at(next).prev;
        (self.at(id).prev, self.at(id).next) = (prev, next);
        self.at(prev).next = id;
        self.at(next).prev = id;
    }

    fn unlink(&mut self, id: ElementId) {
        let Element { prev, next, .. } = *self.at(id);
        self.at(prev).next = next;
        self.at(next).prev = prev;
    }
}
