//! Decodes in lockstep: a step costs what changes in it, not what runs in it.
//!
//! A request that has computed its prompt gains one token in every step until it ends. Its counters, the steps
//! in which it needs a block, and the step in which it finishes are then pure functions of the step's number, so
//! that a batch need not list it. Such requests form the cohort: the scheduler handles it as one, and whatever
//! would break its uniformity (blocks running out, a budget that does not suffice, an abort) first dissolves it
//! into ordinary entries, which the ordinary rules of `schedule` and `update` then treat one by one.
//!
//! Steps are numbered by the non-empty batches formed. A member `sampled` its first token of this tenure in step
//! f, which listed it; the cohort stands for it from step f + 1 on, up to its `last` step. In step s it computes
//! its token number `base + s - f`, where `base` tokens were computed after step f.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::connector::Connector;
use super::longest::Longest;
use super::{Batch, Engine, Entry, Scheduled, Slot, State, Token};
use crate::kv::Pool;
use crate::prompt::{Content, Prompt};
use crate::request::{Cause, RequestId};

/// The cohort's part in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CohortShare {
    /// Members that the batch computes.
    pub decodes: u32,
    /// Tokens whose keys and values they read, together.
    pub context: u64,
    /// Of those, the tokens of the longest member.
    pub longest: u64,
}

/// A member's tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    /// Step that listed it last and sampled a token.
    joined: u64,
    /// Tokens computed after that step.
    base: u32,
    /// Step whose result finishes it.
    finish: u64,
    /// Last step that computes it: one later where the scheduler cannot foresee the end.
    last: u64,
}

/// All decodes in lockstep.
#[derive(Clone, Debug)]
pub(super) struct Cohort {
    block_tokens: u64,
    /// Members of the next batch.
    decodes: u32,
    /// Sum over them of `base - joined`: their context in step s is this plus `decodes * s`.
    context_base: i64,
    /// The longest of them.
    longest: Longest,
    /// Of them, those that need a block in steps of number `index` modulo the block size.
    needs_block: Vec<u32>,
    /// Members by the step that finishes them, then in order of admission.
    finishes: BinaryHeap<Reverse<(u64, u64, Slot)>>,
    /// Members that are in no further batch and finish with the next result; async scheduling only.
    ending: Vec<Slot>,
    /// Members that finish with the next result although the batch after it computes them; async only.
    overrunning: Vec<Slot>,
    /// In the batch that is updated next after a finish, members that have finished already: their tokens are
    /// dropped.
    wasted: u32,
    /// Distinct adapters of the members of the next batch, and how many have each.
    adapters: Vec<(u32, u32)>,
}

impl Cohort {
    pub(super) fn new(block_tokens: u32) -> Self {
        Self {
            block_tokens: u64::from(block_tokens),
            decodes: 0,
            context_base: 0,
            longest: Longest::default(),
            needs_block: vec![0; block_tokens as usize],
            finishes: BinaryHeap::new(),
            ending: Vec::new(),
            overrunning: Vec::new(),
            wasted: 0,
            adapters: Vec::new(),
        }
    }

    /// Whether it has any member, be it one that only waits for its last result.
    pub(super) fn is_empty(&self) -> bool {
        self.finishes.is_empty() && self.ending.is_empty() && self.overrunning.is_empty()
    }

    /// Adapters of the next batch's members.
    pub(super) fn adapters(&self) -> impl Iterator<Item = u32> + '_ {
        self.adapters.iter().map(|&(adapter, _)| adapter)
    }

    /// Blocks that the members need in step `step`.
    pub(super) fn blocks_needed(&self, step: u64) -> u32 {
        self.needs_block[(step % self.block_tokens) as usize]
    }

    fn share(&self, step: u64) -> CohortShare {
        let context = self.context_base + i64::from(self.decodes) * step as i64;
        let longest = self.longest.context(step);
        CohortShare { decodes: self.decodes, context: context as u64, longest }
    }

    /// Step number modulo the block size at which a member needs a block: its token `base + s - joined` is the
    /// first of a block.
    fn phase(&self, tenure: &Tenure) -> usize {
        let joined = tenure.joined % self.block_tokens;
        let base = u64::from(tenure.base) % self.block_tokens;
        ((joined + 1 + self.block_tokens - base) % self.block_tokens) as usize
    }

    fn enlist(&mut self, tenure: &Tenure, adapter: Option<u32>) {
        self.decodes += 1;
        let anchored = i64::from(tenure.base) - tenure.joined as i64;
        self.context_base += anchored;
        self.longest.join(anchored, tenure.last);
        let phase = self.phase(tenure);
        self.needs_block[phase] += 1;
        if let Some(adapter) = adapter {
            match self.adapters.iter_mut().find(|(own, _)| *own == adapter) {
                Some((_, count)) => *count += 1,
                None => self.adapters.push((adapter, 1)),
            }
        }
    }

    fn discharge(&mut self, tenure: &Tenure, adapter: Option<u32>) {
        self.decodes -= 1;
        self.context_base -= i64::from(tenure.base) - tenure.joined as i64;
        let phase = self.phase(tenure);
        self.needs_block[phase] -= 1;
        if let Some(adapter) = adapter {
            let at = self.adapters.iter().position(|(own, _)| *own == adapter);
            let at = at.expect("a member's adapter is counted");
            self.adapters[at].1 -= 1;
            if self.adapters[at].1 == 0 {
                self.adapters.swap_remove(at);
            }
        }
    }
}

impl<P: Pool> Entry<P> {
    /// Steps after `joined` that were formed with this member, given that `formed` steps were formed; and of
    /// those, steps whose results are in, given that `updated` are.
    fn lockstep(&self, tenure: &Tenure, formed: u64, updated: u64) -> (u32, u32) {
        let first = tenure.joined + 1;
        let count = |until: u64| until.min(tenure.last + 1).saturating_sub(first) as u32;
        (count(formed), count(updated))
    }
}

impl<P: Pool> Engine<P> {
    /// Whether the cohort as a whole can take part in the next step next to the requests listed one by one:
    /// blocks and budget suffice for all that run, so that their order does not matter.
    pub(super) fn cohort_fits(&self, chunk_cap: u32) -> bool {
        let budget = self.config.max_num_batched_tokens - self.cohort.decodes;
        let mut blocks = self.cohort.blocks_needed(self.formed);
        let mut tokens = 0;
        for &slot in &self.listed {
            let wanted = self.tokens_wanted(slot, u32::MAX, chunk_cap);
            tokens += wanted;
            // A lone request behind all others takes what they leave of the budget.
            let last = self.listed.len() == 1 && self.running.last() == Some(&slot);
            let taken = if last { wanted.min(budget) } else { wanted };
            if tokens > budget && !last {
                return false;
            }
            let entry = &self.requests[slot as usize];
            let held = self.kv.pool().held(entry.holding.chain());
            blocks += (entry.computed + taken).div_ceil(self.config.block_size).saturating_sub(held);
        }
        blocks <= self.kv.pool().free()
    }

    /// Members whose last token is in flight leave the batches, as `tokens_wanted` would pass them over.
    pub(super) fn cohort_foresee(&mut self) {
        if !self.config.async_scheduling || self.formed == 0 {
            return;
        }
        while let Some(&Reverse((finish, _, slot))) = self.cohort.finishes.peek() {
            if finish >= self.formed {
                break;
            }
            self.cohort.finishes.pop();
            let entry = &self.requests[slot as usize];
            let tenure = entry.tenure.expect("a member has a tenure");
            if tenure.last > tenure.finish {
                self.cohort.overrunning.push(slot);
            } else {
                self.discharge(slot);
                self.cohort.ending.push(slot);
            }
        }
    }

    /// Takes the cohort's blocks for the step being formed and notes its share of the batch.
    pub(super) fn cohort_schedule(&mut self, batch: &mut Batch) {
        let blocks = self.cohort.blocks_needed(self.formed);
        if blocks > 0 {
            self.kv.reserve(blocks);
        }
        self.cohort.longest.forget_before(self.formed, self.cohort.decodes);
        batch.cohort = self.cohort.share(self.formed);
    }

    /// Requests of the step just formed that sample a token and go on decoding join the cohort.
    pub(super) fn cohort_admit(&mut self, batch: &Batch) {
        for part in batch.scheduled.iter().filter(|part| part.samples) {
            let entry = &mut self.requests[part.slot as usize];
            if entry.state != State::Running || entry.tenure.is_some() {
                continue;
            }
            // The token that this step samples, counted over the whole answer.
            let token = if self.config.async_scheduling {
                entry.emitted + entry.placeholders
            } else {
                entry.emitted + 1
            };
            let remaining = entry.request.output_tokens.saturating_sub(token);
            let offers = |connector: &Connector| connector.may_offer(part.slot, &entry.request);
            if remaining == 0 || self.connector.as_ref().is_some_and(offers) {
                continue;
            }
            let finish = self.formed + u64::from(remaining);
            let room = entry.computed + remaining < self.config.max_model_len - 1;
            let unforeseen = entry.request.output_tokens < entry.request.max_tokens && room;
            let overrun = u64::from(self.config.async_scheduling && unforeseen);
            let tenure = Tenure { joined: self.formed, base: entry.computed, finish, last: finish + overrun };
            entry.tenure = Some(tenure);
            self.cohort.enlist(&tenure, entry.request.adapter);
            self.cohort.finishes.push(Reverse((finish, entry.admission, part.slot)));
            self.listed.retain(|&slot| slot != part.slot);
        }
    }

    /// Members that finish with the result of step `step`, settled, and their last tokens.
    pub(super) fn cohort_finish(&mut self, step: u64, finished: &mut Vec<(Slot, Token)>) {
        for index in 0..self.cohort.ending.len() {
            let slot = self.cohort.ending[index];
            finished.push((slot, self.settle_finished(slot)));
        }
        self.cohort.ending.clear();
        for index in 0..self.cohort.overrunning.len() {
            let slot = self.cohort.overrunning[index];
            self.discharge(slot);
            self.cohort.wasted += 1;
            finished.push((slot, self.settle_finished(slot)));
        }
        self.cohort.overrunning.clear();
        while let Some(&Reverse((finish, _, slot))) = self.cohort.finishes.peek() {
            if finish > step {
                break;
            }
            self.cohort.finishes.pop();
            self.discharge(slot);
            finished.push((slot, self.settle_finished(slot)));
        }
    }

    /// A member is in no further batch.
    fn discharge(&mut self, slot: Slot) {
        let entry = &self.requests[slot as usize];
        self.cohort.discharge(&entry.tenure.expect("a member has a tenure"), entry.request.adapter);
    }

    /// Tokens that the cohort's share of the oldest batch delivers.
    pub(super) fn cohort_emits(&mut self, batch: &Batch) -> u32 {
        if batch.cohort.decodes == 0 {
            0
        } else {
            batch.cohort.decodes - std::mem::take(&mut self.cohort.wasted)
        }
    }

    /// Brings a member's counters up to date; it stays in the cohort only if its tenure is put back.
    fn settle(&mut self, slot: Slot) {
        let entry = &mut self.requests[slot as usize];
        let Some(tenure) = entry.tenure.take() else { return };
        let (formed, updated) = entry.lockstep(&tenure, self.formed, self.updated);
        entry.computed += formed;
        entry.emitted += updated;
        entry.inflight += formed - updated;
        if self.config.async_scheduling {
            entry.placeholders += formed - updated;
        }
        let (computed, known) = (entry.computed, entry.known());
        self.catch_up_blocks(slot, computed, known);
    }

    /// Hands a member the blocks that were reserved for its `computed` tokens, and names those that it filled. Under
    /// async scheduling the newest token that was computed is not yet known when its block is named.
    fn catch_up_blocks(&mut self, slot: Slot, computed: u32, known: u32) {
        let entry = &mut self.requests[slot as usize];
        let held = self.kv.pool().held(entry.holding.chain());
        self.kv.grant(&mut entry.holding, computed.div_ceil(self.config.block_size) - held);
        let unnamed = u32::from(self.config.async_scheduling);
        self.kv.register(&mut entry.holding, (computed - unnamed).min(known), known);
    }

    /// Settles a member that finishes with the result just taken: its last token.
    fn settle_finished(&mut self, slot: Slot) -> Token {
        let entry = &mut self.requests[slot as usize];
        let tenure = entry.tenure.take().expect("a member has a tenure");
        let (formed, _) = entry.lockstep(&tenure, self.formed, self.updated);
        entry.computed += formed;
        entry.emitted = entry.request.output_tokens;
        entry.placeholders = 0;
        let held = self.kv.pool().held(entry.holding.chain());
        let needed = entry.computed.div_ceil(self.config.block_size);
        self.kv.grant(&mut entry.holding, needed - held);
        let computed = tenure.base + (tenure.finish - tenure.joined) as u32;
        let known = entry.known();
        self.kv.register(&mut entry.holding, computed, known);
        Token { id: entry.request.id, emitted: entry.emitted, together: 1, last: true, lockstep: true }
    }

    /// Names the blocks of members whose answer is part of the prompt of request `slot`, which is looked up or
    /// named next, in the step being formed.
    pub(super) fn expose_answers(&mut self, slot: Slot) {
        if self.cohort.is_empty() || !self.requests[slot as usize].request.prompt.has_answers() {
            return;
        }
        let prompt = self.requests[slot as usize].request.prompt.clone();
        self.expose(&prompt, true);
    }

    /// Whether the answer of a member is part of `prompt`.
    #[must_use]
    pub fn answers(&self, prompt: &Prompt) -> bool {
        let entry = |&slot: &Slot| &self.requests[slot as usize];
        self.running
            .iter()
            .map(entry)
            .any(|entry| entry.tenure.is_some() && is_part(entry.request.output, prompt))
    }

    /// Names the blocks of members whose answer is part of `prompt`, before they are looked up. While a step is
    /// `forming`, it counts as formed for the members that it computes.
    pub fn expose(&mut self, prompt: &Prompt, forming: bool) {
        for index in 0..self.running.len() {
            let member = self.running[index];
            let entry = &self.requests[member as usize];
            let Some(tenure) = entry.tenure.filter(|_| is_part(entry.request.output, prompt)) else {
                continue;
            };
            let (formed, updated) = entry.lockstep(&tenure, self.formed, self.updated);
            let in_this_step = forming && self.formed > tenure.joined && self.formed <= tenure.last;
            let computed = entry.computed + formed + u32::from(in_this_step);
            let known = entry.known() + updated;
            self.catch_up_blocks(member, computed, known);
        }
    }

    /// Dissolves the cohort: its members become ordinary entries, and the batches in flight list them. Appends
    /// the members that have emitted a token in lockstep, with their count of tokens so far.
    pub fn dissolve<'b>(
        &mut self,
        flights: impl Iterator<Item = &'b mut Batch>,
        emitted: &mut Vec<(RequestId, u32)>,
    ) {
        if self.cohort.is_empty() {
            return;
        }
        let members: Vec<(Slot, Tenure)> = self
            .running
            .iter()
            .filter_map(|&slot| Some((slot, self.requests[slot as usize].tenure?)))
            .collect();
        for batch in flights {
            let in_batch = |tenure: &Tenure| batch.step > tenure.joined && batch.step <= tenure.last;
            for &(slot, tenure) in members.iter().filter(|(_, tenure)| in_batch(tenure)) {
                let entry = &self.requests[slot as usize];
                let computed = tenure.base + (batch.step - tenure.joined) as u32 - 1;
                let id = entry.request.id;
                batch.scheduled.push(Scheduled {
                    id,
                    slot,
                    computed,
                    new: 1,
                    samples: true,
                    decode: true,
                    guesses: 0,
                });
            }
            let requests = &self.requests;
            let admission =
                |part: &Scheduled| requests.get(part.slot as usize).map_or(0, |entry| entry.admission);
            batch.scheduled.sort_by_key(admission);
            batch.cohort = CohortShare::default();
        }
        for &(slot, tenure) in &members {
            self.settle(slot);
            let entry = &self.requests[slot as usize];
            if self.updated > tenure.joined + 1 {
                emitted.push((entry.request.id, entry.emitted));
            }
        }
        self.cohort = Cohort::new(self.config.block_size);
        self.listed.clone_from(&self.running);
    }

    /// How many steps from now on change nothing but the cohort's counters: each takes the result of a batch and
    /// forms the next one. Zero when anything else may happen in the next one.
    pub fn quiet_steps(&self) -> u64 {
        // What a step means for host memory depends on the step.
        if self.has_offers() || self.kv.is_watched() {
            return 0;
        }
        let alone = self.running.len() == self.cohort.decodes as usize && self.cohort.wasted == 0;
        let unchanged = self.cohort.ending.is_empty() && self.cohort.overrunning.is_empty();
        let next = self.cohort.finishes.peek().map(|&Reverse((finish, ..))| finish);
        match next {
            Some(finish) if alone && unchanged => {
                // A member leaves the batches, or is seen to overrun, when the batch after its last is formed.
                let ahead = if self.config.async_scheduling { 1 } else { 0 };
                finish.saturating_sub(self.updated + ahead)
            }
            _ => 0,
        }
    }

    /// Whether the oldest batch in flight, if it is of the cohort alone, ends none of its members, and the next batch
    /// will be of the cohort alone, with blocks for it.
    pub(crate) fn may_turn_over(&self) -> bool {
        let alone = self.running.len() == self.cohort.decodes as usize && self.cohort.wasted == 0;
        let unchanged = self.cohort.ending.is_empty() && self.cohort.overrunning.is_empty();
        let next = self.cohort.finishes.peek().map(|&Reverse((finish, ..))| finish);
        alone
            && unchanged
            && next.is_some_and(|finish| finish > self.updated)
            && self.cohort.blocks_needed(self.formed) <= self.kv.pool().free()
    }

    /// Takes the result of `batch`, as [`update`](Self::update) does, and forms the next one in its place, as
    /// [`schedule`](Self::schedule) does, where [`may_turn_over`](Self::may_turn_over). Whether that one computes
    /// anything.
    pub(crate) fn turn_over(&mut self, batch: &mut Batch) -> bool {
        debug_assert_eq!(batch.step, self.updated, "the oldest batch in flight");
        self.updated += 1;
        self.cohort_foresee();
        batch.clear();
        batch.step = self.formed;
        self.cohort_schedule(batch);
        batch.counted = !batch.is_empty();
        self.formed += u64::from(batch.counted);
        batch.counted
    }

    /// Whether the requests that wait will go on waiting while nothing but decode steps happens, given why they
    /// were not admitted when the scheduler last looked.
    ///
    /// No slot becomes free without a finish. Free blocks only become fewer; what the head of the queue hits grows
    /// only if its prompt contains an answer that is being generated.
    #[must_use]
    pub fn stays_blocked(&self, blocked: Option<Cause>) -> bool {
        if self.holding.is_empty() && self.waiting.is_empty() {
            return true;
        }
        // What is being loaded waits for an event; what has arrived is looked at first.
        let state = |slot: Slot| self.requests[slot as usize].state;
        if self.holding.iter().any(|slot| state(slot) == State::Loaded) {
            return false;
        }
        let arrived = self.holding.iter().find(|&slot| state(slot) != State::Loading);
        let Some(head) = arrived.or_else(|| self.waiting.head()) else { return true };
        let may_admit = |connector: &Connector| connector.may_admit_next(self.config.reserve_full_isl);
        match blocked {
            Some(Cause::EngineQueueSlots) => true,
            Some(Cause::EngineQueueKv) if self.connector.as_ref().is_some_and(may_admit) => false,
            Some(Cause::EngineQueueKv) => !self.requests[head as usize].request.prompt.has_answers(),
            _ => false,
        }
    }

    /// Blocks that quiet steps take when they form a batch, by its number modulo the block size.
    #[must_use]
    pub fn quiet_blocks(&self) -> &[u32] {
        &self.cohort.needs_block
    }

    /// The cohort's share of batch `step`, as long as nothing changes.
    #[must_use]
    pub fn quiet_share(&self, step: u64) -> CohortShare {
        self.cohort.share(step)
    }

    /// Number of the next batch to be formed.
    #[must_use]
    pub fn next_step(&self) -> u64 {
        self.formed
    }

    /// Takes `steps` quiet steps at once, which took `blocks` blocks in all.
    pub fn skip_quiet(&mut self, steps: u64, blocks: u32) {
        debug_assert!(steps <= self.quiet_steps());
        self.formed += steps;
        self.updated += steps;
        if blocks > 0 {
            self.kv.reserve(blocks);
        }
    }
}

/// Whether what a request generates is part of `prompt`.
fn is_part(output: Content, prompt: &Prompt) -> bool {
    prompt.segments().iter().any(|segment| segment.content == output)
}
