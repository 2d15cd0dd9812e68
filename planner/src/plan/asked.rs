//! What a plan may use, and how sure it must be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::InputError;
use crate::hardware::find_gpu;
use crate::trial::Policy;

/// GPUs that are considered when neither the question nor the scenario names one.
pub const GPUS: [&str; 3] = ["h100-sxm", "h200-sxm", "a100-sxm-80gb"];

/// Splits of a model over GPUs that are considered when nobody says.
pub const SPLITS: [u32; 4] = [1, 2, 4, 8];

/// Token budgets of a step that are tried on the best fleets, besides vLLM's default.
pub const BATCH_TOKENS: [u32; 4] = [1024, 2048, 4096, 16_384];

/// Fewer requests show nothing of a fleet.
const REQUESTS_MIN: u64 = 200;

/// Whether prefill and decode are on replicas of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roles {
    /// Both ways are tried.
    #[default]
    Any,
    /// Every replica does both.
    Together,
    /// Always on replicas of their own.
    Apart,
}

/// What may be used, and how sure the answer must be.
#[derive(Clone, Debug)]
pub struct Asked {
    /// GPUs to choose from; empty for the first pool's, or else [`GPUS`].
    pub gpus: Vec<String>,
    /// Numbers of GPUs over which a replica may be split.
    pub splits: Vec<u32>,
    /// Routing policies by name; empty for those that may matter to the traffic.
    pub policies: Vec<String>,
    /// Whether prefill and decode may be apart.
    pub roles: Roles,
    /// Whether a fleet may have two kinds of GPUs.
    pub mixed: bool,
    /// Values of `max_num_batched_tokens` that are tried on the best fleets.
    pub batch_tokens: Vec<u32>,
    /// Values of `long_prefill_token_threshold` that are tried on the best fleets.
    pub prefill_chunks: Vec<u32>,
    /// Host memory for KV that is tried on the best fleets, GiB for each replica.
    pub host_memory_gib: Vec<f64>,
    /// GPUs in stock, by name; others are unlimited.
    pub stock: BTreeMap<String, u32>,
    /// Replicas of each kind that may fail while the rest holds the SLO.
    pub survive: u32,
    /// Confidence with which the SLO must hold over seeds.
    pub confidence: f64,
    /// The largest number of replicas of one kind that is tried.
    pub replicas_max: u32,
    /// Requests of the longest runs; the whole traffic when nobody says.
    pub requests: Option<u64>,
    /// File that keeps every run's figures: what is there is not run again.
    pub resume: Option<PathBuf>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            gpus: Vec::new(),
            splits: SPLITS.into(),
            policies: Vec::new(),
            roles: Roles::Any,
            mixed: false,
            batch_tokens: BATCH_TOKENS.into(),
            prefill_chunks: Vec::new(),
            host_memory_gib: Vec::new(),
            stock: BTreeMap::new(),
            survive: 0,
            confidence: 0.95,
            replicas_max: 128,
            requests: None,
            resume: None,
        }
    }
}

impl Asked {
    /// Whether everything asked is possible.
    ///
    /// # Errors
    /// When a number is out of range or a name unknown: says which.
    pub fn check(&self) -> Result<(), InputError> {
        let wrong = |flag: &str, value: &dyn std::fmt::Display, why: &str| {
            Err(InputError::new(format!("{flag} {value}: {why}")))
        };
        for gpu in self.gpus.iter().chain(self.stock.keys()) {
            find_gpu(gpu)?;
        }
        if let Some(split) = self.splits.iter().find(|split| !(1..=64).contains(*split)) {
            return wrong("--tp", split, "a replica has from 1 to 64 GPUs");
        }
        if self.splits.is_empty() {
            return wrong("--tp", &"", "at least one split is needed, for example --tp 1,2,4");
        }
        for name in &self.policies {
            policy(name)?;
        }
        if !(0.5..1.0).contains(&self.confidence) {
            return wrong("--confidence", &self.confidence, "from 0.5 to below 1, for example 0.95");
        }
        if !(1..=4096).contains(&self.replicas_max) {
            return wrong(
                "--max-replicas",
                &self.replicas_max,
                "from 1 to 4096 replicas of a kind are tried",
            );
        }
        if self.survive > 64 {
            return wrong("--survive", &self.survive, "at most 64 replicas of each kind are kept in reserve");
        }
        if let Some(requests) = self.requests.filter(|requests| *requests < REQUESTS_MIN) {
            return wrong("--requests", &requests, "at least 200 are needed");
        }
        if let Some(gib) = self.host_memory_gib.iter().find(|gib| !(0.1..=65_536.0).contains(*gib)) {
            return wrong("--host-memory", gib, "GiB for each replica, from 0.1 to 65536");
        }
        if let Some(tokens) = self.batch_tokens.iter().find(|tokens| !(16..=1 << 20).contains(*tokens)) {
            return wrong("--batch-tokens", tokens, "tokens of a step, from 16 to 1048576");
        }
        if let Some(tokens) = self.prefill_chunks.iter().find(|tokens| !(16..=1 << 20).contains(*tokens)) {
            return wrong("--prefill-chunks", tokens, "tokens of a chunk, from 16 to 1048576");
        }
        Ok(())
    }
}

/// The policy of this name.
///
/// # Errors
/// When there is none: says which there are.
pub(super) fn policy(name: &str) -> Result<Policy, InputError> {
    Policy::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| {
        let known = Policy::ALL.map(Policy::name);
        let hint = crate::error::hint(name, known);
        InputError::new(format!(
            "--policies {name}: there is no such policy{hint}; known: {}",
            known.join(", ")
        ))
    })
}
