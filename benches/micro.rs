//! The steps of a run, each by itself: `cargo bench --bench micro`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forerun_policies::Preset;
use forerun_sim::catalog;
use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP, ClosedForm, ClosedFormInput};
use forerun_sim::cost::{CostModel, StepShape};
use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::{Batch, Engine, EngineRequest, Token};
use forerun_sim::event::{EventQueue, Rank};
use forerun_sim::fleet::{self, Client, Disaggregation, FleetConfig, KvForm, Overhead, PoolConfig, Role};
use forerun_sim::kv::extent_pool::ExtentPool;
use forerun_sim::kv::{Pool, TokenSource};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels, Request, RequestId, Status, Stop};
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::{NANOS_PER_SECOND, Span, Time};

const BLOCK_TOKENS: u32 = 16;
const NUM_BLOCKS: u32 = 27_000;
/// Decodes in the batches of the engine benchmarks.
const DECODES: u64 = 64;
/// Operations per measured round, where one alone would be too short or needs a fresh state.
const ROUND: u64 = 256;

criterion_group!(benches, step_time, kv_blocks, engine_steps, event_queue, whole_fleet);
criterion_main!(benches);

/// How long a step takes: the cost model.
fn step_time(c: &mut Criterion) {
    let cost = closed_form();
    let decodes = StepShape {
        decodes: 64,
        decode_context: 64_000,
        decode_longest: 1_000,
        sampled: 64,
        ..StepShape::default()
    };
    let mixed = StepShape {
        prefills: 2,
        prefill_tokens: 2000,
        prefill_pairs: 1_001_000,
        prefill_context: 2000,
        prefill_longest: 1000,
        sampled: 66,
        ..decodes
    };
    let mut group = c.benchmark_group("cost");
    let prepared = cost.prepare(&decodes);
    group.bench_function("prepared decode step", |b| {
        b.iter(|| black_box(&prepared).step(black_box(64_000), black_box(1_000)));
    });
    group.bench_function("prepare, 64 decodes", |b| b.iter(|| cost.prepare(black_box(&decodes))));
    group
        .bench_function("prepare, 64 decodes and 2 prefills", |b| b.iter(|| cost.prepare(black_box(&mixed))));
    group.finish();
}

/// The blocks of one request, from its first lookup to its end, in a pool that is full of cached blocks.
fn kv_blocks(c: &mut Criterion) {
    let private = |id| Prompt::of(Content::private(id), 1000);
    // 32 prefixes of 375 blocks stay in a pool of 27,000.
    let shared = |id: u64| {
        let mut prompt = Prompt::of(Content::shared(id % 32), 6000);
        prompt.push(Content::private(id), 1200);
        prompt
    };
    let mut group = c.benchmark_group("kv");
    type Make<'a> = &'a dyn Fn(u64) -> Prompt;
    let cases: [(&str, Make<'_>, u32); 2] =
        [("private prompt", &private, 0), ("shared prefix", &shared, 375)];
    for (name, prompt, hit) in cases {
        let mut pool = ExtentPool::new(NUM_BLOCKS, BLOCK_TOKENS);
        let mut id = 0;
        let mut next = || {
            id += 1;
            life_of_blocks(&mut pool, prompt(id), id)
        };
        // Until the pool is full; each request adds at least 62 blocks.
        let hits = (0..NUM_BLOCKS / 50).map(|_| next()).last();
        assert_eq!(hits, Some(hit), "blocks that a request finds");
        group.bench_function(name, |b| b.iter(&mut next));
    }
    group.finish();
}

/// Finds, attaches, takes, registers and releases. Returns the blocks hit.
fn life_of_blocks(pool: &mut ExtentPool, prompt: Prompt, id: u64) -> u32 {
    let known = prompt.tokens();
    let tokens = TokenSource { prompt, output: Content::generated(id), adapter: None, salt: 0 };
    let mut chain = pool.chain(&tokens);
    let hit = pool.find(&mut chain, (known - 1) / BLOCK_TOKENS, known);
    if hit.blocks > 0 {
        pool.attach(&mut chain);
    }
    pool.take(&mut chain, known.div_ceil(BLOCK_TOKENS) - hit.blocks);
    pool.register(&mut chain, hit.blocks, known / BLOCK_TOKENS, known);
    pool.release(&mut chain);
    hit.blocks
}

/// The scheduler, beside a batch of decodes in lockstep.
fn engine_steps(c: &mut Criterion) {
    let mut busy = Stepper::new(EngineConfig { async_scheduling: true, ..engine_config() });
    for id in 0..DECODES {
        busy.engine.add(engine_request(id, 1000, 8000));
    }
    // Long enough for all prompts to be computed.
    for _ in 0..32 {
        busy.step();
    }
    assert_eq!(u64::from(busy.engine.num_running()), DECODES, "all of them decode");

    let mut group = c.benchmark_group("engine");
    group.throughput(Throughput::Elements(ROUND));
    group.bench_function("schedule and update 64 decodes, 256 steps", |b| {
        b.iter_batched_ref(
            || busy.clone(),
            |stepper| {
                for _ in 0..ROUND {
                    black_box(stepper.step());
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("admit, prefill and finish beside 64 decodes, 256 requests", |b| {
        b.iter_batched_ref(
            || busy.clone(),
            |stepper| {
                for id in 0..ROUND {
                    stepper.engine.add(engine_request(DECODES + id, 1000, 1));
                    black_box(stepper.step());
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The queue of what happens to requests on their way.
fn event_queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("event queue");
    for pending in [16, 1024] {
        let mut queue = EventQueue::default();
        for at in 0..pending {
            queue.push(Time::from_nanos(at * 977 % pending), Rank::Arrival, at);
        }
        group.bench_with_input(
            BenchmarkId::new("push and pop, pending", pending),
            &pending,
            |b, &pending| {
                b.iter(|| {
                    let (at, event) = queue.pop().expect("events are pending");
                    let later = Span::from_nanos(1 + event * 7919 % pending);
                    queue.push(at + later, Rank::Arrival, event);
                    event
                });
            },
        );
    }
    group.finish();
}

/// 10,000 requests of 1000 tokens in and 200 out over 4 replicas, 14 requests/s each.
fn whole_fleet(c: &mut Criterion) {
    const REQUESTS: u64 = 10_000;
    let mut group = c.benchmark_group("fleet");
    group.throughput(Throughput::Elements(REQUESTS)).sample_size(10);
    for (name, kv) in [("extents", KvForm::Extents), ("exact", KvForm::Exact)] {
        let config = fleet_config(kv);
        group.bench_function(BenchmarkId::new("10,000 requests", name), |b| {
            b.iter(|| {
                let mut source = Even {
                    sent: 0,
                    requests: REQUESTS,
                    gap: NANOS_PER_SECOND / 56,
                    labels: Labels::default(),
                };
                let mut router = Preset::find("round-robin").expect("a policy").router(1);
                let totals = fleet::run(&config, &mut source, router.as_mut(), &mut ());
                totals.expect("the run ends").steps
            });
        });
    }
    group.finish();
}

/// An engine with its batches in flight, stepped as a replica does.
#[derive(Clone)]
struct Stepper {
    engine: Engine<ExtentPool>,
    flying: Batch,
    spare: Batch,
    tokens: Vec<Token>,
    dissolved: Vec<(RequestId, u32)>,
}

impl Stepper {
    fn new(config: EngineConfig) -> Self {
        config.check().expect("a valid engine");
        Self {
            engine: Engine::new(config),
            flying: Batch::default(),
            spare: Batch::default(),
            tokens: Vec::new(),
            dissolved: Vec::new(),
        }
    }

    /// Forms the next batch and takes the result of the one in flight. Returns the tokens emitted in lockstep.
    fn step(&mut self) -> u32 {
        if !self.engine.cohort_holds() {
            self.engine.dissolve(std::iter::once(&mut self.flying), &mut self.dissolved);
            self.dissolved.clear();
        }
        self.engine.schedule(&mut self.spare);
        self.tokens.clear();
        let lockstep = self.engine.update(&self.flying, &mut self.tokens);
        std::mem::swap(&mut self.flying, &mut self.spare);
        lockstep
    }
}

/// Equal requests at equal distances.
struct Even {
    sent: u64,
    requests: u64,
    gap: u64,
    labels: Labels,
}

impl Source for Even {
    fn peek(&mut self) -> Result<Option<Time>, SourceError> {
        Ok((self.sent < self.requests).then(|| Time::from_nanos(self.sent * self.gap)))
    }

    fn pop(&mut self) -> Result<Option<Request>, SourceError> {
        let arrival = self.peek()?;
        let id = self.sent;
        self.sent += 1;
        Ok(arrival.map(|arrival| request(id, arrival)))
    }

    fn ended(&mut self, _: &Request, _: Status, _: Time) {}

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

fn request(id: u64, arrival: Time) -> Request {
    Request {
        id: RequestId(id),
        name: None,
        arrival,
        prompt: Prompt::of(Content::private(id), 1000),
        output: Content::generated(id),
        output_tokens: 200,
        stop: Stop::Length,
        max_tokens: None,
        priority: 0,
        tenant: Label::NONE,
        class: Label::NONE,
        model: Label::NONE,
        adapter: Label::NONE,
        session: None,
    }
}

fn engine_request(id: u64, prompt: u32, output: u32) -> EngineRequest {
    EngineRequest {
        id: RequestId(id),
        prompt: Prompt::of(Content::private(id), prompt),
        output: Content::generated(id),
        output_tokens: output,
        max_tokens: output,
        priority: 0,
        adapter: None,
        cache_salt: 0,
        remote: None,
    }
}

fn engine_config() -> EngineConfig {
    EngineConfig {
        block_size: BLOCK_TOKENS,
        num_gpu_blocks: NUM_BLOCKS,
        max_num_batched_tokens: 8192,
        max_num_seqs: 256,
        max_num_active_seqs: None,
        max_model_len: 16_384,
        long_prefill_token_threshold: 0,
        long_prefill_token_threshold_adaptive: false,
        policy: Policy::Fcfs,
        reserve_full_isl: true,
        watermark: 0.0,
        prefix_caching: true,
        chunked_prefill: true,
        max_loras: None,
        async_scheduling: true,
        max_num_queued_reqs: None,
        speculation: None,
    }
}

fn fleet_config(kv: KvForm) -> FleetConfig {
    let pool = PoolConfig {
        name: "pool".into(),
        replicas: 4,
        gpus: 1,
        labels: BTreeMap::new(),
        role: Role::Both,
        kv_block_bytes: 1,
        host: None,
        lora: None,
        data_parallel: Default::default(),
        model_names: vec!["model".into()],
        engine: engine_config(),
        cost: Arc::new(closed_form()),
    };
    FleetConfig {
        pools: vec![pool],
        kv,
        overhead: Overhead::default(),
        client: Client::default(),
        disaggregation: Disaggregation::default(),
        below_host: Default::default(),
        faults: Default::default(),
        split: None,
        warm_up: Time::ZERO,
        horizon: None,
    }
}

/// Llama-3.1-8B on an H100.
fn closed_form() -> ClosedForm {
    let engine = engine_config();
    ClosedForm::new(&ClosedFormInput {
        gpu: catalog::gpu("h100-sxm").expect("in the catalog"),
        model: catalog::model("meta-llama/Llama-3.1-8B").expect("in the catalog"),
        tensor_parallel: 1,
        kv_element_bytes: 2,
        max_num_seqs: engine.max_num_seqs,
        max_num_batched_tokens: engine.max_num_batched_tokens,
        data_parallel: 1,
        cpu_per_step: CPU_PER_STEP,
        cpu_per_request: CPU_PER_REQUEST,
    })
    .expect("a cost model")
}
