//! Sums a run up while it goes on, in memory that does not grow with the number of requests.

use std::collections::BTreeMap;

use forerun_sim::observer::{Observer, QuietSteps, ReplicaTotals, RunTotals};
use forerun_sim::request::{
    Cause, Failure, Label, Labels, Outcome, Refusal, Rejection, ReplicaId, Request, Status,
};
use forerun_sim::time::{Span, Time};

use crate::groups::{GROUPS_MAX, Groups, OTHERS, record_some, tpot};
use crate::histogram::LatencyHistogram;
use crate::slo::Slo;
use crate::summary::{
    AdapterLoads, Cost, Failures, Goodput, HitTokens, Kv, LatencyByCause, Mirrored, Rates, Replica, Requests,
    SchemaName, Simulation, Speculative, Summary, Throughput, share,
};
use crate::window::{Window, Work};

/// Watches a run and sums it up.
///
/// Requests that arrive before the end of the warm-up are counted as such and left out of everything but
/// throughput and goodput, which are about the work done in a period, for whichever request, and the gaps
/// between tokens, which belong to no particular request. Latencies are over completed requests.
#[derive(Debug)]
pub struct Collector {
    warm_up: Time,
    slo: Slo,
    requests: Requests,
    failures: Failures,
    ttft: LatencyHistogram,
    tpot: LatencyHistogram,
    itl: LatencyHistogram,
    e2e: LatencyHistogram,
    queue: LatencyHistogram,
    causes: CauseSums,
    prompt_tokens: u64,
    /// Prompts and answers of completed requests.
    context_tokens: u64,
    hit_tokens: HitTokens,
    duplicate_tokens: u64,
    preemptions: u64,
    window: Window,
    by_tenant: Groups,
    by_class: Groups,
    by_pool: Groups,
    pools: Labels,
    pool_of: Vec<Label>,
}

/// What a summary says beside what was collected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummaryContext {
    /// Seed of the run.
    pub seed: u64,
    /// What was simulated, in words: the first line is a title, the others say more.
    pub about: Vec<String>,
    /// What a reader should know before trusting the figures.
    pub warnings: Vec<String>,
    /// US dollars per GPU hour of each pool, where prices are known.
    pub gpu_hour_usd: Option<BTreeMap<String, f64>>,
    /// Wall-clock seconds that the simulation took; `None` leaves the figures out.
    pub wall_s: Option<f64>,
}

/// Nanoseconds by cause over completed requests.
#[derive(Debug, Default)]
struct CauseSums([u128; Cause::ALL.len()]);

impl Collector {
    /// A collector for a run whose warm-up ends at `warm_up`. `pool_of` names the pool of each replica, in
    /// the order of [`ReplicaId`].
    #[must_use]
    pub fn new<P: AsRef<str>>(warm_up: Time, slo: Slo, pool_of: impl IntoIterator<Item = P>) -> Self {
        let mut pools = Labels::default();
        let pool_of = pool_of.into_iter().map(|pool| pools.intern(pool.as_ref())).collect();
        Self {
            warm_up,
            slo,
            requests: Requests::default(),
            failures: Failures::default(),
            ttft: LatencyHistogram::default(),
            tpot: LatencyHistogram::default(),
            itl: LatencyHistogram::default(),
            e2e: LatencyHistogram::default(),
            queue: LatencyHistogram::default(),
            causes: CauseSums::default(),
            prompt_tokens: 0,
            context_tokens: 0,
            hit_tokens: HitTokens::default(),
            duplicate_tokens: 0,
            preemptions: 0,
            window: Window::new(warm_up),
            by_tenant: Groups::default(),
            by_class: Groups::default(),
            by_pool: Groups::default(),
            pools,
            pool_of,
        }
    }

    /// The summary of the run, once it has ended. `labels` are those that the run used.
    ///
    /// # Panics
    /// When a request that arrived never ended, which would be a bug of the simulator.
    #[must_use]
    pub fn finish(self, totals: &RunTotals, labels: &Labels, context: SummaryContext) -> Summary {
        let Requests { arrived, completed, failed, rejected, unfinished, good, warm_up, .. } = self.requests;
        assert_eq!(arrived, completed + failed + rejected + unfinished, "every request ends exactly once");
        let warnings = self.warnings(context.warnings);
        let (until_last_arrival, period) = self.window.without_drain();
        let (with_drain, whole_period) = self.window.with_drain(totals.end);
        let rates = rates(&until_last_arrival, period);
        let label_name = |key| labels.name(Label(key));
        let mut summary = Summary {
            schema: SchemaName::V1,
            seed: context.seed,
            requests: self.requests,
            ttft_ms: self.ttft.summary(),
            tpot_ms: self.tpot.summary(),
            itl_ms: self.itl.summary(),
            e2e_ms: self.e2e.summary(),
            queue_ms: self.queue.summary(),
            throughput: Throughput {
                requests_per_s: rates.requests_per_s,
                input_tokens_per_s: rates.input_tokens_per_s,
                output_tokens_per_s: rates.output_tokens_per_s,
                with_drain: self::rates(&with_drain, whole_period),
            },
            goodput: Goodput {
                requests_per_s: rate(until_last_arrival.good, period),
                attainment: share(good, arrived),
            },
            kv: self.kv(),
            latency_ms_by_cause: self.causes.means(completed),
            failures: self.failures,
            by_tenant: self.by_tenant.finish(label_name),
            by_class: self.by_class.finish(label_name),
            by_pool: self.by_pool.finish(|key| self.pools.name(Label(key))),
            warnings,
            replicas: totals.replicas.iter().map(replica).collect(),
            cost: cost(&totals.replicas, context.gpu_hour_usd.as_ref(), with_drain.output_tokens),
            simulation: Simulation {
                virtual_s: totals.end.as_secs_f64(),
                steps: totals.steps,
                wall_s: context.wall_s,
                requests_per_wall_s: context
                    .wall_s
                    .filter(|&seconds| seconds > 0.0)
                    .map(|seconds| (arrived + warm_up) as f64 / seconds),
            },
            slo_checks: Vec::new(),
            about: context.about,
            replications: None,
            mirrored: Mirrored::of(&totals.mirrored),
            cost_model: Vec::new(),
            lora: lora(&totals.replicas),
            kv_capacity: Vec::new(),
            speculative: speculative(&totals.replicas),
            replica_deaths: totals.deaths,
        };
        summary.slo_checks = self.slo.checks(&summary);
        summary
    }

    fn warnings(&self, mut warnings: Vec<String>) -> Vec<String> {
        for (groups, what) in
            [(&self.by_tenant, "tenants"), (&self.by_class, "classes"), (&self.by_pool, "pools")]
        {
            if groups.pooled() {
                warnings.push(format!(
                    "more than {GROUPS_MAX} {what}: those that came first are reported by name, the rest \
                     together as {OTHERS}"
                ));
            }
        }
        warnings
    }

    fn kv(&self) -> Kv {
        let HitTokens { gpu, cpu, disk, shared } = self.hit_tokens;
        Kv {
            prompt_tokens: self.prompt_tokens,
            duplicate_prefill_tokens: self.duplicate_tokens,
            hit_tokens: self.hit_tokens,
            hit_rate: share(gpu + cpu + disk + shared, self.prompt_tokens),
            preemptions: self.preemptions,
            context_tokens_mean: share(self.context_tokens, self.requests.completed),
        }
    }

    fn count_status(&mut self, status: Status) {
        match status {
            Status::Completed => self.requests.completed += 1,
            Status::Unfinished => self.requests.unfinished += 1,
            Status::Failed(failure) => {
                self.requests.failed += 1;
                match failure {
                    Failure::Timeout => self.failures.timeout += 1,
                    Failure::Transfer => self.failures.transfer += 1,
                    Failure::Fault => self.failures.fault += 1,
                    Failure::Evicted => self.failures.shed += 1,
                }
            }
            Status::Rejected(rejection) => {
                self.requests.rejected += 1;
                match rejection {
                    Rejection::TooLong => self.failures.too_long += 1,
                    Rejection::QueueFull => self.failures.queue_full += 1,
                    Rejection::NoSuchModel => self.failures.no_such_model += 1,
                    Rejection::Router(Refusal::Expired) => self.failures.ttl += 1,
                    Rejection::Router(_) => self.failures.shed += 1,
                }
            }
        }
    }

    fn count_kv(&mut self, outcome: &Outcome) {
        if outcome.scheduled.is_some() {
            self.prompt_tokens += u64::from(outcome.request.prompt.tokens());
            self.hit_tokens.gpu += u64::from(outcome.cached_gpu_tokens());
            self.hit_tokens.cpu += u64::from(outcome.cached_cpu_tokens);
            self.hit_tokens.disk += u64::from(outcome.cached_disk_tokens);
            self.hit_tokens.shared += u64::from(outcome.cached_shared_tokens);
            self.duplicate_tokens += u64::from(outcome.duplicate_tokens);
            self.preemptions += u64::from(outcome.preemptions);
        }
        if outcome.status == Status::Completed {
            self.context_tokens += u64::from(outcome.request.prompt.tokens() + outcome.emitted);
        }
    }

    fn record_latency(&mut self, outcome: &Outcome) {
        if let Some(e2e) = outcome.e2e() {
            self.e2e.record(e2e);
            record_some(&mut self.ttft, outcome.ttft());
            record_some(&mut self.tpot, tpot(outcome));
            record_some(&mut self.queue, outcome.queue());
            self.causes.add(outcome, e2e);
        }
    }

    fn record_groups(&mut self, outcome: &Outcome, good: bool) {
        let Request { tenant, class, .. } = outcome.request;
        if tenant.is_some() {
            self.by_tenant.record(tenant.0, outcome, good);
        }
        if class.is_some() {
            self.by_class.record(class.0, outcome, good);
        }
        if let Some(replica) = outcome.replica {
            let pool = self.pool_of[replica.0 as usize];
            self.by_pool.record(pool.0, outcome, good);
        }
    }
}

impl Observer for Collector {
    fn arrived(&mut self, request: &Request) {
        self.window.arrived(request.arrival);
        if request.arrival < self.warm_up {
            self.requests.warm_up += 1;
        } else {
            self.requests.arrived += 1;
        }
    }

    fn token_gaps(&mut self, at: Time, gap: Span, count: u32) {
        if at >= self.warm_up {
            self.itl.record_n(gap, u64::from(count));
        }
    }

    fn step_done(&mut self, at: Time, _replica: ReplicaId, prefill_tokens: u32, emitted: u32) {
        let work = Work {
            input_tokens: u64::from(prefill_tokens),
            output_tokens: u64::from(emitted),
            ..Work::default()
        };
        self.window.done(at, work);
    }

    fn quiet_steps(&mut self, steps: &QuietSteps<'_>) {
        let first = steps.from + steps.gaps.first().copied().unwrap_or_default();
        if let Some(edge) = self.window.edge_between(first, steps.until) {
            let (before, after) = steps.split_before(edge);
            self.quiet_steps(&before);
            return self.quiet_steps(&after);
        }
        if first < self.warm_up {
            return;
        }
        let output_tokens = u64::from(steps.decodes) * steps.gaps.len() as u64;
        self.window.done(steps.until, Work { output_tokens, ..Work::default() });
        self.itl.record_rising(steps.gaps, steps.until.since(steps.from), u64::from(steps.decodes));
    }

    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        let good = self.slo.good(outcome, labels.name(outcome.request.class));
        if outcome.status == Status::Completed {
            let work = Work { completed: 1, good: u64::from(good), ..Work::default() };
            self.window.done(outcome.ended, work);
        }
        if outcome.request.arrival < self.warm_up {
            return;
        }
        self.requests.good += u64::from(good);
        self.requests.retries += u64::from(outcome.retries);
        self.requests.restarts += u64::from(outcome.restarts);
        self.count_status(outcome.status);
        self.count_kv(outcome);
        self.record_latency(outcome);
        self.record_groups(outcome, good);
    }
}

impl CauseSums {
    /// Adds a completed request.
    fn add(&mut self, outcome: &Outcome, e2e: Span) {
        debug_assert_eq!(outcome.spent.total(), e2e, "the causes add up to the end-to-end time");
        for cause in Cause::ALL {
            self.0[cause as usize] += u128::from(outcome.spent.get(cause).as_nanos());
        }
    }

    fn means(&self, completed: u64) -> LatencyByCause {
        let mut means = LatencyByCause::default();
        if completed > 0 {
            for cause in Cause::ALL {
                *means.of(cause) = Some(self.0[cause as usize] as f64 / completed as f64 / 1e6);
            }
        }
        means
    }
}

/// `count` per second; `None` for a period of no length.
fn rate(count: u64, period: Span) -> Option<f64> {
    (period > Span::ZERO).then(|| count as f64 / period.as_secs_f64())
}

fn rates(work: &Work, period: Span) -> Rates {
    Rates {
        requests_per_s: rate(work.completed, period),
        input_tokens_per_s: rate(work.input_tokens, period),
        output_tokens_per_s: rate(work.output_tokens, period),
    }
}

fn replica(totals: &ReplicaTotals) -> Replica {
    Replica {
        name: totals.name.clone(),
        busy_fraction: share(totals.busy.as_nanos(), totals.observed.as_nanos()),
        steps: totals.steps,
        kv_usage_mean: totals.kv_usage_mean,
        requests: totals.requests,
        pool: totals.pool.clone(),
        gpus: totals.gpus,
        preemptions: totals.preemptions,
    }
}

/// The guesses of all replicas, if there were some.
fn speculative(replicas: &[ReplicaTotals]) -> Option<Speculative> {
    let sum = |count: fn(&ReplicaTotals) -> u64| replicas.iter().map(count).sum::<u64>();
    let decodes = sum(|replica| replica.guesses.decodes);
    let (verified_tokens, accepted_tokens) =
        (sum(|replica| replica.guesses.verified), sum(|replica| replica.guesses.accepted));
    let tokens_per_step = share(accepted_tokens, decodes).map(|accepted| 1.0 + accepted);
    (verified_tokens > 0).then_some(Speculative { verified_tokens, accepted_tokens, tokens_per_step })
}

/// The loads of all replicas, if there were some.
fn lora(replicas: &[ReplicaTotals]) -> Option<AdapterLoads> {
    let sum = |count: fn(&ReplicaTotals) -> u64| replicas.iter().map(count).sum::<u64>();
    let loads = sum(|replica| replica.adapters.to_gpu);
    let observed = replicas.iter().map(|replica| replica.observed).max().unwrap_or_default();
    let waited = sum(|replica| replica.adapters.waited.as_nanos());
    (loads > 0).then(|| AdapterLoads {
        loads,
        disk_loads: sum(|replica| replica.adapters.from_disk),
        loads_per_minute: rate(loads, observed).map(|per_second| per_second * 60.0),
        waited_s: waited as f64 / 1e9,
        waited_fraction: share(waited, sum(|replica| replica.busy.as_nanos())),
    })
}

/// Without a price for some pool that has replicas, the total is not known.
fn cost(
    replicas: &[ReplicaTotals],
    gpu_hour_usd: Option<&BTreeMap<String, f64>>,
    output_tokens: u64,
) -> Cost {
    let gpu_hours =
        |replica: &ReplicaTotals| f64::from(replica.gpus) * replica.observed.as_secs_f64() / 3600.0;
    let usd: Option<f64> = gpu_hour_usd.and_then(|prices| {
        replicas.iter().map(|replica| Some(gpu_hours(replica) * prices.get(&replica.pool)?)).sum()
    });
    Cost {
        gpu_hours: replicas.iter().map(gpu_hours).sum(),
        usd,
        usd_per_million_output_tokens: usd
            .filter(|_| output_tokens > 0)
            .map(|usd| usd / output_tokens as f64 * 1e6),
        price_source: None,
    }
}

#[cfg(test)]
#[path = "collector_tests.rs"]
mod tests;
