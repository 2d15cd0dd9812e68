use super::*;
use forerun_sim::rng::Stream;

/// Draws of each claim about coverage: its standard error is then 0.5 %.
const DRAWS: usize = 2000;

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-4 * expected.abs(), "{found} for {expected}");
}

/// Share of draws for which `covers` holds.
fn share(name: &str, mut covers: impl FnMut(&mut Stream) -> bool) -> f64 {
    let mut stream = Stream::new(11, name);
    (0..DRAWS).filter(|_| covers(&mut stream)).count() as f64 / DRAWS as f64
}

fn assert_covers_95(name: &str, covers: impl FnMut(&mut Stream) -> bool) {
    let share = share(name, covers);
    assert!((0.93..=0.97).contains(&share), "{name}: covered in {share} of the draws");
}

fn normals(stream: &mut Stream, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
    (0..count).map(|_| mean + deviation * stream.normal()).collect()
}

#[test]
fn quantiles_and_tails_of_students_t_are_those_of_the_tables() {
    // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    for (freedom, probability, t) in
        [(1.0, 0.975, 12.706), (9.0, 0.975, 2.262), (9.0, 0.95, 1.833), (30.0, 0.995, 2.750)]
    {
        assert!((t_quantile(freedom, probability) - t).abs() < 5e-4);
        assert!((t_upper_tail(freedom, t) - (1.0 - probability)).abs() < 5e-5);
    }
}

#[test]
fn the_difference_of_students_sleep_data_is_as_published() {
    // Student (1908), as in R's `sleep`: t.test(paired = TRUE) gives t = -4.0621, df = 9, p = 0.002833, interval
    // -2.4598858 to -0.7001142; Welch's test t = -1.8608, df = 17.776, p = 0.07939, interval -3.3654832 to 0.2054832.
    let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
    let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    let paired = Difference::of_pairs(&differences).unwrap();
    near(paired.p_value(), 0.002_833);
    near(paired.interval(0.95).low, -2.459_885_8);
    near(paired.interval(0.95).high, -0.700_114_2);
    let welch = Difference::welch(&second, &first).unwrap();
    near(welch.degrees_of_freedom, 17.776);
    near(welch.p_value(), 0.079_39);
    near(welch.interval(0.95).low, -3.365_483_2);
    near(welch.interval(0.95).high, 0.205_483_2);
}

#[test]
fn too_few_values_have_no_interval_and_equal_ones_no_width() {
    assert!(Sample::of(&[]).is_none() && Difference::of_pairs(&[1.0]).is_none());
    assert_eq!(Sample::of(&[3.0]).unwrap().interval(0.95), None);
    let equal = Difference::of_pairs(&[0.0; 5]).unwrap();
    assert_eq!((equal.p_value(), equal.equivalence_p_value(0.0)), (1.0, 0.0));
    let shifted = Difference::of_pairs(&[2.0; 5]).unwrap();
    assert_eq!((shifted.p_value(), shifted.equivalence_p_value(1.0)), (0.0, 1.0));
}

#[test]
fn intervals_of_a_mean_cover_it_in_95_of_100_samples() {
    assert_covers_95("mean of 10 normals", |stream| {
        let sample = Sample::of(&normals(stream, 10, 7.0, 3.0)).unwrap();
        sample.interval(0.95).unwrap().contains(7.0)
    });
}

#[test]
fn intervals_of_a_paired_difference_cover_it_though_the_two_share_their_traffic() {
    assert_covers_95("paired", |stream| {
        let pair = |stream: &mut Stream| {
            let traffic = 10.0 * stream.normal();
            (traffic + 2.0 + stream.normal()) - (traffic + stream.normal())
        };
        let differences: Vec<f64> = (0..10).map(|_| pair(stream)).collect();
        Difference::of_pairs(&differences).unwrap().interval(0.95).contains(2.0)
    });
}

#[test]
fn welchs_intervals_cover_though_variances_and_sizes_differ() {
    assert_covers_95("welch", |stream| {
        let (few, many) = (normals(stream, 6, 1.0, 9.0), normals(stream, 20, 4.0, 1.0));
        Difference::welch(&few, &many).unwrap().interval(0.95).contains(3.0)
    });
}

#[test]
fn batch_means_cover_the_mean_of_a_correlated_run_where_single_values_do_not() {
    // An autoregressive run: x' = 0.8 x + noise, 3200 values in 32 windows.
    let run = |stream: &mut Stream| {
        let mut x = stream.normal() / 0.6;
        (0..3200)
            .map(|_| {
                x = 0.8 * x + stream.normal();
                x
            })
            .collect::<Vec<f64>>()
    };
    assert_covers_95("batch means", |stream| {
        let means = run(stream).chunks(100).map(|window| window.iter().sum::<f64>() / 100.0).collect();
        let batches = Batches::of(means);
        Sample::of(&batches.values).unwrap().interval(0.95).unwrap().contains(0.0)
    });
    let naive =
        share("naive", |stream| Sample::of(&run(stream)).unwrap().interval(0.95).unwrap().contains(0.0));
    assert!(naive < 0.6, "taken as independent they cover in {naive}");
}

#[test]
fn windows_cover_a_percentile() {
    // 32 windows of 50 exponential values: the 95th percentile is ln 20.
    assert_covers_95("percentile", |stream| {
        let mut values: Vec<(f64, usize)> = (0..1600).map(|i| (stream.exponential(), i / 50)).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let spread = Difference::of_pairs(&percentile_values(&values, 32, 0.95).unwrap()).unwrap();
        let whole = values[1519].0;
        Difference { mean: whole, ..spread }.interval(0.95).contains(20_f64.ln())
    });
}

#[test]
fn pseudo_values_of_a_mean_are_the_windows_means() {
    let values = [1.0, 5.0, 3.0, 7.0];
    let without: Vec<f64> = values.iter().map(|value| (16.0 - value) / 3.0).collect();
    assert_eq!(pseudo_values(4.0, &without), values);
}

#[test]
fn windows_that_depend_on_each_other_are_merged_and_others_are_not() {
    let merged = share("merge", |stream| Batches::of(normals(stream, 32, 0.0, 1.0)).values.len() < 32);
    assert!(merged < 0.07, "independent windows were merged in {merged} of the draws");
    let trend = Batches::of((0..32).map(f64::from).collect());
    assert!(trend.values.len() == 8 && trend.dependent && trend.lag_1 > 0.5);
}

#[test]
fn equivalence_is_shown_when_both_sides_are_ruled_out() {
    let differences = [0.1, -0.2, 0.15, -0.05, 0.0, 0.1, -0.1, 0.05];
    let difference = Difference::of_pairs(&differences).unwrap();
    assert!(difference.equivalence_p_value(1.0) < 0.001);
    assert!(difference.equivalence_p_value(0.05) > 0.05);
    // As the interval says: within the margin at 5 % is the 90 % interval within it.
    let bound = difference.interval(0.90);
    near(difference.equivalence_p_value(bound.high.abs().max(bound.low.abs())), 0.05);
    let wrong = share("equivalence", |stream| {
        let differences = normals(stream, 10, 1.0, 1.0);
        Difference::of_pairs(&differences).unwrap().equivalence_p_value(1.0) < 0.05
    });
    assert!(wrong < 0.065, "a difference at the margin passed for none in {wrong}");
}

#[test]
fn as_many_runs_as_are_asked_for_show_the_difference_with_the_power_asked_for() {
    let pilot =
        Difference { mean: 0.5, standard_error: 1.0 / 10_f64.sqrt(), degrees_of_freedom: 9.0, runs: 10 };
    let runs = pilot.runs_needed(0.05, 0.8).unwrap();
    // R: power.t.test(delta = 0.5, sd = 1, power = 0.8, type = "paired") gives n = 33.4.
    assert!((33..=35).contains(&runs), "{runs}");
    let shown = share("power", |stream| {
        Difference::of_pairs(&normals(stream, runs as usize, 0.5, 1.0)).unwrap().p_value() < 0.05
    });
    assert!((0.77..0.84).contains(&shown), "{shown}");
    let none = Difference { mean: 0.0, ..pilot };
    assert_eq!(none.runs_needed(0.05, 0.8), None);
}

#[test]
fn holm_adjusts_as_published() {
    // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm") gives 0.03 0.06 0.06 0.02.
    for (found, expected) in holm(&[0.01, 0.04, 0.03, 0.005]).into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
        near(found, expected);
    }
    assert_eq!(holm(&[0.6, 0.9]), [1.0, 1.0]);
    let false_alarms = share("holm", |stream| {
        let p_values: Vec<f64> =
            (0..10).map(|_| Difference::of_pairs(&normals(stream, 8, 0.0, 1.0)).unwrap().p_value()).collect();
        holm(&p_values).iter().any(|&p| p < 0.05)
    });
    assert!(false_alarms < 0.065, "{false_alarms}");
}
