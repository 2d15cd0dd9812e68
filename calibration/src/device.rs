//! The device to be measured.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, bail};
use candle_core::{DType, Device};
use forerun_profiles::measured;

use crate::clock::{Clock, HAS_PROCESS_TIME};

/// What kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpu,
    Cuda,
    Metal,
}

/// A device, opened.
pub(crate) struct Target {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) clock: Clock,
    driver: Option<String>,
    pub(crate) memory_bytes: u64,
    threads: u32,
}

const BUILD: &str = "cargo build --release -p forerun-calibration --features";
const GIB: u64 = 1 << 30;

impl Target {
    /// Opens what `--device` names; a CPU computes with so many threads.
    ///
    /// # Errors
    /// When there is no such device, or this binary was built without it.
    pub(crate) fn open(name: &str, threads: u32) -> anyhow::Result<Self> {
        let (kind, index) = match name.split_once(':') {
            None if name == "cpu" => (Kind::Cpu, 0),
            None if name == "metal" => (Kind::Metal, 0),
            None if name == "cuda" => (Kind::Cuda, 0),
            Some(("cuda", index)) => {
                (Kind::Cuda, index.parse().with_context(|| format!("--device {name}: cuda:N, N a number"))?)
            }
            _ => bail!("--device {name}: it is `cpu`, `cuda:N` or `metal`"),
        };
        match kind {
            Kind::Cpu => Ok(Self {
                device: Device::Cpu,
                kind,
                name: cpu_name(),
                clock: if threads == 1 && HAS_PROCESS_TIME { Clock::Cpu } else { Clock::Wall },
                driver: None,
                memory_bytes: host_memory().unwrap_or(8 * GIB),
                threads,
            }),
            Kind::Cuda => cuda(index),
            Kind::Metal => {
                if !candle_core::utils::metal_is_available() {
                    bail!("this binary was built without metal: `{BUILD} metal`");
                }
                let device = Device::new_metal(0).map_err(first_line)?;
                let memory_bytes = host_memory().unwrap_or(8 * GIB);
                Ok(Self {
                    device,
                    kind,
                    name: "Apple GPU".into(),
                    clock: Clock::Wall,
                    driver: None,
                    memory_bytes,
                    threads: 0,
                })
            }
        }
    }

    /// Whether the device multiplies this type.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn check(&self, dtype: DType) -> anyhow::Result<()> {
        let product = || {
            let a = candle_core::Tensor::ones((2, 2), dtype, &self.device)?;
            a.matmul(&a)?.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()
        };
        let name = &self.name;
        product()
            .map_err(first_line)
            .with_context(|| format!("{name} does not multiply {}", dtype.as_str()))?;
        Ok(())
    }

    /// What the profile says of it.
    pub(crate) fn describe(&self) -> measured::Device {
        let kind = match self.kind {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cuda",
            Kind::Metal => "metal",
        };
        let versions = [("forerun", env!("CARGO_PKG_VERSION")), ("candle", CANDLE)];
        measured::Device {
            kind: kind.into(),
            name: self.name.clone(),
            driver: self.driver.clone(),
            memory_bytes: self.memory_bytes,
            clock: self.clock.name().into(),
            threads: self.threads,
            versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        }
    }
}

/// The version that the workspace pins.
pub(crate) const CANDLE: &str = "0.11.1";

/// candle's errors carry a trace; their first line says what happened.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
pub(crate) fn first_line(error: candle_core::Error) -> anyhow::Error {
    let text = error.to_string();
    anyhow::anyhow!("{}", text.lines().next().unwrap_or("candle failed").trim())
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> anyhow::Result<Target> {
    let device =
        Device::new_cuda(index).map_err(first_line).with_context(|| format!("--device cuda:{index}"))?;
    let Device::Cuda(cuda) = &device else { bail!("--device cuda:{index} is no CUDA device") };
    let stream = cuda.cuda_stream();
    let context = stream.context();
    let name = context.name().map_err(|e| anyhow::anyhow!("{e}"))?;
    let memory_bytes = context.total_mem().map_err(|e| anyhow::anyhow!("{e}"))? as u64;
    let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver = driver.and_then(|text| Some(text.lines().next()?.trim().to_owned()));
    Ok(Target { name, driver, memory_bytes, device, kind: Kind::Cuda, clock: Clock::Wall, threads: 0 })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> anyhow::Result<Target> {
    bail!("this binary was built without CUDA: `{BUILD} cuda`")
}

/// The CPU's name, as Linux tells it.
fn cpu_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    field(&text, "model name")
        .map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |name| format!("CPU {name}"))
}

/// The host's memory, as Linux tells it.
fn host_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = field(&text, "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// The value of `name: value`.
fn field(text: &str, name: &str) -> Option<String> {
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect();
    fields.get(name).map(|value| (*value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_none_is_refused_in_a_sentence() {
        for (name, why) in [("gpu", "`cpu`, `cuda:N` or `metal`"), ("cuda:x", "N a number")] {
            let said = format!("{:#}", Target::open(name, 1).err().unwrap());
            assert!(said.contains(why), "{said}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(Target::open("cuda:0", 1).err().unwrap().to_string().contains("--features cuda"));
    }

    #[test]
    fn a_cpu_with_one_thread_is_timed_by_its_own_time() {
        let one = Target::open("cpu", 1).unwrap();
        assert_eq!(one.clock, if cfg!(unix) { Clock::Cpu } else { Clock::Wall });
        assert_eq!(Target::open("cpu", 2).unwrap().clock, Clock::Wall);
        one.check(DType::BF16).unwrap();
    }
}
