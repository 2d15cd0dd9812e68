//! inference-perf: `per_request_lifecycle_metrics.json`, a list with the times of every chunk, and
//! `stage_N_lifecycle_metrics.json`, percentiles of a stage. Times are seconds on a clock of the client.

use std::path::Path;

use serde::Deserialize;

use super::{Gathered, MeasuredFormat, MeasuredRequest, MeasuredRun, Percentiles, Stage, disorder, json};
use crate::error::WorkloadError;
use crate::record::TOKENS_MAX;

#[derive(Deserialize)]
struct Request {
    start_time: f64,
    end_time: f64,
    info: Option<Info>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Info {
    input_tokens: u64,
    output_tokens: Option<u64>,
    #[serde(default)]
    output_token_times: Vec<f64>,
}

pub(super) fn read(path: &Path) -> Result<MeasuredRun, WorkloadError> {
    let requests: Vec<Request> = json::value(path)?;
    let mut gathered = Gathered::default();
    for (index, request) in requests.iter().enumerate() {
        let answered = request.info.as_ref().filter(|_| request.error.is_none());
        let wrong = |what: String| WorkloadError::io(path, format!("request {index}: {what}"));
        let Some(measured) =
            answered.map(|info| measured(request, info)).transpose().map_err(wrong)?.flatten()
        else {
            gathered.unanswered += 1;
            continue;
        };
        gathered.requests.push(measured);
        let times = answered.map_or(&[][..], |info| &info.output_token_times);
        gathered.gaps_ms.extend(times.windows(2).map(|pair| (pair[1] - pair[0]) * 1e3));
    }
    Ok(gathered.into_run(MeasuredFormat::InferencePerf))
}

/// A request, or none when it returned no token.
fn measured(request: &Request, info: &Info) -> Result<Option<MeasuredRequest>, String> {
    let tokens = |name: &str, tokens: u64| {
        let tokens = u32::try_from(tokens).ok().filter(|&tokens| tokens <= TOKENS_MAX);
        tokens.ok_or_else(|| format!("`info.{name}` is not a number of tokens from 0 to {TOKENS_MAX}"))
    };
    let chunks = info.output_token_times.len() as u64;
    let output_tokens = tokens("output_tokens", info.output_tokens.unwrap_or(chunks))?;
    if output_tokens == 0 {
        return Ok(None);
    }
    let measured = MeasuredRequest {
        sent_s: request.start_time,
        due_s: request.start_time,
        first_s: info.output_token_times.first().copied(),
        last_s: info.output_token_times.last().copied().unwrap_or(request.end_time),
        input_tokens: tokens("input_tokens", info.input_tokens)?,
        output_tokens,
        prefix: None,
    };
    match disorder(&measured) {
        Some(what) => Err(what),
        None => Ok(Some(measured)),
    }
}

#[derive(Deserialize)]
struct StageFile {
    load_summary: LoadSummary,
    successes: Successes,
}

#[derive(Deserialize)]
struct LoadSummary {
    count: u64,
    requested_rate: f64,
}

#[derive(Deserialize)]
struct Successes {
    count: u64,
    latency: Latency,
    throughput: Throughput,
    prompt_len: Mean,
    output_len: Mean,
}

#[derive(Deserialize)]
struct Latency {
    request_latency: Spread,
    time_to_first_token: Spread,
}

#[derive(Deserialize)]
struct Throughput {
    requests_per_sec: f64,
}

#[derive(Deserialize)]
struct Mean {
    mean: f64,
}

#[derive(Deserialize)]
struct Spread {
    mean: f64,
    median: f64,
    p90: f64,
    p99: f64,
}

impl From<&Spread> for Percentiles {
    fn from(spread: &Spread) -> Self {
        Self { mean: spread.mean, p50: spread.median, p90: spread.p90, p99: spread.p99 }
    }
}

pub(super) fn read_stage(path: &Path) -> Result<MeasuredRun, WorkloadError> {
    let StageFile { load_summary, successes } = json::value(path)?;
    let stage = Stage {
        count: load_summary.count,
        rate: load_summary.requested_rate,
        input_tokens: successes.prompt_len.mean,
        output_tokens: successes.output_len.mean,
        ttft_s: (&successes.latency.time_to_first_token).into(),
        e2e_s: (&successes.latency.request_latency).into(),
        requests_per_s: successes.throughput.requests_per_sec,
    };
    let positive = [
        ("load_summary.count", stage.count as f64),
        ("load_summary.requested_rate", stage.rate),
        ("successes.output_len.mean", stage.output_tokens),
        ("successes.throughput.requests_per_sec", stage.requests_per_s),
    ];
    if let Some((name, value)) = positive.into_iter().find(|(_, value)| !(*value > 0.0 && value.is_finite()))
    {
        return Err(WorkloadError::io(path, format!("`{name}` is {value}: it must be above 0")));
    }
    let unanswered = load_summary.count.saturating_sub(successes.count);
    Ok(MeasuredRun {
        unanswered,
        stage: Some(stage),
        ..Gathered::default().into_run(MeasuredFormat::InferencePerfStage)
    })
}
