//! JSON results as a whole: what a file is, and its values with errors that name file and line.

use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::super::input::{no_rows, open_text};
use super::super::mooncake::json_error;
use crate::error::WorkloadError;

/// Bytes that a result may have, uncompressed.
const BYTES_MAX: u64 = 256 << 20;

/// What a file shows itself to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A table: CSV, or an object for each request.
    Csv,
    Rows,
    /// Results of tools.
    VllmBench,
    Guidellm,
    InferencePerf,
    Stage,
}

/// The keys by which results are told apart.
#[derive(Deserialize)]
struct Keys {
    ttfts: Option<IgnoredAny>,
    mean_ttft_ms: Option<IgnoredAny>,
    benchmarks: Option<IgnoredAny>,
    load_summary: Option<IgnoredAny>,
    successes: Option<IgnoredAny>,
}

/// What the file at `path` is, by its content.
pub(super) fn kind(path: &Path) -> Result<Kind, WorkloadError> {
    let mut head = [0; 4096];
    let mut text = open_text(path)?;
    let mut length = 0;
    while length < head.len() {
        match text.read(&mut head[length..]).map_err(|e| WorkloadError::io(path, e.to_string()))? {
            0 => break,
            read => length += read,
        }
    }
    match head[..length].trim_ascii_start().first() {
        None => Err(no_rows(path)),
        Some(b'[') => Ok(Kind::InferencePerf),
        Some(b'{') => object(path),
        Some(_) => Ok(Kind::Csv),
    }
}

/// What a file is that begins with an object: one of a tool's, or rows of our own.
fn object(path: &Path) -> Result<Kind, WorkloadError> {
    let text = text(path)?;
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Keys>();
    let first = values.next().transpose().map_err(|e| wrong(path, &e))?;
    let Some(keys) = first else { return Err(no_rows(path)) };
    Ok(if keys.ttfts.is_some() || keys.mean_ttft_ms.is_some() {
        Kind::VllmBench
    } else if keys.benchmarks.is_some() {
        Kind::Guidellm
    } else if keys.load_summary.is_some() && keys.successes.is_some() {
        Kind::Stage
    } else {
        Kind::Rows
    })
}

/// The whole text of a file.
fn text(path: &Path) -> Result<String, WorkloadError> {
    let mut bytes = Vec::new();
    let said = |e: std::io::Error| WorkloadError::io(path, e.to_string());
    open_text(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > BYTES_MAX {
        let what = format!("has more than {} MiB: a measured run has at most so many", BYTES_MAX >> 20);
        return Err(WorkloadError::io(path, what));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64;
        WorkloadError::row(path, line, "is not UTF-8 text; convert the file to UTF-8")
    })
}

/// All values of a file that has them one after another, at least one.
pub(super) fn values<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, WorkloadError> {
    let text = text(path)?;
    let values = serde_json::Deserializer::from_str(&text).into_iter::<T>();
    let values: Vec<T> = values.collect::<Result<_, _>>().map_err(|e| wrong(path, &e))?;
    if values.is_empty() { Err(no_rows(path)) } else { Ok(values) }
}

/// The only value of a file.
pub(super) fn value<T: DeserializeOwned>(path: &Path) -> Result<T, WorkloadError> {
    serde_json::from_str(&text(path)?).map_err(|e| wrong(path, &e))
}

fn wrong(path: &Path, error: &serde_json::Error) -> WorkloadError {
    let what = format!("is no result that can be read: {}", json_error(error));
    WorkloadError::row(path, error.line() as u64, what)
}
