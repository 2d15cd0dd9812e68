//! From `fabric:`, `tiers:` and roles to what the fleet needs of them.

use forerun_reports::capacity::PoolCapacity;
use forerun_sim::engine::connector::{Eviction, OffloadConfig};
use forerun_sim::fleet::fabric::LinkSpec;
use forerun_sim::fleet::{
    BelowHostTiers, Disaggregation, FailedPull, FleetConfig, HostTier, PoolConfig, Role,
};
use forerun_sim::kv::tiers::{ChannelSpec, TierSpec};
use forerun_sim::time::Span;

use crate::error::InputError;
use crate::scenario::{
    self, CpuTierSpec, EvictionSpec, FabricPreset, FabricSpec, LoadSpec, OnFailure, Scenario, StorageSpec,
};

/// One GPU's copies to host memory, measured: 61.7 GiB in 2.3 s (GKE pod snapshots). PCIe 5 carries more.
pub(crate) const HOST_LINK: LinkSpec =
    LinkSpec { bandwidth: 26.5 * 1_073_741_824.0, efficiency: 1.0, latency: Span::from_nanos(50_000) };

/// A disk of one replica: a PCIe 4 NVMe drive reads about so much. Both are assumptions.
const DISK: ChannelSpec = ChannelSpec {
    bandwidth: 5e9,
    latency: Span::from_nanos(100_000),
    concurrency: THREADS,
    queued_max: None,
};
/// A file system in a cloud, for all replicas together (published: "cloud storage ~10 GB/s"). The latency is an
/// assumption.
const SHARED: ChannelSpec = ChannelSpec { bandwidth: 10e9, latency: Span::from_millis(1), ..DISK };
/// llm-d's file-system backend: `threads_per_gpu` and `max_write_queued_seconds`.
const THREADS: u32 = 64;
const THREADS_MAX: u32 = 65_536;
const WRITE_QUEUED_MAX: Span = Span::from_secs(30);

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

/// The bytes per second of a link that a scenario may have.
///
/// # Errors
/// When it is out of range.
pub(crate) fn check_bandwidth(key: &str, given: scenario::Bandwidth) -> Result<f64, InputError> {
    if BANDWIDTH.contains(&given.0) {
        return Ok(given.0);
    }
    Err(InputError::new(format!("`{key}` is {given}: it must be from 1MB/s to 100TB/s")))
}

/// A time that a scenario may have, or its default.
///
/// # Errors
/// When it is longer than an hour.
pub(crate) fn span(
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

/// The room that the KV memory of each pool's replicas has for sessions of so many tokens, tier by tier.
pub(crate) fn capacity(fleet: &FleetConfig, session_tokens: Option<f64>) -> Vec<PoolCapacity> {
    let session_tokens = session_tokens.map(|tokens| tokens.ceil() as u64);
    let of = |pool: &PoolConfig| {
        let block = u64::from(pool.engine.block_size);
        let gpu = u64::from(pool.engine.num_gpu_blocks.saturating_sub(1)) * block;
        let mut tiers = vec![("gpu", Some(gpu), block)];
        if let Some(host) = &pool.host {
            let chunk = block * u64::from(host.memory.blocks_per_chunk);
            tiers.push(("cpu", Some(u64::from(host.memory.chunks) * chunk), chunk));
            let chunk_bytes = pool.kv_block_bytes * u64::from(host.memory.blocks_per_chunk);
            let held = |tier: &TierSpec| tier.capacity.map(|bytes| bytes / chunk_bytes * chunk);
            let below = fleet.below_host;
            let named = [("disk", below.disk.as_ref()), ("shared", below.shared.as_ref())];
            tiers.extend(named.into_iter().filter_map(|(name, tier)| Some((name, held(tier?), chunk))));
        }
        let longest = gpu.min(pool.engine.max_model_len.into());
        PoolCapacity::new(&pool.name, longest, session_tokens, &tiers)
    };
    fleet.pools.iter().map(of).collect()
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

/// What lies below host memory.
///
/// # Errors
/// When a value is out of range, or there is no host memory to go through.
pub(crate) fn below_host(scenario: &Scenario) -> Result<BelowHostTiers, InputError> {
    let Some(tiers) = &scenario.tiers else { return Ok(BelowHostTiers::default()) };
    if tiers.cpu.is_none() && (tiers.disk.is_some() || tiers.shared.is_some() || tiers.load.is_some()) {
        return Err(InputError::new(
            "`tiers` has no `cpu`: KV goes through host memory to the tiers below, as in vLLM; add for example \
             `cpu: {capacity: 20GiB}`",
        ));
    }
    let tier = |key: &str, spec: &Option<StorageSpec>, default, evicts| {
        spec.as_ref().map(|spec| storage(key, spec, default, evicts)).transpose()
    };
    Ok(BelowHostTiers {
        disk: tier("tiers.disk", &tiers.disk, DISK, true)?,
        shared: tier("tiers.shared", &tiers.shared, SHARED, false)?,
        cheapest: tiers.load == Some(LoadSpec::Cheapest),
    })
}

fn storage(
    key: &str,
    spec: &StorageSpec,
    default: ChannelSpec,
    evicts: bool,
) -> Result<TierSpec, InputError> {
    let of = |name: &str| format!("{key}.{name}");
    let concurrency = spec.concurrency.unwrap_or(default.concurrency);
    if !(1..=THREADS_MAX).contains(&concurrency) {
        return Err(InputError::new(format!(
            "`{key}.concurrency` is {concurrency}: it must be from 1 to {THREADS_MAX}"
        )));
    }
    let rate = |name, given: Option<scenario::Bandwidth>, default| {
        given.map_or(Ok(default), |given| check_bandwidth(&of(name), given))
    };
    let bandwidth = rate("bandwidth", spec.bandwidth, default.bandwidth)?;
    let latency = span(&of("latency"), spec.latency, default.latency)?;
    let queued = span(&of("max_write_queued"), spec.max_write_queued, WRITE_QUEUED_MAX)?;
    Ok(TierSpec {
        capacity: spec.capacity.map(|capacity| capacity.0 as u64),
        evicts: spec.evict.unwrap_or(evicts),
        read: ChannelSpec { bandwidth, latency, concurrency, queued_max: None },
        write: ChannelSpec {
            bandwidth: rate("write_bandwidth", spec.write_bandwidth, bandwidth)?,
            latency,
            concurrency,
            queued_max: Some(queued),
        },
    })
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
