//! Rows of a table: CSV by column names, compressed or not, with bounds on what is read.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;

use crate::import::ImportError;

/// Bytes that a table may have, uncompressed.
const BYTES_MAX: u64 = 256 << 20;

/// The file of a table: `name`.csv or `name`.csv.gz.
#[must_use]
pub fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    ["csv", "csv.gz"]
        .map(|extension| folder.join(format!("{name}.{extension}")))
        .into_iter()
        .find(|p| p.is_file())
}

/// The names of all tables of a folder, in order.
///
/// # Errors
/// When the folder cannot be read.
pub fn names(folder: &Path) -> Result<Vec<String>, ImportError> {
    let entries = fs::read_dir(folder).map_err(|e| ImportError::new(folder, e.to_string()))?;
    let files = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let stem = |file: String| {
        let stem = file.strip_suffix(".csv").or_else(|| file.strip_suffix(".csv.gz"));
        stem.map(str::to_owned)
    };
    let mut names: Vec<String> = files.filter_map(stem).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The columns of a table.
///
/// # Errors
/// As [`Table::read`].
pub fn columns(folder: &Path, name: &str) -> Result<Vec<String>, ImportError> {
    let (path, input) = open(folder, name)?;
    let mut reader = csv::Reader::from_reader(input.take(BYTES_MAX));
    let header = reader.headers().map_err(|e| ImportError::new(&path, e.to_string()))?;
    Ok(header.iter().map(|name| name.trim().to_owned()).collect())
}

/// The uncompressed bytes of a table, and where it lies.
fn open(folder: &Path, name: &str) -> Result<(PathBuf, Box<dyn Read>), ImportError> {
    let missing = || ImportError::new(folder, format!("has no {name}.csv"));
    let path = find(folder, name).ok_or_else(missing)?;
    let file = File::open(&path).map_err(|e| ImportError::new(&path, e.to_string()))?;
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let input: Box<dyn Read> = if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok((path, input))
}

/// A table in memory.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    header: csv::StringRecord,
    records: Vec<csv::StringRecord>,
}

/// One row, by column index.
#[derive(Debug)]
pub struct Row<'t> {
    table: &'t Table,
    number: usize,
}

impl Table {
    /// Reads `name`.csv or `name`.csv.gz of `folder`.
    ///
    /// # Errors
    /// When neither is there, or it is too large or malformed.
    pub fn read(folder: &Path, name: &str) -> Result<Self, ImportError> {
        let (path, input) = open(folder, name)?;
        let wrong = |why: String| ImportError::new(&path, why);
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
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn column(&self, name: &str) -> Result<usize, ImportError> {
        let found = self.header.iter().position(|own| own.trim() == name);
        found.ok_or_else(|| {
            let columns = self.header.iter().collect::<Vec<_>>().join(", ");
            ImportError::new(&self.path, format!("has no column `{name}` (columns: {columns})"))
        })
    }

    /// The indices of several columns.
    ///
    /// # Errors
    /// When one of them is missing.
    pub fn columns<const N: usize>(&self, names: [&str; N]) -> Result<[usize; N], ImportError> {
        let mut indices = [0; N];
        for (index, name) in indices.iter_mut().zip(names) {
            *index = self.column(name)?;
        }
        Ok(indices)
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.records.len()).map(|number| Row { table: self, number })
    }

    /// A finding about the whole table.
    #[must_use]
    pub fn error(&self, why: impl Into<String>) -> ImportError {
        ImportError::new(&self.path, why)
    }
}

impl Row<'_> {
    /// The text of a cell.
    #[must_use]
    pub fn text(&self, column: usize) -> &str {
        self.table.records[self.number].get(column).unwrap_or("").trim()
    }

    /// The number in a cell.
    ///
    /// # Errors
    /// When it is none.
    pub fn number<T: FromStr>(&self, column: usize) -> Result<T, ImportError> {
        self.text(column).parse().map_err(|_| {
            let name = self.table.header.get(column).unwrap_or("");
            self.error(format!("`{name}` is {:?}, which is not a number", self.text(column)))
        })
    }

    /// The time in a cell, finite and positive.
    ///
    /// # Errors
    /// When it is none.
    pub fn time(&self, column: usize) -> Result<f64, ImportError> {
        let time: f64 = self.number(column)?;
        if time.is_finite() && time > 0.0 {
            return Ok(time);
        }
        Err(self.error(format!("{time} is not a time")))
    }

    /// A finding about this row.
    #[must_use]
    pub fn error(&self, why: impl fmt::Display) -> ImportError {
        ImportError::new(&self.table.path, format!("line {}: {why}", self.number + 2))
    }
}
