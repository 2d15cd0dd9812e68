//! From `lora:` to what a replica needs of it.

use forerun_sim::catalog::Model;
use forerun_sim::engine::adapters::{AdapterConfig, AdapterCost};
use forerun_sim::time::Span;
use forerun_workloads::spec::WorkloadSpec;
use forerun_workloads::synthetic::Popularity;

use crate::error::InputError;
use crate::kv::{HOST_LINK, check_bandwidth, span};
use crate::scenario::{LoraSpec, Scenario};

/// vLLM's default `max_lora_rank`, and the largest that it takes (config/lora.py, 0.32).
const RANK: u32 = 16;
const RANK_MAX: u32 = 512;
/// Most adapters in host memory: each is looked up in a list.
const PLACES_MAX: u32 = 4096;
/// Assumptions: nothing was published that says more than that a load takes a good part of a short prompt's TTFT.
const DISK_BANDWIDTH: f64 = 2e9;
const LOAD_OVERHEAD: Span = Span::from_millis(1);
const DISK_OVERHEAD: Span = Span::from_millis(20);

/// The adapters of a model's servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lora {
    max_loras: Option<u32>,
    max_cpu_loras: Option<u32>,
    cost: AdapterCost,
}

impl Lora {
    /// What the scenario says of the adapters of `model`.
    ///
    /// # Errors
    /// When a value is out of range.
    pub(crate) fn of(scenario: &Scenario, model: &Model) -> Result<Option<Self>, InputError> {
        let Some(spec) = &scenario.lora else { return Ok(None) };
        let rank = spec.rank.unwrap_or(RANK);
        within("lora.rank", rank, RANK_MAX)?;
        spec.max_loras.map_or(Ok(()), |slots| within("lora.max_loras", slots, PLACES_MAX))?;
        spec.max_cpu_loras.map_or(Ok(()), |places| within("lora.max_cpu_loras", places, PLACES_MAX))?;
        let rate =
            |key, given: Option<_>, default| given.map_or(Ok(default), |rate| check_bandwidth(key, rate));
        Ok(Some(Self {
            max_loras: spec.max_loras,
            max_cpu_loras: spec.max_cpu_loras,
            cost: AdapterCost {
                bytes: model.adapter_bytes(rank),
                host_bandwidth: rate("lora.bandwidth", spec.bandwidth, HOST_LINK.throughput())?,
                disk_bandwidth: rate("lora.disk_bandwidth", spec.disk_bandwidth, DISK_BANDWIDTH)?,
                activation: span("lora.load_overhead", spec.load_overhead, LOAD_OVERHEAD)?,
                parse: span("lora.disk_overhead", spec.disk_overhead, DISK_OVERHEAD)?,
            },
        }))
    }

    /// Adapters on the GPU at once, given the engine's own `max_loras`.
    ///
    /// # Errors
    /// When the two contradict each other.
    pub(crate) fn slots(&self, engine: Option<u32>) -> Result<u32, InputError> {
        match (self.max_loras, engine) {
            (Some(own), Some(engine)) if own != engine => Err(InputError::new(format!(
                "`lora.max_loras` is {own} and `engine.max_loras` {engine}: they are the same setting; keep one"
            ))),
            (own, engine) => Ok(own.or(engine).unwrap_or(1)),
        }
    }

    /// Bytes that vLLM sets aside on each GPU for so many slots. As in a load, every GPU has the whole adapter.
    pub(crate) fn slot_bytes(&self, slots: u32) -> u64 {
        self.cost.bytes * u64::from(slots)
    }

    /// How a replica with so many slots keeps its adapters.
    ///
    /// # Errors
    /// When host memory holds fewer than the GPU.
    pub(crate) fn config(&self, slots: u32) -> Result<AdapterConfig, InputError> {
        let host_places = self.max_cpu_loras.unwrap_or(slots);
        if host_places < slots {
            return Err(InputError::new(format!(
                "`lora.max_cpu_loras` is {host_places}, below `max_loras` ({slots}): vLLM would not start; raise it"
            )));
        }
        Ok(AdapterConfig { gpu_slots: slots, host_places, cost: self.cost })
    }
}

fn within(key: &str, value: u32, most: u32) -> Result<(), InputError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(InputError::new(format!("`{key}` is {value}: it must be from 1 to {most}")))
}

/// The workload, whose requests ask for the adapters of `lora` when it is synthetic and says nothing of its own.
///
/// # Errors
/// When it asks for more adapters than there are.
pub(crate) fn workload(mut spec: WorkloadSpec, lora: Option<&LoraSpec>) -> Result<WorkloadSpec, InputError> {
    let Some(count) = lora.and_then(|lora| lora.adapters) else { return Ok(spec) };
    if count == 0 {
        return Err(InputError::new("`lora.adapters` is 0: remove `lora`, or set at least 1"));
    }
    if let Some(synthetic) = &mut spec.synthetic {
        let own = synthetic.adapters.get_or_insert(Popularity { count, zipf: 0.0 });
        if own.count > count {
            return Err(InputError::new(format!(
                "`workload.synthetic.adapters` asks for {} adapters, and `lora.adapters` is {count}: raise the one or \
                 lower the other",
                own.count
            )));
        }
    }
    Ok(spec)
}
