//! Row 4: are there more LoRA adapters than replicas batch together?

use std::collections::BTreeMap;

use super::Study;
use super::advice::{Answer, Row, Signal};
use super::sizes::{Offer, Sizes, fleets, mean};
use crate::error::Error;
use crate::scenario::EngineArgs;
use crate::trial::{Policy, Setting};
use crate::words::percent;

/// The row: what is gained if every batch has room for all adapters is the most that any routing of them can gain.
pub(super) fn row(study: &Study<'_>, sizes: &Sizes) -> Result<(Row, Option<Offer>), Error> {
    let Study { subject, measures, thresholds, .. } = study;
    let distinct = measures.adapters.distinct;
    let within = measures.adapters_together.first();
    let together = within.and_then(|together| together.p95).unwrap_or(0.0);
    let mut row = Row {
        signal: Signal::Adapters,
        answer: Answer::No,
        shows: match distinct {
            0 => "no adapters".to_owned(),
            _ => format!("{distinct} adapters, {together:.0} in a second"),
        },
        threshold: format!("{} in a batch", subject.max_loras),
        gain: None,
        evidence: Vec::new(),
        flip: None,
        figures: BTreeMap::from([
            ("adapters".to_owned(), distinct as f64),
            ("adapters_in_a_second_p95".to_owned(), together),
        ]),
    };
    if distinct <= u64::from(subject.max_loras) {
        if distinct > 0 {
            row.evidence.push("every batch has room for all of them".to_owned());
        }
        return Ok((row, None));
    }
    let waiting =
        mean(sizes.plain.summaries(), |s| Some(s.latency_ms_by_cause.engine_queue_lora? / s.e2e_ms.mean?));
    if let Some(waiting) = waiting {
        row.evidence
            .push(format!("plain fleet: {} of the time waits for an adapter's slot", percent(waiting)));
    }
    let all = u32::try_from(distinct).unwrap_or(u32::MAX).min(subject.max_num_seqs);
    let engine = EngineArgs { max_loras: Some(all), ..EngineArgs::default() };
    let room = Setting { engine, ..Setting::plain(sizes.plain.policy()) };
    let settings = [room, Setting::plain(Policy::Adapters)];
    let guess = sizes.plain.most().unwrap_or(1);
    let mut bound = fleets(study, &settings, guess, study.bench.seeds.len())?;
    let affinity = bound.pop();
    row.gain = bound[0].saves(&sizes.plain);
    row.answer = match &row.gain {
        Some(gain) => gain.answer(thresholds.min_gain),
        None if bound[0].most().is_some() => Answer::Yes,
        None => Answer::No,
    };
    row.evidence.push(format!(
        "replicas needed under {}: {} as it is, {} if a batch had room for all {distinct}: the most that affinity of \
         adapters to replicas, or more slots, can gain",
        sizes.plain.policy(),
        sizes.plain.range(),
        bound[0].range()
    ));
    let Some(affinity) = affinity else { return Ok((row, None)) };
    row.evidence.push(format!("{} under {}", affinity.range(), affinity.policy()));
    let gain = affinity.saves(&sizes.plain);
    if let Some(gain) = &gain {
        row.figures.insert("affinity_saves_share".to_owned(), gain.share);
    }
    let pays = gain.filter(|gain| gain.answer(thresholds.min_gain) == Answer::Yes);
    if pays.is_none() && row.answer == Answer::Yes {
        row.evidence.push("affinity alone does not get it: raise max_loras".to_owned());
    }
    let name = "affinity of LoRA adapters to replicas (lora-affinity-scorer)";
    let offer = pays.map(|gain| Offer { signal: Signal::Adapters, name, fleets: affinity, gain });
    Ok((row, offer))
}
