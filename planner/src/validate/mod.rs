//! The simulator against measured servers: every server of a folder, every metric and percentile, for the catalog's
//! closed forms and for tables measured on the same GPU.
//!
//! A server is described by a file in `planner/servers/`: where its measurements lie and in which layout, its
//! vLLM version, the scenario that it ran, what others' simulators achieved on it, and how near ours should come.

pub(crate) mod chart;
pub(crate) mod measured;
mod render;
mod server;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::assemble::assemble;
use crate::calibrate::{self, ImportOptions};
use crate::error::{Error, InputError};
use crate::scenario::read::Loaded;
use crate::served::replay;
use measured::{Figures, Samples, Times};
use server::{Cell, Server};

pub use server::{StepTimes, Target};

/// What is validated, and against which tables.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Folder with one folder for each measured server.
    pub folder: &'a Path,
    /// Folder with kernel tables, which servers name; without it only closed forms are validated.
    pub silicon: Option<&'a Path>,
    /// Only this server, or `server/load`.
    pub only: Option<&'a str>,
}

/// One load that a server was put under, measured and simulated.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Its name.
    pub cell: String,
    /// What was measured.
    pub measured: Figures,
    /// What was simulated, by kind of step times.
    pub simulated: Vec<(StepTimes, Figures)>,
    /// Chart of the distributions, where requests were measured one by one: an SVG.
    pub chart: Option<String>,
}

/// A server and its loads.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The server's description.
    pub server: Server,
    /// Its loads; none when its folder is absent.
    pub cells: Vec<Compared>,
    /// What of the tables was not used, and why.
    pub notes: Vec<String>,
    /// Why it, or the rest of it, was not simulated.
    pub skipped: Option<String>,
}

/// How near one figure came to its target.
#[derive(Clone, Debug)]
pub struct Verdict<'a> {
    /// The load.
    pub cell: &'a str,
    /// What was aimed at.
    pub target: &'a Target,
    /// Simulated over measured, minus one.
    pub error: f64,
}

impl Verdict<'_> {
    /// Whether the target is met.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.error.abs() * 100.0 <= self.target.within_percent
    }

    /// Whether the error is no larger than the target or, where that is known to be missed, than was accepted.
    #[must_use]
    pub fn accepted(&self) -> bool {
        self.error.abs() * 100.0 <= self.target.accepted_percent.unwrap_or(self.target.within_percent)
    }
}

impl Validated {
    /// Every target that could be judged.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict<'_>> {
        let mut verdicts = Vec::new();
        for target in &self.server.targets {
            for cell in self.cells.iter().filter(|cell| target.cells.contains(&cell.cell)) {
                let simulated = cell.simulated.iter().find(|(times, _)| *times == target.step_times);
                let simulated = simulated.and_then(|(_, figures)| figures.get(&target.figure));
                if let (Some(simulated), Some(measured)) = (simulated, cell.measured.get(&target.figure)) {
                    verdicts.push(Verdict { cell: &cell.cell, target, error: simulated / measured - 1.0 });
                }
            }
        }
        verdicts
    }
}

/// Validates every known server that the folder has.
///
/// # Errors
/// When the folder, a measurement or a table is wrong.
pub fn validate(options: &Options<'_>) -> Result<Vec<Validated>, Error> {
    if !options.folder.is_dir() {
        let why = format!("{}: is not a folder of measured servers", options.folder.display());
        return Err(InputError::new(why).into());
    }
    let (only, only_cell) = match options.only.map(|only| only.split_once('/').unwrap_or((only, ""))) {
        Some((server, cell)) => (Some(server), cell),
        None => (None, ""),
    };
    let servers = server::all()?;
    let known: Vec<String> = servers.iter().map(|server| server.name.clone()).collect();
    let mut all = Vec::new();
    for server in servers.into_iter().filter(|server| only.is_none_or(|only| only == server.name)) {
        all.push(one(server, options, only_cell)?);
    }
    if all.iter().all(|validated| validated.cells.is_empty()) {
        let reasons: Vec<_> = all
            .iter()
            .filter_map(|validated| {
                Some(format!("{}: {}", validated.server.name, validated.skipped.as_ref()?))
            })
            .collect();
        let why = match reasons.is_empty() {
            true => format!("no such server or load; known are {}", known.join(", ")),
            false => reasons.join("; "),
        };
        return Err(InputError::new(format!("{}: {why}", options.folder.display())).into());
    }
    Ok(all)
}

fn one(server: Server, options: &Options<'_>, only_cell: &str) -> Result<Validated, Error> {
    let scratch = tempfile::tempdir().map_err(|e| InputError::new(format!("temporary files: {e}")))?;
    let (profiles, notes) = profiles(&server, options.silicon, scratch.path())?;
    let mut cells = server.cells(options.folder)?;
    let absent = cells.is_empty();
    cells.retain(|cell| only_cell.is_empty() || cell.name == only_cell);
    let mut validated = Validated { server, cells: Vec::new(), notes, skipped: None };
    if absent {
        validated.skipped = Some("its measurements are not in the folder".into());
    }
    for cell in cells {
        match compare(&validated.server, &cell, &profiles) {
            Ok(compared) => validated.cells.push(compared),
            // A model or GPU that the catalog does not have yet.
            Err(Error::Input(why)) => validated.skipped = Some(why.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(validated)
}

/// Writes the report (`servers.md`) and its charts into a folder.
///
/// # Errors
/// When they cannot be written.
pub fn write(all: &[Validated], folder: &Path) -> Result<(), Error> {
    Ok(render::write(all, folder)?)
}

/// Puts the report between the markers of a document, and its charts into a folder beside it that has its name.
///
/// # Errors
/// When the document has no markers, or cannot be written.
pub fn update(all: &[Validated], document: &Path) -> Result<(), Error> {
    Ok(render::update(all, document)?)
}

/// The report as Markdown.
#[must_use]
pub fn report(all: &[Validated]) -> String {
    render::markdown(all, "")
}

/// The step times under which a server is simulated, with their profiles, and what of the tables is not used.
type Profiles = Vec<(StepTimes, Option<PathBuf>)>;

fn profiles(
    server: &Server,
    silicon: Option<&Path>,
    scratch: &Path,
) -> Result<(Profiles, Vec<String>), InputError> {
    let mut profiles = vec![(StepTimes::ClosedForms, None)];
    let folder = server.tables.as_ref().zip(silicon).map(|(tables, silicon)| silicon.join(tables));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else { return Ok((profiles, Vec::new())) };
    let path = scratch.join("profile.json");
    let profile = calibrate::import(&folder, &path, &server.import_options(&folder))?;
    profiles.push((StepTimes::Tables, Some(path)));
    if profile.attention.skew.is_none() {
        let path = scratch.join("with_skew.json");
        let skewed = calibrate::import(
            &folder,
            &path,
            &ImportOptions { foreign_skew: true, ..ImportOptions::default() },
        )?;
        if skewed.attention.skew.is_some() {
            profiles.push((StepTimes::TablesWithSkew, Some(path)));
        }
    }
    Ok((profiles, profile.notes))
}

fn compare(server: &Server, cell: &Cell, profiles: &Profiles) -> Result<Compared, Error> {
    let light = server.light_load;
    let measured = Samples::new(&cell.measured, light);
    let mut simulated = Vec::new();
    for (times, profile) in profiles {
        simulated.push((*times, Samples::new(&simulate(server, cell, profile.as_deref())?, light)));
    }
    let chart = match cell.measured.is_empty() {
        true => None,
        false => {
            let mut distributions = vec![("measured", &measured)];
            distributions.extend(simulated.iter().map(|(times, samples)| (times.title(), samples)));
            Some(chart::cdfs(&format!("{}, {}", server.title, cell.name), &distributions)?)
        }
    };
    Ok(Compared {
        cell: cell.name.clone(),
        measured: cell.figures.clone().unwrap_or_else(|| measured.figures()),
        simulated: simulated.iter().map(|(times, samples)| (*times, samples.figures())).collect(),
        chart,
    })
}

/// The requests of a cell, simulated with closed forms or with a profile, in order of arrival.
fn simulate(server: &Server, cell: &Cell, profile: Option<&Path>) -> Result<Vec<Times>, Error> {
    let mut scenario = cell.scenario.clone();
    scenario.profile = profile.map(PathBuf::from);
    let loaded = Loaded { scenario, base: PathBuf::new(), name: server.name.clone() };
    let simulated = replay::simulate(&assemble(&loaded)?, &mut |_| ControlFlow::Continue(()))?;
    Ok(simulated.requests.into_iter().map(|(_, times)| times).collect())
}
