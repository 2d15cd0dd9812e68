//! The report: every figure of every rung, and how near each reading comes.

use std::fmt::Write as _;

use super::{Climbed, Ladder, POLICIES, Ranks};
use crate::ladder::Figures;

/// The chart's name.
pub(super) const CHART: &str = "llm-d-policy-ladder.svg";

/// The whole report; links to the chart begin with `charts_at`.
pub(super) fn markdown(ladder: &Ladder, charts_at: &str) -> String {
    let mut text = summary(ladder);
    for climbed in &ladder.climbed {
        table(&mut text, ladder, climbed);
    }
    // A write to a string cannot fail.
    let _ = write!(
        text,
        "\n![output rate and mean TTFT by request rate, published and simulated]({charts_at}{CHART})\n"
    );
    text
}

/// One row for each reading.
fn summary(ladder: &Ladder) -> String {
    let names: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
    let mut text = format!(
        "Policies in the order {}. Ranks: pairs whose published figures differ by more than 20 %, from 20 requests/s up. \
         Collapse: the first rung whose mean TTFT is five times that of 3 requests/s.\n\n\
         | reading | ranks by output rate | ranks by TTFT | output rate at 60 requests/s | rungs that the collapse is late |\n\
         |---|---|---|---|---|\n",
        names.join(", ")
    );
    for climbed in &ladder.climbed {
        let right = |Ranks { pairs, right }| format!("{right} of {pairs}");
        let errors = ladder.top_errors(climbed);
        let errors: Vec<_> = errors.iter().map(|error| format!("{:+.1} %", error * 100.0)).collect();
        let offsets = ladder.collapse_offsets(climbed);
        let offsets: Vec<_> = offsets
            .iter()
            .map(|offset| offset.map_or("only one does".to_owned(), |rungs| rungs.to_string()))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            climbed.reading.name,
            right(ladder.ranks(climbed, |figures| figures.tokens_per_s)),
            right(ladder.ranks(climbed, |figures| figures.ttft_mean_s)),
            errors.join(", "),
            offsets.join(", ")
        );
    }
    text
}

fn table(text: &mut String, ladder: &Ladder, climbed: &Climbed) {
    let names: Vec<&str> = POLICIES.iter().map(|policy| policy.name).collect();
    let _ = write!(
        text,
        "\nReading: {}. Output tokens/s and mean TTFT, simulated [published].\n\n| requests/s | {} |\n|---|{}\n",
        climbed.reading.name,
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for rung in 0..ladder.published[0].len() {
        let cells: Vec<String> = climbed
            .simulated
            .iter()
            .zip(&ladder.published)
            .map(|(simulated, published)| cell(&simulated[rung], &published[rung]))
            .collect();
        let _ = writeln!(text, "| {} | {} |", ladder.published[0][rung].rate, cells.join(" | "));
    }
}

fn cell(simulated: &Figures, published: &Figures) -> String {
    format!(
        "{:.0} [{:.0}], {:.2} s [{:.2}]",
        simulated.tokens_per_s, published.tokens_per_s, simulated.ttft_mean_s, published.ttft_mean_s
    )
}
