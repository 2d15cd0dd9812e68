//! What replicas do: steps end, their tokens reach their clients, and the next ones begin.

use super::live::{Live, Seat};
use super::{Fleet, RunError};
use crate::engine::{Admission, Batch, Handle, Token};
use crate::event::Rank;
use crate::kv::Pool;
use crate::replica::Replica;
use crate::request::{Cause, ReplicaId, Status};
use crate::time::Span;

impl<P: Pool> Fleet<'_, P> {
    /// A replica's step ends, or it wakes.
    pub(super) fn take_turn(&mut self, id: ReplicaId, rank: Rank) -> Result<(), RunError> {
        let index = id.0 as usize;
        if rank == Rank::Wake {
            self.replicas[index].wake = None;
            self.pump(id, rank)?;
        } else {
            self.catch_up(index, true);
            if self.replicas[index].step_ends(self.now) {
                self.step_done(id)?;
            }
        }
        self.announce(index);
        Ok(())
    }

    /// Takes the quiet steps of a replica that have ended by now; those that end just now only if `inclusive`.
    pub(super) fn catch_up(&mut self, index: usize, inclusive: bool) {
        if let Some(scrape) = self.last_scrape() {
            self.scrape_replica(index, scrape);
        }
        self.run_quiet(index, self.now, inclusive);
    }

    /// Makes ordinary requests of a replica's decodes in lockstep.
    pub(super) fn dissolve(&mut self, index: usize) {
        self.replicas[index].dissolve();
        self.note_dissolved(index);
    }

    /// Requests that have left the lockstep know their own tokens again.
    fn note_dissolved(&mut self, index: usize) {
        let Replica { dissolved, last_result, .. } = &mut self.replicas[index];
        if dissolved.is_empty() {
            return;
        }
        for (id, emitted) in dissolved.drain(..) {
            let live = self.live.get_mut(Seat::from(id));
            live.outcome.emitted = emitted;
            live.last_token = *last_result;
        }
    }

    /// Tells the agenda when the replica has something to do.
    pub(super) fn announce(&mut self, index: usize) {
        self.agenda.set(ReplicaId(index as u32), self.replicas[index].next_event());
    }

    /// Forms batches until enough are in flight, and starts the oldest; as part of an event of this rank.
    fn pump(&mut self, id: ReplicaId, rank: Rank) -> Result<(), RunError> {
        let index = id.0 as usize;
        if self.replicas[index].is_idle() && self.awaits_others(index) {
            return Ok(());
        }
        self.form_batches(id, rank);
        if !self.start(index)
            && self.replicas[index].is_idle()
            && self.replicas[index].engine.has_requests()
            && !self.moves.awaits(index)
        {
            return Err(self.stuck(index));
        }
        Ok(())
    }

    /// Forms batches until enough are in flight.
    pub(super) fn form_batches(&mut self, id: ReplicaId, rank: Rank) {
        let index = id.0 as usize;
        while let Some(flight) = self.replicas[index].form_batch(self.now) {
            let batch = &flight.batch;
            self.note_dissolved(index);
            self.note_schedule(id, rank, batch);
            if batch.is_empty() {
                // By priority a request may have preempted itself before anybody else had a turn. vLLM steps on
                // at once when no batch is in flight.
                let again = !batch.preempted.is_empty() && self.replicas[index].is_idle();
                self.replicas[index].recycle(flight);
                if again {
                    continue;
                }
                break;
            }
            self.replicas[index].launch(flight);
        }
        if self.moves.any {
            self.start_flushed(index);
        }
    }

    /// Books what the scheduler just decided.
    fn note_schedule(&mut self, id: ReplicaId, rank: Rank, batch: &Batch) {
        let (now, index) = (self.now, id.0 as usize);
        let Replica { revisit, clock, .. } = &mut self.replicas[index];
        for &request in revisit.iter() {
            let here = |live: &&mut Live| live.replica() == Some(id) && live.account.awaits_a_look();
            if let Some(live) = self.live.find_mut(Seat::from(request)).filter(here) {
                live.account.queued(now, clock);
            }
        }
        revisit.clear();
        for &request in &batch.preempted {
            let live = self.live.get_mut(Seat::from(request));
            live.outcome.preemptions += 1;
            live.account.queued(now, clock);
        }
        for &request in &batch.lora_skipped {
            let live = self.live.get_mut(Seat::from(request));
            live.account.plain(now, clock, Cause::EngineQueueLora);
            revisit.push(request);
        }
        if self.moves.any {
            self.start_transfers(index, batch);
        }
        for admission in &batch.admitted {
            self.note_admission(index, rank, admission);
        }
    }

    fn note_admission(&mut self, index: usize, rank: Rank, admission: &Admission) {
        let seat = Seat::from(admission.id);
        let live = self.live.get_mut(seat);
        live.account.plain(self.now, &self.replicas[index].clock, Cause::OwnPrefill);
        if live.outcome.scheduled.is_none() {
            live.outcome.scheduled = Some(self.now);
            live.outcome.cached_tokens = admission.hit_tokens;
            live.outcome.limit_loaded(admission.hit_tokens);
            let duplicates = self.duplicate_tokens(index, rank, seat);
            self.live.get_mut(seat).outcome.duplicate_tokens = duplicates;
        }
    }

    /// Prompt tokens of a request, just admitted by replica `index` in an event of this rank, that are not cached there
    /// but on another replica of its model.
    fn duplicate_tokens(&mut self, index: usize, rank: Rank, seat: Seat) -> u32 {
        let live = self.live.get_mut(seat);
        let handle = live.handle.expect("an admitted request is in its engine");
        let block_size = self.replicas[index].engine.config().block_size;
        let from = live.outcome.cached_tokens / block_size;
        let to = live.shareable_tokens() / block_size;
        if from >= to {
            return 0;
        }
        let prompt = &live.outcome.request.prompt;
        let answers = prompt.has_answers().then(|| prompt.clone());
        let model = self.model_of_pool[self.pool_of[index]];
        // Each replica has a prefix of the prompt, without gaps: the longest one is their union.
        let mut longest = from;
        for place in 0..self.engines[model].len() {
            let other = self.engines[model][place];
            if other == index || longest >= to {
                continue;
            }
            if let Some(prompt) =
                answers.as_ref().filter(|prompt| self.replicas[other].engine.answers(prompt))
            {
                self.catch_up_beside(index, rank, other);
                self.replicas[other].engine.expose(prompt, false);
            }
            // Quiet steps evict and never add: whoever has no more before them has no more after them.
            if self.cached_on(other, (index, handle), longest, to) > 0 {
                self.catch_up_beside(index, rank, other);
                longest += self.cached_on(other, (index, handle), longest, to);
            }
        }
        (longest - from) * block_size
    }

    /// Lets replica `other` catch up with an event of this rank at replica `index`: if its step ends just now, it has
    /// had its turn if its index is lower.
    fn catch_up_beside(&mut self, index: usize, rank: Rank, other: usize) {
        self.catch_up(other, rank == Rank::Wake || other < index);
    }

    /// How many blocks from block `from` on, at most up to block `to`, of a request in the engine of another replica
    /// are cached on replica `other`.
    fn cached_on(&self, other: usize, (index, handle): (usize, Handle), from: u32, to: u32) -> u32 {
        let chain = self.replicas[index].engine.chain(handle);
        self.replicas[other].engine.kv().pool().cached(chain, from, to)
    }

    /// A step ends: its tokens reach their clients, and the next step starts.
    fn step_done(&mut self, id: ReplicaId) -> Result<(), RunError> {
        let index = id.0 as usize;
        let since_last = self.now.since(self.replicas[index].last_result);
        let done = self.replicas[index].finish_step(self.now);
        let mut tokens = std::mem::take(&mut self.tokens);
        let lockstep = self.replicas[index].engine.update(&done.batch, &mut tokens);
        self.replicas[index].note_blocks(self.now);
        self.replicas[index].publish();
        let listed: u32 = tokens.iter().filter(|token| !token.lockstep).map(|token| token.together).sum();
        if done.shape.guesses > 0 {
            let accepted = tokens.iter().map(|token| token.together - 1).sum();
            self.replicas[index].note_guesses(self.now, &done.shape, accepted);
        }
        let unseen = self.unseen(&tokens);
        if !self.shadow[index] {
            let seen = listed + lockstep - unseen;
            self.observer.step_done(self.now, id, done.shape.prefill_tokens, seen);
        }
        if lockstep > 0 && !self.shadow[index] {
            // All of them emitted a token in the step before.
            self.observer.token_gaps(self.now, since_last, lockstep);
        }
        self.start_stores(index, &done.batch);
        self.replicas[index].recycle(done);
        self.deliver(index, &tokens);
        tokens.clear();
        self.tokens = tokens;
        self.pump(id, Rank::StepDone)
    }

    fn deliver(&mut self, index: usize, tokens: &[Token]) {
        let now = self.now;
        let (mut gap, mut count) = (Span::ZERO, 0);
        for token in tokens {
            let clock = &self.replicas[index].clock;
            let seat = Seat::from(token.id);
            let live = self.live.get_mut(seat);
            if live.is_prefilled_elsewhere() {
                self.prompt_computed(index, seat);
                continue;
            }
            live.outcome.emitted = token.emitted;
            if token.lockstep {
                // Its gap is counted with the others'.
            } else if live.outcome.first_token.is_none() {
                live.outcome.first_token = Some(now);
                if live.at_router {
                    self.router.first_token(now, live.outcome.request.id);
                }
            } else if !self.shadow[index] {
                let own = now.since(live.last_token);
                if own != gap && count > 0 {
                    self.observer.token_gaps(now, gap, count);
                    count = 0;
                }
                gap = own;
                count += 1;
            }
            live.last_token = now;
            if live.account.is_prefilling() {
                live.account.decoding(now, clock);
            }
            if token.last {
                live.handle = None;
                self.end(seat, Status::Completed);
            }
        }
        if count > 0 {
            self.observer.token_gaps(now, gap, count);
        }
    }
}
