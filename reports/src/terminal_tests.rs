//! What a rendered document never does: overflow, lose a figure, or look different in colour.

use super::*;
use crate::layout::text_width;
use crate::testing::{example_summary, example_summary_of};

fn documents() -> Vec<Document> {
    let mut crowded = example_summary_of(64);
    crowded.about[0] = "a".repeat(300);
    crowded.warnings.push("many words ".repeat(40));
    crowded.by_tenant.insert("a tenant with quite a long name, longer than it needs".repeat(2), {
        let mut group = crowded.by_tenant["acme"];
        group.arrived = 123_456_789;
        group
    });
    crowded.replicas[3].name = "\u{6f22}\u{5b57}".repeat(40);
    vec![example_summary().to_document(), crowded.to_document()]
}

/// `text` without its escape sequences.
fn uncoloured(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').expect("a colour sequence").1).collect::<String>()
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for document in documents() {
        for width in [40, 60, 80, 120] {
            for (colour, unicode) in [(false, true), (true, true), (false, false)] {
                let text = Terminal { width, colour, unicode }.render(&document);
                for line in uncoloured(&text).lines() {
                    assert!(text_width(line) <= width, "{} > {width}: {line}", text_width(line));
                }
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for document in documents() {
        let plain = Terminal::default().render(&document);
        let coloured = Terminal { colour: true, ..Terminal::default() }.render(&document);
        assert_ne!(coloured, plain);
        let trimmed: Vec<String> =
            uncoloured(&coloured).lines().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(trimmed, plain.lines().collect::<Vec<_>>());
    }
}

#[test]
fn without_unicode_the_renderer_adds_only_ascii() {
    let document = example_summary().to_document();
    assert!(Terminal { unicode: false, ..Terminal::default() }.render(&document).is_ascii());
}

#[test]
fn no_figure_is_lost_in_a_narrow_terminal() {
    let figures = ["1,111", "2,222", "3,333", "4,444", "5,555", "6,666", "7,777", "8,888"];
    let columns = (0..=8).map(|place| Column::figures(&format!("column {place}")));
    let row = (1..=8).map(|digit| Cell::count(1111 * digit, "tokens"));
    let table = Table {
        title: "Wide".to_owned(),
        columns: columns.collect(),
        rows: vec![std::iter::once(Cell::text("row")).chain(row).collect()],
    };
    let document = Document { blocks: vec![Block::Table(table)], ..Document::default() };
    let text = Terminal { width: 40, ..Terminal::default() }.render(&document);
    for figure in figures {
        assert!(text.contains(&format!("{figure} tokens")), "{figure} is missing:\n{text}");
    }
}

#[test]
fn a_long_label_is_cut_and_a_long_note_is_wrapped() {
    let table = Table {
        title: "Things".to_owned(),
        columns: vec![Column::text(""), Column::figures("size")],
        rows: vec![vec![Cell::text("x".repeat(100)), Cell::count(7, "")]],
    };
    let note =
        Block::Note { level: Level::Warning, text: "one two three four five six seven eight".to_owned() };
    let document = Document { blocks: vec![Block::Table(table), note], ..Document::default() };
    let text = Terminal { width: 40, ..Terminal::default() }.render(&document);
    let expected = format!(
        "Things                              size\n  {}…     7\n\n\
         warning: one two three four five six\n         seven eight\n",
        "x".repeat(31)
    );
    assert_eq!(text, expected);
}
