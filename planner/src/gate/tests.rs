use std::ops::ControlFlow;

use super::*;
use crate::replicate::RunsProgress;
use crate::scenario::overrides::Override;
use crate::scenario::read::parse;
use forerun_reports::markdown;
use forerun_reports::terminal::Terminal;

/// Long prompts of groups over three replicas, near what they can serve.
const FLEET: &str = "
model: meta-llama/Llama-3.1-8B
workload:
  requests: 1500
  synthetic:
    arrival: {poisson: {rate: 18}}
    input_tokens: 300
    output_tokens: {lognormal: {median: 60, sigma: 0.5}}
    shared_prefix: {groups: 40, tokens: 3000}
slo: {ttft: 1s, tpot: 50ms}
pools: [{gpu: h100-sxm, replicas: 3}]
router: {preset: least-requests}
run: {warm_up: 10s, replications: 6}
";

fn carry_on(_: RunsProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn loaded(text: &str) -> Loaded {
    Loaded { scenario: parse(text, &[]).unwrap(), base: "".into(), name: "test".into() }
}

fn baseline(text: &str) -> Baseline {
    record(&loaded(text), &carry_on).unwrap()
}

/// The baseline against its own scenario with this change.
fn changed(baseline: &Baseline, change: &str) -> Result<Gate, Error> {
    let changes: Vec<Override> = change.split_whitespace().map(|text| text.parse().unwrap()).collect();
    let loaded = baseline.scenario("".as_ref(), &changes).unwrap();
    gate(baseline, &loaded, &Tolerances::default(), &carry_on)
}

/// The change is caught, and the reason names these figures: in the answer's sentence and among the failed tests.
fn caught(baseline: &Baseline, change: &str, worse: &[&str]) {
    let gate = changed(baseline, change).unwrap();
    let headline = gate.headline();
    assert_eq!(gate.outcome, Outcome::Worse, "{change}: {headline}");
    let shown = format!("FAIL: worse than tolerated, shown by {} pairs of runs: ", gate.pairs);
    let reason = headline.strip_prefix(&shown).expect(&headline);
    let junit = gate.to_junit();
    for key in worse {
        let figure = gate.figures.iter().find(|figure| figure.key == *key).expect(key);
        assert_eq!(figure.outcome, Outcome::Worse, "{change}: {headline}");
        assert!(figure.interval.unwrap().low > figure.margin, "{change}: {figure:?}");
        assert!(reason.contains(&figure.label), "{change}: {headline}");
        let failed =
            format!("name=\"{key}\">\n      <failure message=\"worse than tolerated: {} was ", figure.label);
        assert!(junit.contains(&failed), "{change}: {junit}");
    }
}

#[test]
fn planted_regressions_are_caught_with_their_reason_and_an_improvement_passes() {
    let baseline = baseline(FLEET);
    let slower = ["ttft_mean_ms", "ttft_p95_ms", "tpot_mean_ms", "e2e_p95_ms", "hit_rate"];
    caught(&baseline, "pools.0.replicas=2", &["tpot_p95_ms"]);
    caught(&baseline, "router.preset=random", &["ttft_p95_ms"]);
    caught(&baseline, "engine.num_gpu_blocks=4000 engine.max_model_len=32768", &slower);
    caught(&baseline, "engine.enable_prefix_caching=false", &slower);
    let gate = changed(&baseline, "pools.0.gpu=h200-sxm cost.gpu_hour_usd=1").unwrap();
    assert!(gate.passes(), "{}", gate.headline());
}

#[test]
fn a_scorer_that_herds_and_an_index_that_forgets_are_caught() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, load: i32, prefix: u32, blocks: u32| {
        let path = folder.path().join(name);
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: approx-prefix-cache-producer\n  \
             parameters: {{autoTune: false, blockSizeTokens: 64, lruCapacityPerServer: {blocks}}}\n- type: \
             prefix-cache-scorer\n- type: active-request-scorer\n- type: max-score-picker\nschedulingProfiles:\n- name: \
             default\n  plugins:\n  - {{pluginRef: prefix-cache-scorer, weight: {prefix}}}\n  - {{pluginRef: \
             active-request-scorer, weight: {load}}}\n  - {{pluginRef: max-score-picker}}\n"
        );
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let behind = |picker: &str| FLEET.replace("{preset: least-requests}", &format!("{{epp: {picker}}}"));
    // Two prefixes that everybody shares: with their weight above the load's, all requests follow them.
    let good = file("good.yaml", 3, 1, 5000);
    let popular = behind(&good).replace("groups: 40, tokens: 3000", "groups: 2, tokens: 3000");
    let balanced = baseline(&popular.replace("rate: 18", "rate: 60").replace("10s", "5s"));
    assert!(changed(&balanced, &format!("router.epp={good}")).unwrap().passes());
    let herd = file("herd.yaml", 1, 3, 5000);
    caught(&balanced, &format!("router.epp={herd}"), &["ttft_mean_ms", "ttft_p95_ms", "e2e_mean_ms"]);
    // Caches that hold the prefixes together, and not each by itself.
    let sharing = behind(&file("sharing.yaml", 2, 3, 5000)).replace("rate: 18", "rate: 14");
    let sharing = baseline(&(sharing + "engine: {num_gpu_blocks: 4000, max_model_len: 32768}\n"));
    let forgets = file("forget.yaml", 2, 3, 60);
    caught(&sharing, &format!("router.epp={forgets}"), &["ttft_mean_ms", "hit_rate"]);
}

/// Where nothing changed, both runs of a pair are the same.
#[test]
fn nothing_changed_passes_a_hundred_times_of_a_hundred() {
    for seed in 0..100 {
        let small = FLEET.replace("requests: 1500", "requests: 60").replace("10s", "1s");
        let small = small.replace("replications: 6", &format!("replications: 2, seed: {seed}"));
        let baseline = baseline(&small);
        assert!(changed(&baseline, "").unwrap().passes(), "seed {seed}");
    }
}

#[test]
fn a_baseline_is_kept_in_a_file_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.json");
    let small = baseline(&FLEET.replace("requests: 1500", "requests: 100"));
    small.write(&path).unwrap();
    assert_eq!(Baseline::read(&path).unwrap(), small);
    for wrong in ["", "{}", "[1, 2]", "{\"schema\": \"forerun/gate-baseline/v1\"}"] {
        std::fs::write(&path, wrong).unwrap();
        let error = Baseline::read(&path).unwrap_err().to_string();
        assert!(error.contains("base.json") && error.contains("--record"), "{error}");
    }
}

#[test]
fn other_traffic_than_the_baselines_is_refused() {
    let small = baseline(&FLEET.replace("requests: 1500", "requests: 100"));
    let error = changed(&small, "workload.requests=120").unwrap_err().to_string();
    assert!(error.contains("not the baseline's"), "{error}");
}

#[test]
fn the_answer_is_shown_as_table_markdown_and_junit() {
    let small = baseline(&FLEET.replace("requests: 1500", "requests: 300"));
    let gate = changed(&small, "pools.0.replicas=1").unwrap();
    assert!(!gate.passes() && gate.headline().starts_with("FAIL: worse"));
    let screen = Terminal::default().render(&gate.to_document());
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(markdown::render(&gate.to_document()).contains("**worse**"));
    let junit = gate.to_junit();
    assert!(
        junit.contains("name=\"ttft_mean_ms\"") && junit.contains("<failure message=\"worse than tolerated")
    );
    assert_eq!(junit.matches("<testcase").count(), gate.figures.len());
}

#[test]
fn tolerances_are_read_and_refused_with_the_mend() {
    let read = Tolerances::parse(
        "ttft_p99_ms: 0.2\nhit_rate: off\nattainment: {absolute: 0.05}\nsignificance: 0.01\n",
    );
    let read = read.unwrap();
    assert_eq!((read.by_figure["ttft_p99_ms"].margin(100.0), read.significance), (20.0, 0.01));
    assert!(!read.by_figure.contains_key("hit_rate"));
    for (wrong, mend) in [
        ("ttft_p98_ms: 0.2", "did you mean `ttft_p9"),
        ("ttft_p99_ms: -1", "from 0 up"),
        ("ttft_p99_ms: on", "leave it out"),
        ("significance: 2", "at most 0.2"),
        ("ttft_p99_ms: {share: 1}", "a tolerance is"),
    ] {
        let error = Tolerances::parse(wrong).unwrap_err().to_string();
        assert!(error.contains(mend), "{wrong}: {error}");
    }
}
