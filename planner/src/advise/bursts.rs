//! Row 5: is there idle time enough to stop all replicas? Judged by arithmetic on the gaps between requests.

use std::collections::BTreeMap;

use forerun_workloads::measure::IdleGaps;

use super::Study;
use super::advice::{Answer, Gain, Row, Saved, Signal};
use super::thresholds::Thresholds;
use crate::words::{number, percent, seconds};

/// Cooldowns at which the saving is reckoned, to find where the answer turns.
const COOLDOWNS: [f64; 8] = [10.0, 30.0, 60.0, 300.0, 600.0, 1200.0, 2400.0, 4800.0];

/// Lengths of gaps to be measured.
pub(super) fn gaps(thresholds: &Thresholds) -> Vec<f64> {
    // A cooldown of zero: any gap counts.
    let own = thresholds.cooldown_s.max(0.001);
    COOLDOWNS.into_iter().chain([own]).collect()
}

/// The row. A replica is stopped `cooldown` after its last request and started by the next one.
pub(super) fn row(study: &Study<'_>) -> Row {
    let Study { measures, thresholds, .. } = study;
    let at = |cooldown: f64| {
        let near = |gaps: &&IdleGaps| (gaps.at_least_s - cooldown).abs() < 1e-6;
        measures.idle_gaps.iter().find(near).copied()
    };
    let saved = |gaps: IdleGaps| gaps.beyond_s / measures.span_s.max(1e-9);
    let own = at(thresholds.cooldown_s.max(0.001));
    let share = own.map_or(0.0, saved);
    let starts = own.and_then(|gaps| gaps.per_day).unwrap_or(0.0);
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
            ("cold_starts_per_day".to_owned(), starts),
        ]),
    };
    if share > 0.0 {
        let rate = study.sustained();
        let waiting = rate * thresholds.cold_start_s;
        let late = rate * (thresholds.cold_start_s - thresholds.queue_ttl_s).max(0.0);
        row.evidence.push(format!(
            "{} cold starts a day of {}: about {} requests wait for each, {} of them beyond a queue TTL of {}",
            number(starts),
            seconds(thresholds.cold_start_s),
            number(waiting),
            number(late),
            seconds(thresholds.queue_ttl_s)
        ));
        row.evidence
            .push("reckoned from the gaps between requests: autoscaling itself was not simulated".to_owned());
        row.figures.insert("requests_waiting_per_cold_start".to_owned(), waiting);
        row.figures.insert("requests_beyond_queue_ttl_per_cold_start".to_owned(), late);
    }
    let pays = |cooldown: &f64| at(*cooldown).map(saved).is_some_and(|share| share >= thresholds.min_gain);
    row.flip = COOLDOWNS
        .into_iter()
        .rev()
        .find(|cooldown| pays(cooldown))
        .map(|cooldown| format!("pays with cooldowns of up to about {}", seconds(cooldown)));
    row
}
