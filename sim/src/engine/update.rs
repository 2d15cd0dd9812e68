//! What a finished batch changes: `Scheduler.update_from_output` (vllm/v1/core/sched/scheduler.py, 0.32).

use super::{Batch, Engine, State, Token};
use crate::kv::Pool;

impl<P: Pool> Engine<P> {
    /// Takes the result of `batch`: every request whose last known token it computed emits a token. Appends
    /// the tokens to `tokens`, in batch order; finished requests are gone afterwards, their blocks free.
    pub fn update(&mut self, batch: &Batch, tokens: &mut Vec<Token>) {
        for part in &batch.scheduled {
            let entry = &mut self.requests[part.slot as usize];
            debug_assert_eq!(entry.request.id, part.id, "a slot is not reused while a batch mentions it");
            entry.inflight -= part.new;
            if entry.state == State::Gone {
                if entry.inflight == 0 {
                    self.requests.remove(part.slot as usize);
                }
                continue;
            }
            let stale = entry.stale > 0;
            if stale {
                entry.stale -= part.new;
            }
            if !part.samples {
                continue;
            }
            entry.emitted += 1;
            let running = entry.state == State::Running;
            if self.config.async_scheduling {
                if !stale {
                    entry.placeholders -= 1;
                }
                if running {
                    // The block that this token completes can be named only now.
                    let computed = entry.computed - entry.placeholders;
                    let known = entry.known();
                    self.kv.register(&mut entry.holding, computed, known);
                }
            }
            let last =
                entry.emitted >= entry.request.output_tokens || entry.known() >= self.config.max_model_len;
            tokens.push(Token { id: part.id, emitted: entry.emitted, last });
            if last {
                if running {
                    self.running.retain(|&slot| slot != part.slot);
                } else {
                    let key = entry.key();
                    self.waiting.remove(key, part.slot);
                }
                self.retire(part.slot);
            }
        }
    }
}
