//! The same requests with longer answers, or with fewer of them asking what others asked: questions of what if.

use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Labels, Request, Status};
use forerun_sim::rng::Stream;
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::Time;

/// How requests differ from the workload's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alteration {
    /// Output tokens as a multiple of what they are. What later turns of a session repeat of them stays as it was.
    pub answers: f64,
    /// Share of requests that keep their prompts; those of the others become texts that nobody else sends.
    pub shared: f64,
}

impl Default for Alteration {
    fn default() -> Self {
        Self { answers: 1.0, shared: 1.0 }
    }
}

/// A source whose requests are altered.
pub(crate) struct Altered<'a> {
    inner: &'a mut dyn Source,
    alteration: Alteration,
    stream: Stream,
}

impl<'a> Altered<'a> {
    /// The requests of `inner`, altered; `seed` chooses whose prompts stay.
    pub(crate) fn new(inner: &'a mut dyn Source, alteration: Alteration, seed: u64) -> Self {
        Self { inner, alteration, stream: Stream::new(seed, "sharing") }
    }
}

/// So many times as many tokens, at least one.
fn scaled(tokens: u32, factor: f64) -> u32 {
    ((f64::from(tokens) * factor).round() as u32).max(1)
}

impl Source for Altered<'_> {
    fn peek(&mut self) -> Result<Option<Time>, SourceError> {
        self.inner.peek()
    }

    fn pop(&mut self) -> Result<Option<Request>, SourceError> {
        let Some(mut request) = self.inner.pop()? else { return Ok(None) };
        let Alteration { answers, shared } = self.alteration;
        request.output_tokens = scaled(request.output_tokens, answers);
        request.max_tokens = request.max_tokens.map(|tokens| scaled(tokens, answers));
        if shared < 1.0 && self.stream.uniform() >= shared {
            // Workloads count their private texts from 0, far below.
            let own = Content::private((1 << 59) + request.id.0);
            request.prompt = Prompt::of(own, request.prompt.tokens());
        }
        Ok(Some(request))
    }

    fn ended(&mut self, request: &Request, status: Status, at: Time) {
        self.inner.ended(request, status, at);
    }

    fn labels(&self) -> &Labels {
        self.inner.labels()
    }
}
