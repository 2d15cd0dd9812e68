//! Independent values and their mean.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::t_quantile;

/// Independent, identically distributed values, summed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many values.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with `count - 1` in the denominator; 0 for a single value.
    pub deviation: f64,
}

/// A range in which a quantity is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Sample {
    /// Sums `values` up; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let deviation = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        Some(Self { count, mean, deviation })
    }

    /// Standard error of the mean.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        self.deviation / (self.count as f64).sqrt()
    }

    /// Interval that covers the true mean with this confidence (0 to 1), by Student's t. `None` for fewer than
    /// two values.
    #[must_use]
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        (self.count > 1).then(|| {
            let freedom = (self.count - 1) as f64;
            Interval::around(self.mean, t_quantile(freedom, 0.5 + confidence / 2.0) * self.standard_error())
        })
    }
}

impl Interval {
    /// From `half_width` below to `half_width` above `middle`.
    pub(super) fn around(middle: f64, half_width: f64) -> Self {
        Self { low: middle - half_width, high: middle + half_width }
    }

    /// Whether the interval holds `value`.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}
