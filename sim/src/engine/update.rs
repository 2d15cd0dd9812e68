//! What a finished batch changes: `Scheduler.update_from_output` (vllm/v1/core/sched/scheduler.py, 0.32).

use super::speculation::Verdicts;
use super::{Batch, Engine, Entry, Scheduled, Slot, State, Token};
use crate::kv::Pool;

impl<P: Pool> Engine<P> {
    /// Takes the result of `batch`, the oldest in flight: every request whose last known token it computed emits
    /// a token. Appends the tokens of listed requests to `tokens`, then the last tokens of all that finish, in
    /// batch order; finished requests are gone afterwards, their blocks free. Returns how many tokens the cohort
    /// emitted, last ones included.
    pub fn update(&mut self, batch: &Batch, tokens: &mut Vec<Token>) -> u32 {
        let lockstep = self.cohort_emits(batch);
        let mut finished = std::mem::take(&mut self.finished);
        for index in 0..batch.scheduled.len() {
            if let Some((slot, token)) = self.take_result(batch, index) {
                if token.last {
                    finished.push((slot, token));
                } else {
                    tokens.push(token);
                }
            }
        }
        if batch.counted {
            self.updated += 1;
            self.cohort_finish(batch.step, &mut finished);
        }
        finished.sort_unstable_by_key(|&(slot, _)| self.requests[slot as usize].admission);
        for (slot, token) in finished.drain(..) {
            tokens.push(token);
            self.finish(slot);
        }
        self.finished = finished;
        lockstep
    }

    /// The result of one listed request: its token, if it emits one.
    fn take_result(&mut self, batch: &Batch, index: usize) -> Option<(Slot, Token)> {
        let part = &batch.scheduled[index];
        let entry = &mut self.requests[part.slot as usize];
        debug_assert_eq!(entry.request.id, part.id, "a slot is not reused while a batch mentions it");
        entry.inflight -= part.new;
        if entry.has_ended() {
            if entry.state == State::Gone && entry.inflight == 0 {
                self.requests.remove(part.slot as usize);
            }
            return None;
        }
        let stale = entry.stale > 0;
        if stale {
            entry.stale -= part.new;
        }
        if !part.samples || (stale && entry.drops_stale) {
            return None;
        }
        let mut together = 1;
        if part.guesses > 0 {
            together += verify(&mut self.verdicts, entry, part);
            together = together
                .min(entry.request.output_tokens - entry.emitted)
                .min(self.config.max_model_len - entry.known());
            if !stale {
                // What was computed for guesses that do not stand is computed again.
                entry.computed -= 1 + part.guesses - together;
            }
        }
        entry.emitted += together;
        if self.config.async_scheduling {
            if !stale {
                entry.placeholders -= 1 + part.guesses;
            }
            if entry.state == State::Running {
                // The block that this token completes can be named only now.
                let known = entry.known();
                let computed = (entry.computed - entry.placeholders).min(known);
                self.kv.register(&mut entry.holding, computed, known);
            }
        }
        let last = entry.emitted >= entry.request.output_tokens || entry.known() >= self.config.max_model_len;
        Some((part.slot, Token { id: part.id, emitted: entry.emitted, together, last, lockstep: false }))
    }

    /// A request has emitted its last token.
    fn finish(&mut self, slot: Slot) {
        if self.requests[slot as usize].state == State::Running {
            self.leave_running(slot);
        } else {
            self.leave_queue(slot);
        }
        let last = self.state_after_finish(slot);
        self.retire(slot, last);
    }
}

/// How many of the guesses of `part` stand. A decode's do on their merits; room for guesses, which fills up a request
/// that has just come from elsewhere, holds none.
fn verify<P: Pool>(verdicts: &mut Option<Verdicts>, entry: &Entry<P>, part: &Scheduled) -> u32 {
    match verdicts {
        Some(verdicts) if part.decode => verdicts.accepted(entry.request.output, entry.emitted, part.guesses),
        _ => 0,
    }
}
