//! From `fabric:`, `tiers:` and roles to what the fleet needs of them.

use forerun_sim::engine::connector::{Eviction, OffloadConfig};
use forerun_sim::fleet::fabric::LinkSpec;
use forerun_sim::fleet::{Disaggregation, FailedPull, HostTier, PoolConfig, Role};
use forerun_sim::time::Span;

use crate::error::InputError;
use crate::scenario::{self, CpuTierSpec, EvictionSpec, FabricPreset, FabricSpec, OnFailure, Scenario};

/// One GPU's copies to host memory, measured: 61.7 GiB in 2.3 s (GKE pod snapshots). PCIe 5 carries more.
const HOST_LINK: LinkSpec =
    LinkSpec { bandwidth: 26.5 * 1_073_741_824.0, efficiency: 1.0, latency: Span::from_nanos(50_000) };

/// Host memory is given in pages.
const PAGE_BYTES: u64 = 4096;
/// Bounds memory: chunks of all replicas (a name and a place each).
const CHUNKS_MAX: u64 = 64 << 20;
/// Longer times and higher rates would be mistakes.
const SPAN_MAX: Span = Span::from_secs(3600);
const BANDWIDTH: std::ops::RangeInclusive<f64> = 1e6..=1e14;

/// How prefill and decode replicas of this scenario work together.
///
/// # Errors
/// When a value is out of range.
pub(crate) fn disaggregation(scenario: &Scenario) -> Result<Disaggregation, InputError> {
    let spec = scenario.fabric.clone().unwrap_or_default();
    let default = Disaggregation::default();
    Ok(Disaggregation {
        link: fabric_link(&spec)?,
        sidecar: span("fabric.sidecar", spec.sidecar, default.sidecar)?,
        handshake: span("fabric.handshake", spec.handshake, default.handshake)?,
        lease: span("fabric.lease", spec.lease, default.lease)?,
        heartbeats: spec.heartbeats.unwrap_or(default.heartbeats),
        failed_pull: match spec.on_failure {
            None | Some(OnFailure::Fail) => FailedPull::Fail,
            Some(OnFailure::Recompute) => FailedPull::Recompute,
        },
    })
}

fn fabric_link(spec: &FabricSpec) -> Result<LinkSpec, InputError> {
    let mut link = match spec.preset {
        None | Some(FabricPreset::Rdma) => LinkSpec::RDMA_200G,
        Some(FabricPreset::Nvlink) => LinkSpec::NVLINK4,
        Some(FabricPreset::Tcp) => LinkSpec::TCP_100G,
    };
    if let Some(bandwidth) = spec.bandwidth {
        link.bandwidth = check_bandwidth("fabric.bandwidth", bandwidth)?;
    }
    if let Some(efficiency) = spec.efficiency {
        if !(0.001..=1.0).contains(&efficiency) {
            return Err(InputError::new(format!(
                "`fabric.efficiency` is {efficiency}: it is a share of the line rate, from 0.001 to 1"
            )));
        }
        link.efficiency = efficiency;
    }
    link.latency = span("fabric.latency", spec.latency, link.latency)?;
    Ok(link)
}

fn check_bandwidth(key: &str, given: scenario::Bandwidth) -> Result<f64, InputError> {
    if BANDWIDTH.contains(&given.0) {
        return Ok(given.0);
    }
    Err(InputError::new(format!("`{key}` is {given}: it must be from 1MB/s to 100TB/s")))
}

fn span(
    key: &str,
    given: Option<forerun_workloads::units::Duration>,
    default: Span,
) -> Result<Span, InputError> {
    match given {
        Some(given) if given.0 > SPAN_MAX => {
            Err(InputError::new(format!("`{key}` is {given}: at most 1h is possible")))
        }
        given => Ok(given.map_or(default, |given| given.0)),
    }
}

/// The host memory of each replica of a pool with `gpus` GPUs and KV blocks of so many bytes.
///
/// # Errors
/// When a value is out of range, or nothing fits.
pub(crate) fn host_tier(
    scenario: &Scenario,
    gpus: u32,
    kv_block_bytes: u64,
) -> Result<Option<HostTier>, InputError> {
    let Some(spec) = scenario.tiers.as_ref().and_then(|tiers| tiers.cpu.as_ref()) else { return Ok(None) };
    let CpuTierSpec { capacity, bandwidth, latency, eviction, blocks_per_chunk, offload_prompt_only } = spec;
    let blocks_per_chunk = blocks_per_chunk.unwrap_or(1);
    if !(1..=1024).contains(&blocks_per_chunk) {
        return Err(InputError::new(format!(
            "`tiers.cpu.blocks_per_chunk` is {blocks_per_chunk}: it must be from 1 to 1024"
        )));
    }
    // vLLM rounds a block up to whole pages (v1/kv_offload/cpu).
    let chunk_bytes = (kv_block_bytes * u64::from(blocks_per_chunk)).next_multiple_of(PAGE_BYTES);
    let chunks = capacity.0 as u64 / chunk_bytes;
    if chunks == 0 {
        return Err(InputError::new(format!(
            "`tiers.cpu.capacity` is {capacity}: not even one chunk of {chunk_bytes} bytes fits; raise it"
        )));
    }
    let link = match bandwidth {
        Some(bandwidth) => check_bandwidth("tiers.cpu.bandwidth", *bandwidth)?,
        None => HOST_LINK.bandwidth,
    };
    Ok(Some(HostTier {
        memory: OffloadConfig {
            chunks: chunks.min(CHUNKS_MAX) as u32,
            blocks_per_chunk,
            eviction: match eviction {
                None | Some(EvictionSpec::Lru) => Eviction::Lru,
                Some(EvictionSpec::Arc) => Eviction::Arc,
            },
            offload_prompt_only: offload_prompt_only.unwrap_or(true),
            store_threshold: 0,
        },
        link: LinkSpec {
            bandwidth: link * f64::from(gpus),
            latency: span("tiers.cpu.latency", *latency, HOST_LINK.latency)?,
            ..HOST_LINK
        },
    }))
}

/// Refuses fleets in which roles leave nobody to answer, or engines that cannot exchange blocks.
///
/// # Errors
/// Why the fleet could not exist.
pub(crate) fn check(pools: &[&PoolConfig]) -> Result<(), InputError> {
    let chunks = |pool: &&&PoolConfig| {
        let each = pool.host.as_ref().map_or(0, |host| u64::from(host.memory.chunks));
        each * u64::from(pool.replicas)
    };
    let chunks: u64 = pools.iter().map(|pool| chunks(&pool)).sum();
    if chunks > CHUNKS_MAX {
        return Err(InputError::new(format!(
            "`tiers.cpu` has {chunks} chunks in the whole fleet: at most {CHUNKS_MAX} are simulated; lower `capacity` \
             or raise `blocks_per_chunk`"
        )));
    }
    for pool in pools.iter().filter(|pool| pool.role != Role::Both) {
        let same: Vec<_> = pools.iter().filter(|other| other.model_names == pool.model_names).collect();
        let answers = same.iter().any(|other| other.role != Role::Prefill);
        if !answers {
            return Err(InputError::new(format!(
                "pool `{}` only prefills, and no pool decodes for it: add a pool of `role: decode` with the same model",
                pool.name
            )));
        }
        let differs = |other: &&&&PoolConfig| other.engine.block_size != pool.engine.block_size;
        if let Some(other) = same.iter().find(|other| differs(other)) {
            return Err(InputError::new(format!(
                "pools `{}` and `{}` exchange KV, and their blocks differ: give them the same `block_size`",
                pool.name, other.name
            )));
        }
    }
    Ok(())
}
