//! Printing: documents in the terminal's width and colours, JSON for machines.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use forerun_reports::document::Document;
use forerun_reports::markdown;
use forerun_reports::terminal::Terminal;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people.
    #[default]
    Table,
    /// One JSON document for machines.
    Json,
}

/// Width of a document where the terminal does not say.
const WIDTH: usize = 80;
/// Wider lines are harder to read.
const WIDTH_MAX: usize = 110;

/// Prints a document.
pub(crate) fn print_document(document: &Document) -> io::Result<()> {
    let stdout = io::stdout();
    let tty = stdout.is_terminal();
    let width = console::Term::stdout().size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns));
    let colour = tty
        && std::env::var_os("NO_COLOR").is_none()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    let terminal = Terminal { width: if tty { width.min(WIDTH_MAX) } else { WIDTH }, colour, unicode: true };
    stdout.lock().write_all(terminal.render(document).as_bytes())
}

/// Prints text that ends with a newline.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// Whether the reader of our output went away (`forerun ... | head`): nothing is wrong then.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// How to print a report that is also read on web pages.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Tables for people.
    #[default]
    Table,
    /// One JSON document for machines.
    Json,
    /// Markdown for a pull request or a page.
    Markdown,
}

impl ReportFormat {
    /// Whether the output is pasted into pages, which should not change from run to run: they leave wall-clock times out.
    pub(crate) fn is_pasted(self) -> bool {
        matches!(self, Self::Markdown)
    }

    /// Prints a report this way.
    pub(crate) fn print(
        self,
        document: impl FnOnce() -> Document,
        json: impl FnOnce() -> String,
    ) -> io::Result<()> {
        match self {
            Self::Table => print_document(&document()),
            Self::Json => print(&json()),
            Self::Markdown => print(&markdown::render(&document())),
        }
    }
}
