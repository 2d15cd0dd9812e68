//! Profiles from the kernel tables that other tools measured.
//!
//! | layout | known by | file |
//! |---|---|---|
//! | LLMServingSim 2.0 | `dense.csv`, `per_sequence.csv`, `attention.csv` | `llmservingsim` |
//! | LLMServingSim's first | `layers.csv`, `attention.csv` | `llmservingsim_v0` |
//! | AIConfigurator | `gemm.csv`, `context_attention.csv`, `generation_attention.csv` | `aiconfigurator` |
//! | Vidur | a table with columns `num_tokens` and `attn_pre_proj_ms` | `vidur` |
//!
//! Any table may be compressed (`.csv.gz`). The first has whole layers; of the others a layer is composed (`compose`),
//! with closed forms (`closed`) for what they do not have.

mod aiconfigurator;
mod cached_attention;
mod closed;
mod compose;
mod llmservingsim;
mod llmservingsim_v0;
mod subject;
mod vidur;

use std::path::{Path, PathBuf};

use forerun_sim::catalog::{Gpu, Model};

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
pub struct Options<'a> {
    /// Use `skew_fit` even where `meta.yaml` says that it is of another run.
    pub foreign_skew: bool,
    /// The GPU; by default the one that the folder's name means.
    pub gpu: Option<&'a Gpu>,
    /// The model, with the type of its weights; by default the one that the folder's name means.
    pub model: Option<&'a Model>,
    /// GPUs that the model is split over; by default 1, or as the folder's name says.
    pub tensor_parallel: Option<u32>,
    /// Bytes of an element of the KV cache; by default 2.
    pub kv_element_bytes: Option<u32>,
}

impl Options<'_> {
    /// Whether it says what the tables are of.
    fn names_subject(&self) -> bool {
        self.gpu.is_some()
            || self.model.is_some()
            || self.tensor_parallel.is_some()
            || self.kv_element_bytes.is_some()
    }
}

/// Makes a profile of the tables in `folder`.
///
/// # Errors
/// When the folder has none of the known layouts, or its tables are malformed or unusable.
pub fn import(folder: &Path, options: &Options<'_>) -> Result<Profile, ImportError> {
    if !folder.is_dir() {
        return Err(ImportError::new(folder, "is not a folder: give the one that holds the tables"));
    }
    let has = |table: &str| rows::find(folder, table).is_some();
    if has("dense") {
        return llmservingsim::import(folder, options);
    }
    if options.foreign_skew {
        return Err(ImportError::new(folder, "has no skew_fit.csv: leave out --foreign-skew"));
    }
    if has("layers") {
        return llmservingsim_v0::import(folder, options);
    }
    if has("gemm") {
        return aiconfigurator::import(folder, options);
    }
    let tables = vidur::Tables::find(folder)?;
    if !tables.is_empty() {
        return vidur::import(folder, &tables, options);
    }
    if let Some(inner) = ["dense", "layers", "gemm"].iter().find_map(|table| below(folder, table)) {
        let why =
            format!("holds tables further below: give one of its folders, for example {}", inner.display());
        return Err(ImportError::new(folder, why));
    }
    Err(ImportError::new(
        folder,
        "has no tables of a known layout: LLMServingSim has dense.csv or layers.csv, AIConfigurator gemm.csv, Vidur a table with num_tokens and attn_pre_proj_ms",
    ))
}

/// To a nanosecond, which keeps the files small.
fn rounded(mut us: Vec<f64>) -> Vec<f64> {
    us.iter_mut().for_each(|us| *us = (*us * 1e3).round() / 1e3);
    us
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
