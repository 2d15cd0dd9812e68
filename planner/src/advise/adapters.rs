//! Row 4: are there more LoRA adapters than replicas batch together?

use std::collections::BTreeMap;

use super::Study;
use super::advice::{Answer, Row, Signal};
use crate::trial::Setting;
use super::sizes::{Sizes, fleets, mean};
use crate::words::percent;
use crate::error::Error;
use crate::scenario::EngineArgs;

/// The row: what is gained if every batch has room for all adapters is the most that any routing of them can gain.
pub(super) fn row(study: &Study<'_>, sizes: &Sizes) -> Result<Row, Error> {
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
        return Ok(row);
    }
    let waiting =
        mean(sizes.plain.summaries(), |s| Some(s.latency_ms_by_cause.engine_queue_lora? / s.e2e_ms.mean?));
    if let Some(waiting) = waiting {
        row.evidence
            .push(format!("plain fleet: {} of the time waits for an adapter's slot", percent(waiting)));
    }
    let all = u32::try_from(distinct).unwrap_or(u32::MAX).min(subject.max_num_seqs);
    let engine = EngineArgs { max_loras: Some(all), ..EngineArgs::default() };
    let setting = Setting { engine, ..Setting::plain(sizes.plain.policy()) };
    let guess = sizes.plain.most().unwrap_or(1);
    let bound = fleets(study, &[setting], guess, study.bench.seeds.len())?;
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
    row.evidence.push(
        "loading adapters takes no time in these runs, and lora-affinity-scorer itself was not simulated"
            .to_owned(),
    );
    Ok(row)
}
