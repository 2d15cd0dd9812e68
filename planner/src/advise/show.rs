//! The answer for people: the verdict first, then the table, then the evidence of each row.

use forerun_reports::document::{Align, Block, Cell, Column, Document, KeyValue, Level, Table};

use super::advice::{Advice, Answer, Gain, Row, Saved, Today};
use crate::words::{number, percent, plural, seconds, tokens};

impl Advice {
    /// The answer as a document.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let mut blocks = vec![Block::Text(self.verdict.headline.clone())];
        blocks.push(Block::Table(self.table()));
        blocks.push(Block::Heading("Evidence".to_owned()));
        blocks.push(Block::KeyValues(self.rows.iter().map(evidence).collect()));
        blocks.push(Block::Heading("What to run".to_owned()));
        blocks.push(Block::KeyValues(self.fleet()));
        blocks.push(Block::Heading("How sure".to_owned()));
        blocks.push(Block::KeyValues(self.sureness()));
        if !self.hazards.is_empty() {
            blocks.push(Block::Heading("Mind".to_owned()));
            blocks.extend(self.hazards.iter().map(|text| note(Level::Warning, text)));
        }
        blocks.push(Block::Heading("Not simulated".to_owned()));
        blocks.push(Block::Text(sentence(&self.not_simulated.join("; "))));
        blocks.extend(self.warnings.iter().map(|text| note(Level::Info, text)));
        blocks.push(Block::Text(self.simulated()));
        Document { title: "Does this traffic need llm-d?".to_owned(), subtitle: self.about.join(" "), blocks }
    }

    fn table(&self) -> Table {
        let rows = self.rows.iter().map(|row| {
            vec![
                Cell::text(row.signal.label()),
                answer(row.answer),
                Cell::text(row.shows.as_str()),
                Cell::text(row.threshold.as_str()),
            ]
        });
        let heads = ["", "pays?", "the traffic", "held against"];
        let columns = heads.map(|name| Column { name: name.to_owned(), align: Align::Left, unit: None });
        Table { title: "Signal".to_owned(), columns: columns.into(), rows: rows.collect() }
    }

    fn fleet(&self) -> Vec<KeyValue> {
        let verdict = &self.verdict;
        let mut rows = Vec::new();
        if let (Some(replicas), Some(gpus)) = (verdict.replicas, verdict.gpus) {
            rows.push(KeyValue::new(
                "Fleet",
                vec![
                    Cell::count(replicas.into(), if replicas == 1 { "replica" } else { "replicas" }),
                    Cell::count(gpus.into(), if gpus == 1 { "GPU" } else { "GPUs" }),
                    Cell::text(verdict.router.as_str()),
                ],
            ));
        }
        let parts = verdict.parts.iter().zip(1..).map(|(part, place)| {
            let gain = part
                .gain
                .map_or_else(|| "the SLO is out of reach without".to_owned(), |gain| gain_words(&gain));
            let needs =
                part.needs.as_ref().map_or_else(String::new, |version| format!("; needs llm-d {version}"));
            KeyValue::new(&format!("{place}."), vec![Cell::text(format!("{}: {gain}{needs}", part.name))])
        });
        rows.extend(parts);
        if !verdict.lift.is_empty() {
            let count = verdict.lift.len();
            let lift = format!("{count} more to run: {}", verdict.lift.join("; "));
            rows.push(KeyValue::new("Lift", vec![Cell::text(lift)]));
        }
        if let Some(today) = &self.today {
            rows.push(KeyValue::new("Today", vec![Cell::text(today_words(today))]));
        }
        rows.push(KeyValue::new("One replica", self.replica_cells()));
        rows
    }

    fn replica_cells(&self) -> Vec<Cell> {
        let replica = &self.replica;
        let mut cells = vec![Cell::text(format!(
            "longest context {} tokens",
            tokens(replica.longest_context_tokens as f64)
        ))];
        if let Some(contexts) = replica.resident_contexts {
            cells.push(Cell::text(format!("{contexts} contexts of the mean length resident")));
        }
        if let Some(rate) = replica.requests_per_s {
            cells.push(Cell::text(format!("holds the SLO up to {} req/s on average", number(rate))));
        }
        if let Some(in_flight) = replica.in_flight {
            cells.push(Cell::text(format!("{} in flight then", number(in_flight))));
        }
        if let Some(users) = replica.users {
            let source = if replica.user_gap_measured { "measured" } else { "assumed" };
            cells.push(Cell::text(format!(
                "{} users who ask every {} ({source})",
                number(users.floor()),
                seconds(replica.user_gap_s)
            )));
        }
        cells
    }

    fn sureness(&self) -> Vec<KeyValue> {
        let doubt = &self.doubt;
        let mut rows = Vec::new();
        if doubt.seeds > 0 {
            let held =
                format!("the SLO held in {} of {} runs with fresh seeds", doubt.seeds_held, doubt.seeds);
            rows.push(KeyValue::new("Other traffic of the kind", vec![Cell::text(held)]));
        }
        let model = format!(
            "grade \"{}\": real steps take {} x the simulated ones (median; 95 % within {} %): {}",
            doubt.grade,
            number(doubt.step_time_median),
            number(doubt.step_time_deviation * 196.0),
            doubt.step_time_source
        );
        rows.push(KeyValue::new("Step times", vec![Cell::text(model)]));
        if let (Some(limit), Some(chance)) = (doubt.step_time_limit, doubt.slo_holds) {
            let text = format!(
                "P(SLO holds) = {}; it does up to {} x the simulated step times",
                percent(chance),
                number(limit)
            );
            rows.push(KeyValue::new("Together", vec![Cell::text(text)]));
        }
        if !doubt.sharpen.is_empty() {
            rows.push(KeyValue::new("To sharpen", vec![Cell::text(doubt.sharpen.as_str())]));
        }
        rows
    }

    fn simulated(&self) -> String {
        let simulation = &self.simulation;
        let wall = simulation.wall_s.map_or_else(String::new, |wall| format!(" in {} s", number(wall)));
        format!(
            "{} runs of {} requests each ({} requests in all{wall}), {} paired seeds; the first fifth of each run warms \
             it up. Fleets are searched by bisection on replicas, rates within 4 %.",
            simulation.runs,
            simulation.requests_per_run,
            simulation.requests,
            simulation.seeds.len()
        )
    }
}

fn answer(answer: Answer) -> Cell {
    let (text, good) = match answer {
        Answer::Yes => ("yes", Some(true)),
        Answer::NotYet => ("not yet", None),
        Answer::No => ("no", None),
    };
    Cell::Judged { text: text.to_owned(), good }
}

/// A gain in words.
fn gain_words(gain: &Gain) -> String {
    let of = match gain.of {
        Saved::Gpus => "GPUs",
        Saved::GpuHours => "GPU-hours",
    };
    let interval = match gain.interval {
        Some(interval) => {
            format!(" (95 %: {} to {}, {} pairs)", percent(interval.low), percent(interval.high), gain.pairs)
        }
        None if gain.pairs > 0 => " (one run: no interval)".to_owned(),
        None => " (reckoned)".to_owned(),
    };
    format!("saves {} of {of}{interval}", percent(gain.share))
}

fn evidence(row: &Row) -> KeyValue {
    let mut sentences = Vec::new();
    sentences.extend(row.gain.as_ref().map(gain_words));
    sentences.extend(row.evidence.iter().cloned());
    if let Some(flip) = &row.flip {
        sentences.push(format!("the answer turns: {flip}"));
    }
    KeyValue::new(row.signal.label(), vec![Cell::text(sentence(&sentences.join("; ")))])
}

/// What serves today, in words.
fn today_words(today: &Today) -> String {
    let attainment =
        today.attainment.map_or_else(String::new, |share| format!(", {} of requests good", percent(share)));
    let saved = match today.saved {
        Some(saved) if saved > 0.0 => format!("; the verdict saves {} of its GPUs", percent(saved)),
        Some(saved) if saved < 0.0 => format!("; the verdict needs {} more GPUs", percent(-saved)),
        Some(_) => "; the verdict has as many GPUs".to_owned(),
        None => String::new(),
    };
    format!(
        "{}: {} on {} as a Service: the SLO held in {} of {} runs{attainment}{saved}",
        today.name,
        plural(today.replicas, "replica"),
        plural(today.gpus, "GPU"),
        today.runs_held,
        today.runs
    )
}

/// With a full stop at its end.
fn sentence(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { format!("{text}.") }
}

fn note(level: Level, text: &str) -> Block {
    Block::Note { level, text: text.to_owned() }
}
