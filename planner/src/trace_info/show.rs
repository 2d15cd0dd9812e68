//! The figures as a document for people.

use forerun_reports::document::{Bar, Bars, Block, Cell, Column, Document, KeyValue, Level, Table};
use forerun_workloads::measure::{CacheHits, Figures, Measures, Prefixes, Skew};

use super::TraceInfo;

/// Cache sizes that are drawn.
const BARS: usize = 9;
/// Names that are listed.
const NAMES: usize = 3;

impl TraceInfo {
    /// The figures as a document.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let measures = &self.measures;
        let mut blocks = vec![Block::KeyValues(totals(measures)), Block::Table(lengths(measures))];
        blocks.push(Block::Table(bins(measures)));
        blocks.extend(idle(measures));
        blocks.push(Block::Heading("Prefix sharing".to_owned()));
        blocks.push(Block::KeyValues(sharing(&measures.prefixes)));
        blocks.extend(by_cache(&measures.prefixes));
        blocks.extend(top(&measures.prefixes));
        let mut groups = Vec::new();
        groups.extend(sessions(measures));
        groups.extend(skew("Tenants", &measures.tenants));
        groups.extend(skew("Models", &measures.models));
        groups.extend(skew("Adapters", &measures.adapters));
        groups.extend(together(measures));
        if !groups.is_empty() {
            blocks.push(Block::Heading("Who asks".to_owned()));
            blocks.push(Block::KeyValues(groups));
        }
        let warnings = self.warnings.iter().cloned();
        blocks.extend(warnings.map(|text| Block::Note { level: Level::Warning, text }));
        let mut subtitle = format!("KV blocks of {} tokens", measures.prefixes.block_tokens);
        if self.warm_up_s > 0.0 {
            subtitle += &format!("; the first {} s are warm-up", self.warm_up_s);
        }
        Document { title: self.about.clone(), subtitle, blocks }
    }

    /// The figures as JSON, schema `forerun/trace-info/v1`.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("figures are plain data")
    }
}

fn seconds(seconds: Option<f64>) -> Cell {
    Cell::millis(seconds.map(|seconds| seconds * 1e3))
}

fn totals(measures: &Measures) -> Vec<KeyValue> {
    let rates = &measures.rates;
    let mut requests = vec![Cell::count(measures.requests, "requests"), seconds(Some(measures.span_s))];
    if measures.warm_up_requests > 0 {
        requests.push(Cell::count(measures.warm_up_requests, "more in the warm-up"));
    }
    let mut lines = vec![KeyValue::new("Requests", requests)];
    if rates.mean_per_s.is_some() {
        let mut rate = vec![Cell::number(rates.mean_per_s, "requests/s")];
        if rates.sustained_per_s.is_some() {
            rate.push(Cell::number(rates.sustained_per_s, "sustained (p95 of minutes)"));
        }
        lines.push(KeyValue::new("Rate", rate));
    }
    if rates.gap_cv.is_some() {
        let gaps = vec![Cell::number(rates.gap_cv, "CV (Poisson: 1)"), seconds(rates.gap_max_s)];
        lines.push(KeyValue::new("Gaps, longest", gaps));
    }
    lines
}

fn lengths(measures: &Measures) -> Table {
    let row = |name: &str, figures: &Figures| {
        let Figures { mean, cv, p50, p90, p99, max } = *figures;
        let number = |value| Cell::number(value, "");
        let cells = [mean, p50, p90, p99, max, cv].map(number);
        std::iter::once(Cell::text(name)).chain(cells).collect()
    };
    let columns = ["mean", "p50", "p90", "p99", "max", "CV"].map(Column::figures);
    Table {
        title: "Tokens".to_owned(),
        columns: std::iter::once(Column::text("")).chain(columns).collect(),
        rows: vec![
            row("prompt", &measures.input_tokens),
            row("answer", &measures.output_tokens),
            row("both", &measures.context_tokens),
        ],
    }
}

fn bins(measures: &Measures) -> Table {
    let rows = measures.rates.bins.iter().filter(|bins| bins.bins > 0).map(|bins| {
        vec![
            Cell::text(format!("{} s", bins.seconds)),
            Cell::number(bins.peak_to_mean, ""),
            Cell::number(bins.dispersion, ""),
            Cell::share(bins.empty_share),
        ]
    });
    let columns = ["peak/mean", "variance/mean", "empty"].map(Column::figures);
    Table {
        title: "Arrivals in bins of".to_owned(),
        columns: std::iter::once(Column::text("")).chain(columns).collect(),
        rows: rows.collect(),
    }
}

fn idle(measures: &Measures) -> Option<Block> {
    let rows = measures.idle_gaps.iter().filter(|idle| idle.gaps > 0).map(|idle| {
        vec![
            seconds(Some(idle.at_least_s)),
            Cell::count(idle.gaps, ""),
            Cell::number(idle.per_day, ""),
            Cell::share(idle.share_of_time),
            seconds(Some(idle.beyond_s)),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let columns = ["gaps", "a day", "of the time", "beyond it"].map(Column::figures);
    (!rows.is_empty()).then(|| {
        Block::Table(Table {
            title: "Nothing arrives for at least".to_owned(),
            columns: std::iter::once(Column::text("")).chain(columns).collect(),
            rows,
        })
    })
}

fn sharing(prefixes: &Prefixes) -> Vec<KeyValue> {
    let seen = vec![
        Cell::share_of(prefixes.seen_share, "of prompt tokens"),
        Cell::number(prefixes.request_percent.p50, "% of the median request"),
    ];
    let mut lines = vec![KeyValue::new("Seen before", seen)];
    if prefixes.seen_tokens > 0 {
        let within = prefixes.reused_within.iter().filter(|within| [60, 600].contains(&within.seconds));
        let within = within
            .map(|within| Cell::share_of(within.share, &format!("within {} min", within.seconds / 60)))
            .collect::<Vec<_>>();
        let mut reuse = vec![seconds(prefixes.reuse_s.p50)];
        reuse.extend(within);
        lines.push(KeyValue::new("Reused after, median", reuse));
        let half = prefixes.cache_tokens_for(0.5);
        let most = prefixes.cache_tokens_for(0.9);
        let cache =
            vec![Cell::number(half, "tokens for half of it"), Cell::number(most, "tokens for nine tenths")];
        lines.push(KeyValue::new("Cache needed", cache));
    }
    lines
}

/// Hits over cache sizes 1, 2, 5, 10, ... up to the first that holds everything.
fn by_cache(prefixes: &Prefixes) -> Option<Block> {
    let total = prefixes.seen_share.filter(|&share| share > 0.0)?;
    let round = |point: &&CacheHits| {
        let power = power_of_ten(point.cache_tokens);
        [1, 2, 5].iter().any(|&lead| (lead * power).abs_diff(point.cache_tokens) < power / 50 + 1)
    };
    let worth_showing = |point: &&CacheHits| point.hit_share.is_some_and(|share| share > total / 50.0);
    let mut points: Vec<&CacheHits> = prefixes.by_cache.iter().filter(round).filter(worth_showing).collect();
    points.extend(prefixes.by_cache.last().filter(|last| !round(last)));
    let skipped = points.len().saturating_sub(BARS);
    let bars = points[skipped..].iter().map(|point| Bar {
        label: format!("{} tokens", short(point.cache_tokens)),
        value: Cell::number(Some(point.hit_tokens as f64), "tokens"),
        share: point.hit_share.unwrap_or(0.0),
    });
    Some(Block::Bars(Bars { title: "Seen before, by size of an LRU cache".to_owned(), bars: bars.collect() }))
}

/// The power of ten nearest below `tokens`, where 2 % less still counts as reaching it.
fn power_of_ten(tokens: u64) -> u64 {
    let mut power = 1;
    while power <= tokens / 10 + tokens / 500 {
        power *= 10;
    }
    power
}

/// `1.5M`: a cache size as it was chosen, in whole units or tenths of one.
fn short(tokens: u64) -> String {
    let (unit, suffix) = match tokens {
        0..950 => (1, ""),
        950..950_000 => (1_000, "k"),
        950_000..950_000_000 => (1_000_000, "M"),
        _ => (1_000_000_000, "G"),
    };
    let tenths = (tokens * 10 + unit / 2) / unit;
    if tenths.is_multiple_of(10) {
        format!("{}{suffix}", tenths / 10)
    } else {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    }
}

fn top(prefixes: &Prefixes) -> Option<Block> {
    let rows = prefixes.top.iter().map(|prefix| {
        vec![
            Cell::text(format!("{} to {}", prefix.from_tokens, prefix.to_tokens)),
            Cell::count(prefix.requests, ""),
            Cell::share(prefix.seen_share),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let columns = ["requests", "saves, of prompt tokens"].map(Column::figures);
    (!rows.is_empty()).then(|| {
        Block::Table(Table {
            title: "Top shared prefixes, tokens".to_owned(),
            columns: std::iter::once(Column::text("")).chain(columns).collect(),
            rows,
        })
    })
}

fn sessions(measures: &Measures) -> Option<KeyValue> {
    let sessions = &measures.sessions;
    (sessions.sessions > 0).then(|| {
        let mut cells = vec![
            Cell::count(sessions.sessions, "sessions"),
            Cell::number(sessions.turns.mean, "turns on average"),
        ];
        if sessions.gap_s.p50.is_some() {
            cells.push(seconds(sessions.gap_s.p50));
            cells.push(Cell::text("between turns (median)"));
        }
        KeyValue::new("Sessions", cells)
    })
}

fn skew(key: &str, skew: &Skew) -> Option<KeyValue> {
    (skew.distinct > 0).then(|| {
        let mut cells = vec![Cell::count(skew.distinct, "")];
        if skew.zipf_exponent.is_some() {
            cells.push(Cell::number(skew.zipf_exponent, "Zipf exponent"));
        }
        let names = skew.top.iter().take(NAMES);
        cells.extend(names.map(|named| Cell::share_of(Some(named.share), &named.name)));
        KeyValue::new(key, cells)
    })
}

fn together(measures: &Measures) -> Option<KeyValue> {
    let windows = measures.adapters_together.iter().filter(|window| window.mean.is_some());
    let cells = windows.map(|window| Cell::number(window.mean, &format!("within {} s", window.within_s)));
    let cells: Vec<_> = cells.collect();
    (!cells.is_empty()).then(|| KeyValue::new("Different adapters", cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes_are_written_as_they_were_chosen() {
        for (tokens, text) in
            [(992, "1k"), (1_488, "1.5k"), (9_984, "10k"), (150_000, "150k"), (2_000_000, "2M"), (16, "16")]
        {
            assert_eq!(short(tokens), text, "{tokens}");
        }
    }
}
