//! How far real step times may be from simulated ones.
//!
//! What is known are errors of figures against measured servers: of the very server, where the scenario names its
//! profile, or of the nearest kind ([`crate::served::trust`]). TPOT is the mean step that a request lives through, so
//! that its errors are those of step times; where only loads at capacity were measured, throughput is their inverse.

use std::collections::BTreeMap;

use forerun_reports::summary::{Compared, Uncertainty};
use forerun_sim::catalog::Grade;

/// Real over simulated step times, taken to be lognormal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StepTimes {
    /// Median.
    pub median: f64,
    /// Standard deviation of its logarithm.
    pub deviation: f64,
    /// Where these two come from.
    pub source: String,
}

/// Mean range of `n` independent standard normal values, from two on (d2 of control charts: ASTM MNL 7, table 2).
const RANGES: [f64; 14] =
    [1.128, 1.693, 2.059, 2.326, 2.534, 2.704, 2.847, 2.970, 3.078, 3.173, 3.258, 3.336, 3.407, 3.472];

/// Nothing is known better than this: two measurements of one server differ by about as much. An assumption.
const DEVIATION_MIN: f64 = 0.02;

/// Where a single load, or none, was measured. An assumption.
const DEVIATION_UNKNOWN: f64 = 0.10;

/// Servers with another GPU say how good the method is, not how good this GPU's constants are. An assumption.
const OTHER_GPUS: f64 = 2.0;

impl StepTimes {
    /// What is known of the error of a pool's step times.
    pub(crate) fn of(grade: &str, uncertainty: Option<&Uncertainty>) -> Self {
        if grade == Grade::Datasheet.to_string() {
            return Self {
                median: 1.10,
                deviation: 0.20,
                source: "assumed: step times are from the datasheet, and nothing was measured on this GPU"
                    .to_owned(),
            };
        }
        let factors = uncertainty.and_then(|known| Some((known, factors(&known.errors)?)));
        let Some((known, [low, high])) = factors else {
            return Self {
                median: 1.0,
                deviation: DEVIATION_UNKNOWN,
                source: "assumed: no measured server tells of these step times".to_owned(),
            };
        };
        let spread = match (known.loads as usize).checked_sub(2) {
            None => DEVIATION_UNKNOWN,
            Some(place) => libm::log(high / low) / RANGES[place.min(RANGES.len() - 1)],
        };
        let (widened, words) = match known.compared {
            Compared::OtherGpus => (OTHER_GPUS, "; twice the spread for this GPU"),
            Compared::ThisServer | Compared::SameKind | Compared::SameGpu => (1.0, ""),
        };
        Self {
            median: (low * high).sqrt(),
            deviation: spread.max(DEVIATION_MIN) * widened,
            source: format!("errors of {}{words}", known.basis),
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

/// The least and the largest of real over simulated step times, from errors of figures (simulated over measured, minus
/// one).
fn factors(errors: &BTreeMap<String, [f64; 2]>) -> Option<[f64; 2]> {
    let possible = |range: &&[f64; 2]| range[0] > -1.0 && range[0] <= range[1];
    if let Some([low, high]) = errors.get("tpot_ms.mean").filter(possible) {
        return Some([1.0 / (1.0 + high), 1.0 / (1.0 + low)]);
    }
    let [low, high] = errors.get("throughput.requests_per_s").filter(possible)?;
    Some([1.0 + low, 1.0 + high])
}

/// Probability that a standard normal variable is at most `z`.
fn below(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(compared: Compared, loads: u64, tpot: [f64; 2]) -> Uncertainty {
        let errors = BTreeMap::from([("tpot_ms.mean".to_owned(), tpot)]);
        Uncertainty { basis: "servers".to_owned(), loads, errors, compared }
    }

    #[test]
    fn the_normal_distribution_is_as_in_tables() {
        for (z, p) in [(0.0, 0.5), (1.0, 0.841_34), (-1.96, 0.025)] {
            assert!((below(z) - p).abs() < 1e-4);
        }
    }

    #[test]
    fn errors_of_a_server_say_how_far_its_step_times_may_be_off() {
        // Simulated 5 % short to 5 % long: real ones 1/1.05 to 1/0.95 of them.
        let own = StepTimes::of("measured here", Some(&known(Compared::ThisServer, 4, [-0.05, 0.05])));
        assert!((own.median - 1.0013).abs() < 1e-4 && (own.deviation - 0.0486).abs() < 1e-4, "{own:?}");
        assert!(own.source.contains("errors of servers"));
        let other = StepTimes::of("fitted", Some(&known(Compared::OtherGpus, 4, [-0.05, 0.05])));
        assert!((other.deviation - 2.0 * own.deviation).abs() < 1e-12);
        assert!(own.at_most(1.1) > other.at_most(1.1) && own.quantile_90() < other.quantile_90());
    }

    #[test]
    fn a_narrow_range_a_single_load_and_no_measurement_claim_no_more_than_they_know() {
        let exact = StepTimes::of("measured here", Some(&known(Compared::ThisServer, 2, [0.0, 0.0])));
        assert!((exact.deviation - DEVIATION_MIN).abs() < 1e-12);
        let single = StepTimes::of("tables", Some(&known(Compared::SameKind, 1, [0.01, 0.01])));
        assert!((single.deviation - DEVIATION_UNKNOWN).abs() < 1e-12);
        assert!(StepTimes::of("fitted", None).source.contains("assumed"));
        assert!(
            StepTimes::of("datasheet", Some(&known(Compared::OtherGpus, 9, [0.0, 0.1]))).deviation > 0.19
        );
    }

    #[test]
    fn a_server_that_was_measured_only_at_capacity_tells_by_its_throughput() {
        let errors = BTreeMap::from([("throughput.requests_per_s".to_owned(), [-0.04, -0.04])]);
        let told = Uncertainty { errors, ..known(Compared::SameGpu, 1, [0.0; 2]) };
        assert!((StepTimes::of("fitted", Some(&told)).median - 0.96).abs() < 1e-12);
    }
}
