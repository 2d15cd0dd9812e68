//! How far real step times may be from simulated ones.

/// Real over simulated step times: median, and standard deviation of its logarithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepTimes {
    /// Median.
    pub median: f64,
    /// Standard deviation of its logarithm.
    pub deviation: f64,
    /// Where these two come from.
    pub source: &'static str,
}

impl StepTimes {
    /// What is known of the error of step times, by grade (docs/validation.md, docs/cost-model.md).
    pub(crate) fn of(grade: &str, gpu: &str) -> Self {
        match (grade, gpu) {
            ("fitted", "h100-sxm") => Self {
                median: 1.05,
                deviation: 0.05,
                source: "a measured server (Qwen3-14B, H100): means +2 to +6 % over simulated ones, saturation 10 % earlier",
            },
            ("tables", _) => Self {
                median: 1.05,
                deviation: 0.05,
                source: "kernels measured on this GPU; the server around them taken to be as far off as on an H100",
            },
            ("fitted", _) => Self {
                median: 1.05,
                deviation: 0.10,
                source: "assumed: no server with this GPU was compared; twice the spread of an H100's",
            },
            _ => Self {
                median: 1.10,
                deviation: 0.20,
                source: "assumed: step times are from the datasheet, and nothing was measured on this GPU",
            },
        }
    }

    /// What real step times exceed with a probability of 10 %, as a multiple of the simulated ones.
    pub(crate) fn quantile_90(&self) -> f64 {
        /// Of the standard normal distribution.
        const NORMAL_90: f64 = 1.281_552;
        self.median * libm::exp(NORMAL_90 * self.deviation)
    }

    /// Probability that real step times are at most `factor` times the simulated ones.
    pub(crate) fn at_most(&self, factor: f64) -> f64 {
        match factor {
            factor if factor > 0.0 => below((libm::log(factor) - libm::log(self.median)) / self.deviation),
            _ => 0.0,
        }
    }
}

/// Probability that a standard normal variable is at most `z`.
fn below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_as_in_tables() {
        for (z, p) in [(0.0, 0.5), (1.0, 0.841_34), (-1.96, 0.025)] {
            assert!((below(z) - p).abs() < 1e-4);
        }
    }
}
