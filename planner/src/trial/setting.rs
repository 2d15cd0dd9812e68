//! One way to serve the traffic, as a change of a scenario.

use serde_json::json;

use super::altered::Alteration;
use super::policy::Policy;
use crate::assemble::{Assembled, assemble};
use crate::error::{Error, InputError};
use crate::scenario::read::Loaded;
use crate::scenario::{CpuTierSpec, EngineArgs, PoolSpec, Role, StepTimeSpec, TiersSpec};

/// Replicas of one kind, in a number that is searched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// What they do; `None` for everything.
    pub role: Option<Role>,
    /// Their GPU, where it differs from the first pool's.
    pub gpu: Option<String>,
    /// GPUs of each, where they differ from the first pool's.
    pub tensor_parallel: Option<u32>,
}

/// One way to serve the traffic.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Routing policy.
    pub policy: Policy,
    /// Kinds of replicas: one, or two that share the work.
    pub parts: Vec<Part>,
    /// Traffic as a multiple of the scenario's.
    pub traffic: f64,
    /// vLLM arguments that stand over the pool's own.
    pub engine: EngineArgs,
    /// KV tiers below the GPU, in place of the scenario's own.
    pub tiers: Option<TiersSpec>,
    /// GPU time of every step as a multiple of what the cost model says.
    pub slowdown: f64,
    /// How requests differ from the scenario's.
    pub alteration: Alteration,
}

impl Setting {
    /// The scenario's own engines under this policy.
    pub(crate) fn plain(policy: Policy) -> Self {
        Self {
            policy,
            parts: vec![Part::default()],
            traffic: 1.0,
            engine: EngineArgs::default(),
            tiers: None,
            slowdown: 1.0,
            alteration: Alteration::default(),
        }
    }

    /// Prefill and decode on replicas of their own, each on so many GPUs.
    pub(crate) fn apart(prefill: Option<u32>, decode: Option<u32>) -> Self {
        let part = |role, tensor_parallel| Part { role: Some(role), gpu: None, tensor_parallel };
        let parts = vec![part(Role::Prefill, prefill), part(Role::Decode, decode)];
        Self { parts, ..Self::plain(Policy::Disaggregated) }
    }

    /// The same over so many GPUs for each replica.
    pub(crate) fn over(self, tensor_parallel: u32) -> Self {
        let parts = self.parts.into_iter();
        let parts = parts.map(|part| Part { tensor_parallel: Some(tensor_parallel), ..part }).collect();
        Self { parts, ..self }
    }

    /// The same with other traffic.
    pub(crate) fn with_traffic(&self, traffic: f64) -> Self {
        Self { traffic, ..self.clone() }
    }

    /// The scenario of `loaded` served this way, with so many replicas of each part. Its traffic and run are left as
    /// they are.
    pub(crate) fn scenario(&self, loaded: &Loaded, replicas: &[u32]) -> Loaded {
        let mut loaded = loaded.clone();
        let scenario = &mut loaded.scenario;
        scenario.router = self.policy.spec();
        let mut pools = scenario.pools.take().unwrap_or_default();
        pools.truncate(1);
        let own = pools.pop().unwrap_or_default();
        let pools = self.parts.iter().zip(replicas).enumerate();
        let pools = pools.map(|(place, (part, &replicas))| self.pool(&own, part, place, replicas));
        scenario.pools = Some(pools.collect());
        if let Some(tiers) = &self.tiers {
            scenario.tiers = Some(tiers.clone());
        }
        if differs(self.slowdown) {
            let own = scenario.step_time.unwrap_or_default();
            let factor = |own: Option<f64>| Some(own.unwrap_or(1.0) * self.slowdown);
            scenario.step_time =
                Some(StepTimeSpec { decode: factor(own.decode), prefill: factor(own.prefill) });
        }
        loaded
    }

    fn pool(&self, own: &PoolSpec, part: &Part, place: usize, replicas: u32) -> PoolSpec {
        let mut pool = own.clone();
        pool.engine = Some(self.engine.or(&own.engine.clone().unwrap_or_default()));
        pool.tensor_parallel = part.tensor_parallel.or(own.tensor_parallel);
        pool.replicas = Some(replicas);
        pool.role = part.role;
        if let Some(gpu) = &part.gpu {
            pool.gpu = Some(gpu.clone());
        }
        if self.parts.len() > 1 {
            pool.name = Some(match part.role {
                Some(Role::Prefill) => "prefill".to_owned(),
                Some(Role::Decode) => "decode".to_owned(),
                _ => format!("{}-{}", pool.gpu.as_deref().unwrap_or("pool"), place + 1),
            });
        }
        pool
    }

    /// The fleet of [`Self::scenario`].
    ///
    /// # Errors
    /// When it could not exist.
    pub(crate) fn assemble(&self, loaded: &Loaded, replicas: &[u32]) -> Result<Assembled, Error> {
        let mut assembled = assemble(&self.scenario(loaded, replicas))?;
        if let Some(routing) = self.policy.routing(&assembled.fleet.pools)? {
            // The first line says how requests are routed.
            if let Some(fleet) = assembled.about.first_mut() {
                let pools = fleet.rsplit_once(", ").map_or(fleet.as_str(), |(pools, _)| pools);
                *fleet = format!("{pools}, {}", self.policy);
            }
            assembled.router = routing;
        }
        assembled.alteration = self.alteration;
        Ok(assembled)
    }
}

/// Whether a factor changes anything.
pub(super) fn differs(factor: f64) -> bool {
    (factor - 1.0).abs() > f64::EPSILON
}

/// Whether a scenario's first pool could exist with these GPUs per replica.
///
/// # Errors
/// Why not.
pub(crate) fn could_exist(loaded: &Loaded, tensor_parallel: u32) -> Result<Loaded, InputError> {
    let own = loaded.scenario.router.clone();
    let mut loaded = Setting::plain(Policy::RoundRobin).over(tensor_parallel).scenario(loaded, &[1]);
    loaded.scenario.router = own;
    assemble(&loaded).map(|_| loaded)
}

/// Host memory of so many GiB for each replica.
pub(crate) fn host_memory(gib: f64) -> Option<CpuTierSpec> {
    serde_json::from_value(json!({ "capacity": format!("{gib}GiB") })).ok()
}
