//! Widths: what fits a line and what does not.

use std::ops::Range;

use comfy_table::{ColumnConstraint, Table, Width};

/// Columns that `text` takes in a terminal.
pub(crate) fn text_width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let mut measure = Table::new();
    measure.add_row([text]);
    measure.column_max_content_widths().first().copied().map_or(0, usize::from)
}

/// `text`, or as much of its beginning as fits `width` columns with `ellipsis` behind it.
pub(crate) fn cut(text: &str, width: usize, ellipsis: &str) -> String {
    if text_width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(text_width(ellipsis));
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if text_width(&kept) > room {
            kept.pop();
            break;
        }
    }
    kept + ellipsis
}

/// How the columns of a table are laid out.
pub(crate) struct Layout {
    /// Space in front of each column but the first.
    pub(crate) gap: usize,
    /// Width of the label column.
    pub(crate) label: usize,
    /// Which of the other columns stand side by side; several parts stand below each other.
    pub(crate) parts: Vec<Range<usize>>,
}

/// Lays columns of the widths `natural` out so that each part fits `room` with the labels in front. What
/// gives way first is the space between columns, then labels; a figure
/// only where it does not fit beside the labels alone.
pub(crate) fn fold(natural: &[usize], room: usize) -> Layout {
    const GAPS: [usize; 2] = [2, 1];
    let figures = |gap: usize| natural[1..].iter().map(|width| width + gap).sum::<usize>();
    if let Some(gap) = GAPS.into_iter().find(|&gap| natural[0] + figures(gap) <= room) {
        let all = std::iter::once(1..natural.len());
        return Layout { gap, label: natural[0], parts: all.collect() };
    }
    let (gap, label_min) = (GAPS[0], room / 3);
    let label = natural[0].min(room.saturating_sub(figures(gap)).max(label_min));
    let mut parts = Vec::new();
    let (mut start, mut used) = (1, label);
    for (place, &width) in natural.iter().enumerate().skip(1) {
        let taken = (width + gap).min(room - label);
        if used + taken > room {
            parts.push(start..place);
            (start, used) = (place, label);
        }
        used += taken;
    }
    parts.push(start..natural.len());
    Layout { gap, label, parts }
}

/// Sets the widths of the first columns of `grid`, with `gap` in front of each but the first. The last column
/// takes what is left when it has no width.
pub(crate) fn fix_widths(grid: &mut Table, widths: &[usize], gap: usize) {
    let gap_columns = u16::try_from(gap).unwrap_or(u16::MAX);
    for (place, column) in grid.column_iter_mut().enumerate() {
        let padding = if place == 0 { 0 } else { gap_columns };
        column.set_padding((padding, 0));
        if let Some(&width) = widths.get(place) {
            let width = u16::try_from(width).unwrap_or(u16::MAX).max(1).saturating_add(padding);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        }
    }
}

/// The lines of `grid`, without spaces at their ends.
pub(crate) fn lines(grid: &Table) -> Vec<String> {
    grid.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Items on as few lines of at most `room` columns as they fit, never broken between lines.
pub(crate) fn join(items: &[String], separator: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line) if text_width(line) + text_width(separator) + text_width(item) <= room => {
                line.push_str(separator);
                line.push_str(item);
            }
            _ => lines.push(item.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wide_characters_are_cut_by_their_width() {
        assert_eq!(cut("\u{6f22}\u{5b57}\u{6f22}\u{5b57}", 6, "~"), "\u{6f22}\u{5b57}~");
        assert_eq!(cut("  short", 7, "~"), "  short");
    }

    #[test]
    fn a_table_that_fits_is_not_folded() {
        for (room, gap, label) in [(24, 2, 10), (23, 1, 10), (22, 1, 10), (21, 2, 7)] {
            let layout = fold(&[10, 5, 5], room);
            assert_eq!((layout.gap, layout.label, layout.parts.len()), (gap, label, 1), "{room}");
        }
    }

    proptest! {
        #[test]
        fn every_part_fits_and_no_column_is_lost(
            natural in prop::collection::vec(1_usize..60, 1..12), room in 20_usize..120
        ) {
            let Layout { gap, label, parts } = fold(&natural, room);
            let mut next = 1;
            for part in parts {
                prop_assert_eq!(part.start, next);
                next = part.end;
                let figures: usize = natural[part].iter().map(|width| (width + gap).min(room - label)).sum();
                prop_assert!(label + figures <= room);
            }
            prop_assert_eq!(next, natural.len());
        }
    }

    #[test]
    fn items_are_never_broken_between_lines() {
        let items = ["one two", "three", "four five"].map(str::to_owned);
        assert_eq!(join(&items, ", ", 14), ["one two, three", "four five"]);
    }
}
