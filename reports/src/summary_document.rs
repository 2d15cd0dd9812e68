//! What `forerun simulate` shows of a summary: one screen.

use crate::capacity::PoolCapacity;
use crate::document::{Bar, Bars, Block, Cell, Column, Document, KeyValue, Level, Table};
use crate::replications::Replications;
use crate::summary::{
    AdapterLoads, GroupSummary, LatencyMs, Rates, Replica, SloFigures, Summary, Throughput,
};

/// Replicas that have a row of their own.
const REPLICAS_SHOWN: usize = 8;

/// Tenants, classes or pools that have a row of their own.
const GROUPS_SHOWN: usize = 5;

/// Causes below this share of the mean end-to-end time are not drawn.
const CAUSE_SHARE_MIN: f64 = 0.0005;

impl Summary {
    /// The summary as a document for people.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let mut about = self.about.iter();
        let title = about.next().cloned().unwrap_or_else(|| "Simulation".to_owned());
        let subtitle = about.map(String::as_str).collect::<Vec<_>>().join("; ");
        let mut blocks = vec![Block::KeyValues(self.totals()), Block::Table(self.latencies())];
        blocks.extend(self.where_the_time_went().map(Block::Bars));
        blocks.push(Block::Table(replicas(&self.replicas)));
        let groups = [("Pools", &self.by_pool), ("Classes", &self.by_class), ("Tenants", &self.by_tenant)];
        for (title, groups) in groups {
            if groups.len() > 1 {
                let groups: Vec<_> = groups.iter().map(|(name, group)| (name.as_str(), group)).collect();
                blocks.push(Block::Table(group_table(title, groups)));
            }
        }
        if !self.slo_checks.is_empty() {
            blocks.push(Block::Table(self.slo_table()));
        }
        blocks.extend(self.replications.iter().flat_map(Replications::blocks));
        let warnings = self.warnings.iter().cloned();
        blocks.extend(warnings.map(|text| Block::Note { level: Level::Warning, text }));
        blocks.extend(self.uncertainties().map(|text| Block::Note { level: Level::Info, text }));
        if let Some(source) = &self.cost.price_source {
            blocks.push(Block::Note { level: Level::Info, text: format!("GPU price: {source}") });
        }
        blocks.push(Block::KeyValues(vec![self.simulated()]));
        Document { title, subtitle, blocks }
    }

    /// How far the figures may be off: once for all pools that are alike.
    fn uncertainties(&self) -> impl Iterator<Item = String> {
        let known = self.cost_model.iter().filter_map(|model| model.uncertainty.as_ref());
        let mut words: Vec<String> = known.map(|uncertainty| uncertainty.words()).collect();
        words.dedup();
        words.into_iter()
    }

    fn totals(&self) -> Vec<KeyValue> {
        let mut lines = vec![KeyValue::new("Requests", self.request_counts())];
        let failures: Vec<Cell> = self
            .failures
            .entries()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| Cell::count(count, &reason.replace('_', " ")))
            .collect();
        if !failures.is_empty() {
            lines.push(KeyValue::new("Failures", failures));
        }
        if let Some(mirrored) = &self.mirrored {
            let mut cells = vec![
                Cell::count(mirrored.sent, "copies"),
                Cell::count(mirrored.completed, "completed"),
                Cell::count(mirrored.output_tokens, "tokens for nobody"),
            ];
            if let Some(mean) = mirrored.ttft_mean_ms {
                cells.extend([Cell::text("TTFT mean"), Cell::Millis(mean)]);
            }
            lines.push(KeyValue::new("Mirrored", cells));
        }
        lines.extend([
            KeyValue::new("Throughput", self.rates()),
            KeyValue::new("Goodput", self.goodput()),
            KeyValue::new("KV cache", self.kv_cache()),
        ]);
        let tiered = self.kv_capacity.iter().filter(|pool| pool.tiers.len() > 1);
        lines.extend(tiered.map(PoolCapacity::line));
        lines.push(KeyValue::new("Cost", self.costs()));
        lines.extend(self.lora.as_ref().map(|lora| KeyValue::new("LoRA", adapter_loads(lora))));
        lines
    }

    /// Arrived, and how the requests ended; ends that never happened are not worth a word, completion is.
    fn request_counts(&self) -> Vec<Cell> {
        let requests = &self.requests;
        let ends = [
            (requests.failed, "failed"),
            (requests.rejected, "rejected"),
            (requests.unfinished, "unfinished"),
            (requests.warm_up, "more in the warm-up"),
            (requests.retries, "retries"),
            (requests.restarts, "sent again after a replica died"),
        ];
        let ends = ends.into_iter().filter(|(count, _)| *count > 0);
        [(requests.arrived, "arrived"), (requests.completed, "completed")]
            .into_iter()
            .chain(ends)
            .map(|(count, what)| Cell::count(count, what))
            .collect()
    }

    /// The rates up to the last arrival, or to the end where all requests arrived at once.
    fn rates(&self) -> Vec<Cell> {
        let Throughput { requests_per_s, input_tokens_per_s, output_tokens_per_s, with_drain } =
            self.throughput;
        let burst = requests_per_s.is_none();
        let rates = if burst {
            with_drain
        } else {
            Rates { requests_per_s, input_tokens_per_s, output_tokens_per_s }
        };
        let mut cells = vec![
            Cell::number(rates.requests_per_s, "requests/s"),
            Cell::number(rates.input_tokens_per_s, "prefill tokens/s"),
            Cell::number(rates.output_tokens_per_s, "output tokens/s"),
        ];
        if burst && rates.requests_per_s.is_some() {
            cells.push(Cell::text("to the end of the run"));
        }
        cells
    }

    fn goodput(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        if self.goodput.requests_per_s.is_some() {
            cells.push(Cell::number(self.goodput.requests_per_s, "requests/s"));
        }
        cells.push(Cell::count(self.requests.good, "good"));
        if self.goodput.attainment.is_some() {
            cells.push(Cell::share_of(self.goodput.attainment, "of arrived"));
        }
        cells
    }

    fn kv_cache(&self) -> Vec<Cell> {
        let duplicate = Some(self.kv.duplicate_prefill_tokens as f64);
        let mut cells = vec![
            Cell::number(duplicate, "duplicate prefill tokens"),
            Cell::count(self.kv.preemptions, "preemptions"),
        ];
        if self.kv.hit_rate.is_some() {
            cells.insert(0, Cell::share_of(self.kv.hit_rate, "hit rate"));
        }
        cells
    }

    fn costs(&self) -> Vec<Cell> {
        let mut cells = vec![Cell::number(Some(self.cost.gpu_hours), "GPU hours")];
        if self.cost.usd.is_some() {
            cells.push(Cell::number(self.cost.usd, "USD"));
        }
        if self.cost.usd_per_million_output_tokens.is_some() {
            cells
                .push(Cell::number(self.cost.usd_per_million_output_tokens, "USD per million output tokens"));
        }
        cells
    }

    fn latencies(&self) -> Table {
        let names = ["mean", "p50", "p90", "p95", "p99", "max"];
        let row = |name: &str, latency: &LatencyMs| {
            let LatencyMs { mean, p50, p90, p95, p99, max } = *latency;
            let figures = [mean, p50, p90, p95, p99, max].map(Cell::millis);
            std::iter::once(Cell::text(name)).chain(figures).collect()
        };
        Table {
            title: "Latency".to_owned(),
            columns: std::iter::once(Column::text("")).chain(names.map(Column::figures)).collect(),
            rows: vec![
                row("TTFT", &self.ttft_ms),
                row("TPOT", &self.tpot_ms),
                row("ITL", &self.itl_ms),
                row("E2E", &self.e2e_ms),
                row("queue", &self.queue_ms),
            ],
        }
    }

    fn where_the_time_went(&self) -> Option<Bars> {
        let e2e = self.e2e_ms.mean.filter(|&mean| mean > 0.0)?;
        let bars = self.latency_ms_by_cause.entries().into_iter().filter_map(|(key, mean)| {
            let mean = mean?;
            let share = mean / e2e;
            let label = key.replace('_', " ");
            (share >= CAUSE_SHARE_MIN).then_some(Bar { label, value: Cell::Millis(mean), share })
        });
        Some(Bars { title: "Where the time went (mean E2E)".to_owned(), bars: bars.collect() })
    }

    fn slo_table(&self) -> Table {
        let rows = self.slo_checks.iter().map(|check| {
            let (actual, limit) = match check.figures {
                SloFigures::Latency { limit_ms, actual_ms } => {
                    (Cell::millis(actual_ms), Cell::Millis(limit_ms))
                }
                SloFigures::Share { limit_share, actual_share } => {
                    (Cell::share(actual_share), Cell::share(Some(limit_share)))
                }
            };
            vec![Cell::text(check.name.replace('_', " ")), actual, limit, Cell::Verdict(check.holds)]
        });
        Table {
            title: "SLO".to_owned(),
            columns: vec![
                Column::text(""),
                Column::figures("actual"),
                Column::figures("limit"),
                Column::text(""),
            ],
            rows: rows.collect(),
        }
    }

    fn simulated(&self) -> KeyValue {
        let simulation = &self.simulation;
        let seconds = |value: f64| Cell::Millis(value * 1e3);
        let mut cells = vec![seconds(simulation.virtual_s)];
        if let Some(wall_s) = simulation.wall_s {
            cells.push(Cell::number(Some(wall_s), "s of wall time"));
        }
        if simulation.requests_per_wall_s.is_some() {
            cells.push(Cell::number(simulation.requests_per_wall_s, "requests per wall second"));
        }
        KeyValue::new("Simulated", cells)
    }
}

fn adapter_loads(lora: &AdapterLoads) -> Vec<Cell> {
    vec![
        Cell::count(lora.loads, "adapter loads"),
        Cell::count(lora.disk_loads, "from disk"),
        Cell::number(lora.loads_per_minute, "per minute"),
        Cell::share_of(lora.waited_fraction, "of busy time"),
    ]
}

fn replicas(replicas: &[Replica]) -> Table {
    let mut rows: Vec<Vec<Cell>> = replicas.iter().take(REPLICAS_SHOWN).map(replica_row).collect();
    if replicas.len() > REPLICAS_SHOWN {
        let left = replicas.len() - REPLICAS_SHOWN;
        let mut more = vec![Cell::text(format!("and {left} more"))];
        more.resize(6, Cell::text(""));
        rows.push(more);
        let all = replicas.len();
        let minimum = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let maximum = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        rows.push(replica_statistic(&format!("min of {all}"), replicas, minimum));
        rows.push(replica_statistic(&format!("mean of {all}"), replicas, mean));
        rows.push(replica_statistic(&format!("max of {all}"), replicas, maximum));
    }
    let columns = ["busy", "KV in use", "steps", "requests", "preemptions"].map(Column::figures);
    Table {
        title: "Replicas".to_owned(),
        columns: std::iter::once(Column::text("")).chain(columns).collect(),
        rows,
    }
}

fn replica_row(replica: &Replica) -> Vec<Cell> {
    vec![
        Cell::text(replica.name.as_str()),
        Cell::share(replica.busy_fraction),
        Cell::share(Some(replica.kv_usage_mean)),
        Cell::count(replica.steps, ""),
        Cell::count(replica.requests, ""),
        Cell::count(replica.preemptions, ""),
    ]
}

/// A row with one statistic of every figure over all replicas.
fn replica_statistic(name: &str, replicas: &[Replica], statistic: impl Fn(&[f64]) -> f64) -> Vec<Cell> {
    let over = |figure: fn(&Replica) -> Option<f64>| {
        let values: Vec<f64> = replicas.iter().filter_map(figure).collect();
        (!values.is_empty()).then(|| statistic(&values))
    };
    let count = |figure| over(figure).map_or(Cell::Missing, |value| Cell::count(value.round() as u64, ""));
    vec![
        Cell::text(name),
        Cell::share(over(|replica| replica.busy_fraction)),
        Cell::share(over(|replica| Some(replica.kv_usage_mean))),
        count(|replica| Some(replica.steps as f64)),
        count(|replica| Some(replica.requests as f64)),
        count(|replica| Some(replica.preemptions as f64)),
    ]
}

/// The groups with most requests, and the one with the worst TTFT if it is not among them.
fn group_table(title: &str, mut groups: Vec<(&str, &GroupSummary)>) -> Table {
    // A stable sort: groups of equal size stay in the order of their names.
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.arrived));
    let shown = groups.len().min(GROUPS_SHOWN);
    let mut rows: Vec<Vec<Cell>> =
        groups[..shown].iter().map(|(name, group)| group_row((*name).to_owned(), group)).collect();
    let left = &groups[shown..];
    if !left.is_empty() {
        let ttft = |group: &GroupSummary| group.ttft_ms.p95.unwrap_or(0.0);
        let slowest_shown = groups[..shown].iter().map(|(_, group)| ttft(group)).fold(0.0, f64::max);
        let worst = left.iter().max_by(|(_, a), (_, b)| ttft(a).total_cmp(&ttft(b)));
        let worst = worst.filter(|(_, group)| ttft(group) > slowest_shown);
        if let Some((name, group)) = worst {
            rows.push(group_row(format!("{name} (worst TTFT)"), group));
        }
        let hidden = left.len() - usize::from(worst.is_some());
        if hidden > 0 {
            let mut more = vec![Cell::text(format!("and {hidden} more"))];
            more.resize(6, Cell::text(""));
            rows.push(more);
        }
    }
    let columns = ["requests", "good", "hit rate", "TTFT p95", "E2E p95"].map(Column::figures);
    Table {
        title: title.to_owned(),
        columns: std::iter::once(Column::text("")).chain(columns).collect(),
        rows,
    }
}

fn group_row(name: String, group: &GroupSummary) -> Vec<Cell> {
    vec![
        Cell::Text(name),
        Cell::count(group.arrived, ""),
        Cell::share(group.attainment),
        Cell::share(group.hit_rate),
        Cell::millis(group.ttft_ms.p95),
        Cell::millis(group.e2e_ms.p95),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Terminal;
    use crate::testing::{example_summary, example_summary_of};

    /// Lines that a screen is expected to have.
    const SCREEN_LINES: usize = 40;

    fn screen(summary: &Summary) -> String {
        Terminal::default().render(&summary.to_document())
    }

    fn table<'a>(document: &'a Document, title: &str) -> &'a Table {
        let tables = document.blocks.iter().filter_map(|block| match block {
            Block::Table(table) => Some(table),
            _ => None,
        });
        tables.into_iter().find(|table| table.title == title).expect("a table of that title")
    }

    #[test]
    fn four_replicas_two_limits_and_a_warning_fit_one_screen() {
        let mut summary = example_summary();
        summary.by_tenant.clear();
        let screen = screen(&summary);
        assert!(screen.lines().count() <= SCREEN_LINES, "{screen}");
    }

    #[test]
    fn many_replicas_are_shown_as_eight_and_a_summary() {
        let document = example_summary_of(64).to_document();
        let rows = &table(&document, "Replicas").rows;
        assert_eq!(rows.len(), 12);
        assert_eq!(rows[8][0], Cell::text("and 56 more"));
        let Cell::Share { share: mean, .. } = rows[10][1] else { panic!("a share") };
        let expected = (0..64).map(|index| 0.70 + 0.02 * f64::from(index % 10)).sum::<f64>() / 64.0;
        assert!((mean - expected).abs() < 1e-9);
        assert_eq!(rows[11][2], Cell::share(Some(0.43)));
    }

    #[test]
    fn the_worst_tenant_is_shown_however_small() {
        let mut summary = example_summary();
        let usual = summary.by_tenant["acme"];
        for index in 0..10 {
            summary.by_tenant.insert(format!("tenant-{index}"), usual);
        }
        let mut slow = usual;
        slow.arrived = 1;
        slow.ttft_ms.p95 = Some(60_000.0);
        summary.by_tenant.insert("unlucky".to_owned(), slow);
        let document = summary.to_document();
        let rows = &table(&document, "Tenants").rows;
        assert_eq!(rows[GROUPS_SHOWN][0], Cell::text("unlucky (worst TTFT)"));
        assert_eq!(rows[GROUPS_SHOWN + 1][0], Cell::text("and 9 more"));
    }

    #[test]
    fn causes_of_no_time_are_left_out() {
        let document = example_summary().to_document();
        let bars = document.blocks.iter().find_map(|block| match block {
            Block::Bars(bars) => Some(bars),
            _ => None,
        });
        let bars = &bars.expect("a chart").bars;
        let labels: Vec<&str> = bars.iter().map(|bar| bar.label.as_str()).collect();
        assert_eq!(labels, ["overhead", "engine queue step", "own prefill", "decode"]);
        let total: f64 = bars.iter().map(|bar| bar.share).sum();
        assert!((total - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_empty_run_is_shown_without_made_up_figures() {
        let empty = crate::collector::Collector::new(
            forerun_sim::time::Time::ZERO,
            crate::slo::Slo::default(),
            ["pool"],
        );
        let labels = forerun_sim::request::Labels::default();
        let summary =
            empty.finish(&crate::testing::totals(1, 0), &labels, crate::collector::SummaryContext::default());
        let screen = screen(&summary);
        assert!(!screen.contains("NaN") && !screen.contains("inf"), "{screen}");
        assert!(screen.contains("0 arrived"), "{screen}");
    }
}
