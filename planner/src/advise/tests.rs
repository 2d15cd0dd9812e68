use std::ops::ControlFlow;

use super::*;
use crate::scenario::read::parse;
use forerun_reports::markdown;
use forerun_reports::terminal::Terminal;

/// The answers for a scenario of the program, with short trial runs.
fn advice(text: &str, requests: u64) -> Advice {
    let scenario = parse(text, &["run.replications=2".parse().unwrap()]).unwrap();
    let loaded = Loaded { scenario, base: "".into(), name: "test".into() };
    let asked = Asked { requests, replicas_max: 16, ..Asked::default() };
    advise(&loaded, &asked, &|_| ControlFlow::Continue(())).unwrap()
}

/// The signals that are answered with yes.
fn firing(advice: &Advice) -> Vec<Signal> {
    advice.rows.iter().filter(|row| row.answer == Answer::Yes).map(|row| row.signal).collect()
}

#[test]
fn a_trickle_of_unrelated_questions_stays_on_one_vllm() {
    let advice = advice(include_str!("../../scenarios/signals/none.yaml"), 600);
    assert_eq!(firing(&advice), []);
    assert_eq!((advice.verdict.kind, advice.verdict.gpus), (Kind::OneVllm, Some(1)));
    assert!(advice.doubt.slo_holds.unwrap() > 0.95 && advice.verdict.lift.is_empty());
    let replica = &advice.replica;
    assert!(replica.requests_per_s.unwrap() > 10.0 && replica.longest_context_tokens == 131_072);
    let screen = Terminal::default().render(&advice.to_document());
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    for word in ["Stay on one vLLM", "Not simulated", "P(SLO holds)"] {
        assert!(screen.contains(word), "{word}: {screen}");
    }
    assert!(markdown::render(&advice.to_document()).contains("| 5 bursts |"));
    assert!(!advice.to_json().contains("NaN"));
}

#[test]
fn more_requests_than_one_replica_serves_call_for_plain_replicas() {
    let advice = advice(include_str!("../../scenarios/signals/rate.yaml"), 2500);
    assert_eq!(firing(&advice), [Signal::Rate]);
    assert_eq!(advice.verdict.kind, Kind::PlainReplicas);
    assert!(advice.verdict.replicas.unwrap() > 1, "{}", advice.verdict.headline);
}

#[test]
fn long_shared_documents_call_for_a_router_that_knows_the_caches() {
    let advice = advice(include_str!("../../scenarios/signals/prefix.yaml"), 2500);
    let row = advice.row(Signal::Prefixes).unwrap();
    assert!(row.figures["seen_share"] > 0.8 && row.figures["one_cache_share"] < row.figures["seen_share"]);
    assert_eq!(firing(&advice), [Signal::Prefixes]);
    assert_eq!(advice.verdict.kind, Kind::LlmD);
    assert!(
        row.gain.unwrap().share > 0.15 && row.figures["kv_aware_hit_rate"] > row.figures["plain_hit_rate"]
    );
}

#[test]
fn tiers_that_the_scenario_offers_are_tried_and_all_else_is_without_them() {
    let prefix = include_str!("../../scenarios/signals/prefix.yaml");
    let offer = "tiers: {cpu: {capacity: 60GiB}, disk: {capacity: 1TiB}, shared: {bandwidth: 40GB/s}}\n";
    let advice = advice(&format!("{prefix}{offer}"), 1000);
    let row = advice.row(Signal::Memory).unwrap();
    for key in ["host_memory_saves_share", "disk_saves_share", "shared_saves_share"] {
        assert!(row.figures.contains_key(key), "{key}: {:?}", row.evidence);
    }
    assert!(row.evidence.iter().any(|words| words.contains("a shared file system below")), "{row:?}");
    assert!(advice.warnings.iter().any(|note| note.contains("taken as an offer")));
    assert!(advice.not_simulated.iter().all(|words| !words.contains("store of KV")));
}

#[test]
fn a_profile_of_the_very_server_says_how_sure_its_step_times_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("served.json");
    let profile = |errors: [f64; 2]| {
        let profile = serde_json::json!({
            "schema": "forerun-served/1", "grade": "measured here", "source": "a load generator",
            "gpu": "h100-sxm", "model": "meta-llama/Llama-3.1-8B", "tensor_parallel": 1, "dtype": "bf16",
            "constants": {}, "refused": {}, "errors": {"tpot_ms.mean": errors}, "loads": 5,
        });
        std::fs::write(&path, profile.to_string()).unwrap();
        let none = include_str!("../../scenarios/signals/none.yaml");
        advice(&format!("{none}profile: {}\n", path.display()), 200).doubt
    };
    let (sure, unsure) = (profile([-0.01, 0.02]), profile([-0.3, 0.3]));
    assert_eq!((sure.grade.as_str(), sure.step_time_deviation), ("measured here", 0.02));
    assert!(sure.step_time_source.contains("the fit to this server"), "{}", sure.step_time_source);
    assert!(unsure.step_time_deviation > 0.2 && unsure.slo_holds <= sure.slo_holds);
}

#[test]
fn weights_beyond_one_gpu_call_for_tensor_parallelism_and_nothing_else() {
    let advice = advice(include_str!("../../scenarios/signals/memory.yaml"), 600);
    assert_eq!(firing(&advice), [Signal::Memory]);
    assert_eq!((advice.verdict.kind, advice.verdict.tensor_parallel), (Kind::OneVllm, 2));
}

#[test]
fn more_adapters_than_slots_call_for_affinity() {
    let advice = advice(include_str!("../../scenarios/signals/adapters.yaml"), 1500);
    assert_eq!(firing(&advice), [Signal::Adapters]);
    assert!(advice.row(Signal::Adapters).unwrap().gain.unwrap().share > 0.4);
}

#[test]
fn windows_of_work_between_silences_call_for_scaling_to_zero() {
    let advice = advice(include_str!("../../scenarios/signals/bursts.yaml"), 1500);
    assert_eq!(firing(&advice), [Signal::Bursts]);
    let gain = advice.row(Signal::Bursts).unwrap().gain.unwrap();
    assert!(gain.share > 0.6 && gain.pairs == 0, "{gain:?}");
    assert!(advice.hazards.iter().any(|hazard| hazard.contains("noEndpointRequestTTL")));
    let row = advice.row(Signal::Bursts).unwrap();
    let figure = |key: &str| row.figures[key];
    assert!(figure("cold_starts_per_day") > 5.0 && figure("gpu_hours_saved_per_day") > 0.6 * 24.0);
    assert!(figure("requests_lost_share") > 0.1, "a cold start is longer than the queue TTL: {row:?}");
    assert!(figure("requests_waiting_share") > figure("requests_lost_share"));
    assert!(row.evidence.iter().any(|words| words.starts_with("not simulated")), "{:?}", row.evidence);
    assert!(advice.verdict.lift.iter().any(|component| component.contains("KEDA")));
}

#[test]
fn an_slo_that_no_fleet_holds_is_out_of_reach() {
    let none = include_str!("../../scenarios/signals/none.yaml").replace("ttft: 1s", "ttft: 1ms");
    let advice = advice(&none, 200);
    assert_eq!((advice.verdict.kind, advice.verdict.replicas), (Kind::Unreachable, None));
}

#[test]
fn the_same_question_has_the_same_answer() {
    let answer = || {
        let mut advice = advice(include_str!("../../scenarios/signals/none.yaml"), 300);
        advice.simulation.wall_s = None;
        advice.to_json()
    };
    assert_eq!(answer(), answer());
}

#[test]
fn traffic_that_waits_for_answers_and_impossible_thresholds_are_refused() {
    let refused = |text: &str, asked: &Asked| {
        let loaded = Loaded { scenario: parse(text, &[]).unwrap(), base: "".into(), name: "test".into() };
        advise(&loaded, asked, &|_| ControlFlow::Continue(())).unwrap_err().to_string()
    };
    let preset = "workload: {preset: azure-conv, requests: 200}";
    let closed = "workload: {preset: azure-conv, requests: 200, loop: {closed: 4}}";
    assert!(refused(closed, &Asked::default()).contains("workload.loop"));
    let thresholds = Thresholds { min_gain: 15.0, ..Thresholds::default() };
    assert!(refused(preset, &Asked { thresholds, ..Asked::default() }).contains("--min-gain 15"));
    assert!(refused(preset, &Asked { requests: 1, ..Asked::default() }).contains("--trial-requests"));
    let few = "workload: {preset: azure-conv, requests: 20}";
    assert!(refused(few, &Asked::default()).contains("at least 100"));
}

#[test]
fn todays_deployment_is_the_baseline() {
    let manifest = include_str!("../../../examples/manifests/current.yaml");
    let scenario = parse("workload: {preset: azure-conv, rate: 2, requests: 400}", &[]).unwrap();
    let loaded = Loaded { scenario, base: "".into(), name: "test".into() };
    let current = Some(crate::current::parse(manifest).unwrap());
    let asked = Asked { requests: 200, replicas_max: 8, current, ..Asked::default() };
    let advice = advise(&loaded, &asked, &|_| ControlFlow::Continue(())).unwrap();
    let today = advice.today.as_ref().unwrap();
    assert_eq!(
        (today.name.as_str(), today.replicas, today.gpus, today.runs_held),
        ("chat", 3, 6, today.runs)
    );
    assert!(today.saved.unwrap() > 0.5, "one replica of two GPUs is enough: {today:?}");
    assert!(advice.about[0].contains("Qwen/Qwen3-14B on 2 x h100-sxm"), "{}", advice.about[0]);
    assert!(advice.warnings.iter().any(|note| note.contains("--enforce-eager")));
}
