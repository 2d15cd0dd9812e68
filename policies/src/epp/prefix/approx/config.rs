//! Parameters of the approximate producer, with upstream's defaults and corrections.

use serde::Deserialize;
use thiserror::Error;

/// Blocks are never smaller, whatever is configured (upstream's `minBlockSizeTokens`, its issue 1158).
const BLOCK_TOKENS_MIN: u32 = 64;

/// The capacity when a configured one makes no sense (upstream's `defaultLRUCapacityPerServer`).
const CAPACITY_DEFAULT: u32 = 31_250;

/// Parameters of `approx-prefix-cache-producer`, as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ApproxConfig {
    /// Takes block size and capacity from vLLM's `cache_config_info` where that is published.
    pub auto_tune: bool,
    /// Tokens of a block where they are not tuned; at least 64 apply.
    pub block_size_tokens: i64,
    /// Tokens of a prompt that are looked at; 0 leaves it to the cap in blocks.
    pub max_prefix_tokens_to_match: i64,
    /// Blocks of a prompt that are looked at where there is no cap in tokens; 0 is no limit.
    pub max_prefix_blocks_to_match: i64,
    /// Blocks that are remembered per server where that is not tuned.
    pub lru_capacity_per_server: i64,
}

impl Default for ApproxConfig {
    fn default() -> Self {
        Self {
            auto_tune: true,
            block_size_tokens: 16,
            max_prefix_tokens_to_match: 131_072,
            max_prefix_blocks_to_match: 2_048,
            lru_capacity_per_server: i64::from(CAPACITY_DEFAULT),
        }
    }
}

/// Why upstream refuses these parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Without tuning somebody has to say how long a block is.
    #[error(
        "invalid configuration: BlockSizeTokens must be > 0 when AutoTune is disabled (current value: {0})"
    )]
    BlockSize(i64),
    /// A cap below zero.
    #[error("invalid configuration: MaxPrefixTokensToMatch must be >= 0 (current value: {0})")]
    TokenCap(i64),
}

impl ApproxConfig {
    /// Checks the parameters as upstream does.
    ///
    /// # Errors
    /// A block size of 0 or less without tuning, or a negative cap in tokens.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.auto_tune && self.block_size_tokens <= 0 {
            return Err(ConfigError::BlockSize(self.block_size_tokens));
        }
        if self.max_prefix_tokens_to_match < 0 {
            return Err(ConfigError::TokenCap(self.max_prefix_tokens_to_match));
        }
        Ok(())
    }

    /// Tokens of a block, when the first endpoint publishes `block_size` (0: it does not).
    #[must_use]
    pub fn block_tokens(&self, block_size: u32) -> u32 {
        let configured = u32::try_from(self.block_size_tokens.max(0)).unwrap_or(u32::MAX);
        let tuned = if self.auto_tune && block_size > 0 { block_size } else { configured };
        tuned.max(BLOCK_TOKENS_MIN)
    }

    /// Blocks of `block_tokens` tokens that are looked at. A cap in tokens below a block leaves none.
    #[must_use]
    pub fn blocks_max(&self, block_tokens: u32) -> u32 {
        let blocks = match (self.max_prefix_tokens_to_match, self.max_prefix_blocks_to_match) {
            (1.., _) => self.max_prefix_tokens_to_match / i64::from(block_tokens),
            (_, 0) => i64::MAX,
            (_, blocks) => blocks.max(0),
        };
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    /// Blocks that are remembered for a server that publishes `num_gpu_blocks` (0: it does not).
    ///
    /// Those are blocks of the engine, of 16 tokens as a rule, while the list counts blocks of at least 64: a tuned
    /// list remembers several times what the server can hold.
    #[must_use]
    pub fn capacity(&self, num_gpu_blocks: u32) -> u32 {
        if self.auto_tune && num_gpu_blocks > 0 {
            return num_gpu_blocks;
        }
        match u32::try_from(self.lru_capacity_per_server) {
            Ok(capacity @ 1..) => capacity,
            Ok(0) => CAPACITY_DEFAULT,
            Err(_) if self.lru_capacity_per_server < 0 => CAPACITY_DEFAULT,
            Err(_) => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_at_least_64_tokens() {
        let config = ApproxConfig::default();
        assert_eq!([0, 16, 64, 128].map(|size| config.block_tokens(size)), [64, 64, 64, 128]);
        let fixed = ApproxConfig { auto_tune: false, block_size_tokens: 100, ..config };
        assert_eq!(fixed.block_tokens(16), 100);
    }

    #[test]
    fn a_cap_in_tokens_comes_before_one_in_blocks() {
        let caps = |tokens, blocks| ApproxConfig {
            max_prefix_tokens_to_match: tokens,
            max_prefix_blocks_to_match: blocks,
            ..ApproxConfig::default()
        };
        assert_eq!(ApproxConfig::default().blocks_max(64), 2_048);
        assert_eq!(caps(40, 7).blocks_max(64), 0, "a cap below a block matches nothing");
        assert_eq!(caps(0, 7).blocks_max(64), 7);
        assert_eq!(caps(0, 0).blocks_max(64), u32::MAX);
    }

    #[test]
    fn a_capacity_that_makes_no_sense_is_the_default() {
        let of = |auto_tune, capacity| ApproxConfig {
            auto_tune,
            lru_capacity_per_server: capacity,
            ..ApproxConfig::default()
        };
        assert_eq!(of(true, 5).capacity(1_000), 1_000);
        assert_eq!(of(true, 5).capacity(0), 5);
        assert_eq!(of(false, 5).capacity(1_000), 5);
        assert_eq!([0, -1].map(|capacity| of(false, capacity).capacity(0)), [31_250; 2]);
    }
}
