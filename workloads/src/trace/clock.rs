//! Times as files write them: numbers of some unit, or dates.

use forerun_sim::time::{SPAN_MAX, Span, Time};

use super::cell::shown;

/// A unit of time in a file, as its power of ten of nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit(u32);

/// Which clock a file's arrivals are on. A file keeps to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Numbers: time since some start.
    Counter,
    /// Dates: since 1970.
    Calendar,
}

impl Unit {
    pub(super) const SECONDS: Self = Self(9);
    pub(super) const MILLIS: Self = Self(6);
    /// The names of all units.
    pub(super) const NAMES: &str = "s, ms, us, ns";

    /// The unit called `name`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "s" => Some(Self(9)),
            "ms" => Some(Self(6)),
            "us" => Some(Self(3)),
            "ns" => Some(Self(0)),
            _ => None,
        }
    }
}

/// Reads a number of `unit`s. Plain decimals are exact to the nanosecond, whatever their size: a floating
/// point number has only 0.2 us left for times since 1970.
pub(super) fn duration(text: &str, unit: Unit) -> Result<Span, String> {
    if let Some(nanos) = decimal(text, unit) {
        return bounded(nanos, text);
    }
    let number: f64 = text.parse().map_err(|_| format!("is {}; a number is needed", shown(text)))?;
    if !number.is_finite() {
        return Err(format!("is {}; a finite number is needed", shown(text)));
    }
    if number < 0.0 {
        return Err(format!("is {}; times are not negative", shown(text)));
    }
    let nanos = (number * 10f64.powi(unit.0.cast_signed())).round();
    // The cast saturates, and what saturates is out of bounds anyway.
    bounded(nanos as u64, text)
}

fn bounded(nanos: u64, text: &str) -> Result<Span, String> {
    let span = Span::from_nanos(nanos);
    if span > SPAN_MAX {
        return Err(format!(
            "is {}: more than 146 years; is the unit right? `units:` names another (one of {})",
            shown(text),
            Unit::NAMES
        ));
    }
    Ok(span)
}

/// The nanoseconds of a plain decimal, rounded to the nearest; `None` when `text` is anything else.
/// A number too large for `u64` saturates.
fn decimal(text: &str, unit: Unit) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let push = |nanos: u64, digit: u8| nanos.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    let fraction = fraction.as_bytes();
    let kept = (0..unit.0 as usize).map(|place| fraction.get(place).copied().unwrap_or(b'0'));
    let nanos = whole.bytes().chain(kept).fold(0, push);
    let round_up = fraction.get(unit.0 as usize).is_some_and(|&digit| digit >= b'5');
    Some(nanos.saturating_add(u64::from(round_up)))
}

/// Whether `text` starts like a date: `2024-...`.
pub(super) fn is_date(text: &str) -> bool {
    text.as_bytes().get(4) == Some(&b'-') && text.as_bytes()[0].is_ascii_digit()
}

/// Reads an RFC 3339 time, or one without a zone, which is taken as UTC.
pub(super) fn date(text: &str) -> Result<Time, String> {
    let wrong = |_| {
        let found = shown(text);
        format!("is {found}; a date such as 2024-05-10T00:00:00.25Z is needed")
    };
    let stamp: jiff::Timestamp = match text.parse() {
        Ok(stamp) => stamp,
        Err(_) => {
            let clock: jiff::civil::DateTime = text.parse().map_err(wrong)?;
            let utc = jiff::tz::TimeZone::UTC.to_timestamp(clock);
            utc.map_err(wrong)?
        }
    };
    let nanos = u64::try_from(stamp.as_nanosecond()).ok();
    let time = nanos.map(Time::from_nanos);
    time.filter(|&time| time <= Time::ZERO + SPAN_MAX)
        .ok_or_else(|| format!("is {}; dates run from 1970 to 2116", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str, unit: &str) -> u64 {
        let unit = Unit::named(unit).unwrap();
        duration(text, unit).unwrap().as_nanos()
    }

    #[test]
    fn decimals_are_exact_at_any_size() {
        assert_eq!(nanos("1700000000.123456789", "s"), 1_700_000_000_123_456_789);
        assert_eq!(nanos("1700000000123456.7894", "us"), 1_700_000_000_123_456_789);
        assert_eq!(nanos("0.0000000005", "s"), 1, "rounded to the nearest");
        assert_eq!(nanos("1.5e-3", "s"), 1_500_000);
        assert_eq!(nanos("7", "ns"), 7);
    }

    #[test]
    fn impossible_times_are_refused() {
        for text in ["-1", "-0.5", "nan", "inf", "1e400", "abc", "", ".", "1.2.3", "99999999999999999999"] {
            assert!(duration(text, Unit::SECONDS).is_err(), "{text}");
        }
        let error = duration("1700000000000", Unit::SECONDS).unwrap_err();
        assert!(error.contains("units:"), "{error}");
    }

    #[test]
    fn dates_with_and_without_a_zone_are_read_to_the_nanosecond() {
        let zulu = date("2024-05-10T00:00:00.0099305Z").unwrap();
        assert_eq!(zulu, date("2024-05-10 02:00:00.0099305+02:00").unwrap());
        assert_eq!(zulu, date("2024-05-10 00:00:00.0099305").unwrap());
        assert_eq!(zulu.as_nanos() % 1_000_000_000, 9_930_500);
        for text in ["1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "2024-13-01", "2024-"] {
            assert!(date(text).is_err(), "{text}");
        }
    }
}
