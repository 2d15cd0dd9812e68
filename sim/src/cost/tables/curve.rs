//! Piecewise-linear functions between measured points.

/// Time by a count (tokens, sequences): non-decreasing, linear between its points, constant below the first. Beyond
/// the last it goes on with the mean slope of the last octave.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    at: Axis,
    us: Vec<f64>,
}

impl Curve {
    /// The curve through (`at`, `us`), microseconds.
    ///
    /// # Errors
    /// When there is no point, counts do not ascend, or times are not finite, positive and non-decreasing.
    pub fn new(at: Vec<u32>, us: Vec<f64>) -> Result<Self, String> {
        let at = Axis::new(at)?;
        check_times(&us, at.len())?;
        if us.windows(2).any(|pair| pair[1] < pair[0]) {
            return Err("times fall with more work: they must not decrease".into());
        }
        Ok(Self { at, us })
    }

    /// Time at `count`, microseconds.
    #[must_use]
    pub fn us(&self, count: f64) -> f64 {
        let last = self.us.len() - 1;
        let end = self.at.last();
        if count > end && last > 0 {
            let half = self.at.cell(end / 2.0).node.min(last - 1);
            let slope = (self.us[last] - self.us[half]) / (end - self.at.at(half));
            return self.us[last] + slope * (count - end);
        }
        let cell = self.at.cell(count);
        cell.mix(|node| self.us[node])
    }

    /// The last count that was measured.
    #[must_use]
    pub fn last(&self) -> u32 {
        self.at.last() as u32
    }
}

/// Times are finite and not negative, and as many as there are points.
pub(super) fn check_times(us: &[f64], points: usize) -> Result<(), String> {
    if us.len() != points {
        return Err(format!("{} times for {points} points", us.len()));
    }
    match us.iter().find(|us| !(us.is_finite() && **us >= 0.0)) {
        Some(us) => Err(format!("a time of {us} us is not one")),
        None => Ok(()),
    }
}

/// The points of one dimension, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis(Vec<u32>);

/// Where a value lies on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cell {
    /// The last point not beyond it, or the first.
    pub(super) node: usize,
    /// How far it is on the way to the next point, 0 to 1; 0 at and beyond the last.
    part: f64,
}

impl Cell {
    /// Interpolates between the values at its two points.
    pub(super) fn mix(self, value: impl Fn(usize) -> f64) -> f64 {
        let near = value(self.node);
        if self.part > 0.0 { near + (value(self.node + 1) - near) * self.part } else { near }
    }
}

impl Axis {
    /// The axis with these points.
    ///
    /// # Errors
    /// When there is none, or they do not ascend.
    pub fn new(points: Vec<u32>) -> Result<Self, String> {
        if points.is_empty() {
            return Err("a table without points".into());
        }
        if let Some(pair) = points.windows(2).find(|pair| pair[1] <= pair[0]) {
            return Err(format!("{} follows {}: points must ascend", pair[1], pair[0]));
        }
        Ok(Self(points))
    }

    /// Number of points.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The last point.
    #[must_use]
    pub fn last(&self) -> f64 {
        f64::from(self.0[self.0.len() - 1])
    }

    pub(super) fn at(&self, node: usize) -> f64 {
        f64::from(self.0[node])
    }

    pub(super) fn points(&self) -> &[u32] {
        &self.0
    }

    pub(super) fn cell(&self, value: f64) -> Cell {
        let node = self.0.partition_point(|&point| f64::from(point) <= value).saturating_sub(1);
        let part = match self.0.get(node + 1) {
            Some(&next) => ((value - self.at(node)) / (f64::from(next) - self.at(node))).clamp(0.0, 1.0),
            None => 0.0,
        };
        Cell { node, part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_linear_between_points_constant_before_and_goes_on_after() {
        let curve = Curve::new(vec![2, 4, 8], vec![10.0, 20.0, 20.0]).unwrap();
        for (count, us) in [(0.0, 10.0), (2.0, 10.0), (3.0, 15.0), (6.0, 20.0), (8.0, 20.0)] {
            assert!((curve.us(count) - us).abs() < 1e-12, "{count}");
        }
        let rising = Curve::new(vec![1, 4, 8], vec![1.0, 4.0, 12.0]).unwrap();
        assert!((rising.us(16.0) - 28.0).abs() < 1e-12, "8 us per 4 tokens beyond the end");
    }

    #[test]
    fn what_is_no_function_is_refused() {
        for (at, us) in [
            (vec![], vec![]),
            (vec![1, 1], vec![1.0, 2.0]),
            (vec![1, 2], vec![2.0, 1.0]),
            (vec![1], vec![f64::NAN]),
            (vec![1], vec![-1.0]),
            (vec![1, 2], vec![1.0]),
        ] {
            assert!(Curve::new(at, us).is_err());
        }
    }
}
