//! Runs that were measured on a server: what was sent, and what came back when.
//!
//! [`open`] tells the formats apart by their content: the results of `vllm bench serve --save-detailed`, guidellm and
//! inference-perf in JSON, and tables in CSV or JSON lines (BLIS TraceV2, our own outcomes, or any other whose columns
//! are named). All become [`MeasuredRun`]s, whose requests can be sent again in a simulation.

mod guidellm;
mod inference_perf;
mod json;
mod table;
#[cfg(test)]
mod tests;
mod vllm_bench;

use std::collections::BTreeMap;
use std::path::Path;

use super::input::no_rows;
use crate::error::WorkloadError;
use crate::spec::Loop;

/// Tools whose results are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasuredFormat {
    /// `vllm bench serve --save-result --save-detailed`.
    VllmBench,
    /// guidellm's `benchmarks.json`.
    Guidellm,
    /// inference-perf's `per_request_lifecycle_metrics.json`.
    InferencePerf,
    /// inference-perf's `stage_N_lifecycle_metrics.json`: percentiles only.
    InferencePerfStage,
    /// BLIS TraceV2.
    TraceV2,
    /// Columns by name: our outcomes, or any other table.
    Table,
}

impl MeasuredFormat {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VllmBench => "vllm bench serve",
            Self::Guidellm => "guidellm",
            Self::InferencePerf => "inference-perf",
            Self::InferencePerfStage => "inference-perf stage",
            Self::TraceV2 => "TraceV2",
            Self::Table => "table",
        }
    }
}

/// One run of a load generator against a server.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredRun {
    /// What it is called: its file, and its number where a file has several.
    pub name: String,
    /// The tool that measured it.
    pub format: MeasuredFormat,
    /// Requests that were answered, in the order in which they were sent; none where only percentiles are known.
    pub requests: Vec<MeasuredRequest>,
    /// Requests that were not answered: they failed, were cancelled, or returned no token.
    pub unanswered: u64,
    /// Times between the chunks of an answer, milliseconds, ascending; none where the tool does not say.
    pub gaps_ms: Vec<f64>,
    /// What else made the client send, or wait, beside its own times.
    pub pacing: Loop,
    /// What is known where requests are not.
    pub stage: Option<Stage>,
}

/// One request that was answered. Times are seconds since the first request of its run was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredRequest {
    /// Sent by the client.
    pub sent_s: f64,
    /// When the client meant to send it; a limit on the number in flight may have held it back.
    pub due_s: f64,
    /// First token; none where the answer was not streamed.
    pub first_s: Option<f64>,
    /// Last token.
    pub last_s: f64,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer; at least 1.
    pub output_tokens: u32,
    /// The group of prompts that begin alike, and how many tokens they share.
    pub prefix: Option<(String, u32)>,
}

/// Percentiles of a run whose requests are not known one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stage {
    /// Requests that were sent.
    pub count: u64,
    /// Requests per second that were asked for.
    pub rate: f64,
    /// Mean tokens of a prompt and of an answer.
    pub input_tokens: f64,
    /// See `input_tokens`.
    pub output_tokens: f64,
    /// Time to first token, seconds.
    pub ttft_s: Percentiles,
    /// Time to last token, seconds.
    pub e2e_s: Percentiles,
    /// Requests answered per second.
    pub requests_per_s: f64,
}

/// A distribution in a few numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Reads all runs of the file at `path`. `columns` maps our names of a table's columns to the file's.
///
/// # Errors
/// When the file cannot be read, is of no known format, or anything in it is wrong: the error names the place.
pub fn open(path: &Path, columns: &BTreeMap<String, String>) -> Result<Vec<MeasuredRun>, WorkloadError> {
    let kind = json::kind(path)?;
    if !columns.is_empty() && !matches!(kind, json::Kind::Csv | json::Kind::Rows) {
        let what = "columns are for tables, and this is the result of a tool: leave them out";
        return Err(WorkloadError::io(path, what));
    }
    let mut runs = match kind {
        json::Kind::Csv => vec![table::read(path, columns, false)?],
        json::Kind::Rows => vec![table::read(path, columns, true)?],
        json::Kind::VllmBench => vllm_bench::read(path)?,
        json::Kind::Guidellm => guidellm::read(path)?,
        json::Kind::InferencePerf => vec![inference_perf::read(path)?],
        json::Kind::Stage => vec![inference_perf::read_stage(path)?],
    };
    let several = runs.len() > 1;
    for (index, run) in runs.iter_mut().enumerate() {
        run.name = file_name(path);
        if several {
            run.name += &format!("[{index}]");
        }
        if run.requests.is_empty() && run.stage.is_none() {
            let why = match run.unanswered {
                0 => return Err(no_rows(path)),
                unanswered => format!("none of its {unanswered} requests was answered"),
            };
            return Err(WorkloadError::io(path, format!("{}: {why}", run.name)));
        }
    }
    Ok(runs)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    // The folder says more than the name that a tool gives all its files.
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    match folder {
        Some(folder) if name.starts_with("trace.") => format!("{folder}/{name}"),
        _ => name,
    }
}

/// Requests as a reader finds them, on the clock of the file.
#[derive(Debug, Default)]
struct Gathered {
    requests: Vec<MeasuredRequest>,
    unanswered: u64,
    gaps_ms: Vec<f64>,
}

impl Gathered {
    /// The run: requests in order, from the first one's sending on.
    fn into_run(mut self, format: MeasuredFormat) -> MeasuredRun {
        self.requests.sort_by(|a, b| a.sent_s.total_cmp(&b.sent_s));
        let start = self.requests.first().map_or(0.0, |request| request.sent_s);
        // Clients may note what they meant to send when on another clock: nothing is sent before it is due.
        let lag =
            self.requests.iter().map(|request| request.sent_s - request.due_s).fold(f64::INFINITY, f64::min);
        for request in &mut self.requests {
            request.due_s += lag - start;
            request.sent_s -= start;
            request.last_s -= start;
            request.first_s = request.first_s.map(|first| first - start);
        }
        self.gaps_ms.sort_by(f64::total_cmp);
        MeasuredRun {
            name: String::new(),
            format,
            requests: self.requests,
            unanswered: self.unanswered,
            gaps_ms: self.gaps_ms,
            pacing: Loop::Open,
            stage: None,
        }
    }
}

/// What is wrong with the times of a request, if anything is.
fn disorder(request: &MeasuredRequest) -> Option<String> {
    let MeasuredRequest { sent_s, due_s, first_s, last_s, .. } = *request;
    let first = first_s.unwrap_or(last_s);
    if ![sent_s, due_s, first, last_s].iter().all(|time| time.is_finite()) {
        return Some("has a time that is not a finite number".into());
    }
    if first < sent_s {
        return Some(format!("its first token came {:.6} s before it was sent", sent_s - first));
    }
    if last_s < first {
        return Some(format!("its last token came {:.6} s before its first", first - last_s));
    }
    (last_s - sent_s > TIME_MAX_S).then(|| "took longer than a year: is the unit right?".into())
}

/// No answer takes a year.
const TIME_MAX_S: f64 = 365.0 * 86_400.0;
