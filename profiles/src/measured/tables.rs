//! The timed kernels themselves as the tables of a profile, judged at sizes that were held out.

use std::collections::BTreeMap;

use forerun_sim::cost::tables::{Curve, Plane};

use super::{DECODE_ATTENTION, PREFILL_ATTENTION, Place, Residual, Sample, TimedOp, median, typical};
use crate::profile::{Grids, Op};
use crate::smooth::rising;

/// Times by size.
type Times = BTreeMap<[u32; 2], f64>;

/// The typical times of `op` that `keep` says to use.
fn times(samples: &[Sample], op: &str, keep: impl Fn(&Sample) -> bool) -> Times {
    let used = samples.iter().filter(|sample| sample.op == op && keep(sample));
    used.filter_map(|sample| Some((sample.at, typical(&sample.us)?))).collect()
}

/// The tables of the ops at `place`, and where their times come from.
///
/// # Errors
/// The op of which nothing was measured.
pub fn curves(ops: &[TimedOp], samples: &[Sample], place: Place, from: &str) -> Result<Vec<Op>, String> {
    let op = |op: &TimedOp| {
        let (at, us) = curve(&times(samples, &op.op, |_| true));
        if at.is_empty() {
            return Err(unmeasured(&op.op));
        }
        Ok(Op { op: op.op.clone(), from: Some(from.to_owned()), times: op.times, at, us })
    };
    ops.iter().filter(|op| op.place == place).map(op).collect()
}

fn unmeasured(op: &str) -> String {
    format!("{op} was not measured at any size: give more time (`--budget`)")
}

fn curve(times: &Times) -> (Vec<u32>, Vec<f64>) {
    let at: Vec<u32> = times.keys().map(|at| at[0]).collect();
    let mut us: Vec<f64> = times.values().copied().collect();
    rising(&mut us, &[at.len()]);
    (at, us)
}

/// The grids of attention, and where their times come from.
///
/// # Errors
/// When nothing of prefills, or of decodes, was measured.
pub fn grids(samples: &[Sample], from: &str) -> Result<Grids, String> {
    let whole = |op| grid(&times(samples, op, |sample| !sample.held_out)).ok_or_else(|| unmeasured(op));
    let (chunks, histories, prefill_us) = whole(PREFILL_ATTENTION)?;
    let (decodes, contexts, decode_us) = whole(DECODE_ATTENTION)?;
    Ok(Grids {
        decodes,
        contexts,
        decode_us,
        chunks,
        histories,
        prefill_us,
        mixed_us: None,
        skew: None,
        from: Some(from.to_owned()),
    })
}

/// The rows that were measured at every column, made to rise.
fn grid(times: &Times) -> Option<(Vec<u32>, Vec<u32>, Vec<f64>)> {
    let distinct = |dimension: usize| {
        let mut points: Vec<u32> = times.keys().map(|at| at[dimension]).collect();
        points.sort_unstable();
        points.dedup();
        points
    };
    let columns = distinct(1);
    let whole = |&row: &u32| columns.iter().all(|&column| times.contains_key(&[row, column]));
    let rows: Vec<u32> = distinct(0).into_iter().filter(whole).collect();
    if rows.is_empty() {
        return None;
    }
    let cells = rows.iter().flat_map(|&row| columns.iter().map(move |&column| [row, column]));
    let mut us: Vec<f64> = cells.map(|at| times[&at]).collect();
    rising(&mut us, &[rows.len(), columns.len()]);
    Some((rows, columns, us))
}

/// Errors of tables made without the sizes held out, at those sizes; of each op that has some.
#[must_use]
pub fn residuals(samples: &[Sample]) -> Vec<Residual> {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.held_out) {
        if !names.contains(&sample.op.as_str()) {
            names.push(&sample.op);
        }
    }
    names.into_iter().filter_map(|op| residual(samples, op)).collect()
}

fn residual(samples: &[Sample], op: &str) -> Option<Residual> {
    let known = times(samples, op, |sample| !sample.held_out);
    let asked = times(samples, op, |sample| sample.held_out);
    let predict: Box<dyn Fn([u32; 2]) -> f64> = if [PREFILL_ATTENTION, DECODE_ATTENTION].contains(&op) {
        let (rows, columns, us) = grid(&known)?;
        let plane = Plane::new(rows, columns, us).ok()?;
        Box::new(move |at| plane.us(f64::from(at[0]), f64::from(at[1])))
    } else {
        let (at, us) = curve(&known);
        let curve = Curve::new(at, us).ok()?;
        Box::new(move |at| curve.us(f64::from(at[0])))
    };
    let mut errors: Vec<f64> = asked.iter().map(|(&at, us)| (predict(at) / us - 1.0).abs()).collect();
    errors.sort_by(f64::total_cmp);
    Some(Residual {
        op: op.to_owned(),
        sizes: u32::try_from(errors.len()).unwrap_or(u32::MAX),
        median: median(&errors)?,
        largest: errors.last().copied()?,
    })
}
