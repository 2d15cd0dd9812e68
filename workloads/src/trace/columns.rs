//! The columns of the generic trace: our names, the file's names for them, and their units.

use std::collections::BTreeMap;
use std::path::Path;

use super::cell::listed;
use super::clock::Unit;
use super::{TraceOptions, nearest};
use crate::error::WorkloadError;

/// A column of the generic trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Arrival,
    InputTokens,
    OutputTokens,
    Id,
    Tenant,
    Session,
    Turn,
    Think,
    Model,
    Adapter,
    Priority,
    Class,
    PrefixGroup,
    PrefixTokens,
    BlockHashes,
    BlockTokens,
    MaxTokens,
}

/// Names of all columns, in the order of [`Column`].
const NAMES: [&str; 17] = [
    "arrival_s",
    "input_tokens",
    "output_tokens",
    "id",
    "tenant",
    "session",
    "turn",
    "think_s",
    "model",
    "adapter",
    "priority",
    "class",
    "prefix_group",
    "prefix_tokens",
    "block_hashes",
    "block_tokens",
    "max_tokens",
];

impl Column {
    /// Those without which there is no trace.
    pub(super) const REQUIRED: [Self; 3] = [Self::Arrival, Self::InputTokens, Self::OutputTokens];

    /// Our name for it.
    pub(super) fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// Where each column is in a file: by name, or by number.
pub(super) type PerColumn<T> = [T; NAMES.len()];

/// What the user says about a file's columns.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    in_file: PerColumn<String>,
    mapped: PerColumn<bool>,
    pub(super) arrival: Unit,
    pub(super) think: Unit,
}

impl Columns {
    /// Reads `columns:` and `units:`.
    pub(super) fn new(options: &TraceOptions) -> Result<Self, WorkloadError> {
        let mut columns = Self {
            in_file: NAMES.map(str::to_owned),
            mapped: [false; NAMES.len()],
            arrival: Unit::SECONDS,
            think: Unit::SECONDS,
        };
        for (ours, theirs) in &options.columns {
            let Some(place) = NAMES.iter().position(|name| name == ours) else {
                return Err(WorkloadError::Spec(format!(
                    "`columns:` has `{ours}`, which is no column of a trace{}; it maps our name to the \
                     file's: `columns: {{arrival_s: send_time}}`. Our names: {}",
                    nearest(ours, NAMES),
                    NAMES.join(", ")
                )));
            };
            columns.in_file[place].clone_from(theirs);
            columns.mapped[place] = true;
        }
        columns.arrival = columns.unit(Column::Arrival, &options.units)?;
        columns.think = columns.unit(Column::Think, &options.units)?;
        let timed = [Column::Arrival.name(), Column::Think.name()];
        match options.units.keys().find(|name| !timed.contains(&name.as_str())) {
            Some(other) => Err(WorkloadError::Spec(format!(
                "`units:` has `{other}`; only {} have units",
                timed.join(" and ")
            ))),
            None => Ok(columns),
        }
    }

    /// The unit of `column`. A mapped name such as `send_time_us` contradicts seconds: a factor of a million
    /// is not left to chance.
    fn unit(&self, column: Column, units: &BTreeMap<String, String>) -> Result<Unit, WorkloadError> {
        let (ours, theirs) = (column.name(), self.in_file(column));
        if let Some(unit) = units.get(ours) {
            return Unit::named(unit).ok_or_else(|| {
                WorkloadError::Spec(format!(
                    "`units:` gives `{ours}` in `{unit}`; use one of {}",
                    Unit::NAMES
                ))
            });
        }
        let suffix = theirs.rsplit_once('_').map_or("", |(_, suffix)| suffix);
        match Unit::named(suffix) {
            Some(unit) if unit != Unit::SECONDS => Err(WorkloadError::Spec(format!(
                "`columns:` maps `{ours}` to `{theirs}`, which looks like {suffix}; say so with \
                 `units: {{{ours}: {suffix}}}` (or `s` if it is in seconds)"
            ))),
            _ => Ok(Unit::SECONDS),
        }
    }

    /// The file's name for `column`.
    pub(super) fn in_file(&self, column: Column) -> &str {
        &self.in_file[column as usize]
    }

    /// Finds every column in a header.
    pub(super) fn locate(
        &self,
        path: &Path,
        header: &[String],
    ) -> Result<PerColumn<Option<usize>>, WorkloadError> {
        let places: PerColumn<Option<usize>> =
            std::array::from_fn(|column| header.iter().position(|name| *name == self.in_file[column]));
        let needed = |place: usize| {
            self.mapped[place] || Column::REQUIRED.iter().any(|&column| column as usize == place)
        };
        match (0..NAMES.len()).find(|&place| places[place].is_none() && needed(place)) {
            Some(missing) => {
                let found = header.iter().map(String::as_str).collect::<Vec<_>>();
                let what = self.missing(missing, &found);
                Err(WorkloadError::row(path, 1, what))
            }
            None => Ok(places),
        }
    }

    /// The message that required `column` is not among `found`.
    pub(super) fn missing_column(&self, column: Column, found: &[&str]) -> String {
        self.missing(column as usize, found)
    }

    fn missing(&self, place: usize, found: &[&str]) -> String {
        let (ours, theirs) = (NAMES[place], &self.in_file[place]);
        format!(
            "no column `{theirs}`{}; the file has: {}. If it has another name, map it: \
             `columns: {{{ours}: NAME}}`",
            nearest(theirs, found.iter().copied()),
            listed(found)
        )
    }

    /// The mapped columns among those for which `seen` is false: the mapping names nothing.
    pub(super) fn mapped_in_vain(&self, seen: &PerColumn<bool>) -> Option<String> {
        let place = (0..NAMES.len()).find(|&place| self.mapped[place] && !seen[place])?;
        Some(format!("`columns:` maps `{}` to `{}`, which no row has", NAMES[place], self.in_file[place]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(columns: &[(&str, &str)], units: &[(&str, &str)]) -> TraceOptions {
        let owned = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs.map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        TraceOptions { columns: owned(columns), units: owned(units), ..TraceOptions::default() }
    }

    fn refusal(columns: &[(&str, &str)], units: &[(&str, &str)]) -> String {
        Columns::new(&options(columns, units)).unwrap_err().to_string()
    }

    #[test]
    fn a_mapping_of_an_unknown_column_names_the_nearest() {
        let error = refusal(&[("arival_s", "t")], &[]);
        assert!(error.contains("did you mean `arrival_s`?"), "{error}");
    }

    #[test]
    fn a_name_that_contradicts_seconds_needs_its_unit() {
        let mapping = [("arrival_s", "send_time_us")];
        let error = refusal(&mapping, &[]);
        assert!(error.contains("`units: {arrival_s: us}`"), "{error}");
        assert!(Columns::new(&options(&mapping, &[("arrival_s", "us")])).is_ok());
        assert!(Columns::new(&options(&mapping, &[("arrival_s", "s")])).is_ok());
    }

    #[test]
    fn units_are_checked() {
        assert!(refusal(&[], &[("arrival_s", "minutes")]).contains("s, ms, us, ns"));
        assert!(refusal(&[], &[("turn", "s")]).contains("arrival_s and think_s"));
    }

    #[test]
    fn a_missing_column_lists_the_header_and_the_mend() {
        let columns = Columns::new(&TraceOptions::default()).unwrap();
        let header = ["arrival", "input_tokens", "output_tokens"].map(str::to_owned);
        let error = columns.locate(Path::new("t.csv"), &header).unwrap_err().to_string();
        assert_eq!(
            error,
            "t.csv:1: no column `arrival_s`; did you mean `arrival`?; the file has: arrival, input_tokens, \
             output_tokens. If it has another name, map it: `columns: {arrival_s: NAME}`"
        );
    }
}
