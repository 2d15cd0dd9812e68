//! What the YAML and JSON libraries say, in words that a user of scenarios knows.

use serde_saphyr::Error as YamlError;

use crate::error::{InputError, hint};

/// Keys of the published format that this version does not model, and what they would do.
const NOT_MODELLED: [(&str, &str); 3] =
    [("autoscaling", "autoscaling"), ("cache", "a warm start"), ("vllm", "other vLLM versions than 0.32")];

/// The error of `text`, with line and column in front.
pub(crate) fn yaml_error(error: &YamlError, text: &str) -> InputError {
    let error = error.without_snippet();
    let place = error.location().map_or_else(String::new, |at| format!("{}:{}: ", at.line(), at.column()));
    InputError::new(format!("{place}{}", yaml_words(error, text)))
}

fn yaml_words(error: &YamlError, text: &str) -> String {
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        YamlError::InvalidScalar { ty, .. } => match scalar_at(error, text) {
            "" => format!("{} is expected here", type_words(ty)),
            value => format!("`{value}` is not {}", type_words(ty)),
        },
        YamlError::NonFiniteFloat { value, .. } => format!("`{value}` is not a finite number"),
        YamlError::DuplicateMappingKey { key, .. } => {
            format!("the key `{}` is there twice: keep one", key.as_deref().unwrap_or("?"))
        }
        YamlError::MultipleDocuments { .. } => {
            "a second document begins here: a scenario is one; remove the `---` and what follows it"
                .to_owned()
        }
        YamlError::Unexpected { expected, .. } => match *expected {
            "mapping start" => "a map is expected here, for example {name: value}".to_owned(),
            "sequence start" => "a list is expected here, for example [a, b]".to_owned(),
            "string scalar" => "text is expected here".to_owned(),
            other => format!("{other} is expected here"),
        },
        other => {
            // The library appends its own "at line .., column .."; the place in front says it better.
            let message = other.to_string();
            let message = message.split(" at line ").next().unwrap_or(&message);
            let message = message.trim_start_matches("error: ");
            limit_words(message).map_or_else(|| type_phrase(message), str::to_owned)
        }
    }
}

/// The library's limits against bombs, which it reports in several shapes.
fn limit_words(message: &str) -> Option<&'static str> {
    if message.contains("budget breached: Depth") || message.contains("recursion limit") {
        Some("nested deeper than any scenario is: flatten it")
    } else if message.contains("budget breached") || (message.contains("alias") && message.contains("limit"))
    {
        Some("more values than any scenario has: remove aliases (`*name`) that repeat one another")
    } else {
        None
    }
}

/// The plain value in `text` at which `error` points.
fn scalar_at<'a>(error: &YamlError, text: &'a str) -> &'a str {
    let Some(at) = error.location() else { return "" };
    let line = text.lines().nth((at.line() as usize).saturating_sub(1)).unwrap_or_default();
    let start =
        line.char_indices().nth((at.column() as usize).saturating_sub(1)).map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    let end = rest.find([',', '}', ']', '#']).unwrap_or(rest.len());
    rest[..end].trim()
}

/// What a value of type `ty` is.
fn type_words(ty: &str) -> &str {
    match ty {
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0 to 18446744073709551615",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "i32" | "i64" => "a whole number",
        "f64" | "floating point" => "a number",
        "bool" | "boolean" | "a boolean" => "true or false",
        "a sequence" => "a list",
        other => other,
    }
}

/// "..., expected u32" with the type in words.
fn type_phrase(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((found, ty)) => format!("{found}, expected {}", type_words(ty)),
        None => message.to_owned(),
    }
}

fn unknown_key(key: &str, expected: &[&str]) -> String {
    if let Some((_, what)) = NOT_MODELLED.iter().find(|(name, _)| *name == key) {
        return format!("`{key}` is not modelled by this version ({what}): remove it");
    }
    let known = expected.join(", ");
    format!("unknown key `{key}`{}; known here: {known}", hint(key, expected.iter().copied()))
}

/// The error of a scenario after an override: it has no line.
pub(super) fn json_error(error: &serde_json::Error) -> InputError {
    let message = error.to_string();
    let mut quoted = message.split('`').skip(1).step_by(2);
    InputError::new(match (message.starts_with("unknown field `"), quoted.next()) {
        (true, Some(key)) => unknown_key(key, &quoted.collect::<Vec<_>>()),
        _ => type_phrase(&message),
    })
}

/// What is wrong with the YAML of one value.
pub(super) fn value_error(error: &YamlError, value: &str) -> String {
    yaml_words(error.without_snippet(), value)
}
