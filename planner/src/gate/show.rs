//! The gate's answer for people.

use forerun_reports::document::{Block, Cell, Column, Document, Level, Table};
use forerun_reports::figures::FIGURES;

use super::judge::{Gate, Judged, Outcome};

impl Gate {
    /// The answer as a document.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let columns = ["baseline", "now", "worse by", "at most", "tolerated"].map(Column::figures);
        let table = Table {
            title: "Figure".to_owned(),
            columns: std::iter::once(Column::text(""))
                .chain(columns)
                .chain([Column::text("verdict")])
                .collect(),
            rows: self.figures.iter().map(row).collect(),
        };
        let mut blocks = vec![Block::Text(self.headline()), Block::Table(table)];
        blocks.push(Block::Text(
            "\"Worse by\" is the mean over pairs of runs with the same seed, negative where it is better; \"at most\" the \
             upper end of its interval. A figure passes when that is within what is tolerated."
                .to_owned(),
        ));
        if let Some(version) = &self.recorded_by {
            let text = format!(
                "the baseline was recorded by Forerun {version}, this is {}: some differences may be Forerun's own",
                env!("CARGO_PKG_VERSION")
            );
            blocks.push(Block::Note { level: Level::Warning, text });
        }
        Document { title: "Gate".to_owned(), subtitle: self.about.join("; "), blocks }
    }

    /// The answer in a sentence.
    #[must_use]
    pub fn headline(&self) -> String {
        let names = |outcome: Outcome| {
            let labels: Vec<&str> =
                self.figures.iter().filter(|f| f.outcome == outcome).map(|f| f.label.as_str()).collect();
            labels.join(", ")
        };
        let pairs = match self.pairs {
            1 => "1 pair of runs".to_owned(),
            pairs => format!("{pairs} pairs of runs"),
        };
        match self.outcome {
            Outcome::NotWorse => format!("PASS: not worse, shown by {pairs}."),
            Outcome::Worse => {
                format!("FAIL: worse than tolerated, shown by {pairs}: {}.", names(Outcome::Worse))
            }
            Outcome::Undecided => format!(
                "FAIL: {pairs} do not show that nothing is worse: {} may be. Record a baseline with more replications, \
                 or longer runs, or tolerate more.",
                names(Outcome::Undecided)
            ),
        }
    }
}

fn row(judged: &Judged) -> Vec<Cell> {
    let figure = FIGURES.iter().find(|figure| figure.key == judged.key);
    let cell = |value: Option<f64>| figure.map_or(Cell::Missing, |figure| figure.cell(value));
    let (text, good) = match judged.outcome {
        Outcome::NotWorse => ("not worse", Some(true)),
        Outcome::Worse => ("worse", Some(false)),
        Outcome::Undecided => ("undecided", None),
    };
    vec![
        Cell::text(judged.label.as_str()),
        cell(judged.baseline),
        cell(judged.now),
        cell(judged.worse_by),
        cell(judged.interval.map(|interval| interval.high)),
        cell(Some(judged.margin)),
        Cell::Judged { text: text.to_owned(), good },
    ]
}
