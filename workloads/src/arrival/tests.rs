//! Rates, gaps and refusals of arrival processes.

use std::path::Path;

use forerun_sim::time::Time;

use super::*;

fn start(text: &str, seed: u64) -> Arrivals {
    let arrival: Arrival = serde_saphyr::from_str(text).unwrap();
    arrival.process(Path::new(".")).unwrap().start(seed, None).unwrap()
}

fn gaps(text: &str, count: usize) -> Vec<f64> {
    let times: Vec<Time> = start(text, 11).take(count).collect();
    times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64()).collect()
}

fn mean_and_cv(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (mean, variance.sqrt() / mean)
}

#[test]
fn constant_arrivals_are_evenly_spaced_from_zero() {
    let times: Vec<u64> = start("{constant: {rate: 3}}", 1).take(4).map(Time::as_nanos).collect();
    assert_eq!(times, [0, 333_333_333, 666_666_667, 1_000_000_000], "no drift");
}

#[test]
fn renewal_gaps_have_the_stated_rate_and_cv() {
    for (text, cv) in [
        ("{poisson: {rate: 20}}", 1.0),
        ("{gamma: {rate: 20, cv: 2.5}}", 2.5),
        ("{weibull: {rate: 20, cv: 2}}", 2.0),
        ("{weibull: {rate: 20, cv: 0.5}}", 0.5),
    ] {
        let (mean, sampled_cv) = mean_and_cv(&gaps(text, 200_000));
        let bound = 5.0 * cv / 20.0 / 200_000f64.sqrt();
        assert!((mean - 0.05).abs() < bound, "{text}: mean gap {mean}");
        assert!((sampled_cv / cv - 1.0).abs() < 0.05, "{text}: cv {sampled_cv}");
    }
}

#[test]
fn modulated_processes_keep_their_mean_rate_and_are_burstier_than_poisson() {
    for text in [
        "{on_off: {on: {exponential: {mean: 2s}}, off: {exponential: {mean: 6s}}, rate: 40}}",
        "{on_off: {on: 2s, off: 6s, rate: {lognormal: {median: 40, sigma: 0.3}}, cv: 1.4}}",
        "{mmpp: {rates: [0, 5, 30], sojourn: [2s, 1s, 500ms]}}",
    ] {
        let stated = start_rate(text);
        let (mean, cv) = mean_and_cv(&gaps(text, 200_000));
        assert!((1.0 / mean / stated - 1.0).abs() < 0.06, "{text}: {} against {stated}", 1.0 / mean);
        assert!(cv > 1.5, "{text}: cv {cv}");
    }
}

fn start_rate(text: &str) -> f64 {
    let arrival: Arrival = serde_saphyr::from_str(text).unwrap();
    arrival.process(Path::new(".")).unwrap().mean_rate()
}

#[test]
fn a_day_peaks_when_it_says_so() {
    let text = "{diurnal: {rate: 2, amplitude: 0.8, peak_at: 18h}}";
    let hours: Vec<u64> = start(text, 4)
        .take_while(|at| at.as_secs_f64() < 86_400.0)
        .map(|at| at.as_nanos() / 3_600_000_000_000)
        .collect();
    let in_hour = |hour: u64| hours.iter().filter(|&&h| h == hour).count() as f64;
    assert!((hours.len() as f64 / 172_800.0 - 1.0).abs() < 0.02, "{} arrivals", hours.len());
    let swing = in_hour(17) / in_hour(5);
    assert!((swing / 9.0 - 1.0).abs() < 0.2, "peak over trough {swing}, (1 + 0.8) / (1 - 0.8) expected");
}

#[test]
fn a_rate_from_outside_replaces_the_mean() {
    let arrival: Arrival = serde_saphyr::from_str("{mmpp: {rates: [1, 30], sojourn: [2s, 1s]}}").unwrap();
    let process = arrival.process(Path::new(".")).unwrap();
    let last = process.start(3, Some(100.0)).unwrap().nth(200_000).unwrap();
    let rate = 200_000.0 / last.as_secs_f64();
    assert!((rate / 100.0 - 1.0).abs() < 0.08, "{rate}");
}

#[test]
fn impossible_processes_are_refused() {
    for (text, part) in [
        ("{poisson: {rate: 0}}", "`rate` is 0, must be above 0"),
        ("{gamma: {rate: 1, cv: 0}}", "for even spacing"),
        ("{mmpp: {rates: [1, 2], sojourn: [1s]}}", "2 rates and 1 sojourn"),
        ("{mmpp: {rates: [0, 0], sojourn: [1s, 1s]}}", "less than one arrival"),
        ("{diurnal: {rate: 1, amplitude: 2}}", "`amplitude` is 2"),
        ("{diurnal: {rate: 1, amplitude: 1, period: 0}}", "`period` must be above 0"),
        ("{on_off: {on: 0, off: 0, rate: 5}}", "less than one arrival"),
    ] {
        let arrival: Arrival = serde_saphyr::from_str(text).unwrap();
        let error = arrival.process(Path::new(".")).unwrap_err().to_string();
        assert!(error.starts_with("`arrival`: ") && error.contains(part), "{text}: {error}");
    }
}

#[test]
fn misspelt_processes_and_fields_are_named() {
    let error = serde_saphyr::from_str::<Arrival>("{poison: {rate: 2}}").unwrap_err().to_string();
    assert!(error.contains("`poison` is not an arrival process: did you mean `poisson`?"), "{error}");
    let error = serde_saphyr::from_str::<Arrival>("{poisson: {rat: 2}}").unwrap_err().to_string();
    assert!(error.contains("rat"), "{error}");
    let error = serde_saphyr::from_str::<Arrival>("20").unwrap_err().to_string();
    assert!(error.contains("written for example {poisson: {rate: 20}}"), "{error}");
}

#[test]
fn arrivals_end_where_simulated_time_ends() {
    let arrivals = start("{poisson: {rate: 1e-9}}", 1);
    assert!(arrivals.count() < 100);
}

#[test]
fn processes_survive_being_written_and_read() {
    for text in [
        "{constant: {rate: 3}}",
        "{weibull: {rate: 20, cv: 2}}",
        "{on_off: {on: 2s, off: {sum: [2s, {weibull: {shape: 0.5, scale: 14s}}]}, rate: 9, cv: 1.4}}",
        "{mmpp: {rates: [1, 30], sojourn: [2m, 500ms]}}",
        "{diurnal: {rate: 2, amplitude: 0.8, peak_at: 18h}}",
    ] {
        let arrival: Arrival = serde_saphyr::from_str(text).unwrap();
        let written = serde_json::to_value(&arrival).unwrap();
        assert_eq!(serde_json::from_value::<Arrival>(written).unwrap(), arrival, "{text}");
    }
}
