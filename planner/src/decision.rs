//! One decision of llm-d's endpoint picker, for people and for machines: `forerun route`, and `--explain` of runs.

use std::ops::ControlFlow;

use forerun_policies::epp::explain::{
    CandidateReport, DecisionReport, EndpointReport, FilterReport, ProfileReport,
};
use forerun_reports::document::{Block, Cell, Column, Document, KeyValue, Table};
use forerun_sim::observer::Observer;
use forerun_sim::request::{Labels, Outcome, Request};
use forerun_sim::time::Span;
use serde::Serialize;

use crate::assemble::Assembled;
use crate::error::{Error, InputError};
use crate::simulate::{Progress, run_routed};

/// Rows of a table for people; machines get all.
const ROWS_MAX: usize = 32;

/// A decision and what it was about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    schema: &'static str,
    /// The configuration, or the policy, that decided.
    pub router: String,
    /// The request.
    pub request: RequestReport,
    /// The decision; `None` when the request was turned away before it.
    #[serde(flatten)]
    pub decision: Option<DecisionReport>,
    /// What became of the request, in a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeReport>,
}

/// What a request asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestReport {
    /// Its id, in a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Length of its prompt, in tokens.
    pub prompt_tokens: u32,
    /// When it was sent, in seconds, in a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrival_s: Option<f64>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutcomeReport {
    /// As in outcome files: completed, failed, rejected, unfinished.
    pub status: &'static str,
    /// Why, in a word; empty when completed.
    pub reason: &'static str,
    /// Prompt tokens that were cached where it was computed.
    pub cached_tokens: u32,
    /// Time to first token, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Arrival to last token, in milliseconds.
    pub e2e_ms: Option<f64>,
}

/// Runs what was assembled and explains the decision on the request `id`, as outcome files call it. The run is that of
/// `seed`; `progress` is told how far it is, and stops it by breaking.
///
/// # Errors
/// When the router is no endpoint picker, no such request is sent, or as those of a run.
pub fn explain_request(
    assembled: &Assembled,
    seed: u64,
    id: &str,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Explained, Error> {
    let name = assembled.router.name();
    let mut router = assembled.router.endpoint_picker(seed).ok_or_else(|| {
        InputError::new(format!(
            "--explain: `{name}` has no scores to show; choose an endpoint picker, for example --router llm-d-default"
        ))
    })?;
    router.explain(id);
    let mut one = One { id, found: None };
    run_routed(assembled, seed, None, &mut router, &mut one, progress)?;
    let (request, outcome) = one.found.ok_or_else(|| {
        InputError::new(format!(
            "--explain {id}: no request of the run is called so; --outcomes lists their ids in its first column"
        ))
    })?;
    let explained = Explained::new(name.to_owned(), request, router.explained());
    Ok(Explained { outcome: Some(outcome), ..explained })
}

/// Watches one request.
struct One<'a> {
    id: &'a str,
    found: Option<(RequestReport, OutcomeReport)>,
}

impl Observer for One<'_> {
    fn ended(&mut self, outcome: &Outcome, _: &Labels) {
        let request: &Request = &outcome.request;
        if request.is_called(self.id) {
            let report = RequestReport {
                id: Some(self.id.to_owned()),
                prompt_tokens: request.prompt.tokens(),
                arrival_s: Some(request.arrival.as_nanos() as f64 / 1e9),
            };
            self.found = Some((report, OutcomeReport::of(outcome)));
        }
    }
}

impl OutcomeReport {
    fn of(outcome: &Outcome) -> Self {
        let millis = |span: Span| span.as_nanos() as f64 / 1e6;
        Self {
            status: outcome.status.word(),
            reason: outcome.status.reason(),
            cached_tokens: outcome.cached_tokens,
            ttft_ms: outcome.ttft().map(millis),
            e2e_ms: outcome.e2e().map(millis),
        }
    }
}

impl Explained {
    pub(crate) fn new(router: String, request: RequestReport, decision: Option<DecisionReport>) -> Self {
        Self { schema: "forerun/decision/v1", router, request, decision, outcome: None }
    }

    /// For people.
    #[must_use]
    pub fn to_document(&self) -> Document {
        let id = self.request.id.as_ref().map_or_else(String::new, |id| format!(" {id}"));
        let title = match &self.decision {
            None => format!("Request{id}: turned away before a decision"),
            Some(DecisionReport { primary: None, .. }) => format!("Request{id}: no endpoint is left"),
            Some(DecisionReport { primary: Some(primary), prefill: None, .. }) => {
                format!("Request{id}: to {primary}")
            }
            Some(DecisionReport { primary: Some(primary), prefill: Some(prefill), .. }) => {
                format!("Request{id}: to {primary}, its prompt to {prefill}")
            }
        };
        let RequestReport { prompt_tokens, arrival_s, .. } = self.request;
        let sent = arrival_s.map_or_else(String::new, |at| format!(", sent at {at:.3} s"));
        let subtitle = format!("{prompt_tokens} prompt tokens{sent}; {}", self.router);
        let mut blocks = Vec::new();
        if let Some(decision) = &self.decision {
            blocks.push(Block::Table(known(&decision.endpoints)));
            blocks.extend(truncation(decision.endpoints.len()));
            decision.profiles.iter().for_each(|profile| profile_blocks(profile, decision, &mut blocks));
        }
        blocks.extend(self.outcome.as_ref().map(outcome_block));
        Document { title, subtitle, blocks }
    }

    /// For machines.
    ///
    /// # Errors
    /// Never in practice: it has only strings and numbers.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// What the picker knew of the endpoints.
fn known(endpoints: &[EndpointReport]) -> Table {
    let producers: std::collections::BTreeSet<&String> =
        endpoints.iter().flat_map(|endpoint| endpoint.prefix.keys()).collect();
    let counts = endpoints.iter().any(|endpoint| endpoint.in_flight_requests.is_some());
    let mut columns = vec![Column::text("")];
    columns.extend(["scraped, ms ago", "waiting", "running", "KV"].map(Column::figures));
    if counts {
        columns.extend(["in flight", "tokens in flight", "uncached tokens"].map(Column::figures));
    }
    columns.extend(producers.iter().map(|name| Column::figures(&format!("{name}, blocks"))));
    let optional = |value: Option<u64>| value.map_or(Cell::Missing, |value| Cell::count(value, ""));
    let row = |endpoint: &EndpointReport| {
        let mut row = vec![
            Cell::text(endpoint.name.as_str()),
            Cell::number(endpoint.scraped_ms_ago, ""),
            Cell::count(endpoint.waiting.into(), ""),
            Cell::count(endpoint.running.into(), ""),
            Cell::share(Some(endpoint.kv_usage)),
        ];
        if counts {
            row.push(optional(endpoint.in_flight_requests.map(u64::from)));
            row.push(optional(endpoint.in_flight_tokens));
            row.push(optional(endpoint.uncached_tokens));
        }
        row.extend(producers.iter().map(|name| {
            let prefix = endpoint.prefix.get(*name);
            prefix.map_or(Cell::Missing, |prefix| {
                Cell::text(format!("{} of {}", prefix.matched_blocks, prefix.total_blocks))
            })
        }));
        row
    };
    let rows = endpoints.iter().take(ROWS_MAX).map(row).collect();
    Table { title: "What the picker knew".into(), columns, rows }
}

fn profile_blocks(profile: &ProfileReport, decision: &DecisionReport, blocks: &mut Vec<Block>) {
    blocks.push(Block::Heading(format!("Profile {}", profile.name)));
    if !profile.ran {
        let why = "did not run: nobody asked for it, because the decider saw no need or an earlier profile found nobody";
        return blocks.push(Block::Text(why.into()));
    }
    if !profile.filters.is_empty() {
        let mut left: Vec<&str> = decision.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
        let lines = profile.filters.iter().map(|filter| {
            let line = filter_line(filter, &left);
            left = filter.kept.iter().map(String::as_str).collect();
            line
        });
        blocks.push(Block::KeyValues(lines.collect()));
    }
    if profile.candidates.is_empty() {
        return blocks.push(Block::Text("Nobody is left: the client is answered 429.".into()));
    }
    blocks.push(Block::Table(scores(profile)));
    blocks.extend(truncation(profile.candidates.len()));
    let picked = profile.picked.join(", ");
    let among = match profile.tied.len() {
        1 => format!("the best total is that of {}", profile.tied[0]),
        equals => format!("{equals} are equal at the best total: {}", shortened(&profile.tied)),
    };
    blocks.push(Block::Text(format!("{} picked {picked}; {among}.", profile.picker)));
}

fn filter_line(filter: &FilterReport, before: &[&str]) -> KeyValue {
    let dropped: Vec<String> = before
        .iter()
        .filter(|name| !filter.kept.iter().any(|kept| kept == *name))
        .map(|name| (*name).to_owned())
        .collect();
    let kept = format!("keeps {} of {}", filter.kept.len(), before.len());
    let mut values = vec![Cell::text(kept)];
    if !dropped.is_empty() {
        values.push(Cell::text(format!("drops {}", shortened(&dropped))));
    }
    KeyValue::new(&filter.name, values)
}

/// The scores, each raw and times its weight, the best total first.
fn scores(profile: &ProfileReport) -> Table {
    let mut columns = vec![Column::text("")];
    for scorer in &profile.scorers {
        columns.push(Column::figures(&scorer.name));
        columns.push(Column::figures(&format!("x {}", scorer.weight)));
    }
    columns.push(Column::figures("total"));
    columns.push(Column::text(""));
    let mut order: Vec<&CandidateReport> = profile.candidates.iter().collect();
    order.sort_by(|a, b| b.total.total_cmp(&a.total));
    let figure = |value: f64| Cell::text(format!("{value:.4}"));
    let row = |candidate: &&CandidateReport| {
        let mut row = vec![Cell::text(candidate.endpoint.as_str())];
        for (&raw, &weighted) in candidate.raw.iter().zip(&candidate.weighted) {
            row.extend([figure(raw), figure(weighted)]);
        }
        row.push(figure(candidate.total));
        let named = |list: &[String]| list.contains(&candidate.endpoint);
        let (text, good) = match (named(&profile.picked), named(&profile.tied)) {
            (true, _) => ("picked", Some(true)),
            (false, true) => ("equal", None),
            (false, false) => ("", None),
        };
        row.push(Cell::Judged { text: text.into(), good });
        row
    };
    let rows = order.iter().take(ROWS_MAX).map(row).collect();
    Table { title: "Scores".into(), columns, rows }
}

/// What became of the request.
fn outcome_block(outcome: &OutcomeReport) -> Block {
    let reason = if outcome.reason.is_empty() { String::new() } else { format!(" ({})", outcome.reason) };
    let mut values = vec![Cell::text(format!("{}{reason}", outcome.status))];
    values.push(Cell::count(outcome.cached_tokens.into(), "prompt tokens cached"));
    let pair = |key: &str, value| KeyValue::new(key, vec![Cell::millis(value)]);
    Block::KeyValues(vec![
        KeyValue::new("outcome", values),
        pair("TTFT", outcome.ttft_ms),
        pair("E2E", outcome.e2e_ms),
    ])
}

/// That a table shows a part, if it does.
fn truncation(rows: usize) -> Option<Block> {
    let rest = rows.checked_sub(ROWS_MAX).filter(|&rest| rest > 0)?;
    Some(Block::Text(format!("{rest} more endpoints: --format json has all of them.")))
}

/// Some of many names.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.len().checked_sub(SHOWN).filter(|&rest| rest > 0) {
        Some(rest) => format!("{} and {rest} more", names[..SHOWN].join(", ")),
        None => names.join(", "),
    }
}
