//! Searches over trials: the cheapest numbers of replicas, the largest factor.

use crate::error::Error;

/// How far a search for a factor goes: the ratio of what holds to what does not, at its end.
pub(crate) const RESOLUTION: f64 = 1.04;

/// Firsts of two kinds of replicas that are tried on a line of equal cost, around the guess.
const OFFSETS: [i64; 13] = [0, 1, -1, 2, -2, 3, -3, 5, -5, 8, -8, 13, -13];

/// The largest value for which `holds`, which is true below it and false above, within [`RESOLUTION`]. Looks from
/// `start` in strides of `stride`, between `low` and `high`; 0 when it does not hold even at `low`.
pub(crate) fn largest(
    start: f64,
    low: f64,
    high: f64,
    stride: f64,
    mut holds: impl FnMut(f64) -> Result<bool, Error>,
) -> Result<f64, Error> {
    let (mut good, mut bad) = (0.0, f64::INFINITY);
    let mut next = start;
    loop {
        if holds(next)? {
            good = next;
        } else {
            bad = next;
        }
        next = match (good > 0.0, bad.is_finite()) {
            (true, false) if good >= high => return Ok(high),
            (true, false) => (good * stride).min(high),
            (false, _) if bad <= low => return Ok(0.0),
            (false, _) => (bad / stride).max(low),
            (true, true) if bad / good <= RESOLUTION => return Ok(good),
            (true, true) => (good * bad).sqrt(),
        };
    }
}

/// Where a fleet of one or two kinds of replicas is looked for. More replicas are taken to serve no worse.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    /// Price of one replica of each kind.
    pub prices: Vec<f64>,
    /// Replicas of each kind that are paid for and not counted on.
    pub spare: u32,
    /// The most replicas of each kind, without the spare ones.
    pub most: Vec<u32>,
    /// Replicas of each kind that may do.
    pub guess: Vec<u32>,
    /// Fewer of the first kind cannot do.
    pub least_first: u32,
}

/// The fewest and the most replicas of the last kind, given those of the others.
pub(crate) type Range<'a> = &'a dyn Fn(&[u32]) -> (u32, u32);

/// Replicas of each kind that hold, and the trial that showed it.
pub(crate) type Found<T> = (Vec<u32>, T);

/// Whether so many replicas of each kind hold: what shows it, if they do.
pub(crate) type Trial<'a, T> = &'a mut dyn FnMut(&[u32]) -> Result<Option<T>, Error>;

impl Space {
    /// Price of a fleet, its spare replicas included.
    pub(crate) fn cost(&self, replicas: &[u32]) -> f64 {
        let each = self.prices.iter().zip(replicas);
        each.map(|(price, &count)| price * f64::from(count + self.spare)).sum()
    }

    /// The cheapest fleet below `budget` for which `trial` has a result. `range` says how many of the last kind there
    /// must be and may be, given the others.
    ///
    /// # Errors
    /// The first error of a trial.
    pub(crate) fn cheapest<T>(
        &self,
        budget: f64,
        range: Range<'_>,
        trial: Trial<'_, T>,
    ) -> Result<Option<Found<T>>, Error> {
        if self.prices.len() == 1 {
            return self.column(&[], budget, range, trial);
        }
        let mut best = match budget.is_finite() {
            true => None,
            false => self.any(range, trial)?,
        };
        let within = |best: &Option<Found<T>>| best.as_ref().map_or(budget, |(found, _)| self.cost(found));
        // No price of zero keeps a line of equal cost endless: the most replicas do.
        let mut tried = Vec::new();
        for offset in OFFSETS {
            self.beside(i64::from(self.guess[0]) + offset, &mut tried, &mut best, &within, range, trial)?;
        }
        // Towards a better one as long as there is one.
        while let Some(first) = best.as_ref().map(|(found, _)| i64::from(found[0])) {
            for neighbour in [first + 1, first - 1] {
                self.beside(neighbour, &mut tried, &mut best, &within, range, trial)?;
            }
            if best.as_ref().is_some_and(|(found, _)| i64::from(found[0]) == first) {
                break;
            }
        }
        Ok(best)
    }

    /// Looks for a fleet with `first` of the first kind that is cheaper than the best one.
    fn beside<T>(
        &self,
        first: i64,
        tried: &mut Vec<u32>,
        best: &mut Option<Found<T>>,
        within: &dyn Fn(&Option<Found<T>>) -> f64,
        range: Range<'_>,
        trial: Trial<'_, T>,
    ) -> Result<(), Error> {
        let Ok(first) = u32::try_from(first) else { return Ok(()) };
        if first < self.least_first.max(1) || first > self.most[0] || tried.contains(&first) {
            return Ok(());
        }
        tried.push(first);
        if let Some(found) = self.column(&[first], within(best), range, trial)? {
            *best = Some(found);
        }
        Ok(())
    }

    /// Some fleet that holds, by growing the guess.
    fn any<T>(&self, range: Range<'_>, trial: Trial<'_, T>) -> Result<Option<Found<T>>, Error> {
        let mut replicas: Vec<u32> =
            self.guess.iter().zip(&self.most).map(|(&guess, &most)| guess.clamp(1, most.max(1))).collect();
        loop {
            let (last, others) =
                replicas.split_last().map_or((0, [].as_slice()), |(last, others)| (*last, others));
            if others.iter().zip(&self.most).any(|(count, most)| count > most) || last > range(others).1 {
                return Ok(None);
            }
            if let Some(result) = trial(&replicas)? {
                return Ok(Some((replicas, result)));
            }
            let grown = replicas.iter().zip(&self.most).map(|(&count, &most)| {
                // By a third each time: between doubling and one by one.
                (count + count.div_ceil(3)).min(most)
            });
            let grown: Vec<u32> = grown.collect();
            if grown == replicas {
                return Ok(None);
            }
            replicas = grown;
        }
    }

    /// The cheapest fleet below `budget` with these of the other kinds.
    fn column<T>(
        &self,
        others: &[u32],
        budget: f64,
        range: Range<'_>,
        trial: Trial<'_, T>,
    ) -> Result<Option<Found<T>>, Error> {
        let last = others.len();
        let with = |count: u32| others.iter().copied().chain([count]).collect::<Vec<u32>>();
        let (low, mut high) = range(others);
        let low = low.max(1);
        if budget.is_finite() && self.prices[last] > 0.0 {
            let room = (budget - self.cost(&with(0))) / self.prices[last];
            // Strictly below the budget.
            high = high.min((room - 1e-9).ceil().max(1.0) as u32 - 1);
        }
        if high < low {
            return Ok(None);
        }
        let guess = self.guess[last].clamp(low, high);
        let (mut fails, mut found) = (low - 1, None);
        // Below a budget, whether it can be at all is asked first.
        let mut next = if budget.is_finite() { high } else { guess };
        loop {
            match trial(&with(next))? {
                Some(result) => found = Some((next, result)),
                None => fails = next,
            }
            next = match found.as_ref().map(|(count, _)| *count) {
                None if fails == high => return Ok(None),
                None => fails.saturating_mul(2).min(high),
                Some(count) if count == fails + 1 => break,
                Some(count) if count > guess && guess > fails => guess,
                // The guess is mostly right or one too many: look there first.
                Some(count) if count == guess && fails < count - 1.max(count / 4) => count - 1.max(count / 4),
                Some(count) => fails + (count - fails) / 2,
            };
        }
        Ok(found.map(|(count, result)| (with(count), result)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_for_a_factor_ends_within_its_resolution_and_at_its_limits() {
        let at = |limit: f64| largest(1.0, 1.0 / 64.0, 64.0, 2.0, |x| Ok(x <= limit)).unwrap();
        for limit in [0.02, 0.7, 1.0, 3.3, 60.0] {
            assert!(at(limit) <= limit && at(limit) * RESOLUTION >= limit, "{limit}: {}", at(limit));
        }
        assert_eq!((at(1e-9), at(1e9)), (0.0, 64.0));
    }

    fn space(prices: &[f64], guess: &[u32]) -> Space {
        let most = vec![200; prices.len()];
        Space { prices: prices.into(), spare: 0, most, guess: guess.into(), least_first: 1 }
    }

    #[test]
    fn the_smallest_number_that_holds_is_found_in_few_trials_whatever_the_guess() {
        for needed in 1..=200 {
            for guess in [1, 7, 200] {
                for budget in [f64::INFINITY, 1000.0, 30.0] {
                    let mut trials = 0;
                    let found = space(&[1.0], &[guess])
                        .cheapest(budget, &|_| (1, 200), &mut |count| {
                            trials += 1;
                            Ok((count[0] >= needed).then_some(()))
                        })
                        .unwrap();
                    let fits = f64::from(needed) < budget;
                    assert_eq!(found.map(|(count, ())| count[0]), fits.then_some(needed), "{guess} {budget}");
                    assert!(trials <= 17, "{needed} from {guess}: {trials} trials");
                }
            }
        }
    }

    #[test]
    fn the_cheapest_pair_is_found_where_each_kind_has_a_least_number() {
        for (prefill, decode) in [(1, 1), (3, 2), (2, 9), (12, 5)] {
            for guess in [[prefill, decode], [prefill + 1, decode], [2, 2]] {
                for prices in [[1.0, 1.0], [1.0, 4.0]] {
                    let mut trials = 0;
                    let found = space(&prices, &guess)
                        .cheapest(f64::INFINITY, &|_| (1, 200), &mut |count| {
                            trials += 1;
                            Ok((count[0] >= prefill && count[1] >= decode).then_some(()))
                        })
                        .unwrap();
                    assert_eq!(found.map(|(count, ())| count), Some(vec![prefill, decode]), "{guess:?}");
                    assert!(trials < 80, "{prefill} and {decode} from {guess:?}: {trials} trials");
                }
            }
        }
    }

    #[test]
    fn spare_replicas_are_paid_for() {
        let space = Space { spare: 1, ..space(&[2.0], &[3]) };
        let mut trial = |count: &[u32]| Ok((count[0] >= 3).then_some(()));
        assert!((space.cost(&[3]) - 8.0).abs() < 1e-12);
        assert!(space.cheapest(8.0, &|_| (1, 200), &mut trial).unwrap().is_none());
        assert_eq!(space.cheapest(8.1, &|_| (1, 200), &mut trial).unwrap().unwrap().0, [3]);
    }
}
