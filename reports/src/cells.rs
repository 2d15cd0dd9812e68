//! Cells as text, for every renderer.

use crate::document::Cell;
use crate::numbers;

/// A cell as a number (or words) and a unit. With `unicode`, characters beyond ASCII may be added.
pub(crate) fn parts(cell: &Cell, unicode: bool) -> (String, String) {
    match cell {
        Cell::Text(text) | Cell::Judged { text, .. } => (text.clone(), String::new()),
        Cell::Number { value, digits, unit } => (numbers::number(*value, *digits), unit.clone()),
        Cell::Count { value, unit } => (numbers::count(*value), unit.clone()),
        Cell::Millis(value) => {
            let (number, unit) = numbers::millis(*value);
            (number, unit.to_owned())
        }
        Cell::Share { share, unit } if unit.is_empty() => (numbers::percent(*share), "%".to_owned()),
        Cell::Share { share, unit } => (numbers::percent(*share), format!("% {unit}")),
        Cell::Change(change) => (numbers::change(*change), "%".to_owned()),
        Cell::Verdict(true) => ("holds".to_owned(), String::new()),
        Cell::Verdict(false) => ("missed".to_owned(), String::new()),
        Cell::Missing => ((if unicode { "–" } else { "-" }).to_owned(), String::new()),
    }
}

/// A cell as text.
pub(crate) fn words(cell: &Cell, unicode: bool) -> String {
    let (number, unit) = parts(cell, unicode);
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}
