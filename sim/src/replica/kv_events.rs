//! KV blocks that a router's index does not know of yet. vLLM registers blocks when it schedules the step that computes
//! them, and publishes the events with the step's result (v1/core/sched/scheduler.py, `update_from_output`).

use crate::engine::{Batch, Engine};
use crate::kv::Pool;
use crate::prompt::Prompt;
use crate::request::Request;
use crate::time::{Span, Time};

/// Prompts that are being computed, until the events of their blocks have arrived.
#[derive(Debug)]
pub(crate) struct KvEvents {
    /// From a step's end to the effect on the index.
    delay: Span,
    computing: Vec<Computing>,
}

/// What a step computes of a prompt.
#[derive(Debug)]
struct Computing {
    prompt: Prompt,
    adapter: Option<u32>,
    /// Its tokens before it were cached or computed before.
    from: u32,
    step: u64,
    ended: Option<Time>,
}

impl KvEvents {
    pub(crate) fn new(delay: Span) -> Self {
        Self { delay, computing: Vec::new() }
    }

    /// A batch is in flight.
    pub(super) fn launched<P: Pool>(&mut self, engine: &Engine<P>, batch: &Batch) {
        let prefills = batch.scheduled.iter().filter(|part| !part.decode);
        self.computing.extend(prefills.map(|part| {
            let (prompt, adapter) = engine.prompt_of(part);
            Computing { prompt: prompt.clone(), adapter, from: part.computed, step: batch.step, ended: None }
        }));
    }

    /// The result of a step is there.
    pub(super) fn finished(&mut self, step: u64, now: Time) {
        for part in self.computing.iter_mut().filter(|part| part.step == step) {
            part.ended = Some(now);
        }
        let delay = self.delay;
        self.computing.retain(|part| part.ended.is_none_or(|ended| ended + delay > now));
    }

    /// The server has died.
    pub(super) fn forget(&mut self) {
        self.computing.clear();
    }

    /// Of the `cached` leading tokens of `request`, those that the index knows of: whole blocks.
    pub(crate) fn known(&self, now: Time, request: &Request, cached: u32, block_tokens: u32) -> u32 {
        let adapter = request.adapter.is_some().then_some(request.adapter.0);
        let on_their_way = self.computing.iter().filter(|part| {
            part.from < cached
                && part.adapter == adapter
                && part.ended.is_none_or(|ended| ended + self.delay > now)
                && part.prompt.common_tokens(&request.prompt) > part.from
        });
        on_their_way.map(|part| part.from).fold(cached, u32::min) / block_tokens * block_tokens
    }
}
