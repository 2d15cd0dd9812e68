//! A small document model: what a report says, apart from how it looks.
//!
//! Cells keep typed values, so that each renderer chooses units, digits and glyphs that suit its medium.

/// A report: a title and what follows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// What the report is about.
    pub title: String,
    /// A line under the title; may be empty.
    pub subtitle: String,
    /// The body.
    pub blocks: Vec<Block>,
}

/// One part of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// The name of what follows.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// Rows of figures.
    Table(Table),
    /// Labelled lines, each of a few figures.
    KeyValues(Vec<KeyValue>),
    /// Something that the reader should know.
    Note {
        /// How much it matters.
        level: Level,
        /// What it is.
        text: String,
    },
    /// A horizontal bar chart.
    Bars(Bars),
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// The figures may mislead without it.
    Warning,
}

/// Rows of figures. The first column labels the rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What the table shows.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each with a cell per column.
    pub rows: Vec<Vec<Cell>>,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading; empty for a column of labels that the table's title explains.
    pub name: String,
    /// Where its cells stand.
    pub align: Align,
    /// The unit of all its cells, where they do not name it themselves.
    pub unit: Option<String>,
}

/// Where cells stand in their column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// At the left: words.
    Left,
    /// At the right: figures.
    Right,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A measured number, shown with as many significant digits as it deserves.
    Number {
        /// The number.
        value: f64,
        /// Significant digits worth showing.
        digits: u8,
        /// Its unit; empty for none.
        unit: String,
    },
    /// A counted number, shown in full.
    Count {
        /// The count.
        value: u64,
        /// What is counted; empty where the place says it.
        unit: String,
    },
    /// A latency in milliseconds; renderers choose the unit that suits its size.
    Millis(f64),
    /// A share.
    Share {
        /// The share, 0 to 1.
        share: f64,
        /// What follows the percent sign; empty where the place says it.
        unit: String,
    },
    /// A change as a share of what was before: -0.12 is 12 % less.
    Change(f64),
    /// Whether something holds.
    Verdict(bool),
    /// A judgement in words.
    Judged {
        /// The words.
        text: String,
        /// Whether it is good or bad, if it is either.
        good: Option<bool>,
    },
    /// Never measured.
    Missing,
}

/// A label and its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyValue {
    /// What the figures are about.
    pub key: String,
    /// The figures.
    pub values: Vec<Cell>,
}

/// A horizontal bar chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// What the bars show.
    pub title: String,
    /// The bars, from top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its value.
    pub value: Cell,
    /// Its share of the whole, 0 to 1: the length of the bar.
    pub share: f64,
}

impl Column {
    /// A column of words.
    #[must_use]
    pub fn text(name: &str) -> Self {
        Self { name: name.to_owned(), align: Align::Left, unit: None }
    }

    /// A column of figures.
    #[must_use]
    pub fn figures(name: &str) -> Self {
        Self { name: name.to_owned(), align: Align::Right, unit: None }
    }
}

impl Cell {
    /// Words.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A count of `unit`.
    #[must_use]
    pub fn count(value: u64, unit: &str) -> Self {
        Self::Count { value, unit: unit.to_owned() }
    }

    /// A number of three significant digits, or nothing.
    #[must_use]
    pub fn number(value: Option<f64>, unit: &str) -> Self {
        value.map_or(Self::Missing, |value| Self::Number { value, digits: 3, unit: unit.to_owned() })
    }

    /// A latency in milliseconds, or nothing.
    #[must_use]
    pub fn millis(value: Option<f64>) -> Self {
        value.map_or(Self::Missing, Self::Millis)
    }

    /// A share, or nothing.
    #[must_use]
    pub fn share(share: Option<f64>) -> Self {
        Self::share_of(share, "")
    }

    /// A share and what it is a share of, or nothing.
    #[must_use]
    pub fn share_of(share: Option<f64>, unit: &str) -> Self {
        share.map_or(Self::Missing, |share| Self::Share { share, unit: unit.to_owned() })
    }
}

impl KeyValue {
    /// A labelled line.
    #[must_use]
    pub fn new(key: &str, values: Vec<Cell>) -> Self {
        Self { key: key.to_owned(), values }
    }
}
