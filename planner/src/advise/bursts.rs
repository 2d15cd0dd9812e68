//! Row 5: is there idle time enough to stop all replicas? Judged by arithmetic on the gaps between requests.

use std::collections::BTreeMap;

use forerun_sim::time::Span;
use forerun_workloads::measure::{ColdStarts, IdleGaps, ScaleToZero};

use super::Study;
use super::advice::{Answer, Gain, Row, Saved, Signal};
use super::sizes::Sizes;
use super::thresholds::Thresholds;
use crate::words::{number, percent, seconds};

/// Cooldowns at which the saving is reckoned, to find where the answer turns.
const COOLDOWNS: [f64; 8] = [10.0, 30.0, 60.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0];

/// Lengths of gaps to be measured.
pub(super) fn gaps() -> Vec<Span> {
    COOLDOWNS.into_iter().filter_map(Span::from_secs_f64).collect()
}

/// How replicas would be stopped and started.
pub(super) fn scale_to_zero(thresholds: &Thresholds) -> Option<ScaleToZero> {
    Some(ScaleToZero {
        cooldown: Span::from_secs_f64(thresholds.cooldown_s)?,
        cold_start: Span::from_secs_f64(thresholds.cold_start_s)?,
        queue_ttl: Span::from_secs_f64(thresholds.queue_ttl_s)?,
    })
}

/// The row. Replicas are stopped `cooldown` after the last request and started by the next one.
pub(super) fn row(study: &Study<'_>, sizes: &Sizes) -> Row {
    let Study { measures, thresholds, .. } = study;
    let starts = measures.cold_starts.unwrap_or_default();
    let share = starts.stopped_share.unwrap_or(0.0);
    let gain = Gain { of: Saved::GpuHours, share, interval: None, pairs: 0 };
    let mut row = Row {
        signal: Signal::Bursts,
        answer: if share >= thresholds.min_gain { Answer::Yes } else { Answer::No },
        shows: format!("idle {} of the time after {}", percent(share), seconds(thresholds.cooldown_s)),
        threshold: format!("saves {} of GPU-hours", percent(thresholds.min_gain)),
        gain: (share > 0.0).then_some(gain),
        evidence: Vec::new(),
        flip: None,
        figures: BTreeMap::from([
            ("idle_share".to_owned(), share),
            ("cold_starts_per_day".to_owned(), starts.per_day.unwrap_or(0.0)),
        ]),
    };
    if starts.starts > 0 {
        evidence(study, sizes, &starts, &mut row);
    }
    let saved = |gaps: &IdleGaps| gaps.beyond_s / measures.span_s.max(1e-9);
    let pays = measures.idle_gaps.iter().rev().find(|gaps| saved(gaps) >= thresholds.min_gain);
    row.flip = pays.map(|gaps| format!("pays with cooldowns of up to about {}", seconds(gaps.at_least_s)));
    row
}

/// GPU-hours saved, cold starts, and the requests at risk in them.
fn evidence(study: &Study<'_>, sizes: &Sizes, starts: &ColdStarts, row: &mut Row) {
    let Study { measures, thresholds, .. } = study;
    let per_day = |count: f64| count * 86_400.0 / measures.span_s.max(1e-9);
    let of_all = |count: u64| count as f64 / measures.requests.max(1) as f64;
    if let Some(gpus) = sizes.plain.gpus_of_largest() {
        let hours = f64::from(gpus) * 24.0;
        let saved = hours * starts.stopped_share.unwrap_or(0.0);
        row.evidence.push(format!("{} of {} GPU-hours a day saved", number(saved), number(hours)));
        row.figures.insert("gpu_hours_saved_per_day".to_owned(), saved);
    }
    row.evidence.push(format!(
        "{} cold starts a day of {}",
        number(starts.per_day.unwrap_or(0.0)),
        seconds(thresholds.cold_start_s)
    ));
    let waits =
        starts.wait_mean_s.map_or(String::new(), |wait| format!(", the others {} on average", seconds(wait)));
    row.evidence.push(format!(
        "requests at risk: {} a day arrive during a cold start ({}); {} of them ({}) would wait longer than the queue TTL of {} \
         and be lost{waits}",
        number(per_day(starts.waiting as f64)),
        percent(of_all(starts.waiting)),
        number(per_day(starts.lost as f64)),
        percent(of_all(starts.lost)),
        seconds(thresholds.queue_ttl_s)
    ));
    row.evidence.push(
        "not simulated: reckoned from the times of arrival, for replicas that all stop and start together"
            .to_owned(),
    );
    row.figures.insert("requests_waiting_share".to_owned(), of_all(starts.waiting));
    row.figures.insert("requests_lost_share".to_owned(), of_all(starts.lost));
    if let Some(wait) = starts.wait_mean_s {
        row.figures.insert("cold_start_wait_mean_s".to_owned(), wait);
    }
}
