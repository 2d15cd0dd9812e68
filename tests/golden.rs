//! Replays a recording of vLLM's real scheduler through the engine and compares every recorded field of every
//! step. The format is that of the recordings: `config`, `requests`, `steps`.

use std::collections::{BTreeMap, VecDeque};

use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::connector::{
    ConnectorConfig, Copy, Eviction, KvRole, OffloadConfig, RemoteKv, Transfers,
};
use forerun_sim::engine::{Batch, Engine, EngineRequest, Handle, Scheduled};
use forerun_sim::kv::Pool;
use forerun_sim::kv::block_pool::BlockPool;
use forerun_sim::kv::extent_pool::ExtentPool;
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::RequestId;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recording {
    config: Config,
    requests: Vec<Spec>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Config {
    scheduler: String,
    block_size: u32,
    num_blocks: u32,
    max_num_batched_tokens: u32,
    max_num_seqs: u32,
    max_num_active_seqs: Option<u32>,
    max_model_len: u32,
    long_prefill_token_threshold: u32,
    long_prefill_token_threshold_adaptive: bool,
    policy: String,
    reserve_full_isl: bool,
    watermark: f64,
    prefix_caching: bool,
    chunked_prefill: bool,
    max_loras: Option<u32>,
    kv_role: Option<String>,
    offload_chunks: Option<u32>,
    #[serde(default)]
    offload_policy: String,
    #[serde(default)]
    offload_blocks_per_chunk: u32,
    #[serde(default)]
    offload_prompt_only: bool,
    #[serde(default)]
    offload_store_threshold: u32,
}

#[derive(Deserialize)]
struct Spec {
    id: String,
    prompt: Vec<(String, u32, u32)>,
    output: u32,
    #[serde(default)]
    stop: Option<String>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    lora: Option<String>,
    #[serde(default)]
    salt: Option<String>,
    /// What its `kv_transfer_params` ask for.
    #[serde(default)]
    kv: Option<String>,
}

/// Fields that a recording may leave out are options; any other absent field means empty.
#[derive(Deserialize)]
struct Step {
    step: u32,
    #[serde(default)]
    drained: u32,
    #[serde(default)]
    arrived: Vec<String>,
    #[serde(default)]
    scheduled: Vec<(String, u32, u32)>,
    #[serde(default)]
    new: BTreeMap<String, u32>,
    #[serde(default)]
    resumed: BTreeMap<String, u32>,
    #[serde(default)]
    preempted: Vec<String>,
    #[serde(default)]
    running: Vec<String>,
    #[serde(default)]
    waiting: Vec<String>,
    kv_holding: Option<Vec<String>>,
    /// Transfers whose end is reported with this step's result.
    #[serde(default)]
    kv_recv_done: Vec<String>,
    #[serde(default)]
    kv_send_done: Vec<String>,
    #[serde(default)]
    jobs_done: Vec<u64>,
    /// Tokens cached on the GPU, and tokens in host memory after them if that is known.
    #[serde(default)]
    offload_hits: BTreeMap<String, (u32, Option<u32>)>,
    /// Job, request, places in host memory, GPU blocks.
    #[serde(default)]
    loads: Vec<(u64, String, Vec<u32>, Vec<u32>)>,
    /// Job, request, GPU blocks, places in host memory.
    #[serde(default)]
    stores: Vec<(u64, String, Vec<u32>, Vec<u32>)>,
    #[serde(default)]
    evicted_chunks: Vec<u32>,
    #[serde(default)]
    flush: Vec<u64>,
    free_blocks: u32,
    blocks: Option<BTreeMap<String, Vec<u32>>>,
    emitted: Option<BTreeMap<String, u32>>,
    #[serde(default)]
    finished: Vec<String>,
    free_blocks_after_update: u32,
}

/// A pool that the engine can be replayed with.
pub(crate) trait Recorded: Pool + Clone {
    /// The ids of the blocks that a request holds, where the pool knows them.
    fn ids(chain: &Self::Chain) -> Option<Vec<u32>>;
}

impl Recorded for BlockPool {
    fn ids(chain: &Self::Chain) -> Option<Vec<u32>> {
        Some(chain.table().to_vec())
    }
}

impl Recorded for ExtentPool {
    fn ids(_: &Self::Chain) -> Option<Vec<u32>> {
        None
    }
}

/// Both forms of the engine. The one with block ids is compared in every field; the fast one in every field but
/// block ids and, of requests in lockstep, the names of those that emit.
pub(crate) const FORMS: [Replay; 2] = [replay::<BlockPool>, replay::<ExtentPool>];

/// From a recording to the number of steps compared, or the first difference.
type Replay = fn(&str) -> Result<usize, String>;

/// Replays one recording; the number of steps compared, or the first difference.
fn replay<P: Recorded>(json: &str) -> Result<usize, String> {
    let recording: Recording = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let mut player = Player::<P>::new(&recording);
    let depth = if recording.config.scheduler == "async" { 2 } else { 1 };
    // Batches in flight, each with the recorded step that it belongs to.
    let mut flight: VecDeque<(usize, Batch)> = VecDeque::new();
    for (index, step) in recording.steps.iter().enumerate() {
        for _ in 0..step.drained {
            let (of, batch) = flight.pop_front().ok_or("drained without a batch in flight")?;
            player.update(&recording.steps[of], &batch)?;
        }
        for id in &step.arrived {
            player.add(id);
        }
        let in_flight = flight.iter_mut().map(|(_, batch)| batch);
        let batch = player.schedule(step, in_flight)?;
        let empty = batch.is_empty();
        flight.push_back((index, batch));
        if flight.len() == depth || empty {
            let (of, batch) = flight.pop_front().expect("just pushed");
            player.update(&recording.steps[of], &batch)?;
        }
    }
    while let Some((of, batch)) = flight.pop_front() {
        player.update(&recording.steps[of], &batch)?;
    }
    Ok(recording.steps.len())
}

struct Player<'a, P: Pool> {
    engine: Engine<P>,
    specs: &'a [Spec],
    contents: BTreeMap<&'a str, u64>,
    adapters: Vec<&'a str>,
    handles: BTreeMap<&'a str, Handle>,
    /// Blocks that each request held when it was scheduled last, where the pool knows them.
    tables: BTreeMap<&'a str, Vec<u32>>,
}

impl<'a, P: Recorded> Player<'a, P> {
    fn new(recording: &'a Recording) -> Self {
        let c = &recording.config;
        let engine = Engine::new(EngineConfig {
            block_size: c.block_size,
            num_gpu_blocks: c.num_blocks,
            max_num_batched_tokens: c.max_num_batched_tokens,
            max_num_seqs: c.max_num_seqs,
            max_num_active_seqs: c.max_num_active_seqs,
            max_model_len: c.max_model_len,
            long_prefill_token_threshold: c.long_prefill_token_threshold,
            long_prefill_token_threshold_adaptive: c.long_prefill_token_threshold_adaptive,
            policy: if c.policy == "priority" { Policy::Priority } else { Policy::Fcfs },
            reserve_full_isl: c.reserve_full_isl,
            watermark: c.watermark,
            prefix_caching: c.prefix_caching,
            chunked_prefill: c.chunked_prefill,
            max_loras: c.max_loras,
            async_scheduling: c.scheduler == "async",
            max_num_queued_reqs: None,
            speculation: None,
        });
        let segments =
            recording.requests.iter().flat_map(|spec| &spec.prompt).map(|(name, ..)| name.as_str());
        let mut names: Vec<_> = segments.collect();
        names.sort_unstable();
        names.dedup();
        let contents = names.into_iter().zip(0..).collect();
        let mut adapters: Vec<_> =
            recording.requests.iter().filter_map(|spec| spec.lora.as_deref()).collect();
        adapters.sort_unstable();
        adapters.dedup();
        let engine = match connector(c) {
            Some(connector) => engine.connected(&connector),
            None => engine,
        };
        Self {
            engine,
            specs: &recording.requests,
            contents,
            adapters,
            handles: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }

    fn content(&self, segment: &str) -> Content {
        match segment.strip_prefix("out:") {
            Some(id) => Content::generated(self.number(id)),
            None => Content::shared(self.contents[segment]),
        }
    }

    fn number(&self, id: &str) -> u64 {
        self.specs.iter().position(|spec| spec.id == id).expect("the recording names its requests") as u64
    }

    fn name(&self, id: RequestId) -> &'a str {
        &self.specs[id.0 as usize].id
    }

    fn names(&self, ids: impl Iterator<Item = RequestId>) -> Vec<&'a str> {
        ids.map(|id| self.name(id)).collect()
    }

    fn add(&mut self, id: &str) {
        let number = self.number(id);
        let spec = &self.specs[number as usize];
        let mut prompt = Prompt::new();
        for (segment, first, tokens) in &spec.prompt {
            assert_eq!(*first, 0, "segments are recorded from their beginning");
            prompt.push(self.content(segment), *tokens);
        }
        // The recorder gives requests that end by EOS a max_tokens that is 500 higher.
        let unforeseen = if spec.stop.as_deref() == Some("eos") { 500 } else { 0 };
        let adapter = spec.lora.as_deref();
        let handle = self.engine.add(EngineRequest {
            id: RequestId(number),
            prompt,
            output: Content::generated(number),
            output_tokens: spec.output,
            max_tokens: spec.output + unforeseen,
            priority: spec.priority,
            adapter: adapter.map(|name| self.adapters.iter().position(|a| *a == name).expect("known") as u32),
            cache_salt: spec
                .salt
                .as_deref()
                .map_or(0, |salt| salt.bytes().fold(1, |h, b| h * 31 + u64::from(b))),
            remote: match spec.kv.as_deref() {
                Some("do_remote_decode") => Some(RemoteKv::Offer),
                Some("do_remote_prefill") => Some(RemoteKv::Pull),
                _ => None,
            },
        });
        self.handles.insert(&spec.id, handle);
    }

    fn schedule<'b>(
        &mut self,
        step: &Step,
        in_flight: impl Iterator<Item = &'b mut Batch>,
    ) -> Result<Batch, String> {
        if !self.engine.cohort_holds() {
            self.engine.dissolve(in_flight, &mut Vec::new());
        }
        let mut batch = Batch::default();
        self.engine.schedule(&mut batch);
        self.engine.assert_consistent();
        let listed = self.listed(&batch);
        for part in &listed.scheduled {
            let name = self.name(part.id);
            if let Some(ids) = P::ids(self.engine.chain(self.handles[name])) {
                self.tables.insert(name, ids);
            }
        }
        self.compare_schedule(step, &listed)?;
        self.compare_transfers(step, &batch.transfers)?;
        Ok(batch)
    }

    /// The batch with those decodes listed too that run in lockstep.
    fn listed(&self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        self.engine.clone().dissolve(std::iter::once(&mut batch), &mut Vec::new());
        batch
    }

    fn compare_schedule(&self, step: &Step, batch: &Batch) -> Result<(), String> {
        let scheduled: Vec<_> = batch
            .scheduled
            .iter()
            .map(|part| (self.name(part.id).to_owned(), part.computed, part.new))
            .collect();
        let admitted = |resumed| {
            let of_kind = batch.admitted.iter().filter(move |admission| admission.resumed == resumed);
            of_kind
                .map(|admission| (self.name(admission.id).to_owned(), admission.hit_tokens))
                .collect::<BTreeMap<_, _>>()
        };
        same(step, "scheduled", &scheduled, &step.scheduled)?;
        same(step, "new", &admitted(false), &step.new)?;
        same(step, "resumed", &admitted(true), &step.resumed)?;
        same(step, "preempted", &self.names(batch.preempted.iter().copied()), &strs(&step.preempted))?;
        same(step, "running", &self.names(self.engine.running()), &strs(&step.running))?;
        same(step, "waiting", &self.names(self.engine.waiting()), &strs(&step.waiting))?;
        if let Some(holding) = &step.kv_holding {
            same(step, "kv_holding", &self.names(self.engine.holding()), &strs(holding))?;
        }
        same(step, "free_blocks", &self.engine.kv().pool().free(), &step.free_blocks)?;
        if let Some(blocks) = &step.blocks {
            let table = |part: &Scheduled| {
                let name = self.name(part.id);
                self.tables.get(name).map(|ids| (name.to_owned(), ids.clone()))
            };
            if let Some(tables) = batch.scheduled.iter().map(table).collect() {
                same(step, "blocks", &tables, blocks)?;
            }
        }
        Ok(())
    }

    fn compare_transfers(&self, step: &Step, transfers: &Transfers) -> Result<(), String> {
        let name = |id| self.name(id).to_owned();
        let lookups = transfers.lookups.iter();
        let hits = lookups.map(|found| (name(found.id), (found.gpu_tokens, found.host_tokens))).collect();
        same(step, "offload_hits", &hits, &step.offload_hits)?;
        let loads = transfers.loads.iter().map(|load| {
            let table = P::ids(self.engine.chain(self.handles[self.name(load.id)]));
            (load.job, name(load.id), load.places.clone(), copied(load, table.as_deref()))
        });
        let recorded =
            step.loads.iter().cloned().map(|(job, id, places, ids)| (job, id, places, counted::<P>(ids)));
        same(step, "loads", &loads.collect::<Vec<_>>(), &recorded.collect())?;
        let stores = transfers.stores.iter().map(|store| {
            let table = self.tables.get(self.name(store.id)).map(Vec::as_slice);
            (store.job, name(store.id), copied(store, table), store.places.clone())
        });
        let recorded =
            step.stores.iter().cloned().map(|(job, id, ids, places)| (job, id, counted::<P>(ids), places));
        same(step, "stores", &stores.collect::<Vec<_>>(), &recorded.collect())?;
        same(step, "evicted_chunks", &transfers.evicted, &step.evicted_chunks)?;
        same(step, "flush", &transfers.flush, &step.flush)
    }

    fn update(&mut self, step: &Step, batch: &Batch) -> Result<(), String> {
        let mut tokens = Vec::new();
        let lockstep = self.engine.update(batch, &mut tokens);
        for id in &step.kv_recv_done {
            self.engine.kv_recv_done(self.handles[id.as_str()]);
        }
        for id in &step.kv_send_done {
            self.engine.kv_send_done(self.handles[id.as_str()]);
        }
        for &job in &step.jobs_done {
            self.engine.job_done(job);
        }
        self.engine.assert_consistent();
        if let Some(emitted) = &step.emitted {
            let listed = tokens.iter().filter(|token| !token.lockstep).count();
            same(step, "number of tokens emitted", &(listed + lockstep as usize), &emitted.len())?;
        }
        if let Some(emitted) = step.emitted.as_ref().filter(|_| !P::LOCKSTEP) {
            let got = tokens.iter().map(|token| (self.name(token.id).to_owned(), 1)).collect();
            same(step, "emitted", &got, emitted)?;
        }
        let finished = self.names(tokens.iter().filter(|token| token.last).map(|token| token.id));
        same(step, "finished", &finished, &strs(&step.finished))?;
        same(
            step,
            "free_blocks_after_update",
            &self.engine.kv().pool().free(),
            &step.free_blocks_after_update,
        )
    }
}

/// What the recorded engine exchanged with the world outside its GPU.
fn connector(config: &Config) -> Option<ConnectorConfig> {
    let role = match config.kv_role.as_deref() {
        Some("kv_producer") => Some(KvRole::Producer),
        Some("kv_consumer") => Some(KvRole::Consumer),
        Some("kv_both") => Some(KvRole::Both),
        _ => None,
    };
    let offload = config.offload_chunks.map(|chunks| OffloadConfig {
        chunks,
        blocks_per_chunk: config.offload_blocks_per_chunk,
        eviction: if config.offload_policy == "arc" { Eviction::Arc } else { Eviction::Lru },
        offload_prompt_only: config.offload_prompt_only,
        store_threshold: config.offload_store_threshold,
    });
    (role.is_some() || offload.is_some()).then_some(ConnectorConfig { role, offload })
}

/// The ids of the blocks that are copied or, where they are not known, their number.
fn copied(copy: &Copy, table: Option<&[u32]>) -> Vec<u32> {
    let ranges = copy.blocks.iter().map(|&(from, to)| from as usize..to as usize);
    match table {
        Some(ids) => ranges.flat_map(|range| &ids[range]).copied().collect(),
        None => vec![ranges.map(|range| range.len() as u32).sum()],
    }
}

/// Recorded block ids, as far as the pool knows them.
fn counted<P: Pool>(ids: Vec<u32>) -> Vec<u32> {
    if P::LOCKSTEP { vec![ids.len() as u32] } else { ids }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(
    step: &Step,
    field: &str,
    got: &T,
    recorded: &T,
) -> Result<(), String> {
    if got == recorded {
        Ok(())
    } else {
        Err(format!("step {}: {field}: simulated {got:?}, recorded {recorded:?}", step.step))
    }
}
