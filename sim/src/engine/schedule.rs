//! Who is in the next batch: `Scheduler.schedule` (vllm/v1/core/sched/scheduler.py, 0.32).
//!
//! There are no prefill and decode phases: a request wants all of its known tokens computed. Running requests
//! come first, in order of admission; then waiting ones are admitted, unless somebody was preempted.

use super::config::Policy;
use super::connector::External;
use super::{Admission, Batch, Engine, Scheduled, Slot, State};
use crate::kv::Pool;
use crate::kv::manager::Demand;
use crate::request::Cause;

impl<P: Pool> Engine<P> {
    /// Whether the next step can treat the cohort as one. If not, it must be [dissolved](Self::dissolve) before
    /// [`schedule`](Self::schedule).
    pub fn cohort_holds(&mut self) -> bool {
        self.cohort_foresee();
        self.cohort.is_empty() || self.cohort_fits(self.chunk_cap())
    }

    /// Forms the next batch into `batch` (cleared first). What a following call may assume is accounted for at
    /// once; the result of the batch comes later, with [`update`](Self::update).
    pub fn schedule(&mut self, batch: &mut Batch) {
        batch.clear();
        batch.step = self.formed;
        if let Some(connector) = &mut self.connector {
            connector.unsettled = false;
        }
        let chunk_cap = self.chunk_cap();
        let mut budget = self.config.max_num_batched_tokens;
        if !self.cohort.is_empty() {
            self.cohort_schedule(batch);
            budget -= batch.cohort.decodes;
        }
        self.schedule_running(batch, &mut budget, chunk_cap);
        if batch.preempted.is_empty() {
            self.admit_waiting(batch, &mut budget, chunk_cap);
        } else {
            batch.blocked = Some(Cause::EngineQueueKv);
        }
        (self.looked, self.unseen) = (self.arrivals, 0);
        self.account(batch);
        self.plan_transfers(batch);
        debug_assert!(batch.tokens() <= self.config.max_num_batched_tokens, "a step stays within its budget");
        if !batch.is_empty() {
            // How many tokens a decode gains is known only when its guesses have been verified.
            if P::LOCKSTEP && self.verdicts.is_none() {
                self.cohort_admit(batch);
            }
            batch.counted = true;
            self.formed += 1;
        }
    }

    /// Longest prefill chunk of this step; 0 for no limit. A lone request is never limited.
    fn chunk_cap(&self) -> u32 {
        let requests = self.num_running() + self.num_waiting();
        let threshold = self.config.long_prefill_token_threshold;
        if threshold == 0 || requests <= 1 {
            0
        } else if self.config.long_prefill_token_threshold_adaptive {
            threshold.max(self.config.max_num_batched_tokens / requests)
        } else {
            threshold
        }
    }

    fn schedule_running(&mut self, batch: &mut Batch, budget: &mut u32, chunk_cap: u32) {
        self.kv.no_prefix();
        let slots = self.draft_slots();
        let mut index = 0;
        while index < self.in_turn().len() && *budget > slots {
            let slot = self.in_turn()[index];
            let tokens = self.tokens_wanted(slot, *budget - slots, chunk_cap);
            if tokens == 0 {
                index += 1;
                continue;
            }
            self.expose_answers(slot);
            while !self.extend(slot, tokens) {
                let victim = self.preempt_one(batch, budget, &mut index);
                if victim == slot {
                    return;
                }
            }
            let entry = &self.requests[slot as usize];
            batch.scheduled.push(part(slot, entry, tokens));
            *budget -= tokens + slots;
            index += 1;
        }
    }

    /// Running requests to be scheduled one by one.
    fn in_turn(&self) -> &[Slot] {
        if P::LOCKSTEP { &self.listed } else { &self.running }
    }

    /// Tokens that a running request may compute in this step; 0 to pass it over.
    pub(super) fn tokens_wanted(&self, slot: Slot, budget: u32, chunk_cap: u32) -> u32 {
        let entry = &self.requests[slot as usize];
        // Async scheduling: the batch in flight brings its last token, as max_tokens foretells.
        let end = entry.request.prompt.tokens() + entry.request.max_tokens;
        if entry.placeholders > 0 && entry.computed + 2 - entry.placeholders >= end {
            return 0;
        }
        let wanted = entry.known() + entry.placeholders + entry.guesses - entry.computed;
        let room = (self.config.max_model_len - 1).saturating_sub(entry.computed);
        capped(wanted, chunk_cap).min(budget).min(room)
    }

    /// Places of the step's token budget that a draft needs for each request.
    fn draft_slots(&self) -> u32 {
        self.config.speculation.map_or(0, |speculation| speculation.draft_slots)
    }

    /// Tokens for which a draft needs KV slots beyond those of the step.
    fn lookahead(&self) -> u32 {
        self.config.speculation.map_or(0, |speculation| speculation.lookahead)
    }

    /// Blocks for `tokens` more tokens of a running request.
    fn extend(&mut self, slot: Slot, tokens: u32) -> bool {
        let lookahead = self.lookahead();
        let entry = &mut self.requests[slot as usize];
        let demand = Demand {
            computed: entry.computed,
            new: tokens,
            known: entry.known(),
            lookahead,
            full_sequence: false,
            spare_blocks: 0,
        };
        self.kv.allocate(&mut entry.holding, &demand)
    }

    /// Preempts the request that the policy names, which may already be part of this step. `index` is the
    /// position in `running` being scheduled and is kept on the same request.
    fn preempt_one(&mut self, batch: &mut Batch, budget: &mut u32, index: &mut usize) -> Slot {
        let position = match self.config.policy {
            Policy::Fcfs => self.running.len() - 1,
            Policy::Priority => {
                let key = |&position: &usize| self.requests[self.running[position] as usize].key();
                (0..self.running.len()).max_by_key(key).expect("the request being scheduled is running")
            }
        };
        debug_assert!(self.cohort.is_empty(), "preemption needs everyone listed");
        let victim = self.running.remove(position);
        if P::LOCKSTEP {
            self.listed.remove(position);
        }
        if position < *index {
            *index -= 1;
        }
        if let Some(at) = batch.scheduled.iter().position(|part| part.slot == victim) {
            *budget += batch.scheduled.remove(at).new + self.draft_slots();
        }
        self.preempt(victim);
        batch.preempted.push(self.requests[victim as usize].request.id);
        victim
    }

    /// Frees everything the request holds; it computes prompt and emitted tokens again when it resumes.
    fn preempt(&mut self, slot: Slot) {
        let mut drops_stale = false;
        if let Some(connector) = &mut self.connector {
            connector.note_complete(slot);
            if let Some(offload) = &mut connector.offload {
                offload.preempted(slot);
            }
            drops_stale = connector.drops_stale_outputs();
        }
        let entry = &mut self.requests[slot as usize];
        self.kv.release(&mut entry.holding);
        entry.state = State::Preempted;
        entry.computed = 0;
        entry.preemptions += 1;
        entry.drops_stale = drops_stale || (entry.drops_stale && entry.stale > 0);
        entry.stale = entry.inflight;
        entry.placeholders = 0;
        entry.guesses = 0;
        let key = entry.key();
        self.waiting.put_back(key, slot);
    }

    fn admit_waiting(&mut self, batch: &mut Batch, budget: &mut u32, chunk_cap: u32) {
        self.adapters.clear();
        if self.config.max_loras.is_some() {
            self.adapters.extend(self.cohort.adapters());
            for part in &batch.scheduled {
                note_adapter(&mut self.adapters, self.requests[part.slot as usize].request.adapter);
            }
        }
        while let Some(slot) = self.holding.head().or_else(|| self.waiting.head()) {
            if *budget <= self.draft_slots() {
                batch.blocked = Some(Cause::EngineQueueBudget);
                break;
            }
            if self.running.len() >= self.config.active_seqs() as usize {
                batch.blocked = Some(Cause::EngineQueueSlots);
                break;
            }
            if self.must_pass(slot, batch) {
                self.skip_head(slot);
                continue;
            }
            if let Err(cause) = self.admit(slot, batch, budget, chunk_cap) {
                batch.blocked = Some(cause);
                break;
            }
        }
        if self.skipped_holding.is_empty() && self.skipped.is_empty() {
            return;
        }
        for slot in self.skipped_holding.drain(..).rev() {
            let key = self.requests[slot as usize].key();
            self.holding.put_back(key, slot);
        }
        for slot in self.skipped.drain(..).rev() {
            let key = self.requests[slot as usize].key();
            self.waiting.put_back(key, slot);
        }
    }

    /// Whether `slot`, at the head of its queue, is passed over in this step.
    fn must_pass(&mut self, slot: Slot, batch: &mut Batch) -> bool {
        match self.requests[slot as usize].state {
            State::Loading => return true,
            State::Loaded => self.land(slot),
            _ => {}
        }
        let entry = &self.requests[slot as usize];
        if entry.stale > 0 && !entry.drops_stale {
            return true;
        }
        let waits = self.adapter_must_wait(slot);
        if waits {
            batch.lora_skipped.push(entry.request.id);
        }
        waits
    }

    /// Takes `slot` off the head of its queue.
    pub(super) fn pop_head(&mut self, slot: Slot) {
        let holds = self.requests[slot as usize].holds;
        let queue = if holds { &mut self.holding } else { &mut self.waiting };
        let head = queue.pop();
        debug_assert_eq!(head, Some(slot), "the head of its queue");
    }

    /// Passes over the head of its queue; it keeps its place for the next step.
    fn skip_head(&mut self, slot: Slot) {
        self.pop_head(slot);
        let holds = self.requests[slot as usize].holds;
        if holds { &mut self.skipped_holding } else { &mut self.skipped }.push(slot);
    }

    fn adapter_must_wait(&self, slot: Slot) -> bool {
        match (self.config.max_loras, self.requests[slot as usize].request.adapter) {
            (Some(max), Some(adapter)) => {
                self.adapters.len() == max as usize && !self.adapters.contains(&adapter)
            }
            _ => false,
        }
    }

    /// Moves the head of the queue, `slot`, to the batch, or to those that hold blocks for KV that is loaded; the
    /// cause when it must wait instead.
    fn admit(
        &mut self,
        slot: Slot,
        batch: &mut Batch,
        budget: &mut u32,
        chunk_cap: u32,
    ) -> Result<(), Cause> {
        self.expose_answers(slot);
        let spare_blocks = if self.running.is_empty() { 0 } else { self.config.watermark_blocks() };
        let entry = &mut self.requests[slot as usize];
        let (computed, known, holds) = (entry.computed, entry.known(), entry.holds);
        let mut ready_tokens = computed;
        if holds {
            self.kv.no_prefix();
            // vLLM counts all blocks of a request as new when it is admitted, those included that it has held since
            // its load began.
            self.kv.touch(&entry.holding);
        } else {
            ready_tokens = self.kv.find_prefix(&mut entry.holding, known);
            let external = self.external(slot, ready_tokens, batch);
            match external {
                External::Nothing => {}
                External::Remote(tokens) | External::Host(tokens) => {
                    let is_remote = matches!(external, External::Remote(_));
                    let started = self.start_load(slot, ready_tokens, tokens, is_remote, spare_blocks, batch);
                    return if started { Ok(()) } else { Err(Cause::EngineQueueKv) };
                }
                External::Unknown => {
                    self.skip_head(slot);
                    return Ok(());
                }
            }
        }
        let slots = self.draft_slots();
        let room = *budget - slots;
        let wanted = match known - ready_tokens {
            1 if self.verdicts.is_some() => self.padded(ready_tokens, batch),
            missing => capped(missing, chunk_cap),
        };
        if wanted > room && (!self.config.chunked_prefill || known - ready_tokens == 1) {
            return Err(Cause::EngineQueueBudget);
        }
        let tokens = wanted.min(room);
        let lookahead = self.lookahead();
        let demand = Demand {
            computed,
            new: tokens,
            known,
            lookahead,
            full_sequence: self.config.reserve_full_isl,
            spare_blocks,
        };
        let entry = &mut self.requests[slot as usize];
        if !self.kv.allocate(&mut entry.holding, &demand) {
            return Err(Cause::EngineQueueKv);
        }
        self.pop_head(slot);
        let entry = &mut self.requests[slot as usize];
        self.running.push(slot);
        if P::LOCKSTEP {
            self.listed.push(slot);
        }
        entry.admission = self.admissions;
        self.admissions += 1;
        if ready_tokens + tokens < known
            && let Some(connector) = &mut self.connector
        {
            connector.note_incomplete(slot);
        }
        let resumed = entry.state == State::Preempted;
        batch.admitted.push(Admission { id: entry.request.id, hit_tokens: ready_tokens, resumed });
        entry.state = State::Running;
        entry.holds = false;
        entry.computed = ready_tokens;
        batch.scheduled.push(part(slot, entry, tokens));
        *budget -= tokens + slots;
        note_adapter(&mut self.adapters, entry.request.adapter);
        Ok(())
    }

    /// Tokens of a request that is admitted with one token to compute: among decodes that verify guesses it is padded to
    /// their size, so that the batch keeps its CUDA graph.
    fn padded(&self, ready_tokens: u32, batch: &Batch) -> u32 {
        let padded = 1 + self.config.guesses();
        let running = &batch.scheduled[..batch.scheduled.len() - batch.admitted.len()];
        let decodes = |part: &Scheduled| !self.requests[part.slot as usize].chunk;
        let fits = ready_tokens + padded < self.config.max_model_len;
        if fits && !running.is_empty() && running.iter().all(decodes) { padded } else { 1 }
    }

    /// What the next call may assume of this batch (`_update_after_schedule`).
    fn account(&mut self, batch: &mut Batch) {
        for part in &mut batch.scheduled {
            let entry = &mut self.requests[part.slot as usize];
            entry.computed += part.new;
            entry.inflight += part.new;
            entry.chunk = entry.computed < entry.known() + entry.placeholders;
            part.samples = !entry.chunk;
            if entry.chunk {
                continue;
            }
            entry.guesses = self.config.guesses();
            if self.config.async_scheduling {
                entry.placeholders += 1 + part.guesses;
            }
        }
    }
}

/// A request's part in the step; whether it samples is known once the step is complete.
fn part<P: Pool>(slot: Slot, entry: &super::Entry<P>, new: u32) -> Scheduled {
    let guesses = (entry.computed + new).saturating_sub(entry.known() + entry.placeholders);
    Scheduled {
        id: entry.request.id,
        slot,
        computed: entry.computed,
        new,
        samples: false,
        guesses,
        decode: new - guesses == 1 && entry.computed >= entry.request.prompt.tokens(),
    }
}

fn capped(tokens: u32, cap: u32) -> u32 {
    if cap > 0 { tokens.min(cap) } else { tokens }
}

fn note_adapter(adapters: &mut Vec<u32>, adapter: Option<u32>) {
    if let Some(adapter) = adapter
        && !adapters.contains(&adapter)
    {
        adapters.push(adapter);
    }
}
