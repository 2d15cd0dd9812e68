//! `no-hit-lru-scorer`: spreads requests that hit nowhere over the endpoints that were used longest ago.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::Value;

use crate::epp::plugin::{Context, Dispatch, Names, Notes, Scorer, parameters};

/// Parameters of `no-hit-lru-scorer`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The producer whose matches decide whether a request is cold; empty for the approximate one.
    prefix_match_info_producer_name: String,
    /// Endpoints that are remembered. What is not positive stands for 1024.
    lru_size: i64,
}

const LRU_SIZE_DEFAULT: usize = 1024;

/// A match anywhere: 0.5 for all. Else, among N candidates (a single one scores 1):
/// - never used, the i-th of them: 1 - i / (N - 1);
/// - used: max(0, 1 - (never used + place in the whole list, oldest first) / (N - 1)).
///
/// The list counts endpoints that are no candidates too. A cold request moves its picks to the list's young end.
/// Source: llm-d-router scorer/nohitlru.
pub(super) struct NoHitLru {
    producer: usize,
    size: usize,
    /// Endpoints by their last cold request, oldest first.
    oldest_first: VecDeque<u32>,
    /// Place in the list by endpoint, while candidates are scored.
    places: Vec<Option<usize>>,
}

impl NoHitLru {
    pub(super) fn new(value: &Value, names: &mut Names) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        Ok(Self {
            producer: names.producer(&parameters.prefix_match_info_producer_name),
            size: usize::try_from(parameters.lru_size)
                .ok()
                .filter(|&size| size > 0)
                .unwrap_or(LRU_SIZE_DEFAULT),
            oldest_first: VecDeque::new(),
            places: Vec::new(),
        })
    }

    fn touch(&mut self, endpoint: u32) {
        if let Some(place) = self.oldest_first.iter().position(|&used| used == endpoint) {
            self.oldest_first.remove(place);
        } else if self.oldest_first.len() == self.size {
            self.oldest_first.pop_front();
        }
        self.oldest_first.push_back(endpoint);
    }

    fn spread(&mut self, candidates: &[u32], scores: &mut [f64]) {
        if candidates.len() == 1 {
            scores.fill(1.0);
            return;
        }
        let endpoints =
            candidates.iter().chain(&self.oldest_first).max().map_or(0, |&most| most as usize + 1);
        self.places.clear();
        self.places.resize(endpoints, None);
        for (place, &endpoint) in self.oldest_first.iter().enumerate() {
            self.places[endpoint as usize] = Some(place);
        }
        let unused = candidates.iter().filter(|&&endpoint| self.places[endpoint as usize].is_none()).count();
        let steps = candidates.len() as f64 - 1.0;
        let mut unused_before = 0;
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            *score = if let Some(place) = self.places[endpoint as usize] {
                (1.0 - (unused + place) as f64 / steps).max(0.0)
            } else {
                let rank = unused_before as f64;
                unused_before += 1;
                1.0 - rank / steps
            };
        }
    }
}

impl Scorer for NoHitLru {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], notes: &mut Notes) {
        let hit = |&endpoint: &u32| {
            context.prefix(self.producer, endpoint).is_some_and(|prefix| prefix.matched_blocks > 0)
        };
        notes.cold = !candidates.iter().any(hit);
        if notes.cold {
            self.spread(candidates, scores);
        } else {
            scores.fill(0.5);
        }
    }

    fn pre_request(&mut self, dispatch: &Dispatch<'_>) {
        if dispatch.notes.cold {
            self.touch(dispatch.primary);
            if let Some(prefill) = dispatch.prefill {
                self.touch(prefill);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spread(used: &[u32], candidates: &[u32]) -> Vec<f64> {
        let mut scorer = NoHitLru::new(&json!({"lruSize": 3}), &mut Names::default()).unwrap();
        used.iter().for_each(|&endpoint| scorer.touch(endpoint));
        let mut scores = vec![0.0; candidates.len()];
        scorer.spread(candidates, &mut scores);
        scores
    }

    #[test]
    fn unused_endpoints_come_first_then_the_oldest() {
        assert_eq!(spread(&[], &[0, 1, 2]), [1.0, 0.5, 0.0]);
        assert_eq!(spread(&[2, 0], &[0, 1, 2]), [0.0, 1.0, 0.5]);
        assert_eq!(spread(&[1], &[1]), [1.0]);
    }

    #[test]
    fn absent_endpoints_take_places_and_the_score_never_falls_below_0() {
        assert_eq!(spread(&[7, 8, 0], &[0, 1]), [0.0, 1.0]);
    }

    #[test]
    fn only_the_youngest_are_remembered() {
        assert_eq!(spread(&[0, 1, 2, 3], &[0, 1]), [1.0, 0.0], "endpoint 0 is forgotten");
        assert_eq!(spread(&[0, 1, 0], &[0, 1]), [0.0, 1.0], "a second use makes it young again");
    }
}
