//! `random-picker` and `weighted-random-picker`.

use forerun_sim::rng::Stream;

use crate::epp::plugin::Picker;

/// Picks uniformly, whatever the scores. Source: llm-d-router picker/random.
pub(super) struct Random {
    pub(super) picks_max: usize,
    pub(super) stream: Stream,
    pub(super) rest: Vec<u32>,
}

impl Picker for Random {
    fn pick(&mut self, candidates: &[u32], _: &[f64], picked: &mut Vec<u32>) {
        if self.picks_max == 1 {
            picked.push(candidates[self.stream.below(candidates.len())]);
            return;
        }
        self.rest.clear();
        self.rest.extend_from_slice(candidates);
        for _ in 0..self.picks_max.min(candidates.len()) {
            let place = self.stream.below(self.rest.len());
            picked.push(self.rest.swap_remove(place));
        }
    }
}

/// Picks with a probability proportional to the total: A-Res (Efraimidis and Spirakis 2006), the largest keys
/// U^(1/total); a total that is not positive has key 0. Uniform when no total is positive.
/// Source: llm-d-router picker/weightedrandom.
pub(super) struct WeightedRandom {
    pub(super) uniform: Random,
    pub(super) keys: Vec<(f64, u32)>,
}

impl Picker for WeightedRandom {
    fn pick(&mut self, candidates: &[u32], totals: &[f64], picked: &mut Vec<u32>) {
        if !totals.iter().any(|&total| total > 0.0) {
            self.uniform.pick(candidates, totals, picked);
            return;
        }
        self.keys.clear();
        for (&endpoint, &total) in candidates.iter().zip(totals) {
            let key =
                if total > 0.0 { libm::pow(self.uniform.stream.uniform_open(), 1.0 / total) } else { 0.0 };
            self.keys.push((key, endpoint));
        }
        self.keys.sort_by(|a, b| b.0.total_cmp(&a.0));
        picked.extend(self.keys.iter().take(self.uniform.picks_max).map(|&(_, endpoint)| endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(picks_max: usize, seed: u64) -> WeightedRandom {
        let stream = Stream::new(seed, "pick");
        WeightedRandom { uniform: Random { picks_max, stream, rest: Vec::new() }, keys: Vec::new() }
    }

    /// How often each of the endpoints is picked first in 20,000 draws.
    fn counts(picker: &mut dyn Picker, totals: &[f64]) -> Vec<u32> {
        let candidates: Vec<u32> = (0..totals.len() as u32).collect();
        let (mut counts, mut picked) = (vec![0; totals.len()], Vec::new());
        for _ in 0..20_000 {
            picked.clear();
            picker.pick(&candidates, totals, &mut picked);
            counts[picked[0] as usize] += 1;
        }
        counts
    }

    #[test]
    fn weights_are_probabilities() {
        let counts = counts(&mut weighted(1, 1), &[1.0, 3.0, 0.0, -1.0]);
        // 5 standard deviations of a binomial with n = 20,000 and p = 1/4.
        assert!((f64::from(counts[0]) - 5000.0).abs() < 5.0 * 61.3, "{counts:?}");
        assert_eq!(counts[2..], [0, 0]);
    }

    #[test]
    fn without_a_positive_total_all_are_equal() {
        let counts = counts(&mut weighted(1, 2), &[0.0, -2.0]);
        assert!((f64::from(counts[0]) - 10_000.0).abs() < 5.0 * 70.8, "{counts:?}");
    }

    #[test]
    fn several_picks_are_different_endpoints() {
        for totals in [[1.0, 2.0, 3.0], [0.0; 3]] {
            let mut picked = Vec::new();
            weighted(5, 3).pick(&[4, 5, 6], &totals, &mut picked);
            picked.sort_unstable();
            assert_eq!(picked, [4, 5, 6]);
        }
    }
}
