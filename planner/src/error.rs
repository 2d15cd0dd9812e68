//! Errors: what is wrong with the input, and what is wrong with Forerun.

use forerun_sim::fleet::RunError;
use forerun_workloads::error::WorkloadError;

/// The input is wrong: one message that names the place, what is wrong and how to mend it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InputError(String);

impl InputError {
    /// An input error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(one_line(&message.into()))
    }

    /// The same error, with the place in front.
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        Self::new(format!("{place}: {}", self.0))
    }
}

/// A message quotes what the user wrote, which may be megabytes or hold control characters: it stays one line
/// of bounded length, with its beginning (the place) and its end (the mend).
fn one_line(message: &str) -> String {
    const HEAD: usize = 1500;
    const TAIL: usize = 500;
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let count = message.chars().count();
    if count <= HEAD + TAIL {
        return message.chars().map(shown).collect();
    }
    let head = message.chars().take(HEAD).map(shown);
    let tail = message.chars().skip(count - TAIL).map(shown);
    head.chain(std::iter::once(" ... ".to_owned())).chain(tail).collect()
}

impl From<WorkloadError> for InputError {
    fn from(error: WorkloadError) -> Self {
        Self(error.to_string())
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input is wrong: exit code 2.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The user stopped the run.
    #[error("interrupted: nothing was written")]
    Interrupted,
    /// An invariant broke, a bug: exit code 3.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<RunError> for Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Source(error) => Self::Input(InputError::new(error.to_string())),
            RunError::Interrupted => Self::Interrupted,
            stuck @ RunError::Stuck { .. } => Self::Internal(stuck.to_string()),
        }
    }
}

/// The nearest of `known` to `name`, if any is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let near = known.into_iter().map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known));
    near.filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// `; did you mean "x"?`, or nothing.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let long = format!("file.yaml: `{}\n\u{1b}[31m` is wrong: mend it", "x".repeat(1 << 20));
        let message = InputError::new(long).to_string();
        assert!(message.len() < 3000 && !message.contains(['\n', '\u{1b}']));
        assert!(message.starts_with("file.yaml: `xxx") && message.ends_with("is wrong: mend it"));
    }
}
