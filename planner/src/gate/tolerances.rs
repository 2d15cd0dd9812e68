//! How much worse each figure may be before the gate closes.

use std::collections::BTreeMap;
use std::path::Path;

use forerun_reports::figures::{Better, FIGURES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{InputError, hint};
use crate::scenario::read::read_text;
use crate::scenario::wording::yaml_error;

/// Probability of closing the gate for a change that makes nothing worse, and of opening it for one that does.
const SIGNIFICANCE: f64 = 0.05;

/// What is tolerated of one figure: the larger of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// As a share of the baseline's mean.
    #[serde(default)]
    pub relative: f64,
    /// In the figure's own unit.
    #[serde(default)]
    pub absolute: f64,
}

/// The figures that are judged, and how strictly.
#[derive(Clone, Debug, PartialEq)]
pub struct Tolerances {
    /// Of each figure by its key.
    pub by_figure: BTreeMap<String, Tolerance>,
    /// Significance of each decision.
    pub significance: f64,
}

/// The file: a share, both kinds, or `off`, for each figure that differs from the defaults.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a tolerance is a share such as 0.05, {relative: 0.05, absolute: 10}, or off")]
enum Entry {
    Share(f64),
    Both(Tolerance),
    /// YAML's `off` is false.
    Judged(bool),
}

impl Default for Tolerances {
    fn default() -> Self {
        let relative = |relative| Tolerance { relative, absolute: 0.0 };
        let absolute = |absolute| Tolerance { relative: 0.0, absolute };
        // Tails vary more than means; a millisecond is nothing to a client.
        let latency = |share| Tolerance { relative: share, absolute: 1.0 };
        let defaults = [
            ("ttft_mean_ms", latency(0.05)),
            ("ttft_p95_ms", latency(0.05)),
            ("ttft_p99_ms", latency(0.10)),
            ("tpot_mean_ms", relative(0.05)),
            ("tpot_p95_ms", relative(0.05)),
            ("itl_p99_ms", latency(0.10)),
            ("e2e_mean_ms", relative(0.05)),
            ("e2e_p95_ms", relative(0.05)),
            ("goodput_requests_per_s", relative(0.02)),
            ("attainment", absolute(0.01)),
            ("output_tokens_per_s", relative(0.02)),
            ("hit_rate", absolute(0.02)),
            ("usd_per_million_output_tokens", relative(0.02)),
        ];
        let by_figure = defaults.into_iter().map(|(key, tolerance)| (key.to_owned(), tolerance)).collect();
        Self { by_figure, significance: SIGNIFICANCE }
    }
}

impl Tolerances {
    /// The defaults, changed by the YAML file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, names an unknown figure, or has an impossible tolerance.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        Self::parse(&read_text(path, "file of tolerances")?).map_err(|e| e.at(&path.display().to_string()))
    }

    /// The same from text.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self, InputError> {
        let entries: BTreeMap<String, Entry> =
            serde_saphyr::from_str(text).map_err(|e| yaml_error(&e, text))?;
        let mut tolerances = Self::default();
        for (key, entry) in entries {
            tolerances.set(&key, &entry)?;
        }
        if tolerances.by_figure.is_empty() {
            return Err(InputError::new("every figure is off: nothing would be judged"));
        }
        Ok(tolerances)
    }

    fn set(&mut self, key: &str, entry: &Entry) -> Result<(), InputError> {
        let judged =
            || FIGURES.iter().filter(|figure| figure.better != Better::Neither).map(|figure| figure.key);
        let wrong = |why: &str| InputError::new(format!("`{key}`: {why}"));
        if key == "significance" {
            let &Entry::Share(share) = entry else { return Err(wrong("it is a probability such as 0.05")) };
            if !(share > 0.0 && share <= 0.2) {
                return Err(wrong(&format!("{share} is not above 0 and at most 0.2")));
            }
            self.significance = share;
            return Ok(());
        }
        if !judged().any(|known| known == key) {
            let known = judged().collect::<Vec<_>>().join(", ");
            return Err(wrong(&format!(
                "is not a figure{}; known: {known}, significance",
                hint(key, judged())
            )));
        }
        let tolerance = match *entry {
            Entry::Share(relative) => Tolerance { relative, absolute: 0.0 },
            Entry::Both(tolerance) => tolerance,
            Entry::Judged(false) => {
                self.by_figure.remove(key);
                return Ok(());
            }
            Entry::Judged(true) => return Err(wrong("`on` says nothing: leave it out for the default")),
        };
        let possible = |value: f64| value.is_finite() && value >= 0.0;
        if !possible(tolerance.relative) || !possible(tolerance.absolute) {
            return Err(wrong("a tolerance is a number from 0 up"));
        }
        self.by_figure.insert(key.to_owned(), tolerance);
        Ok(())
    }
}

impl Tolerance {
    /// In the unit of a figure whose baseline is `mean` on average.
    #[must_use]
    pub fn margin(&self, mean: f64) -> f64 {
        (self.relative * mean.abs()).max(self.absolute)
    }
}
