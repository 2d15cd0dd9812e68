//! Choices among things of unequal weight.

use std::sync::Arc;

use forerun_sim::rng::Stream;

/// The most groups, adapters or tenants of one workload.
const COUNT_MAX: u32 = 10_000_000;

/// A choice among `0..len` with given weights.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Probability of a choice up to and including each index; the last is 1.
    cumulative: Arc<[f64]>,
}

impl Choice {
    /// A choice with these weights.
    ///
    /// # Errors
    /// When there is none, or one is not a positive number.
    pub fn new(weights: impl Iterator<Item = f64>) -> Result<Self, String> {
        let mut cumulative = Vec::new();
        let mut total = 0.0;
        for weight in weights {
            if !(weight > 0.0 && weight <= 1e12) {
                return Err(format!("a weight of {weight}: weights are above 0"));
            }
            total += weight;
            cumulative.push(total);
        }
        if cumulative.is_empty() {
            return Err("nothing to choose from".into());
        }
        cumulative.iter_mut().for_each(|sum| *sum /= total);
        Ok(Self { cumulative: cumulative.into() })
    }

    /// Zipf's law: choice `k` has weight `1 / (k + 1)^exponent`; an exponent of 0 makes all alike.
    ///
    /// # Errors
    /// When there is nothing to choose from, or the exponent is not between 0 and 20.
    pub fn zipf(count: u32, exponent: f64) -> Result<Self, String> {
        if !(0.0..=20.0).contains(&exponent) {
            return Err(format!("`zipf` is {exponent}, must be between 0 (all alike) and 20"));
        }
        if count > COUNT_MAX {
            return Err(format!("{count} are too many: at most {COUNT_MAX}"));
        }
        // The floor keeps the weights of steep laws above zero; it is never drawn.
        let weight = |rank: u32| libm::pow(f64::from(rank), -exponent).max(1e-300);
        Self::new((1..=count).map(weight))
    }

    /// Chooses.
    pub fn draw(&self, stream: &mut Stream) -> usize {
        let u = stream.uniform();
        let index = self.cumulative.partition_point(|&sum| sum <= u);
        index.min(self.cumulative.len() - 1)
    }

    /// Among how many it chooses.
    #[must_use]
    pub fn count(&self) -> usize {
        self.cumulative.len()
    }

    /// How likely `index` is.
    pub(crate) fn probability(&self, index: usize) -> f64 {
        self.cumulative[index] - index.checked_sub(1).map_or(0.0, |before| self.cumulative[before])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_weights_fall_as_powers_of_the_rank() {
        let choice = Choice::zipf(100, 1.2).unwrap();
        let ratio = choice.probability(0) / choice.probability(9);
        assert!((ratio - libm::pow(10.0, 1.2)).abs() < 1e-9, "{ratio}");
        let even = Choice::zipf(4, 0.0).unwrap();
        assert!((0..4).all(|k| (even.probability(k) - 0.25).abs() < 1e-12));
        assert!(Choice::zipf(0, 1.0).is_err());
        assert!(Choice::zipf(3, f64::NAN).is_err());
    }
}
