//! Replays recordings of the llm-d router's own prefix indexes, saturation detectors, admitters and flow controller.
//! A recording is one JSON object: head fields, then `cases`.

mod approx;
mod flow;
mod precise;

use std::path::Path;

use serde_json::Value;

/// How many values of a recording were compared, or the first difference.
pub(crate) type Compared = Result<usize, String>;

/// The replay of the recording `folder/name`, where there is one.
pub(crate) fn replay_of(folder: &str, name: &str) -> Option<fn(&Value) -> Compared> {
    Some(match (folder, name) {
        ("approx_prefix", "sequences") => approx::sequences,
        ("approx_prefix", "estimate-tokens") => approx::estimate_tokens,
        ("precise_prefix", "index-sequences") => precise::sequences,
        ("flow", "utilization-detector-saturation") => flow::utilization_saturation,
        ("flow", "concurrency-detector-saturation") => flow::concurrency_saturation,
        ("flow", "pool-partition") => flow::pool_partition,
        ("flow", "probabilistic-admitter") => flow::probabilistic_admitter,
        ("flow", "latency-slo-admitter") => flow::latency_slo_admitter,
        ("flow", "usage-limit-policies") => flow::usage_limits,
        ("flow", "dispatch") => flow::dispatch,
        _ => return None,
    })
}

/// Replays the recording at `path`, a JSON file.
pub(crate) fn replay(path: &Path, replay: fn(&Value) -> Compared) -> Compared {
    let json = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    replay(&serde_json::from_str(&json).map_err(|e| e.to_string())?)
}

/// The elements of `value[key]`, none where that is absent.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The whole number `value[key]`, 0 where that is absent.
fn whole(value: &Value, key: &str) -> u32 {
    value[key].as_u64().unwrap_or(0) as u32
}

/// The number `value[key]`, `default` where that is absent.
fn number(value: &Value, key: &str, default: f64) -> f64 {
    value[key].as_f64().unwrap_or(default)
}

fn expect<T: PartialEq + std::fmt::Debug>(
    got: &T,
    recorded: &T,
    what: impl Fn() -> String,
) -> Result<(), String> {
    if got == recorded { Ok(()) } else { Err(format!("{}: got {got:?}, recorded {recorded:?}", what())) }
}
