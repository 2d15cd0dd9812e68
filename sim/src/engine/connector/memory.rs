//! What host memory holds: vLLM's `CPUOffloadingManager` with LRU or ARC eviction (vllm/v1/kv_offload/cpu, 0.32).
//!
//! Chunks of KV blocks, named by the text that they and everything before them contain. A chunk is written once,
//! read by any number of requests, and evicted only while nobody writes or reads it. Both policies order chunks by
//! when the request that used them ended, its last chunk oldest: of one text, the tail goes before the head.
//!
//! Under LRU there is one list. Under ARC a chunk that was used again moves to a second one, and ghosts of evicted
//! chunks teach the policy how to divide the room between the two.

use rustc_hash::FxHashMap;

use crate::kv::tiers::Tier;
use crate::prompt::BlockHash;

/// Which chunks are evicted first: vLLM's `eviction_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Those of the requests that ended first.
    Lru,
    /// Adaptive: between chunks used once and chunks used again.
    Arc,
}

/// Index of a chunk, present or ghost.
pub(super) type ChunkId = u32;

/// The lists, by their sentinels. Present chunks are in the first two, ghosts in the others.
const ONCE: ChunkId = 0;
const AGAIN: ChunkId = 1;
const ONCE_GHOSTS: ChunkId = 2;
const AGAIN_GHOSTS: ChunkId = 3;
const LISTS: usize = 4;
/// In no list: its entry is free.
const VACANT: ChunkId = ChunkId::MAX;

#[derive(Clone, Debug, Default)]
struct Chunk {
    key: BlockHash,
    /// Its place in host memory.
    place: u32,
    readers: u32,
    /// Its copy from the GPU is not complete.
    writing: bool,
    /// A request is loading it.
    loading: bool,
    list: ChunkId,
    /// The offer that it is a part of: it does not make room for the others.
    offer: u64,
    prev: ChunkId,
    next: ChunkId,
}

/// What a request had to do with one of its chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    /// It was there, or was put there, when the request offered or loaded it.
    seen: bool,
    /// This request put it there.
    inserted: bool,
    /// It had been there before.
    reused: bool,
    /// It was not there when the request first offered it.
    missed: bool,
    /// The tier below from which it was promoted for this request.
    pub(super) promoted: Option<Tier>,
    /// Where it was when this request had to do with it last.
    chunk: ChunkId,
}

/// A chunk that an offer puts into host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Which of the offered chunks.
    pub(super) index: u32,
    pub(super) chunk: ChunkId,
    pub(super) place: u32,
}

/// Host memory for KV.
#[derive(Clone, Debug)]
pub(super) struct HostMemory {
    capacity: u32,
    eviction: Eviction,
    /// How often a chunk must have been offered to be stored, when above 1.
    store_threshold: u32,
    chunks: Vec<Chunk>,
    vacant: Vec<ChunkId>,
    lengths: [u32; LISTS],
    by_key: FxHashMap<BlockHash, ChunkId>,
    /// Offers of chunks so far; counted only when the threshold asks for it.
    offered: FxHashMap<BlockHash, u32>,
    offers: u64,
    /// Places that were ever used, and those of them that are free, the last freed at the end.
    used: u32,
    freed: Vec<u32>,
    /// ARC's share of the room for chunks used once.
    target: f64,
    /// Places that lost their chunk since this was last read.
    pub(super) evicted: Vec<u32>,
}

impl HostMemory {
    pub(super) fn new(capacity: u32, eviction: Eviction, store_threshold: u32) -> Self {
        let sentinel = |list| Chunk { list, prev: list, next: list, ..Chunk::default() };
        Self {
            capacity,
            eviction,
            store_threshold,
            chunks: (0..LISTS as ChunkId).map(sentinel).collect(),
            vacant: Vec::new(),
            lengths: [0; LISTS],
            by_key: FxHashMap::default(),
            offered: FxHashMap::default(),
            offers: 0,
            used: 0,
            freed: Vec::new(),
            target: 0.0,
            evicted: Vec::new(),
        }
    }

    /// The chunk of that text, complete or not.
    pub(super) fn get(&self, key: BlockHash) -> Option<ChunkId> {
        let id = *self.by_key.get(&key)?;
        (self.chunk(id).list <= AGAIN).then_some(id)
    }

    pub(super) fn place(&self, id: ChunkId) -> u32 {
        self.chunk(id).place
    }

    pub(super) fn is_writing(&self, id: ChunkId) -> bool {
        self.chunk(id).writing
    }

    pub(super) fn is_loading(&self, id: ChunkId) -> bool {
        self.chunk(id).loading
    }

    /// A request starts to load a chunk.
    pub(super) fn read(&mut self, id: ChunkId, mark: &mut Mark) {
        let chunk = &mut self.chunks[id as usize];
        chunk.readers += 1;
        chunk.loading = true;
        (mark.seen, mark.chunk) = (true, id);
        mark.reused |= !mark.inserted;
    }

    /// The load of a chunk is over.
    pub(super) fn read_done(&mut self, id: ChunkId) {
        let chunk = &mut self.chunks[id as usize];
        chunk.readers -= 1;
        chunk.loading = false;
    }

    /// The copy of a chunk from the GPU is complete.
    pub(super) fn write_done(&mut self, id: ChunkId) {
        self.chunks[id as usize].writing = false;
    }

    /// A request offers chunks to be stored. Those that are placed and must now be written; `None`, and nothing
    /// placed, when there is no room for all of them.
    pub(super) fn offer(&mut self, keys: &[BlockHash], marks: &mut [Mark]) -> Option<Vec<Placed>> {
        self.offers += 1;
        let mut wanted = Vec::new();
        for (index, &key) in keys.iter().enumerate() {
            let ripe = self.count_offer(key);
            if let Some(id) = self.get(key) {
                let chunk = &mut self.chunks[id as usize];
                chunk.offer = self.offers;
                if !chunk.writing {
                    (marks[index].seen, marks[index].chunk) = (true, id);
                    marks[index].reused |= !marks[index].inserted;
                }
            } else if ripe {
                marks[index].seen = true;
                wanted.push(index);
            }
        }
        self.learn_from_misses(&wanted, keys, marks);
        self.put(wanted, keys, marks)
    }

    /// Makes room for the chunks of a request from its `missing`th on that are not there: they are written from a tier
    /// below. None of the others makes room for them. `None` when there is not enough.
    pub(super) fn promote(
        &mut self,
        keys: &[BlockHash],
        marks: &mut [Mark],
        missing: u32,
    ) -> Option<Vec<Placed>> {
        self.offers += 1;
        let mut wanted = Vec::new();
        for (index, &key) in keys.iter().enumerate() {
            match self.get(key) {
                Some(id) => self.chunks[id as usize].offer = self.offers,
                None if index >= missing as usize => {
                    marks[index].seen = true;
                    wanted.push(index);
                }
                None => {}
            }
        }
        self.put(wanted, keys, marks)
    }

    /// Puts chunks that are not there into free places; `None`, and nothing done, when there are too few.
    fn put(&mut self, wanted: Vec<usize>, keys: &[BlockHash], marks: &mut [Mark]) -> Option<Vec<Placed>> {
        let room = self.freed.len() + (self.capacity - self.used) as usize;
        if wanted.len() > room && !self.evict(wanted.len() - room) {
            return None;
        }
        let place = |index: usize| {
            marks[index].inserted = true;
            let place = self.free_place();
            let chunk = self.insert(keys[index], place);
            marks[index].chunk = chunk;
            Placed { index: index as u32, chunk, place }
        };
        Some(wanted.into_iter().map(place).collect())
    }

    /// Whether a chunk that is not there has been offered often enough, this time included.
    fn count_offer(&mut self, key: BlockHash) -> bool {
        if self.store_threshold < 2 {
            return true;
        }
        let count = self.offered.entry(key).or_default();
        *count += 1;
        *count >= self.store_threshold
    }

    /// ARC: a chunk that is missed although its ghost is there shows that its list is too short.
    fn learn_from_misses(&mut self, wanted: &[usize], keys: &[BlockHash], marks: &mut [Mark]) {
        if self.eviction == Eviction::Lru {
            return;
        }
        for &index in wanted.iter().rev() {
            if std::mem::replace(&mut marks[index].missed, true) {
                continue;
            }
            let Some(&ghost) = self.by_key.get(&keys[index]) else { continue };
            let (once, again) = (
                f64::from(self.lengths[ONCE_GHOSTS as usize]),
                f64::from(self.lengths[AGAIN_GHOSTS as usize]),
            );
            let list = self.chunk(ghost).list;
            self.target = if list == ONCE_GHOSTS {
                (self.target + (again / once).max(1.0)).min(f64::from(self.capacity))
            } else {
                (self.target - (once / again).max(1.0)).max(0.0)
            };
            self.move_to_end(ghost, list);
        }
    }

    /// A request has ended: what it used is ranked anew, its first chunk as the newest.
    pub(super) fn finished(&mut self, keys: &[BlockHash], marks: &[Mark]) {
        for (&key, mark) in keys.iter().zip(marks).rev().filter(|(_, mark)| mark.seen) {
            let Some(id) = self.find(key, mark.chunk) else { continue };
            let list = self.chunk(id).list;
            if self.eviction == Eviction::Lru || (mark.inserted && !mark.reused) {
                self.move_to_end(id, list);
            } else if mark.reused {
                self.move_to_end(id, AGAIN);
            }
        }
    }

    /// The chunk of that text, which was at `hint` when it was last seen.
    fn find(&self, key: BlockHash, hint: ChunkId) -> Option<ChunkId> {
        let chunk = self.chunk(hint);
        let is_it = hint as usize >= LISTS && chunk.list <= AGAIN && chunk.key == key;
        if is_it { Some(hint) } else { self.get(key) }
    }

    /// Makes `count` places free; `false`, and nothing changed, when so many chunks cannot be evicted.
    fn evict(&mut self, count: usize) -> bool {
        let Some(victims) = self.victims(count) else { return false };
        for id in victims {
            let Chunk { place, list, key, .. } = *self.chunk(id);
            self.freed.push(place);
            self.evicted.push(place);
            if self.eviction == Eviction::Arc {
                self.move_to_end(id, list + ONCE_GHOSTS);
            } else {
                self.remove(id, key);
            }
        }
        for ghosts in [ONCE_GHOSTS, AGAIN_GHOSTS] {
            while self.lengths[ghosts as usize] > self.capacity {
                let id = self.chunk(ghosts).next;
                self.remove(id, self.chunk(id).key);
            }
        }
        true
    }

    /// The next `count` chunks to evict. LRU is ARC whose target is always 0 and whose second list is empty.
    fn victims(&self, count: usize) -> Option<Vec<ChunkId>> {
        let (mut once, mut again) = (self.evictable(ONCE), self.evictable(AGAIN));
        let mut length = self.lengths[ONCE as usize];
        let mut victims = Vec::with_capacity(count);
        for _ in 0..count {
            let first = if length >= self.target as u32 { once.next() } else { None };
            let victim = match first {
                Some(id) => Some((id, 1)),
                None => again.next().map(|id| (id, 0)).or_else(|| once.next().map(|id| (id, 1))),
            };
            let (id, shorter) = victim?;
            length -= shorter;
            victims.push(id);
        }
        Some(victims)
    }

    /// Chunks of `list` that may be evicted, oldest first.
    fn evictable(&self, list: ChunkId) -> impl Iterator<Item = ChunkId> + '_ {
        let next = move |&id: &ChunkId| Some(self.chunk(id).next).filter(|&next| next != list);
        std::iter::successors(next(&list), next).filter(|&id| {
            let chunk = self.chunk(id);
            !chunk.writing && chunk.readers == 0 && chunk.offer != self.offers
        })
    }

    /// Places never used come first, then the one freed last.
    fn free_place(&mut self) -> u32 {
        if self.used < self.capacity {
            self.used += 1;
            self.used - 1
        } else {
            self.freed.pop().expect("room was made")
        }
    }

    /// A chunk that is being written, in place of its ghost if there is one.
    fn insert(&mut self, key: BlockHash, place: u32) -> ChunkId {
        let ghost = if self.eviction == Eviction::Arc { self.by_key.get(&key).copied() } else { None };
        let id = match ghost {
            Some(ghost) => {
                self.unlink(ghost);
                ghost
            }
            None => self.vacant.pop().unwrap_or_else(|| {
                self.chunks.push(Chunk::default());
                self.chunks.len() as ChunkId - 1
            }),
        };
        self.chunks[id as usize] =
            Chunk { key, place, writing: true, offer: self.offers, ..Chunk::default() };
        self.by_key.insert(key, id);
        self.link_last(id, ONCE);
        id
    }

    fn remove(&mut self, id: ChunkId, key: BlockHash) {
        self.unlink(id);
        self.chunks[id as usize].list = VACANT;
        self.by_key.remove(&key);
        self.vacant.push(id);
    }

    fn move_to_end(&mut self, id: ChunkId, list: ChunkId) {
        self.unlink(id);
        self.link_last(id, list);
    }

    fn chunk(&self, id: ChunkId) -> &Chunk {
        &self.chunks[id as usize]
    }

    fn unlink(&mut self, id: ChunkId) {
        let Chunk { prev, next, list, .. } = *self.chunk(id);
        self.chunks[prev as usize].next = next;
        self.chunks[next as usize].prev = prev;
        self.lengths[list as usize] -= 1;
    }

    fn link_last(&mut self, id: ChunkId, list: ChunkId) {
        let last = self.chunk(list).prev;
        let chunk = &mut self.chunks[id as usize];
        (chunk.prev, chunk.next, chunk.list) = (last, list, list);
        self.chunks[last as usize].next = id;
        self.chunks[list as usize].prev = id;
        self.lengths[list as usize] += 1;
    }

    /// Checks the laws of the lists and places.
    pub(super) fn assert_consistent(&self) {
        for list in 0..LISTS as ChunkId {
            let (mut id, mut length) = (self.chunk(list).next, 0);
            while id != list {
                let chunk = self.chunk(id);
                assert_eq!(chunk.list, list, "chunk {id} is in its list");
                assert_eq!(self.by_key.get(&chunk.key), Some(&id), "chunk {id} can be found");
                length += 1;
                id = chunk.next;
            }
            assert_eq!(length, self.lengths[list as usize], "length of list {list}");
        }
        let present = (self.lengths[ONCE as usize] + self.lengths[AGAIN as usize]) as usize;
        assert_eq!(present + self.freed.len(), self.used as usize, "every place is free or has a chunk");
        assert!(self.used <= self.capacity);
        assert_eq!(self.by_key.len() + self.vacant.len() + LISTS, self.chunks.len(), "no chunk is lost");
    }
}
