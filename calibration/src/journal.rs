//! The journal of a run: every time as it is measured, so that an interrupted run can be continued.
//!
//! One JSON document a line: first what is measured, then the times. A line that was cut off ends it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// Longer journals are not of this program.
const BYTES_MAX: u64 = 64 << 20;

/// What is measured: times of other subjects are not mixed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) journal: String,
    pub(crate) device: String,
    pub(crate) clock: String,
    pub(crate) model: String,
    pub(crate) dtype: String,
    pub(crate) tensor_parallel: u32,
    pub(crate) most: [u32; 2],
}

/// One time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) op: String,
    pub(crate) at: [u32; 2],
    pub(crate) us: f64,
}

/// An open journal.
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal at `path`, and the times that are in it; a new one when there is none or on `restart`.
    ///
    /// # Errors
    /// When it is of something else, or cannot be written.
    pub(crate) fn open(path: &Path, header: &Header, restart: bool) -> anyhow::Result<(Self, Vec<Entry>)> {
        let entries = if restart || !path.exists() { Vec::new() } else { read(path, header)? };
        let failed = || format!("{}: cannot be written", path.display());
        let mut file = File::create(path).with_context(failed)?;
        let mut text = serde_json::to_string(header)? + "\n";
        for entry in &entries {
            text += &(serde_json::to_string(entry)? + "\n");
        }
        file.write_all(text.as_bytes()).with_context(failed)?;
        Ok((Self { path: path.to_owned(), file }, entries))
    }

    /// Adds a time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn append(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let line = serde_json::to_string(entry)? + "\n";
        self.file
            .write_all(line.as_bytes())
            .with_context(|| format!("{}: cannot be written", self.path.display()))
    }

    /// Removes it: the run is complete.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("{}: cannot be removed", self.path.display()))
    }
}

fn read(path: &Path, header: &Header) -> anyhow::Result<Vec<Entry>> {
    let name = path.display();
    if fs::metadata(path)?.len() > BYTES_MAX {
        bail!("{name} has more than {} MiB: it is no journal; move it away", BYTES_MAX >> 20);
    }
    let text = fs::read(path).with_context(|| format!("{name}: cannot be read"))?;
    let mut lines = text.split(|&byte| byte == b'\n');
    let found = lines.next().and_then(|line| serde_json::from_slice::<Header>(line).ok());
    if found.as_ref() != Some(header) {
        bail!(
            "{name} is of another run: give the same options to continue that, or `--restart` to discard it"
        );
    }
    let entries = lines.map_while(|line| serde_json::from_slice::<Entry>(line).ok());
    Ok(entries.filter(|entry| entry.us.is_finite() && entry.us >= 0.0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(model: &str) -> Header {
        Header {
            journal: "forerun-calibrate/1".into(),
            device: "cpu".into(),
            clock: "wall clock".into(),
            model: model.into(),
            dtype: "f32".into(),
            tensor_parallel: 1,
            most: [8, 8],
        }
    }

    #[test]
    fn a_journal_that_was_cut_off_is_continued_and_that_of_another_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let entry = |us| Entry { op: "o_proj".into(), at: [4, 0], us };
        let (mut journal, known) = Journal::open(&path, &header("a"), false).unwrap();
        assert!(known.is_empty());
        journal.append(&entry(1.5)).unwrap();
        journal.append(&entry(2.5)).unwrap();
        let mut text = fs::read(&path).unwrap();
        text.truncate(text.len() - 4);
        fs::write(&path, text).unwrap();
        let (mut journal, known) = Journal::open(&path, &header("a"), false).unwrap();
        assert_eq!(known, [entry(1.5)]);
        journal.append(&entry(3.5)).unwrap();
        let refused = Journal::open(&path, &header("b"), false).err().unwrap().to_string();
        assert!(refused.contains("--restart"), "{refused}");
        let (journal, known) = Journal::open(&path, &header("a"), false).unwrap();
        assert_eq!(known, [entry(1.5), entry(3.5)]);
        journal.remove().unwrap();
        assert!(!path.exists());
        fs::write(&path, b"\xff\x00no journal").unwrap();
        assert!(Journal::open(&path, &header("a"), false).is_err());
        assert!(Journal::open(&path, &header("a"), true).unwrap().1.is_empty());
    }
}
