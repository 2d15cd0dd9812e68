//! Profiles from the kernel tables that other tools measured.
//!
//! | layout | known by | file |
//! |---|---|---|
//! | LLMServingSim 2.0 | `dense.csv`, `per_sequence.csv`, `attention.csv` | `llmservingsim` |
//!
//! Any table may be compressed (`.csv.gz`).

mod llmservingsim;

use std::path::{Path, PathBuf};

use crate::profile::Profile;
use crate::rows;

/// Why a folder gives no profile.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct ImportError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it, and the mend.
    pub why: String,
}

impl ImportError {
    pub(crate) fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

/// What a folder of tables does not say itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Use `skew_fit` even where `meta.yaml` says that it is of another run.
    pub foreign_skew: bool,
}

/// Makes a profile of the tables in `folder`.
///
/// # Errors
/// When the folder has none of the known layouts, or its tables are malformed or unusable.
pub fn import(folder: &Path, options: &Options) -> Result<Profile, ImportError> {
    if !folder.is_dir() {
        return Err(ImportError::new(folder, "is not a folder: give the one that holds the tables"));
    }
    if rows::find(folder, "dense").is_some() {
        return llmservingsim::import(folder, options);
    }
    if let Some(inner) = below(folder, "dense") {
        let why =
            format!("holds tables further below: give one of its folders, for example {}", inner.display());
        return Err(ImportError::new(folder, why));
    }
    if rows::find(folder, "layers").is_some() {
        return Err(ImportError::new(
            folder,
            "is LLMServingSim's first layout: its decode attention implies more bandwidth than the GPU has (23 to 76 TB/s on A6000 and H100), so it gives no usable profile",
        ));
    }
    Err(ImportError::new(
        folder,
        "has no tables of a known layout: LLMServingSim has dense.csv, per_sequence.csv and attention.csv",
    ))
}

/// A folder at most four levels below that holds this table.
fn below(folder: &Path, table: &str) -> Option<PathBuf> {
    let mut level = vec![folder.to_owned()];
    for _ in 0..4 {
        let mut inner: Vec<PathBuf> = Vec::new();
        for folder in &level {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            inner.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
        inner.sort();
        if let Some(found) = inner.iter().find(|folder| rows::find(folder, table).is_some()) {
            return Some(found.clone());
        }
        level = inner;
    }
    None
}
