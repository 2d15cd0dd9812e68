//! Simulated time: integer nanoseconds, so that sums never drift and ties are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The longest simulated time that is accepted as input: about 146 years. Half of the range of `u64`
/// nanoseconds, so that an arrival plus a service time can never overflow.
pub const SPAN_MAX: Span = Span(u64::MAX / 4);

/// A point in simulated time, in nanoseconds since the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// A length of simulated time, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Time {
    /// The start of the run.
    pub const ZERO: Self = Self(0);
    /// Later than everything: "never".
    pub const NEVER: Self = Self(u64::MAX);

    /// The time `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds since the start, for display.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        Span(self.0).as_secs_f64()
    }

    /// The span since `earlier`.
    ///
    /// # Panics
    /// When `earlier` is later than `self`: something would have happened before its cause.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.checked_sub(earlier.0).expect("time runs forwards"))
    }

    /// The span since `earlier`, or zero when `earlier` is not in the past.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// A span of `nanos` nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// A span of `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// A span of `seconds` seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * NANOS_PER_SECOND)
    }

    /// A span of `seconds`, rounded to the nearest nanosecond: the one rounding rule of the simulator.
    /// `None` when negative, not a number, or longer than [`SPAN_MAX`].
    #[must_use]
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        let nanos = (seconds * NANOS_PER_SECOND as f64).round();
        (nanos >= 0.0 && nanos <= SPAN_MAX.0 as f64).then_some(Self(nanos as u64))
    }

    /// Nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Seconds, for display and for rates.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_SECOND as f64
    }

    /// Milliseconds, for display.
    #[must_use]
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This span `count` times over, or the longest span.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// The part of this span that exceeds `other`, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add<Span> for Time {
    type Output = Self;
    fn add(self, span: Span) -> Self {
        Self(self.0.checked_add(span.0).expect("simulated time stays within u64 nanoseconds"))
    }
}

impl Add for Span {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).expect("a span stays within u64 nanoseconds"))
    }
}

impl AddAssign for Span {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Span {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("a span is never negative"))
    }
}

impl SubAssign for Span {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Span {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 1_000_000 => write!(f, "{} us", n as f64 / 1e3),
            n if n < NANOS_PER_SECOND => write!(f, "{:.1} ms", self.as_millis_f64()),
            _ => write!(f, "{:.2} s", self.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_to_the_nearest_nanosecond() {
        assert_eq!(Span::from_secs_f64(1.000_000_000_6).unwrap().as_nanos(), 1_000_000_001);
    }

    #[test]
    fn impossible_spans_are_refused() {
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e30] {
            assert_eq!(Span::from_secs_f64(seconds), None, "{seconds}");
        }
    }

    #[test]
    #[should_panic(expected = "time runs forwards")]
    fn an_effect_before_its_cause_is_a_bug() {
        let _ = Time::ZERO.since(Time::from_nanos(1));
    }
}
