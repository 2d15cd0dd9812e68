//! The plan for people: the fleet first, then how sure it is, what was close, what would change it.

use forerun_reports::document::{Block, Cell, Column, Document, KeyValue, Level, Table};

use super::answer::{Fleet, Plan};
use super::confirm::Confirmation;
use crate::words::{number, percent, plural};

/// Rejected kinds that are listed; the others are in the JSON document.
const REJECTED: usize = 8;

/// Fleets of the Pareto front that are listed.
const FRONT: usize = 6;

impl Plan {
    /// The plan as a document.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let mut blocks = vec![Block::Text(self.headline())];
        blocks.push(Block::KeyValues(self.sureness()));
        if !self.by_roles.is_empty() {
            blocks.push(Block::KeyValues(self.close()));
        }
        if self.pareto.len() > 1 {
            blocks.push(Block::Table(self.front()));
        }
        if !self.sensitivity.is_empty() {
            blocks.push(Block::Table(self.what_if()));
        }
        if !self.rejected.is_empty() {
            blocks.push(Block::Table(self.left_out()));
        }
        let notes = self.price_sources.iter().chain(&self.warnings);
        blocks.extend(notes.map(|text| Block::Note { level: Level::Info, text: text.clone() }));
        blocks.push(Block::Text(self.simulated()));
        let title = "The cheapest fleet that holds the SLO".to_owned();
        Document { title, subtitle: self.about.join(" "), blocks }
    }

    fn headline(&self) -> String {
        match &self.fleet {
            Some(fleet) => {
                let million = fleet.usd_per_million_output_tokens;
                let million = million.map_or_else(String::new, |usd| {
                    format!(", {} USD per million output tokens", number(usd))
                });
                format!(
                    "{}: {}, {} USD an hour{million}.",
                    fleet.name,
                    plural(fleet.gpus, "GPU"),
                    number(fleet.usd_per_hour)
                )
            }
            None => "No fleet that was tried is shown to hold the SLO. Relax it, or allow more replicas, other GPUs or \
                     wider splits."
                .to_owned(),
        }
    }

    fn sureness(&self) -> Vec<KeyValue> {
        let mut rows = Vec::new();
        let mut row = |key: &str, text: String| rows.push(KeyValue::new(key, vec![Cell::text(text)]));
        let sure = &self.confirmation;
        if let Some(fleet) = &self.fleet {
            let figures = &fleet.figures;
            let ms = |value: Option<f64>| value.map_or("–".to_owned(), |ms| format!("{} ms", number(ms)));
            let share = |value: Option<f64>| {
                value.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0))
            };
            row(
                "It does",
                format!(
                    "TTFT p95 {}, TPOT p95 {}, {} of requests good, replicas busy {}",
                    ms(figures.ttft_p95_ms),
                    ms(figures.tpot_p95_ms),
                    share(figures.attainment),
                    share(figures.busy)
                ),
            );
        }
        row("Other traffic", other_traffic(sure));
        let doubt = &self.step_times;
        if let (Some(limit), Some(chance)) = (doubt.limit, doubt.slo_holds) {
            row(
                "Step times",
                format!(
                    "P(SLO holds) = {}; it does up to {} x the simulated step times (grade \"{}\": real ones {} x, 95 % \
                     within {} %)",
                    percent(chance),
                    number(limit),
                    doubt.grade,
                    number(doubt.median),
                    number(doubt.deviation * 196.0)
                ),
            );
            if let (Some(fleet), Some(usd)) = (&doubt.fleet_90, doubt.usd_per_hour_90) {
                row("90 % sure of both", format!("{fleet}: {} USD/h", number(usd)));
            }
        }
        if let Some(headroom) = self.headroom {
            let peak = self.peak_to_mean.map_or_else(String::new, |peak| {
                format!("; the fullest minute has {} x the mean rate", number(peak))
            });
            row("Headroom", format!("holds up to {} x the traffic{peak}", number(headroom)));
        }
        rows
    }

    fn close(&self) -> Vec<KeyValue> {
        let mut rows = Vec::new();
        let mut row = |key: &str, text: String| rows.push(KeyValue::new(key, vec![Cell::text(text)]));
        for way in &self.by_roles {
            let key = if way.apart { "Prefill apart" } else { "Together" };
            let text = match (&way.fleet, &way.why_not) {
                (Some(fleet), _) => format!("{}: {} USD/h", fleet.name, number(fleet.usd_per_hour)),
                (None, Some(why)) => format!("left out: {why}"),
                (None, None) => "nothing was tried".to_owned(),
            };
            row(key, text);
        }
        match (&self.runner_up, self.margin) {
            (Some(other), Some(margin)) => {
                row("Runner-up", format!("{}: {} more", other.name, percent(margin)));
            }
            _ => row("Runner-up", "none within a quarter of its price".to_owned()),
        }
        rows
    }

    fn front(&self) -> Table {
        let columns = [
            Column::text("fleet"),
            Column::figures("GPUs"),
            Column::figures("USD/h"),
            Column::figures("TTFT p95"),
            Column::figures("TPOT p95"),
        ];
        let latency = |value: Option<f64>| value.map_or(Cell::Missing, Cell::Millis);
        let row = |fleet: &Fleet| {
            vec![
                Cell::text(fleet.name.as_str()),
                Cell::count(fleet.gpus.into(), ""),
                Cell::text(number(fleet.usd_per_hour)),
                latency(fleet.figures.ttft_p95_ms),
                latency(fleet.figures.tpot_p95_ms),
            ]
        };
        let rows = self.pareto.iter().take(FRONT).map(row).collect();
        Table {
            title: "None of these is cheaper and faster than another".to_owned(),
            columns: columns.into(),
            rows,
        }
    }

    fn what_if(&self) -> Table {
        let columns =
            [Column::text("if"), Column::text("it holds"), Column::text("then"), Column::figures("USD/h")];
        let rows = self.sensitivity.iter().map(|one| {
            vec![
                Cell::text(one.change.as_str()),
                Cell::Verdict(one.holds),
                Cell::text(one.fleet.as_deref().unwrap_or("nothing that was tried")),
                one.usd_per_hour.map_or(Cell::Missing, |usd| Cell::text(number(usd))),
            ]
        });
        Table { title: "What if".to_owned(), columns: columns.into(), rows: rows.collect() }
    }

    fn left_out(&self) -> Table {
        let columns = [Column::text("fleet"), Column::figures("USD/h"), Column::text("why")];
        let row = |kind: &str, usd: Option<f64>, why: &str| {
            let usd = usd.map_or(Cell::Missing, |usd| Cell::text(number(usd)));
            vec![Cell::text(kind), usd, Cell::text(why)]
        };
        let listed = self.rejected.iter().take(REJECTED);
        let mut rows: Vec<_> = listed.map(|one| row(&one.kind, one.usd_per_hour, &one.why)).collect();
        if let Some(more) = self.rejected.len().checked_sub(REJECTED).filter(|more| *more > 0) {
            rows.push(row(&format!("{more} more"), None, "see --format json"));
        }
        Table { title: "Left out".to_owned(), columns: columns.into(), rows }
    }

    fn simulated(&self) -> String {
        let simulation = &self.simulation;
        let wall = simulation.wall_s.map_or_else(String::new, |wall| format!(" in {} s", number(wall)));
        let rounds: Vec<String> = simulation.requests_by_round.iter().map(u64::to_string).collect();
        format!(
            "{} kinds of fleets, {} runs, {} requests{wall}. Runs of {} requests; all candidates see the same ones.",
            simulation.kinds,
            simulation.runs,
            simulation.requests,
            rounds.join(", then ")
        )
    }
}

/// How sure it is that the fleet holds when other traffic of the same kind comes.
fn other_traffic(sure: &Confirmation) -> String {
    let held = format!("the SLO held in {} of {}", sure.seeds_held, plural(sure.seeds as u32, "run"));
    let Some(margin) = sure.margin else {
        return format!("{held}; a recorded trace too short for an interval");
    };
    let (low, high) = (margin.low * 100.0, margin.high * 100.0);
    let kept = format!("tightest limit kept by {low:.1} to {high:.1} % ({} sure)", percent(sure.confidence));
    let Some(windows) = sure.windows else { return format!("{held} with fresh seeds; {kept}") };
    let narrow = if sure.dependent { "; they depend on their neighbours: too narrow" } else { "" };
    format!("{held}; by {windows} windows of the recorded trace, {kept}{narrow}")
}
