//! Round after round over all points until the time is up: whatever changes on the machine meanwhile falls on all
//! kernels alike, and on the steps that they are to predict.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use forerun_profiles::measured::{Sample, median};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::bench::{Bench, Kernel};
use crate::clock::Clock;
use crate::device::{Target, first_line};
use crate::journal::{Entry, Journal};
use crate::plan::Point;

/// More rounds add nothing to a median.
const ROUNDS_MAX: usize = 9;
/// A point whose single call takes more than this share of the budget is left out.
const POINT_SHARE: f64 = 0.02;
/// Calls are repeated until they take so long together, microseconds, but not more often than this.
const TIMED_US: f64 = 2000.0;
const REPEATS_MAX: f64 = 500.0;
/// Slower kernels need no call before: what it warms is gone when it ends.
const WARM_US: f64 = 20_000.0;

/// What was measured.
pub(crate) struct Timed {
    /// By point.
    pub(crate) us: Vec<Vec<f64>>,
    /// What was not, and why.
    pub(crate) skipped: Vec<String>,
}

/// Times `points` until the `budget` is spent; `known` are times of an interrupted run.
///
/// # Errors
/// When the device or the journal fails.
pub(crate) fn measure(
    target: &Target,
    bench: &Bench,
    points: &[Point],
    budget: Duration,
    known: &[Entry],
    journal: &mut Journal,
) -> anyhow::Result<Timed> {
    let of = |point: &Point| {
        let own = known.iter().filter(|entry| entry.op == point.op && entry.at == point.at);
        own.map(|entry| entry.us).collect::<Vec<f64>>()
    };
    let mut timed = Timed { us: points.iter().map(of).collect(), skipped: Vec::new() };
    let mut given_up = vec![false; points.len()];
    let (begun, bar) = (Instant::now(), bar(budget));
    let limit_us = budget.as_secs_f64() * 1e6 * POINT_SHARE;
    'rounds: for round in 0..ROUNDS_MAX {
        // The first round goes over everything: a table needs each of its points.
        for (index, point) in points.iter().enumerate() {
            if given_up[index] || timed.us[index].len() > round {
                continue;
            }
            if round > 0 && begun.elapsed() > budget {
                break 'rounds;
            }
            bar.set_position(begun.elapsed().as_secs().min(budget.as_secs()));
            bar.set_message(format!("round {} {} {:?}", round + 1, point.op, point.at));
            let expected = middle(&timed.us[index]).or_else(|| expected_us(points, &timed, index));
            if round == 0 && expected.is_some_and(|us| us > limit_us) {
                given_up[index] = true;
                let seconds = expected.unwrap_or(0.0) / 1e6;
                timed
                    .skipped
                    .push(format!("{} at {:?}: a call would take about {seconds:.1} s", point.op, point.at));
                continue;
            }
            let us = time(target, bench, point, middle(&timed.us[index])).map_err(first_line)?;
            journal.append(&Entry { op: point.op.into(), at: point.at, us })?;
            timed.us[index].push(us);
        }
    }
    bar.finish_and_clear();
    Ok(timed)
}

/// Microseconds that a point should take at most: in proportion to the work of one that was timed before.
fn expected_us(points: &[Point], timed: &Timed, index: usize) -> Option<f64> {
    let point = &points[index];
    let before = (0..index).rev().filter(|&other| points[other].op == point.op && points[other].work > 0.0);
    let (other, us) = before.filter_map(|other| Some((other, middle(&timed.us[other])?))).next()?;
    Some(us * (point.work / points[other].work).max(1.0))
}

fn middle(us: &[f64]) -> Option<f64> {
    let mut sorted = us.to_vec();
    sorted.sort_by(f64::total_cmp);
    median(&sorted)
}

/// Microseconds of one call.
fn time(target: &Target, bench: &Bench, point: &Point, known: Option<f64>) -> candle_core::Result<f64> {
    let clock = if point.kernel == Kernel::Disk { Clock::Wall } else { target.clock };
    let mut call = bench.prepare(point.kernel, point.at)?;
    let mut expected = known;
    if known.is_none_or(|us| us < WARM_US) {
        call()?;
        target.device.synchronize()?;
        let started = clock.start();
        call()?;
        target.device.synchronize()?;
        let us = started.us();
        if us > TIMED_US {
            return Ok(us);
        }
        expected = Some(us);
    }
    let calls = (TIMED_US / expected.unwrap_or(TIMED_US).max(0.1)).clamp(1.0, REPEATS_MAX) as u32;
    let started = clock.start();
    for _ in 0..calls {
        call()?;
    }
    target.device.synchronize()?;
    Ok(started.us() / f64::from(calls))
}

/// The samples of a profile: all that was timed of its kernels.
pub(crate) fn samples(points: &[Point], timed: &Timed) -> Vec<Sample> {
    let kernels = points.iter().zip(&timed.us);
    let kernels = kernels.filter(|(point, us)| !matches!(point.kernel, Kernel::Step(_)) && !us.is_empty());
    kernels
        .map(|(point, us)| Sample {
            op: point.op.into(),
            at: point.at,
            us: us.iter().map(|us| (us * 1e3).round() / 1e3).collect(),
            held_out: point.held_out,
        })
        .collect()
}

/// A bar of the time that is spent; none when nobody looks.
fn bar(budget: Duration) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template("{bar:30.cyan/dim} {elapsed}/{len} s  {msg}");
    ProgressBar::with_draw_target(Some(budget.as_secs()), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
