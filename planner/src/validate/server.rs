//! Measured servers: their descriptions and the layouts of their measurements.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use forerun_profiles::rows::find;
use forerun_workloads::spec::Loop;
use forerun_workloads::trace::measured;
use serde::Deserialize;
use serde_json::Value;

use super::measured::{Figures, Times};
use crate::calibrate::ImportOptions;
use crate::error::InputError;
use crate::scenario::Scenario;

/// The descriptions that come with the tool.
const SERVERS: [&str; 6] = [
    include_str!("../../servers/vllm-qwen3-14b-h100.yaml"),
    include_str!("../../servers/vllm-sharegpt-rtx4090.yaml"),
    include_str!("../../servers/vllm-sharegpt-rtxpro6000.yaml"),
    include_str!("../../servers/vllm-llama-2-7b-h100.yaml"),
    include_str!("../../servers/vllm-llama-2-70b-h100.yaml"),
    include_str!("../../servers/vllm-mixtral-8x7b-h100.yaml"),
];

/// Bytes that a measurement may have.
const BYTES_MAX: u64 = 256 << 20;

/// A measured server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub title: String,
    /// Its folder, within that of all servers.
    pub folder: PathBuf,
    /// How its measurements are laid out.
    pub layout: Layout,
    /// Which engine it ran, and how that differs from the one simulated.
    pub engine: String,
    /// Kernel tables of the same GPU, model and split, or of kernels of which its model is composed, within the folder
    /// of tables.
    pub tables: Option<PathBuf>,
    /// The requests (from, until) that arrive before the load builds up.
    pub light_load: Option<(usize, usize)>,
    /// Tokens of every answer, where the client forced them but counted those of the text that it got.
    pub output_tokens: Option<u32>,
    /// What is to be known of its errors.
    pub remarks: Option<String>,
    /// What another simulator achieved on it.
    pub peer: Option<Peer>,
    /// How near the figures should come.
    pub targets: Vec<Target>,
    /// What it ran.
    pub scenario: Scenario,
}

/// Another simulator's errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Which one, on which terms.
    pub name: String,
    /// The loads that they are of.
    #[serde(default)]
    pub cells: Vec<String>,
    /// By the figure's name.
    #[serde(default)]
    pub errors_percent: BTreeMap<String, f64>,
}

/// How near a figure should come, set before it was known how near it comes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The loads that it is for.
    pub cells: Vec<String>,
    /// The step times that it is for.
    pub step_times: StepTimes,
    /// The figure's name.
    pub figure: String,
    /// The error aimed at.
    pub within_percent: f64,
    /// Where it is known to be missed: the error that the validation suite accepts.
    pub accepted_percent: Option<f64>,
}

/// What gives the simulation its step times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepTimes {
    /// The catalog's closed forms.
    ClosedForms,
    /// Imported tables.
    Tables,
    /// Imported tables with a skew that is of another run.
    TablesWithSkew,
}

impl StepTimes {
    /// Its name in reports.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ClosedForms => "closed forms",
            Self::Tables => "tables",
            Self::TablesWithSkew => "tables with skew",
        }
    }
}

/// How measurements are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A folder for each load with `trace.csv`: `send_time_us`, `first_chunk_time_us`, `last_chunk_time_us`, tokens.
    /// `closed256` in its name says that the client never had more requests in flight: they were due at
    /// `arrival_time_us`.
    Traces,
    /// `requests.jsonl`: `arrival_time`, `queued_ts`, `first_token_ts`, `last_token_ts`, tokens.
    Requests,
    /// `results/stage_N_lifecycle_metrics.json` of inference-perf: percentiles of each stage.
    Stages,
}

/// One load that a server was put under.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) scenario: Scenario,
    /// Requests in order of arrival, where they were measured one by one.
    pub(super) measured: Vec<Times>,
    /// Figures, where only these were measured.
    pub(super) figures: Option<Figures>,
}

/// All known servers.
pub(super) fn all() -> Result<Vec<Server>, InputError> {
    let parse = |text: &&str| {
        serde_saphyr::from_str(text).map_err(|e| InputError::new(format!("description of a server: {e}")))
    };
    SERVERS.iter().map(parse).collect()
}

impl Server {
    /// What the folder of its tables does not say: those of whole layers say everything, kernels of any model do not.
    pub(super) fn import_options(&self, folder: &Path) -> ImportOptions {
        if find(folder, "dense").is_some() {
            return ImportOptions::default();
        }
        let pool = self.scenario.pools.as_deref().and_then(<[_]>::first);
        ImportOptions {
            gpu: pool.and_then(|pool| pool.gpu.clone()),
            tensor_parallel: pool.and_then(|pool| pool.tensor_parallel),
            model: self.scenario.model.clone(),
            ..ImportOptions::default()
        }
    }

    /// Its loads; none when its folder is absent from `root`.
    pub(super) fn cells(&self, root: &Path) -> Result<Vec<Cell>, InputError> {
        let folder = root.join(&self.folder);
        let folder = std::path::absolute(&folder).map_err(|e| wrong(&folder, e))?;
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        match self.layout {
            Layout::Traces => self.traces(&folder),
            Layout::Requests => self.requests(&folder).map(|cell| vec![cell]),
            Layout::Stages => self.stages(&folder.join("results")),
        }
    }

    fn with_trace(&self, trace: PathBuf) -> Scenario {
        let mut scenario = self.scenario.clone();
        scenario.workload.get_or_insert_default().trace = Some(trace);
        scenario
    }

    fn traces(&self, folder: &Path) -> Result<Vec<Cell>, InputError> {
        let mut cells = Vec::new();
        for path in entries(folder)? {
            let trace = ["trace.csv", "trace.csv.gz"].map(|name| path.join(name));
            let Some(trace) = trace.into_iter().find(|trace| trace.is_file()) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut scenario = self.with_trace(trace.clone());
            let closed = name.split("closed").nth(1).and_then(|size| size.parse::<NonZeroU32>().ok());
            if let (Some(size), Some(workload)) = (closed, &mut scenario.workload) {
                workload.pacing = Loop::AtMost(size);
                workload.columns.insert("arrival_s".into(), "arrival_time_us".into());
            }
            cells.push(Cell { name, scenario, measured: trace_times(&trace)?, figures: None });
        }
        Ok(cells)
    }

    fn requests(&self, folder: &Path) -> Result<Cell, InputError> {
        let path = folder.join("requests.jsonl");
        let text = read(&path)?;
        let mut rows = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let value: Value =
                serde_json::from_str(line).map_err(|e| wrong(&path, format!("line {}: {e}", number + 1)))?;
            let field = |name: &str| {
                value[name].as_f64().ok_or_else(|| wrong(&path, format!("line {}: no `{name}`", number + 1)))
            };
            let tokens = field("output_toks")? as u32;
            let clocks = ["arrival_time", "queued_ts", "first_token_ts", "last_token_ts"];
            let [arrival, queued, first, last] = clocks.map(field);
            rows.push((arrival?, queued?, first?, last?, tokens));
        }
        // The engine has a clock of its own: the fastest way from the client to it counts as none.
        let offset = rows.iter().map(|row| row.1 - row.0).fold(f64::INFINITY, f64::min);
        let start = rows.iter().map(|row| row.0).fold(f64::INFINITY, f64::min);
        let mut measured: Vec<Times> = rows
            .iter()
            .map(|&(arrival, _, first, last, tokens)| Times {
                arrival_s: arrival - start,
                first_s: Some(first - offset - start),
                last_s: last - offset - start,
                tokens,
            })
            .collect();
        measured.sort_by(|a, b| a.arrival_s.total_cmp(&b.arrival_s));
        Ok(Cell { name: "requests".into(), scenario: self.with_trace(path), measured, figures: None })
    }

    fn stages(&self, folder: &Path) -> Result<Vec<Cell>, InputError> {
        let mut cells = Vec::new();
        for path in entries(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(stage) =
                name.strip_suffix("_lifecycle_metrics.json").filter(|n| n.starts_with("stage_"))
            else {
                continue;
            };
            let runs = measured::open(&path, &BTreeMap::new())?;
            let Some(measured) = runs.iter().find_map(|run| run.stage) else {
                return Err(wrong(&path, "is no stage of inference-perf"));
            };
            let mut scenario = self.scenario.clone();
            let workload = scenario.workload.get_or_insert_default();
            workload.rate = Some(measured.rate);
            workload.requests = Some(measured.count);
            // It counts tokens of the text read again, which are fewer than those that were forced.
            let figures = Some(Figures::of_stage(&measured, self.output_tokens.map(f64::from)));
            cells.push(Cell { name: stage.to_owned(), scenario, measured: Vec::new(), figures });
        }
        Ok(cells)
    }
}

/// The requests of a `trace.csv` that were answered.
fn trace_times(trace: &Path) -> Result<Vec<Times>, InputError> {
    let runs = measured::open(trace, &BTreeMap::new())?;
    Ok(runs.iter().flat_map(|run| run.requests.iter().map(Times::from)).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, InputError> {
    let entries = fs::read_dir(folder).map_err(|e| wrong(folder, e))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, InputError> {
    let size = fs::metadata(path).map_err(|e| wrong(path, e))?.len();
    if size > BYTES_MAX {
        return Err(wrong(path, format!("has {size} bytes: at most {BYTES_MAX} are read")));
    }
    fs::read_to_string(path).map_err(|e| wrong(path, e))
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> InputError {
    InputError::new(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_peers_name_figures_that_exist() {
        for server in all().unwrap() {
            let known: Vec<String> = Figures::default().entries().into_iter().map(|(name, _)| name).collect();
            let targets = server.targets.iter().map(|target| &target.figure);
            let peers = server.peer.iter().flat_map(|peer| peer.errors_percent.keys());
            for name in targets.chain(peers) {
                assert!(known.contains(name), "{}: {name}", server.name);
            }
            assert!(server.targets.iter().all(|target| !target.cells.is_empty()), "{}", server.name);
        }
    }

    #[test]
    fn every_description_is_read_and_assembles_but_for_its_trace() {
        let servers = all().unwrap();
        assert_eq!(servers.len(), SERVERS.len());
        for server in servers {
            assert!(server.scenario.workload.is_some(), "{}", server.name);
            assert!(server.cells(Path::new("no such folder")).unwrap().is_empty());
        }
    }
}
