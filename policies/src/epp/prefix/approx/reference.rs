//! The index block by block, as upstream has it: the definition that the fast form is judged by.

use std::collections::{BTreeMap, BTreeSet};

use super::PrefixIndex;
use crate::epp::prefix::text::Text;

/// One server's LRU list.
#[derive(Clone, Debug)]
struct Lru {
    capacity: u32,
    clock: u64,
    by_age: BTreeMap<u64, u64>,
    age_of: BTreeMap<u64, u64>,
}

impl Lru {
    /// Makes `key` the youngest; what falls out for it.
    fn touch(&mut self, key: u64) -> Option<u64> {
        self.clock += 1;
        if let Some(age) = self.age_of.insert(key, self.clock) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, key);
        if self.age_of.len() <= self.capacity as usize {
            return None;
        }
        let (_, oldest) = self.by_age.pop_first()?;
        self.age_of.remove(&oldest);
        Some(oldest)
    }
}

/// Who has which block, and one LRU list of blocks per server
/// (upstream: `pkg/epp/framework/plugins/requestcontrol/dataproducer/approximateprefix/indexer.go`).
#[derive(Clone, Debug, Default)]
pub struct BlockIndex {
    servers_of: BTreeMap<u64, BTreeSet<u32>>,
    lists: BTreeMap<u32, Lru>,
}

impl PrefixIndex for BlockIndex {
    fn count_matches(&self, text: &Text, counts: &mut [u32]) {
        for key in text.block_keys() {
            let Some(servers) = self.servers_of.get(&key) else { break };
            servers.iter().for_each(|&server| counts[server as usize] += 1);
        }
    }

    fn insert(&mut self, server: u32, capacity: u32, text: &Text) {
        let keys = text.block_keys();
        if keys.is_empty() {
            return;
        }
        let empty = || Lru { capacity, clock: 0, by_age: BTreeMap::new(), age_of: BTreeMap::new() };
        let list = self.lists.entry(server).or_insert_with(empty);
        for &key in &keys {
            if let Some(evicted) = list.touch(key)
                && let Some(servers) = self.servers_of.get_mut(&evicted)
            {
                servers.remove(&server);
                if servers.is_empty() {
                    self.servers_of.remove(&evicted);
                }
            }
        }
        for key in keys {
            self.servers_of.entry(key).or_default().insert(server);
        }
    }

    fn size(&self, server: u32) -> Option<u32> {
        self.lists.get(&server).map(|list| list.age_of.len() as u32)
    }

    fn remove(&mut self, server: u32) {
        self.lists.remove(&server);
        self.servers_of.retain(|_, servers| {
            servers.remove(&server);
            !servers.is_empty()
        });
    }
}
