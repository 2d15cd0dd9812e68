//! Routing policies that are tried, each with the configuration that would be rolled out.

use std::fmt;
use std::sync::Arc;

use forerun_policies::epp::config::{Config, LoadOptions};
use forerun_sim::fleet::PoolConfig;

use crate::error::Error;
use crate::routing::Routing;
use crate::scenario::RouterSpec;

/// Tokens of a block in the approximate index: its own default, and the least that it accepts.
const INDEX_BLOCK_TOKENS: u32 = 64;

/// How requests are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Policy {
    /// Each replica in turn: a Service.
    RoundRobin,
    /// The replica with the fewest requests: a load balancer.
    LeastRequests,
    /// llm-d's endpoint picker with an approximate index of prefixes.
    Approximate,
    /// llm-d's endpoint picker with an exact index, kept by the servers' KV events.
    Precise,
    /// llm-d's endpoint picker over prefill and decode replicas.
    Disaggregated,
    /// llm-d's endpoint picker with an approximate index and affinity of LoRA adapters.
    Adapters,
}

impl Policy {
    /// All of them; those that are simpler to run come first.
    pub(crate) const ALL: [Self; 6] = [
        Self::RoundRobin,
        Self::LeastRequests,
        Self::Approximate,
        Self::Precise,
        Self::Disaggregated,
        Self::Adapters,
    ];

    /// Its name in tables and flags.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastRequests => "least-requests",
            Self::Approximate => "llm-d-prefix",
            Self::Precise => "llm-d-precise",
            Self::Disaggregated => "llm-d-pd",
            Self::Adapters => "llm-d-lora",
        }
    }

    /// Whether it needs llm-d.
    pub(crate) const fn is_llm_d(self) -> bool {
        !matches!(self, Self::RoundRobin | Self::LeastRequests)
    }

    /// Whether it follows the servers' KV events.
    pub(crate) const fn follows_kv_events(self) -> bool {
        matches!(self, Self::Precise)
    }

    /// The oldest version that reads its configuration: llm-d's router of 0.10 gave the plugins their present names.
    pub(crate) const fn llm_d_min(self) -> Option<&'static str> {
        if self.is_llm_d() { Some("router 0.10") } else { None }
    }

    /// What a scenario says of it; the endpoint picker's configuration comes with [`Self::routing`].
    pub(crate) fn spec(self) -> Option<RouterSpec> {
        let preset = (!self.is_llm_d()).then(|| self.name().to_owned())?;
        Some(RouterSpec { preset: Some(preset), ..RouterSpec::default() })
    }

    /// The EndpointPickerConfig for these pools; `None` for policies without one.
    pub(crate) fn configuration(self, pools: &[PoolConfig]) -> Option<String> {
        // What the smallest replica holds: a larger index promises hits that are gone.
        let tokens =
            |pool: &PoolConfig| u64::from(pool.engine.num_gpu_blocks) * u64::from(pool.engine.block_size);
        let blocks = pools.iter().map(tokens).min().unwrap_or(0) / u64::from(INDEX_BLOCK_TOKENS);
        let longest = pools.iter().map(|pool| pool.engine.max_model_len).max().unwrap_or(0);
        let text = match self {
            Self::RoundRobin | Self::LeastRequests => return None,
            Self::Approximate => APPROXIMATE,
            Self::Precise => PRECISE,
            Self::Disaggregated => DISAGGREGATED,
            Self::Adapters => ADAPTERS,
        };
        let block = pools.first().map_or(16, |pool| pool.engine.block_size);
        let fill = [
            ("{index}", INDEX_BLOCK_TOKENS.to_string()),
            ("{blocks}", blocks.max(1).to_string()),
            ("{longest}", longest.to_string()),
            ("{block}", block.to_string()),
        ];
        Some(fill.into_iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, &value)))
    }

    /// The routing of a fleet of these pools.
    ///
    /// # Errors
    /// When its own configuration does not load, which is a bug.
    pub(crate) fn routing(self, pools: &[PoolConfig]) -> Result<Option<Routing>, Error> {
        let Some(text) = self.configuration(pools) else { return Ok(None) };
        let config = Config::load(&text, LoadOptions::default())
            .map_err(|e| Error::Internal(format!("the configuration of {self}: {e}")))?;
        Ok(Some(Routing::EndpointPicker { path: self.name().to_owned(), config: Arc::new(config) }))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The endpoint picker's own default, with an index as large as the replicas' caches.
const APPROXIMATE: &str = include_str!("../../epp/prefix.yaml");
/// After llm-d's guide to precise prefix-cache routing.
const PRECISE: &str = include_str!("../../epp/precise.yaml");
/// After llm-d's guide to prefill/decode disaggregation.
const DISAGGREGATED: &str = include_str!("../../epp/pd.yaml");
/// The default with affinity to adapters.
const ADAPTERS: &str = include_str!("../../epp/lora.yaml");
