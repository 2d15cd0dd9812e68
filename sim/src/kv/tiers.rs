//! Tiers below host memory: what a disk or a shared file system holds, and when it has read or written it.
//!
//! Host memory is the gateway (vLLM `v1/kv_offload/tiering`, 0.32): what is stored there is also offered to every tier
//! below, and what a tier below has is first promoted to host memory, then loaded. A tier serves its operations first
//! come, first served; writes that would wait too long are dropped (llm-d's file-system backend:
//! `max_write_queued_seconds`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::prompt::BlockHash;
use crate::time::{SPAN_MAX, Span, Time};

/// A tier below host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// A disk of the replica's own.
    Disk,
    /// A file system that replicas share.
    Shared,
}

/// How a tier reads, or how it writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChannelSpec {
    /// Bytes per second, all operations together.
    pub bandwidth: f64,
    /// Of a file, before its first byte.
    pub latency: Span,
    /// Files that are opened at once: their latencies overlap.
    pub concurrency: u32,
    /// An operation that would wait longer is dropped; it waits as long as it takes when absent.
    pub queued_max: Option<Span>,
}

/// A tier, as a scenario has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TierSpec {
    /// What it holds, in bytes; no limit when absent.
    pub capacity: Option<u64>,
    /// Whether a full tier makes room by dropping what was used longest ago; otherwise it takes nothing more, as a
    /// shared file system does.
    pub evicts: bool,
    /// How it reads.
    pub read: ChannelSpec,
    /// How it writes.
    pub write: ChannelSpec,
}

/// A queue in front of a tier: one operation after the other.
#[derive(Clone, Debug)]
pub struct Channel {
    spec: ChannelSpec,
    free: Time,
}

impl Channel {
    /// An idle channel.
    #[must_use]
    pub fn new(spec: ChannelSpec) -> Self {
        Self { spec, free: Time::ZERO }
    }

    /// An operation on so many files of `bytes` bytes together, asked for at `now`: when it is over, or `None` when it
    /// is dropped. Operations are asked for in order of time.
    pub fn submit(&mut self, now: Time, files: u64, bytes: u64) -> Option<Time> {
        let start = self.free.max(now);
        if self.spec.queued_max.is_some_and(|most| start.since(now) > most) {
            return None;
        }
        self.free = start + self.spec.duration(files, bytes);
        Some(self.free)
    }
}

impl ChannelSpec {
    /// How long an operation on so many files takes once it is served.
    #[must_use]
    pub fn duration(&self, files: u64, bytes: u64) -> Span {
        let transfer = Span::from_secs_f64(bytes as f64 / self.bandwidth).unwrap_or(SPAN_MAX);
        self.latency.times(files.div_ceil(u64::from(self.concurrency))) + transfer
    }
}

/// Chunks are told apart by the engines that can read them, and by the text that they and everything before them hold.
pub type ChunkName = (u32, BlockHash);

/// What a tier holds.
#[derive(Clone, Debug, Default)]
pub struct Shelf {
    /// Most bytes; no limit when absent.
    capacity: Option<u64>,
    evicts: bool,
    bytes: u64,
    /// When each chunk was used last, and its bytes.
    chunks: FxHashMap<ChunkName, (u64, u64)>,
    by_use: BTreeMap<u64, ChunkName>,
    uses: u64,
}

/// Bounds memory: a tier takes no more chunks than that, whatever its capacity.
const CHUNKS_MAX: usize = 16 << 20;

impl Shelf {
    /// An empty tier.
    #[must_use]
    pub fn new(spec: &TierSpec) -> Self {
        Self { capacity: spec.capacity, evicts: spec.evicts, ..Self::default() }
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it holds a chunk.
    #[must_use]
    pub fn contains(&self, name: ChunkName) -> bool {
        self.chunks.contains_key(&name)
    }

    /// Puts a chunk of so many bytes in, or uses it again; whether it is there now.
    pub fn put(&mut self, name: ChunkName, bytes: u64) -> bool {
        if self.contains(name) {
            self.touch(name);
            return true;
        }
        while self.is_full(bytes) {
            let oldest = self.evicts.then(|| self.by_use.pop_first()).flatten();
            let Some((_, bytes)) = oldest.and_then(|(_, oldest)| self.chunks.remove(&oldest)) else {
                return false;
            };
            self.bytes -= bytes;
        }
        self.bytes += bytes;
        self.note_use(name, bytes);
        true
    }

    fn is_full(&self, bytes: u64) -> bool {
        self.chunks.len() == CHUNKS_MAX || self.capacity.is_some_and(|most| self.bytes + bytes > most)
    }

    /// Uses a chunk: it is evicted later.
    pub fn touch(&mut self, name: ChunkName) {
        if let Some(&(used, bytes)) = self.chunks.get(&name) {
            self.by_use.remove(&used);
            self.note_use(name, bytes);
        }
    }

    fn note_use(&mut self, name: ChunkName, bytes: u64) {
        self.uses += 1;
        self.chunks.insert(name, (self.uses, bytes));
        self.by_use.insert(self.uses, name);
    }
}

/// A tier's content, which the engines that read it and the fleet that writes it have in common. There is one thread.
#[derive(Clone, Debug)]
pub struct SharedShelf(Arc<Mutex<Shelf>>);

impl SharedShelf {
    /// An empty tier.
    #[must_use]
    pub fn new(spec: &TierSpec) -> Self {
        Self(Arc::new(Mutex::new(Shelf::new(spec))))
    }

    /// Its content.
    pub fn get(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{Content, HashChain, Prompt};

    const GIGABYTE: u64 = 1_000_000_000;

    fn names(count: u32) -> Vec<ChunkName> {
        let mut keys = Vec::new();
        let prompt = Prompt::of(Content::shared(0), count * 16);
        HashChain::new(16, None, 0).extend(&mut keys, &prompt, Content::generated(0), count * 16);
        keys.into_iter().map(|key| (0, key)).collect()
    }

    fn spec(queued_max: Option<Span>) -> ChannelSpec {
        ChannelSpec { bandwidth: 10e9, latency: Span::from_millis(1), concurrency: 4, queued_max }
    }

    fn tier(capacity: Option<u64>, evicts: bool) -> Shelf {
        Shelf::new(&TierSpec { capacity, evicts, read: spec(None), write: spec(None) })
    }

    fn millis(time: Option<Time>) -> Option<u64> {
        time.map(|time| time.as_nanos() / 1_000_000)
    }

    #[test]
    fn operations_follow_one_another_and_files_that_are_opened_at_once_share_their_latency() {
        let mut disk = Channel::new(spec(None));
        let ends = [(0, 4), (0, 5), (500, 1)]
            .map(|(at, files)| millis(disk.submit(Time::from_nanos(at * 1_000_000), files, GIGABYTE)));
        assert_eq!(ends, [Some(101), Some(203), Some(601)]);
    }

    #[test]
    fn a_write_that_would_wait_too_long_is_dropped() {
        let mut disk = Channel::new(spec(Some(Span::from_millis(150))));
        let ends = [0; 4].map(|now| millis(disk.submit(Time::from_nanos(now), 1, GIGABYTE)));
        assert_eq!(ends, [Some(101), Some(202), None, None], "the third would wait for 202 ms");
        let later = disk.submit(Time::from_nanos(100_000_000), 1, GIGABYTE);
        assert!(later.is_some(), "102 ms are short enough");
    }

    #[test]
    fn a_shared_file_system_that_is_full_takes_nothing_more() {
        let (mut shelf, names) = (tier(Some(20), false), names(3));
        let taken: Vec<_> = names.iter().map(|&name| shelf.put(name, 10)).collect();
        assert_eq!((taken, shelf.bytes()), (vec![true, true, false], 20));
        assert!(shelf.put(names[0], 10), "what is there needs no room");
    }

    #[test]
    fn a_disk_that_is_full_drops_what_was_used_longest_ago() {
        let (mut shelf, names) = (tier(Some(25), true), names(3));
        shelf.put(names[0], 10);
        shelf.put(names[1], 10);
        shelf.touch(names[0]);
        assert!(shelf.put(names[2], 15));
        let there: Vec<_> = names.iter().map(|&name| shelf.contains(name)).collect();
        assert_eq!((there, shelf.bytes()), (vec![true, false, true], 25));
    }

    #[test]
    fn without_a_limit_everything_stays_and_what_never_fits_is_refused() {
        let mut shelf = tier(None, false);
        assert!(names(1000).into_iter().all(|name| shelf.put(name, 1)));
        assert_eq!(shelf.bytes(), 1000);
        assert!(!tier(Some(5), true).put(names(1)[0], 10));
    }
}
