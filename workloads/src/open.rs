//! From the `workload:` section to a workload that is known to be right and can be run many times.

use std::path::Path;

use forerun_sim::request::Stop;
use forerun_sim::time::Span;

use crate::driver::{Cut, Driver, Pacing};
use crate::error::WorkloadError;
use crate::preset;
use crate::record::Records;
use crate::scale::{ScaleMode, ScalePlan};
use crate::spec::{Loop, Origin, REQUESTS_DEFAULT, WorkloadSpec};
use crate::synthetic::{Synthetic, SyntheticSpec};
use crate::trace::{self, Trace, TraceOptions};

/// A workload that was checked from end to end. Runs share it, also between threads.
#[derive(Debug)]
pub struct Workload {
    /// One line for reports: what it is, and how much of it.
    pub about: String,
    /// What the user should know before trusting results, one sentence each.
    pub warnings: Vec<String>,
    /// About how many requests a run sends, if that can be foreseen.
    pub requests: Option<u64>,
    /// About how long a run sends, if that can be foreseen.
    pub span: Option<Span>,
    content: Content,
    pacing: Pacing,
    cut: Cut,
    stop: Stop,
}

#[derive(Debug)]
enum Content {
    Trace(Box<Trace>, Option<ScalePlan>),
    Synthetic(Synthetic, Option<f64>),
}

/// What is known of a workload's own course, before loop and cut.
struct Course {
    name: String,
    requests: Option<f64>,
    span: Option<f64>,
    rate: Option<f64>,
}

/// Opens the workload that `spec` describes and checks everything: the whole trace, every law, every file.
/// Paths are relative to `base`, the scenario's directory.
///
/// # Errors
/// When anything is wrong with it; the error names the place and the mend.
pub fn open(spec: &WorkloadSpec, base: &Path) -> Result<Workload, WorkloadError> {
    let (content, course, mut warnings) = match spec.origin()? {
        Origin::Trace(path) => open_trace(spec, &base.join(path))?,
        Origin::Preset(name) => {
            let prefix = format!("preset {name}: ");
            open_synthetic(spec, &preset::get(name)?, base, &prefix)?
        }
        Origin::Synthetic(synthetic) => open_synthetic(spec, synthetic, base, "")?,
    };
    let pacing = match &spec.pacing {
        Loop::Open => Pacing::Open,
        Loop::AtMost(most) => Pacing::AtMost(*most),
        Loop::Closed(most) => Pacing::Closed(*most),
        Loop::Users { users, think } => {
            Pacing::Users { users: *users, think: think.sampler("workload.loop.think", base)? }
        }
    };
    let (cut, stop) = match &content {
        Content::Trace(..) => (cut(spec, None), Stop::Eos),
        Content::Synthetic(..) => (cut(spec, Some(REQUESTS_DEFAULT)), Stop::Length),
    };
    warnings.extend(course.shortfall(&pacing, &cut));
    let (requests, span) = course.expected(&pacing, &cut);
    Ok(Workload {
        about: course.about(&pacing, &cut),
        warnings,
        requests,
        span,
        content,
        pacing,
        cut,
        stop: spec.stop.map_or(stop, Stop::from),
    })
}

type Opened = (Content, Course, Vec<String>);

fn open_trace(spec: &WorkloadSpec, path: &Path) -> Result<Opened, WorkloadError> {
    let options = TraceOptions {
        format: spec.format,
        columns: spec.columns.clone(),
        units: spec.units.clone(),
        block_tokens: spec.block_tokens,
    };
    let trace = trace::open(path, &options)?;
    let info = trace.info();
    let plan = spec.rate.map(|rate| ScalePlan::new(info, rate, spec.scale)).transpose()?;
    let mut warnings = info.warnings.clone();
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let (rows, span) = (info.rows, info.span);
    let mut name = format!(
        "trace {file} ({}): {} requests over {}",
        info.format.name(),
        grouped(rows),
        lasting(span.as_secs_f64())
    );
    let (mut requests, mut span) = (rows as f64, span.as_secs_f64());
    if let Some(plan) = &plan {
        warnings.extend(plan.warnings().iter().cloned());
        let how = match plan.mode() {
            ScaleMode::Thin => "thinned",
            ScaleMode::Superpose => "superposed",
            ScaleMode::Compress => "compressed",
        };
        name += &format!(", {how} to {}/s", spec.rate.unwrap_or_default());
        match plan.mode() {
            ScaleMode::Compress => span /= plan.factor(),
            ScaleMode::Thin | ScaleMode::Superpose => requests *= plan.factor(),
        }
    }
    let course = Course { name, requests: Some(requests), span: Some(span), rate: None };
    Ok((Content::Trace(Box::new(trace), plan), course, warnings))
}

fn open_synthetic(
    spec: &WorkloadSpec,
    synthetic: &SyntheticSpec,
    base: &Path,
    prefix: &str,
) -> Result<Opened, WorkloadError> {
    let checked = synthetic.check(base)?;
    // Starting it once finds what only a start can: a rate that the process cannot have.
    checked.records(0, spec.rate)?;
    let rate = spec.rate.or(checked.mean_rate());
    let prompts = if checked.has_sessions() { "sessions with first prompts" } else { "prompts" };
    let name = format!(
        "{prefix}{prompts} of {} and answers of {} tokens on average",
        grouped(checked.mean_input_tokens().round() as u64),
        grouped(checked.mean_output_tokens().round() as u64)
    );
    let course = Course { name, requests: None, span: None, rate };
    Ok((Content::Synthetic(checked, spec.rate), course, Vec::new()))
}

/// The cut of `spec`, or else `endless` requests of a workload that has no end of its own.
fn cut(spec: &WorkloadSpec, endless: Option<u64>) -> Cut {
    let requests = match spec.duration {
        Some(_) => spec.requests,
        None => spec.requests.or(endless),
    };
    Cut { duration: spec.duration.map(|duration| duration.span()), requests }
}

impl Workload {
    /// Whether it replays a recording: another seed is then hardly another draw of the traffic.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        matches!(self.content, Content::Trace(..))
    }

    /// A fresh pass over the workload for the run `seed`. The same seed gives the same requests.
    ///
    /// # Errors
    /// When a file cannot be opened any more.
    pub fn source(&self, seed: u64) -> Result<Driver, WorkloadError> {
        let records: Box<dyn Records> = match &self.content {
            Content::Trace(trace, Some(plan)) => plan.apply(trace, seed)?,
            Content::Trace(trace, None) => trace.records(seed)?,
            Content::Synthetic(synthetic, rate) => Box::new(synthetic.records(seed, *rate)?),
        };
        Ok(Driver::new(records, self.pacing.clone(), self.cut, self.stop, seed))
    }
}

impl Course {
    /// About how many requests are sent, and for how long.
    fn expected(&self, pacing: &Pacing, cut: &Cut) -> (Option<u64>, Option<Span>) {
        let least = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let duration = cut.duration.map(Span::as_secs_f64);
        let most = cut.requests.map(|requests| requests as f64);
        let (requests, span) = match pacing {
            // A client's limit is not meant to bind for long.
            Pacing::Open | Pacing::AtMost(_) => {
                let rate = self.rate.or_else(|| Some(self.requests? / self.span.filter(|s| *s > 0.0)?));
                let within = duration.and_then(|seconds| Some(seconds * rate?));
                let requests = least(least(self.requests, most), within);
                let needed = requests.and_then(|requests| Some(requests / rate?));
                (requests, least(least(self.span, duration), needed))
            }
            // How many fit into a duration is what the run finds out.
            Pacing::Closed(_) | Pacing::Users { .. } if duration.is_some() => (None, duration),
            Pacing::Closed(_) | Pacing::Users { .. } => (least(self.requests, most), None),
        };
        (requests.map(|r| r.round() as u64), span.and_then(Span::from_secs_f64))
    }

    /// What was asked for and the workload does not have.
    fn shortfall(&self, pacing: &Pacing, cut: &Cut) -> Option<String> {
        let (has, span) = (self.requests?, self.span?);
        if let Some(asked) = cut.requests.filter(|asked| *asked as f64 > has) {
            let (has, asked) = (grouped(has.round() as u64), grouped(asked));
            return Some(format!("`requests` asks for {asked}, and the trace ends after {has}"));
        }
        let asked = cut.duration.map(Span::as_secs_f64).filter(|asked| *asked > span)?;
        matches!(pacing, Pacing::Open | Pacing::AtMost(_)).then(|| {
            let (asked, span) = (lasting(asked), lasting(span));
            format!("`duration` asks for {asked}, and the trace's arrivals end after {span}")
        })
    }

    fn about(&self, pacing: &Pacing, cut: &Cut) -> String {
        let mut about = self.name.clone();
        match (pacing, self.rate) {
            (Pacing::Open, Some(rate)) => about += &format!(", {} requests/s", shortened(rate)),
            (Pacing::Open, None) => {}
            (Pacing::AtMost(most), rate) => {
                if let Some(rate) = rate {
                    about += &format!(", {} requests/s", shortened(rate));
                }
                about += &format!(", at most {} in flight", grouped(most.get().into()));
            }
            (Pacing::Closed(most), _) => about += &format!(", {} in flight", grouped(most.get().into())),
            (Pacing::Users { users, .. }, _) => about += &format!(", {} users", grouped(users.get().into())),
        }
        if let Some(duration) = cut.duration {
            about += &format!(", for {}", lasting(duration.as_secs_f64()));
        }
        if let Some(requests) = cut.requests {
            about += &format!(", at most {} requests", grouped(requests));
        }
        about
    }
}

/// `12031` as `12,031`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.char_indices() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// At most two decimals, without trailing zeros.
fn shortened(number: f64) -> String {
    format!("{number:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Seconds in the unit that people would use.
fn lasting(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests;
