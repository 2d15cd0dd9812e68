//! Measured runs of a live server against the simulator: sent again with the same arrivals and lengths, held against
//! what was measured, and used to fit what no kernel table says.
//!
//! ```text
//! file of a load generator -> MeasuredRun (workloads) -> the scenario with its requests as workload   [replay]
//!    -> predicted and measured, figure by figure                                                       [check]
//!    -> means over groups of requests [groups] -> constants that they tell [solve], [fit] -> a profile [profile]
//! ```

mod check;
pub(crate) mod constants;
mod fit;
mod groups;
mod linear;
pub(crate) mod profile;
pub(crate) mod replay;
mod show;
mod solve;
#[cfg(test)]
mod tests;
pub mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;

use forerun_workloads::trace::measured::{self, MeasuredRun};

use crate::error::InputError;

pub use check::{Checked, CheckedRun, check};
pub use constants::Constant;
pub(crate) use constants::{Constants, Placed, engine_with, gpu_with, overhead_with};
pub use fit::{RunErrors, ServedFit, fit};
pub use profile::{FittedConstant, ServedProfile};

/// Files with measured runs.
#[derive(Clone, Debug, Default)]
pub struct MeasuredFiles {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// For tables: the file's name for each of our columns, where it differs.
    pub columns: BTreeMap<String, String>,
}

impl MeasuredFiles {
    /// All runs of all files.
    ///
    /// # Errors
    /// When one cannot be read, or is wrong.
    pub fn read(&self) -> Result<Vec<MeasuredRun>, InputError> {
        let mut runs = Vec::new();
        for path in &self.paths {
            runs.extend(measured::open(path, &self.columns)?);
        }
        match runs.is_empty() {
            true => Err(InputError::new("no measured run is given: name at least one file")),
            false => Ok(runs),
        }
    }
}
