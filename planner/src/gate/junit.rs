//! The gate's answer as JUnit XML, which CI systems show as tests: one for each figure.

use std::io::Write as _;
use std::path::Path;

use crate::error::InputError;
use crate::output::OutputFile;

use super::judge::{Gate, Judged, Outcome};

impl Gate {
    /// Writes the answer as JUnit XML to `path`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_junit(&self, path: &Path) -> Result<(), InputError> {
        let mut file = OutputFile::create(path)?;
        let wrong =
            |e: std::io::Error| InputError::new(format!("{}: cannot be written: {e}", path.display()));
        file.write_all(self.to_junit().as_bytes()).map_err(wrong)?;
        file.finish()
    }

    /// The answer as JUnit XML.
    #[must_use]
    pub fn to_junit(&self) -> String {
        let failures = self.figures.iter().filter(|figure| figure.outcome != Outcome::NotWorse).count();
        let cases: String = self.figures.iter().map(case).collect();
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"forerun gate\" \
             tests=\"{}\" failures=\"{failures}\">\n{cases}  </testsuite>\n</testsuites>\n",
            self.figures.len()
        )
    }
}

fn case(judged: &Judged) -> String {
    let name = escaped(&judged.key);
    let message = match judged.outcome {
        Outcome::NotWorse => return format!("    <testcase classname=\"forerun.gate\" name=\"{name}\"/>\n"),
        Outcome::Worse => "worse than tolerated",
        Outcome::Undecided => "not shown to be no worse",
    };
    let figure =
        |value: Option<f64>| value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:.6}"));
    let text = format!(
        "{message}: {} was {}, is {}; tolerated {:.6}",
        judged.label,
        figure(judged.baseline),
        figure(judged.now),
        judged.margin
    );
    format!(
        "    <testcase classname=\"forerun.gate\" name=\"{name}\">\n      <failure message=\"{}\"/>\n    </testcase>\n",
        escaped(&text)
    )
}

/// Text as an attribute's value.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
