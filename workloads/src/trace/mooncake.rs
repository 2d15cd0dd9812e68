//! Mooncake's JSON lines: `{"timestamp": ms, "input_length", "output_length", "hash_ids": [..]}`.
//!
//! Each hash id names a block of 512 tokens together with everything before it. The block size is not in
//! the file. The last block is partial.

use std::path::Path;

use forerun_sim::time::Time;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::clock::{Unit, duration};
use super::input::Lines;
use super::row::{Names, Prefix, Row, Rows};
use crate::error::WorkloadError;
use crate::record::{Start, TOKENS_MAX};

/// The block size of the published Mooncake traces.
pub(super) const BLOCK_TOKENS: u32 = 512;

const BAILIAN: &str = "`chat_id` marks a Qwen-Bailian trace, whose timestamps are seconds; read it with \
    `format: table`, `columns: {arrival_s: timestamp, input_tokens: input_length, \
    output_tokens: output_length, block_hashes: hash_ids}` and `block_tokens: 16`";

#[derive(Deserialize)]
struct Line {
    timestamp: serde_json::Number,
    input_length: u64,
    output_length: u64,
    hash_ids: Option<Vec<u64>>,
    chat_id: Option<IgnoredAny>,
}

pub(super) struct MooncakeRows {
    lines: Lines,
    block_tokens: u32,
    number: u64,
    names: Names,
}

impl MooncakeRows {
    pub(super) fn open(path: &Path, block_tokens: u32) -> Result<Self, WorkloadError> {
        Ok(Self { lines: Lines::open(path)?, block_tokens, number: 0, names: Names::default() })
    }

    fn fill(&self, line: Line, row: &mut Row) -> Result<(), String> {
        if line.chat_id.is_some() {
            return Err(BAILIAN.to_owned());
        }
        let since = duration(&line.timestamp.to_string(), Unit::MILLIS)
            .map_err(|what| format!("`timestamp` {what}"))?;
        row.start = Start::At(Time::ZERO + since);
        row.input_tokens = tokens("input_length", line.input_length)?;
        row.output_tokens = tokens("output_length", line.output_length)?;
        row.prefix = Prefix::Unknown;
        row.hashes.clear();
        if let Some(hashes) = line.hash_ids {
            let expected = row.input_tokens.div_ceil(self.block_tokens);
            if hashes.len() != expected as usize {
                return Err(self.wrong_count(row.input_tokens, expected, hashes.len()));
            }
            row.prefix = Prefix::Blocks { tokens: self.block_tokens };
            row.hashes = hashes;
        }
        Ok(())
    }

    fn wrong_count(&self, input: u32, expected: u32, found: usize) -> String {
        let block = self.block_tokens;
        format!(
            "{input} input tokens are {expected} blocks of {block}, but `hash_ids` has {found}; \
             if the trace's blocks have another size, give it as `block_tokens`"
        )
    }
}

fn tokens(name: &str, count: u64) -> Result<u32, String> {
    let tokens = u32::try_from(count).ok();
    tokens
        .filter(|&tokens| tokens <= TOKENS_MAX)
        .ok_or_else(|| format!("`{name}` is {count}; at most {TOKENS_MAX} tokens are possible"))
}

/// What `serde_json` says, without its line number, which counts from the start of the row.
pub(super) fn json_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(what) => format!("{what} (column {})", error.column()),
        None => message,
    }
}

impl Rows for MooncakeRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError> {
        if !self.lines.advance()? {
            return Ok(false);
        }
        let line: Line = serde_json::from_slice(self.lines.line()).map_err(|error| {
            self.lines.error(format!(
                "not a Mooncake row (timestamp, input_length, output_length, hash_ids): {}",
                json_error(&error)
            ))
        })?;
        self.fill(line, row).map_err(|what| self.lines.error(what))?;
        row.line = self.lines.number();
        row.number = self.number;
        self.number += 1;
        Ok(true)
    }

    fn names(&self) -> &Names {
        &self.names
    }
}
