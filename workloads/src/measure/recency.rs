//! The LRU stack in whole requests: who touched its blocks last, most recent first.
//!
//! A request touches a path of blocks from its first to its last. A later request that shares a prefix with it
//! takes that prefix over. So what still belongs to a request is always one run of blocks at the end of its
//! path, and the stack is a list of requests, each with a count of blocks.

use forerun_sim::time::Time;

use super::fenwick::Fenwick;

/// A request that still has blocks in the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    position: u32,
    blocks: u32,
    /// The text in which its last block ends.
    leaf: u32,
    touched: Time,
}

/// Positions that a stack starts with.
const POSITIONS: usize = 1024;
/// Marks a position whose owner is gone.
const GONE: u32 = u32::MAX;

/// The stack. Memory grows with the requests that still own blocks, not with those that came by.
#[derive(Clone, Debug)]
pub(super) struct Recency {
    /// Blocks by position; later positions are more recent.
    blocks: Fenwick,
    /// The slot at each position so far, or [`GONE`].
    slots_at: Vec<u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// No owner stands before this position.
    oldest: usize,
}

impl Recency {
    pub(super) fn new() -> Self {
        Self {
            blocks: Fenwick::new(POSITIONS, []),
            slots_at: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: 0,
        }
    }

    /// Blocks in the stack.
    pub(super) fn total(&self) -> u64 {
        self.blocks.total()
    }

    /// A new most recent owner, of no blocks so far.
    pub(super) fn push(&mut self, now: Time) -> Owner {
        if self.slots_at.len() == self.blocks.len() {
            self.compact();
        }
        let position = self.slots_at.len() as u32;
        let slot = Slot { position, blocks: 0, leaf: 0, touched: now };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.slots_at.push(index);
        Owner(index)
    }

    /// Gives `owner`, which has none, `blocks` blocks that end in the text `leaf`.
    pub(super) fn fill(&mut self, owner: Owner, blocks: u32, leaf: u32) {
        let slot = &mut self.slots[owner.0 as usize];
        (slot.blocks, slot.leaf) = (blocks, leaf);
        self.blocks.add(slot.position as usize, u64::from(blocks));
    }

    /// Blocks of owners more recent than `owner`.
    pub(super) fn above(&self, owner: Owner) -> u64 {
        let position = self.slots[owner.0 as usize].position as usize;
        self.blocks.total() - self.blocks.before(position + 1)
    }

    /// When `owner` touched its blocks.
    pub(super) fn touched(&self, owner: Owner) -> Time {
        self.slots[owner.0 as usize].touched
    }

    /// Takes the first `blocks` blocks of `owner`; without any it is gone.
    pub(super) fn take(&mut self, owner: Owner, blocks: u32) {
        let slot = &mut self.slots[owner.0 as usize];
        slot.blocks -= blocks;
        let (position, left) = (slot.position as usize, slot.blocks);
        self.blocks.subtract(position, u64::from(blocks));
        if left == 0 {
            self.slots_at[position] = GONE;
            self.free.push(owner.0);
        }
    }

    /// Removes the least recent owner and says in which text its blocks end.
    pub(super) fn pop_oldest(&mut self) -> Option<(Owner, u32)> {
        while *self.slots_at.get(self.oldest)? == GONE {
            self.oldest += 1;
        }
        let owner = Owner(self.slots_at[self.oldest]);
        let Slot { blocks, leaf, .. } = self.slots[owner.0 as usize];
        self.take(owner, blocks);
        Some((owner, leaf))
    }

    /// Moves the owners together, to the front of twice the room that they need.
    fn compact(&mut self) {
        let slots = &mut self.slots;
        self.slots_at.retain(|&slot| slot != GONE);
        for (position, &slot) in self.slots_at.iter().enumerate() {
            slots[slot as usize].position = position as u32;
        }
        let room = POSITIONS.max(2 * self.slots_at.len());
        let blocks = self.slots_at.iter().map(|&slot| u64::from(slots[slot as usize].blocks));
        self.blocks = Fenwick::new(room, blocks);
        self.oldest = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_an_owner_is_what_came_later_and_is_still_there() {
        let mut stack = Recency::new();
        let owners: Vec<Owner> = [3, 5, 7]
            .map(|blocks| {
                let owner = stack.push(Time::ZERO);
                stack.fill(owner, blocks, 0);
                owner
            })
            .into();
        assert_eq!(owners.iter().map(|&o| stack.above(o)).collect::<Vec<_>>(), [12, 7, 0]);
        stack.take(owners[1], 2);
        assert_eq!((stack.above(owners[0]), stack.total()), (10, 13));
        assert_eq!(stack.pop_oldest(), Some((owners[0], 0)));
        assert_eq!(stack.total(), 10);
    }

    #[test]
    fn owners_that_are_gone_leave_no_trace_in_memory() {
        let mut stack = Recency::new();
        let first = stack.push(Time::ZERO);
        stack.fill(first, 1, 0);
        for round in 0..100_000 {
            let owner = stack.push(Time::ZERO);
            stack.fill(owner, 4, 0);
            assert_eq!(stack.above(first), 4, "round {round}");
            stack.take(owner, 4);
        }
        assert!(stack.blocks.len() <= 2 * POSITIONS && stack.slots.len() == 2);
    }
}
