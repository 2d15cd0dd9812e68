//! Pickers: which of the scored candidates get the request.

mod max_score;
mod random;

pub use max_score::TieRule;

use forerun_sim::rng::Stream;
use serde::Deserialize;
use serde_json::Value;

use super::plugin::{Picker, parameters};

/// Parameters of every picker.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// How many endpoints are picked; what is not positive stands for 1.
    max_num_of_endpoints: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { max_num_of_endpoints: 1 }
    }
}

/// The picker of type `kind` with these parameters; `None` when there is none of that type. What it draws comes from
/// a stream of run `seed`.
///
/// # Errors
/// When the parameters are not valid.
pub fn make(
    kind: &str,
    value: &Value,
    tie_rule: TieRule,
    seed: u64,
) -> Result<Option<Box<dyn Picker>>, String> {
    if !KINDS.contains(&kind) {
        return Ok(None);
    }
    let picks_max = parameters::<Parameters>(value)?.max_num_of_endpoints;
    let picks_max = usize::try_from(picks_max).map_or(1, |picks| picks.max(1));
    let stream = Stream::new(seed, kind);
    let uniform = |stream| random::Random { picks_max, stream, rest: Vec::new() };
    Ok(Some(match kind {
        "max-score-picker" => {
            Box::new(max_score::MaxScore { picks_max, tie_rule, stream, turn: 0, order: Vec::new() })
        }
        "random-picker" => Box::new(uniform(stream)),
        _ => Box::new(random::WeightedRandom { uniform: uniform(stream), keys: Vec::new() }),
    }))
}

const KINDS: [&str; 3] = ["max-score-picker", "random-picker", "weighted-random-picker"];
