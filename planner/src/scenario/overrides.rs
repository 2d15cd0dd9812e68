//! `--set pools.0.replicas=4`: one field of a scenario, by its path.

use std::str::FromStr;

use serde_json::Value;

use super::wording::value_error;
use crate::error::InputError;

/// One override.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    path: Vec<String>,
    value: Value,
    /// As the user wrote it, for messages.
    text: String,
}

impl FromStr for Override {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let wrong = |why: &str| {
            InputError::new(format!("--set {text}: {why}; write for example --set pools.0.replicas=4"))
        };
        let (path, value) = text.split_once('=').ok_or_else(|| wrong("there is no `=`"))?;
        let path: Vec<_> = path.split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(wrong("a part of the path is empty"));
        }
        // YAML, as in the file: `1`, `true`, `30s`, `{poisson: {rate: 20}}`.
        let value = match value.trim() {
            "" => Value::Null,
            value => serde_saphyr::from_str(value)
                .map_err(|e| wrong(&format!("the value cannot be read: {}", value_error(&e, value))))?,
        };
        Ok(Self { path, value, text: text.to_owned() })
    }
}

impl Override {
    /// Sets `path` to `value`.
    #[must_use]
    pub fn new(path: &str, value: Value) -> Self {
        Self { path: path.split('.').map(str::to_owned).collect(), text: format!("{path}={value}"), value }
    }

    /// The override as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Sets the field in `scenario`, making the maps and the next list element on its way.
    ///
    /// # Errors
    /// When the path leads through something that is neither map nor list, or beyond a list's end.
    pub fn apply(&self, scenario: &mut Value) -> Result<(), InputError> {
        let mut at = scenario;
        for (depth, part) in self.path.iter().enumerate() {
            if at.is_null() {
                *at = if part.parse::<usize>().is_ok() {
                    Value::Array(Vec::new())
                } else {
                    Value::Object(Default::default())
                };
            }
            at = match at {
                Value::Object(map) => map.entry(part.clone()).or_insert(Value::Null),
                Value::Array(list) => {
                    let count = list.len();
                    let index = part.parse::<usize>().ok().filter(|&index| index <= count);
                    let index = index.ok_or_else(|| {
                        InputError::new(format!(
                            "--set {}: `{part}` is not an index from 0 to {count}",
                            self.text
                        ))
                    })?;
                    if index == count {
                        list.push(Value::Null);
                    }
                    &mut list[index]
                }
                _ => {
                    let parent = self.path[..depth].join(".");
                    return Err(InputError::new(format!(
                        "--set {}: `{parent}` is a single value, it has no field `{part}`",
                        self.text
                    )));
                }
            };
        }
        *at = self.value.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn applied(mut scenario: Value, text: &str) -> Result<Value, InputError> {
        text.parse::<Override>()?.apply(&mut scenario)?;
        Ok(scenario)
    }

    #[test]
    fn a_field_is_set_wherever_it_is() {
        let pools = json!({"pools": [{"replicas": 1}, {"replicas": 2}]});
        assert_eq!(applied(pools.clone(), "pools.1.replicas=7").unwrap()["pools"][1]["replicas"], 7);
        assert_eq!(applied(pools, "pools.2.gpu=h200").unwrap()["pools"][2]["gpu"], "h200");
        let law = applied(json!({}), "workload.synthetic.arrival={poisson: {rate: 20}}").unwrap();
        assert_eq!(law["workload"]["synthetic"]["arrival"]["poisson"]["rate"], 20);
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for text in ["model", "=1", "a..b=1", "model.name=x", "pools.5.gpu=x", "pools.x=1"] {
            let scenario = json!({"model": "m", "pools": [{}]});
            assert!(applied(scenario, text).is_err(), "{text}");
        }
    }
}
