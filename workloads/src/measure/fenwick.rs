//! Running totals of a sequence that changes (Fenwick, "A new data structure for cumulative frequency tables",
//! 1994): a change and a partial sum both cost O(log n).

/// Totals over positions `0..len`.
#[derive(Clone, Debug, Default)]
pub(super) struct Fenwick {
    /// Entry `i` is the sum of the `lowest_bit(i + 1)` positions that end with `i`.
    sums: Vec<u64>,
    total: u64,
}

impl Fenwick {
    /// Positions `0..len` with these values; all further positions are zero.
    pub(super) fn new(len: usize, values: impl IntoIterator<Item = u64>) -> Self {
        let mut sums = vec![0; len];
        let mut total = 0;
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = value;
            total += value;
        }
        for position in 0..len {
            let parent = position | (position + 1);
            if parent < len {
                sums[parent] += sums[position];
            }
        }
        Self { sums, total }
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn add(&mut self, position: usize, value: u64) {
        self.total += value;
        let mut at = position;
        while let Some(sum) = self.sums.get_mut(at) {
            *sum += value;
            at |= at + 1;
        }
    }

    /// Takes `value` from `position`, which holds at least so much.
    pub(super) fn subtract(&mut self, position: usize, value: u64) {
        self.total -= value;
        let mut at = position;
        while let Some(sum) = self.sums.get_mut(at) {
            *sum -= value;
            at |= at + 1;
        }
    }

    /// The sum of positions `0..end`.
    pub(super) fn before(&self, end: usize) -> u64 {
        let mut sum = 0;
        let mut end = end;
        while end > 0 {
            sum += self.sums[end - 1];
            end &= end - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn partial_sums_are_those_of_the_plain_sequence(
            start in prop::collection::vec(0_u64..100, 0..40),
            changes in prop::collection::vec((0_usize..50, 0_u64..100), 0..60),
        ) {
            let mut plain = start.clone();
            plain.resize(50, 0);
            let mut totals = Fenwick::new(50, start);
            for (position, value) in changes {
                plain[position] += value;
                totals.add(position, value);
                let taken = plain[position] / 3;
                plain[position] -= taken;
                totals.subtract(position, taken);
            }
            for end in 0..=50 {
                prop_assert_eq!(totals.before(end), plain[..end].iter().sum::<u64>());
            }
            prop_assert_eq!(totals.total(), plain.iter().sum::<u64>());
        }
    }
}
