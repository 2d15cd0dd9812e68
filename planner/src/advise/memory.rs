//! Row 3: is the model near, or beyond, one GPU's memory?

use std::collections::BTreeMap;

use super::Study;
use super::advice::{Answer, Gain, Row, Signal};
use super::rate::SHARING;
use super::sizes::{Fleets, Offer, Sizes, fleets, mean};
use crate::error::Error;
use crate::scenario::TiersSpec;
use crate::trial::{Setting, could_exist, host_memory};
use crate::words::{number, percent, tokens};

/// Splits that are compared, as multiples of the present one.
const SPLITS: [u32; 2] = [2, 4];

/// The row.
pub(super) fn row(
    study: &Study<'_>,
    sizes: &Sizes,
    prefixes_fire: bool,
) -> Result<(Row, Option<Offer>), Error> {
    let subject = &study.subject;
    let share = subject.weights_share;
    let mut row = Row {
        signal: Signal::Memory,
        answer: Answer::No,
        shows: format!("weights {} of one GPU", percent(share)),
        threshold: percent(study.thresholds.weights_share),
        gain: None,
        evidence: vec![format!(
            "{} KV tokens on {} of {} hold {} contexts of the traffic's mean length",
            tokens(subject.kv_tokens as f64),
            subject.tensor_parallel,
            subject.gpu.name,
            study
                .measures
                .context_tokens
                .mean
                .map_or_else(|| "no".to_owned(), |mean| tokens(subject.kv_tokens as f64 / mean))
        )],
        flip: None,
        figures: BTreeMap::from([("weights_share".to_owned(), share)]),
    };
    pressure(sizes, &mut row);
    let offered = tiers_row(study, sizes, prefixes_fire, &mut row)?;
    if share < study.thresholds.weights_share {
        return Ok((row, offered));
    }
    row.answer = Answer::Yes;
    row.evidence.push(match subject.fits {
        1 => "the weights fit one GPU, with little room beside them".to_owned(),
        fewest => format!("the fewest GPUs that hold the weights are {fewest} (tensor parallel)"),
    });
    let wider = wider(study, sizes)?;
    if let Some((gpus, gain)) = &wider {
        row.evidence.push(format!(
            "tensor parallel {gpus} instead of {}: {} of the GPUs {}",
            subject.tensor_parallel,
            percent(gain.share.abs()),
            if gain.share >= 0.0 { "saved" } else { "more" }
        ));
        row.figures.insert("best_other_tensor_parallel".to_owned(), f64::from(*gpus));
    }
    let pays = wider.filter(|(_, gain)| gain.answer(study.thresholds.min_gain) == Answer::Yes);
    match (pays, subject.fits) {
        (Some((_, gain)), _) => row.gain = Some(gain),
        (None, 1) => row.answer = Answer::NotYet,
        (None, _) => {}
    }
    Ok((row, offered))
}

/// KV tiers below the GPU: would they save GPUs? Only where contexts are asked again, and one replica's cache is too
/// small for what is shared.
fn tiers_row(
    study: &Study<'_>,
    sizes: &Sizes,
    prefixes_fire: bool,
    row: &mut Row,
) -> Result<Option<Offer>, Error> {
    let Study { subject, measures, thresholds, .. } = study;
    let seen = measures.prefixes.seen_share.unwrap_or(0.0);
    let kept = measures.prefixes.hit_share(subject.kv_tokens).unwrap_or(0.0);
    row.figures.insert("lost_to_cache_size_share".to_owned(), seen - kept);
    if seen - kept < SHARING {
        row.evidence.push(format!(
            "host memory for KV would not help: {} of prompt tokens are asked again and lost to a replica-sized cache",
            percent((seen - kept).max(0.0))
        ));
        return Ok(None);
    }
    let base = sizes.best();
    let guess = base.most().unwrap_or(1);
    let tiers = candidates(&subject.offered, thresholds.host_memory_gib);
    let settings =
        tiers.iter().map(|tier| Setting { tiers: Some(tier.spec.clone()), ..base.setting.clone() });
    let settings: Vec<Setting> = settings.collect();
    let mut best: Option<(&Tier, Fleets, Gain)> = None;
    for (tier, with) in tiers.iter().zip(fleets(study, &settings, guess, study.bench.seeds.len())?) {
        row.evidence.push(evidence(tier, &with, base));
        let Some(gain) = with.saves(base) else { continue };
        row.figures.insert(format!("{}_saves_share", tier.key), gain.share);
        // What needs fewer components comes first, and stays unless another saves more.
        if best.as_ref().is_none_or(|(.., best)| gain.share > best.share) {
            best = Some((tier, with, gain));
        }
    }
    let pays = best.filter(|(.., gain)| gain.answer(thresholds.min_gain) == Answer::Yes);
    let Some((tier, with, gain)) = pays else { return Ok(None) };
    // Where prompts share prefixes, that row is the one that fires; this is a second way to act on it.
    if !prefixes_fire {
        row.answer = Answer::Yes;
        row.gain = Some(gain);
    }
    let total = with.saves(&sizes.plain).unwrap_or(gain);
    Ok(Some(Offer { signal: Signal::Memory, name: tier.name, fleets: with, gain: total }))
}

/// A way to keep more KV.
struct Tier {
    /// In figures.
    key: &'static str,
    /// As a part of the verdict.
    name: &'static str,
    /// In evidence.
    words: String,
    spec: TiersSpec,
}

/// Host memory, and under it what the scenario offers besides.
fn candidates(offered: &TiersSpec, gib: f64) -> Vec<Tier> {
    let cpu = offered.cpu.clone().or_else(|| host_memory(gib));
    let host = TiersSpec { cpu, disk: None, shared: None, load: offered.load };
    let words = host.cpu.as_ref().map_or_else(String::new, |cpu| cpu.capacity.to_string());
    let memory = format!("{words} of host memory for KV on each replica");
    let mut all = vec![Tier {
        key: "host_memory",
        name: "KV cache in host memory (OffloadingConnector)",
        words: memory.clone(),
        spec: host.clone(),
    }];
    if let Some(disk) = &offered.disk {
        all.push(Tier {
            key: "disk",
            name: "KV cache in host memory and on a disk of each replica (TieringOffloadingSpec)",
            words: format!("{memory} and a disk below"),
            spec: TiersSpec { disk: Some(disk.clone()), ..host.clone() },
        });
    }
    if let Some(shared) = &offered.shared {
        all.push(Tier {
            key: "shared",
            name: "KV cache in host memory and in a file system that replicas share (TieringOffloadingSpec)",
            words: format!("{memory} and a shared file system below"),
            spec: TiersSpec { shared: Some(shared.clone()), ..host },
        });
    }
    all
}

/// Fleets with a tier and without, in a sentence.
fn evidence(tier: &Tier, with: &Fleets, base: &Fleets) -> String {
    let hit_rate = |fleets: &Fleets| mean(fleets.summaries(), |s| s.kv.hit_rate);
    // Without a fleet that holds there is no rate to speak of.
    let hit_rates = match (hit_rate(with), hit_rate(base)) {
        (Some(with), Some(base)) => format!(", hit rate {} instead of {}", percent(with), percent(base)),
        _ => String::new(),
    };
    format!(
        "{}, under {}: {} replicas instead of {}{hit_rates}",
        tier.words,
        base.policy(),
        with.range(),
        base.range()
    )
}

/// How much a lack of KV blocks costs in the plain fleet.
fn pressure(sizes: &Sizes, row: &mut Row) {
    let preemptions = mean(sizes.plain.summaries(), |s| {
        Some(s.kv.preemptions as f64 / (s.requests.arrived as f64).max(1.0))
    });
    let waiting =
        mean(sizes.plain.summaries(), |s| Some(s.latency_ms_by_cause.engine_queue_kv? / s.e2e_ms.mean?));
    if let (Some(preemptions), Some(waiting)) = (preemptions, waiting) {
        row.figures.insert("preemptions_per_request".to_owned(), preemptions);
        row.figures.insert("waiting_for_kv_share".to_owned(), waiting);
        row.evidence.push(format!(
            "plain fleet: {} of the time waits for KV blocks, {} preemptions per 1000 requests",
            percent(waiting),
            number(preemptions * 1000.0)
        ));
    }
}

/// Of the wider splits the one that needs fewest GPUs, and what it saves.
fn wider(study: &Study<'_>, sizes: &Sizes) -> Result<Option<(u32, Gain)>, Error> {
    let own = study.subject.tensor_parallel;
    let mut best: Option<(u32, Gain)> = None;
    for factor in SPLITS {
        let gpus = own * factor;
        if could_exist(&study.subject.loaded, gpus).is_err() {
            continue;
        }
        let setting = Setting::plain(sizes.plain.policy()).over(gpus);
        let guess = sizes.plain.most().unwrap_or(1).div_ceil(factor);
        let found = fleets(study, &[setting], guess, study.bench.seeds.len())?;
        let gain = found[0].saves(&sizes.plain);
        if let Some(gain) = gain.filter(|gain| best.as_ref().is_none_or(|(_, best)| gain.share > best.share))
        {
            best = Some((gpus, gain));
        }
    }
    Ok(best)
}
