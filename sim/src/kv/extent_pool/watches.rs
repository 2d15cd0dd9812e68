//! Who watches which copies: those that are still being copied elsewhere after their last request let them go.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::copies::CopyId;
use crate::kv::Touch;

/// Watchers by copy, and what happened to what they watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    by_copy: FxHashMap<CopyId, SmallVec<[u32; 2]>>,
    touched: Vec<Touch>,
}

impl Watches {
    pub(super) fn is_empty(&self) -> bool {
        self.by_copy.is_empty()
    }

    pub(super) fn add(&mut self, copy: CopyId, watcher: u32) {
        self.by_copy.entry(copy).or_default().push(watcher);
    }

    pub(super) fn forget(&mut self, watcher: u32) {
        self.by_copy.retain(|_, watchers| {
            watchers.retain(|other| *other != watcher);
            !watchers.is_empty()
        });
    }

    /// Blocks `from..to` of `copy` are taken or found.
    pub(super) fn touch(&mut self, copy: CopyId, from: u32, to: u32) {
        let watchers = self.by_copy.get(&copy).into_iter().flatten();
        self.touched.extend(watchers.map(|&watcher| Touch { watcher, from, to }));
    }

    /// `other` is a part of what `copy` was.
    pub(super) fn inherit(&mut self, copy: CopyId, other: CopyId) {
        if let Some(watchers) = self.by_copy.get(&copy).cloned() {
            self.by_copy.insert(other, watchers);
        }
    }

    /// `copy` is no more.
    pub(super) fn remove(&mut self, copy: CopyId) {
        if !self.by_copy.is_empty() {
            self.by_copy.remove(&copy);
        }
    }

    /// Whether nothing tells two copies apart.
    pub(super) fn agree(&self, copy: CopyId, other: CopyId) -> bool {
        self.by_copy.is_empty() || self.by_copy.get(&copy) == self.by_copy.get(&other)
    }

    pub(super) fn take_touched(&mut self) -> Vec<Touch> {
        std::mem::take(&mut self.touched)
    }
}
