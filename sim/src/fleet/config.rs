//! What a fleet is made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cost::CostModel;
use crate::engine::config::EngineConfig;
use crate::time::{Span, Time};

/// Replicas of one kind.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name; replicas are called `<name>-<index>`.
    pub name: String,
    /// How many replicas.
    pub replicas: u32,
    /// GPUs of each.
    pub gpus: u32,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// Names under which requests may ask for its model; pools of equal names serve the same model.
    pub model_names: Vec<String>,
    /// Engine arguments.
    pub engine: EngineConfig,
    /// How long its steps take.
    pub cost: Arc<dyn CostModel>,
}

/// Fixed costs between client and engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Client to router.
    pub gateway: Span,
    /// The router's decision.
    pub picker: Span,
    /// Router to engine: the API server.
    pub api_server: Span,
    /// Tokenizer, for every 1000 tokens of the prompt.
    pub tokenize_per_1k_tokens: Span,
}

impl Overhead {
    /// Time from the router to the engine for a prompt of so many tokens.
    pub(super) fn serving(&self, prompt_tokens: u32) -> Span {
        let tokenize = u128::from(self.tokenize_per_1k_tokens.as_nanos()) * u128::from(prompt_tokens) / 1000;
        self.api_server + Span::from_nanos(tokenize as u64)
    }
}

/// What clients do when they wait too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Give up after so long; the request is cancelled and frees what it holds.
    pub timeout: Option<Span>,
    /// Send it again so often before giving up.
    pub retries: u32,
}

/// In which form KV blocks are kept. Both give the same outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvForm {
    /// Runs of blocks, and decodes in lockstep: a step costs what changes in it.
    #[default]
    Extents,
    /// Block by block, every request in every step: the reference, equal to vLLM's recordings in every id.
    Exact,
}

/// Everything that a run needs besides its source and router.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// The pools. Requests that name no model go to the pools of the first one's model.
    pub pools: Vec<PoolConfig>,
    /// In which form KV blocks are kept.
    pub kv: KvForm,
    /// Fixed costs between client and engine.
    pub overhead: Overhead,
    /// What clients do when they wait too long.
    pub client: Client,
    /// Time integrals and counters start here.
    pub warm_up: Time,
    /// Stop here, whatever is still in flight.
    pub horizon: Option<Time>,
}
