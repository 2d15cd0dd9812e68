//! The plan as files.

use std::path::{Path, PathBuf};

use super::answer::Plan;
use crate::emit::arguments::hazard;
use crate::emit::deployment::Deployment;
use crate::emit::verdict::Prediction;
use crate::emit::{self, Names};
use crate::error::{Error, InputError};
use crate::words::{number, percent};

impl Plan {
    /// Writes the files that deploy the fleet into `folder`, and returns their paths.
    ///
    /// # Errors
    /// When there is no fleet, files are not made for its kind, or one cannot be written.
    pub fn emit(&self, names: &Names, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let (Some(fleet), Some(chosen)) = (&self.fleet, &self.chosen) else {
            return Err(
                InputError::new("--emit: no fleet is shown to hold the SLO: nothing is written").into()
            );
        };
        let mut predicted = Vec::new();
        let mut predict =
            |name: &str, value: String| predicted.push(Prediction { name: name.to_owned(), value });
        let figures = &fleet.figures;
        if let Some(ms) = figures.ttft_p95_ms {
            predict("TTFT p95", format!("{} ms", number(ms)));
        }
        if let Some(ms) = figures.tpot_p95_ms {
            predict("TPOT p95", format!("{} ms", number(ms)));
        }
        if let Some(share) = figures.attainment {
            predict("SLO attainment", format!("{:.1} %", share * 100.0));
        }
        predict("price", format!("{} USD an hour", number(fleet.usd_per_hour)));
        if let Some(chance) = self.step_times.slo_holds {
            predict("P(SLO holds)", percent(chance));
        }
        if let Some(headroom) = self.headroom {
            predict("headroom", format!("{} x the traffic", number(headroom)));
        }
        let tiers = chosen.setting.tiers.as_ref().or(chosen.loaded.scenario.tiers.as_ref());
        let deployment = Deployment {
            loaded: &chosen.loaded,
            setting: &chosen.setting,
            replicas: &chosen.replicas,
            predicted,
            hazards: tiers.and_then(hazard).into_iter().collect(),
            autoscaling: None,
            today: None,
        };
        Ok(emit::write(&deployment.verdict(names)?, folder)?)
    }
}
