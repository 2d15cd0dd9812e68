//! Azure's public LLM inference traces: CSV with `TIMESTAMP,ContextTokens,GeneratedTokens`.
//!
//! The times of 2023 have seven decimals and no zone; those of 2024 have a zone and any number of decimals.
//! Nothing is known about the prompts' text.

use std::path::Path;

use super::cell::Cell;
use super::clock::date;
use super::input::CsvRows;
use super::row::{Names, Row, Rows};
use crate::error::WorkloadError;
use crate::record::Start;

/// The columns of an Azure trace.
pub(super) const COLUMNS: [&str; 3] = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"];

pub(super) struct AzureRows {
    csv: CsvRows,
    columns: [usize; 3],
    number: u64,
    names: Names,
}

impl AzureRows {
    pub(super) fn open(path: &Path) -> Result<Self, WorkloadError> {
        let csv = CsvRows::open(path)?;
        let place = |name| csv.header().iter().position(|column| column == name);
        let [Some(time), Some(input), Some(output)] = COLUMNS.map(place) else {
            return Err(csv.error(format!(
                "an Azure trace has the columns {}; this header has {}; for other columns use `format: table`",
                COLUMNS.join(", "),
                csv.header().join(", ")
            )));
        };
        Ok(Self { csv, columns: [time, input, output], number: 0, names: Names::default() })
    }

    fn tokens(&self, column: usize) -> Result<u32, WorkloadError> {
        let cell = Cell::of_field(self.csv.field(self.columns[column])?);
        let tokens = cell.tokens().and_then(|tokens| {
            tokens.ok_or_else(|| "is empty; a whole number of tokens is needed".to_owned())
        });
        tokens.map_err(|what| self.csv.error(format!("`{}` {what}", COLUMNS[column])))
    }
}

impl Rows for AzureRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError> {
        if !self.csv.advance()? {
            return Ok(false);
        }
        let time = date(self.csv.field(self.columns[0])?)
            .map_err(|what| self.csv.error(format!("`{}` {what}", COLUMNS[0])))?;
        row.start = Start::At(time);
        row.input_tokens = self.tokens(1)?;
        row.output_tokens = self.tokens(2)?;
        row.line = self.csv.number();
        row.number = self.number;
        self.number += 1;
        Ok(true)
    }

    fn names(&self) -> &Names {
        &self.names
    }
}
