//! The published figures.

use std::path::Path;

use serde::Deserialize;

use super::{POLICIES, STAGES};
use crate::error::InputError;
use crate::ladder::{Figures, checked, rows};

/// The columns that are compared.
#[derive(Deserialize)]
struct Row {
    qps: f64,
    policy: String,
    output_tok_s: f64,
    ttft_mean_s: f64,
}

/// Reads the figures, by policy in the order of [`POLICIES`], then by rate.
///
/// # Errors
/// When the file is not theirs, or a policy or a rate is missing.
pub(super) fn read(path: &Path) -> Result<Vec<Vec<Figures>>, InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
    let mut figures = vec![Vec::new(); POLICIES.len()];
    for Row { qps, policy, output_tok_s, ttft_mean_s } in rows(path)? {
        let name = policy.trim_end_matches("-scheduling");
        let place = POLICIES.iter().position(|policy| policy.name == name);
        let place = place.ok_or_else(|| wrong(format!("`{policy}` is no policy of the ladder")))?;
        figures[place].push(Figures { rate: qps, tokens_per_s: output_tok_s, ttft_mean_s });
    }
    let by_policy = POLICIES.iter().zip(figures);
    by_policy.map(|(policy, figures)| checked(figures, &STAGES[1..], policy.name).map_err(wrong)).collect()
}
