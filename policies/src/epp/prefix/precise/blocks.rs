//! The index key by key, as upstream has it: the definition that the fast form is judged by.

use std::collections::BTreeMap;

use super::config::{KvIndexConfig, TierWeights};
use super::found::{Found, Kind, Presence};
use super::{KvIndex, Text};

/// A map that forgets what was not asked for the longest time.
#[derive(Clone, Debug)]
struct Lru<V> {
    size: u64,
    clock: u64,
    values: BTreeMap<u64, (u64, V)>,
    by_age: BTreeMap<u64, u64>,
}

impl<V> Lru<V> {
    fn new(size: u64) -> Self {
        Self { size, clock: 0, values: BTreeMap::new(), by_age: BTreeMap::new() }
    }

    /// The value of `key`, which is the youngest from now on.
    fn get(&mut self, key: u64) -> Option<&mut V> {
        let (age, value) = self.values.get_mut(&key)?;
        self.clock += 1;
        self.by_age.remove(age);
        self.by_age.insert(self.clock, key);
        *age = self.clock;
        Some(value)
    }

    fn insert(&mut self, key: u64, value: V) {
        self.clock += 1;
        if let Some((age, _)) = self.values.insert(key, (self.clock, value)) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, key);
        if self.values.len() as u64 > self.size
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.values.remove(&oldest);
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some((age, _)) = self.values.remove(&key) {
            self.by_age.remove(&age);
        }
    }
}

/// The entries of a key, oldest first.
type Entries = Vec<(u32, Kind)>;

/// Keys with their entries, and the engine's keys that they were reported by.
#[derive(Clone, Debug)]
pub struct BlockKvIndex {
    pod_cache_size: usize,
    entries: Lru<Entries>,
    engine_keys: Lru<()>,
}

impl KvIndex for BlockKvIndex {
    fn new(config: KvIndexConfig) -> Self {
        let KvIndexConfig { size, pod_cache_size } = config;
        Self { pod_cache_size, entries: Lru::new(size), engine_keys: Lru::new(size) }
    }

    fn add(&mut self, pod: u32, kind: Kind, text: &Text, from: u32) {
        let keys = &text.block_keys()[from as usize..];
        if kind != Kind::SPECULATIVE {
            keys.iter().for_each(|&key| self.engine_keys.insert(key, ()));
        }
        for &key in keys {
            if self.entries.get(key).is_none() {
                self.entries.insert(key, Entries::new());
            }
            let Some(entries) = self.entries.get(key) else { continue };
            entries.retain(|entry| *entry != (pod, kind));
            entries.push((pod, kind));
            if entries.len() > self.pod_cache_size {
                entries.remove(0);
            }
        }
    }

    fn evict(&mut self, pod: u32, kind: Kind, text: &Text, from: u32) {
        for &key in &text.block_keys()[from as usize..] {
            // An event is understood by the engine's key; one that was forgotten leaves the entry behind.
            if kind != Kind::SPECULATIVE && self.engine_keys.get(key).is_none() {
                continue;
            }
            let Some(entries) = self.entries.get(key) else {
                self.engine_keys.remove(key);
                continue;
            };
            entries.retain(|entry| *entry != (pod, kind));
            if entries.is_empty() {
                self.entries.remove(key);
                self.engine_keys.remove(key);
            }
        }
    }

    fn clear(&mut self, pod: u32) {
        let has = |entries: &Entries| entries.iter().any(|entry| entry.0 == pod);
        let keys: Vec<u64> = self
            .entries
            .by_age
            .values()
            .filter(|key| self.entries.values.get(key).is_some_and(|(_, entries)| has(entries)))
            .copied()
            .collect();
        for key in keys {
            let Some(entries) = self.entries.get(key) else { continue };
            entries.retain(|entry| entry.0 != pod);
            if entries.is_empty() {
                self.entries.remove(key);
            }
        }
    }

    fn find(&mut self, text: &Text, weights: &TierWeights, found: &mut [Found]) {
        found.fill(Found::default());
        for (block, key) in (0..).zip(text.block_keys()) {
            // Upstream looks up all keys, and so refreshes them, whether or not the prefix has broken off before.
            let Some(entries) = self.entries.get(key) else { continue };
            for (pod, found) in (0..).zip(found.iter_mut()) {
                let mut presence = Presence::default();
                entries
                    .iter()
                    .filter(|entry| entry.0 == pod)
                    .for_each(|entry| presence.add(entry.1, weights));
                if found.cached == block && !presence.is_absent() {
                    found.extend(block, 1, presence);
                }
            }
        }
    }
}
