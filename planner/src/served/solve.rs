//! Constants from measurements: the most probable ones given what was known before, how sure they are, and which of them
//! the measurements tell at all.
//!
//! Gauss and Newton's iteration on `sum of soft((measured - predicted) / scale) + ((x - prior) / deviation)^2`, x being
//! logarithms of constants. Predictions are simulations: their derivatives are differences of runs, which are noisy, because
//! any change moves every step a little. So a derivative is taken as a straight line over the measured means of its kind
//! of group, and as zero where it cannot be told from the noise: noise must not pass for knowledge.
//! Uncertainty allows for groups of one stretch that err together (the "sandwich" of cluster-robust regression).

use super::linear::{Matrix, inverse, product};
use crate::error::Error;

/// Residuals beyond so many scales count linearly (Huber's constant: 95 % efficient for normal errors).
const SOFT_FROM: f64 = 1.345;
/// No measurement is taken to be better than this: the simulator is not.
const SCALE_MIN: f64 = 0.003;
/// Rounds of the iteration, and of them those that begin with new derivatives.
const ROUNDS: usize = 8;
const FRESH: [usize; 2] = [0, 2];
/// The largest change of a logarithm in one round.
const STRIDE: f64 = 0.7;
/// The iteration ends when it moves every constant by less than this share of its deviation.
const STILL: f64 = 0.02;
/// A derivative counts when it is this many standard errors from zero.
const SIGNIFICANT: f64 = 3.5;

/// A measured mean.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    /// Its logarithm.
    pub(super) log: f64,
    /// Requests that it is of.
    pub(super) count: f64,
    /// Observations of one kind (run and metric) share their scale, those of one shape (and length of prompts) the
    /// line of their derivatives.
    pub(super) kind: usize,
    /// See `kind`.
    pub(super) shape: usize,
    /// Observations that err together.
    pub(super) cluster: usize,
}

/// What is known of the logarithm of a constant before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) mean: f64,
    pub(super) deviation: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

/// Predicts the logarithms of all observations at each of several points. What has no prediction is not a number.
pub(super) type Predict<'a> = &'a dyn Fn(&[Vec<f64>]) -> Result<Vec<Vec<f64>>, Error>;

/// What is to be solved.
pub(super) struct Problem<'a> {
    pub(super) observations: &'a [Observation],
    pub(super) known: &'a [Known],
    pub(super) predict: Predict<'a>,
}

/// Which of the problem's observations are used, and which of its constants are free.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) used: Vec<bool>,
    pub(super) free: Vec<bool>,
}

/// The most probable constants.
#[derive(Clone, Debug)]
pub(super) struct Solution {
    /// Their logarithms.
    pub(super) at: Vec<f64>,
    /// Predictions there.
    pub(super) predicted: Vec<f64>,
    /// Derivatives of the observations (rows) by the constants.
    pub(super) slopes: Matrix,
    /// Scale of each observation.
    scales: Vec<f64>,
}

impl Problem<'_> {
    /// The solution within `scope`, from `start` and, if there are any, with known derivatives.
    pub(super) fn solve(
        &self,
        scope: &Scope,
        start: Vec<f64>,
        slopes: Option<Matrix>,
    ) -> Result<Solution, Error> {
        let fixed = slopes.is_some();
        let mut slopes = slopes.unwrap_or_default();
        let mut at = start;
        let mut predicted = self.at(&at)?;
        for round in 0..ROUNDS {
            if !fixed && FRESH.contains(&round) {
                slopes = self.slopes(&at, scope)?;
            }
            // At first the whole may be off: only the scatter says how well groups are known.
            let scales = self.scales(&predicted, scope, round == 0);
            let step = self.step(&at, &predicted, &slopes, &scales, scope);
            let points: Vec<Vec<f64>> =
                [1.0, 0.5, 0.2].iter().map(|share| self.moved(&at, &step, *share)).collect();
            let candidates = (self.predict)(&points)?;
            let before = self.cost(&at, &predicted, &scales, scope);
            let costs: Vec<f64> = points
                .iter()
                .zip(&candidates)
                .map(|(point, predicted)| self.cost(point, predicted, &scales, scope))
                .collect();
            let best = (0..points.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap_or(0);
            let moved = points[best].iter().zip(&at).zip(self.known);
            let still =
                moved.map(|((new, old), known)| (new - old).abs() / known.deviation).all(|by| by < STILL);
            let stale = !fixed && FRESH.iter().any(|&fresh| fresh > round);
            if costs[best] < before {
                at.clone_from(&points[best]);
                predicted.clone_from(&candidates[best]);
            }
            if (still || costs[best] >= before) && !stale {
                break;
            }
        }
        let scales = self.scales(&predicted, scope, false);
        Ok(Solution { at, predicted, slopes, scales })
    }

    fn at(&self, point: &[f64]) -> Result<Vec<f64>, Error> {
        let all = (self.predict)(&[point.to_vec()])?;
        all.into_iter().next().ok_or_else(|| Error::Internal("a point without predictions".into()))
    }

    /// Derivatives at a point: central differences, cleared of their noise.
    fn slopes(&self, at: &[f64], scope: &Scope) -> Result<Matrix, Error> {
        let mut points = Vec::new();
        for (place, known) in self.known.iter().enumerate() {
            let reach = (0.3 * known.deviation).clamp(0.04, 0.25);
            for side in [-reach, reach] {
                let mut point = at.to_vec();
                point[place] = (point[place] + side).clamp(known.least, known.most);
                points.push(point);
            }
        }
        let predicted = (self.predict)(&points)?;
        let mut slopes = vec![vec![0.0; self.known.len()]; self.observations.len()];
        for place in 0..self.known.len() {
            let (below, above) = (&points[2 * place], &points[2 * place + 1]);
            let apart = above[place] - below[place];
            if apart < 1e-6 {
                continue;
            }
            let raw: Vec<f64> = predicted[2 * place]
                .iter()
                .zip(&predicted[2 * place + 1])
                .map(|(low, high)| (high - low) / apart)
                .collect();
            for (row, slope) in slopes.iter_mut().zip(self.cleared(&raw, scope)) {
                row[place] = slope;
            }
        }
        Ok(slopes)
    }

    /// Raw derivatives as a line over the measured values of each shape; a line that noise may have drawn is none.
    fn cleared(&self, raw: &[f64], scope: &Scope) -> Vec<f64> {
        let mut cleared = vec![0.0; raw.len()];
        let shapes = self.observations.iter().map(|o| o.shape).max().map_or(0, |most| most + 1);
        for shape in 0..shapes {
            let members: Vec<usize> = (0..raw.len())
                .filter(|&i| self.observations[i].shape == shape && scope.used[i] && raw[i].is_finite())
                .collect();
            let values: Vec<(f64, f64)> =
                members.iter().map(|&i| (self.observations[i].log, raw[i])).collect();
            if let Some(line) = Line::through(&values) {
                for i in (0..raw.len()).filter(|&i| self.observations[i].shape == shape) {
                    cleared[i] = line.at(self.observations[i].log);
                }
            }
        }
        cleared
    }

    fn residual(&self, place: usize, predicted: &[f64]) -> Option<f64> {
        Some(self.observations[place].log - predicted[place]).filter(|residual| residual.is_finite())
    }

    /// How far groups scatter, by kind: 1.48 times the median absolute residual, of one with a usual number of requests.
    fn scales(&self, predicted: &[f64], scope: &Scope, about_median: bool) -> Vec<f64> {
        let kinds = self.observations.iter().map(|o| o.kind).max().map_or(0, |most| most + 1);
        let mut scales = vec![SCALE_MIN; self.observations.len()];
        for kind in 0..kinds {
            let members: Vec<usize> =
                (0..scales.len()).filter(|&i| self.observations[i].kind == kind && scope.used[i]).collect();
            let usual = members.iter().map(|&i| self.observations[i].count).sum::<f64>()
                / members.len().max(1) as f64;
            let weight = |i: usize| (self.observations[i].count / usual).sqrt();
            let residuals: Vec<f64> =
                members.iter().filter_map(|&i| Some(self.residual(i, predicted)? * weight(i))).collect();
            let middle = if about_median { median(residuals.clone()) } else { 0.0 };
            let scale = 1.4826 * median(residuals.iter().map(|residual| (residual - middle).abs()).collect());
            for i in members {
                scales[i] = scale.max(SCALE_MIN) / weight(i);
            }
        }
        scales
    }

    fn cost(&self, at: &[f64], predicted: &[f64], scales: &[f64], scope: &Scope) -> f64 {
        let data = (0..self.observations.len()).filter(|&i| scope.used[i]).map(|i| {
            // What is no longer answered is as bad as can be told.
            let ratio = self.residual(i, predicted).map_or(100.0, |residual| (residual / scales[i]).abs());
            if ratio <= SOFT_FROM { ratio * ratio } else { SOFT_FROM * (2.0 * ratio - SOFT_FROM) }
        });
        let before = at.iter().zip(self.known).map(|(x, known)| {
            let ratio = (x - known.mean) / known.deviation;
            ratio * ratio
        });
        data.sum::<f64>() + before.sum::<f64>()
    }

    /// Weight of an observation: the inverse of its variance, less where it is far off.
    fn weight(&self, place: usize, predicted: &[f64], scales: &[f64]) -> f64 {
        let Some(residual) = self.residual(place, predicted) else { return 0.0 };
        let ratio = (residual / scales[place]).abs();
        let soft = if ratio <= SOFT_FROM { 1.0 } else { SOFT_FROM / ratio };
        soft / (scales[place] * scales[place])
    }

    /// Information on the constants: of the used observations, and of what was known before.
    fn information(&self, predicted: &[f64], slopes: &Matrix, scales: &[f64], scope: &Scope) -> Matrix {
        let n = self.known.len();
        let mut information = vec![vec![0.0; n]; n];
        for (place, row) in slopes.iter().enumerate().filter(|(place, _)| scope.used[*place]) {
            let weight = self.weight(place, predicted, scales);
            for a in 0..n {
                for b in 0..n {
                    information[a][b] += weight * row[a] * row[b];
                }
            }
        }
        for (a, known) in self.known.iter().enumerate() {
            information[a][a] += 1.0 / (known.deviation * known.deviation);
        }
        // What is not free has information on itself alone: it moves nothing, and nothing moves it.
        for (a, row) in information.iter_mut().enumerate() {
            for (b, cell) in row.iter_mut().enumerate() {
                if !(scope.free[a] && scope.free[b]) {
                    *cell = f64::from(u8::from(a == b));
                }
            }
        }
        information
    }

    fn step(
        &self,
        at: &[f64],
        predicted: &[f64],
        slopes: &Matrix,
        scales: &[f64],
        scope: &Scope,
    ) -> Vec<f64> {
        let mut towards: Vec<f64> = at
            .iter()
            .zip(self.known)
            .map(|(x, known)| (known.mean - x) / (known.deviation * known.deviation))
            .collect();
        for (place, row) in slopes.iter().enumerate().filter(|(place, _)| scope.used[*place]) {
            let Some(residual) = self.residual(place, predicted) else { continue };
            let weight = self.weight(place, predicted, scales);
            towards.iter_mut().zip(row).for_each(|(sum, slope)| *sum += weight * slope * residual);
        }
        towards.iter_mut().zip(&scope.free).filter(|(_, free)| !**free).for_each(|(sum, _)| *sum = 0.0);
        let inverse = inverse(&self.information(predicted, slopes, scales, scope));
        inverse.iter().map(|row| row.iter().zip(&towards).map(|(a, b)| a * b).sum()).collect()
    }

    fn moved(&self, at: &[f64], step: &[f64], share: f64) -> Vec<f64> {
        let one = |((x, by), known): ((&f64, &f64), &Known)| {
            (x + (by * share).clamp(-STRIDE, STRIDE)).clamp(known.least, known.most)
        };
        at.iter().zip(step).zip(self.known).map(one).collect()
    }

    /// Covariance of all constants at a solution: by the information alone, and allowing for stretches that err together.
    pub(super) fn covariance(&self, solution: &Solution, scope: &Scope) -> Covariance {
        let Solution { predicted, slopes, scales, .. } = solution;
        let everything = Scope { used: scope.used.clone(), free: vec![true; self.known.len()] };
        let plain = inverse(&self.information(predicted, slopes, scales, &everything));
        let n = self.known.len();
        let clusters = self.observations.iter().map(|o| o.cluster).max().map_or(0, |most| most + 1);
        let mut sums = vec![vec![0.0; n]; clusters];
        let mut seen = vec![false; clusters];
        for (place, row) in slopes.iter().enumerate().filter(|(place, _)| scope.used[*place]) {
            let Some(residual) = self.residual(place, predicted) else { continue };
            let cluster = self.observations[place].cluster;
            seen[cluster] = true;
            let weight = self.weight(place, predicted, scales) * residual;
            sums[cluster].iter_mut().zip(row).for_each(|(sum, slope)| *sum += weight * slope);
        }
        let count = seen.iter().filter(|seen| **seen).count() as f64;
        let mut middle = vec![vec![0.0; n]; n];
        for sum in &sums {
            for a in 0..n {
                for b in 0..n {
                    middle[a][b] += sum[a] * sum[b] * count / (count - 1.0).max(1.0);
                }
            }
        }
        for (a, known) in self.known.iter().enumerate() {
            middle[a][a] += 1.0 / (known.deviation * known.deviation);
        }
        let robust = product(&product(&plain, &middle), &plain);
        Covariance { plain, robust, clusters: count as usize }
    }
}

/// How sure constants are.
#[derive(Clone, Debug)]
pub(super) struct Covariance {
    plain: Matrix,
    robust: Matrix,
    /// Independent stretches that were measured.
    pub(super) clusters: usize,
}

impl Covariance {
    /// Standard deviation of a logarithm: the larger of both.
    pub(super) fn deviation(&self, place: usize) -> f64 {
        self.plain[place][place].max(self.robust[place][place]).max(0.0).sqrt()
    }

    /// The constant that is most confounded with this one, and their correlation.
    pub(super) fn confounded(&self, place: usize) -> Option<(usize, f64)> {
        let of = |other: usize| {
            self.plain[place][other] / (self.plain[place][place] * self.plain[other][other]).sqrt()
        };
        let others = (0..self.plain.len()).filter(|&other| other != place).map(|other| (other, of(other)));
        others.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    crate::validate::measured::quantile(&values, 0.5).unwrap_or(0.0)
}

/// A straight line, of whose parts only those remain that noise would not have drawn.
#[derive(Clone, Copy, Debug)]
struct Line {
    centre: f64,
    height: f64,
    rise: f64,
}

impl Line {
    fn through(values: &[(f64, f64)]) -> Option<Self> {
        let count = values.len() as f64;
        if values.len() < 2 {
            return None;
        }
        let centre = values.iter().map(|(x, _)| x).sum::<f64>() / count;
        let mean = values.iter().map(|(_, y)| y).sum::<f64>() / count;
        let spread = values.iter().map(|(x, _)| (x - centre) * (x - centre)).sum::<f64>();
        let shared = values.iter().map(|(x, y)| (x - centre) * (y - mean)).sum::<f64>();
        let rise = if spread > 1e-12 { shared / spread } else { 0.0 };
        let off = values.iter().map(|(x, y)| {
            let off = y - mean - rise * (x - centre);
            off * off
        });
        let variance = off.sum::<f64>() / (count - 2.0).max(1.0);
        let height_error = (variance / count).sqrt();
        let rise_error = if spread > 1e-12 { (variance / spread).sqrt() } else { f64::INFINITY };
        let kept = |value: f64, error: f64| if value.abs() > SIGNIFICANT * error { value } else { 0.0 };
        Some(Self { centre, height: kept(mean, height_error), rise: kept(rise, rise_error) })
    }

    fn at(&self, x: f64) -> f64 {
        self.height + self.rise * (x - self.centre)
    }
}

#[cfg(test)]
#[path = "solve_tests.rs"]
mod tests;
