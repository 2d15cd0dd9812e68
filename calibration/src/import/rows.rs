//! Rows of a table: CSV by column names, compressed or not, with bounds on what is read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;

use super::ImportError;

/// Bytes that a table may have, uncompressed.
const BYTES_MAX: u64 = 256 << 20;

/// The file of a table: `name`.csv or `name`.csv.gz.
pub(super) fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    ["csv", "csv.gz"]
        .map(|extension| folder.join(format!("{name}.{extension}")))
        .into_iter()
        .find(|p| p.is_file())
}

/// A table in memory.
pub(super) struct Table {
    path: PathBuf,
    header: csv::StringRecord,
    records: Vec<csv::StringRecord>,
}

/// One row, by column index.
pub(super) struct Row<'t> {
    table: &'t Table,
    number: usize,
}

impl Table {
    /// Reads `name`.csv or `name`.csv.gz of `folder`.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Self, ImportError> {
        let missing = || ImportError::new(folder, format!("has no {name}.csv"));
        let path = find(folder, name).ok_or_else(missing)?;
        let wrong = |why: String| ImportError::new(&path, why);
        let file = File::open(&path).map_err(|e| wrong(e.to_string()))?;
        let zipped = path.extension().is_some_and(|extension| extension == "gz");
        let input: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut text = Vec::new();
        input.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| wrong(e.to_string()))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(wrong(format!("has more than {} MiB", BYTES_MAX >> 20)));
        }
        let mut reader = csv::Reader::from_reader(text.as_slice());
        let header = reader.headers().map_err(|e| wrong(e.to_string()))?.clone();
        let records = reader.records().collect::<Result<_, _>>().map_err(|e| wrong(e.to_string()))?;
        Ok(Self { path, header, records })
    }

    /// The index of a column.
    pub(super) fn column(&self, name: &str) -> Result<usize, ImportError> {
        let found = self.header.iter().position(|own| own.trim() == name);
        found.ok_or_else(|| {
            let columns = self.header.iter().collect::<Vec<_>>().join(", ");
            ImportError::new(&self.path, format!("has no column `{name}` (columns: {columns})"))
        })
    }

    /// The indices of several columns.
    pub(super) fn columns<const N: usize>(&self, names: [&str; N]) -> Result<[usize; N], ImportError> {
        let mut indices = [0; N];
        for (index, name) in indices.iter_mut().zip(names) {
            *index = self.column(name)?;
        }
        Ok(indices)
    }

    /// All rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.records.len()).map(|number| Row { table: self, number })
    }

    /// A finding about the whole table.
    pub(super) fn error(&self, why: impl Into<String>) -> ImportError {
        ImportError::new(&self.path, why)
    }
}

impl Row<'_> {
    /// The text of a cell.
    pub(super) fn text(&self, column: usize) -> &str {
        self.table.records[self.number].get(column).unwrap_or("").trim()
    }

    /// The number in a cell.
    pub(super) fn number<T: FromStr>(&self, column: usize) -> Result<T, ImportError> {
        self.text(column).parse().map_err(|_| {
            let name = self.table.header.get(column).unwrap_or("");
            let why = format!(
                "line {}: `{name}` is {:?}, which is not a number",
                self.number + 2,
                self.text(column)
            );
            ImportError::new(&self.table.path, why)
        })
    }

    /// The time in a cell, finite and positive.
    pub(super) fn time(&self, column: usize) -> Result<f64, ImportError> {
        let time: f64 = self.number(column)?;
        if time.is_finite() && time > 0.0 {
            return Ok(time);
        }
        let why = format!("line {}: {time} is not a time", self.number + 2);
        Err(ImportError::new(&self.table.path, why))
    }
}
