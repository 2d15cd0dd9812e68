//! The advice as files.

use std::path::{Path, PathBuf};

use super::advice::{Advice, Answer, Chosen, Signal};
use crate::emit::deployment::Deployment;
use crate::emit::verdict::{Autoscaling, Backend, Prediction};
use crate::emit::{self, Names};
use crate::error::{Error, InputError};
use crate::words::percent;

/// Share of the traffic that stays where it is at first, in percent.
const STAYS: u32 = 90;

/// Requests running on each replica at which one more is wanted: llm-d's guide to KEDA on the endpoint picker.
const RUNNING_PER_REPLICA: u32 = 16;

impl Advice {
    /// Writes the files that deploy the verdict into `folder`, and returns their paths.
    ///
    /// # Errors
    /// When the SLO is out of reach, or a file cannot be written.
    pub fn emit(&self, names: &Names, folder: &Path) -> Result<Vec<PathBuf>, Error> {
        let Some(Chosen { setting, replicas }) = &self.verdict.chosen else {
            return Err(InputError::new("--emit: no fleet holds the SLO: nothing is written").into());
        };
        let mut predicted =
            vec![Prediction { name: "verdict".to_owned(), value: self.verdict.headline.clone() }];
        if let Some(chance) = self.doubt.slo_holds {
            predicted.push(Prediction { name: "P(SLO holds)".to_owned(), value: percent(chance) });
        }
        let bursts = self.row(Signal::Bursts).is_some_and(|row| row.answer == Answer::Yes);
        let autoscaling = bursts.then(|| Autoscaling {
            min_replicas: 0,
            max_replicas: replicas.iter().copied().max().unwrap_or(1),
            cooldown_s: self.thresholds.cooldown_s as u32,
            cold_start_s: self.thresholds.cold_start_s,
            running_per_replica: RUNNING_PER_REPLICA,
        });
        let today = self.today.as_ref().map(|today| Backend {
            name: today.name.clone(),
            inference_pool: false,
            url: format!("http://{}.{}.svc.cluster.local/v1", today.name, names.namespace),
            weight: STAYS,
        });
        let deployment = Deployment {
            loaded: &self.loaded,
            setting,
            replicas,
            predicted,
            hazards: self.hazards.clone(),
            autoscaling,
            today,
        };
        Ok(emit::write(&deployment.verdict(names)?, folder)?)
    }
}
