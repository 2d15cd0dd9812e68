//! Telling formats apart by their first line.

use std::path::Path;

use serde_json::{Map, Value};

use super::input::{Lines, no_rows};
use super::mooncake::json_error;
use super::{TraceFormat, TraceOptions, azure};
use crate::error::WorkloadError;

/// What a file looks like.
pub(super) struct Detected {
    pub(super) format: TraceFormat,
    /// JSON lines; CSV otherwise.
    pub(super) json: bool,
}

/// The format of `path`: the one asked for, or the one that its first line shows.
pub(super) fn detect(path: &Path, options: &TraceOptions) -> Result<Detected, WorkloadError> {
    let mut lines = Lines::open(path)?;
    if !lines.advance()? {
        return Err(no_rows(path));
    }
    let Ok(line) = std::str::from_utf8(lines.line()) else {
        return Err(lines.error("not UTF-8 text: a trace is CSV or JSON lines, plain, .gz or .zst"));
    };
    if line.contains('\0') {
        return Err(lines.error("a NUL byte: not text; a trace is CSV or JSON lines, plain, .gz or .zst"));
    }
    if line.starts_with('[') {
        return Err(lines.error("a JSON array; write one object per line, as `jq -c '.[]'` does"));
    }
    let json = line.starts_with('{');
    let format = match options.format {
        Some(format) => format,
        None if !options.columns.is_empty() => TraceFormat::Table,
        None if json => {
            let first: Map<String, Value> = serde_json::from_str(line)
                .map_err(|error| lines.error(format!("not a JSON object: {}", json_error(&error))))?;
            let mooncake = ["timestamp", "input_length", "output_length"];
            if mooncake.iter().all(|key| first.contains_key(*key)) {
                TraceFormat::Mooncake
            } else {
                TraceFormat::Table
            }
        }
        None => {
            let header: Vec<&str> = line.split(',').map(|name| name.trim_matches([' ', '"'])).collect();
            if azure::COLUMNS.iter().all(|name| header.contains(name)) {
                TraceFormat::Azure
            } else {
                TraceFormat::Table
            }
        }
    };
    match (format, json) {
        (TraceFormat::Mooncake, false) => {
            Err(lines.error("`format: mooncake` reads JSON lines, but this is CSV"))
        }
        (TraceFormat::Azure, true) => Err(lines.error("`format: azure` reads CSV, but this is JSON")),
        _ => Ok(Detected { format, json }),
    }
}
