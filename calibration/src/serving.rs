//! Requests served by the real transformer, and the same requests simulated.
//!
//! The scheduler is the simulator's engine in both: what differs is that one computes each batch and the other asks
//! the tables how long it takes.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use forerun_profiles::measured::Serving;
use forerun_sim::cost::CostModel;
use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::{Batch, Engine, EngineRequest};
use forerun_sim::fleet::{
    self, BelowHostTiers, Client, Disaggregation, FleetConfig, KvForm, Overhead, PoolConfig, Role,
};
use forerun_sim::kv::block_pool::BlockPool;
use forerun_sim::observer::Observer;
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels, Outcome, Rejection, Request, RequestId, Status, Stop};
use forerun_sim::rng::Stream;
use forerun_sim::router::{Choice, Router, View};
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::{Span, Time};

use crate::device::{Target, first_line};
use crate::plan::SLOTS;
use crate::transformer::{Chunk, Transformer};

/// Arrivals come at this share of what the device can serve.
const LOAD: f64 = 0.7;
const SEED: u64 = 1;
const REQUESTS: [usize; 3] = [24, 12, 6];

/// The requests, with the engine that serves them.
pub(crate) struct Traffic {
    engine: EngineConfig,
    requests: Vec<Request>,
}

/// What became of a request: first token, last token, since it arrived, and tokens.
type Ending = (f64, f64, u32);

impl Traffic {
    /// Requests of at most `longest` tokens that `cost` serves in at most `limit`: as many as fit.
    pub(crate) fn new(
        cost: &Arc<dyn CostModel>,
        longest: u32,
        batch: u32,
        limit: Span,
    ) -> anyhow::Result<Self> {
        let mut traffic = Self { engine: engine(longest, batch), requests: Vec::new() };
        for count in REQUESTS {
            traffic.requests = requests(count, longest, Span::ZERO);
            let (_, together) = traffic.simulate(cost)?;
            let gap = Span::from_secs_f64(together / count as f64 / LOAD).context("a simulated time")?;
            traffic.requests = requests(count, longest, gap);
            if together <= limit.as_secs_f64() {
                break;
            }
        }
        Ok(traffic)
    }

    /// Serves and simulates the requests.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn compare(
        &self,
        model: &Transformer,
        target: &Target,
        cost: &Arc<dyn CostModel>,
    ) -> anyhow::Result<Serving> {
        let real = self.serve(model, target)?;
        let simulated = self.simulate(cost)?;
        let figures = |(endings, all): &(Vec<Ending>, f64)| {
            let count = endings.len().max(1) as f64;
            let mean = |figure: fn(&Ending) -> f64| endings.iter().map(figure).sum::<f64>() / count;
            [
                ("mean TTFT", mean(|&(first, ..)| first)),
                ("mean TPOT", mean(|&(first, last, tokens)| (last - first) / f64::from(tokens.max(2) - 1))),
                ("mean E2E", mean(|&(_, last, _)| last)),
                ("all requests", *all),
            ]
        };
        let pairs = figures(&real).into_iter().zip(figures(&simulated));
        let seconds: BTreeMap<String, [f64; 2]> =
            pairs.map(|((name, real), (_, simulated))| (name.to_owned(), [real, simulated])).collect();
        Ok(Serving { requests: u32::try_from(self.requests.len()).unwrap_or(u32::MAX), seconds })
    }

    /// Computes every batch; the clock is the time that this takes.
    fn serve(&self, model: &Transformer, target: &Target) -> anyhow::Result<(Vec<Ending>, f64)> {
        let mut engine: Engine<BlockPool> = Engine::new(self.engine.clone());
        let mut coming = self.requests.iter().peekable();
        let mut slots: BTreeMap<RequestId, usize> = BTreeMap::new();
        let mut first: BTreeMap<RequestId, f64> = BTreeMap::new();
        let (mut endings, mut now_us, mut batch) = (Vec::new(), 0.0, Batch::default());
        while engine.has_requests() || coming.peek().is_some() {
            if !engine.has_requests() {
                now_us = coming.peek().map_or(now_us, |next| arrival_us(next).max(now_us));
            }
            while let Some(request) = coming.next_if(|next| arrival_us(next) <= now_us) {
                engine.add(EngineRequest::new(request.id, request, self.engine.max_model_len));
            }
            engine.schedule(&mut batch);
            let started = target.clock.start();
            model.forward(&chunks(&batch, &mut slots)).map_err(first_line)?;
            target.device.synchronize().map_err(first_line)?;
            now_us += started.us();
            let mut tokens = Vec::new();
            engine.update(&batch, &mut tokens);
            for token in tokens {
                let request = &self.requests[token.id.0 as usize];
                let since = (now_us - arrival_us(request)) / 1e6;
                let first = *first.entry(token.id).or_insert(since);
                if token.last {
                    slots.remove(&token.id);
                    endings.push((first, since, token.emitted));
                }
            }
        }
        Ok((endings, now_us / 1e6))
    }

    /// One replica of the fleet, nothing around it.
    fn simulate(&self, cost: &Arc<dyn CostModel>) -> anyhow::Result<(Vec<Ending>, f64)> {
        let pool = PoolConfig {
            name: "here".into(),
            replicas: 1,
            gpus: 1,
            labels: BTreeMap::new(),
            role: Role::Both,
            model_names: vec!["model".into()],
            engine: self.engine.clone(),
            cost: Arc::clone(cost),
            kv_block_bytes: 1,
            host: None,
            lora: None,
            data_parallel: Default::default(),
        };
        let config = FleetConfig {
            pools: vec![pool],
            kv: KvForm::default(),
            overhead: Overhead::default(),
            client: Client::default(),
            disaggregation: Disaggregation::default(),
            below_host: BelowHostTiers::default(),
            faults: Default::default(),
            split: None,
            warm_up: Time::ZERO,
            horizon: None,
        };
        let mut source =
            Listed { requests: self.requests.clone().into_iter().peekable(), labels: Labels::default() };
        let mut endings = Endings::default();
        fleet::run(&config, &mut source, &mut OnlyOne, &mut endings)?;
        Ok((endings.0, endings.1))
    }
}

fn arrival_us(request: &Request) -> f64 {
    request.arrival.as_nanos() as f64 / 1e3
}

fn engine(longest: u32, batch: u32) -> EngineConfig {
    let block_size = 16;
    EngineConfig {
        block_size,
        num_gpu_blocks: (longest.div_ceil(block_size) + 1) * SLOTS as u32 + 1,
        max_num_batched_tokens: batch.max(SLOTS as u32),
        max_num_seqs: SLOTS as u32,
        max_num_active_seqs: None,
        max_model_len: longest,
        long_prefill_token_threshold: 0,
        long_prefill_token_threshold_adaptive: false,
        policy: Policy::Fcfs,
        reserve_full_isl: true,
        watermark: 0.0,
        prefix_caching: false,
        chunked_prefill: true,
        max_loras: None,
        async_scheduling: false,
        max_num_queued_reqs: None,
        speculation: None,
    }
}

/// Prompts from an eighth to a half of the longest sequence, answers from a twentieth to a fifth, one after the
/// other at exponential gaps.
fn requests(count: usize, longest: u32, gap: Span) -> Vec<Request> {
    let mut random = Stream::new(SEED, "calibration traffic");
    let mut at = 0.0;
    let request = |number: usize| {
        let mut between = |low: f64, high: f64| {
            let tokens = f64::from(longest) * (low + (high - low) * random.uniform());
            (tokens as u32).max(2)
        };
        let (prompt_tokens, output_tokens) = (between(0.125, 0.5), between(0.05, 0.2));
        at += random.exponential() * gap.as_nanos() as f64;
        let id = number as u64;
        Request {
            id: RequestId(id),
            name: None,
            arrival: Time::from_nanos(at as u64),
            prompt: Prompt::of(Content::private(id), prompt_tokens),
            output: Content::generated(id),
            output_tokens,
            stop: Stop::Length,
            max_tokens: None,
            priority: 0,
            tenant: Label::NONE,
            class: Label::NONE,
            model: Label::NONE,
            adapter: Label::NONE,
            session: None,
        }
    };
    (0..count).map(request).collect()
}

/// What the transformer is to compute of a batch; a request keeps its slot while it runs.
fn chunks(batch: &Batch, slots: &mut BTreeMap<RequestId, usize>) -> Vec<Chunk> {
    let parts = batch.scheduled.iter();
    parts
        .map(|part| {
            let free = (0..).find(|slot| !slots.values().any(|taken| taken == slot)).unwrap_or(0);
            let slot = *slots.entry(part.id).or_insert(free);
            Chunk { slot, past: part.computed as usize, tokens: part.new as usize, samples: part.samples }
        })
        .collect()
}

/// Requests in order.
struct Listed {
    requests: std::iter::Peekable<std::vec::IntoIter<Request>>,
    labels: Labels,
}

impl Source for Listed {
    fn peek(&mut self) -> Result<Option<Time>, SourceError> {
        Ok(self.requests.peek().map(|request| request.arrival))
    }

    fn pop(&mut self) -> Result<Option<Request>, SourceError> {
        Ok(self.requests.next())
    }

    fn ended(&mut self, _: &Request, _: Status, _: Time) {}

    fn labels(&self) -> &Labels {
        &self.labels
    }
}

struct OnlyOne;

impl Router for OnlyOne {
    fn place(&mut self, _: Time, _: &Request, _: &mut View<'_>) -> Result<Choice, Rejection> {
        Ok(Choice::alone(0))
    }
}

/// The endings, and when the last was.
#[derive(Default)]
struct Endings(Vec<Ending>, f64);

impl Observer for Endings {
    fn ended(&mut self, outcome: &Outcome, _: &Labels) {
        self.1 = self.1.max(outcome.ended.as_secs_f64());
        if let (Some(first), Some(last)) = (outcome.ttft(), outcome.e2e()) {
            self.0.push((first.as_secs_f64(), last.as_secs_f64(), outcome.emitted));
        }
    }
}
