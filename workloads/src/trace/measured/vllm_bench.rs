//! `vllm bench serve --save-result --save-detailed`: one object of parallel arrays, one entry for each request. Key
//! names are those of vllm/benchmarks/serve.py. `--append-result` writes one object after another.

use std::num::NonZeroU32;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Gathered, MeasuredFormat, MeasuredRequest, MeasuredRun, disorder, json};
use crate::error::WorkloadError;
use crate::record::TOKENS_MAX;
use crate::spec::Loop;

#[derive(Deserialize)]
struct Bench {
    input_lens: Option<Vec<u64>>,
    output_lens: Option<Vec<u64>>,
    /// Seconds from sending to the first chunk; 0 for a request that failed.
    ttfts: Option<Vec<f64>>,
    /// Seconds between the chunks of each answer.
    itls: Option<Vec<Vec<f64>>>,
    /// Seconds from sending to the last chunk. Older versions leave it out: then the others add up to it.
    latencies: Option<Vec<f64>>,
    /// When each request was sent, seconds on a clock of the client.
    start_times: Option<Vec<f64>>,
    /// Seconds for which the limit on the number in flight held each request back.
    queue_times: Option<Vec<f64>>,
    errors: Option<Vec<Option<String>>>,
    request_rate: Option<Value>,
    max_concurrency: Option<u32>,
}

/// One entry of each array.
struct Entry {
    sent_s: f64,
    queued_s: f64,
    ttft_s: f64,
    latency_s: f64,
    input_tokens: u64,
    output_tokens: u64,
}

pub(super) fn read(path: &Path) -> Result<Vec<MeasuredRun>, WorkloadError> {
    json::values::<Bench>(path)?.into_iter().map(|bench| run(path, bench)).collect()
}

fn run(path: &Path, bench: Bench) -> Result<MeasuredRun, WorkloadError> {
    let detailed = |key: &str| {
        let what = format!("has no `{key}`: run `vllm bench serve` with --save-result --save-detailed");
        WorkloadError::io(path, what)
    };
    let input_lens = bench.input_lens.ok_or_else(|| detailed("input_lens"))?;
    let output_lens = bench.output_lens.ok_or_else(|| detailed("output_lens"))?;
    let ttfts = bench.ttfts.ok_or_else(|| detailed("ttfts"))?;
    let itls = bench.itls.ok_or_else(|| detailed("itls"))?;
    let count = input_lens.len();
    // A client that is held back by nothing but the number in flight has no times of its own.
    let unpaced = bench.request_rate.as_ref().is_none_or(|rate| rate.as_f64().is_none());
    let pacing = match bench.max_concurrency.and_then(NonZeroU32::new) {
        Some(most) if unpaced => Loop::Closed(most),
        Some(most) => Loop::AtMost(most),
        None => Loop::Open,
    };
    let start_times = match bench.start_times {
        Some(times) => times,
        None if matches!(pacing, Loop::Closed(_)) => vec![0.0; count],
        None => return Err(detailed("start_times")),
    };
    let latencies = bench.latencies.unwrap_or_else(|| {
        ttfts.iter().zip(&itls).map(|(ttft, gaps)| ttft + gaps.iter().sum::<f64>()).collect()
    });
    let lengths = [
        ("output_lens", output_lens.len()),
        ("ttfts", ttfts.len()),
        ("itls", itls.len()),
        ("latencies", latencies.len()),
        ("start_times", start_times.len()),
        ("queue_times", bench.queue_times.as_ref().map_or(count, Vec::len)),
        ("errors", bench.errors.as_ref().map_or(count, Vec::len)),
    ];
    if let Some((key, length)) = lengths.into_iter().find(|(_, length)| *length != count) {
        let what =
            format!("`{key}` has {length} entries where `input_lens` has {count}: the file is damaged");
        return Err(WorkloadError::io(path, what));
    }
    let mut gathered = Gathered::default();
    for (index, gaps) in itls.iter().enumerate() {
        let failed = bench
            .errors
            .as_ref()
            .is_some_and(|errors| errors[index].as_ref().is_some_and(|error| !error.is_empty()));
        if failed || output_lens[index] == 0 {
            gathered.unanswered += 1;
            continue;
        }
        let entry = Entry {
            sent_s: start_times[index],
            queued_s: bench.queue_times.as_ref().map_or(0.0, |times| times[index]),
            ttft_s: ttfts[index],
            latency_s: latencies[index],
            input_tokens: input_lens[index],
            output_tokens: output_lens[index],
        };
        let wrong = |what: String| WorkloadError::io(path, format!("request {index}: {what}"));
        gathered.requests.push(request(&entry).map_err(wrong)?);
        gathered.gaps_ms.extend(gaps.iter().map(|seconds| seconds * 1e3));
    }
    Ok(MeasuredRun { pacing, ..gathered.into_run(MeasuredFormat::VllmBench) })
}

fn request(entry: &Entry) -> Result<MeasuredRequest, String> {
    let tokens = |name: &str, tokens: u64| {
        let tokens = u32::try_from(tokens).ok().filter(|&tokens| tokens <= TOKENS_MAX);
        tokens.ok_or_else(|| format!("`{name}` is not a number of tokens from 0 to {TOKENS_MAX}"))
    };
    let request = MeasuredRequest {
        sent_s: entry.sent_s,
        due_s: entry.sent_s - entry.queued_s,
        first_s: Some(entry.sent_s + entry.ttft_s),
        // Sums of chunks can end a rounding error before the first.
        last_s: entry.sent_s + entry.latency_s.max(entry.ttft_s),
        input_tokens: tokens("input_lens", entry.input_tokens)?,
        output_tokens: tokens("output_lens", entry.output_tokens)?,
        prefix: None,
    };
    match disorder(&request) {
        Some(what) => Err(what),
        None => Ok(request),
    }
}
