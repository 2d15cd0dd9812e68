//! Parameters of the precise producer, with upstream's defaults.

use forerun_sim::time::Span;
use thiserror::Error;

use super::found::Kind;

/// Kinds of entries: speculative ones, gpu, cpu and five more tiers.
pub(super) const KINDS_MAX: usize = 8;

/// Keys that the index holds unless configured otherwise.
const INDEX_SIZE_DEFAULT: u64 = 100_000_000;

/// Entries of a key unless configured otherwise: pods times tiers, not pods.
const POD_CACHE_SIZE_DEFAULT: usize = 10;

/// Limits of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvIndexConfig {
    /// Keys of blocks that are remembered.
    pub size: u64,
    /// (pod, kind) entries that a key remembers.
    pub pod_cache_size: usize,
}

impl Default for KvIndexConfig {
    fn default() -> Self {
        Self { size: INDEX_SIZE_DEFAULT, pod_cache_size: POD_CACHE_SIZE_DEFAULT }
    }
}

/// What a block counts by the tier that it is in.
#[derive(Clone, Debug, PartialEq)]
pub struct TierWeights {
    names: Vec<String>,
    weights: [f64; KINDS_MAX],
}

/// More tiers than can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more than {} tiers: name fewer backends", KINDS_MAX - 1)]
pub struct TooManyTiers;

impl Default for TierWeights {
    fn default() -> Self {
        let mut weights = [1.0; KINDS_MAX];
        weights[Kind::CPU.index()] = 0.8;
        Self { names: ["gpu", "cpu"].map(str::to_owned).to_vec(), weights }
    }
}

impl TierWeights {
    /// Other weights than the default ones (gpu 1, cpu 0.8): then every tier that is not named weighs 1.
    ///
    /// # Errors
    /// When there are too many tiers.
    pub fn of_backends<'a>(backends: impl IntoIterator<Item = (&'a str, f64)>) -> Result<Self, TooManyTiers> {
        let mut tiers = Self { weights: [1.0; KINDS_MAX], ..Self::default() };
        for (name, weight) in backends {
            let kind = tiers.kind(name)?;
            tiers.weights[kind.index()] = weight;
        }
        Ok(tiers)
    }

    /// The kind of the tier `name`, which is known from now on.
    ///
    /// # Errors
    /// When there are too many tiers.
    pub fn kind(&mut self, name: &str) -> Result<Kind, TooManyTiers> {
        let number = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        // Number 0 is for speculative entries.
        if number + 1 < KINDS_MAX { Ok(Kind::tier(number as u8 + 1)) } else { Err(TooManyTiers) }
    }

    /// The weight of a kind. Speculative entries weigh 1.
    #[must_use]
    pub fn of(&self, kind: Kind) -> f64 {
        self.weights[kind.index()]
    }
}

/// Parameters of `precise-prefix-cache-producer`, and how late its index learns what happened.
#[derive(Clone, Debug, PartialEq)]
pub struct PreciseConfig {
    /// Tokens of a block: has to be vLLM's block size, or nothing matches.
    pub block_size_tokens: u32,
    /// Whether a request's blocks are believed to be where it was sent, before the pod says so.
    pub speculative_indexing: bool,
    /// For how long.
    pub speculative_ttl: Span,
    /// Limits of the index.
    pub index: KvIndexConfig,
    /// Weights of the tiers.
    pub weights: TierWeights,
    /// From a KV event to its effect on the index.
    pub event_delay: Span,
    /// With the `estimate` token backend the bytes of a token: then no block ever equals one of the engine's. `None`:
    /// real tokens.
    pub estimated_bytes_per_token: Option<f64>,
}

impl Default for PreciseConfig {
    fn default() -> Self {
        Self {
            block_size_tokens: 16,
            speculative_indexing: false,
            speculative_ttl: Span::from_secs(2),
            index: KvIndexConfig::default(),
            weights: TierWeights::default(),
            event_delay: Span::ZERO,
            estimated_bytes_per_token: None,
        }
    }
}
