//! A comparison for people: who is better in what, by how much, and why.

use super::{Change, Comparison, MethodKind, Pair, Variant, Verdict, Why};
use crate::document::{Block, Cell, Column, Document, KeyValue, Level, Table};
use crate::figures::{Better, FIGURES};

impl Comparison {
    /// The comparison as a document for people.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let others: Vec<&str> = self.pairs.iter().map(|pair| pair.variant.as_str()).collect();
        let mut blocks = vec![
            Block::KeyValues(self.variants.iter().map(fleet).collect()),
            Block::KeyValues(self.pairs.iter().map(tally).collect()),
            Block::Table(self.figures_table()),
        ];
        for pair in &self.pairs {
            blocks.push(Block::Table(pair_table(pair)));
            if !pair.why.is_empty() {
                blocks.push(Block::Text(format!("Why: {}.", pair.why.join("; "))));
            }
        }
        blocks.push(Block::Table(self.why_table()));
        blocks.push(Block::Text(self.how()));
        let warnings = self.warnings.iter().cloned();
        blocks.extend(warnings.map(|text| Block::Note { level: Level::Warning, text }));
        blocks.push(Block::KeyValues(vec![self.simulated()]));
        Document {
            title: format!("{} against {}", others.join(", "), self.baseline),
            subtitle: self.traffic.about.clone(),
            blocks,
        }
    }

    /// Each figure of each variant.
    fn figures_table(&self) -> Table {
        let rows = FIGURES.iter().filter_map(|figure| {
            let values = self.variants.iter().map(|v| v.figures.get(figure.key).map(|f| f.mean));
            let values: Vec<_> = values.collect();
            values.iter().any(Option::is_some).then(|| {
                let cells = values.into_iter().map(|value| figure.cell(value));
                std::iter::once(Cell::text(figure.label)).chain(cells).collect()
            })
        });
        Table { title: "Figures".to_owned(), columns: self.by_variant(), rows: rows.collect() }
    }

    /// A column for each variant.
    fn by_variant(&self) -> Vec<Column> {
        let names = self.variants.iter().map(|variant| Column::figures(&variant.name));
        std::iter::once(Column::text("")).chain(names).collect()
    }

    fn why_table(&self) -> Table {
        type Row = (&'static str, fn(&Why) -> Cell);
        let rows: [Row; 9] = [
            ("hit rate", |why| Cell::share(why.hit_rate)),
            ("duplicate prefill tokens", |why| Cell::number(why.duplicate_prefill_tokens, "")),
            ("busiest replica / mean", |why| Cell::number(why.busy_max_over_mean, "")),
            ("most requests / mean", |why| Cell::number(why.requests_max_over_mean, "")),
            ("queue mean", |why| Cell::millis(why.queue_mean_ms)),
            ("preemptions", |why| Cell::number(why.preemptions, "")),
            ("not completed", |why| Cell::number(why.not_completed, "")),
            ("fairness, TTFT", |why| Cell::number(why.jain_tenant_ttft, "")),
            ("fairness, attainment", |why| Cell::number(why.jain_tenant_attainment, "")),
        ];
        let rows = rows.into_iter().filter_map(|(label, of)| {
            let cells: Vec<Cell> = self.variants.iter().map(|variant| of(&variant.why)).collect();
            let some = cells.iter().any(|cell| *cell != Cell::Missing);
            some.then(|| std::iter::once(Cell::text(label)).chain(cells).collect())
        });
        Table { title: "Behind it".to_owned(), columns: self.by_variant(), rows: rows.collect() }
    }

    /// How it was judged, in words.
    fn how(&self) -> String {
        let method = &self.method;
        let from = match (method.kind, self.traffic.paired) {
            (MethodKind::Replications, true) => format!("{} replications, paired by seed", method.count),
            (MethodKind::Replications, false) => {
                format!("{} replications of each, not paired (Welch)", method.count)
            }
            (MethodKind::Windows, _) => format!("one run of each, cut into {} windows of time", method.count),
        };
        let margin = if method.margin > 0.0 {
            format!(
                " \"same\": shown to differ by less than {} %.",
                crate::numbers::number(method.margin * 100.0, 2)
            )
        } else {
            String::new()
        };
        format!(
            "Changes are shares of the baseline's figure, from {from}. Intervals are 95 %, each by itself; all \
             verdicts of better and worse together are wrong with at most 5 % (Holm, {} tests).{margin} Fairness is \
             Jain's index over tenants: 1 when all are served alike.",
            method.tests
        )
    }

    fn simulated(&self) -> KeyValue {
        let mut cells = vec![
            Cell::count(self.simulation.runs, "runs"),
            Cell::count(self.simulation.requests, "requests"),
        ];
        if self.simulation.wall_s.is_some() {
            cells.push(Cell::number(self.simulation.wall_s, "s of wall time"));
        }
        KeyValue::new("Simulated", cells)
    }
}

fn fleet(variant: &Variant) -> KeyValue {
    let about = variant.about.first().map_or("", String::as_str);
    KeyValue::new(&variant.name, vec![Cell::text(about)])
}

/// How many figures are better, worse, and so on; what is worse by name.
fn tally(pair: &Pair) -> KeyValue {
    let labels = |verdict: Verdict| {
        let of = |key: &str| pair.figures.get(key).is_some_and(|change| change.verdict == verdict);
        FIGURES.iter().filter(|figure| of(figure.key)).map(|figure| figure.label).collect::<Vec<_>>()
    };
    let mut cells = Vec::new();
    for (verdict, word, named) in [
        (Verdict::Better, "better", false),
        (Verdict::Worse, "worse", true),
        (Verdict::Same, "same", false),
        (Verdict::NotShown, "not shown", false),
    ] {
        let labels = labels(verdict);
        if !labels.is_empty() {
            let names = if named { format!(" ({})", labels.join(", ")) } else { String::new() };
            cells.push(Cell::text(format!("{} {word}{names}", labels.len())));
        }
    }
    if cells.is_empty() {
        cells.push(Cell::text("nothing to judge"));
    }
    KeyValue::new(&pair.variant, cells)
}

fn pair_table(pair: &Pair) -> Table {
    let rows = FIGURES.iter().filter_map(|figure| {
        let change = pair.figures.get(figure.key)?;
        let share = |relative: Option<f64>, absolute: Option<f64>| match relative {
            Some(relative) => Cell::Change(relative),
            None => figure.cell(absolute),
        };
        let ends = [change.relative_interval, change.interval].map(|i| i.map(|i| (i.low, i.high)));
        Some(vec![
            Cell::text(figure.label),
            share(change.relative, Some(change.difference)),
            share(ends[0].map(|e| e.0), ends[1].map(|e| e.0)),
            share(ends[0].map(|e| e.1), ends[1].map(|e| e.1)),
            verdict_cell(change, figure.better),
        ])
    });
    Table {
        title: format!("{} against {}", pair.variant, pair.baseline),
        columns: vec![
            Column::text(""),
            Column::figures("change"),
            Column::figures("95 % from"),
            Column::figures("to"),
            Column::text("verdict"),
        ],
        rows: rows.collect(),
    }
}

fn verdict_cell(change: &Change, better: Better) -> Cell {
    let judged = |text: &str, good| Cell::Judged { text: text.to_owned(), good };
    match (change.verdict, change.more_replications) {
        (Verdict::Better, _) => judged("better", Some(true)),
        (Verdict::Worse, _) => judged("worse", Some(false)),
        (Verdict::Same, _) => judged("same", None),
        (Verdict::NotShown, Some(more)) => judged(&format!("not shown; ~{more} more runs"), None),
        (Verdict::NotShown, None) => judged("not shown", None),
        (Verdict::NotJudged, _) if better == Better::Neither => judged("", None),
        (Verdict::NotJudged, _) => judged("no interval", None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests_support::{comparison, shifted};
    use crate::markdown;
    use crate::terminal::Terminal;

    #[test]
    fn the_table_fits_80_columns_and_names_what_is_worse() {
        let comparison = comparison(&[("today", &shifted(1.0)), ("tomorrow", &shifted(1.3))]);
        let screen = Terminal::default().render(&comparison.to_document());
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
        assert!(screen.contains("1 worse (TTFT mean)"), "{screen}");
        assert!(screen.contains("tomorrow against today"), "{screen}");
        assert!(!screen.contains("NaN") && !screen.contains("inf"), "{screen}");
    }

    #[test]
    fn markdown_has_a_table_for_each_pair() {
        let three = comparison(&[("a", &shifted(1.0)), ("b", &shifted(1.3)), ("c", &shifted(0.7))]);
        let text = markdown::render(&three.to_document());
        assert!(text.starts_with("## b, c against a\n"), "{text}");
        assert_eq!(text.matches("| **worse** |").count(), 1, "{text}");
        assert_eq!(text.matches("| **better** |").count(), 1, "{text}");
    }
}
