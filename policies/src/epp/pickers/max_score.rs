//! `max-score-picker`: the highest score; how equals are chosen among depends on the version.

use forerun_sim::rng::Stream;

use crate::epp::plugin::Picker;

/// How a picker chooses among equal scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TieRule {
    /// Any of them, uniformly: llm-d-router until 0.10.
    #[default]
    Shuffle,
    /// In turn: a counter that grows with every pick rotates each group of equals
    /// (llm-d-router pull requests 2515 and 2709, August and September 2026).
    Rotate,
}

/// Picks the endpoints with the highest totals. Source: llm-d-router picker/maxscore.
pub(super) struct MaxScore {
    pub(super) picks_max: usize,
    pub(super) tie_rule: TieRule,
    pub(super) stream: Stream,
    pub(super) turn: usize,
    pub(super) order: Vec<u32>,
}

impl MaxScore {
    /// The `n`-th choice among `equals`.
    fn choose(&mut self, equals: usize) -> usize {
        match self.tie_rule {
            _ if equals == 1 => 0,
            TieRule::Shuffle => self.stream.below(equals),
            TieRule::Rotate => self.turn % equals,
        }
    }

    /// The usual case, one pick: the best total, without sorting.
    fn pick_one(&mut self, candidates: &[u32], totals: &[f64], picked: &mut Vec<u32>) {
        let best = totals.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let equals = totals.iter().filter(|&&total| total >= best).count();
        let chosen = self.choose(equals.max(1));
        let mut best_ones = candidates.iter().zip(totals).filter(|&(_, &total)| total >= best);
        picked.extend(best_ones.nth(chosen).map(|(&endpoint, _)| endpoint));
    }
}

impl Picker for MaxScore {
    fn pick(&mut self, candidates: &[u32], totals: &[f64], picked: &mut Vec<u32>) {
        if self.picks_max == 1 {
            self.pick_one(candidates, totals, picked);
            self.turn = self.turn.wrapping_add(1);
            return;
        }
        self.order.clear();
        self.order.extend(0..candidates.len() as u32);
        let total = |place: u32| totals[place as usize];
        self.order.sort_by(|&a, &b| total(b).total_cmp(&total(a)));
        let mut start = 0;
        while start < self.order.len().min(self.picks_max) {
            let here = total(self.order[start]);
            let equals = self.order[start..].iter().take_while(|&&place| total(place) >= here).count();
            match self.tie_rule {
                TieRule::Rotate => self.order[start..start + equals].rotate_left(self.turn % equals),
                TieRule::Shuffle => {
                    for place in (1..equals).rev() {
                        self.order.swap(start + place, start + self.stream.below(place + 1));
                    }
                }
            }
            start += equals;
        }
        picked.extend(self.order.iter().take(self.picks_max).map(|&place| candidates[place as usize]));
        self.turn = self.turn.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(picks_max: usize, tie_rule: TieRule, totals: &[f64], count: usize) -> Vec<Vec<u32>> {
        let stream = Stream::new(1, "pick");
        let mut picker = MaxScore { picks_max, tie_rule, stream, turn: 0, order: Vec::new() };
        let candidates: Vec<u32> = (10..10 + totals.len() as u32).collect();
        let mut pick = || {
            let mut picked = Vec::new();
            picker.pick(&candidates, totals, &mut picked);
            picked
        };
        (0..count).map(|_| pick()).collect()
    }

    #[test]
    fn the_highest_total_wins_be_it_negative() {
        assert_eq!(picks(1, TieRule::Shuffle, &[0.5, 2.0, 1.0], 1), [[11]]);
        assert_eq!(picks(1, TieRule::Shuffle, &[-1.0, -0.5], 1), [[11]]);
        assert_eq!(picks(2, TieRule::Shuffle, &[0.5, 2.0, 1.0], 1), [[11, 12]]);
        assert_eq!(picks(9, TieRule::Rotate, &[0.5, 2.0], 1), [[11, 10]]);
    }

    #[test]
    fn equals_take_turns_or_are_drawn() {
        let totals = [1.0, 0.0, 1.0];
        assert_eq!(picks(1, TieRule::Rotate, &totals, 4), [[10], [12], [10], [12]]);
        assert_eq!(picks(2, TieRule::Rotate, &totals, 2), [[10, 12], [12, 10]]);
        for picks_max in [1, 2] {
            let drawn = picks(picks_max, TieRule::Shuffle, &totals, 50);
            assert!(drawn.iter().any(|picked| picked[0] == 10) && drawn.iter().any(|picked| picked[0] == 12));
            assert!(drawn.iter().flatten().all(|&endpoint| endpoint != 11));
        }
    }
}
