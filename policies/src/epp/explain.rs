//! One decision in full: what the picker knew of each endpoint, what each filter kept, what each scorer said, who was
//! picked among whom.

use std::collections::BTreeMap;

use forerun_sim::time::Time;
use serde::Serialize;

use super::config::Config;
use super::prefix::PrefixMatch;
use super::scheduler::{Decision, NoEndpoints, ProfileRun, Scheduler};

/// A decision in full. Endpoints stand by their names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionReport {
    /// Who answers the client; `None` when nobody was left to pick.
    pub primary: Option<String>,
    /// Who computes the prompt, when that is another profile's pick.
    pub prefill: Option<String>,
    /// What was known of each endpoint.
    pub endpoints: Vec<EndpointReport>,
    /// What each scheduling profile did, in the order of the configuration.
    pub profiles: Vec<ProfileReport>,
}

/// What was known of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EndpointReport {
    /// Its name.
    pub name: String,
    /// How old its metrics were, in milliseconds; `None` when it was never scraped.
    pub scraped_ms_ago: Option<f64>,
    /// Requests in its queue.
    pub waiting: u32,
    /// Requests in its batches.
    pub running: u32,
    /// Share of its KV blocks in use.
    pub kv_usage: f64,
    /// Requests that this picker sent to it and that have not ended, where it counts them.
    pub in_flight_requests: Option<u32>,
    /// Tokens of those that are still to be computed.
    pub in_flight_tokens: Option<u64>,
    /// Tokens of this request that it would have to compute, as far as the picker counts them.
    pub uncached_tokens: Option<u64>,
    /// What it holds of the prompt, by the producers that some plugin reads.
    pub prefix: BTreeMap<String, PrefixReport>,
}

/// How much of a prompt an endpoint is believed to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixReport {
    /// Blocks that count as matched.
    pub matched_blocks: u32,
    /// Blocks of the prompt.
    pub total_blocks: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
}

/// What one scheduling profile did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileReport {
    /// Its name.
    pub name: String,
    /// Whether it ran at all: a prefill profile runs only when its decider asks for it.
    pub ran: bool,
    /// Its filters in their order, up to the one that left nobody.
    pub filters: Vec<FilterReport>,
    /// Its scorers in their order.
    pub scorers: Vec<ScorerReport>,
    /// Who was scored.
    pub candidates: Vec<CandidateReport>,
    /// Its picker.
    pub picker: String,
    /// The candidates with the best total.
    pub tied: Vec<String>,
    /// What was picked, the best first.
    pub picked: Vec<String>,
}

/// What a filter did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FilterReport {
    /// Its name.
    pub name: String,
    /// Whom it kept.
    pub kept: Vec<String>,
}

/// A scorer of a profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScorerReport {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: f64,
}

/// The scores of one candidate, in the order of the scorers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CandidateReport {
    /// Who.
    pub endpoint: String,
    /// What each scorer said.
    pub raw: Vec<f64>,
    /// That, cut to 0..1, times the scorer's weight.
    pub weighted: Vec<f64>,
    /// Their sum.
    pub total: f64,
}

impl DecisionReport {
    /// What `scheduler`, made from `config`, just decided at `now`.
    #[must_use]
    pub fn new(
        config: &Config,
        scheduler: &Scheduler,
        now: Time,
        decision: Result<&Decision, NoEndpoints>,
    ) -> Self {
        let name = |endpoint: u32| scheduler.info(endpoint).name.clone();
        let profiles = config.profiles.iter().zip(scheduler.runs());
        let profiles = profiles.map(|(profile, (_, run))| ProfileReport {
            name: profile.name.clone(),
            ran: run.ran,
            filters: filters(&profile.filters, run, name),
            scorers: profile
                .scorers
                .iter()
                .map(|(name, weight)| ScorerReport { name: name.clone(), weight: *weight })
                .collect(),
            candidates: candidates(&profile.scorers, run, name),
            picker: profile.picker.clone(),
            tied: if run.ran { run.tied().into_iter().map(name).collect() } else { Vec::new() },
            picked: if run.ran { run.picked.iter().copied().map(name).collect() } else { Vec::new() },
        });
        let decision = decision.ok();
        Self {
            primary: decision.map(|decision| name(decision.primary)),
            prefill: decision.and_then(|decision| decision.prefill).map(name),
            profiles: profiles.collect(),
            endpoints: scheduler.live().iter().map(|&number| endpoint(scheduler, number, now)).collect(),
        }
    }
}

fn endpoint(scheduler: &Scheduler, number: u32, now: Time) -> EndpointReport {
    let state = scheduler.endpoint(number);
    let prefix = scheduler.prefix_producers().iter().filter_map(|producer| {
        let PrefixMatch { matched_blocks, total_blocks, block_tokens, .. } =
            scheduler.prefix(producer, number)?;
        Some((producer.clone(), PrefixReport { matched_blocks, total_blocks, block_tokens }))
    });
    EndpointReport {
        name: scheduler.info(number).name.clone(),
        scraped_ms_ago: state.scraped_at.map(|at| now.saturating_since(at).as_nanos() as f64 / 1e6),
        waiting: state.metrics.waiting,
        running: state.metrics.running,
        kv_usage: state.metrics.kv_usage,
        in_flight_requests: state.in_flight.map(|load| load.requests),
        in_flight_tokens: state.in_flight.map(|load| load.tokens),
        uncached_tokens: state.uncached_tokens,
        prefix: prefix.collect(),
    }
}

/// The filters that ran: after one that keeps nobody, none does.
fn filters(names: &[String], run: &ProfileRun, name: impl Fn(u32) -> String) -> Vec<FilterReport> {
    let mut reports = Vec::new();
    for (filter, kept) in names.iter().zip(&run.kept).take_while(|_| run.ran) {
        let kept: Vec<_> = kept.iter().map(|&endpoint| name(endpoint)).collect();
        let is_last = kept.is_empty();
        reports.push(FilterReport { name: filter.clone(), kept });
        if is_last {
            break;
        }
    }
    reports
}

fn candidates(
    scorers: &[(String, f64)],
    run: &ProfileRun,
    name: impl Fn(u32) -> String,
) -> Vec<CandidateReport> {
    let count = run.candidates.len();
    let each = run.candidates.iter().zip(&run.totals).enumerate().take_while(|_| run.ran);
    let of = |(place, (&endpoint, &total)): (usize, (&u32, &f64))| {
        let raw: Vec<f64> = (0..scorers.len()).map(|scorer| run.scores[scorer * count + place]).collect();
        let weighted = raw.iter().zip(scorers).map(|(score, (_, weight))| score.clamp(0.0, 1.0) * weight);
        CandidateReport { endpoint: name(endpoint), weighted: weighted.collect(), raw, total }
    };
    each.map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::config::LoadOptions;
    use crate::epp::{EndpointInfo, Metrics, Options, RequestView};
    use forerun_sim::prompt::{Content, Prompt};
    use forerun_sim::request::{Label, RequestId};

    /// The report on a request of 640 tokens, to endpoints with these queues.
    fn report(text: &str, queues: &[u32]) -> DecisionReport {
        let config = Config::load(text, LoadOptions::default()).unwrap();
        let mut scheduler = Scheduler::new(&config, Options::default()).unwrap();
        for (number, &waiting) in queues.iter().enumerate() {
            let info = EndpointInfo { name: format!("pod-{number}"), ..EndpointInfo::default() };
            let endpoint = scheduler.add_endpoint(info);
            scheduler.scrape(Time::ZERO, endpoint, Metrics { waiting, ..Metrics::default() });
        }
        let prompt = Prompt::of(Content::private(0), 640);
        let request = RequestView {
            id: RequestId(0),
            model: Label::NONE,
            prompt: &prompt,
            max_tokens: None,
            priority: 0,
            headers: &[],
        };
        let now = Time::from_nanos(40_000_000);
        let decision = scheduler.schedule(now, &request);
        DecisionReport::new(&config, &scheduler, now, decision.as_ref().map_err(|&error| error))
    }

    #[test]
    fn every_scorer_of_the_default_configuration_stands_with_its_weight() {
        let report = report("", &[4, 0, 0, 2]);
        let profile = &report.profiles[0];
        let scorers: Vec<_> = profile.scorers.iter().map(|s| (s.name.as_str(), s.weight)).collect();
        assert_eq!(
            scorers,
            [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0)]
        );
        assert_eq!(profile.candidates[3].raw, [0.5, 1.0, 0.0]);
        assert_eq!(profile.candidates[3].weighted, [1.0, 2.0, 0.0]);
        assert_eq!(profile.candidates.iter().map(|c| c.total).collect::<Vec<_>>(), [2.0, 4.0, 4.0, 3.0]);
        assert_eq!(profile.tied, ["pod-1", "pod-2"]);
        assert!(profile.tied.contains(report.primary.as_ref().unwrap()));
        assert_eq!(report.endpoints[0].scraped_ms_ago, Some(40.0));
        assert_eq!(report.endpoints[0].prefix["approx-prefix-cache-producer"].total_blocks, 10);
    }

    #[test]
    fn filters_are_told_up_to_the_one_that_leaves_nobody() {
        let text = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: decode-filter}
- {type: prefill-filter}
- {type: queue-scorer}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: decode-filter}, {pluginRef: prefill-filter}, {pluginRef: queue-scorer}]
";
        let report = report(text, &[1, 2]);
        assert_eq!((&report.primary, &report.prefill), (&None, &None));
        let kept: Vec<_> =
            report.profiles[0].filters.iter().map(|f| (f.name.as_str(), f.kept.len())).collect();
        assert_eq!(kept, [("decode-filter", 2), ("prefill-filter", 0)]);
        assert!(report.profiles[0].candidates.is_empty() && report.profiles[0].picked.is_empty());
    }
}
