//! What a workload is like, in figures: `forerun trace info`.

mod show;

use forerun_sim::time::Time;
use forerun_workloads::measure::{Measures, Options, measure};
use forerun_workloads::open::open;
use forerun_workloads::record::TOKENS_MAX;
use forerun_workloads::spec::Loop;
use forerun_workloads::units::Duration;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::InputError;
use crate::scenario::read::Loaded;

/// The name of the JSON document.
const SCHEMA: &str = "forerun/trace-info/v1";

/// What to measure.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Requests that arrive earlier fill caches and open sessions, and count in no figure; by default the
    /// scenario's `run.warm_up`.
    pub warm_up: Option<Duration>,
    /// Tokens per KV block; by default the scenario's `engine.block_size`, else vLLM's 16.
    pub block_tokens: Option<u32>,
    /// Cache sizes in tokens at which hits are measured, besides the usual ones.
    pub cache_tokens: Vec<u64>,
}

/// A workload in figures.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TraceInfo {
    /// `forerun/trace-info/v1`.
    pub schema: &'static str,
    /// What was measured, in words.
    pub about: String,
    /// The end of the warm-up.
    pub warm_up_s: f64,
    /// The figures.
    #[serde(flatten)]
    pub measures: Measures,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
}

/// Measures the workload of `loaded`.
///
/// # Errors
/// When the workload is wrong, or paced by answers, so that it has no arrivals of its own.
pub fn trace_info(loaded: &Loaded, asked: &Asked) -> Result<TraceInfo, InputError> {
    let scenario = &loaded.scenario;
    let in_file = |error: InputError| error.at(&loaded.name);
    let spec = scenario.workload.as_ref().ok_or_else(|| {
        in_file(InputError::new("there is no `workload`: name a `trace`, a `preset` or a `synthetic` one"))
    })?;
    if !matches!(spec.pacing, Loop::Open) {
        let why = "`workload.loop`: such a workload is paced by the answers, so it has no rate of its own to \
                   measure; leave `loop` out";
        return Err(in_file(InputError::new(why)));
    }
    let block_size = scenario.engine.as_ref().and_then(|engine| engine.block_size);
    let block_tokens = asked.block_tokens.or(block_size).unwrap_or(Options::default().block_tokens);
    if block_tokens == 0 || block_tokens > TOKENS_MAX {
        let why = format!("a block of {block_tokens} tokens: from 1 to {TOKENS_MAX} are possible");
        return Err(InputError::new(why));
    }
    let run = scenario.run.clone().unwrap_or_default();
    let warm_up = Time::ZERO + asked.warm_up.or(run.warm_up).unwrap_or_default().span();
    let workload = open(spec, &loaded.base).map_err(|e| in_file(e.into()))?;
    let mut source = workload.source(run.seed.unwrap_or(1)).map_err(InputError::from)?;
    let options =
        Options { warm_up, block_tokens, cache_tokens: asked.cache_tokens.clone(), ..Options::default() };
    let measures = measure(&mut source, &options).map_err(|e| InputError::new(e.to_string()))?;
    let mut warnings = workload.warnings;
    warnings.extend(doubts(&measures));
    Ok(TraceInfo {
        schema: SCHEMA,
        about: workload.about,
        warm_up_s: warm_up.as_secs_f64(),
        measures,
        warnings,
    })
}

/// What the figures do not show by themselves.
fn doubts(measures: &Measures) -> Vec<String> {
    let mut doubts = Vec::new();
    if measures.requests == 0 {
        doubts.push("no request arrives after the warm-up: shorten it".to_owned());
    } else if measures.rates.sustained_per_s.is_none() {
        doubts.push("there is no complete minute, so there is no sustained rate".to_owned());
    }
    if let Some(tokens) = measures.prefixes.exact_up_to_tokens {
        doubts.push(format!(
            "more different texts than are remembered: hits of caches beyond {tokens} tokens are lower bounds"
        ));
    }
    doubts
}

#[cfg(test)]
mod tests;
