//! Replays recordings of the llm-d router's own scheduling code: scorers, filters, pickers, whole profiles and the
//! configuration loader. A recording is one JSON object: head fields, then `cases`.

mod loads;
mod plugins;
mod profiles;

use std::path::{Path, PathBuf};

use forerun_policies::epp::prefix::PrefixMatch;
use forerun_policies::epp::{EndpointInfo, EndpointState, InFlight, Latency, Metrics, RequestView, Topology};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels, RequestId};
use forerun_sim::time::{Span, Time};
use serde_json::Value;

/// How many values of a recording were compared, or the first difference.
pub(crate) type Compared = Result<usize, String>;

/// The folders of recordings that this module replays.
pub(crate) const FOLDERS: [&str; 4] = ["scorers", "filters", "pickers", "profiles"];

/// All recordings below `root`, in those folders, sorted.
pub(crate) fn recordings(root: &Path) -> Vec<PathBuf> {
    let files = |folder: &&str| std::fs::read_dir(root.join(folder)).ok();
    let entries = FOLDERS.iter().filter_map(files).flatten();
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
}

/// Replays the recording at `path`.
pub(crate) fn replay(path: &Path) -> Compared {
    let json = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let recording: Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match (folder.as_ref(), stem.as_ref()) {
        ("scorers", "no-hit-lru-scorer") => plugins::no_hit_sequences(&recording),
        ("scorers" | "filters", name) if name.starts_with("session-id-") => plugins::sessions(&recording),
        ("scorers", _) => plugins::scorer(&recording),
        ("filters", "pd-deciders") => plugins::deciders(&recording),
        ("filters", _) => plugins::filter(&recording),
        ("pickers", "max-score-picker") => plugins::max_score_picker(&recording),
        ("pickers", _) => plugins::random_picker(&recording),
        ("profiles", "_loads") => loads::replay(&recording, path),
        _ => profiles::replay(&recording, path),
    }
}

/// The elements of `value[key]`, none where that is absent.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The numbers of `value[key]` as places.
fn places(value: &Value, key: &str) -> Vec<u32> {
    list(value, key).iter().filter_map(Value::as_u64).map(|place| place as u32).collect()
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn real(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

/// The instant at which recorded endpoints are looked at.
fn now() -> Time {
    Time::ZERO + Span::from_secs(1000)
}

fn info(endpoint: &Value) -> EndpointInfo {
    let labels = endpoint["labels"].as_object();
    let labels = labels.into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect();
    EndpointInfo {
        namespace: "ns".to_owned(),
        name: text(&endpoint["id"]),
        labels,
        block_size: whole(&endpoint["block_size"]) as u32,
        num_gpu_blocks: whole(&endpoint["num_blocks"]) as u32,
        topology: None,
    }
}

fn topology(value: &Value, labels: &mut Labels) -> Option<Topology> {
    let names = value.as_array()?;
    Some(std::array::from_fn(|level| labels.intern(names[level].as_str().unwrap_or(""))))
}

/// Match, total, block tokens, cached.
fn prefix(value: &Value) -> Option<PrefixMatch> {
    let at = |place: usize| whole(&value[place]) as u32;
    value.is_array().then(|| PrefixMatch {
        matched_blocks: at(0),
        total_blocks: at(1),
        block_tokens: at(2),
        cached_blocks: at(3),
    })
}

fn latency(value: &Value) -> Option<Latency> {
    value.is_array().then(|| Latency {
        ttft_headroom: real(&value[0]),
        tpot_headroom: real(&value[1]),
        ttft: real(&value[2]),
        tpot: real(&value[3]),
        dispatched: whole(&value[4]) as u32,
    })
}

fn metrics(endpoint: &Value, labels: &mut Labels) -> Metrics {
    let mut adapters = |key| {
        let mut adapters: Vec<Label> =
            list(endpoint, key).iter().map(|name| labels.intern(name.as_str().unwrap_or(""))).collect();
        adapters.sort_unstable();
        adapters.dedup();
        adapters
    };
    let (active_adapters, waiting_adapters) = (adapters("act"), adapters("wait"));
    Metrics {
        waiting: whole(&endpoint["q"]) as u32,
        running: whole(&endpoint["r"]) as u32,
        kv_usage: real(&endpoint["kv"]),
        max_lora: whole(&endpoint["max_lora"]) as u32,
        active_adapters,
        waiting_adapters,
    }
}

fn state(endpoint: &Value, attributes: &[String], labels: &mut Labels) -> EndpointState {
    let sizes = |place: usize| sum(&endpoint["mm"][place]);
    let age = Span::from_millis(whole(&endpoint["age_ms"]));
    let scraped_at = Time::from_nanos(now().as_nanos() - age.as_nanos());
    EndpointState {
        metrics: metrics(endpoint, labels),
        scraped_at: (endpoint["no_metrics"] != true).then_some(scraped_at),
        in_flight: endpoint["inflight"].is_array().then(|| InFlight {
            requests: whole(&endpoint["inflight"][0]) as u32,
            tokens: whole(&endpoint["inflight"][1]),
        }),
        uncached_tokens: endpoint["uncached"].as_u64(),
        latency: latency(&endpoint["lat"]),
        attributes: attributes.iter().map(|name| endpoint["scalar"][name].as_f64()).collect(),
        embeddings: endpoint["mm"].is_array().then(|| (sizes(0), sizes(1))),
        topology: topology(&endpoint["topo"], labels),
    }
}

fn sum(value: &Value) -> u64 {
    value.as_array().into_iter().flatten().map(whole).sum()
}

/// A recorded request: what a view of it borrows.
struct Request {
    prompt: Prompt,
    model: Label,
    headers: Vec<(String, String)>,
}

impl Request {
    fn new(value: &Value, labels: &mut Labels) -> Self {
        let headers = value["headers"].as_object();
        Self {
            prompt: Prompt::of(Content::private(0), whole(&value["tokens"]) as u32),
            model: labels.intern(value["model"].as_str().unwrap_or("")),
            headers: headers.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect(),
        }
    }

    fn view<R>(&self, look: impl FnOnce(&RequestView<'_>) -> R) -> R {
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        look(&RequestView {
            id: RequestId(0),
            model: self.model,
            prompt: &self.prompt,
            max_tokens: None,
            priority: 0,
            headers: &headers,
        })
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(
    ours: &T,
    recorded: &T,
    what: impl Fn() -> String,
) -> Result<(), String> {
    if ours == recorded { Ok(()) } else { Err(format!("{}: ours {ours:?}, recorded {recorded:?}", what())) }
}

/// Whether an error says the same as a recorded one: an unknown field or a wrong type of the same field, or the same
/// names in quotes.
fn same_reason(ours: &str, recorded: &str) -> bool {
    if let Some((_, field)) = recorded.split_once("unknown field \"") {
        let field = field.split('"').next().unwrap_or("").rsplit('.').next().unwrap_or("");
        return ours.contains(&format!("unknown field `{field}`"));
    }
    if recorded.contains("cannot unmarshal") {
        return ours.contains("invalid type");
    }
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| w.len() > 3).map(str::to_lowercase).collect()
    };
    let theirs = words(recorded);
    let ours = words(ours);
    let common = ours.iter().filter(|word| theirs.contains(word)).count();
    common * 3 >= ours.len() * 2
}
