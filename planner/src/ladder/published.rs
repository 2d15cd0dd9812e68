//! The published figures.

use std::path::Path;

use serde::Deserialize;

use super::traffic::STAGES;
use super::{Figures, POLICIES};
use crate::error::InputError;

/// The columns that are compared.
#[derive(Deserialize)]
struct Row {
    qps: f64,
    policy: String,
    output_tok_s: f64,
    ttft_mean_s: f64,
}

/// What was published.
pub(super) struct Published {
    /// By policy, in the order of [`POLICIES`], then by rate.
    pub(super) figures: Vec<Vec<Figures>>,
}

impl Published {
    /// Reads the figures.
    ///
    /// # Errors
    /// When the file is not theirs, or a policy or a rate is missing.
    pub(super) fn read(path: &Path) -> Result<Self, InputError> {
        let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
        let mut reader = csv::Reader::from_path(path).map_err(|e| wrong(e.to_string()))?;
        let mut figures = vec![Vec::new(); POLICIES.len()];
        for row in reader.deserialize::<Row>() {
            let row = row.map_err(|e| wrong(e.to_string()))?;
            let name = row.policy.trim_end_matches("-scheduling");
            let place = POLICIES.iter().position(|policy| policy.name == name);
            let place = place.ok_or_else(|| wrong(format!("`{}` is no policy of the ladder", row.policy)))?;
            let valid = [row.qps, row.output_tok_s, row.ttft_mean_s]
                .iter()
                .all(|value| value.is_finite() && *value > 0.0);
            if !valid {
                return Err(wrong(format!("a figure of {name} at {} requests/s is not positive", row.qps)));
            }
            figures[place].push(Figures {
                rate: row.qps,
                tokens_per_s: row.output_tok_s,
                ttft_mean_s: row.ttft_mean_s,
            });
        }
        let rates = STAGES.iter().skip(1).map(|stage| f64::from(stage.rate));
        for (policy, figures) in POLICIES.iter().zip(&mut figures) {
            figures.sort_by(|one, other| one.rate.total_cmp(&other.rate));
            if !figures.iter().map(|figures| figures.rate).eq(rates.clone()) {
                return Err(wrong(format!(
                    "the rates of {} are not those of the ladder's stages",
                    policy.name
                )));
            }
        }
        Ok(Self { figures })
    }
}
