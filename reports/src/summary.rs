//! The summary of one run: the JSON document that `forerun simulate --format json` prints.
//!
//! Keys are stable: new ones are appended, none is moved or renamed. A figure that was never measured, such
//! as a percentile of no samples, is `null`. Two runs of the same scenario and seed differ in nothing but
//! the wall-clock figures, which [`Summary::without_wall`] leaves out.

use std::collections::BTreeMap;

use forerun_sim::fleet::MirrorTotals;
use forerun_sim::request::Cause;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::PoolCapacity;
use crate::replications::Replications;

/// What one run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Layout of this document.
    pub schema: SchemaName,
    /// Seed of the run: the same scenario and seed give the same figures.
    pub seed: u64,
    /// How many requests there were and how they ended.
    pub requests: Requests,
    /// Arrival to first output token at the client, overheads included; completed requests.
    pub ttft_ms: LatencyMs,
    /// Mean time per output token after the first; completed requests of two tokens or more.
    pub tpot_ms: LatencyMs,
    /// Gaps between consecutive tokens of a request, of all requests, that end after the warm-up.
    pub itl_ms: LatencyMs,
    /// Arrival to last token; completed requests.
    pub e2e_ms: LatencyMs,
    /// Engine arrival to first admission to a batch; completed requests.
    pub queue_ms: LatencyMs,
    /// Work done per second.
    pub throughput: Throughput,
    /// Work done that meets the service level objectives.
    pub goodput: Goodput,
    /// What the KV cache saved and cost; requests admitted at least once.
    pub kv: Kv,
    /// Where the time of completed requests went: the mean of each cause. The causes add up to the mean of
    /// `e2e_ms`.
    pub latency_ms_by_cause: LatencyByCause,
    /// Requests that failed or were rejected, by reason.
    pub failures: Failures,
    /// Requests of each tenant; those without a tenant are in no group.
    pub by_tenant: BTreeMap<String, GroupSummary>,
    /// Requests of each SLO class; those without a class are in no group.
    pub by_class: BTreeMap<String, GroupSummary>,
    /// Requests served by each pool; those that never reached a replica are in no group.
    pub by_pool: BTreeMap<String, GroupSummary>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// Each replica.
    pub replicas: Vec<Replica>,
    /// What the GPUs cost.
    pub cost: Cost,
    /// The simulation itself.
    pub simulation: Simulation,
    /// The limits asked of the whole run, and whether they hold.
    #[serde(default)]
    pub slo_checks: Vec<SloCheck>,
    /// What was simulated, in words.
    #[serde(default)]
    pub about: Vec<String>,
    /// All replications together, when there are several; the other keys are those of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replications: Option<Replications>,
    /// Where the step times of each pool come from.
    #[serde(default)]
    pub cost_model: Vec<CostModelSource>,
    /// Loads of LoRA adapters, when there were some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<AdapterLoads>,
    /// How much context the KV memory has room for, with and without each tier.
    #[serde(default)]
    pub kv_capacity: Vec<PoolCapacity>,
    /// Speculative decoding, when some was done (not golden-tested).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speculative: Option<Speculative>,
    /// Replicas that died, or were replaced.
    #[serde(default)]
    pub replica_deaths: u64,
    /// Copies of requests that no client waited for, when traffic is mirrored. They are in no other figure but those of
    /// the replicas and their cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<Mirrored>,
}

/// What guessing tokens ahead gave, in steps that ended after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speculative {
    /// Guesses that were verified.
    pub verified_tokens: u64,
    /// Of those, guesses that stood and were delivered.
    pub accepted_tokens: u64,
    /// Tokens that a decode delivered in a step, on average; the last steps of answers included.
    pub tokens_per_step: Option<f64>,
}

/// Loads of LoRA adapters to the GPUs of the fleet, from the end of the warm-up to the end of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdapterLoads {
    /// Loads to a GPU.
    pub loads: u64,
    /// Of those, from disk, because host memory did not have the adapter.
    pub disk_loads: u64,
    /// Loads per minute, of all replicas together.
    pub loads_per_minute: Option<f64>,
    /// Seconds that steps waited for loads, of all replicas together.
    pub waited_s: f64,
    /// The same as a share of the time with a step in progress, 0 to 1.
    pub waited_fraction: Option<f64>,
}

/// What became of mirrored requests, warm-up included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mirrored {
    /// Copies that were sent: the sum of the four below.
    pub sent: u64,
    /// Copies of which all tokens were generated.
    pub completed: u64,
    /// Copies that were accepted and not finished.
    pub failed: u64,
    /// Copies that were turned away.
    pub rejected: u64,
    /// Copies in flight when the run ended.
    pub unfinished: u64,
    /// Tokens that were generated for nobody.
    pub output_tokens: u64,
    /// Mean time to first token of those completed, in milliseconds.
    pub ttft_mean_ms: Option<f64>,
}

impl Mirrored {
    /// From a run's totals; `None` when nothing was mirrored.
    pub(crate) fn of(totals: &MirrorTotals) -> Option<Self> {
        let MirrorTotals { sent, completed, failed, rejected, unfinished, output_tokens, ttft_sum_ns } =
            *totals;
        assert_eq!(sent, completed + failed + rejected + unfinished, "every copy ends exactly once");
        let ttft_mean_ms = (completed > 0).then(|| ttft_sum_ns as f64 / completed as f64 / 1e6);
        (sent > 0).then_some(Self {
            sent,
            completed,
            failed,
            rejected,
            unfinished,
            output_tokens,
            ttft_mean_ms,
        })
    }
}

/// Where the step times of a pool come from, and how far they can be trusted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CostModelSource {
    /// The pool.
    pub pool: String,
    /// Its GPU.
    pub gpu: String,
    /// Its model.
    pub model: String,
    /// `measured here`: kernels timed on the device at hand, or closed forms fitted to the server at hand; `tables`: kernel
    /// times measured on this GPU; `fitted`: closed forms fitted to such times; `datasheet`: closed forms over datasheet
    /// peaks, with efficiencies of another GPU.
    pub grade: String,
    /// What was measured, by whom, and the error of the fit.
    pub source: String,
    /// How far such figures were off where servers were measured; null where nothing is known.
    #[serde(default)]
    pub uncertainty: Option<Uncertainty>,
}

/// Errors of figures against measured servers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Uncertainty {
    /// What was compared, in words.
    pub basis: String,
    /// Loads whose latencies were compared: those below capacity, or all where none was.
    pub loads: u64,
    /// Simulated over measured, minus one: the least and the largest over these loads, by the key of the figure in this
    /// document, for example `e2e_ms.mean`.
    pub errors: BTreeMap<String, [f64; 2]>,
    /// Whose loads these are.
    #[serde(default)]
    pub compared: Compared,
}

/// Which measured servers stand for a simulated one, the farthest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// Servers with other GPUs: none with this one was measured.
    #[default]
    OtherGpus,
    /// Servers with this GPU and models of another kind.
    SameGpu,
    /// Servers with this GPU and models of this kind.
    SameKind,
    /// The server itself.
    ThisServer,
}

impl Uncertainty {
    /// One sentence: the basis, and the errors of the figures that are asked for most.
    #[must_use]
    pub fn words(&self) -> String {
        const SHOWN: [(&str, &str); 5] = [
            ("E2E mean", "e2e_ms.mean"),
            ("E2E p99", "e2e_ms.p99"),
            ("TTFT mean", "ttft_ms.mean"),
            ("TTFT p99", "ttft_ms.p99"),
            ("requests/s", "throughput.requests_per_s"),
        ];
        let off = |(name, key): &(&str, &str)| {
            let [low, high] = self.errors.get(*key)?;
            Some(format!("{name} {:+.1} to {:+.1} %", low * 100.0, high * 100.0))
        };
        let errors: Vec<String> = SHOWN.iter().filter_map(off).collect();
        format!("errors of {}: {}", self.basis, errors.join(", "))
    }
}

/// Names and versions the layout of a summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SchemaName {
    /// The first layout.
    #[default]
    #[serde(rename = "forerun/summary/v1")]
    V1,
}

/// Counts of requests that arrived after the warm-up.
///
/// `arrived` = `completed` + `failed` + `rejected` + `unfinished`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requests {
    /// Sent by clients.
    pub arrived: u64,
    /// All output tokens delivered.
    pub completed: u64,
    /// Accepted, but not finished.
    pub failed: u64,
    /// Turned away before any work.
    pub rejected: u64,
    /// Still in flight at the horizon of the run.
    pub unfinished: u64,
    /// Completed within every limit of the service level objectives; without limits, all completed.
    pub good: u64,
    /// Arrived before the end of the warm-up: simulated, and in none of the other counts.
    #[serde(default)]
    pub warm_up: u64,
    /// How often clients sent a request again after a timeout.
    #[serde(default)]
    pub retries: u64,
    /// How often requests were sent again because their replica had died.
    #[serde(default)]
    pub restarts: u64,
}

/// A latency distribution in milliseconds. Mean and maximum are exact, percentiles within 0.1 %. All are
/// null when there are no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyMs {
    /// Mean, in milliseconds.
    pub mean: Option<f64>,
    /// Median, in milliseconds.
    pub p50: Option<f64>,
    /// 90th percentile, in milliseconds.
    pub p90: Option<f64>,
    /// 95th percentile, in milliseconds.
    pub p95: Option<f64>,
    /// 99th percentile, in milliseconds.
    pub p99: Option<f64>,
    /// Maximum, in milliseconds.
    pub max: Option<f64>,
}

/// Work done from the end of the warm-up to the last arrival, per second, for whichever request. Null when
/// that period is empty, as when all requests arrive at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Throughput {
    /// Requests completed per second.
    pub requests_per_s: Option<f64>,
    /// Prompt tokens computed per second; tokens found in a cache are not computed.
    pub input_tokens_per_s: Option<f64>,
    /// Output tokens delivered per second.
    pub output_tokens_per_s: Option<f64>,
    /// The same from the end of the warm-up to the end of the run, when the last request ended.
    pub with_drain: Rates,
}

/// Work done per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Requests completed per second.
    pub requests_per_s: Option<f64>,
    /// Prompt tokens computed per second.
    pub input_tokens_per_s: Option<f64>,
    /// Output tokens delivered per second.
    pub output_tokens_per_s: Option<f64>,
}

/// Work that meets the service level objectives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Goodput {
    /// Good requests completed per second, from the end of the warm-up to the last arrival: the good part
    /// of `throughput.requests_per_s`.
    pub requests_per_s: Option<f64>,
    /// Good requests as a share of arrived ones, 0 to 1.
    pub attainment: Option<f64>,
}

/// What the KV cache saved and cost, over the requests that arrived after the warm-up and were admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Kv {
    /// Tokens in the prompts.
    pub prompt_tokens: u64,
    /// Prompt tokens computed on one replica while another held them.
    pub duplicate_prefill_tokens: u64,
    /// Prompt tokens found in a cache at first admission.
    pub hit_tokens: HitTokens,
    /// Tokens found in any cache as a share of all prompt tokens, 0 to 1.
    pub hit_rate: Option<f64>,
    /// Requests thrown out of a batch for lack of KV blocks.
    pub preemptions: u64,
    /// Prompt and answer of a completed request, tokens, mean.
    #[serde(default)]
    pub context_tokens_mean: Option<f64>,
}

/// Prompt tokens found in a cache, by its tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HitTokens {
    /// In the GPU's prefix cache.
    pub gpu: u64,
    /// In the host's memory.
    pub cpu: u64,
    /// On disk.
    pub disk: u64,
    /// In the store that replicas share.
    pub shared: u64,
}

/// Mean time per completed request by cause, in milliseconds; all null when none was completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LatencyByCause {
    /// Held in the router's own queue, ms.
    pub router_queue: Option<f64>,
    /// In the engine's queue because `max_num_seqs` requests run, ms.
    pub engine_queue_slots: Option<f64>,
    /// In the engine's queue because KV blocks are short; includes the wait after a preemption, ms.
    pub engine_queue_kv: Option<f64>,
    /// In the engine's queue because a step's token budget was spent, ms.
    pub engine_queue_budget: Option<f64>,
    /// From admission to the first token, and recomputation after a preemption, ms.
    pub own_prefill: Option<f64>,
    /// KV transfer between replicas, ms.
    pub transfer: Option<f64>,
    /// Steps that generate its tokens, at the pace they would have without others' prefills, ms.
    pub decode: Option<f64>,
    /// What those steps took longer because they also computed others' prefills, ms.
    pub stalled_by_others_prefill: Option<f64>,
    /// Fixed costs before the engine: gateway, endpoint picker, API server, tokenizer, ms.
    #[serde(default)]
    pub overhead: Option<f64>,
    /// In the engine's queue until the step in flight ends and the scheduler looks, ms.
    #[serde(default)]
    pub engine_queue_step: Option<f64>,
    /// In the engine's queue because `max_loras` other adapters run, ms.
    #[serde(default)]
    pub engine_queue_lora: Option<f64>,
}

/// Requests that failed or were rejected, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failures {
    /// Waited longer in the router's queue than its time to live.
    pub ttl: u64,
    /// The client gave up waiting.
    pub timeout: u64,
    /// Turned away by the router: saturated, denied, its queue full, or no endpoint left by its filters; or taken back
    /// while in flight to make room for others (`evicted`).
    pub shed: u64,
    /// Prompt not shorter than `max_model_len`.
    pub too_long: u64,
    /// The replica that had it died.
    pub fault: u64,
    /// The engine's queue was full: HTTP 503.
    #[serde(default)]
    pub queue_full: u64,
    /// No pool serves the model asked for.
    #[serde(default)]
    pub no_such_model: u64,
    /// The KV of its prompt was gone when it was to be pulled.
    #[serde(default)]
    pub transfer: u64,
}

/// Figures of one tenant, class or pool, over requests that arrived after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupSummary {
    /// Requests that arrived.
    pub arrived: u64,
    /// Requests completed.
    pub completed: u64,
    /// Requests completed within every limit of the service level objectives.
    pub good: u64,
    /// Good requests as a share of arrived ones, 0 to 1.
    pub attainment: Option<f64>,
    /// Arrival to first output token; completed requests.
    pub ttft_ms: LatencyMs,
    /// Mean time per output token after the first; completed requests of two tokens or more.
    pub tpot_ms: LatencyMs,
    /// Arrival to last token; completed requests.
    pub e2e_ms: LatencyMs,
    /// Prompt tokens found in a cache as a share of all prompt tokens, 0 to 1.
    pub hit_rate: Option<f64>,
    /// Output tokens delivered, those of failed requests included.
    pub output_tokens: u64,
}

/// One replica, from the end of the warm-up to the end of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Share of the time with a step in progress, 0 to 1.
    pub busy_fraction: Option<f64>,
    /// Engine steps.
    pub steps: u64,
    /// Mean share of its KV blocks in use, 0 to 1.
    pub kv_usage_mean: f64,
    /// Requests sent to it.
    pub requests: u64,
    /// The pool that it belongs to.
    #[serde(default)]
    pub pool: String,
    /// GPUs that it occupies.
    #[serde(default)]
    pub gpus: u32,
    /// Requests that it threw out of a batch for lack of KV blocks.
    #[serde(default)]
    pub preemptions: u64,
}

/// What the GPUs cost from the end of the warm-up to the end of the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// GPUs occupied times hours.
    pub gpu_hours: f64,
    /// Their price in US dollars; null when some price is not known.
    pub usd: Option<f64>,
    /// The price of a million output tokens delivered in that time, in US dollars.
    pub usd_per_million_output_tokens: Option<f64>,
    /// Where the price of a GPU hour comes from, when the scenario does not say it: a list price, an assumption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_source: Option<String>,
}

/// The simulation itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Simulation {
    /// Simulated time at the last event, in seconds.
    pub virtual_s: f64,
    /// Engine steps simulated.
    pub steps: u64,
    /// Wall-clock time that the simulation took, in seconds. This and the next are the only figures that
    /// differ between runs of the same scenario and seed; null where they are left out.
    pub wall_s: Option<f64>,
    /// Requests simulated, the warm-up's included, per second of wall-clock time.
    pub requests_per_wall_s: Option<f64>,
}

/// One limit asked of the whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SloCheck {
    /// What is limited, for example `ttft_p99` or `attainment`.
    pub name: String,
    /// The limit and the figure that is held against it.
    #[serde(flatten)]
    pub figures: SloFigures,
    /// Whether it holds. What was never measured does not hold.
    pub holds: bool,
}

/// A limit and the figure that is held against it; the figure is null when it was never measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SloFigures {
    /// A latency must not exceed its limit.
    Latency {
        /// Limit in milliseconds.
        limit_ms: f64,
        /// Measured, in milliseconds.
        actual_ms: Option<f64>,
    },
    /// A share must reach its limit.
    Share {
        /// Smallest share that is accepted, 0 to 1.
        limit_share: f64,
        /// Measured, 0 to 1.
        actual_share: Option<f64>,
    },
}

/// `part` as a share of `whole`; `None` when there is no whole.
pub(crate) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Summary {
    /// The summary without its wall-clock figures: identical, byte for byte once serialised, in every run of
    /// the same scenario and seed.
    #[must_use]
    pub fn without_wall(&self) -> Self {
        let mut summary = self.clone();
        summary.simulation.wall_s = None;
        summary.simulation.requests_per_wall_s = None;
        summary
    }

    /// The document as users read it: indented JSON and a final newline.
    ///
    /// # Panics
    /// Never: all keys are strings and all numbers are finite or `null`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("a summary is plain data");
        json.push('\n');
        json
    }

    /// The JSON Schema of this document.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

impl LatencyByCause {
    /// Each key and its mean in milliseconds, in the order in which a request meets the causes.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, Option<f64>); Cause::ALL.len()] {
        let mut means = *self;
        Cause::ALL.map(|cause| (cause.key(), *means.of(cause)))
    }

    /// The place of `cause`.
    pub(crate) fn of(&mut self, cause: Cause) -> &mut Option<f64> {
        match cause {
            Cause::Overhead => &mut self.overhead,
            Cause::RouterQueue => &mut self.router_queue,
            Cause::EngineQueueStep => &mut self.engine_queue_step,
            Cause::EngineQueueSlots => &mut self.engine_queue_slots,
            Cause::EngineQueueKv => &mut self.engine_queue_kv,
            Cause::EngineQueueBudget => &mut self.engine_queue_budget,
            Cause::EngineQueueLora => &mut self.engine_queue_lora,
            Cause::OwnPrefill => &mut self.own_prefill,
            Cause::Transfer => &mut self.transfer,
            Cause::Decode => &mut self.decode,
            Cause::StalledByOthersPrefill => &mut self.stalled_by_others_prefill,
        }
    }
}

impl Failures {
    /// Each reason and its count.
    #[must_use]
    pub fn entries(&self) -> [(&'static str, u64); 8] {
        [
            ("ttl", self.ttl),
            ("timeout", self.timeout),
            ("shed", self.shed),
            ("too_long", self.too_long),
            ("fault", self.fault),
            ("queue_full", self.queue_full),
            ("no_such_model", self.no_such_model),
            ("transfer", self.transfer),
        ]
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
