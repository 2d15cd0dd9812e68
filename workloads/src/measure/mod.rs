//! What a workload is like: rates and burstiness, idle time, lengths, prefix sharing, sessions, skew.
//!
//! One pass over the requests. Memory is bounded by [`Options::texts_max`] (about 130 bytes each),
//! [`Options::sessions_max`] (about 50 bytes each) and the names of tenants, models and adapters, never by the
//! number of requests. The same requests give the same figures, bit by bit.

mod arrivals;
mod cold_starts;
mod fenwick;
mod lengths;
mod popularity;
mod prefixes;
mod recency;
mod sessions;
mod texts;

use forerun_sim::request::{Labels, Request, Status};
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::{Span, Time};
use schemars::JsonSchema;
use serde::Serialize;

pub use arrivals::{BinFigures, IdleGaps, Rates};
pub use cold_starts::{ColdStarts, ScaleToZero};
pub use lengths::Figures;
pub use popularity::{Named, Skew, Together};
pub use prefixes::{CacheHits, Prefixes, TopPrefix, Within};
pub use sessions::Sessions;

use arrivals::Arrivals;
use cold_starts::Restarts;
use lengths::{Correlation, Distribution};
use popularity::{Popularity, SlidingNames};
use prefixes::Sharing;
use sessions::Conversations;

/// What to measure, and within which bounds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests that arrive earlier fill caches and open sessions, and count in no figure.
    pub warm_up: Time,
    /// Tokens per KV block; vLLM's default is 16.
    pub block_tokens: u32,
    /// Whether answers take room in the cache, as they do in vLLM, and can be reused by later turns.
    pub answers: bool,
    /// Cache sizes in tokens at which hits are measured, besides the usual ones.
    pub cache_tokens: Vec<u64>,
    /// Lengths from which a gap between arrivals counts as idle.
    pub idle_gaps: Vec<Span>,
    /// Replicas that are stopped in idle time, where that is asked about.
    pub scale_to_zero: Option<ScaleToZero>,
    /// Times within which different adapters are counted.
    pub adapter_windows: Vec<Span>,
    /// Shared prefixes that are listed.
    pub top_prefixes: usize,
    /// Different texts that are remembered; beyond, the least recently used are forgotten.
    pub texts_max: usize,
    /// Sessions that are remembered; beyond, those that were quiet longest are forgotten.
    pub sessions_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            warm_up: Time::ZERO,
            block_tokens: 16,
            answers: true,
            cache_tokens: Vec::new(),
            idle_gaps: [10, 60, 300, 900, 1800, 3600].map(Span::from_secs).into(),
            scale_to_zero: None,
            adapter_windows: [1, 10, 60].map(Span::from_secs).into(),
            top_prefixes: 5,
            texts_max: 1 << 21,
            sessions_max: 1 << 20,
        }
    }
}

/// A workload in figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Measures {
    /// Requests measured.
    pub requests: u64,
    /// Requests of the warm-up, left out of all figures.
    pub warm_up_requests: u64,
    /// From the end of the warm-up to the last arrival.
    pub span_s: f64,
    /// Rates and burstiness.
    pub rates: Rates,
    /// Time in which nothing arrives, by length of the gap.
    pub idle_gaps: Vec<IdleGaps>,
    /// What stopping all replicas in idle time would do, where that was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_starts: Option<ColdStarts>,
    /// Prompt lengths.
    pub input_tokens: Figures,
    /// Answer lengths.
    pub output_tokens: Figures,
    /// Prompt and answer together: the longest context that a request needs.
    pub context_tokens: Figures,
    /// Pearson's correlation of prompt and answer lengths; `null` where one of them does not vary.
    pub input_output_correlation: Option<f64>,
    /// Prefix sharing.
    pub prefixes: Prefixes,
    /// Conversations.
    pub sessions: Sessions,
    /// Requests by tenant.
    pub tenants: Skew,
    /// Requests by model, where they name one.
    pub models: Skew,
    /// Requests by LoRA adapter.
    pub adapters: Skew,
    /// Different adapters asked for within a time.
    pub adapters_together: Vec<Together>,
}

/// Measures the workload that `source` sends, answering every request as soon as it arrives.
///
/// # Errors
/// When the input turns out wrong.
pub fn measure(source: &mut dyn Source, options: &Options) -> Result<Measures, SourceError> {
    let mut meter = Meter::new(options);
    while source.peek()?.is_some() {
        let Some(request) = source.pop()? else { break };
        meter.record(&request);
        source.ended(&request, Status::Completed, request.arrival);
    }
    Ok(meter.finish(source.labels()))
}

/// Measures requests one by one, in the order of their arrival.
#[derive(Clone, Debug)]
pub struct Meter {
    warm_up: Time,
    top_prefixes: usize,
    requests: u64,
    warm_up_requests: u64,
    arrivals: Arrivals,
    restarts: Option<Restarts>,
    input: Distribution,
    output: Distribution,
    context: Distribution,
    together: Correlation,
    sharing: Sharing,
    conversations: Conversations,
    tenants: Popularity,
    models: Popularity,
    adapters: Popularity,
    windows: Vec<SlidingNames>,
}

impl Meter {
    /// A meter that has seen nothing.
    ///
    /// # Panics
    /// When `block_tokens` is 0.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        assert!(options.block_tokens > 0, "a block has tokens");
        let Options { block_tokens, answers, texts_max, .. } = *options;
        Self {
            warm_up: options.warm_up,
            top_prefixes: options.top_prefixes,
            requests: 0,
            warm_up_requests: 0,
            arrivals: Arrivals::new(options.warm_up, &options.idle_gaps),
            restarts: options.scale_to_zero.map(Restarts::new),
            input: Distribution::new(),
            output: Distribution::new(),
            context: Distribution::new(),
            together: Correlation::default(),
            sharing: Sharing::new(block_tokens, answers, &options.cache_tokens, texts_max),
            conversations: Conversations::new(options.sessions_max),
            tenants: Popularity::default(),
            models: Popularity::default(),
            adapters: Popularity::default(),
            windows: options.adapter_windows.iter().map(|&within| SlidingNames::new(within)).collect(),
        }
    }

    /// Adds a request, which arrives no earlier than those before it.
    pub fn record(&mut self, request: &Request) {
        let (at, input, output) = (request.arrival, request.prompt.tokens(), request.output_tokens);
        let measured = at >= self.warm_up;
        self.sharing.record(request, measured);
        if let Some(session) = &request.session {
            self.conversations.record(session, at, input, output, measured);
        }
        for window in &mut self.windows {
            window.record(request.adapter, at, measured);
        }
        if !measured {
            self.warm_up_requests += 1;
            return;
        }
        self.requests += 1;
        self.arrivals.record(at);
        if let Some(restarts) = &mut self.restarts {
            restarts.record(at);
        }
        self.input.record(input.into());
        self.output.record(output.into());
        self.context.record(u64::from(input) + u64::from(output));
        self.together.record(f64::from(input), f64::from(output));
        self.tenants.record(request.tenant);
        self.models.record(request.model);
        self.adapters.record(request.adapter);
    }

    /// The figures of what was recorded. `labels` are those of the requests.
    #[must_use]
    pub fn finish(&self, labels: &Labels) -> Measures {
        Measures {
            requests: self.requests,
            warm_up_requests: self.warm_up_requests,
            span_s: self.arrivals.span().as_secs_f64(),
            rates: self.arrivals.rates(),
            idle_gaps: self.arrivals.idle_gaps(),
            cold_starts: self.restarts.as_ref().map(|restarts| restarts.figures(self.arrivals.span())),
            input_tokens: self.input.figures(1.0),
            output_tokens: self.output.figures(1.0),
            context_tokens: self.context.figures(1.0),
            input_output_correlation: self.together.pearson(),
            prefixes: self.sharing.figures(self.top_prefixes),
            sessions: self.conversations.figures(),
            tenants: self.tenants.skew(labels),
            models: self.models.skew(labels),
            adapters: self.adapters.skew(labels),
            adapters_together: self.windows.iter().map(SlidingNames::together).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
