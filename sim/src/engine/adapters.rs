//! Where LoRA adapters are: on the GPU, in host memory, or on disk, and what it costs to bring one.
//!
//! vLLM's `LRUCacheWorkerLoRAManager` (vllm/lora/worker_manager.py, 0.32): `max_loras` slots on the GPU and
//! `max_cpu_loras` places in host memory, both least recently used. An adapter that a batch needs is brought inside the
//! step, and the whole batch waits for it. Within a batch vLLM takes them in the order of a Python set; here they are
//! taken in order of their numbers. Not checked against recordings; how long a load takes is an assumption made of bytes
//! and links, since no published figure was found.

use crate::time::{SPAN_MAX, Span};

/// How a server keeps its adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Adapters on the GPU at once: vLLM's `max_loras`.
    pub gpu_slots: u32,
    /// Adapters in host memory: vLLM's `max_cpu_loras`, at least `gpu_slots`.
    pub host_places: u32,
    /// What a load costs.
    pub cost: AdapterCost,
}

/// What a load costs. The defaults of a scenario state their assumptions there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterCost {
    /// Bytes of one adapter.
    pub bytes: u64,
    /// Host memory to GPU, bytes per second.
    pub host_bandwidth: f64,
    /// Disk to host memory, bytes per second.
    pub disk_bandwidth: f64,
    /// Of every load to the GPU, besides its bytes.
    pub activation: Span,
    /// Of every load from disk, besides its bytes: opening and parsing.
    pub parse: Span,
}

impl AdapterCost {
    /// How long a batch waits for so many adapters.
    #[must_use]
    pub fn wait(&self, loads: AdapterLoads) -> Span {
        let copy = |bandwidth: f64| Span::from_secs_f64(self.bytes as f64 / bandwidth).unwrap_or(SPAN_MAX);
        (self.activation + copy(self.host_bandwidth)).times(loads.to_gpu.into())
            + (self.parse + copy(self.disk_bandwidth)).times(loads.from_disk.into())
    }
}

/// Adapters that a batch had to bring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterLoads {
    /// To the GPU.
    pub to_gpu: u32,
    /// Of those, from disk.
    pub from_disk: u32,
}

/// Which adapters of one replica are where. Most recently used last.
#[derive(Clone, Debug)]
pub struct Adapters {
    config: AdapterConfig,
    gpu: Vec<u32>,
    host: Vec<u32>,
}

impl Adapters {
    /// A replica that has loaded none.
    #[must_use]
    pub fn new(config: AdapterConfig) -> Self {
        debug_assert!(
            config.gpu_slots > 0 && config.host_places >= config.gpu_slots,
            "max_cpu_loras is at least max_loras"
        );
        Self { config, gpu: Vec::new(), host: Vec::new() }
    }

    /// Brings all adapters of a batch, at most `max_loras` distinct ones, to the GPU.
    pub fn bring(&mut self, batch: &[u32]) -> AdapterLoads {
        let AdapterConfig { gpu_slots, host_places, .. } = self.config;
        let mut loads = AdapterLoads::default();
        for &adapter in batch {
            if !use_one(&mut self.host, host_places, adapter) {
                loads.from_disk += 1;
            }
            // What leaves host memory leaves the GPU.
            let host = &self.host;
            self.gpu.retain(|other| host.contains(other));
            if !use_one(&mut self.gpu, gpu_slots, adapter) {
                loads.to_gpu += 1;
            }
        }
        loads
    }

    /// The server starts anew, with none loaded.
    pub fn forget(&mut self) {
        self.gpu.clear();
        self.host.clear();
    }

    /// How long a batch waits for its loads.
    #[must_use]
    pub fn wait(&self, loads: AdapterLoads) -> Span {
        self.config.cost.wait(loads)
    }
}

/// Makes `adapter` the most recently used of `places`; whether it was there.
fn use_one(places: &mut Vec<u32>, capacity: u32, adapter: u32) -> bool {
    let at = places.iter().position(|&other| other == adapter);
    match at {
        Some(at) => {
            places.remove(at);
        }
        None if places.len() == capacity as usize => {
            places.remove(0);
        }
        None => {}
    }
    places.push(adapter);
    at.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: AdapterCost = AdapterCost {
        bytes: 83_886_080,
        host_bandwidth: 25e9,
        disk_bandwidth: 2e9,
        activation: Span::from_millis(1),
        parse: Span::from_millis(20),
    };

    fn adapters(gpu_slots: u32, host_places: u32) -> Adapters {
        Adapters::new(AdapterConfig { gpu_slots, host_places, cost: COST })
    }

    fn loads(adapters: &mut Adapters, batch: &[u32]) -> (u32, u32) {
        let loads = adapters.bring(batch);
        (loads.to_gpu, loads.from_disk)
    }

    #[test]
    fn an_adapter_is_loaded_once_as_long_as_it_has_its_slot() {
        let mut adapters = adapters(2, 3);
        assert_eq!(loads(&mut adapters, &[1, 2]), (2, 2));
        assert_eq!(loads(&mut adapters, &[2, 1]), (0, 0));
    }

    #[test]
    fn host_memory_saves_the_disk_and_the_least_recently_used_goes_first() {
        let mut adapters = adapters(1, 2);
        assert_eq!(loads(&mut adapters, &[1]), (1, 1));
        assert_eq!(loads(&mut adapters, &[2]), (1, 1));
        assert_eq!(loads(&mut adapters, &[1]), (1, 0), "1 is still in host memory");
        assert_eq!(loads(&mut adapters, &[3]), (1, 1), "2 was used longest ago");
        assert_eq!(loads(&mut adapters, &[1]), (1, 0));
        assert_eq!(loads(&mut adapters, &[2]), (1, 1));
    }

    #[test]
    fn more_adapters_than_slots_in_turn_are_loaded_every_time() {
        let mut adapters = adapters(2, 8);
        let turns =
            |adapters: &mut Adapters| (0..3).map(|adapter| loads(adapters, &[adapter]).0).sum::<u32>();
        turns(&mut adapters);
        assert_eq!(turns(&mut adapters), 3);
    }

    #[test]
    fn a_load_waits_for_its_bytes_and_a_fixed_time_on_each_way() {
        let millis = |to_gpu, from_disk| COST.wait(AdapterLoads { to_gpu, from_disk }).as_millis_f64();
        assert!((millis(1, 0) - 4.36).abs() < 0.01, "{} ms from host memory", millis(1, 0));
        assert!((millis(1, 1) - 66.3).abs() < 0.1, "{} ms from disk", millis(1, 1));
        assert_eq!(COST.wait(AdapterLoads::default()), Span::ZERO);
    }
}
