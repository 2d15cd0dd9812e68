//! Measures of recorded traces against figures that were taken from them independently.

use std::path::Path;

use forerun_sim::time::Span;
use forerun_workloads::measure::{Measures, Options, measure};
use forerun_workloads::open::open;
use forerun_workloads::spec::WorkloadSpec;
use libtest_mimic::{Failed, Trial};

/// A published figure of a trace, ours, and how far they may be apart.
type Figure = (&'static str, f64, f64, f64);

/// Blocks of the Mooncake traces, in tokens.
const BLOCK: u32 = 512;
/// Cache sizes, in those blocks, for which hits are known.
const CACHE_BLOCKS: [u64; 5] = [3_000, 10_000, 20_000, 30_000, 50_000];

/// Trials of all recorded traces in `traces`.
pub(crate) fn trials(traces: &Path) -> Vec<Trial> {
    let trial = |name: &str, check: fn(&Measures) -> Vec<Figure>| {
        let path = traces.join(name);
        let ignored = !path.exists();
        let name = format!("measures::{}", path.file_name().unwrap_or_default().to_string_lossy());
        let run = move || agree(&check(&measures(&path)?));
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    vec![
        trial("azure2023/AzureLLMInferenceTrace_code.csv.gz", azure_code),
        trial("azure2023/AzureLLMInferenceTrace_conv.csv.gz", azure_conv),
        trial("mooncake/conversation_trace.jsonl.gz", conversation),
        trial("mooncake/synthetic_trace.jsonl.gz", synthetic),
    ]
}

fn measures(path: &Path) -> Result<Measures, Failed> {
    let failed = |e: &dyn std::fmt::Display| Failed::from(e.to_string());
    let spec = WorkloadSpec {
        trace: Some(std::path::absolute(path).map_err(|e| failed(&e))?),
        ..WorkloadSpec::default()
    };
    let workload = open(&spec, Path::new("")).map_err(|e| failed(&e))?;
    let options = Options {
        block_tokens: BLOCK,
        answers: false,
        cache_tokens: CACHE_BLOCKS.map(|blocks| blocks * u64::from(BLOCK)).into(),
        idle_gaps: vec![Span::from_secs(2)],
        ..Options::default()
    };
    measure(&mut workload.source(1).map_err(|e| failed(&e))?, &options).map_err(|e| failed(&e))
}

fn agree(figures: &[Figure]) -> Result<(), Failed> {
    // What is not a number agrees with nothing.
    let agrees = |(_, known, ours, within): &Figure| (known - ours).abs() <= *within;
    let wrong: Vec<_> = figures.iter().filter(|figure| !agrees(figure)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("(name, known, ours, within): {wrong:?}").into()) }
}

fn or_nan(figure: Option<f64>) -> f64 {
    figure.unwrap_or(f64::NAN)
}

/// Peak over mean and index of dispersion of bins of 1, 10 and 60 s. Ours leave out the last, incomplete bin.
fn bins(measures: &Measures, peaks: [f64; 3], dispersions: [f64; 3]) -> Vec<Figure> {
    let bins = &measures.rates.bins;
    let peak = |at: usize| ("peak/mean", peaks[at], or_nan(bins[at].peak_to_mean), 0.03 * peaks[at]);
    let dispersion =
        |at: usize| ("dispersion", dispersions[at], or_nan(bins[at].dispersion), 0.06 * dispersions[at]);
    (0..3).map(peak).chain((0..3).map(dispersion)).collect()
}

fn azure_code(measures: &Measures) -> Vec<Figure> {
    let mut all = bins(measures, [26.1, 12.8, 4.18], [13.2, 71.6, 164.0]);
    all.extend([
        ("requests/s", 2.566, or_nan(measures.rates.mean_per_s), 0.002),
        ("CV of gaps", 13.15, or_nan(measures.rates.gap_cv), 0.01),
        ("longest gap", 217.2, or_nan(measures.rates.gap_max_s), 0.1),
        ("empty seconds", 0.73, or_nan(measures.rates.bins[0].empty_share), 0.01),
        ("mean input", 2048.0, or_nan(measures.input_tokens.mean), 1.0),
        ("p99 input", 7436.0, or_nan(measures.input_tokens.p99), 8.0),
        ("median output", 13.0, or_nan(measures.output_tokens.p50), 0.0),
        ("gaps of 2 s", 95.0, measures.idle_gaps[0].gaps as f64, 1.0),
        ("correlation", 0.0, or_nan(measures.input_output_correlation), 0.01),
    ]);
    all
}

fn azure_conv(measures: &Measures) -> Vec<Figure> {
    let mut all = bins(measures, [2.89, 1.77, 1.52], [1.39, 3.86, 16.1]);
    all.extend([
        ("requests/s", 5.530, or_nan(measures.rates.mean_per_s), 0.002),
        ("CV of gaps", 1.09, or_nan(measures.rates.gap_cv), 0.01),
        ("median input", 1020.0, or_nan(measures.input_tokens.p50), 0.0),
        ("p90 output", 424.0, or_nan(measures.output_tokens.p90), 0.0),
        ("correlation", -0.11, or_nan(measures.input_output_correlation), 0.01),
    ]);
    all
}

/// Token hits without a limit and by size of an LRU cache, known from a cache of single full blocks that
/// replays the trace once for each size.
fn hits(measures: &Measures, seen: f64, by_cache: [f64; 5], within: f64) -> Vec<Figure> {
    let prefixes = &measures.prefixes;
    let cached = |(blocks, known): (u64, f64)| {
        ("cached", known, or_nan(prefixes.hit_share(blocks * u64::from(BLOCK))), within)
    };
    let mut all: Vec<Figure> = CACHE_BLOCKS.into_iter().zip(by_cache).map(cached).collect();
    all.push(("seen before", seen, or_nan(prefixes.seen_share), within));
    all
}

fn conversation(measures: &Measures) -> Vec<Figure> {
    // Requests of one timestamp are spread over its 3 s, so their order is not quite the file's: eight random orders of
    // them moved the known shares by up to 0.0011.
    let mut all = hits(measures, 0.373380, [0.068614, 0.219254, 0.299476, 0.337117, 0.363238], 1.5e-3);
    let reuse = &measures.prefixes.reuse_s;
    all.extend([
        ("requests/s", 3.401, or_nan(measures.rates.mean_per_s), 0.005),
        ("median reuse time", 114.0, or_nan(reuse.p50), 6.0),
        ("99th reuse time", 1578.0, or_nan(reuse.p99), 40.0),
        ("median input", 6909.0, or_nan(measures.input_tokens.p50), 8.0),
        ("mean output", 343.0, or_nan(measures.output_tokens.mean), 1.0),
    ]);
    all
}

fn synthetic(measures: &Measures) -> Vec<Figure> {
    let mut all = hits(measures, 0.650431, [0.198568, 0.443036, 0.592776, 0.638801, 0.650431], 1e-6);
    all.extend(bins(measures, [3.33, 1.41, 1.17], [1.09, 1.18, 1.19]));
    all.push(("CV of gaps", 1.01, or_nan(measures.rates.gap_cv), 0.01));
    all
}
