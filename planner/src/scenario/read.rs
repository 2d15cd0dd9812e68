//! From a file's bytes, or nothing, and overrides to a scenario, with errors that name file, line and column.

use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_saphyr::Error as YamlError;

use super::Scenario;
use super::overrides::Override;
use crate::error::{InputError, hint};

/// The scenario that runs when none is given.
pub const BUILT_IN: &str = include_str!("../../scenarios/built-in.yaml");

/// A scenario file larger than this is a mistake.
const BYTES_MAX: u64 = 4 << 20;

/// Keys of the published format that this version does not model, and what they would do.
const NOT_MODELLED: [(&str, &str); 12] = [
    ("tiers", "KV tiers below the GPU"),
    ("fabric", "KV transfer between replicas"),
    ("split", "traffic splitting"),
    ("faults", "faults"),
    ("autoscaling", "autoscaling"),
    ("lora", "LoRA loading cost; `engine.max_loras` limits the adapters of a batch"),
    ("cache", "a warm start"),
    ("kv_cache_dtype", "a KV cache of another type than the weights"),
    ("epp", "llm-d's EndpointPickerConfig; use `router: {preset: round-robin | random | least-requests}`"),
    ("speculative", "speculative decoding"),
    ("replications", "replications of one scenario; run it with several seeds"),
    ("vllm", "other vLLM versions than 0.32"),
];

/// A scenario and the folder that its relative paths start from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The scenario.
    pub scenario: Scenario,
    /// Folder of the file, or the current one.
    pub base: PathBuf,
    /// The file's name, or `built-in scenario`.
    pub name: String,
}

/// Where a scenario comes from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A file.
    File(&'a Path),
    /// The built-in scenario.
    BuiltIn,
    /// Defaults only: flags say what is meant.
    CommandLine,
}

/// Reads the scenario of `origin`, and sets what `overrides` say.
///
/// # Errors
/// When the file cannot be read, is not the YAML of a scenario, or an override does not fit.
pub fn read(origin: Origin<'_>, overrides: &[Override]) -> Result<Loaded, InputError> {
    let (text, name, base) = match origin {
        Origin::BuiltIn => (BUILT_IN.to_owned(), "built-in scenario".to_owned(), Path::new("")),
        Origin::CommandLine => ("{}".to_owned(), "command line".to_owned(), Path::new("")),
        Origin::File(path) => {
            (read_file(path)?, path.display().to_string(), path.parent().unwrap_or(Path::new("")))
        }
    };
    let scenario = parse(&text, overrides).map_err(|error| error.at(&name))?;
    Ok(Loaded { scenario, base: base.to_owned(), name })
}

fn read_file(path: &Path) -> Result<String, InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if metadata.is_dir() {
        return Err(wrong("is a folder: name a scenario file".into()));
    }
    if metadata.len() > BYTES_MAX {
        return Err(wrong(format!("has {} bytes: a scenario has at most {BYTES_MAX}", metadata.len())));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        wrong(format!("line {line} is not UTF-8 text"))
    })
}

/// A scenario from its text.
///
/// # Errors
/// When the text is not the YAML of a scenario, or an override does not fit.
pub fn parse(text: &str, overrides: &[Override]) -> Result<Scenario, InputError> {
    if text.trim().is_empty() {
        return Err(InputError::new(
            "is empty: a scenario names at least a workload; `forerun simulate` without a file runs the built-in one",
        ));
    }
    let scenario: Scenario = serde_saphyr::from_str(text).map_err(|e| yaml_error(&e))?;
    if overrides.is_empty() {
        return Ok(scenario);
    }
    let mut value = serde_json::to_value(&scenario).map_err(|e| InputError::new(e.to_string()))?;
    for change in overrides {
        change.apply(&mut value)?;
        // Each override is checked on its own, so that the message names it.
        serde_json::from_value::<Scenario>(prune(value.clone())).map_err(|e| json_error(&e, change))?;
    }
    serde_json::from_value(prune(value)).map_err(|e| InputError::new(e.to_string()))
}

/// Removes nulls: `--set slo=` takes a section away.
fn prune(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, prune(v))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(prune).collect()),
        other => other,
    }
}

fn yaml_error(error: &YamlError) -> InputError {
    let error = error.without_snippet();
    let place = error.location().map_or_else(String::new, |at| format!("{}:{}: ", at.line(), at.column()));
    let what = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        other => {
            // The library appends its own "at line .., column .."; the place in front says it better.
            let text = other.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            text.trim_start_matches("error: ").to_owned()
        }
    };
    InputError::new(format!("{place}{what}"))
}

fn unknown_key(key: &str, expected: &[&str]) -> String {
    if let Some((_, what)) = NOT_MODELLED.iter().find(|(name, _)| *name == key) {
        return format!("`{key}` is not modelled by this version ({what}): remove it");
    }
    let known = expected.join(", ");
    format!("unknown key `{key}`{}; known here: {known}", hint(key, expected.iter().copied()))
}

fn json_error(error: &serde_json::Error, change: &Override) -> InputError {
    InputError::new(format!("--set {}: {error}", change.text()))
}
