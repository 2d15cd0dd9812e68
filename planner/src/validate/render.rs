//! The report: one table for each load of each server, in Markdown.

use std::fmt::Write as _;
use std::path::Path;

use super::measured::Figures;
use super::{Compared, StepTimes, Validated, Verdict};
use crate::error::InputError;
use crate::markers;

/// Writes `servers.md` and the charts into a folder.
pub(super) fn write(all: &[Validated], folder: &Path) -> Result<(), InputError> {
    charts(all, folder)?;
    markers::write(&folder.join("servers.md"), &format!("# Measured servers\n\n{}", markdown(all, "")))
}

/// Puts the report between the markers of `document`, and the charts into the folder that has its name.
pub(super) fn update(all: &[Validated], document: &Path) -> Result<(), InputError> {
    let folder = document.with_extension("");
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    markers::replace(document, "forerun validate", &markdown(all, &format!("{name}/")))?;
    charts(all, &folder)
}

fn charts(all: &[Validated], folder: &Path) -> Result<(), InputError> {
    std::fs::create_dir_all(folder)
        .map_err(|e| InputError::new(format!("{}: cannot be made: {e}", folder.display())))?;
    for validated in all {
        for cell in &validated.cells {
            if let Some(chart) = &cell.chart {
                markers::write(&folder.join(chart_name(validated, cell)), chart)?;
            }
        }
    }
    Ok(())
}

fn chart_name(validated: &Validated, cell: &Compared) -> String {
    format!("{}-{}.svg", validated.server.name, cell.cell)
}

/// All servers; links to charts begin with `charts_at`.
pub(super) fn markdown(all: &[Validated], charts_at: &str) -> String {
    let mut text = String::from(
        "Nothing is calibrated to these servers: the errors are those of the figures as they come. Each cell of a \
         table is the simulated figure and its error. Times are milliseconds, anchored at the client's sending; \
         percentiles are interpolated linearly.\n",
    );
    targets(&mut text, all);
    for validated in all {
        server(&mut text, validated, charts_at);
    }
    text
}

/// Every target with what came of it.
fn targets(text: &mut String, all: &[Validated]) {
    let verdicts: Vec<(&Validated, Verdict<'_>)> = all
        .iter()
        .flat_map(|validated| validated.verdicts().into_iter().map(move |verdict| (validated, verdict)))
        .collect();
    if verdicts.is_empty() {
        return;
    }
    let held = verdicts.iter().filter(|(_, verdict)| verdict.holds()).count();
    let _ = write!(
        text,
        "\n### Targets: {held} of {} met\n| server | load | step times | figure | target | error | |\n\
         |---|---|---|---|---|---|---|\n",
        verdicts.len()
    );
    for (validated, verdict) in verdicts {
        let Verdict { cell, target, error } = &verdict;
        let _ = writeln!(
            text,
            "| {} | {cell} | {} | {} | {} % | {:+.1} % | {} |",
            validated.server.title,
            target.step_times.title(),
            target.figure,
            target.within_percent,
            error * 100.0,
            if verdict.holds() { "met" } else { "**missed**" }
        );
    }
}

fn server(text: &mut String, validated: &Validated, charts_at: &str) {
    let server = &validated.server;
    // A write to a string cannot fail.
    let _ = write!(text, "\n### {}\n{}\n", server.title, server.engine.trim());
    if let Some(remarks) = &server.remarks {
        let _ = write!(text, "\n{}\n", remarks.trim());
    }
    for note in &validated.notes {
        let _ = write!(text, "\nTables: {note}.\n");
    }
    if let Some(peer) = &server.peer {
        let _ = write!(text, "\nPeer: {}.\n", peer.name);
    }
    if let Some(why) = &validated.skipped {
        let _ = write!(text, "\nNot simulated: {why}.\n");
    }
    for cell in &validated.cells {
        table(text, validated, cell);
        if cell.chart.is_some() {
            let name = chart_name(validated, cell);
            let _ = write!(text, "\n![distributions, measured and simulated]({charts_at}{name})\n");
        }
    }
}

fn table(text: &mut String, validated: &Validated, cell: &Compared) {
    let server = &validated.server;
    let _ = write!(
        text,
        "\n#### {}\n```text\nforerun validate ../shared/groundtruth --silicon ../shared/silicon --only {}/{}\n```\n\n",
        cell.cell, server.name, cell.cell
    );
    let peer = server.peer.as_ref().filter(|peer| peer.cells.contains(&cell.cell));
    let titles: Vec<&str> =
        cell.simulated.iter().map(|(times, _): &(StepTimes, Figures)| times.title()).collect();
    let mut columns = vec!["figure", "measured"];
    columns.extend(titles);
    columns.extend(peer.map(|_| "peer"));
    let _ = writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
    for (name, measured) in cell.measured.entries() {
        let Some(measured) = measured else { continue };
        let mut row = vec![name.clone(), number(measured)];
        row.extend(cell.simulated.iter().map(|(_, figures)| against(figures.get(&name), measured)));
        row.extend(peer.map(|peer| {
            peer.errors_percent.get(&name).map_or_else(String::new, |error| format!("{error:+.1} %"))
        }));
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

fn against(simulated: Option<f64>, measured: f64) -> String {
    simulated.map_or_else(String::new, |simulated| {
        format!("{} ({:+.1} %)", number(simulated), (simulated / measured - 1.0) * 100.0)
    })
}

/// Three to four significant digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
