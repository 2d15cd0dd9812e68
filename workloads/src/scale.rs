//! Replaying a trace at another rate: thinning, superposing, compressing.
//!
//! No way of scaling keeps everything. Thinning and superposing keep conversations, think times and the
//! time of day; compressing keeps the order and the reuse pattern, but conversations hurry. So the first two
//! are what [`ScalePlan::new`] chooses by itself, and compressing warns.

mod superpose;
#[cfg(test)]
mod tests;

use forerun_sim::request::Labels;
use forerun_sim::rng::Stream;
use forerun_sim::time::{NANOS_PER_SECOND, SPAN_MAX, Span, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::WorkloadError;
use crate::record::{Record, Records, Start};
use crate::trace::{Trace, TraceInfo};
use superpose::Superposed;

/// The most copies that are superposed: each reads the file on its own.
const COPIES_MAX: u64 = 256;

/// How a trace is brought to another rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScaleMode {
    /// Keeps a part of the sessions (or requests, when there are none), whole.
    Thin,
    /// Overlays copies, shifted in time, that share no private text.
    Superpose,
    /// Divides all times, think times included.
    Compress,
}

/// How one trace reaches one rate.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalePlan {
    mode: ScaleMode,
    factor: f64,
    /// The time after which the recording repeats when it is shifted around.
    period: Span,
    warnings: Vec<String>,
}

impl ScalePlan {
    /// Plans to replay the trace described by `info` at `target_rate` requests per second. Without a `mode`,
    /// lower rates thin and higher ones superpose.
    ///
    /// # Errors
    /// When the rate is impossible, or out of reach of the mode.
    pub fn new(info: &TraceInfo, target_rate: f64, mode: Option<ScaleMode>) -> Result<Self, WorkloadError> {
        let refuse = |what: String| Err(WorkloadError::Spec(what));
        if !(target_rate.is_finite() && target_rate > 0.0) {
            return refuse(format!("a rate of {target_rate} requests/s is impossible; give one above 0"));
        }
        let Some(recorded) = info.mean_rate() else {
            return refuse(
                "the trace's requests arrive all at once, so that it has no rate to scale".to_owned(),
            );
        };
        let factor = target_rate / recorded;
        let mode = mode.unwrap_or(if factor < 1.0 { ScaleMode::Thin } else { ScaleMode::Superpose });
        match mode {
            ScaleMode::Thin if factor > 1.0 => refuse(format!(
                "`thin` only lowers a rate: the trace has {recorded:.3} requests/s, {target_rate} are wanted; \
                 use `superpose`"
            )),
            ScaleMode::Superpose if factor > COPIES_MAX as f64 => refuse(format!(
                "{target_rate} requests/s are {factor:.0} copies of the trace; at most {COPIES_MAX} are \
                 superposed, because more say nothing that was recorded; use a synthetic workload"
            )),
            ScaleMode::Compress if info.span.as_secs_f64() / factor > SPAN_MAX.as_secs_f64() => {
                refuse(format!("at {target_rate} requests/s the trace lasts more than 146 years"))
            }
            _ => Ok(Self { mode, factor, period: period(info), warnings: warnings(info, mode, factor) }),
        }
    }

    /// The mode, given or chosen.
    #[must_use]
    pub fn mode(&self) -> ScaleMode {
        self.mode
    }

    /// Target rate over recorded rate.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// What this scaling changes besides the rate, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A pass over `trace` at the planned rate. The same seed gives the same records; what a lower rate keeps,
    /// a higher one keeps too.
    ///
    /// # Errors
    /// When the file cannot be opened any more.
    pub fn apply(&self, trace: &Trace, seed: u64) -> Result<Box<dyn Records>, WorkloadError> {
        Ok(match self.mode {
            ScaleMode::Thin => Box::new(Thinned::new(trace.records(seed)?, self.factor, seed)),
            ScaleMode::Compress => {
                Box::new(Compressed { records: trace.records(seed)?, factor: self.factor })
            }
            ScaleMode::Superpose => Box::new(Superposed::new(trace, self, seed)?),
        })
    }
}

/// The span, and one mean gap (or grid step) between the last arrival and the first of the next round.
fn period(info: &TraceInfo) -> Span {
    let gap = info.span.as_nanos() / (info.rows - 1).max(1);
    info.span + info.grid.unwrap_or_default().max(Span::from_nanos(gap.max(1)))
}

fn warnings(info: &TraceInfo, mode: ScaleMode, factor: f64) -> Vec<String> {
    let whole = factor.fract().abs() < 1e-9;
    let mut warnings = Vec::new();
    match mode {
        ScaleMode::Compress if (factor - 1.0).abs() > 1e-9 => warnings.push(format!(
            "times are divided by {factor:.3}: think times, bursts and the length of the recording change with \
             the rate, although users do not; `thin` and `superpose` keep them"
        )),
        ScaleMode::Thin | ScaleMode::Superpose if !whole && info.prefixes && !info.sessions => {
            warnings.push(
                "the trace shares prefixes but names no sessions: leaving out single requests tears \
                 conversations apart and lowers prefix reuse"
                    .to_owned(),
            );
        }
        _ => {}
    }
    if mode == ScaleMode::Superpose && factor > 1.0 {
        warnings.push(format!(
            "{} shifted copies of the recording are overlaid: bursts are smoother than at the recorded rate",
            factor.ceil()
        ));
    }
    warnings
}

/// A part of the sessions: each is kept or left out as a whole.
struct Thinned {
    records: Box<dyn Records>,
    kept: f64,
    salt: u64,
}

impl Thinned {
    fn new(records: Box<dyn Records>, kept: f64, seed: u64) -> Self {
        let salt = Stream::new(seed, "thin").bits();
        Self { records, kept, salt }
    }

    /// A session's lot depends on nothing but its number, so that runs at two rates share what they can.
    fn keeps(&self, record: &Record) -> bool {
        let key = match &record.session {
            Some(turn) => turn.session << 1 | 1,
            None => record.number << 1,
        };
        let uniform = (scramble(key ^ self.salt) >> 11) as f64 / (1u64 << 53) as f64;
        uniform < self.kept
    }
}

impl Records for Thinned {
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        while let Some(record) = self.records.next(labels)? {
            if self.keeps(&record) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

/// SplitMix64's finaliser: neighbouring keys give unrelated numbers.
fn scramble(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

/// All times divided.
struct Compressed {
    records: Box<dyn Records>,
    factor: f64,
}

impl Compressed {
    fn span(&self, nanos: u64) -> Span {
        let seconds = nanos as f64 / NANOS_PER_SECOND as f64 / self.factor;
        Span::from_secs_f64(seconds).unwrap_or(SPAN_MAX)
    }
}

impl Records for Compressed {
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        let Some(mut record) = self.records.next(labels)? else {
            return Ok(None);
        };
        record.start = match record.start {
            Start::At(at) => Start::At(Time::ZERO + self.span(at.as_nanos())),
            Start::AfterPrevious(think) => Start::AfterPrevious(self.span(think.as_nanos())),
        };
        Ok(Some(record))
    }
}
