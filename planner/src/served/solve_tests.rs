use super::*;
use forerun_sim::rng::Stream;

/// Two constants, of which the observations see the sum, and in their second half also the first alone.
fn observations(truth: [f64; 2], noise: f64, seed: u64) -> Vec<Observation> {
    let mut stream = Stream::new(seed, "noise");
    (0..80)
        .map(|i| Observation {
            log: prediction(&truth, i) + noise * stream.normal(),
            count: 25.0,
            kind: i / 40,
            shape: i / 40,
            cluster: i % 40,
        })
        .collect()
}

fn prediction(at: &[f64], i: usize) -> f64 {
    if i < 40 { at[0] + at[1] + 0.01 * i as f64 } else { at[0] + 0.01 * i as f64 }
}

fn predict(points: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, Error> {
    Ok(points.iter().map(|at| (0..80).map(|i| prediction(at, i)).collect()).collect())
}

const WIDE: Known = Known { mean: 0.0, deviation: 1.0, least: -3.0, most: 3.0 };

fn everything() -> Scope {
    Scope { used: vec![true; 80], free: vec![true; 2] }
}

#[test]
fn constants_are_found_with_their_uncertainty() {
    let (mut within, draws) = (0, 200);
    for seed in 0..draws {
        let truth = [0.4, -0.3];
        let observations = observations(truth, 0.05, seed);
        let problem = Problem { observations: &observations, known: &[WIDE; 2], predict: &predict };
        let solution = problem.solve(&everything(), vec![0.0; 2], None).unwrap();
        let covariance = problem.covariance(&solution, &everything());
        for (place, planted) in truth.iter().enumerate() {
            let deviation = covariance.deviation(place);
            within += u32::from((solution.at[place] - planted).abs() < 1.68 * deviation);
            assert!((0.004..0.03).contains(&deviation), "{deviation}");
        }
    }
    let share = f64::from(within) / (2.0 * draws as f64);
    assert!((0.84..0.97).contains(&share), "90 % intervals hold the truth in {share} of the draws");
}

#[test]
fn what_is_seen_only_in_a_sum_is_known_to_be_confounded() {
    let observations = observations([0.4, -0.3], 0.05, 7);
    let problem = Problem { observations: &observations, known: &[WIDE; 2], predict: &predict };
    let half = Scope { used: (0..80).map(|i| i < 40).collect(), free: vec![true; 2] };
    let solution = problem.solve(&half, vec![0.0; 2], None).unwrap();
    assert!((solution.at[0] + solution.at[1] - 0.1).abs() < 0.05, "the sum is known");
    let covariance = problem.covariance(&solution, &half);
    assert!(covariance.deviation(0) > 0.6 && covariance.deviation(1) > 0.6, "neither is by itself");
    let (other, correlation) = covariance.confounded(0).unwrap();
    assert!(other == 1 && correlation < -0.95, "{correlation}");
}

#[test]
fn a_few_wild_observations_do_not_decide() {
    let mut observations = observations([0.4, -0.3], 0.02, 3);
    observations.iter_mut().step_by(20).for_each(|o| o.log += 5.0);
    let problem = Problem { observations: &observations, known: &[WIDE; 2], predict: &predict };
    let solution = problem.solve(&everything(), vec![0.0; 2], None).unwrap();
    assert!((solution.at[0] - 0.4).abs() < 0.03 && (solution.at[1] + 0.3).abs() < 0.03, "{:?}", solution.at);
}

#[test]
fn noise_draws_no_line() {
    let mut stream = Stream::new(5, "noise");
    let mut values = |height: f64, rise: f64| -> Vec<(f64, f64)> {
        (0..40).map(|i| (f64::from(i), height + rise * f64::from(i) + stream.uniform() - 0.5)).collect()
    };
    let noise = Line::through(&values(0.0, 0.0)).unwrap();
    assert!(noise.at(0.0) == 0.0 && noise.at(39.0) == 0.0, "{noise:?}");
    let line = Line::through(&values(3.0, 0.5)).unwrap();
    assert!((line.at(10.0) - 8.0).abs() < 0.3, "{line:?}");
}
