//! Random scenarios.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forerun_policies::PRESETS;
use forerun_sim::catalog;
use forerun_sim::cost::CostModel;
use forerun_sim::cost::closed_form::{CPU_PER_REQUEST, CPU_PER_STEP, ClosedForm, ClosedFormInput};
use forerun_sim::engine::config::{EngineConfig, Policy};
use forerun_sim::engine::speculation::Speculation;
use forerun_sim::fleet::{
    Client, DataParallel, Disaggregation, FleetConfig, KvForm, Overhead, PoolConfig, Role,
};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels, Outcome, Request, Stop};
use forerun_sim::time::Span;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::harness::{Line, Linear, Run, Script, Steeper, at, ns, play, request};

/// A request as it is drawn. What refers to other requests is resolved by [`lines`].
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// After the previous line's arrival, or after the end of the request that it follows.
    pub(super) wait: u64,
    /// It follows the request so many lines before, and repeats its prompt and answer if so asked.
    pub(super) follows: Option<(usize, bool)>,
    pub(super) shared: (u64, u32),
    pub(super) own: u32,
    pub(super) output: u32,
    pub(super) max_tokens: Option<u32>,
    pub(super) stop: Stop,
    pub(super) priority: i32,
    pub(super) adapter: u32,
    pub(super) model: u32,
}

pub(super) fn ask() -> impl Strategy<Value = Ask> {
    let text = ((0..3u64, 0..90u32), 1..60u32, prop_oneof![1..4u32, 1..50u32], weighted(0.2, 1..30u32));
    let kind = (
        select(&[Stop::Length, Stop::Eos][..]),
        -2..3i32,
        0..4u32,
        prop_oneof![4 => Just(0u32), 3 => 1..3u32, 1 => Just(3u32)],
    );
    let when = (
        prop_oneof![2 => Just(0u64), 2 => 0..100_000u64, 1 => 0..2_000_000u64],
        weighted(0.4, (1..4usize, any::<bool>())),
    );
    (text, kind, when).prop_map(
        |((shared, own, output, max_tokens), (stop, priority, adapter, model), (wait, follows))| Ask {
            wait,
            follows,
            shared,
            own,
            output,
            max_tokens,
            stop,
            priority,
            adapter,
            model,
        },
    )
}

/// Models "a", "b", "c" and adapters have the labels of their order here.
pub(super) fn labels() -> Labels {
    let mut labels = Labels::default();
    for name in ["a", "b", "c", "adapter 1", "adapter 2", "adapter 3"] {
        labels.intern(name);
    }
    labels
}

pub(super) fn lines(asks: &[Ask]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut clock = 0;
    for (number, ask) in asks.iter().enumerate() {
        let follows =
            ask.follows.filter(|&(back, _)| back <= number).map(|(back, repeat)| (number - back, repeat));
        clock += if follows.is_some() { 0 } else { ask.wait };
        let mut prompt = Prompt::new();
        match follows {
            Some((before, true)) => {
                prompt.extend(&lines[before].request.prompt);
                prompt.push(lines[before].request.output, lines[before].request.output_tokens);
            }
            _ => prompt.push(Content::shared(ask.shared.0), ask.shared.1),
        }
        prompt.push(Content::private(number as u64), ask.own);
        let request = Request {
            prompt,
            stop: ask.stop,
            max_tokens: ask.max_tokens,
            priority: ask.priority,
            model: Label(ask.model),
            adapter: if ask.adapter == 0 { Label::NONE } else { Label(3 + ask.adapter) },
            ..request(number as u64, clock, 1, ask.output)
        };
        lines.push(Line { request, follows: follows.map(|(before, _)| (before, ns(ask.wait))) });
    }
    lines
}

/// Drafts from hopeless to certain.
pub(crate) fn speculation() -> impl Strategy<Value = Speculation> {
    let acceptance = prop_oneof![4 => 0.0..1.0f64, 1 => Just(1.0)];
    (1..6u32, acceptance, any::<bool>()).prop_map(|(tokens, acceptance, ahead)| Speculation {
        tokens,
        acceptance,
        lookahead: if ahead { tokens } else { 0 },
        draft_slots: u32::from(!ahead),
        seed: 1,
    })
}

/// Places of a step that a draft takes.
pub(crate) fn draft_slots(speculation: Option<Speculation>, max_num_seqs: u32) -> u32 {
    speculation.map_or(0, |speculation| speculation.draft_slots * max_num_seqs)
}

/// Engine arguments that contradict each other nowhere; caches from barely enough to ample.
pub(super) fn engine() -> impl Strategy<Value = EngineConfig> {
    let size = (
        select(&[4u32, 16][..]),
        60..260u32,
        prop_oneof![100..120u32, 100..400u32],
        1..9u32,
        0..120u32,
        weighted(0.2, 1..9u32),
    );
    let rules = (
        prop_oneof![3 => Just(0u32), 1 => 4..40u32],
        any::<bool>(),
        select(&[Policy::Fcfs, Policy::Priority][..]),
        any::<bool>(),
        select(&[0.0, 0.0, 0.05, 0.3][..]),
        prop_oneof![3 => Just(true), 1 => Just(false)],
        prop_oneof![3 => Just(true), 1 => Just(false)],
        weighted(0.3, 1..3u32),
        any::<bool>(),
        weighted(0.15, 1..6u32),
    );
    let speculation = weighted(0.2, speculation());
    (size, rules, speculation).prop_map(|(size, rules, speculation)| {
        let (block_size, max_model_len, kv_percent, max_num_seqs, budget, active) = size;
        let (threshold, adaptive, policy, reserve, watermark, caching, chunked, loras, is_async, queued) =
            rules;
        let least = if chunked { max_num_seqs } else { max_num_seqs.max(max_model_len) };
        EngineConfig {
            block_size,
            num_gpu_blocks: max_model_len.div_ceil(block_size) * kv_percent / 100 + 1,
            max_num_batched_tokens: least + budget + draft_slots(speculation, max_num_seqs),
            max_num_seqs,
            max_num_active_seqs: active.map(|active| active.min(max_num_seqs)),
            max_model_len,
            long_prefill_token_threshold: threshold,
            long_prefill_token_threshold_adaptive: adaptive,
            policy,
            reserve_full_isl: reserve,
            watermark,
            prefix_caching: caching,
            chunked_prefill: chunked,
            max_loras: loras,
            async_scheduling: is_async,
            max_num_queued_reqs: queued,
            speculation,
        }
    })
}

/// One or two pools of the same or of different models, four replicas at most.
pub(super) fn pools() -> impl Strategy<Value = Vec<PoolConfig>> {
    let steeper = || (0..60u64, 0..40u64).prop_map(|(tokens, slope)| Steeper { tokens, slope });
    let linear = (0..50_000u64, 1..2000u64, 0..2000u64, 0..60_000u64, steeper(), steeper()).prop_map(
        |(step, token, request, cpu, context, longest)| {
            Some(Linear { step, token, request, cpu, context, longest })
        },
    );
    let ranks = prop_oneof![4 => Just(DataParallel::default()), 1 => (2..4u32, any::<bool>()).prop_map(
        |(ranks, lock_step)| DataParallel { ranks, lock_step })];
    let pool = (1..3u32, engine(), prop_oneof![4 => linear, 1 => Just(None)], select(&["a", "b"][..]), ranks);
    vec(pool, 1..3).prop_map(|pools| {
        let pool = |(index, (replicas, engine, linear, model, data_parallel)): (
            usize,
            (u32, EngineConfig, Option<Linear>, &str, DataParallel),
        )| {
            engine.check().expect("drawn to be valid");
            let cost: Arc<dyn CostModel> = match linear {
                Some(linear) => Arc::new(linear),
                None => Arc::new(closed_form(&engine)),
            };
            let name = format!("pool{index}");
            PoolConfig {
                name,
                replicas: replicas * data_parallel.ranks,
                gpus: 1,
                labels: BTreeMap::new(),
                role: Role::Both,
                kv_block_bytes: 1,
                host: None,
                lora: None,
                data_parallel,
                model_names: vec![model.into()],
                engine,
                cost,
            }
        };
        pools.into_iter().enumerate().map(pool).collect()
    })
}

pub(super) fn closed_form(engine: &EngineConfig) -> ClosedForm {
    ClosedForm::new(&ClosedFormInput {
        gpu: catalog::gpu("h100").expect("in the catalog"),
        model: catalog::model("llama-3.1-8b").expect("in the catalog"),
        tensor_parallel: 1,
        kv_element_bytes: 2,
        max_num_seqs: engine.most_logits(),
        max_num_batched_tokens: engine.max_num_batched_tokens,
        data_parallel: 1,
        cpu_per_step: CPU_PER_STEP,
        cpu_per_request: CPU_PER_REQUEST,
    })
    .expect("a valid model")
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) fleet: FleetConfig,
    pub(super) asks: Vec<Ask>,
    pub(super) policy: &'static str,
}

pub(crate) fn scenario() -> impl Strategy<Value = Scenario> {
    let some_nanos = |most: u64| prop_oneof![Just(0u64), 0..most];
    let around = (
        (some_nanos(80_000), some_nanos(80_000), some_nanos(900_000)),
        weighted(0.3, 100_000..4_000_000u64),
        0..3u32,
        prop_oneof![2 => Just(0u64), 1 => 0..3_000_000u64],
        weighted(0.2, 200_000..6_000_000u64),
    );
    let policy = select(PRESETS.map(|preset| preset.name).into_iter().chain(["curious"]).collect::<Vec<_>>());
    (pools(), around, vec(ask(), 1..40), policy).prop_map(|(pools, around, asks, policy)| {
        let ((routing, api_server, tokenize), timeout, retries, warm_up, horizon) = around;
        let fleet = FleetConfig {
            kv: KvForm::Extents,
            pools,
            overhead: Overhead {
                gateway: ns(routing / 2),
                picker: ns(routing - routing / 2),
                api_server: ns(api_server),
                tokenize_per_1k_tokens: ns(tokenize),
            },
            client: Client { timeout: timeout.map(ns), retries },
            disaggregation: Disaggregation::default(),
            below_host: Default::default(),
            faults: Default::default(),
            split: None,
            warm_up: at(warm_up),
            horizon: horizon.map(at),
        };
        Scenario { fleet, asks, policy }
    })
}

impl Scenario {
    pub(super) fn script(&self) -> Script {
        let probe = |model| Request { model: Label(model), ..request(0, 0, 1, 1) };
        Script::new(lines(&self.asks), labels(), vec![probe(1), probe(2)])
    }

    pub(crate) fn run(&self) -> Run {
        play(&self.fleet, self.script(), self.policy)
    }

    /// Changes every pool's engine.
    pub(super) fn with_engines(mut self, change: impl Fn(&mut EngineConfig)) -> Self {
        self.fleet.pools.iter_mut().for_each(|pool| change(&mut pool.engine));
        self
    }

    /// Without what ends requests early, other than a prompt that is too long.
    pub(super) fn patient(mut self) -> Self {
        self.fleet.client = Client::default();
        self.fleet.horizon = None;
        self.with_engines(|engine| engine.max_num_queued_reqs = None)
    }

    /// With KV blocks for all requests at once.
    pub(super) fn with_ample_memory(self) -> Self {
        let requests = self.asks.len() as u32 + 2;
        self.with_engines(|engine| {
            let each = engine.max_model_len.div_ceil(engine.block_size);
            engine.watermark = 0.0;
            engine.num_gpu_blocks = 1 + requests * each;
        })
    }

    /// With one replica.
    pub(super) fn alone(mut self) -> Self {
        self.fleet.pools.truncate(1);
        self.fleet.pools[0].replicas = 1;
        self.fleet.pools[0].data_parallel = DataParallel::default();
        self
    }

    /// Whether some engine verifies guesses.
    pub(super) fn guesses(&self) -> bool {
        self.fleet.pools.iter().any(|pool| pool.engine.speculation.is_some())
    }

    pub(super) fn serves(&self, model: Label) -> bool {
        let names: BTreeSet<_> = self.fleet.pools.iter().flat_map(|pool| &pool.model_names).collect();
        let labels = labels();
        names.len() == 1 || !model.is_some() || names.iter().any(|name| *name == labels.name(model))
    }

    /// The pool that served a request.
    pub(super) fn pool(&self, outcome: &Outcome) -> Option<&PoolConfig> {
        let replicas = self.fleet.pools.iter().flat_map(|pool| (0..pool.replicas).map(move |_| pool));
        outcome.replica.map(|id| replicas.clone().nth(id.0 as usize).expect("a replica of the fleet"))
    }

    /// Time from a client to its engine.
    pub(super) fn overhead(&self, request: &Request) -> Span {
        let Overhead { gateway, picker, api_server, tokenize_per_1k_tokens } = self.fleet.overhead;
        let tokens = u64::from(request.prompt.tokens());
        gateway + picker + api_server + ns(tokenize_per_1k_tokens.as_nanos() * tokens / 1000)
    }
}
