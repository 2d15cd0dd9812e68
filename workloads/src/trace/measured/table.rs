//! Measured runs as tables: CSV with a header, or an object for each request. Columns have our names, those of BLIS
//! TraceV2, or names that the user gives; the end of a name (`_s`, `_ms`, `_us`, `_ns`) is its unit.

use std::collections::BTreeMap;
use std::path::Path;

use forerun_sim::time::Span;
use serde_json::{Map, Value};

use super::super::cell::{Cell, listed};
use super::super::clock::{Clock, Unit};
use super::super::input::{CsvRows, Lines};
use super::super::mooncake::json_error;
use super::super::nearest;
use super::{Gathered, MeasuredFormat, MeasuredRequest, MeasuredRun, disorder};
use crate::error::WorkloadError;

/// Our names. Absolute times and durations both do: `first_token_s` or `ttft_ms`, `finished_s` or `e2e_ms`.
const NAMES: [&str; 11] = [
    "arrival_s",
    "input_tokens",
    "output_tokens",
    "first_token_s",
    "ttft_ms",
    "finished_s",
    "e2e_ms",
    "status",
    "prefix_group",
    "prefix_tokens",
    "due_s",
];
const ARRIVAL: usize = 0;
const INPUT: usize = 1;
const OUTPUT: usize = 2;
const FIRST: usize = 3;
const TTFT: usize = 4;
const FINISHED: usize = 5;
const E2E: usize = 6;
const STATUS: usize = 7;
const GROUP: usize = 8;
const SHARED: usize = 9;
const DUE: usize = 10;

/// TraceV2's names for ours; the first four are how it is known.
const TRACE_V2: [(&str, &str); 7] = [
    ("arrival_s", "send_time_us"),
    ("input_tokens", "server_input_tokens"),
    ("first_token_s", "first_chunk_time_us"),
    ("finished_s", "last_chunk_time_us"),
    // Where it has them:
    ("prefix_group", "prefix_group"),
    ("prefix_tokens", "prefix_length"),
    ("due_s", "arrival_time_us"),
];

/// What `status` says of a request that was answered.
const ANSWERED: [&str; 4] = ["completed", "ok", "success", "successful"];

/// The rows of a table.
enum Shape {
    Csv(Box<CsvRows>, [Option<usize>; NAMES.len()]),
    Json(Lines, Map<String, Value>),
}

struct Rows<'p> {
    path: &'p Path,
    shape: Shape,
    in_file: [String; NAMES.len()],
    units: [Unit; NAMES.len()],
}

pub(super) fn read(
    path: &Path,
    columns: &BTreeMap<String, String>,
    json: bool,
) -> Result<MeasuredRun, WorkloadError> {
    let (mut rows, format) = Rows::open(path, columns, json)?;
    let mut gathered = Gathered::default();
    while let Some(line) = rows.advance()? {
        match rows.request(line)? {
            Some(request) => gathered.requests.push(request),
            None => gathered.unanswered += 1,
        }
    }
    Ok(gathered.into_run(format))
}

impl<'p> Rows<'p> {
    fn open(
        path: &'p Path,
        columns: &BTreeMap<String, String>,
        json: bool,
    ) -> Result<(Self, MeasuredFormat), WorkloadError> {
        let mut in_file = NAMES.map(str::to_owned);
        let csv = if json { None } else { Some(Box::new(CsvRows::open(path)?)) };
        let header = csv.as_ref().map(|rows| rows.header()).unwrap_or_default();
        let traced = |name: &str| header.iter().any(|own| own == name);
        let trace_v2 = columns.is_empty() && TRACE_V2[..4].iter().all(|(_, theirs)| traced(theirs));
        if trace_v2 {
            for (ours, theirs) in TRACE_V2 {
                in_file[place(ours).unwrap_or(ARRIVAL)] = theirs.to_owned();
            }
        }
        for (ours, theirs) in columns {
            let unknown = || {
                let near = nearest(ours, NAMES);
                let what =
                    format!("there is no column `{ours}` of a measured run{near}: {}", NAMES.join(", "));
                WorkloadError::Spec(what)
            };
            in_file[place(ours).ok_or_else(unknown)?].clone_from(theirs);
        }
        let units = std::array::from_fn(|column| unit(NAMES[column], &in_file[column]));
        let shape = match csv {
            Some(rows) => {
                let find = |name: &String| rows.header().iter().position(|own| own == name);
                let places: [Option<usize>; NAMES.len()] =
                    std::array::from_fn(|column| find(&in_file[column]));
                let found: Vec<&str> = rows.header().iter().map(String::as_str).collect();
                check_columns(path, &in_file, &places, columns, &found)?;
                Shape::Csv(rows, places)
            }
            None => Shape::Json(Lines::open(path)?, Map::new()),
        };
        let format = if trace_v2 { MeasuredFormat::TraceV2 } else { MeasuredFormat::Table };
        Ok((Self { path, shape, in_file, units }, format))
    }

    fn advance(&mut self) -> Result<Option<u64>, WorkloadError> {
        match &mut self.shape {
            Shape::Csv(rows, _) => Ok(rows.advance()?.then(|| rows.number())),
            Shape::Json(lines, object) => {
                if !lines.advance()? {
                    return Ok(None);
                }
                let read = serde_json::from_slice(lines.line());
                *object = read.map_err(|e| lines.error(format!("not a JSON object: {}", json_error(&e))))?;
                Ok(Some(lines.number()))
            }
        }
    }

    /// The value of a column, read by `read`.
    fn value<'a, T>(
        &'a self,
        column: usize,
        line: u64,
        read: impl FnOnce(Cell<'a>) -> Result<Option<T>, String>,
    ) -> Result<Option<T>, WorkloadError> {
        let cell = match &self.shape {
            Shape::Csv(rows, places) => match places[column] {
                Some(place) => Cell::of_field(rows.field(place)?),
                None => Cell::Empty,
            },
            Shape::Json(_, object) => Cell::of_json(object.get(&self.in_file[column])),
        };
        let wrong = |what| WorkloadError::row(self.path, line, format!("`{}` {what}", self.in_file[column]));
        read(cell).map_err(wrong)
    }

    fn needed<T>(&self, column: usize, line: u64, value: Option<T>) -> Result<T, WorkloadError> {
        let what = || format!("`{}` is empty: every request that was answered has one", self.in_file[column]);
        value.ok_or_else(|| WorkloadError::row(self.path, line, what()))
    }

    /// A request, or none when it was not answered.
    fn request(&self, line: u64) -> Result<Option<MeasuredRequest>, WorkloadError> {
        let status = self.value(STATUS, line, Cell::name)?;
        if status.is_some_and(|status| !ANSWERED.contains(&status.to_lowercase().as_str())) {
            return Ok(None);
        }
        let output_tokens = self.value(OUTPUT, line, Cell::tokens)?;
        let output_tokens = self.needed(OUTPUT, line, output_tokens)?;
        if output_tokens == 0 {
            return Ok(None);
        }
        let input_tokens = self.value(INPUT, line, Cell::tokens)?;
        let input_tokens = self.needed(INPUT, line, input_tokens)?;
        let sent = self.needed(ARRIVAL, line, self.at(ARRIVAL, line)?)?;
        let after = |column| -> Result<Option<Span>, WorkloadError> {
            self.value(column, line, |cell| cell.span(self.units[column]))
        };
        let seconds = |span: Span| span.as_secs_f64();
        let later = |at: Option<Span>, after: Option<Span>| {
            at.map(seconds).or_else(|| after.map(|after| seconds(sent) + seconds(after)))
        };
        let last_s = later(self.at(FINISHED, line)?, after(E2E)?);
        let request = MeasuredRequest {
            sent_s: seconds(sent),
            due_s: self.at(DUE, line)?.map_or(seconds(sent), seconds),
            first_s: later(self.at(FIRST, line)?, after(TTFT)?),
            last_s: self.needed(FINISHED, line, last_s)?,
            input_tokens,
            output_tokens,
            prefix: self.prefix(line, input_tokens)?,
        };
        match disorder(&request) {
            Some(what) => Err(WorkloadError::row(self.path, line, what)),
            None => Ok(Some(request)),
        }
    }

    /// A point in time, from the beginning of the file's clock.
    fn at(&self, column: usize, line: u64) -> Result<Option<Span>, WorkloadError> {
        self.value(column, line, |cell| {
            let since = |(time, _): (forerun_sim::time::Time, Clock)| Span::from_nanos(time.as_nanos());
            Ok(cell.time(self.units[column])?.map(since))
        })
    }

    fn prefix(&self, line: u64, input_tokens: u32) -> Result<Option<(String, u32)>, WorkloadError> {
        let group = self.value(GROUP, line, Cell::name)?;
        let shared = self.value(SHARED, line, Cell::tokens)?.unwrap_or(0);
        // Tools count the tokens that they asked for, servers those that they got.
        Ok(group.filter(|_| shared > 0).map(|group| (group, shared.min(input_tokens))))
    }
}

fn place(name: &str) -> Option<usize> {
    NAMES.iter().position(|own| *own == name)
}

/// The unit of a column: what the file's name for it ends with, or else ours.
fn unit(ours: &str, theirs: &str) -> Unit {
    let ending = |name: &str| Unit::named(name.rsplit_once('_').map_or("", |(_, suffix)| suffix));
    ending(theirs).or_else(|| ending(ours)).unwrap_or(Unit::SECONDS)
}

fn check_columns(
    path: &Path,
    in_file: &[String; NAMES.len()],
    places: &[Option<usize>; NAMES.len()],
    columns: &BTreeMap<String, String>,
    found: &[&str],
) -> Result<(), WorkloadError> {
    let mapped = |column: usize| columns.contains_key(NAMES[column]);
    let lacks = |column: usize| places[column].is_none();
    let missing = [ARRIVAL, INPUT, OUTPUT].into_iter().find(|&column| lacks(column));
    let missing = missing.or_else(|| (0..NAMES.len()).find(|&column| mapped(column) && lacks(column)));
    let missing = missing.or_else(|| (lacks(FINISHED) && lacks(E2E)).then_some(FINISHED));
    let Some(column) = missing else { return Ok(()) };
    let (ours, theirs) = (NAMES[column], &in_file[column]);
    let or = if column == FINISHED { " (or `e2e_ms`)" } else { "" };
    let what = format!(
        "no column `{theirs}`{or}{}; the file has: {}. If it has another name, give `--column {ours}=NAME`",
        nearest(theirs, found.iter().copied()),
        listed(found)
    );
    Err(WorkloadError::row(path, 1, what))
}
