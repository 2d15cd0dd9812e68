//! One Kubernetes object, and values in it by their path, with errors that name both.

use serde_json::Value;

use crate::error::InputError;

/// A part of an object: where it is, and what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'a>(&'a Value);

impl<'a> Object<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        Self(value)
    }

    /// Its kind; `?` when it has none.
    pub(super) fn kind(self) -> &'a str {
        self.text("kind").unwrap_or("?")
    }

    /// Its name; `unnamed` when it has none.
    pub(super) fn name(self) -> &'a str {
        self.text("metadata.name").unwrap_or("unnamed")
    }

    /// `Deployment decode`: how messages call it.
    pub(super) fn place(self) -> String {
        format!("{} {}", self.kind(), self.name())
    }

    /// What is at `path`, whose parts are separated by points.
    pub(super) fn at(self, path: &str) -> Option<Self> {
        path.split('.').try_fold(self.0, |value, part| value.get(part)).filter(|v| !v.is_null()).map(Self)
    }

    /// The text at `path`.
    pub(super) fn text(self, path: &str) -> Option<&'a str> {
        self.at(path)?.0.as_str()
    }

    /// The elements of the list at `path`; none when it is no list.
    pub(super) fn list(self, path: &str) -> impl Iterator<Item = Self> + use<'a> {
        let list = self.at(path).and_then(|at| at.0.as_array());
        list.map(Vec::as_slice).unwrap_or_default().iter().map(Self)
    }

    /// The entries of the map at `path`; none when it is no map.
    pub(super) fn entries(self, path: &str) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let map = self.at(path).and_then(|at| at.0.as_object());
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), Self(value)))
    }

    /// The value itself as text: a string, or a number or truth value as it is written.
    pub(super) fn scalar(self) -> Option<String> {
        match self.0 {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        }
    }

    /// The whole number at `path`, which may be written as text, as quantities are.
    ///
    /// # Errors
    /// When something else is there.
    pub(super) fn whole(self, path: &str) -> Result<Option<u32>, InputError> {
        let Some(found) = self.at(path) else { return Ok(None) };
        let number = found.scalar().and_then(|text| text.parse().ok());
        number.map(Some).ok_or_else(|| {
            InputError::new(format!(
                "`{path}` is {}: a whole number from 0 to {} is expected",
                found.0,
                u32::MAX
            ))
        })
    }

    /// The texts of the list at `path`, numbers as they are written.
    ///
    /// # Errors
    /// When there is something else than a list of single values.
    pub(super) fn words(self, path: &str) -> Result<Vec<String>, InputError> {
        let wrong =
            |what: &Value| InputError::new(format!("`{path}` has {what}: a list of texts is expected"));
        match self.at(path) {
            None => Ok(Vec::new()),
            Some(Self(Value::Array(list))) => {
                list.iter().map(|word| Self(word).scalar().ok_or_else(|| wrong(word))).collect()
            }
            Some(Self(other)) => Err(wrong(other)),
        }
    }
}
