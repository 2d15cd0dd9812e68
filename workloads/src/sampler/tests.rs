//! What laws give when they are drawn from.

use std::io::Write;

use super::*;

const DRAWS: u32 = 200_000;

fn sampler(text: &str) -> Sampler<Rate> {
    let law: Law<Rate> = serde_saphyr::from_str(text).unwrap();
    law.sampler("law", Path::new(".")).unwrap()
}

/// Sample mean and standard deviation.
fn moments(sampler: &Sampler<Rate>) -> (f64, f64) {
    let mut stream = Stream::new(5, "law");
    let values: Vec<f64> = (0..DRAWS).map(|_| sampler.draw(&mut stream)).collect();
    let mean = values.iter().sum::<f64>() / f64::from(DRAWS);
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / f64::from(DRAWS);
    (mean, variance.sqrt())
}

#[test]
fn sample_means_agree_with_the_stated_means_within_five_sigma() {
    for text in [
        "7",
        "{lognormal: {median: 900, sigma: 0.8}}",
        "{gamma: {mean: 40, cv: 2}}",
        "{exponential: {mean: 3}}",
        "{uniform: {min: 2, max: 6}}",
        "{weibull: {shape: 0.539, scale: 14.48}}",
        "{empirical: [1, 5, 100]}",
        "{mix: [{weight: 3, law: 1}, {weight: 1, law: {exponential: {mean: 9}}}]}",
        "{sum: [2, {exponential: {mean: 3}}]}",
        "{clip: {law: {exponential: {mean: 3}}, min: 1, max: 4}}",
    ] {
        let sampler = sampler(text);
        let (mean, deviation) = moments(&sampler);
        let stated = sampler.mean();
        // The stated mean of a clipped law is itself sampled.
        let bound = 5.0 * deviation * (1.0 / f64::from(DRAWS) + 1.0 / f64::from(MEAN_DRAWS)).sqrt();
        assert!((mean - stated).abs() <= bound + 1e-9, "{text}: {mean} against {stated}");
    }
}

#[test]
fn parameters_mean_what_they_say() {
    let (mean, deviation) = moments(&sampler("{gamma: {mean: 40, cv: 0.5}}"));
    assert!((deviation / mean - 0.5).abs() < 0.01, "cv {}", deviation / mean);
    let lognormal = sampler("{lognormal: {median: 900, sigma: 1.2}}");
    let mut stream = Stream::new(1, "median");
    let below = (0..DRAWS).filter(|_| lognormal.draw(&mut stream) < 900.0).count();
    assert!((below as f64 / f64::from(DRAWS) - 0.5).abs() < 0.006, "{below} below the median");
}

#[test]
fn a_file_of_observed_values_is_drawn_from_alone() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "input_tokens\n10\n20\n\n30").unwrap();
    let law: Law<Tokens> = Law::Empirical(Observed::File(file.path().to_owned()));
    let sampler = law.sampler("input_tokens", Path::new("/")).unwrap();
    let mut stream = Stream::new(1, "file");
    let mut seen: Vec<u32> = (0..100).map(|_| sampler.draw(&mut stream)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [10, 20, 30]);
}

#[test]
fn a_bad_line_of_observed_values_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "10\nmany").unwrap();
    let law: Law<Tokens> = Law::Empirical(Observed::File(file.path().to_owned()));
    let error = law.sampler("input_tokens", Path::new("/")).unwrap_err().to_string();
    assert!(
        error.ends_with(":2: `many` is not a number of tokens: one number per line is expected"),
        "{error}"
    );
}

#[test]
fn impossible_laws_are_refused() {
    for (text, part) in [
        ("{lognormal: {median: 0, sigma: 1}}", "`median` is 0"),
        ("{lognormal: {median: 1000, sigma: 9}}", "its mean of"),
        ("{gamma: {mean: 5, cv: 0}}", "`cv` is 0, must be above 0"),
        ("{uniform: {min: 5, max: 2}}", "`min` 5 is above `max` 2"),
        ("{mix: []}", "nothing to choose from"),
        ("{mix: [{weight: -1, law: 5}]}", "weights are above 0"),
        ("{empirical: []}", "lists no value"),
        ("{sum: []}", "lists no law"),
        ("0", "its mean of 0 is less than 0.5"),
    ] {
        let law: Law<Tokens> = serde_saphyr::from_str(text).unwrap();
        let error = law.sampler("input_tokens", Path::new(".")).unwrap_err().to_string();
        assert!(error.starts_with("`input_tokens`: ") && error.contains(part), "{text}: {error}");
    }
}

#[test]
fn token_draws_are_whole_and_at_least_one() {
    let law: Law<Tokens> = serde_saphyr::from_str("{gamma: {mean: 0.6, cv: 3}}").unwrap();
    let sampler = law.sampler("output_tokens", Path::new(".")).unwrap();
    let mut stream = Stream::new(3, "tokens");
    assert!((0..1000).all(|_| sampler.draw(&mut stream) >= 1));
}
