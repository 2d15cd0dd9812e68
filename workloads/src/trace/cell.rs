//! Reading one value: times, whole numbers of tokens, names. Errors are phrases that follow the
//! name of the column.

use std::borrow::Cow;

use forerun_sim::time::{Span, Time};
use serde::Deserialize;
use serde_json::Value;

use super::clock::{Clock, Unit, date, duration, is_date};
use crate::record::TOKENS_MAX;

/// A value of a row, before it is understood.
#[derive(Clone, Copy)]
pub(super) enum Cell<'a> {
    /// No column, an empty field, or JSON null.
    Empty,
    /// A field of a CSV file.
    Text(&'a str),
    /// A value of a JSON object.
    Json(&'a Value),
}

impl<'a> Cell<'a> {
    /// A CSV field: empty text is no value.
    pub(super) fn of_field(text: &'a str) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Text(text) }
    }

    /// A JSON value: null and the empty string are no values.
    pub(super) fn of_json(value: Option<&'a Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Empty,
            Some(Value::String(text)) if text.trim().is_empty() => Self::Empty,
            Some(value) => Self::Json(value),
        }
    }

    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Empty)
    }

    /// How the value looks, for messages.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Empty => "empty".to_owned(),
            Self::Text(text) => shown(text),
            Self::Json(value) => shown(&value.to_string()),
        }
    }

    /// A name: text, or a JSON number.
    pub(super) fn name(self) -> Result<Option<String>, String> {
        match self {
            Self::Empty => Ok(None),
            Self::Text(text) => Ok(Some(text.to_owned())),
            Self::Json(Value::Number(number)) => Ok(Some(number.to_string())),
            Self::Json(Value::String(text)) if !text.contains('\0') => Ok(Some(text.trim().to_owned())),
            Self::Json(_) => Err(format!("is {}; a name is text or a number", self.shown())),
        }
    }

    /// The digits of a number; `None` when empty or of another type.
    fn number(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text.into()),
            Self::Json(Value::Number(number)) => Some(number.to_string().into()),
            Self::Empty | Self::Json(_) => None,
        }
    }

    /// A whole number in `i64`. `512.0` is one: spreadsheets and data frames write it so.
    fn whole(self) -> Option<i64> {
        let text = self.number()?;
        let digits = match text.split_once('.') {
            Some((digits, zeros)) if zeros.bytes().all(|byte| byte == b'0') => digits,
            _ => &text,
        };
        digits.parse().ok()
    }

    /// A number of tokens, zero included.
    pub(super) fn tokens(self) -> Result<Option<u32>, String> {
        if self.is_empty() {
            return Ok(None);
        }
        let tokens = self.whole().and_then(|whole| u32::try_from(whole).ok());
        match tokens.filter(|&tokens| tokens <= TOKENS_MAX) {
            Some(tokens) => Ok(Some(tokens)),
            None => {
                Err(format!("is {}; a whole number of tokens from 0 to {TOKENS_MAX} is needed", self.shown()))
            }
        }
    }

    /// A whole number in `i32`.
    pub(super) fn integer(self) -> Result<Option<i32>, String> {
        if self.is_empty() {
            return Ok(None);
        }
        let whole = self.whole().and_then(|whole| i32::try_from(whole).ok());
        whole.map(Some).ok_or_else(|| {
            format!("is {}; a whole number from {} to {} is needed", self.shown(), i32::MIN, i32::MAX)
        })
    }

    /// A length of time.
    pub(super) fn span(self, unit: Unit) -> Result<Option<Span>, String> {
        if self.is_empty() {
            return Ok(None);
        }
        let text = self.number().ok_or_else(|| format!("is {}; a number is needed", self.shown()))?;
        duration(&text, unit).map(Some)
    }

    /// A point in time: a number, or a date.
    pub(super) fn time(self, unit: Unit) -> Result<Option<(Time, Clock)>, String> {
        match self {
            Self::Empty => Ok(None),
            Self::Text(text) if is_date(text) => Ok(Some((date(text)?, Clock::Calendar))),
            Self::Json(Value::String(text)) => Ok(Some((date(text.trim())?, Clock::Calendar))),
            _ => {
                let since = self.span(unit)?;
                Ok(since.map(|since| (Time::ZERO + since, Clock::Counter)))
            }
        }
    }

    /// Block hashes: a JSON list of numbers or strings.
    pub(super) fn hashes(self, hashes: &mut Vec<u64>) -> Result<(), String> {
        let list: Result<Vec<BlockId>, _> = match self {
            Self::Empty => return Ok(()),
            Self::Text(text) => serde_json::from_str(text),
            Self::Json(value) => Vec::deserialize(value),
        };
        let list = list.map_err(|_| {
            let found = self.shown();
            format!("is {found}; a JSON list of whole numbers or strings is needed")
        })?;
        hashes.extend(list.into_iter().map(BlockId::number));
        Ok(())
    }
}

/// A block hash as exporters write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum BlockId<'a> {
    Unsigned(u64),
    /// Some runtimes hash into signed integers.
    Signed(i64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

impl BlockId<'_> {
    fn number(self) -> u64 {
        match self {
            Self::Unsigned(id) => id,
            Self::Signed(id) => id.cast_unsigned(),
            Self::Text(text) => name_hash(&text),
        }
    }
}

/// A stable number for a name: FNV-1a.
pub(super) fn name_hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `text` in quotes, escaped and cut, for messages.
pub(super) fn shown(text: &str) -> String {
    const CHARS: usize = 40;
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The first of `names` in a row, for messages.
pub(super) fn listed(names: &[&str]) -> String {
    const MOST: usize = 30;
    let more = if names.len() > MOST { ", ..." } else { "" };
    let first: Vec<String> = names.iter().take(MOST).map(|name| name.chars().take(40).collect()).collect();
    first.join(", ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_whole_numbers_within_bounds() {
        let tokens = |text| Cell::Text(text).tokens();
        assert_eq!(tokens("512"), Ok(Some(512)));
        assert_eq!(tokens("512.0"), Ok(Some(512)), "as data frames write it");
        assert_eq!(tokens("16777216"), Ok(Some(TOKENS_MAX)));
        for text in ["16777217", "-1", "1.5", "1e3", "NaN", "many", "99999999999999999999"] {
            assert!(tokens(text).is_err(), "{text}");
        }
        let json = serde_json::json!("512");
        assert!(Cell::Json(&json).tokens().is_err(), "a string is no number");
    }

    #[test]
    fn block_hashes_are_numbers_or_strings() {
        let read = |text| {
            let mut hashes = Vec::new();
            Cell::Text(text).hashes(&mut hashes).map(|()| hashes)
        };
        assert_eq!(read("[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(read("[-1]"), Ok(vec![u64::MAX]));
        assert_eq!(read(r#"["a", "b"]"#).unwrap()[0], name_hash("a"));
        for text in ["[1.5]", "[1", "{}", "1,2", "[null]", "[[1]]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
