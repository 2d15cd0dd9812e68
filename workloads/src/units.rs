//! Lengths of time as people write them: `30s`, `50ms`, `2h`, or a plain number of seconds.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use forerun_sim::time::{NANOS_PER_SECOND, Span};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::error::WorkloadError;

/// Units by their nanoseconds, longest first; of two names of one unit, the first is the one written.
const UNITS: [(&str, u64); 8] = [
    ("d", 86_400 * NANOS_PER_SECOND),
    ("h", 3_600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("min", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A length of time in a scenario: `30s`, `50ms`, `2h`, `1d`, or a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub Span);

impl Duration {
    /// Its length in simulated time.
    #[must_use]
    pub fn span(self) -> Span {
        self.0
    }

    /// A duration of so many seconds.
    ///
    /// # Errors
    /// When negative, not a number, or longer than simulated time.
    pub fn from_secs_f64(seconds: f64) -> Result<Self, WorkloadError> {
        let refused = || {
            let why = "must be at least 0 and less than about 146 years";
            WorkloadError::Spec(format!("a length of time of {seconds} s {why}"))
        };
        Span::from_secs_f64(seconds).map(Self).ok_or_else(refused)
    }
}

impl FromStr for Duration {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        let text = text.trim();
        let number = text.trim_end_matches(char::is_alphabetic);
        let unit = &text[number.len()..];
        let nanos = match unit {
            "" => Some(NANOS_PER_SECOND),
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|u| u.1),
        };
        match (number.trim_end().parse::<f64>(), nanos) {
            (Ok(value), Some(nanos)) => Self::from_secs_f64(value * (nanos as f64 / NANOS_PER_SECOND as f64)),
            _ => Err(WorkloadError::Spec(format!(
                "`{text}` is not a length of time: write for example 30s, 50ms, 2h"
            ))),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let whole = |unit: &&(&str, u64)| nanos >= unit.1 && nanos.is_multiple_of(unit.1);
        match UNITS.iter().find(whole) {
            Some((name, unit)) => write!(f, "{}{name}", nanos / unit),
            None => f.write_str("0s"),
        }
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length of time: for example 30s, 50ms, 2h, or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
        Duration::from_secs_f64(seconds).map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
        self.visit_f64(seconds as f64)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: 30s, 50ms, 2h, 1d, or a number of seconds.",
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9.eE+]+ *(d|h|m|min|s|ms|us|ns)?$"},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Duration {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn lengths_of_time_are_read_with_and_without_a_unit() {
        let same = [("90", "90s"), ("1.5 min", "90s"), ("0.5h", "30m"), ("1e3ms", "1s"), ("2d", "48h")];
        for (left, right) in same {
            assert_eq!(parsed(left), parsed(right), "{left} is {right}");
        }
        assert_eq!(parsed("50ms").span(), Span::from_millis(50));
        assert_eq!(parsed("7ns").span().as_nanos(), 7);
    }

    #[test]
    fn what_is_written_is_read_back_exactly() {
        for text in ["0s", "1d", "36h", "5m", "30s", "1500ms", "12us", "7ns"] {
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_examples() {
        let error = "5 parsecs".parse::<Duration>().unwrap_err().to_string();
        assert_eq!(error, "`5 parsecs` is not a length of time: write for example 30s, 50ms, 2h");
        for text in ["", "s", "nan", "inf", "1h30m", "-1s", "1e300d"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn yaml_and_json_accept_numbers_and_texts() {
        let yaml: Vec<Duration> = serde_saphyr::from_str("[2, 0.5, 30s]").unwrap();
        let json: Vec<Duration> = serde_json::from_str(r#"[2, 0.5, "30s"]"#).unwrap();
        assert_eq!(yaml, json);
        assert_eq!(yaml[1].span(), Span::from_millis(500));
        assert!(serde_saphyr::from_str::<Duration>("-3").is_err());
    }
}
