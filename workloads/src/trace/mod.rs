//! Recorded traces: [`open`] checks a file from end to end, [`Trace::records`] replays it.
//!
//! Three formats are read, plain or compressed with gzip or zstd: Mooncake's JSON lines, Azure's CSV, and a
//! generic table (CSV or JSON lines) whose columns and units can be named. Times are moved so that the first
//! request arrives at zero. A sorted trace is streamed in bounded memory; one that is not sorted, or whose
//! turns follow each other by think time, is held.

mod azure;
mod cell;
mod clock;
mod columns;
mod detect;
mod grid;
mod input;
pub mod measured;
mod mooncake;
mod order;
mod replay;
mod row;
mod survey;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forerun_sim::time::{Span, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::WorkloadError;
use crate::record::{Records, TOKENS_MAX};
use detect::Detected;
use order::{Held, HeldRows};
use row::Rows;
use survey::{Passage, Survey};

/// The format of a trace file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// JSON lines with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`.
    Mooncake,
    /// CSV with `TIMESTAMP`, `ContextTokens` and `GeneratedTokens`.
    Azure,
    /// CSV with a header, or JSON lines: `arrival_s`, `input_tokens`, `output_tokens` and more.
    Table,
}

impl TraceFormat {
    /// Its name in scenarios.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mooncake => "mooncake",
            Self::Azure => "azure",
            Self::Table => "table",
        }
    }
}

/// How a trace is to be read; the default finds out by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// The format; by default what the first line shows.
    pub format: Option<TraceFormat>,
    /// For tables: the file's name for each of our columns, where it differs.
    pub columns: BTreeMap<String, String>,
    /// For tables: the unit (s, ms, us, ns) of `arrival_s` and `think_s`; by default seconds.
    pub units: BTreeMap<String, String>,
    /// Tokens per hashed block: for Mooncake 512 by default; for tables when they have no such column.
    pub block_tokens: Option<u32>,
}

/// What is known about a trace once it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceInfo {
    /// Its format.
    pub format: TraceFormat,
    /// How many requests it has.
    pub rows: u64,
    /// The first arrival on the trace's own clock (dates: since 1970). Records count from it.
    pub first: Time,
    /// From the first recorded arrival to the last. Turns that follow others by think time do not count.
    pub span: Span,
    /// The step of the coarse timestamps over which arrivals are spread, if they are.
    pub grid: Option<Span>,
    /// Whether any request is a turn of a session.
    pub sessions: bool,
    /// Whether any request says what its prompt shares with others.
    pub prefixes: bool,
    /// Prompt tokens of all requests.
    pub input_tokens: u64,
    /// Generated tokens of all requests.
    pub output_tokens: u64,
    /// What the user should know before trusting results, one sentence each.
    pub warnings: Vec<String>,
}

impl TraceInfo {
    /// Requests per second over the recorded span; `None` when all arrive at once.
    #[must_use]
    pub fn mean_rate(&self) -> Option<f64> {
        (self.span > Span::ZERO).then(|| self.rows as f64 / self.span.as_secs_f64())
    }

    /// Mean prompt length in tokens.
    #[must_use]
    pub fn mean_input_tokens(&self) -> f64 {
        self.input_tokens as f64 / self.rows as f64
    }

    /// Mean output length in tokens.
    #[must_use]
    pub fn mean_output_tokens(&self) -> f64 {
        self.output_tokens as f64 / self.rows as f64
    }
}

/// A trace that was read once and found right.
#[derive(Clone, Debug)]
pub struct Trace {
    file: TraceFile,
    info: TraceInfo,
    /// All rows in order, when the file's own order does not do.
    held: Option<Arc<Held>>,
}

/// Opens the trace at `path` and checks all of it.
///
/// # Errors
/// When the file cannot be read, or any row is wrong: the error names the line and the mend.
pub fn open(path: &Path, options: &TraceOptions) -> Result<Trace, WorkloadError> {
    if options.block_tokens.is_some_and(|tokens| tokens == 0 || tokens > TOKENS_MAX) {
        let what = format!("`block_tokens` is a number of tokens from 1 to {TOKENS_MAX}");
        return Err(WorkloadError::Spec(what));
    }
    let Detected { format, json } = detect::detect(path, options)?;
    check_applicable(format, options)?;
    let file = TraceFile { path: path.to_owned(), options: options.clone(), format, json };
    let mut survey = Survey::of(&mut *file.rows()?, path)?;
    let held = if survey.needs_order() {
        let held = Held::load(&mut *file.rows()?, path)?;
        survey.passage = Passage::of(&held.rows);
        Some(Arc::new(held))
    } else {
        None
    };
    let info = describe(format, &survey);
    Ok(Trace { file, info, held })
}

impl Trace {
    /// What is known about it.
    #[must_use]
    pub fn info(&self) -> &TraceInfo {
        &self.info
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// A pass over all records. Every pass with the same `seed` gives the same records; the seed matters
    /// only when arrivals are spread over coarse timestamps ([`TraceInfo::grid`]).
    ///
    /// # Errors
    /// When the file cannot be opened any more.
    pub fn records(&self, seed: u64) -> Result<Box<dyn Records>, WorkloadError> {
        let path = &self.file.path;
        let rows = match &self.held {
            Some(held) => Box::new(HeldRows::new(held.clone())),
            None => self.file.rows()?,
        };
        let rows = match self.info.grid {
            Some(step) => Box::new(grid::Spread::new(rows, step, seed, path)),
            None => rows,
        };
        Ok(Box::new(replay::Replay::new(rows, path.clone())))
    }
}

/// How to read the rows of a file, again and again.
#[derive(Clone, Debug)]
struct TraceFile {
    path: PathBuf,
    options: TraceOptions,
    format: TraceFormat,
    json: bool,
}

impl TraceFile {
    fn rows(&self) -> Result<Box<dyn Rows>, WorkloadError> {
        Ok(match self.format {
            TraceFormat::Mooncake => {
                let block = self.options.block_tokens.unwrap_or(mooncake::BLOCK_TOKENS);
                Box::new(mooncake::MooncakeRows::open(&self.path, block)?)
            }
            TraceFormat::Azure => Box::new(azure::AzureRows::open(&self.path)?),
            TraceFormat::Table => Box::new(table::TableRows::open(&self.path, &self.options, self.json)?),
        })
    }
}

/// Options that mean nothing to `format` are errors, not noise.
fn check_applicable(format: TraceFormat, options: &TraceOptions) -> Result<(), WorkloadError> {
    let given = [
        ("columns", !options.columns.is_empty()),
        ("units", !options.units.is_empty()),
        ("block_tokens", options.block_tokens.is_some() && format == TraceFormat::Azure),
    ];
    let unused = given.into_iter().find(|&(_, given)| given);
    match unused.filter(|_| format != TraceFormat::Table) {
        Some((name, _)) => Err(WorkloadError::Spec(format!(
            "`{name}:` means nothing for a trace of format `{}`; leave it out, or say `format: table`",
            format.name()
        ))),
        None => Ok(()),
    }
}

/// What the survey says, in the words of the user.
fn describe(format: TraceFormat, survey: &Survey) -> TraceInfo {
    let Passage { out_of_turn, shortened, .. } = survey.passage;
    let step = survey.passage.grid.step();
    let mut warnings = Vec::new();
    let mut warn = |count: u64, what: &str| {
        if count > 0 {
            let (requests, have) = if count == 1 { ("request", "has") } else { ("requests", "have") };
            warnings.push(format!("{count} {requests} {have} {what}"));
        }
    };
    warn(survey.silent, "no output tokens in the trace and generate 1 here");
    warn(
        out_of_turn,
        "an arrival before an earlier turn of the same session: replayed as recorded, without that turn's text",
    );
    warn(
        shortened,
        "fewer input tokens than the conversation so far: the end of the history is taken as cut off",
    );
    let grid = step.filter(|_| format == TraceFormat::Mooncake);
    match (step, grid) {
        (_, Some(step)) => warnings.push(format!(
            "timestamps sit on a grid of {step}, an artefact of the export: arrivals are spread evenly over it"
        )),
        (Some(step), None) => warnings.push(format!(
            "arrivals come in bulk every {step}: if the timestamps were rounded, queues look longer than they were"
        )),
        (None, None) => {}
    }
    let (first, span) = survey.arrivals();
    TraceInfo {
        format,
        rows: survey.rows,
        first,
        span,
        grid,
        sessions: survey.sessions(),
        prefixes: survey.prefixes,
        input_tokens: survey.input_tokens,
        output_tokens: survey.output_tokens,
        warnings,
    }
}

/// "did you mean" for the name nearest to `wanted`, or nothing when none is near.
fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let scored = names.into_iter().map(|name| {
        let alike = strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase());
        (alike, name)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    match best.filter(|&(alike, _)| alike >= 0.8) {
        Some((_, name)) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}
