//! Row 1: is the traffic more than one replica keeps responsive?
//!
//! The rate is held against a replica that nothing else hinders: whose cache never forgets and whose batches hold all
//! adapters. What a small cache or few adapter slots cost is the business of their own rows.

use std::collections::BTreeMap;

use forerun_reports::statistics::Sample;

use super::Study;
use super::advice::{Answer, CONFIDENCE, ReplicaFacts, Row, Signal};
use super::apart::Apart;
use super::sizes::{PLAIN, Sizes};
use crate::error::Error;
use crate::scenario::EngineArgs;
use crate::trial::{Setting, TRAFFIC_MAX};
use crate::words::{number, plural};

/// Below this share of prompt tokens seen before, sharing decides nothing.
pub(super) const SHARING: f64 = 0.05;

/// The largest cache that stands for one that never forgets, in blocks.
const BLOCKS_MAX: f64 = 4e6;

/// From one request of a user to the next where the traffic has no sessions: an assumption.
const USER_GAP_S: f64 = 30.0;

/// What one replica serves, as multiples of the traffic, one for each seed.
pub(super) struct Capacity {
    /// As it is.
    own: Vec<f64>,
    /// If nothing but the rate hindered it.
    unhindered: Vec<f64>,
}

impl Capacity {
    /// Searches it.
    pub(super) fn find(study: &Study<'_>) -> Result<Self, Error> {
        let plain = Setting::plain(PLAIN[0]);
        let mut settings = vec![plain.clone()];
        if let Some(engine) = unhindered(study) {
            settings.push(Setting { engine, ..plain });
        }
        let seeds = study.bench.seeds.len();
        let mut found = study
            .bench
            .each(&settings, seeds, |setting, seed| study.bench.most_traffic(setting, &[1], seed))?
            .into_iter();
        let own = found.next().unwrap_or_default();
        let unhindered = found.next().unwrap_or_else(|| own.clone());
        Ok(Self { own, unhindered })
    }

    /// The replicas that `traffic` needs if they share the load without loss.
    pub(super) fn replicas_at_least(&self, traffic: f64) -> u32 {
        let each = mean(&self.own).max(1.0 / TRAFFIC_MAX);
        (traffic / each).ceil() as u32
    }

    /// What one replica can do.
    ///
    /// # Errors
    /// As those of the simulation.
    pub(super) fn facts(&self, study: &Study<'_>) -> Result<ReplicaFacts, Error> {
        let Study { subject, measures, bench, .. } = study;
        let traffic = mean(&self.own);
        let gap = measures.sessions.gap_s.mean.filter(|gap| *gap > 0.0);
        let mut facts = ReplicaFacts {
            weights_share_of_one_gpu: subject.weights_share,
            kv_tokens: subject.kv_tokens,
            longest_context_tokens: subject.kv_tokens.min(subject.max_model_len.into()),
            resident_contexts: measures
                .context_tokens
                .mean
                .map(|mean| (subject.kv_tokens as f64 / mean) as u64),
            user_gap_s: gap.unwrap_or(USER_GAP_S),
            user_gap_measured: gap.is_some(),
            ..ReplicaFacts::default()
        };
        if traffic > 0.0 {
            let rate = traffic * measures.rates.mean_per_s.unwrap_or(0.0);
            let assembled = bench.assemble(&Setting::plain(PLAIN[0]).with_traffic(traffic))?;
            let summary = bench.run(&assembled, &[1], bench.seeds[0])?;
            facts.requests_per_s = Some(rate);
            facts.in_flight = summary.e2e_ms.mean.map(|ms| rate * ms / 1000.0);
            facts.users = Some(rate * facts.user_gap_s);
        }
        Ok(facts)
    }
}

/// vLLM arguments of a replica that only the rate hinders; `None` where that is the replica itself.
fn unhindered(study: &Study<'_>) -> Option<EngineArgs> {
    let Study { subject, measures, bench, .. } = study;
    let shared = measures.prefixes.seen_share.unwrap_or(0.0) >= SHARING;
    let adapters = u32::try_from(measures.adapters.distinct).unwrap_or(u32::MAX);
    let many = adapters > subject.max_loras;
    let mut engine = EngineArgs::default();
    if shared {
        let mean = measures.context_tokens.mean.unwrap_or(0.0);
        let all = mean * bench.traffic.requests as f64 / f64::from(subject.block_size);
        engine.num_gpu_blocks = Some((f64::from(subject.blocks) + all).min(BLOCKS_MAX) as u32);
    }
    if many {
        engine.max_loras = Some(adapters.min(subject.max_num_seqs));
    }
    (shared || many).then_some(engine)
}

/// The row.
pub(super) fn row(study: &Study<'_>, capacity: &Capacity, sizes: &Sizes, apart: Option<&Apart>) -> Row {
    let sustained = study.sustained();
    let traffic = mean(&capacity.unhindered);
    let answer = match traffic {
        t if t < 1.0 => Answer::Yes,
        t if t < study.thresholds.growth => Answer::NotYet,
        _ => Answer::No,
    };
    let limit = if traffic >= TRAFFIC_MAX { "more than " } else { "" };
    let one = format!("{limit}{} req/s", number(traffic * sustained));
    let mut evidence = Vec::new();
    let own = mean(&capacity.own);
    if own < 1.0 && traffic >= 1.0 {
        evidence.push(format!(
            "one replica as it is holds the SLO up to {} req/s only, but not for the rate's sake: see prefixes and \
             adapters",
            number(own * sustained)
        ));
    }
    if let Some(interval) = Sample::of(&capacity.unhindered).and_then(|sample| sample.interval(CONFIDENCE)) {
        evidence.push(format!(
            "one replica's highest rate: {} to {} req/s (95 %, {} seeds)",
            number(interval.low * sustained),
            number(interval.high * sustained),
            capacity.unhindered.len()
        ));
    }
    evidence.push(policies(sizes));
    evidence.extend(apart.into_iter().flat_map(|apart| apart.evidence.iter().cloned()));
    Row {
        signal: Signal::Rate,
        answer,
        shows: format!("{} req/s sustained", number(sustained)),
        threshold: format!("one replica: {one}"),
        gain: None,
        evidence,
        flip: flip(traffic, sustained),
        figures: BTreeMap::from([
            ("sustained_requests_per_s".to_owned(), sustained),
            ("one_replica_requests_per_s".to_owned(), traffic * sustained),
            ("one_replica_as_it_is_requests_per_s".to_owned(), own * sustained),
        ]),
    }
}

fn flip(traffic: f64, sustained: f64) -> Option<String> {
    (traffic > 0.0 && traffic < TRAFFIC_MAX).then(|| {
        let change = if traffic >= 1.0 { "above" } else { "below" };
        format!(
            "{change} {} req/s sustained ({} x the traffic)",
            number(traffic * sustained),
            number(traffic)
        )
    })
}

/// The fleets that the policies need.
fn policies(sizes: &Sizes) -> String {
    let plain = format!("replicas needed: {} under {}", sizes.plain.range(), sizes.plain.policy());
    match &sizes.kv_aware {
        Some(aware) => format!("{plain}, {} under {}", aware.range(), aware.policy()),
        None if sizes.plain.most() == Some(1) => format!("{} is enough", plural(1, "replica")),
        None => plain,
    }
}

fn mean(values: &[f64]) -> f64 {
    Sample::of(values).map_or(0.0, |sample| sample.mean)
}
