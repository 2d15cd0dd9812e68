//! guidellm's `benchmarks.json`: one run for each benchmark, its requests by how they ended. Times are seconds since
//! 1970 in `info.timings` (guidellm/schemas/info.py); counts of tokens are those that the server reported.

use std::path::Path;

use serde::Deserialize;

use super::{Gathered, MeasuredFormat, MeasuredRequest, MeasuredRun, disorder, json};
use crate::error::WorkloadError;
use crate::record::TOKENS_MAX;

#[derive(Deserialize)]
struct Report {
    benchmarks: Vec<Benchmark>,
}

#[derive(Deserialize)]
struct Benchmark {
    requests: Option<Requests>,
}

#[derive(Deserialize)]
struct Requests {
    #[serde(default)]
    successful: Vec<Request>,
    #[serde(default)]
    incomplete: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    errored: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Request {
    info: Info,
    prompt_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Info {
    timings: Timings,
}

#[derive(Deserialize)]
struct Timings {
    request_start: Option<f64>,
    #[serde(alias = "first_iteration")]
    first_token_iteration: Option<f64>,
    #[serde(alias = "last_iteration")]
    last_token_iteration: Option<f64>,
    request_end: Option<f64>,
}

pub(super) fn read(path: &Path) -> Result<Vec<MeasuredRun>, WorkloadError> {
    let report: Report = json::value(path)?;
    let run = |(index, benchmark): (usize, Benchmark)| {
        let wrong = |what: String| WorkloadError::io(path, format!("benchmark {index}: {what}"));
        let requests = benchmark.requests.ok_or_else(|| {
            wrong(
                "has no `requests`: guidellm leaves them out when it is told to; ask for the full output"
                    .into(),
            )
        })?;
        let mut gathered = Gathered {
            unanswered: (requests.incomplete.len() + requests.errored.len()) as u64,
            ..Gathered::default()
        };
        for (place, request) in requests.successful.iter().enumerate() {
            match measured(request).map_err(|what| wrong(format!("successful request {place}: {what}")))? {
                Some(request) => gathered.requests.push(request),
                None => gathered.unanswered += 1,
            }
        }
        Ok(gathered.into_run(MeasuredFormat::Guidellm))
    };
    report.benchmarks.into_iter().enumerate().map(run).collect()
}

/// A request, or none when it returned no token.
fn measured(request: &Request) -> Result<Option<MeasuredRequest>, String> {
    let tokens = |name: &str, tokens: Option<u64>| {
        let tokens = tokens.and_then(|tokens| u32::try_from(tokens).ok());
        let what = format!("`{name}` is not a number of tokens from 0 to {TOKENS_MAX}");
        tokens.filter(|&tokens| tokens <= TOKENS_MAX).ok_or(what)
    };
    let Timings { request_start, first_token_iteration, last_token_iteration, request_end } =
        request.info.timings;
    let output_tokens = tokens("output_tokens", request.output_tokens)?;
    if output_tokens == 0 {
        return Ok(None);
    }
    let sent_s = request_start.ok_or("has no `info.timings.request_start`")?;
    let last_s = last_token_iteration.or(request_end).ok_or("has no `info.timings.request_end`")?;
    let measured = MeasuredRequest {
        sent_s,
        due_s: sent_s,
        first_s: first_token_iteration,
        last_s,
        input_tokens: tokens("prompt_tokens", request.prompt_tokens)?,
        output_tokens,
        prefix: None,
    };
    match disorder(&measured) {
        Some(what) => Err(what),
        None => Ok(Some(measured)),
    }
}
