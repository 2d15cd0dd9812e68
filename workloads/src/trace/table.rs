//! The generic trace: CSV with a header, or JSON lines, with columns that can be renamed.

use std::fmt;
use std::path::{Path, PathBuf};

use forerun_sim::request::Label;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Value};

use super::TraceOptions;
use super::cell::{Cell, name_hash};
use super::clock::Clock;
use super::columns::{Column, Columns, PerColumn};
use super::input::{CsvRows, Lines};
use super::mooncake::json_error;
use super::row::{Names, Prefix, Row, Rows, Turn};
use crate::error::WorkloadError;
use crate::record::Start;

/// How the rows are written.
enum Shape {
    Csv { rows: Box<CsvRows>, places: PerColumn<Option<usize>> },
    Json { lines: Lines, object: Map<String, Value>, seen: PerColumn<bool> },
}

/// A JSON object whose keys are all different.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut object = Map::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            match object.entry(key) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(first) => {
                    return Err(de::Error::custom(format!("`{}` is there twice: keep one", first.key())));
                }
            };
        }
        Ok(Object(object))
    }
}

pub(super) struct TableRows {
    path: PathBuf,
    shape: Shape,
    columns: Columns,
    /// The block size of rows that name none.
    block_tokens: Option<u32>,
    clock: Option<Clock>,
    /// The last turn seen of each session, for rows that do not number theirs.
    turns: Vec<u32>,
    number: u64,
    names: Names,
}

impl TableRows {
    pub(super) fn open(path: &Path, options: &TraceOptions, json: bool) -> Result<Self, WorkloadError> {
        let columns = Columns::new(options)?;
        let shape = if json {
            Shape::Json { lines: Lines::open(path)?, object: Map::new(), seen: PerColumn::default() }
        } else {
            let rows = CsvRows::open(path)?;
            let places = columns.locate(path, rows.header())?;
            Shape::Csv { rows: Box::new(rows), places }
        };
        Ok(Self {
            path: path.to_owned(),
            shape,
            columns,
            block_tokens: options.block_tokens,
            clock: None,
            turns: Vec::new(),
            number: 0,
            names: Names::default(),
        })
    }

    /// Goes to the next row; `None` at the end, or its line.
    fn advance(&mut self) -> Result<Option<u64>, WorkloadError> {
        match &mut self.shape {
            Shape::Csv { rows, .. } => Ok(rows.advance()?.then(|| rows.number())),
            Shape::Json { lines, object, seen } => {
                if !lines.advance()? {
                    return match self.columns.mapped_in_vain(seen) {
                        Some(what) if self.number > 0 => Err(WorkloadError::io(&self.path, what)),
                        _ => Ok(None),
                    };
                }
                let read: Object = serde_json::from_slice(lines.line())
                    .map_err(|error| lines.error(format!("not a JSON object: {}", json_error(&error))))?;
                *object = read.0;
                Ok(Some(lines.number()))
            }
        }
    }

    /// Reads one value of the current row and, when that fails, says where.
    fn value<'a, T>(
        &'a mut self,
        column: Column,
        line: u64,
        read: impl FnOnce(Cell<'a>) -> Result<T, String>,
    ) -> Result<T, WorkloadError> {
        let cell = match &mut self.shape {
            Shape::Csv { rows, places } => match places[column as usize] {
                Some(place) => Cell::of_field(rows.field(place)?),
                None => Cell::Empty,
            },
            Shape::Json { object, seen, .. } => {
                let value = object.get(self.columns.in_file(column));
                seen[column as usize] |= value.is_some();
                Cell::of_json(value)
            }
        };
        read(cell).map_err(|what| {
            let name = self.columns.in_file(column);
            WorkloadError::row(&self.path, line, format!("`{name}` {what}"))
        })
    }

    /// The error of a required value that the row lacks.
    fn lacks(&self, column: Column, line: u64, otherwise: &str) -> WorkloadError {
        let name = self.columns.in_file(column);
        let what = match &self.shape {
            Shape::Json { object, .. } if !object.contains_key(name) => {
                let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                self.columns.missing_column(column, &keys)
            }
            _ => format!("`{name}` is empty{otherwise}"),
        };
        WorkloadError::row(&self.path, line, what)
    }

    fn tokens(&mut self, column: Column, line: u64) -> Result<u32, WorkloadError> {
        let tokens = self.value(column, line, Cell::tokens)?;
        tokens.ok_or_else(|| self.lacks(column, line, "; a whole number of tokens is needed"))
    }

    fn label(&mut self, column: Column, line: u64) -> Result<Label, WorkloadError> {
        let name = self.value(column, line, Cell::name)?;
        Ok(self.names.labels.intern(name.as_deref().unwrap_or("")))
    }

    fn turn(&mut self, line: u64) -> Result<Option<Turn>, WorkloadError> {
        let name = self.value(Column::Session, line, Cell::name)?;
        let turn = self.value(Column::Turn, line, Cell::integer)?;
        let Some(name) = name else { return Ok(None) };
        let session = self.names.session(&name);
        let place = session as usize;
        self.turns.resize(self.turns.len().max(place + 1), 0);
        let turn = match turn {
            Some(turn) => u32::try_from(turn).ok().filter(|&turn| turn > 0).ok_or_else(|| {
                let what = format!("`{}` is {turn}; turns count from 1", self.columns.in_file(Column::Turn));
                WorkloadError::row(&self.path, line, what)
            })?,
            None => self.turns[place] + 1,
        };
        self.turns[place] = turn;
        Ok(Some(Turn { session, turn }))
    }

    fn start(&mut self, line: u64, session: Option<Turn>) -> Result<Start, WorkloadError> {
        let (arrival, think) = (self.columns.arrival, self.columns.think);
        let think = self.value(Column::Think, line, |cell| cell.span(think))?;
        let later = session.is_some_and(|session| session.turn > 1);
        if let (true, Some(think)) = (later, think) {
            return Ok(Start::AfterPrevious(think));
        }
        let Some((time, clock)) = self.value(Column::Arrival, line, |cell| cell.time(arrival))? else {
            let otherwise = if later {
                "; a later turn needs its arrival, or `think_s`"
            } else {
                "; only later turns of a session, with `think_s`, need no arrival"
            };
            return Err(self.lacks(Column::Arrival, line, otherwise));
        };
        if *self.clock.get_or_insert(clock) != clock {
            let name = self.columns.in_file(Column::Arrival);
            let what = format!("`{name}` is a number in some rows and a date in others; use one of them");
            return Err(WorkloadError::row(&self.path, line, what));
        }
        Ok(Start::At(time))
    }

    fn prefix(&mut self, line: u64, row: &mut Row) -> Result<Prefix, WorkloadError> {
        row.hashes.clear();
        self.value(Column::BlockHashes, line, |cell| cell.hashes(&mut row.hashes))?;
        let block_tokens = self.value(Column::BlockTokens, line, Cell::tokens)?;
        let group = self.value(Column::PrefixGroup, line, Cell::name)?;
        let tokens = self.value(Column::PrefixTokens, line, Cell::tokens)?;

        let wrong = |what: String| Err(WorkloadError::row(&self.path, line, what));
        if !row.hashes.is_empty() {
            let tokens = match block_tokens.or(self.block_tokens) {
                None => {
                    return wrong(
                        "`block_hashes` needs the size of its blocks: add a column \
                     `block_tokens`, or give `block_tokens:` for the whole file"
                            .to_owned(),
                    );
                }
                Some(0) => {
                    return wrong("`block_tokens` is 0; a block has at least one token".to_owned());
                }
                Some(tokens) => tokens,
            };
            let (most, found) = (row.input_tokens.div_ceil(tokens), row.hashes.len());
            if found > most as usize {
                return wrong(format!(
                    "{} input tokens are at most {most} blocks of {tokens}, but `block_hashes` has {found}; \
                     is `block_tokens` right?",
                    row.input_tokens
                ));
            }
            return Ok(Prefix::Blocks { tokens });
        }
        match (group, tokens.unwrap_or(0)) {
            (None, _) => Ok(Prefix::Unknown),
            (Some(group), 0) => wrong(format!(
                "`prefix_group` is {group:?} but `prefix_tokens` is empty; say how many tokens the group shares"
            )),
            (Some(_), tokens) if tokens > row.input_tokens => wrong(format!(
                "`prefix_tokens` is {tokens}, more than the prompt's {} input tokens",
                row.input_tokens
            )),
            (Some(group), tokens) => {
                Ok(Prefix::Group { group: group.parse().unwrap_or_else(|_| name_hash(&group)), tokens })
            }
        }
    }
}

impl Rows for TableRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, WorkloadError> {
        let Some(line) = self.advance()? else {
            return Ok(false);
        };
        row.line = line;
        row.number = self.number;
        row.session = self.turn(line)?;
        row.start = self.start(line, row.session)?;
        row.input_tokens = self.tokens(Column::InputTokens, line)?;
        row.output_tokens = self.tokens(Column::OutputTokens, line)?;
        row.prefix = self.prefix(line, row)?;
        row.name = self.value(Column::Id, line, Cell::name)?.map(String::into_boxed_str);
        row.max_tokens = self.value(Column::MaxTokens, line, Cell::tokens)?;
        if row.max_tokens == Some(0) {
            let what = "`max_tokens` is 0; it is at least 1, or empty for no limit";
            return Err(WorkloadError::row(&self.path, line, what));
        }
        row.priority = self.value(Column::Priority, line, Cell::integer)?.unwrap_or(0);
        row.tenant = self.label(Column::Tenant, line)?;
        row.class = self.label(Column::Class, line)?;
        row.model = self.label(Column::Model, line)?;
        row.adapter = self.label(Column::Adapter, line)?;
        self.number += 1;
        Ok(true)
    }

    fn names(&self) -> &Names {
        &self.names
    }
}
