//! Row 2: do requests share prefixes, and would a router that knows the caches make use of it?

use std::collections::BTreeMap;

use super::Study;
use super::advice::{Answer, Gain, Row, Signal};
use super::rate::SHARING;
use super::sizes::{Fleets, KV_AWARE, Sizes, fleets, mean};
use crate::error::Error;
use crate::trial::{Alteration, Policy, Setting};
use crate::words::{number, percent};

/// Multiples of the traffic at which the answer is looked for again.
const STEPS: [f64; 3] = [2.0, 4.0, 8.0];

/// The row.
pub(super) fn row(study: &Study<'_>, sizes: &Sizes) -> Result<Row, Error> {
    let prefixes = &study.measures.prefixes;
    let seen = prefixes.seen_share.unwrap_or(0.0);
    let kept = prefixes.hit_share(study.subject.kv_tokens).unwrap_or(0.0);
    let mut row = Row {
        signal: Signal::Prefixes,
        answer: Answer::No,
        shows: format!("{} of prompt tokens seen before", percent(seen)),
        threshold: format!("saves {} of GPUs", percent(study.thresholds.min_gain)),
        gain: None,
        evidence: vec![format!("one replica's cache alone would hit {} of prompt tokens", percent(kept))],
        flip: None,
        figures: BTreeMap::from([("seen_share".to_owned(), seen), ("one_cache_share".to_owned(), kept)]),
    };
    if seen < SHARING {
        row.evidence = vec![format!("below {} sharing decides nothing", percent(SHARING))];
        return Ok(row);
    }
    if let Some(tokens) =
        prefixes.cache_tokens_for(0.9).filter(|tokens| *tokens > study.subject.kv_tokens as f64)
    {
        row.evidence.push(format!(
            "90 % of what is shared needs a cache {} x one replica's",
            number(tokens / study.subject.kv_tokens as f64)
        ));
    }
    match &sizes.kv_aware {
        Some(aware) => {
            judge(study, &sizes.plain, aware, &mut row)?;
            if let Some(other) = &sizes.other_aware {
                row.evidence.push(format!("{} needs {}", other.policy(), other.range()));
            }
        }
        None => row.evidence.push("one replica is enough, and its own cache needs no router".to_owned()),
    }
    flip(study, sizes, &mut row)?;
    sharing_flip(study, sizes, seen, &mut row)?;
    Ok(row)
}

/// Fleets of both policies, and runs of both with equally many replicas.
fn judge(study: &Study<'_>, plain: &Fleets, aware: &Fleets, row: &mut Row) -> Result<(), Error> {
    row.gain = aware.saves(plain);
    row.answer = match (&row.gain, plain.most(), aware.most()) {
        (Some(gain), ..) => gain.answer(study.thresholds.min_gain),
        (None, None, Some(_)) => Answer::Yes,
        _ => Answer::No,
    };
    if plain.most().is_none() && aware.most().is_some() {
        row.evidence.push(format!("only {} holds the SLO with what was tried", aware.policy()));
    }
    row.evidence.push(format!(
        "replicas needed: {} under {}, {} under {}",
        plain.range(),
        plain.policy(),
        aware.range(),
        aware.policy()
    ));
    let Some(replicas) = plain.most().or(aware.most()) else { return Ok(()) };
    let settings = [Setting::plain(plain.policy()), Setting::plain(aware.policy())];
    let runs = study.bench.each(&settings, study.bench.seeds.len(), |setting, seed| {
        study.bench.run(&study.bench.assemble(setting)?, &[replicas], seed)
    })?;
    let of = |figure: fn(&forerun_reports::summary::Summary) -> Option<f64>| {
        [mean(runs[0].iter(), figure), mean(runs[1].iter(), figure)].map(|value| value.unwrap_or(f64::NAN))
    };
    let hits = of(|s| s.kv.hit_rate);
    let ttft = of(|s| s.ttft_ms.p95);
    let twice = of(|s| Some(s.kv.duplicate_prefill_tokens as f64 / (s.kv.prompt_tokens as f64).max(1.0)));
    let tpot = of(|s| s.tpot_ms.p95);
    let busiest = of(|s| largest_share(s.replicas.iter().map(|replica| replica.requests)));
    row.evidence.push(format!(
        "with {replicas} replicas each: hit rate {} and {}, computed twice {} and {} of prompt tokens, TTFT p95 {} and \
         {} ms, TPOT p95 {} and {} ms; one replica gets up to {} and {} of the requests",
        percent(hits[0]),
        percent(hits[1]),
        percent(twice[0]),
        percent(twice[1]),
        number(ttft[0]),
        number(ttft[1]),
        number(tpot[0]),
        number(tpot[1]),
        percent(busiest[0]),
        percent(busiest[1])
    ));
    let names = ["plain", "kv_aware"];
    for (place, name) in names.into_iter().enumerate() {
        row.figures.insert(format!("{name}_hit_rate"), hits[place]);
        row.figures.insert(format!("{name}_ttft_p95_ms"), ttft[place]);
        row.figures.insert(format!("{name}_tpot_p95_ms"), tpot[place]);
        row.figures.insert(format!("{name}_computed_twice_share"), twice[place]);
        row.figures.insert(format!("{name}_busiest_share"), busiest[place]);
    }
    Ok(())
}

/// The largest of some counts over their sum.
fn largest_share(counts: impl Iterator<Item = u64>) -> Option<f64> {
    let (sum, most) = counts.fold((0, 0), |(sum, most), count| (sum + count, count.max(most)));
    (sum > 0).then(|| most as f64 / sum as f64)
}

/// The traffic at which the answer turns: doubled up to eight times where it does not pay, halved where it does.
fn flip(study: &Study<'_>, sizes: &Sizes, row: &mut Row) -> Result<(), Error> {
    let aware = sizes.kv_aware.as_ref().map_or(KV_AWARE[0], Fleets::policy);
    let pays = row.answer == Answer::Yes;
    let base = sizes.plain.most().map_or(1.0, f64::from);
    let mut last = 1.0;
    for step in STEPS {
        let traffic = if pays { 1.0 / step } else { step };
        let guess = (base * traffic).ceil() as u32;
        if guess > study.bench.replicas_max || (pays && base * traffic < 0.5) {
            break;
        }
        let gain = gain_at(study, sizes.plain.policy(), aware, traffic, guess)?;
        let then = gain.is_some_and(|gain| gain.share >= study.thresholds.min_gain);
        if then != pays {
            let (low, high) = if pays { (traffic, last) } else { (last, traffic) };
            let rate = study.sustained();
            row.flip = Some(format!(
                "between {} and {} req/s sustained ({} to {} x the traffic; one seed)",
                number(low * rate),
                number(high * rate),
                number(low),
                number(high)
            ));
            if row.answer == Answer::No && traffic <= study.thresholds.growth {
                row.answer = Answer::NotYet;
            }
            return Ok(());
        }
        last = traffic;
    }
    if row.answer == Answer::No {
        row.flip = Some(format!("not by {} x the traffic", number(last)));
    }
    Ok(())
}

/// Halvings of the range in which the share of sharing requests is looked for.
const HALVINGS: u32 = 3;

/// The share of prompt tokens seen before at which it no longer pays, by making prompts of some requests their own: with
/// one seed, within an eighth.
fn sharing_flip(study: &Study<'_>, sizes: &Sizes, seen: f64, row: &mut Row) -> Result<(), Error> {
    let Some(aware) = sizes.kv_aware.as_ref().filter(|_| row.answer == Answer::Yes) else { return Ok(()) };
    let guess = sizes.plain.most().or(aware.most()).unwrap_or(1);
    let (mut fails, mut pays) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let shared = f64::midpoint(fails, pays);
        let alteration = Alteration { shared, ..Alteration::default() };
        let settings = [sizes.plain.policy(), aware.policy()]
            .map(|policy| Setting { alteration, ..Setting::plain(policy) });
        let found = fleets(study, &settings, guess, 1)?;
        match found[1].saves(&found[0]).is_some_and(|gain| gain.share >= study.thresholds.min_gain) {
            true => pays = shared,
            false => fails = shared,
        }
    }
    let where_it_turns =
        format!("below about {} of prompt tokens seen before (one seed)", percent(pays * seen));
    row.figures.insert("pays_down_to_seen_share".to_owned(), pays * seen);
    row.flip = Some(match row.flip.take() {
        Some(rate) => format!("{rate}; {where_it_turns}"),
        None => where_it_turns,
    });
    Ok(())
}

/// What a router that knows the caches saves at other traffic, with one seed.
fn gain_at(
    study: &Study<'_>,
    plain: Policy,
    aware: Policy,
    traffic: f64,
    guess: u32,
) -> Result<Option<Gain>, Error> {
    let settings = [plain, aware].map(|policy| Setting::plain(policy).with_traffic(traffic));
    let found = fleets(study, &settings, guess, 1)?;
    Ok(found[1].saves(&found[0]))
}
