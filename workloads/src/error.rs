//! Errors of workloads: each names the file and the place, what is wrong, and how to mend it.

use std::path::{Path, PathBuf};

/// Why a workload cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file cannot be opened or read.
    #[error("{}: {what}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system or the decompressor said.
        what: String,
    },
    /// A row of the file is wrong.
    #[error("{}:{line}: {what}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// Line number, from 1.
        line: u64,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// The file as a whole, or the workload's description, is wrong.
    #[error("{0}")]
    Spec(String),
}

impl WorkloadError {
    /// An error at `path:line`.
    pub fn row(path: &Path, line: u64, what: impl Into<String>) -> Self {
        Self::Row { path: path.to_owned(), line, what: what.into() }
    }

    /// An I/O error on `path`.
    pub fn io(path: &Path, what: impl Into<String>) -> Self {
        Self::Io { path: path.to_owned(), what: what.into() }
    }
}
