//! The findings of one file, for people and for machines.

use forerun_reports::document::{self, Block, Document};
use serde::Serialize;

use super::{Finding, Level};
use crate::words::plural;

/// What was found in one configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// Findings of level error.
    pub errors: usize,
    /// Findings of level warning.
    pub warnings: usize,
    /// All findings, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(file: String, findings: Vec<Finding>) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self { file, errors: count(Level::Error), warnings: count(Level::Warning), findings }
    }

    /// Whether something cannot work as it is written.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The report as a document.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let subtitle = match self.findings.len() {
            0 => "no known hazard".to_owned(),
            count => {
                let [all, errors, warnings] =
                    [(count, "finding"), (self.errors, "error"), (self.warnings, "warning")]
                        .map(|(count, word)| plural(count as u32, word));
                format!("{all}: {errors}, {warnings}")
            }
        };
        let blocks = self.findings.iter().flat_map(blocks).collect();
        Document { title: self.file.clone(), subtitle, blocks }
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// Never in practice: it has only strings and numbers.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

fn blocks(finding: &Finding) -> [Block; 3] {
    let word = match finding.level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Note => "note",
    };
    let plugin = finding.plugin.as_ref().map_or_else(String::new, |plugin| format!(": {plugin}"));
    let line = finding.line.map_or_else(String::new, |line| format!(", line {line}"));
    let level = if finding.level == Level::Note { document::Level::Info } else { document::Level::Warning };
    [
        Block::Heading(format!("{word} [{}]{plugin}{line}", finding.rule)),
        Block::Note { level, text: finding.what.clone() },
        Block::Text(format!("Mend: {}", finding.mend)),
    ]
}
