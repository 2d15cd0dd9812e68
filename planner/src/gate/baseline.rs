//! What a baseline keeps: the scenario in full, and the figures of each seed's run.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use forerun_reports::figures::{FIGURES, figures};
use forerun_reports::summary::Summary;
use forerun_sim::observer::Observer;
use forerun_sim::request::Request;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::InputError;
use crate::output::OutputFile;
use crate::scenario::overrides::Override;
use crate::scenario::read::{Loaded, parse};

/// Name of the file's layout.
const SCHEMA: &str = "forerun/gate-baseline/v1";

/// A larger file is no baseline.
const BYTES_MAX: u64 = 16 << 20;

/// A recorded baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// `forerun/gate-baseline/v1`.
    pub schema: String,
    /// The version of Forerun that recorded it.
    pub forerun: String,
    /// Where the scenario came from.
    pub name: String,
    /// The scenario in full.
    pub scenario: Value,
    /// One run for each seed.
    pub runs: Vec<Recorded>,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Its seed.
    pub seed: u64,
    /// What was sent, by which pairs are checked.
    pub sent: Sent,
    /// Its figures by key; those that were never measured are absent.
    pub figures: BTreeMap<String, f64>,
}

/// What clients sent in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// Requests.
    pub requests: u64,
    /// Tokens of their prompts.
    pub input_tokens: u64,
    /// Tokens that they generate.
    pub output_tokens: u64,
}

impl Observer for Sent {
    fn arrived(&mut self, request: &Request) {
        self.requests += 1;
        self.input_tokens += u64::from(request.prompt.tokens());
        self.output_tokens += u64::from(request.output_tokens);
    }
}

impl Recorded {
    /// What is kept of a run.
    pub(super) fn of(seed: u64, sent: Sent, summary: &Summary) -> Self {
        let values = FIGURES.iter().zip(figures(summary));
        let figures = values.filter_map(|(figure, value)| Some((figure.key.to_owned(), value?)));
        Self { seed, sent, figures: figures.collect() }
    }
}

impl Baseline {
    /// A baseline of these runs.
    ///
    /// # Errors
    /// When the scenario's files have no absolute path.
    pub(super) fn new(loaded: &Loaded, runs: Vec<Recorded>) -> Result<Self, InputError> {
        let scenario = serde_json::to_value(&loaded.scenario).map_err(|e| InputError::new(e.to_string()))?;
        Ok(Self {
            schema: SCHEMA.to_owned(),
            forerun: env!("CARGO_PKG_VERSION").to_owned(),
            name: loaded.name.clone(),
            scenario,
            runs,
        })
    }

    /// Writes the baseline to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), InputError> {
        let wrong =
            |e: std::io::Error| InputError::new(format!("{}: cannot be written: {e}", path.display()));
        let mut file = OutputFile::create(path)?;
        let text = serde_json::to_string_pretty(self).map_err(|e| InputError::new(e.to_string()))?;
        writeln!(file, "{text}").map_err(wrong)?;
        file.finish()
    }

    /// Reads the baseline at `path`.
    ///
    /// # Errors
    /// When there is none, or it is not one that this version can use.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let wrong = |why: String| InputError::new(format!("baseline {}: {why}", path.display()));
        let file = std::fs::File::open(path).map_err(|e| wrong(format!("{e}; record it with --record")))?;
        let mut text = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(|e| wrong(e.to_string()))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(wrong(format!("has more than {} MiB: it is no baseline", BYTES_MAX >> 20)));
        }
        let baseline: Self = serde_json::from_slice(&text)
            .map_err(|e| wrong(format!("{e}; record it again with `forerun gate --record`")))?;
        if baseline.schema != SCHEMA {
            return Err(wrong(format!(
                "its schema is `{}`, not `{SCHEMA}`: record it again",
                baseline.schema
            )));
        }
        if baseline.runs.is_empty() {
            return Err(wrong("it has no runs: record it again".to_owned()));
        }
        Ok(baseline)
    }

    /// The baseline's own scenario with changes. Relative paths in it start from `base`.
    ///
    /// # Errors
    /// When a change does not fit it.
    pub fn scenario(&self, base: &Path, changes: &[Override]) -> Result<Loaded, InputError> {
        let text = self.scenario.to_string();
        let scenario = parse(&text, changes).map_err(|e| e.at(&format!("baseline of {}", self.name)))?;
        Ok(Loaded { scenario, base: PathBuf::from(base), name: self.name.clone() })
    }
}
