//! What `forerun calibrate run` measured of a device: every time, and what follows from them.
//!
//! ```text
//! samples -> [ceiling]: what the device reaches in products, memory, launches and copies
//!         -> [tables]: the timed kernels themselves as tables, and their errors at sizes held out
//! ```

mod ceiling;
mod tables;

use std::collections::BTreeMap;

pub(crate) use ceiling::at_16_bits;
use forerun_sim::catalog::Gemm;
use serde::{Deserialize, Serialize};
pub use tables::{curves, grids, residuals};

/// Attention of one prefill: at its tokens, and those computed before.
pub const PREFILL_ATTENTION: &str = "prefill attention";
/// Attention of decodes: at their number, and the context of each.
pub const DECODE_ATTENTION: &str = "decode attention";
/// A copy from one buffer of the device into another: at its bytes.
pub const COPY: &str = "copy";
/// A kernel that does next to nothing.
pub const LAUNCH: &str = "launch";
/// A copy from the host to the device: at its bytes.
pub const TO_DEVICE: &str = "to device";
/// A copy from the device to the host: at its bytes.
pub const TO_HOST: &str = "to host";
/// Reading a file that no cache holds: at its bytes.
pub const DISK: &str = "disk";

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Of what.
    pub device: Device,
    /// Bytes of a weight and of an activation.
    pub element_bytes: u32,
    /// The kernels of a step.
    pub ops: Vec<TimedOp>,
    /// Every time.
    pub samples: Vec<Sample>,
    /// What was not measured, and why.
    pub skipped: Vec<String>,
    /// What the device reaches.
    pub ceiling: Ceiling,
    /// Errors of the tables at sizes that they do not have.
    pub residuals: Vec<Residual>,
    /// Whole steps of a real transformer, measured and predicted.
    pub check: Option<Check>,
}

/// The device and the software on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// `cpu`, `cuda` or `metal`.
    pub kind: String,
    /// Its own name.
    pub name: String,
    /// Version of its driver, where it has one.
    pub driver: Option<String>,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// What was read: the wall clock, or the process's CPU time.
    pub clock: String,
    /// Threads that computed; 0 where the host's do not.
    pub threads: u32,
    /// Libraries by name, with their versions.
    pub versions: BTreeMap<String, String>,
}

/// Where an op runs in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In every layer, on all tokens.
    Layer,
    /// Once, on all tokens.
    Step,
    /// Once, for the sequences that sample.
    Sequence,
}

/// One kernel of a step: timed at numbers of tokens or sequences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimedOp {
    /// Its name.
    pub op: String,
    /// Where it runs.
    pub place: Place,
    /// How often there.
    pub times: f64,
    /// Columns and inner dimension of its weights, when it is a product.
    pub weights: Option<[u32; 2]>,
}

/// The times of one op at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// A [`TimedOp`]'s name, or one of this module's constants.
    pub op: String,
    /// The size, as the op's name says; what is not needed is 0.
    pub at: [u32; 2],
    /// Microseconds of one call, a figure for each round.
    pub us: Vec<f64>,
    /// Whether tables are judged by it before they include it.
    pub held_out: bool,
}

/// What a device reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ceiling {
    /// The most FLOP/s of any product.
    pub flops: f64,
    /// The most bytes/s of any copy or product.
    pub memory_bytes_per_s: f64,
    /// Constants of products over these two, and their mean absolute error.
    pub gemm: Gemm,
    /// See `gemm`.
    pub gemm_error: f64,
    /// Microseconds from one tiny kernel to the next.
    pub launch_us: Option<f64>,
    /// Bytes/s from the host, with pageable memory.
    pub to_device_bytes_per_s: Option<f64>,
    /// Bytes/s to the host, with pageable memory.
    pub to_host_bytes_per_s: Option<f64>,
    /// Bytes/s from disk.
    pub disk_bytes_per_s: Option<f64>,
}

/// Errors of one op's table at sizes that it does not have, relative to the measured times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// Which op.
    pub op: String,
    /// At how many sizes.
    pub sizes: u32,
    /// Median of the absolute errors.
    pub median: f64,
    /// The largest.
    pub largest: f64,
}

/// Whole steps of a real transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Layers of the transformer: the model's, or as many as fit.
    pub layers: u32,
    /// By what the tables' times were multiplied: found on the steps not held out.
    pub scale: f64,
    /// The steps.
    pub steps: Vec<Step>,
    /// A closed loop of requests, served and simulated.
    pub serving: Option<Serving>,
}

/// One step, measured and predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Tokens of each prefill, and those computed before.
    pub prefills: Vec<[u32; 2]>,
    /// Context of each decode, its own token included.
    pub decodes: Vec<u32>,
    /// Microseconds, a figure for each round.
    pub us: Vec<f64>,
    /// What the scaled tables say.
    pub predicted_us: f64,
    /// Whether the scale was found without it.
    pub held_out: bool,
}

/// Requests served by a real transformer, and the same simulated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    /// How many.
    pub requests: u32,
    /// Figures by name: measured, simulated; seconds.
    pub seconds: BTreeMap<String, [f64; 2]>,
}

impl Check {
    /// Absolute errors of the steps held out, ascending.
    #[must_use]
    pub fn errors(&self) -> Vec<f64> {
        let held_out = self.steps.iter().filter(|step| step.held_out);
        let error = |step: &Step| Some((step.predicted_us / typical(&step.us)? - 1.0).abs());
        let mut errors: Vec<f64> = held_out.filter_map(error).collect();
        errors.sort_by(f64::total_cmp);
        errors
    }
}

/// Times farther from the median than so many scaled median deviations are left out: for normal noise one in 370.
const OUTLIER: f64 = 3.0;
/// Median deviations of normal noise to its standard deviation.
const DEVIATION: f64 = 1.4826;

/// The median of times without the outliers among them; `None` without a finite time.
#[must_use]
pub fn typical(us: &[f64]) -> Option<f64> {
    let all = sorted(us.iter().copied().filter(|us| us.is_finite()));
    let middle = median(&all)?;
    let deviations = sorted(all.iter().map(|us| (us - middle).abs()));
    let bound = OUTLIER * DEVIATION * median(&deviations)?;
    median(&sorted(all.into_iter().filter(|us| (us - middle).abs() <= bound)))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle of ascending values.
#[must_use]
pub fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[sorted.len() / 2 - 1], upper) })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
