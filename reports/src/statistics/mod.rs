//! Statistics of simulated runs: intervals, differences of two variants, and what several tests at once demand.
//!
//! | question | file |
//! |---|---|
//! | How far is the mean of independent runs from the truth? | `sample` |
//! | Do two variants differ, by how much, and would more runs tell? | `difference` |
//! | What can one long run say, whose requests depend on each other? | `windows` |
//! | What is shown when many figures are tested at once? | `holm` |
//!
//! Distribution functions come from `statrs`. Their values are rounded to ten significant digits, so that
//! differences between mathematical libraries in the last bits do not reach a report.

mod difference;
mod holm;
mod sample;
mod windows;

pub use difference::Difference;
pub use holm::holm;
pub use sample::{Interval, Sample};
pub use windows::{Batches, lag_1, percentile_values, pseudo_values};

use statrs::distribution::{ContinuousCDF as _, StudentsT};

/// Student's t distribution with so many degrees of freedom.
fn student(degrees_of_freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees_of_freedom.max(1.0)).expect("at least one degree of freedom")
}

/// The value that Student's t does not exceed with this probability.
fn t_quantile(degrees_of_freedom: f64, probability: f64) -> f64 {
    rounded(student(degrees_of_freedom).inverse_cdf(probability))
}

/// The probability that Student's t exceeds `t`.
fn t_upper_tail(degrees_of_freedom: f64, t: f64) -> f64 {
    match t {
        t if t == f64::INFINITY => 0.0,
        t if t == f64::NEG_INFINITY => 1.0,
        t => rounded(student(degrees_of_freedom).sf(t)),
    }
}

/// `value` to ten significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.9e}").parse().unwrap_or(value)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
