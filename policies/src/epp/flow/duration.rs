//! Durations as Go writes them: "200ms", "1m30s".

use forerun_sim::time::{SPAN_MAX, Span};
use serde::{Deserialize, Deserializer};

/// A span of whole milliseconds.
pub(super) const fn millis(millis: u64) -> Span {
    Span::from_millis(millis)
}

/// The duration that Go's `time.ParseDuration` reads from `text`; `None` for what it does not read, for negative
/// ones, and beyond 146 years.
#[must_use]
pub fn parse_go_duration(text: &str) -> Option<Span> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
    if text == "0" {
        return Some(Span::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..unit_end])?;
        nanos += value * unit;
        rest = &rest[unit_end..];
    }
    (!text.is_empty() && nanos <= SPAN_MAX.as_nanos() as f64).then(|| Span::from_nanos(nanos as u64))
}

/// Reads a Go duration from a configuration.
pub(super) fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_go_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("invalid duration \"{text}\": write it like \"1m30s\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_does() {
        assert_eq!(parse_go_duration("200ms"), Some(millis(200)));
        assert_eq!(parse_go_duration("1m30.5s"), Some(millis(90_500)));
        assert_eq!(parse_go_duration("0"), Some(Span::ZERO));
        for wrong in ["", "1", "s", "1x", "-1s", "1.2.3s", "99999999999h", "1é"] {
            assert_eq!(parse_go_duration(wrong), None, "{wrong}");
        }
    }
}
