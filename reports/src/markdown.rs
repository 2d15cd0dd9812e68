//! Documents as Markdown, for pull requests and pages.

use crate::cells::words;
use crate::document::{Align, Bar, Block, Cell, Column, Document, KeyValue, Level, Table};

/// `document` as GitHub's flavour of Markdown: headings of the second and third level, tables, lists.
#[must_use]
pub fn render(document: &Document) -> String {
    let mut parts = Vec::new();
    if !document.title.is_empty() {
        parts.push(format!("## {}\n", escaped(&document.title)));
    }
    if !document.subtitle.is_empty() {
        parts.push(format!("{}\n", escaped(&document.subtitle)));
    }
    parts.extend(document.blocks.iter().map(block).filter(|text| !text.is_empty()));
    parts.join("\n")
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(text) => format!("### {}\n", escaped(text)),
        Block::Text(text) => format!("{}\n", escaped(text)),
        Block::Table(table) => self::table(table),
        Block::KeyValues(pairs) => pairs.iter().map(key_value).collect(),
        Block::Note { level, text } => {
            let label = match level {
                Level::Info => "Note",
                Level::Warning => "Warning",
            };
            format!("> **{label}:** {}\n", escaped(text))
        }
        Block::Bars(bars) => {
            let row = |bar: &Bar| {
                vec![Cell::text(bar.label.as_str()), bar.value.clone(), Cell::share(Some(bar.share))]
            };
            table(&Table {
                title: bars.title.clone(),
                columns: vec![Column::text(""), Column::figures(""), Column::figures("share")],
                rows: bars.bars.iter().map(row).collect(),
            })
        }
    }
}

fn key_value(pair: &KeyValue) -> String {
    let values: Vec<String> = pair.values.iter().map(|value| escaped(&words(value, true))).collect();
    format!("- **{}**: {}\n", escaped(&pair.key), values.join(" · "))
}

/// A table; its title stands over its first column where that has no heading.
fn table(table: &Table) -> String {
    if table.columns.is_empty() {
        return String::new();
    }
    let titled = table.columns[0].name.is_empty();
    let headings = table.columns.iter().enumerate().map(|(place, column)| match &column.unit {
        _ if place == 0 && titled => escaped(&table.title),
        Some(unit) => escaped(&format!("{}, {unit}", column.name)),
        None => escaped(&column.name),
    });
    let rules = table.columns.iter().map(|column| match column.align {
        Align::Left => "---".to_owned(),
        Align::Right => "---:".to_owned(),
    });
    let mut lines = vec![line(headings), line(rules)];
    lines.extend(table.rows.iter().map(|row| line(row.iter().map(judged))));
    let title = if titled || table.title.is_empty() {
        String::new()
    } else {
        format!("**{}**\n\n", escaped(&table.title))
    };
    title + &lines.concat()
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

/// A cell; what is judged good or bad is set off.
fn judged(cell: &Cell) -> String {
    let text = escaped(&words(cell, true));
    match cell {
        Cell::Verdict(_) | Cell::Judged { good: Some(_), .. } => format!("**{text}**"),
        _ => text,
    }
}

/// `text` without what Markdown or HTML would take for markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\n' | '\r' => out.push(' '),
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' => out.extend(['\\', character]),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_lists_and_notes_are_written() {
        let document = Document {
            title: "A < B".to_owned(),
            subtitle: "one line".to_owned(),
            blocks: vec![
                Block::KeyValues(vec![KeyValue::new("Cost", vec![Cell::count(1200, "USD"), Cell::Missing])]),
                Block::Table(Table {
                    title: "Change".to_owned(),
                    columns: vec![Column::text(""), Column::figures("by")],
                    rows: vec![vec![
                        Cell::text("a|b"),
                        Cell::Judged { text: "better".to_owned(), good: Some(true) },
                    ]],
                }),
                Block::Note { level: Level::Warning, text: "mind_this".to_owned() },
            ],
        };
        let expected = "## A &lt; B\n\none line\n\n- **Cost**: 1,200 USD · –\n\n| Change | by |\n| --- | ---: |\n\
                        | a\\|b | **better** |\n\n> **Warning:** mind\\_this\n";
        assert_eq!(render(&document), expected);
    }
}
