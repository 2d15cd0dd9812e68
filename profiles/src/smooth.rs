//! Measured grids made whole and monotone.

use std::collections::BTreeMap;

/// Makes times over a grid of this `shape` (the last axis fastest) rise along every axis: each becomes the mean of the
/// largest time of less work and the smallest time of more, so that noise goes up as often as down. What rises
/// already stays as it is.
pub fn rising(us: &mut [f64], shape: &[usize]) {
    let mut above = us.to_vec();
    let mut below = us.to_vec();
    let mut stride = us.len();
    for &points in shape {
        stride /= points;
        for index in 0..us.len() {
            if !(index / stride).is_multiple_of(points) {
                above[index] = above[index].max(above[index - stride]);
            }
        }
        for index in (0..us.len()).rev() {
            if index / stride % points < points - 1 {
                below[index] = below[index].min(below[index + stride]);
            }
        }
    }
    for (us, (above, below)) in us.iter_mut().zip(above.iter().zip(below)) {
        *us = f64::midpoint(*above, below);
    }
}

/// Times at points of up to four dimensions, some of which may be missing.
#[derive(Clone, Debug, Default)]
pub struct Scatter {
    times: BTreeMap<[u32; 4], f64>,
}

impl Scatter {
    /// Adds a time; of several at one point the last counts.
    pub fn insert(&mut self, at: [u32; 4], us: f64) {
        self.times.insert(at, us);
    }

    /// The time at a point.
    #[must_use]
    pub fn get(&self, at: [u32; 4]) -> Option<f64> {
        self.times.get(&at).copied()
    }

    /// All points with their times, in order.
    pub fn points(&self) -> impl Iterator<Item = ([u32; 4], f64)> {
        self.times.iter().map(|(at, us)| (*at, *us))
    }

    /// The coordinates along one dimension, ascending.
    #[must_use]
    pub fn axis(&self, dimension: usize) -> Vec<u32> {
        let mut points: Vec<u32> = self.times.keys().map(|at| at[dimension]).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// The part with this property.
    #[must_use]
    pub fn only(&self, keep: impl Fn([u32; 4]) -> bool) -> Self {
        Self { times: self.times.iter().filter(|(at, _)| keep(**at)).map(|(at, us)| (*at, *us)).collect() }
    }

    /// Fills the product of its axes: a missing time is interpolated linearly between known neighbours along each
    /// axis that has one on both sides, and the mean of these taken. Filled points help in later rounds. Whatever
    /// remains takes the time of its nearest neighbour along the last axis that has one.
    #[must_use]
    pub fn fill(mut self) -> Filled {
        let axes: [Vec<u32>; 4] = [0, 1, 2, 3].map(|dimension| self.axis(dimension));
        let all: Vec<[u32; 4]> = product(&axes);
        for interpolate in [true, true, true, false, false] {
            let missing = all.iter().filter(|at| !self.times.contains_key(*at));
            let found: Vec<_> =
                missing.filter_map(|&at| Some((at, self.estimate(&axes, at, interpolate)?))).collect();
            self.times.extend(found);
        }
        let us = all.iter().map(|at| self.times.get(at).copied().unwrap_or(0.0)).collect();
        Filled { axes, us }
    }

    fn estimate(&self, axes: &[Vec<u32>; 4], at: [u32; 4], interpolate: bool) -> Option<f64> {
        let mut estimates = Vec::new();
        for (dimension, axis) in axes.iter().enumerate() {
            let known = |&&point: &&u32| {
                let mut there = at;
                there[dimension] = point;
                self.times.contains_key(&there)
            };
            let time = |point: u32| {
                let mut there = at;
                there[dimension] = point;
                self.times[&there]
            };
            let place = axis.partition_point(|&point| point < at[dimension]);
            let before = axis[..place].iter().rev().find(known).copied();
            let after = axis[place..].iter().find(known).copied();
            match (before, after) {
                (Some(before), Some(after)) if interpolate => {
                    let part = f64::from(at[dimension] - before) / f64::from(after - before);
                    estimates.push(time(before) + (time(after) - time(before)) * part);
                }
                (Some(near), None) | (None, Some(near)) if !interpolate => estimates = vec![time(near)],
                _ => {}
            }
        }
        let count = estimates.len() as f64;
        (!estimates.is_empty()).then(|| estimates.iter().sum::<f64>() / count)
    }
}

/// A grid without gaps.
#[derive(Clone, Debug)]
pub struct Filled {
    /// Points of each dimension.
    pub axes: [Vec<u32>; 4],
    /// Times, the last axis fastest.
    pub us: Vec<f64>,
}

impl Filled {
    /// Number of points of each dimension.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|dimension| self.axes[dimension].len())
    }
}

fn product(axes: &[Vec<u32>; 4]) -> Vec<[u32; 4]> {
    let mut all = Vec::with_capacity(axes.iter().map(Vec::len).product());
    for &a in &axes[0] {
        for &b in &axes[1] {
            for &c in &axes[2] {
                all.extend(axes[3].iter().map(|&d| [a, b, c, d]));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_in_a_linear_function_is_filled_exactly() {
        let time = |at: [u32; 4]| 1.0 + f64::from(at[0]) + 2.0 * f64::from(at[3]);
        let mut scatter = Scatter::default();
        for at in product(&[vec![0, 2, 3, 8], vec![0], vec![1], vec![0, 10, 15, 20]]) {
            if ![[2, 0, 1, 10], [3, 0, 1, 15], [2, 0, 1, 15]].contains(&at) {
                scatter.insert(at, time(at));
            }
        }
        let filled = scatter.fill();
        for (at, us) in product(&filled.axes).into_iter().zip(&filled.us) {
            assert!((us - time(at)).abs() < 1e-9, "{at:?}");
        }
    }

    proptest! {
        #[test]
        fn a_smoothed_grid_rises_and_stays_within_the_noise(
            noise in prop::collection::vec(0.0..3.0f64, 24),
        ) {
            let shape = [2, 3, 4];
            let level = |index: usize| (index / 12 + index / 4 % 3 + index % 4) as f64;
            let noisy: Vec<f64> = noise.iter().enumerate().map(|(index, noise)| level(index) + noise).collect();
            let mut us = noisy.clone();
            rising(&mut us, &shape);
            for index in 0..us.len() {
                for (stride, points) in [(12, 2), (4, 3), (1, 4)] {
                    if index / stride % points < points - 1 {
                        prop_assert!(us[index] <= us[index + stride]);
                    }
                }
                prop_assert!((us[index] - noisy[index]).abs() <= 3.0);
            }
            let mut again = us.clone();
            rising(&mut again, &shape);
            prop_assert_eq!(again, us);
        }
    }
}
