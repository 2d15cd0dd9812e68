//! What `forerun calibrate serve` shows of a fit.

use std::path::Path;

use forerun_reports::document::{Block, Cell, Column, Document, Level, Table};
use serde_json::{Value, json};

use super::constants::Constant;
use super::fit::{RunErrors, ServedFit};
use super::trust::FIGURES;
use crate::error::Error;
use crate::markers;

impl ServedFit {
    /// Writes the profile.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        Ok(markers::write(path, &self.profile.to_json())?)
    }

    /// For people.
    #[must_use]
    pub fn document(&self) -> Document {
        let profile = &self.profile;
        let split = match profile.tensor_parallel {
            1 => String::new(),
            gpus => format!(" TP {gpus}"),
        };
        let mut blocks = vec![Block::Table(self.constants())];
        if !profile.refused.is_empty() {
            blocks.push(Block::Heading("Not told by these runs: the catalog's hold".into()));
        }
        let refused = profile.refused.iter();
        blocks.extend(refused.map(|(constant, why)| Block::Text(format!("{}: {why}", constant.title()))));
        let tables = [
            ("Error before the fit", (|run| &run.before) as fn(&RunErrors) -> &Vec<Option<f64>>),
            ("Error of the fit", |run| &run.fitted),
            ("Error held out", |run| &run.held_out),
        ];
        blocks.extend(tables.map(|(title, errors)| Block::Table(self.errors(title, errors))));
        let held_out = match self.runs.len() {
            1 => "each half of the run by the constants of the other; the larger error",
            _ => "each run by the constants of the others",
        };
        blocks.push(Block::Note { level: Level::Info, text: format!("held out: {held_out}") });
        Document {
            title: format!("{} on {}{split}, fitted to a live server", profile.model, profile.gpu),
            subtitle: self.about.join("; "),
            blocks,
        }
    }

    fn constants(&self) -> Table {
        let number = |value: f64| Cell::Number { value, digits: 3, unit: String::new() };
        let row = |(constant, fitted): (&Constant, &super::FittedConstant)| {
            let [low, high] = fitted.interval;
            vec![
                Cell::text(constant.title()),
                number(fitted.before),
                number(fitted.value),
                number(low),
                number(high),
            ]
        };
        let mut columns = vec![Column::text("")];
        columns.extend(["before", "fitted", "from (90 %)", "to"].map(Column::figures));
        Table { title: "Constants".into(), columns, rows: self.profile.constants.iter().map(row).collect() }
    }

    fn errors(&self, title: &str, errors: fn(&RunErrors) -> &Vec<Option<f64>>) -> Table {
        let row = |run: &RunErrors| {
            let cells = errors(run).iter().map(|error| error.map_or(Cell::Missing, Cell::Change));
            std::iter::once(Cell::text(run.name.as_str())).chain(cells).collect()
        };
        let mut columns = vec![Column::text("")];
        columns.extend(FIGURES.map(|(figure, _)| Column::figures(figure)));
        Table { title: title.into(), columns, rows: self.runs.iter().map(row).collect() }
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let named = |errors: &[Option<f64>]| -> Value {
            FIGURES.iter().zip(errors).map(|((_, key), error)| ((*key).to_owned(), json!(error))).collect()
        };
        let run = |run: &RunErrors| {
            json!({
                "name": run.name, "requests": run.requests, "error_before": named(&run.before),
                "error": named(&run.fitted), "error_held_out": named(&run.held_out),
            })
        };
        json!({
            "schema": "forerun/served-fit/v1", "about": self.about, "profile": self.profile,
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }
}
