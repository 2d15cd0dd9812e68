//! A measured run sent again: the same requests at the same times, to the server that a scenario describes.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use forerun_reports::summary::Summary;
use forerun_sim::observer::Observer;
use forerun_sim::request::{Labels, Outcome, Status};
use forerun_sim::time::Time;
use forerun_workloads::spec::{Loop, StopRule, WorkloadSpec};
use forerun_workloads::trace::TraceFormat;
use forerun_workloads::trace::measured::{MeasuredRequest, MeasuredRun, Stage};
use serde_json::json;
use tempfile::TempDir;

use crate::assemble::Assembled;
use crate::error::{Error, InputError};
use crate::output::OutputFile;
use crate::scenario::read::Loaded;
use crate::simulate::{Progress, run_once};
use crate::validate::measured::Times;

/// A measured run, and the scenario that sends it again.
pub(crate) struct Replay {
    /// What was measured.
    pub(crate) run: MeasuredRun,
    /// The scenario with the run's requests as its workload.
    pub(crate) loaded: Loaded,
    /// What was assumed.
    pub(crate) notes: Vec<String>,
}

/// Replays, and the folder of their traces.
pub(crate) struct Replays {
    pub(crate) all: Vec<Replay>,
    /// Removed with its files when the replays are.
    _traces: TempDir,
}

impl Replays {
    /// Of `runs`, to the server of `loaded`.
    ///
    /// # Errors
    /// When traces cannot be written.
    pub(crate) fn new(runs: Vec<MeasuredRun>, loaded: &Loaded) -> Result<Self, InputError> {
        let traces = tempfile::tempdir().map_err(|e| InputError::new(format!("temporary files: {e}")))?;
        let mut all = Vec::new();
        for (index, run) in runs.into_iter().enumerate() {
            let trace = traces.path().join(format!("run-{index}.csv"));
            all.push(Replay::new(run, loaded, trace)?);
        }
        Ok(Self { all, _traces: traces })
    }
}

impl Replay {
    fn new(run: MeasuredRun, loaded: &Loaded, trace: PathBuf) -> Result<Self, InputError> {
        let mut loaded = loaded.clone();
        let mut notes = Vec::new();
        let given = loaded.scenario.workload.take().unwrap_or_default();
        loaded.scenario.workload = Some(match &run.stage {
            Some(stage) => of_stage(stage, given, &mut notes),
            None => {
                let pacing = pacing(&run, given.pacing, &mut notes);
                write_trace(&run.requests, matches!(pacing, Loop::AtMost(_)), &trace)?;
                WorkloadSpec {
                    trace: Some(trace),
                    format: Some(TraceFormat::Table),
                    // Load generators force the length of answers; a scenario may say otherwise.
                    stop: given.stop.or(Some(StopRule::Length)),
                    client: given.client,
                    pacing,
                    ..WorkloadSpec::default()
                }
            }
        });
        // All of the run is replayed, once.
        if let Some(run) = &mut loaded.scenario.run {
            (run.warm_up, run.horizon, run.replications) = (None, None, None);
        }
        if run.unanswered > 0 {
            notes.push(format!("{} requests were not answered and are not sent again", run.unanswered));
        }
        Ok(Self { run, loaded, notes })
    }

    /// The times of every measured request.
    pub(crate) fn measured(&self) -> Vec<Times> {
        self.run.requests.iter().map(Times::from).collect()
    }
}

/// The loop of the scenario, or else that of the load generator.
fn pacing(run: &MeasuredRun, given: Loop, notes: &mut Vec<String>) -> Loop {
    let pacing = if given == Loop::Open { run.pacing.clone() } else { given };
    match &pacing {
        Loop::Open => {}
        Loop::Closed(most) => {
            notes.push(format!("the client kept {most} requests in flight: each is sent when an earlier one ends"));
        }
        Loop::AtMost(most) => notes.push(format!(
            "the client had at most {most} requests in flight: each is sent when it was due, or when an earlier one ends"
        )),
        Loop::Users { .. } => {
            notes.push("the scenario's `workload.loop` says when requests are sent, not their times".into());
        }
    }
    pacing
}

/// A workload like the stage: the scenario's at the stage's rate or, without one, requests of the mean lengths.
fn of_stage(stage: &Stage, given: WorkloadSpec, notes: &mut Vec<String>) -> WorkloadSpec {
    let stated = given.trace.is_some() || given.preset.is_some() || given.synthetic.is_some();
    let mut workload = given;
    if stated {
        notes.push("only percentiles were measured: the scenario's workload stands for the requests".into());
    } else {
        notes.push(
            "only percentiles were measured: requests of the mean lengths, at random times, stand for the others".into(),
        );
        let tokens = |mean: f64| mean.round().clamp(1.0, 1e6) as u64;
        let synthetic = json!({
            "arrival": {"poisson": {"rate": stage.rate}},
            "input_tokens": tokens(stage.input_tokens),
            "output_tokens": tokens(stage.output_tokens),
        });
        workload.synthetic = serde_json::from_value(synthetic).ok();
    }
    workload.rate = Some(stage.rate);
    workload.requests = Some(stage.count);
    workload.duration = None;
    workload
}

/// Requests as a trace, each named after its place in the run, at the time when it was sent or `due`.
fn write_trace(requests: &[MeasuredRequest], due: bool, path: &Path) -> Result<(), InputError> {
    let mut text = String::from("id,arrival_s,input_tokens,output_tokens,prefix_group,prefix_tokens\n");
    let mut groups: Vec<&str> = requests.iter().filter_map(|r| Some(r.prefix.as_ref()?.0.as_str())).collect();
    groups.sort_unstable();
    groups.dedup();
    for (index, request) in requests.iter().enumerate() {
        let MeasuredRequest { sent_s, due_s, input_tokens, output_tokens, .. } = request;
        let arrival_s = if due { due_s.max(0.0) } else { *sent_s };
        let prefix = request.prefix.as_ref().map_or_else(
            || ",".to_owned(),
            |(group, tokens)| format!("{},{tokens}", groups.partition_point(|other| *other < group.as_str())),
        );
        text += &format!("{index},{arrival_s:.9},{input_tokens},{output_tokens},{prefix}\n");
    }
    let mut file = OutputFile::create(path)?;
    let wrong = |e: std::io::Error| InputError::new(format!("{}: cannot be written: {e}", path.display()));
    file.write_all(text.as_bytes()).map_err(wrong)?;
    file.finish()
}

/// What came of the requests of a simulated run.
pub(crate) struct Simulated {
    /// Times of each request that was answered, by its name, or by its place among all where it has none.
    pub(crate) requests: Vec<(u64, Times)>,
    /// The run as a whole.
    pub(crate) summary: Summary,
}

/// Runs what was assembled.
///
/// # Errors
/// As those of a single run.
pub(crate) fn simulate(
    assembled: &Assembled,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Simulated, Error> {
    let mut watcher = Watcher::default();
    let summary = run_once(assembled, assembled.seed, None, &mut watcher, progress)?;
    watcher.requests.sort_unstable_by_key(|(place, _)| *place);
    Ok(Simulated { requests: watcher.requests, summary })
}

/// Notes the times of every completed request.
#[derive(Default)]
struct Watcher {
    requests: Vec<(u64, Times)>,
}

impl Observer for Watcher {
    fn ended(&mut self, outcome: &Outcome, _: &Labels) {
        let (Status::Completed, Some(first)) = (outcome.status, outcome.first_token) else { return };
        let seconds = |time: Time| time.as_nanos() as f64 / 1e9;
        let times = Times {
            arrival_s: seconds(outcome.request.arrival),
            first_s: Some(seconds(first)),
            last_s: seconds(outcome.ended),
            tokens: outcome.emitted,
        };
        let named = outcome.request.name.as_ref().and_then(|name| name.parse().ok());
        self.requests.push((named.unwrap_or(outcome.request.id.0), times));
    }
}
