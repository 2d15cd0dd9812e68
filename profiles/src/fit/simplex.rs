//! Nelder and Mead's downhill simplex within bounds, without randomness.
//!
//! Each coordinate is a logistic function of a free one, so that no bound can be crossed. (J. A. Nelder, R. Mead, "A
//! simplex method for function minimization", Computer Journal 7, 1965: reflection 1, expansion 2, contraction and
//! shrinking 1/2.)

/// Where a coordinate may lie, and where the search starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) start: f64,
}

impl Bounds {
    fn value(&self, free: f64) -> f64 {
        self.least + (self.most - self.least) / (1.0 + libm::exp(-free))
    }

    fn free(&self, value: f64) -> f64 {
        let share = (value - self.least) / (self.most - self.least);
        libm::log(share / (1.0 - share))
    }
}

/// The search ends after this many rounds, or when the simplex is this flat.
const ROUNDS: usize = 400;
const FLAT: f64 = 1e-9;
/// The first simplex, and that of a second search from where the first ended, which frees one that is stuck.
const STEPS: [f64; 2] = [0.7, 0.3];

/// The point within `bounds` at which `loss` is least, as far as the search finds it.
pub(super) fn minimise(mut loss: impl FnMut(&[f64]) -> f64, bounds: &[Bounds]) -> Vec<f64> {
    let values = |free: &[f64]| -> Vec<f64> { free.iter().zip(bounds).map(|(x, b)| b.value(*x)).collect() };
    let mut at: Vec<f64> = bounds.iter().map(|bounds| bounds.free(bounds.start)).collect();
    for step in STEPS {
        at = search(&mut |free: &[f64]| loss(&values(free)), &at, step);
    }
    values(&at)
}

type Vertex = (f64, Vec<f64>);

fn search(loss: &mut impl FnMut(&[f64]) -> f64, start: &[f64], step: f64) -> Vec<f64> {
    let n = start.len();
    let mut simplex: Vec<Vertex> = vec![(loss(start), start.to_vec())];
    for coordinate in 0..n {
        let mut at = start.to_vec();
        at[coordinate] += step;
        simplex.push((loss(&at), at));
    }
    let order = |a: &Vertex, b: &Vertex| a.0.total_cmp(&b.0);
    for _ in 0..ROUNDS {
        simplex.sort_by(order);
        if simplex[n].0 - simplex[0].0 < FLAT {
            break;
        }
        let centre: Vec<f64> =
            (0..n).map(|i| simplex[..n].iter().map(|(_, at)| at[i]).sum::<f64>() / n as f64).collect();
        let mut towards = |worst: &[f64], factor: f64| -> Vertex {
            let at: Vec<f64> = centre.iter().zip(worst).map(|(c, w)| c + factor * (c - w)).collect();
            (loss(&at), at)
        };
        let reflected = towards(&simplex[n].1, 1.0);
        if reflected.0 < simplex[0].0 {
            let expanded = towards(&simplex[n].1, 2.0);
            simplex[n] = if expanded.0 < reflected.0 { expanded } else { reflected };
        } else if reflected.0 < simplex[n - 1].0 {
            simplex[n] = reflected;
        } else {
            let contracted = towards(&simplex[n].1, -0.5);
            if contracted.0 < simplex[n].0 {
                simplex[n] = contracted;
            } else {
                shrink(loss, &mut simplex);
            }
        }
    }
    simplex.sort_by(order);
    simplex.swap_remove(0).1
}

/// Moves every vertex half of the way to the best.
fn shrink(loss: &mut impl FnMut(&[f64]) -> f64, simplex: &mut [Vertex]) {
    let best = simplex[0].1.clone();
    for (value, at) in &mut simplex[1..] {
        at.iter_mut().zip(&best).for_each(|(x, best)| *x = f64::midpoint(*x, *best));
        *value = loss(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: Bounds = Bounds { least: 0.0, most: 1.0, start: 0.5 };

    #[test]
    fn the_minimum_is_found_within_the_bounds_and_at_them() {
        let inside = minimise(|x| (x[0] - 0.3).powi(2) + (x[0] - x[1] + 0.4).powi(2), &[UNIT, UNIT]);
        assert!((inside[0] - 0.3).abs() < 1e-3 && (inside[1] - 0.7).abs() < 1e-3, "{inside:?}");
        let beyond = minimise(|x| (x[0] - 3.0).powi(2), &[UNIT]);
        assert!(beyond[0] > 0.99 && beyond[0] <= 1.0, "{beyond:?}");
    }
}
