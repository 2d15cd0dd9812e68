//! The layout of the summary, held against the published contract.

use super::*;
use crate::testing::example_summary;
use serde_json::Value;

/// The keys of `value` in the order written, nested ones after a dot.
fn keys(prefix: &str, value: &Value, found: &mut Vec<String>) {
    if let Value::Object(fields) = value {
        for (key, value) in fields {
            let path = format!("{prefix}{key}");
            keys(&format!("{path}."), value, found);
            found.push(path);
        }
    }
}

/// The example of the published contract, by its keys.
const CONTRACT: &str = r#"{"schema": "forerun/summary/v1", "seed": 1,
 "requests": {"arrived": 0, "completed": 0, "failed": 0, "rejected": 0, "unfinished": 0, "good": 0},
 "ttft_ms": {"mean": 0, "p50": 0, "p90": 0, "p95": 0, "p99": 0, "max": 0}, "tpot_ms": {}, "itl_ms": {},
 "e2e_ms": {}, "queue_ms": {},
 "throughput": {"requests_per_s": 0, "input_tokens_per_s": 0, "output_tokens_per_s": 0, "with_drain": {}},
 "goodput": {"requests_per_s": 0, "attainment": 0},
 "kv": {"prompt_tokens": 0, "duplicate_prefill_tokens": 0,
        "hit_tokens": {"gpu": 0, "cpu": 0, "disk": 0, "shared": 0}, "hit_rate": 0, "preemptions": 0},
 "latency_ms_by_cause": {"router_queue": 0, "engine_queue_slots": 0, "engine_queue_kv": 0,
        "engine_queue_budget": 0, "own_prefill": 0, "transfer": 0, "decode": 0,
        "stalled_by_others_prefill": 0},
 "failures": {"ttl": 0, "timeout": 0, "shed": 0, "too_long": 0, "fault": 0},
 "by_tenant": {}, "by_class": {}, "by_pool": {}, "warnings": [], "replicas": [],
 "cost": {"gpu_hours": 0, "usd": 0, "usd_per_million_output_tokens": 0},
 "simulation": {"virtual_s": 0, "wall_s": 0, "steps": 0, "requests_per_wall_s": 0}}"#;

#[test]
fn the_json_has_every_key_of_the_contract() {
    let mut asked = Vec::new();
    keys("", &serde_json::from_str(CONTRACT).unwrap(), &mut asked);
    let mut found = Vec::new();
    keys("", &serde_json::to_value(example_summary()).unwrap(), &mut found);
    let missing: Vec<_> = asked.iter().filter(|key| !found.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let json = example_summary().to_json();
    assert!(json.starts_with("{\n  \"schema\": \"forerun/summary/v1\",\n  \"seed\": "), "{json}");
}

#[test]
fn replicas_have_every_key_of_the_contract() {
    let json = serde_json::to_value(example_summary()).unwrap();
    for key in ["name", "busy_fraction", "steps", "kv_usage_mean", "requests"] {
        assert!(json["replicas"][0].get(key).is_some(), "{key}");
    }
}

#[test]
fn a_summary_survives_being_written_and_read() {
    let summary = example_summary();
    assert_eq!(serde_json::from_str::<Summary>(&summary.to_json()).unwrap(), summary);
}

#[test]
fn only_the_wall_clock_differs_between_identical_runs() {
    let mut slower = example_summary();
    slower.simulation.wall_s = slower.simulation.wall_s.map(|seconds| seconds * 2.0);
    slower.simulation.requests_per_wall_s = Some(1.0);
    assert_ne!(slower.to_json(), example_summary().to_json());
    assert_eq!(slower.without_wall().to_json(), example_summary().without_wall().to_json());
}

#[test]
fn every_cause_has_its_key_in_the_document() {
    let mut means = LatencyByCause::default();
    for (place, cause) in Cause::ALL.into_iter().enumerate() {
        *means.of(cause) = Some(place as f64);
    }
    let json = serde_json::to_value(means).unwrap();
    for (place, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(json[cause.key()], place as f64, "{}", cause.key());
    }
}

#[test]
fn the_schema_describes_every_field() {
    let schema = Summary::schema();
    let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for definition in definitions {
        let Some(properties) = definition.get("properties") else { continue };
        for (name, property) in properties.as_object().unwrap() {
            assert!(property.get("description").is_some(), "{name} has no description");
        }
    }
}
