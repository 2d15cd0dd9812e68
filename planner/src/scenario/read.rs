//! From a file's bytes, or nothing, and overrides to a scenario, with errors that name file, line and column.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Scenario;
use super::overrides::Override;
use super::wording::{json_error, yaml_error};
use crate::error::InputError;

/// The scenario that runs when none is given.
pub const BUILT_IN: &str = include_str!("../../scenarios/built-in.yaml");

/// A file larger than this is a mistake.
const BYTES_MAX: u64 = 4 << 20;

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
            (read_text(path, "scenario")?, path.display().to_string(), path.parent().unwrap_or(Path::new("")))
        }
    };
    let scenario = parse(&text, overrides).map_err(|error| error.at(&name))?;
    Ok(Loaded { scenario, base: base.to_owned(), name })
}

/// The text of a file that is `what`: of bounded size, and UTF-8.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    if metadata.is_dir() {
        return Err(wrong(format!("is a folder: name a {what} file")));
    }
    // What is not a regular file may be endless.
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| wrong(e.to_string()))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(wrong(format!("has more than {BYTES_MAX} bytes: a {what} has at most so many")));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
        wrong(format!("line {line} is not UTF-8 text; save the file as UTF-8"))
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
    let scenario: Scenario = serde_saphyr::from_str(text).map_err(|e| yaml_error(&e, text))?;
    if overrides.is_empty() {
        return Ok(scenario);
    }
    let mut value = serde_json::to_value(&scenario).map_err(|e| InputError::new(e.to_string()))?;
    for change in overrides {
        change.apply(&mut value)?;
        // Each override is checked on its own, so that the message names it.
        serde_json::from_value::<Scenario>(prune(value.clone()))
            .map_err(|e| json_error(&e).at(&format!("--set {}", change.text())))?;
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
