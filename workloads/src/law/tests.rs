//! How laws are written, and what is said about wrong ones.

use super::*;

fn yaml<U: Unit>(text: &str) -> Result<Law<U>, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

#[test]
fn every_form_reads_the_same_from_yaml_and_from_json() {
    let forms = [
        ("30s", r#""30s""#),
        ("12.5", "12.5"),
        ("{lognormal: {median: 30s, sigma: 1}}", r#"{"lognormal": {"median": 30, "sigma": 1}}"#),
        ("{uniform: {min: 0, max: 1h}}", r#"{"uniform": {"min": 0, "max": "60m"}}"#),
        ("{empirical: a.csv}", r#"{"empirical": "a.csv"}"#),
        ("{empirical: [1, 2s]}", r#"{"empirical": [1, 2]}"#),
        (
            "{mix: [{weight: 1, law: 5}, {weight: 2, law: {sum: [1, {exponential: {mean: 3}}]}}]}",
            r#"{"mix": [{"weight": 1, "law": 5}, {"weight": 2, "law": {"sum": [1, {"exponential": {"mean": 3}}]}}]}"#,
        ),
        (
            "{clip: {law: {weibull: {shape: 1, scale: 2}}, max: 9}}",
            r#"{"clip": {"law": {"weibull": {"shape": 1, "scale": 2}}, "max": 9}}"#,
        ),
    ];
    for (left, right) in forms {
        let law = yaml::<Seconds>(left).unwrap();
        assert_eq!(law, serde_json::from_str(right).unwrap(), "{left}");
        let written = serde_json::to_value(&law).unwrap();
        assert_eq!(serde_json::from_value::<Law<Seconds>>(written).unwrap(), law, "{left}");
    }
}

#[test]
fn a_misspelt_law_is_told_the_nearest_name_and_its_place() {
    let error = yaml::<Tokens>("{lognorml: {median: 900, sigma: 0.8}}").unwrap_err();
    assert!(error.contains("`lognorml` is not a law: did you mean `lognormal`?"), "{error}");
    assert!(error.contains("line 1"), "{error}");
    let error = yaml::<Tokens>("{median: 900, sigma: 0.8}").unwrap_err();
    assert!(error.contains("`median` is not a law: known are lognormal, gamma"), "{error}");
}

#[test]
fn wrong_parameters_say_what_belongs_there() {
    for (text, part) in [
        ("{lognormal: {median: 900, sgma: 0.8}}", "sgma"),
        ("{gamma: {mean: 900}}", "cv"),
        ("{gamma: {mean: 1, cv: 1}, uniform: {min: 1, max: 2}}", "keep one"),
        ("nine", "`nine` is not a number of tokens: write for example 900"),
        ("-1", "`-1` is not a number of tokens"),
        ("1e300", "is not a number of tokens"),
        ("{exponential: {mean: {gamma: {mean: 1, cv: 1}}}}", "is not a number of tokens"),
        ("{}", "a law is written for example"),
    ] {
        let error = yaml::<Tokens>(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let error = yaml::<Seconds>("5 parsecs").unwrap_err();
    assert!(error.contains("`5 parsecs` is not a length of time"), "{error}");
}

#[test]
fn the_schema_knows_every_law() {
    let schema = serde_json::to_string(&schemars::schema_for!(Law<Tokens>)).unwrap();
    for name in <Law<Tokens> as OneOf>::NAMES {
        assert!(schema.contains(&format!("\"{name}\"")), "{name}: {schema}");
    }
    assert!(!schema.contains("constant"), "a number is written without a name");
    assert!(schema.contains("Always the same"), "{schema}");
}
