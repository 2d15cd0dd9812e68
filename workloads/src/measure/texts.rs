//! Every text that was ever asked, as a tree, and how deep in the LRU stack its blocks lie.
//!
//! A prompt is a path through the tree: a text, cut after so many tokens, then another one. Two prompts share
//! exactly the nodes (and the part of the last shared one) in which their segments agree, so a block is named
//! by the text in which it ends. Blocks are never listed: a text keeps runs of blocks that the same request
//! touched last, and one access costs O(segments + runs · log requests), whatever the block size.
//!
//! Along a path recency never grows, because whoever touches a block touches all before it. So a cache that
//! evicts a request's last blocks first, as vLLM does, always holds a prefix of every path, and the depth at
//! which a block lies says which cache sizes hold it (Mattson et al., "Evaluation techniques for storage
//! hierarchies", 1970).

use forerun_sim::prompt::Content;
use forerun_sim::request::Label;
use forerun_sim::time::{Span, Time};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::recency::{Owner, Recency};

/// No text: the parent of roots.
const NOWHERE: u32 = u32::MAX;

/// A text's place: after `from` tokens of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    parent: u32,
    from: u32,
    content: Content,
}

/// A text at one place.
#[derive(Clone, Debug)]
struct Text {
    key: Key,
    /// Tokens before it on its path.
    begins: u32,
    children: u32,
    /// Requests that contained some of it.
    passes: u64,
    /// Blocks of it that were reused, each as often as it was.
    reused: u64,
    /// Blocks on the path up to the last one that was reused.
    reused_end: u32,
    /// Who touched its blocks last, from the first block that ends in it.
    runs: SmallVec<[Run; 1]>,
}

/// Blocks up to the `end`-th of the path that `owner` touched last.
#[derive(Clone, Copy, Debug)]
struct Run {
    end: u32,
    owner: Owner,
}

/// Whose texts are alike: another model or adapter computes other KV blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) model: Label,
    pub(super) adapter: Label,
}

/// Consecutive blocks of a prompt that were touched before, all by the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reuse {
    pub(super) blocks: u32,
    /// Blocks above the first of them in the stack: a cache of `above + k` blocks holds the first `k`.
    pub(super) above: u64,
    /// How long ago they were touched.
    pub(super) age: Span,
}

/// A prefix that several requests began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedPrefix {
    /// Blocks before the part that these requests share among themselves.
    pub(super) from_blocks: u32,
    /// Blocks up to the end of what was reused.
    pub(super) to_blocks: u32,
    pub(super) requests: u64,
    /// Blocks of this part that were reused, each as often as it was.
    pub(super) reused_blocks: u64,
}

/// The tree and the stack.
#[derive(Clone, Debug)]
pub(super) struct Texts {
    block_tokens: u32,
    texts_max: usize,
    index: FxHashMap<Key, u32>,
    texts: Vec<Text>,
    free: Vec<u32>,
    recency: Recency,
    /// The smallest stack that was left when the least recent texts were forgotten.
    exact_blocks: Option<u64>,
}

impl Texts {
    /// A tree of at most `texts_max` texts: beyond, the least recently used are forgotten.
    pub(super) fn new(block_tokens: u32, texts_max: usize) -> Self {
        Self {
            block_tokens,
            texts_max,
            index: FxHashMap::default(),
            texts: Vec::new(),
            free: Vec::new(),
            recency: Recency::new(),
            exact_blocks: None,
        }
    }

    /// Distances up to so many blocks are exact, when not all are.
    pub(super) fn exact_blocks(&self) -> Option<u64> {
        self.exact_blocks
    }

    /// Touches all full blocks of `path` (texts and how many tokens of each) and tells `reused` which of the
    /// first `most` blocks were touched before, from the first on.
    pub(super) fn touch(
        &mut self,
        served: Served,
        path: impl Iterator<Item = (Content, u32)> + Clone,
        most: u32,
        now: Time,
        mut reused: impl FnMut(Reuse),
    ) {
        let blocks = path.clone().map(|(_, tokens)| tokens).sum::<u32>() / self.block_tokens;
        if blocks == 0 {
            return;
        }
        let owner = self.recency.push(now);
        let mut at = self.root(served);
        let (mut from, mut begins, mut moved) = (0, 0, 0);
        for (content, tokens) in path {
            if begins / self.block_tokens == blocks {
                break;
            }
            at = self.text(Key { parent: at, from, content }, begins);
            from = tokens;
            begins += tokens;
            moved += self.claim(at, begins / self.block_tokens, owner, moved, most, now, &mut reused);
        }
        self.recency.fill(owner, blocks, at);
        while self.index.len() > self.texts_max && self.forget_oldest() {}
    }

    /// The root of what `served` has in common.
    fn root(&mut self, served: Served) -> u32 {
        let Served { model, adapter } = served;
        self.text(Key { parent: NOWHERE, from: model.0, content: Content::shared(adapter.0.into()) }, 0)
    }

    fn text(&mut self, key: Key, begins: u32) -> u32 {
        if let Some(&index) = self.index.get(&key) {
            return index;
        }
        let text =
            Text { key, begins, children: 0, passes: 0, reused: 0, reused_end: 0, runs: SmallVec::new() };
        let index = match self.free.pop() {
            Some(index) => {
                self.texts[index as usize] = text;
                index
            }
            None => {
                self.texts.push(text);
                self.texts.len() as u32 - 1
            }
        };
        self.index.insert(key, index);
        if key.parent != NOWHERE {
            self.texts[key.parent as usize].children += 1;
        }
        index
    }

    /// Hands the blocks of text `at` up to the `last`-th of the path over to `owner`. `moved` blocks before
    /// them were handed over already: they stand above in the stack. Returns how many had another owner.
    #[expect(clippy::too_many_arguments, reason = "the state of one walk along a path")]
    fn claim(
        &mut self,
        at: u32,
        last: u32,
        owner: Owner,
        moved: u64,
        most: u32,
        now: Time,
        reused: &mut impl FnMut(Reuse),
    ) -> u64 {
        let text = &mut self.texts[at as usize];
        text.passes += 1;
        let first = text.begins / self.block_tokens;
        if first == last {
            return 0;
        }
        let mut reached = first;
        let mut spent = 0;
        for run in &text.runs {
            if reached == last {
                break;
            }
            let end = run.end.min(last);
            let counted = end.min(most).saturating_sub(reached);
            if counted > 0 {
                let above = moved + u64::from(reached - first) + self.recency.above(run.owner);
                let age = now.saturating_since(self.recency.touched(run.owner));
                reused(Reuse { blocks: counted, above, age });
                text.reused += u64::from(counted);
                text.reused_end = text.reused_end.max(reached + counted);
            }
            self.recency.take(run.owner, end - reached);
            reached = end;
            spent += usize::from(end == run.end);
        }
        text.runs.drain(..spent);
        text.runs.insert(0, Run { end: last, owner });
        u64::from(reached - first)
    }

    /// Forgets the blocks at the bottom of the stack and the texts in which none is left.
    fn forget_oldest(&mut self) -> bool {
        let Some((owner, leaf)) = self.recency.pop_oldest() else {
            return false;
        };
        let mut at = leaf;
        loop {
            let text = &mut self.texts[at as usize];
            if text.runs.last().is_some_and(|run| run.owner == owner) {
                text.runs.pop();
            }
            let Key { parent, .. } = text.key;
            if !text.runs.is_empty() || text.children > 0 || parent == NOWHERE {
                break;
            }
            self.index.remove(&text.key);
            self.free.push(at);
            self.texts[parent as usize].children -= 1;
            at = parent;
        }
        let left = self.recency.total();
        self.exact_blocks = Some(self.exact_blocks.map_or(left, |blocks| blocks.min(left)));
        true
    }

    /// The `most` prefixes whose reuse saved the most blocks, most first. Texts that exactly the same number
    /// of requests contained, one after the other, are one prefix.
    pub(super) fn top(&self, most: usize) -> Vec<SharedPrefix> {
        let mut continued = vec![false; self.texts.len()];
        let mut live = vec![true; self.texts.len()];
        self.free.iter().for_each(|&index| live[index as usize] = false);
        for (text, _) in self.texts.iter().zip(&live).filter(|(_, live)| **live) {
            if self.continues(text) {
                continued[text.key.parent as usize] = true;
            }
        }
        let ends = (0..self.texts.len()).filter(|&at| live[at] && !continued[at]);
        let mut prefixes: Vec<SharedPrefix> = ends.filter_map(|at| self.prefix_ending(at)).collect();
        prefixes
            .sort_by_key(|p| (std::cmp::Reverse(p.reused_blocks), p.from_blocks, p.to_blocks, p.requests));
        prefixes.truncate(most);
        prefixes
    }

    /// Whether `text` is the whole continuation of its parent.
    fn continues(&self, text: &Text) -> bool {
        text.key.parent != NOWHERE && {
            let parent = &self.texts[text.key.parent as usize];
            parent.key.parent != NOWHERE && parent.passes == text.passes
        }
    }

    fn prefix_ending(&self, end: usize) -> Option<SharedPrefix> {
        let mut text = &self.texts[end];
        let (requests, mut to_blocks, mut reused_blocks) = (text.passes, text.reused_end, text.reused);
        while self.continues(text) {
            text = &self.texts[text.key.parent as usize];
            to_blocks = to_blocks.max(text.reused_end);
            reused_blocks += text.reused;
        }
        let from_blocks = text.begins / self.block_tokens;
        (reused_blocks > 0).then_some(SharedPrefix { from_blocks, to_blocks, requests, reused_blocks })
    }
}

#[cfg(test)]
mod tests;
