//! Laws of an engine that exchanges KV with other engines and with host memory: both forms do the same in every step,
//! blocks are conserved, every transfer ends, and everybody is served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::connector::below::BelowHost;
use forerun_sim::engine::connector::{
    ConnectorConfig, Eviction, JobId, KvRole, OffloadConfig, RemoteKv, Transfers,
};
use forerun_sim::engine::{Batch, Engine, EngineRequest, Handle};
use forerun_sim::kv::Pool;
use forerun_sim::kv::block_pool::BlockPool;
use forerun_sim::kv::extent_pool::ExtentPool;
use forerun_sim::kv::tiers::{ChannelSpec, SharedShelf, Tier, TierSpec};
use forerun_sim::prompt::{BlockHash, Content, Prompt};
use forerun_sim::request::{Cause, RequestId};
use forerun_sim::time::Span;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::harness::roomy_engine;
use crate::properties::{cases, draft_slots, speculation};

/// A request, and what becomes of it outside the engine.
#[derive(Clone, Debug)]
struct Visit {
    /// Steps after the previous one.
    after: usize,
    /// It repeats the prompt and the answer of the request so many before.
    follows: Option<usize>,
    shared: (u64, u32),
    own: u32,
    output: u32,
    unforeseen: bool,
    priority: i32,
    adapter: Option<u32>,
    remote: Option<RemoteKv>,
    /// Its client hangs up after so many steps.
    leaves: Option<usize>,
}

fn visit() -> impl Strategy<Value = Visit> {
    let text = (weighted(0.3, 1..4usize), (0..3u64, 0..90u32), 1..60u32, prop_oneof![1..4u32, 1..50u32]);
    let remote = prop_oneof![Just(None), Just(Some(RemoteKv::Offer)), Just(Some(RemoteKv::Pull))];
    let kind = (any::<bool>(), -2..3i32, weighted(0.3, 0..3u32), remote);
    let when = (0..4usize, weighted(0.15, 0..25usize));
    (text, kind, when).prop_map(
        |((follows, shared, own, output), (unforeseen, priority, adapter, remote), (after, leaves))| Visit {
            after,
            follows,
            shared,
            own,
            output,
            unforeseen,
            priority,
            adapter,
            remote,
            leaves,
        },
    )
}

fn requests(visits: &[Visit], max_model_len: u32) -> Vec<EngineRequest> {
    let mut requests: Vec<EngineRequest> = Vec::new();
    for (number, visit) in visits.iter().enumerate() {
        let id = number as u64;
        let mut prompt = Prompt::new();
        match visit.follows.and_then(|back| number.checked_sub(back)).map(|before| &requests[before]) {
            Some(before) if before.prompt.tokens() + before.output_tokens + visit.own < max_model_len => {
                prompt.extend(&before.prompt);
                prompt.push(before.output, before.output_tokens);
            }
            _ => prompt.push(Content::shared(visit.shared.0), visit.shared.1),
        }
        prompt.push(Content::private(id), visit.own);
        let room = max_model_len - prompt.tokens();
        let output_tokens = visit.output.min(room);
        requests.push(EngineRequest {
            id: RequestId(id),
            prompt,
            output: Content::generated(id),
            output_tokens,
            max_tokens: if visit.unforeseen { room } else { output_tokens },
            priority: visit.priority,
            adapter: visit.adapter,
            cache_salt: 0,
            remote: visit.remote,
        });
    }
    requests
}

fn engine() -> impl Strategy<Value = EngineConfig> {
    let size = (select(&[4u32, 16][..]), 160..260u32, 100..300u32, 1..9u32, 0..120u32);
    let rules =
        (any::<bool>(), any::<bool>(), any::<bool>(), weighted(0.3, 1..3u32), select(&[0.0, 0.0, 0.2][..]));
    (size, rules, weighted(0.2, speculation())).prop_map(|(size, rules, speculation)| {
        let (block_size, max_model_len, kv_percent, max_num_seqs, budget) = size;
        let (is_priority, reserve_full_isl, async_scheduling, max_loras, watermark) = rules;
        EngineConfig {
            block_size,
            num_gpu_blocks: max_model_len.div_ceil(block_size) * kv_percent / 100 + 1,
            max_num_batched_tokens: max_num_seqs + budget + draft_slots(speculation, max_num_seqs),
            max_num_seqs,
            max_model_len,
            policy: if is_priority { Policy::Priority } else { Policy::Fcfs },
            reserve_full_isl,
            watermark,
            max_loras,
            async_scheduling,
            speculation,
            ..roomy_engine()
        }
    })
}

fn connector() -> impl Strategy<Value = ConnectorConfig> {
    let role = prop_oneof![
        Just(None),
        Just(Some(KvRole::Producer)),
        Just(Some(KvRole::Consumer)),
        Just(Some(KvRole::Both))
    ];
    let memory = (1..40u32, 1..5u32, any::<bool>(), any::<bool>(), 0..3u32);
    let offload =
        memory.prop_map(|(chunks, blocks_per_chunk, is_arc, offload_prompt_only, store_threshold)| {
            let eviction = if is_arc { Eviction::Arc } else { Eviction::Lru };
            OffloadConfig { chunks, blocks_per_chunk, eviction, offload_prompt_only, store_threshold }
        });
    (role, proptest::option::of(offload)).prop_map(|(role, offload)| ConnectorConfig { role, offload })
}

/// Tiers below host memory: which, how many chunks each holds if there is a limit, and whether it evicts.
type Below = Vec<(Tier, Option<u64>, bool)>;

fn below() -> impl Strategy<Value = Below> {
    let tier = || (weighted(0.7, 1..60u64), any::<bool>());
    (weighted(0.4, tier()), weighted(0.4, tier())).prop_map(|(disk, shared)| {
        let disk = disk.map(|(capacity, evicts)| (Tier::Disk, capacity, evicts));
        let shared = shared.map(|(capacity, evicts)| (Tier::Shared, capacity, evicts));
        disk.into_iter().chain(shared).collect()
    })
}

/// The same as an engine sees it, empty. A chunk has one byte.
fn shelves(below: &Below) -> BelowHost {
    let rate = ChannelSpec { bandwidth: 1.0, latency: Span::ZERO, concurrency: 1, queued_max: None };
    let shelf = |&(tier, capacity, evicts): &(Tier, Option<u64>, bool)| {
        (tier, SharedShelf::new(&TierSpec { capacity, evicts, read: rate, write: rate }))
    };
    BelowHost { tiers: below.iter().map(shelf).collect(), ..BelowHost::default() }
}

/// What can be seen of one step's batch, whatever the form.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    scheduled: Vec<(RequestId, u32, u32)>,
    admitted: Vec<(RequestId, u32, bool)>,
    preempted: Vec<RequestId>,
    transfers: Transfers,
    blocked: Option<Cause>,
    queues: [Vec<RequestId>; 3],
    free: u32,
}

/// What can be seen of a result.
#[derive(Clone, Debug, PartialEq)]
struct Delivered {
    tokens: u32,
    last: Vec<(RequestId, u32)>,
    free: u32,
}

/// An engine in one of the two forms, driven as its replica would.
struct Side<P: Pool> {
    engine: Engine<P>,
    flight: VecDeque<Batch>,
    handles: BTreeMap<RequestId, Handle>,
    below: BelowHost,
}

impl<P: Pool + Clone> Side<P> {
    fn new(config: &EngineConfig, connector: &ConnectorConfig, below: &Below) -> Self {
        let below = shelves(below);
        let engine = Engine::new(config.clone()).connected(connector);
        let engine = if connector.offload.is_some() { engine.above(below.clone()) } else { engine };
        Self { engine, flight: VecDeque::new(), handles: BTreeMap::new(), below }
    }

    /// A copy is over; what it brought to host memory is written to the tiers below.
    fn job_done(&mut self, job: JobId, stored: &[BlockHash]) {
        self.engine.job_done(job);
        for (_, shelf) in &self.below.tiers {
            stored.iter().for_each(|&key| _ = shelf.get().put((self.below.kind, key), 1));
        }
    }

    fn add(&mut self, request: &EngineRequest) {
        self.handles.insert(request.id, self.engine.add(request.clone()));
    }

    fn abort(&mut self, id: RequestId) {
        self.engine.dissolve(self.flight.iter_mut(), &mut Vec::new());
        self.engine.abort(self.handles[&id]);
        self.engine.assert_consistent();
    }

    fn schedule(&mut self) -> Seen {
        if !self.engine.cohort_holds() {
            self.engine.dissolve(self.flight.iter_mut(), &mut Vec::new());
        }
        let mut batch = Batch::default();
        self.engine.schedule(&mut batch);
        self.engine.assert_consistent();
        let mut listed = batch.clone();
        self.engine.clone().dissolve(std::iter::once(&mut listed), &mut Vec::new());
        let seen = Seen {
            scheduled: listed.scheduled.iter().map(|part| (part.id, part.computed, part.new)).collect(),
            admitted: batch.admitted.iter().map(|one| (one.id, one.hit_tokens, one.resumed)).collect(),
            preempted: batch.preempted.clone(),
            transfers: batch.transfers.clone(),
            blocked: batch.blocked,
            queues: [
                self.engine.running().collect(),
                self.engine.waiting().collect(),
                self.engine.holding().collect(),
            ],
            free: self.engine.kv().pool().free(),
        };
        if !batch.is_empty() {
            self.flight.push_back(batch);
        }
        seen
    }

    /// Whether the next step is said to change nothing but the counters of decodes.
    fn is_quiet(&self, depth: usize, blocked: Option<Cause>) -> bool {
        let running = self.engine.num_running();
        let pure = |batch: &Batch| batch.cohort.decodes == running && batch.scheduled.is_empty();
        self.engine.quiet_steps() > 0
            && self.flight.len() == depth
            && self.flight.iter().all(pure)
            && self.engine.stays_blocked(blocked)
            && self.engine.kv().pool().free() >= running
    }

    fn update(&mut self) -> Option<Delivered> {
        let batch = self.flight.pop_front()?;
        let mut tokens = Vec::new();
        let lockstep = self.engine.update(&batch, &mut tokens);
        self.engine.assert_consistent();
        let listed: u32 = tokens.iter().filter(|token| !token.lockstep).map(|token| token.together).sum();
        let last = tokens.iter().filter(|token| token.last).map(|token| (token.id, token.emitted)).collect();
        Some(Delivered { tokens: listed + lockstep, last, free: self.engine.kv().pool().free() })
    }
}

/// Both forms side by side, and the world around them.
struct Pair {
    exact: Side<BlockPool>,
    fast: Side<ExtentPool>,
    requests: Vec<EngineRequest>,
    depth: usize,
    delays: Vec<usize>,
    /// Transfers that were started: they end after a delay.
    started: usize,
    pulls: BTreeMap<RequestId, usize>,
    leases: BTreeMap<RequestId, usize>,
    jobs: BTreeMap<JobId, usize>,
    /// What copies to host memory bring there.
    stored: BTreeMap<JobId, Vec<BlockHash>>,
    promoted: usize,
    live: BTreeMap<RequestId, usize>,
    finished: BTreeSet<RequestId>,
    /// Whether the fast form said that the next step is quiet.
    quiet: bool,
    step: usize,
}

impl Pair {
    /// Whether it came to an end.
    fn run(&mut self, visits: &[Visit]) -> bool {
        let mut coming: VecDeque<_> = visits.iter().zip(self.requests.clone()).collect();
        let mut wait = coming[0].0.after;
        for _ in 0..30_000 {
            while wait == 0
                && let Some((visit, request)) = coming.pop_front()
            {
                self.quiet = false;
                self.exact.add(&request);
                self.fast.add(&request);
                self.live.insert(request.id, visit.leaves.map_or(usize::MAX, |stays| self.step + stays));
                wait = coming.front().map_or(0, |(next, _)| next.after);
            }
            wait = wait.saturating_sub(1);
            self.hang_up();
            let moving = self.pulls.len() + self.leases.len() + self.jobs.len();
            let idle = self.live.is_empty() && self.exact.flight.is_empty();
            if coming.is_empty() && idle && moving == 0 && !self.exact.engine.has_offers() {
                return true;
            }
            self.advance();
        }
        false
    }

    fn hang_up(&mut self) {
        let gone: Vec<_> =
            self.live.iter().filter(|&(_, &leaves)| leaves <= self.step).map(|(&id, _)| id).collect();
        for id in gone {
            self.quiet = false;
            self.live.remove(&id);
            self.exact.abort(id);
            self.fast.abort(id);
        }
    }

    fn advance(&mut self) {
        self.step += 1;
        let seen = self.exact.schedule();
        assert_eq!(self.fast.schedule(), seen, "both forms form the same batch");
        self.check(&seen);
        for pull in &seen.transfers.pulls {
            let due = self.due();
            self.pulls.insert(pull.id, due);
        }
        for copy in seen.transfers.loads.iter().chain(&seen.transfers.stores) {
            let due = self.due();
            self.jobs.insert(copy.job, due);
        }
        for promotion in &seen.transfers.promotions {
            let due = self.due();
            self.jobs.insert(promotion.job, due);
            self.promoted += 1;
        }
        self.stored.extend(seen.transfers.stores.iter().map(|copy| (copy.job, copy.keys.clone())));
        for job in &seen.transfers.flush {
            self.jobs.insert(*job, self.step);
        }
        self.quiet = self.fast.is_quiet(self.depth, seen.blocked);
        if self.exact.flight.len() == self.depth || seen.scheduled.is_empty() {
            self.update();
        }
        self.end_transfers();
    }

    fn check(&self, seen: &Seen) {
        if self.quiet {
            assert!(seen.admitted.is_empty() && seen.preempted.is_empty(), "a quiet step: {seen:?}");
            assert!(seen.scheduled.iter().all(|&(.., new)| new == 1), "a quiet step: {seen:?}");
            let Transfers { pulls, loads, promotions, stores, flush, evicted, .. } = &seen.transfers;
            let loaded = pulls.len() + loads.len() + promotions.len();
            let moved = loaded + stores.len() + flush.len() + evicted.len();
            assert_eq!(moved, 0, "a quiet step: {seen:?}");
        }
        for pull in &seen.transfers.pulls {
            let prompt = self.requests[pull.id.0 as usize].prompt.tokens();
            assert_eq!(
                pull.local_tokens + pull.tokens,
                prompt,
                "a pull brings what is missing of the prompt"
            );
        }
        for (id, ready, _) in &seen.admitted {
            assert!(
                *ready < self.requests[id.0 as usize].prompt.tokens() + 50,
                "one token at least is computed"
            );
        }
    }

    fn due(&mut self) -> usize {
        self.started += 1;
        self.step + self.delays[self.started % self.delays.len()]
    }

    fn update(&mut self) {
        let delivered = self.exact.update();
        assert_eq!(self.fast.update(), delivered, "both forms deliver the same");
        for (id, emitted) in delivered.into_iter().flat_map(|delivered| delivered.last) {
            let request = &self.requests[id.0 as usize];
            assert_eq!(emitted, request.output_tokens, "a finished request has its whole answer");
            assert!(
                self.live.remove(&id).is_some(),
                "who has left receives nothing, and a request ends once"
            );
            self.finished.insert(id);
            if request.remote == Some(RemoteKv::Offer) {
                let due = self.due();
                self.leases.insert(id, due);
            }
        }
    }

    fn end_transfers(&mut self) {
        fn ended<K: Copy + Ord>(due: &mut BTreeMap<K, usize>, now: usize) -> Vec<K> {
            let ended: Vec<K> = due.iter().filter(|&(_, &due)| due <= now).map(|(&key, _)| key).collect();
            due.retain(|_, due| *due > now);
            ended
        }
        for id in ended(&mut self.pulls, self.step) {
            self.quiet = false;
            self.exact.engine.kv_recv_done(self.exact.handles[&id]);
            self.fast.engine.kv_recv_done(self.fast.handles[&id]);
        }
        for id in ended(&mut self.leases, self.step) {
            self.quiet = false;
            self.exact.engine.kv_send_done(self.exact.handles[&id]);
            self.fast.engine.kv_send_done(self.fast.handles[&id]);
        }
        for job in ended(&mut self.jobs, self.step) {
            self.quiet = false;
            let stored = self.stored.remove(&job).unwrap_or_default();
            self.exact.job_done(job, &stored);
            self.fast.job_done(job, &stored);
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn with_transfers_both_forms_do_the_same_and_everybody_is_served(
        config in engine(),
        connector in connector(),
        below in below(),
        visits in vec(visit(), 1..25),
        delays in vec(0..9usize, 1..7),
    ) {
        prop_assert_eq!(config.check(), Ok(()));
        let mut pair = Pair {
            exact: Side::new(&config, &connector, &below),
            fast: Side::new(&config, &connector, &below),
            requests: requests(&visits, config.max_model_len),
            depth: if config.async_scheduling { 2 } else { 1 },
            delays,
            started: 0,
            pulls: BTreeMap::new(),
            leases: BTreeMap::new(),
            jobs: BTreeMap::new(),
            stored: BTreeMap::new(),
            promoted: 0,
            live: BTreeMap::new(),
            finished: BTreeSet::new(),
            quiet: false,
            step: 0,
        };
        if !pair.run(&visits) {
            // Then vLLM's rules let two requests that hold loaded blocks preempt each other for ever.
            let known = !config.reserve_full_isl && connector.offload.is_some();
            prop_assert!(known, "requests wait for ever: {:?}", pair.live);
            return Ok(());
        }
        let pool = pair.exact.engine.kv().pool();
        prop_assert_eq!(pool.free(), pool.usable(), "nothing is held when nobody is there");
        let stayed = visits.iter().filter(|visit| visit.leaves.is_none()).count();
        prop_assert!(pair.finished.len() >= stayed, "who stays is served");
        prop_assert!(pair.promoted == 0 || !below.is_empty(), "what is promoted comes from somewhere");
    }
}
