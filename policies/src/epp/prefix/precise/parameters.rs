//! Parameters of `precise-prefix-cache-producer` as a configuration writes them.

use forerun_sim::time::Span;
use serde::Deserialize;
use serde_json::Value;

use super::{KvIndexConfig, PreciseConfig, TierWeights};
use crate::epp::flow::parse_go_duration;
use crate::epp::plugin::parameters;

/// What the simulator reads of them; the rest says how the real index is connected.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Parameters {
    token_processor_config: TokenProcessor,
    indexer_config: Indexer,
    speculative_indexing: bool,
    #[serde(rename = "speculativeTTL")]
    speculative_ttl: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TokenProcessor {
    /// The older name of the next one.
    block_size: Option<u32>,
    block_size_tokens: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Indexer {
    kv_block_index_config: BlockIndex,
    kv_cache_backend_configs: Vec<Backend>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BlockIndex {
    in_memory_config: InMemory,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct InMemory {
    size: Option<u64>,
    pod_cache_size: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Backend {
    name: String,
    weight: f64,
}

impl PreciseConfig {
    /// Reads the parameters of a plugin.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(value: &Value) -> Result<Self, String> {
        let Parameters {
            token_processor_config: tokens,
            indexer_config,
            speculative_indexing,
            speculative_ttl,
        } = parameters(value)?;
        let defaults = Self::default();
        let block_size_tokens = tokens
            .block_size_tokens
            .or(tokens.block_size)
            .filter(|&tokens| tokens > 0)
            .unwrap_or(defaults.block_size_tokens);
        let InMemory { size, pod_cache_size } = indexer_config.kv_block_index_config.in_memory_config;
        let index = KvIndexConfig {
            size: size.unwrap_or(defaults.index.size),
            pod_cache_size: pod_cache_size.unwrap_or(defaults.index.pod_cache_size),
        };
        let backends = indexer_config.kv_cache_backend_configs;
        let weights = if backends.is_empty() {
            defaults.weights
        } else {
            TierWeights::of_backends(backends.iter().map(|backend| (backend.name.as_str(), backend.weight)))
                .map_err(|error| error.to_string())?
        };
        let speculative_ttl = match speculative_ttl {
            Some(text) => parse_go_duration(&text)
                .filter(|&ttl| ttl > Span::ZERO)
                .ok_or_else(|| format!("speculativeTTL `{text}` is not a duration such as 2s"))?,
            None => defaults.speculative_ttl,
        };
        Ok(Self { block_size_tokens, speculative_indexing, speculative_ttl, index, weights, ..defaults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_names_of_the_block_size_are_read_and_the_rest_has_defaults() {
        for name in ["blockSize", "blockSizeTokens"] {
            let value = json!({"tokenProcessorConfig": {name: 64}, "kvEventsConfig": {"topicFilter": "kv@"}});
            let config = PreciseConfig::read(&value).unwrap();
            assert_eq!(config, PreciseConfig { block_size_tokens: 64, ..PreciseConfig::default() });
        }
        assert_eq!(PreciseConfig::read(&Value::Null).unwrap(), PreciseConfig::default());
        assert!(PreciseConfig::read(&json!({"speculativeTTL": "soon"})).is_err());
    }
}
