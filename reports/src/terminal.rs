//! Documents in a terminal: few lines, aligned figures, dim labels, nothing wider than the screen.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement};

use crate::cells;
use crate::document::{Align, Bar, Bars, Block, Cell, Column, Document, KeyValue, Level, Table};
use crate::layout::{Layout, cut, fix_widths, fold, join, lines, text_width};

/// A terminal to render for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns of text; narrower than [`WIDTH_MIN`] is rendered as that.
    pub width: usize,
    /// Whether escape sequences for colour may be written.
    pub colour: bool,
    /// Whether characters beyond ASCII may be added to those of the document.
    pub unicode: bool,
}

/// The narrowest width that is rendered for.
pub const WIDTH_MIN: usize = 40;

/// Space between the columns of a table.
const GAP: usize = 2;

/// The longest bar of a chart.
const BAR_MAX: usize = 40;

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Strong,
    Dim,
    Good,
    Bad,
    Bar,
}

/// A piece of text and how it looks.
#[derive(Clone)]
struct Piece {
    text: String,
    look: Look,
}

impl Default for Terminal {
    fn default() -> Self {
        Self { width: 80, colour: false, unicode: true }
    }
}

impl Terminal {
    /// `document` as text. Every line ends with a newline and fits the width.
    #[must_use]
    pub fn render(self, document: &Document) -> String {
        let terminal = Self { width: self.width.clamp(WIDTH_MIN, usize::from(u16::MAX)), ..self };
        let mut out = Vec::new();
        if !document.title.is_empty() {
            out.extend(terminal.paragraph(&document.title, Look::Strong));
        }
        if !document.subtitle.is_empty() {
            out.extend(terminal.paragraph(&document.subtitle, Look::Dim));
        }
        let mut previous: Option<&Block> = None;
        for block in &document.blocks {
            let lines = terminal.block(block);
            if !lines.is_empty() {
                let together = matches!(
                    (previous, block),
                    (Some(Block::Heading(_)), _) | (Some(Block::Note { .. }), Block::Note { .. })
                );
                if !together && !out.is_empty() {
                    out.push(String::new());
                }
                out.extend(lines);
                previous = Some(block);
            }
        }
        out.iter().flat_map(|line| [line.trim_end(), "\n"]).collect()
    }

    fn block(self, block: &Block) -> Vec<String> {
        match block {
            Block::Heading(text) => self.paragraph(text, Look::Strong),
            Block::Text(text) => self.paragraph(text, Look::Plain),
            Block::Table(table) => self.table(table),
            Block::KeyValues(pairs) => self.key_values(pairs),
            Block::Note { level, text } => self.note(*level, text),
            Block::Bars(bars) => self.bars(bars),
        }
    }

    /// Text wrapped at words.
    fn paragraph(self, text: &str, look: Look) -> Vec<String> {
        let mut grid = self.grid();
        grid.add_row([self.cell(Piece::new(text, look), CellAlignment::Left)]);
        fix_widths(&mut grid, &[], 0);
        lines(&grid)
    }

    fn note(self, level: Level, text: &str) -> Vec<String> {
        let label = match level {
            Level::Info => Piece::new("note:", Look::Strong),
            Level::Warning => Piece::new("warning:", Look::Bad),
        };
        self.labelled(vec![(label, vec![text.to_owned()])], 1)
    }

    fn key_values(self, pairs: &[KeyValue]) -> Vec<String> {
        let separator = if self.unicode { " · " } else { ", " };
        let key_width = pairs.iter().map(|pair| text_width(&pair.key)).max().unwrap_or(0);
        let room = self.width.saturating_sub(key_width + GAP);
        let rows = pairs.iter().map(|pair| {
            let values: Vec<String> = pair.values.iter().map(|value| self.words(value)).collect();
            (Piece::new(&pair.key, Look::Dim), join(&values, separator, room))
        });
        self.labelled(rows.collect(), GAP)
    }

    /// Labels at the left, and beside each the lines that belong to it, wrapped where they must be.
    fn labelled(self, rows: Vec<(Piece, Vec<String>)>, gap: usize) -> Vec<String> {
        let mut grid = self.grid();
        for (label, text) in rows {
            let text = Piece::new(&text.join("\n"), Look::Plain);
            grid.add_row([self.cell(label, CellAlignment::Left), self.cell(text, CellAlignment::Left)]);
        }
        let widths = grid.column_max_content_widths();
        if let [label, _] = widths[..] {
            fix_widths(&mut grid, &[usize::from(label)], gap);
        }
        lines(&grid)
    }

    /// A table whose columns do not fit side by side is folded: the columns that are left follow below, and
    /// the labels are repeated.
    fn table(self, table: &Table) -> Vec<String> {
        if table.columns.is_empty() {
            return Vec::new();
        }
        let cells = self.table_cells(table);
        let mut natural = vec![0; table.columns.len()];
        for row in &cells {
            for (width, piece) in natural.iter_mut().zip(row) {
                *width = (*width).max(text_width(&piece.text));
            }
        }
        let mut out = Vec::new();
        if !table.title.is_empty() && !title_is_heading(table) {
            out.extend(self.paragraph(&table.title, Look::Strong));
        }
        let Layout { gap, label, parts } = fold(&natural, self.width);
        for part in parts {
            let mut grid = self.grid();
            let room = self.width - label - gap;
            let width = |place: usize| if place == 0 { label } else { natural[place].min(room) };
            let places: Vec<usize> = std::iter::once(0).chain(part).collect();
            for row in &cells {
                grid.add_row(places.iter().map(|&place| {
                    self.cell(self.cut(&row[place], width(place)), alignment(&table.columns[place]))
                }));
            }
            fix_widths(&mut grid, &places.iter().map(|&place| width(place)).collect::<Vec<_>>(), gap);
            out.extend(lines(&grid));
        }
        out
    }

    /// The heading and the rows of `table`, with units of a column padded so that its numbers align.
    fn table_cells(self, table: &Table) -> Vec<Vec<Piece>> {
        let heading = table.columns.iter().enumerate().map(|(place, column)| {
            if place == 0 && title_is_heading(table) {
                return Piece::new(&table.title, Look::Strong);
            }
            match &column.unit {
                Some(unit) => Piece::new(&format!("{}, {unit}", column.name), Look::Dim),
                None => Piece::new(&column.name, Look::Dim),
            }
        });
        let unit_widths: Vec<usize> = (0..table.columns.len())
            .map(|place| {
                let cells = table.rows.iter().filter_map(|row| row.get(place));
                cells.map(|cell| text_width(&self.parts(cell).1)).max().unwrap_or(0)
            })
            .collect();
        let rows = table.rows.iter().map(|row| {
            let pieces = row.iter().zip(&table.columns).zip(&unit_widths).enumerate();
            pieces
                .map(|(place, ((cell, column), &unit_width))| {
                    let (number, unit) = self.parts(cell);
                    let text = match (unit_width, column.align) {
                        (0, _) | (_, Align::Left) => self.words(cell),
                        _ => format!("{number} {unit:unit_width$}"),
                    };
                    let text = if place == 0 { format!("  {text}") } else { text };
                    Piece { text, look: look(cell) }
                })
                .collect()
        });
        std::iter::once(heading.collect()).chain(rows).collect()
    }

    fn bars(self, bars: &Bars) -> Vec<String> {
        if bars.bars.is_empty() {
            return Vec::new();
        }
        let columns = vec![Column::text(""), Column::figures(""), Column::figures("")];
        let row =
            |bar: &Bar| vec![Cell::text(bar.label.as_str()), bar.value.clone(), Cell::share(Some(bar.share))];
        let figures = Table { title: String::new(), columns, rows: bars.bars.iter().map(row).collect() };
        let cells = self.table_cells(&figures);
        let width_of = |place: usize| cells.iter().map(|row| text_width(&row[place].text)).max().unwrap_or(0);
        let widths = [width_of(0).min(self.width / 2), width_of(1), width_of(2)];
        let room = self.width.saturating_sub(widths.iter().sum::<usize>() + 3 * GAP).min(BAR_MAX);
        let longest = bars.bars.iter().map(|bar| bar.share).fold(0.0, f64::max);

        let mut grid = self.grid();
        for (row, bar) in cells.into_iter().skip(1).zip(&bars.bars) {
            let scaled = if longest > 0.0 { bar.share / longest } else { 0.0 };
            let drawn = Piece { text: self.bar(scaled, room), look: Look::Bar };
            let alignments =
                [CellAlignment::Left, CellAlignment::Right, CellAlignment::Right, CellAlignment::Left];
            let figures = row.iter().zip(widths).map(|(piece, width)| self.cut(piece, width));
            let pieces = figures.chain([drawn]).zip(alignments);
            grid.add_row(pieces.map(|(piece, alignment)| self.cell(piece, alignment)));
        }
        fix_widths(&mut grid, &widths, GAP);
        let mut out = self.paragraph(&bars.title, Look::Strong);
        out.extend(lines(&grid));
        out
    }

    /// A bar over the share `filled` of `room` columns; never empty for a share above zero.
    fn bar(self, filled: f64, room: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        if filled <= 0.0 {
            return String::new();
        }
        if !self.unicode {
            return "#".repeat(((filled * room as f64).round() as usize).clamp(1, room.max(1)));
        }
        let eighths = ((filled * room as f64 * 8.0).round() as usize).clamp(1, (room * 8).max(1));
        format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
    }

    fn parts(self, cell: &Cell) -> (String, String) {
        cells::parts(cell, self.unicode)
    }

    fn words(self, cell: &Cell) -> String {
        cells::words(cell, self.unicode)
    }

    fn cut(self, piece: &Piece, width: usize) -> Piece {
        let ellipsis = if self.unicode { "…" } else { "~" };
        Piece { text: cut(&piece.text, width, ellipsis), look: piece.look }
    }

    /// An empty grid without lines of its own.
    fn grid(self) -> comfy_table::Table {
        let mut grid = comfy_table::Table::new();
        grid.load_style(NOTHING);
        grid.set_content_arrangement(ContentArrangement::Dynamic);
        grid.set_width(u16::try_from(self.width).unwrap_or(u16::MAX));
        if self.colour {
            grid.enforce_styling();
            grid.style_text_only();
        } else {
            grid.force_no_tty();
        }
        grid
    }

    fn cell(self, piece: Piece, alignment: CellAlignment) -> comfy_table::Cell {
        let cell = comfy_table::Cell::new_owned(piece.text).set_alignment(alignment);
        match piece.look {
            Look::Plain => cell,
            Look::Strong => cell.add_attribute(Attribute::Bold),
            Look::Dim => cell.add_attribute(Attribute::Dim),
            Look::Good => cell.fg(Color::Green),
            Look::Bad => cell.fg(Color::Yellow).add_attribute(Attribute::Bold),
            Look::Bar => cell.fg(Color::Cyan),
        }
    }
}

impl Piece {
    fn new(text: &str, look: Look) -> Self {
        Self { text: text.to_owned(), look }
    }
}

/// Whether the table's title stands in the heading of its first column, which has none of its own.
fn title_is_heading(table: &Table) -> bool {
    table.columns[0].name.is_empty()
}

fn alignment(column: &Column) -> CellAlignment {
    match column.align {
        Align::Left => CellAlignment::Left,
        Align::Right => CellAlignment::Right,
    }
}

fn look(cell: &Cell) -> Look {
    match cell {
        Cell::Verdict(true) | Cell::Judged { good: Some(true), .. } => Look::Good,
        Cell::Verdict(false) | Cell::Judged { good: Some(false), .. } => Look::Bad,
        Cell::Missing => Look::Dim,
        _ => Look::Plain,
    }
}

#[cfg(test)]
#[path = "terminal_tests.rs"]
mod tests;
