//! The profile of a live server: constants fitted to it, what it could not tell, and how far off the fit was.

use std::collections::BTreeMap;

use forerun_reports::summary::{Compared, Uncertainty};
use forerun_sim::catalog::{Gpu, Model};
use serde::{Deserialize, Serialize};

use super::constants::{Constant, Constants, Placed, gpu_with};

/// The version of the format.
pub(crate) const SCHEMA: &str = "forerun-served/1";

/// Constants of one server. A scenario names the file with `profile:`; they stand in for the catalog's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServedProfile {
    /// `forerun-served/1`.
    pub schema: String,
    /// How far to trust it: `measured here`.
    pub grade: String,
    /// What was measured, by which tool.
    pub source: String,
    /// The GPU, as the catalog calls it.
    pub gpu: String,
    /// The model.
    pub model: String,
    /// GPUs over which it was split.
    pub tensor_parallel: u32,
    /// Type of the weights.
    pub dtype: String,
    /// Constants that the measurements tell.
    pub constants: BTreeMap<Constant, FittedConstant>,
    /// Constants that they do not tell, and why: the catalog's hold.
    pub refused: BTreeMap<Constant, String>,
    /// Errors of figures by their keys in a summary, predicted over measured minus one: the least and the largest over
    /// loads that were not fitted to.
    pub errors: BTreeMap<String, [f64; 2]>,
    /// The loads that the errors are over.
    pub loads: u32,
}

/// A fitted constant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FittedConstant {
    /// The most probable value.
    pub value: f64,
    /// The 90 % interval.
    pub interval: [f64; 2],
    /// The value in use without the fit.
    pub before: f64,
}

impl ServedProfile {
    /// Checks that the constants are possible and of this replica.
    ///
    /// # Errors
    /// When the profile is of another version, GPU, model or split, or a value is impossible.
    pub(crate) fn check(
        &self,
        placed: &Placed<'_>,
        gpu: &Gpu,
        model: &Model,
        tensor_parallel: u32,
    ) -> Result<Constants, String> {
        if self.schema != SCHEMA {
            return Err(format!("has `schema` {:?}: this version reads {SCHEMA:?}", self.schema));
        }
        if self.gpu != gpu.name && !gpu.aliases.contains(&self.gpu) {
            return Err(format!("was measured on {}, not on {}", self.gpu, gpu.name));
        }
        if self.model != model.name && !model.aliases.contains(&self.model) {
            return Err(format!("was measured with {}, not with {}", self.model, model.name));
        }
        if self.tensor_parallel != tensor_parallel {
            let split = self.tensor_parallel;
            return Err(format!("was measured with tensor_parallel {split}, not {tensor_parallel}"));
        }
        if self.dtype != placed.weights.to_string() {
            return Err(format!("was measured with {} weights, not {}", self.dtype, placed.weights));
        }
        let constants: Constants =
            self.constants.iter().map(|(constant, fitted)| (*constant, fitted.value)).collect();
        for (constant, value) in &constants {
            // Far above any server, and far below what would leave simulated time.
            if !(*value > 0.0 && *value <= 1e7) {
                return Err(format!(
                    "`{}` is {value}: a number above 0, and of a server, is needed",
                    constant.key()
                ));
            }
        }
        gpu_with(&constants, placed)?;
        Ok(constants)
    }

    /// How far it was off on loads that it was not fitted to.
    pub(crate) fn uncertainty(&self) -> Uncertainty {
        let loads = self.loads;
        let noun = if loads == 1 { "load, half by half" } else { "loads, each by a fit to the others" };
        let basis = format!("the fit to this server, held out: {loads} {noun}");
        Uncertainty {
            basis,
            loads: u64::from(loads),
            errors: self.errors.clone(),
            compared: Compared::ThisServer,
        }
    }

    /// Its text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}
