//! `forerun trace info` as its users run it.

use serde_json::Value;

use crate::support::{Folder, conforms};

/// Three tenants' requests: two share a prefix group, one asks alone.
const TRACE: &str = "\
arrival_s,tenant,session,turn,think_s,input_tokens,output_tokens,prefix_group,prefix_tokens,adapter
0,acme,,,,1000,10,rules,800,a
30,acme,,,,1000,10,rules,800,a
60,solo,,,,500,50,,,b
100,acme,,,,900,10,rules,800,b
500,solo,,,,500,50,,,
";

fn info(folder: &Folder, args: &[&str]) -> Value {
    let run = folder.run(&[&["trace", "info"], args, &["--format", "json"]].concat());
    assert_eq!(run.code, Some(0), "{args:?}: {}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
}

fn number(value: &Value, pointer: &str) -> Option<f64> {
    value.pointer(pointer).and_then(Value::as_f64)
}

#[track_caller]
fn refused(folder: &Folder, args: &[&str], parts: &[&str]) {
    let run = folder.run(&[&["trace", "info"], args].concat());
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}: {}", run.stderr);
    for part in parts {
        assert!(run.stderr.contains(part), "{part:?} is not in: {}", run.stderr);
    }
    if run.stderr.starts_with("forerun: ") {
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    }
}

#[test]
fn a_small_trace_is_measured_to_the_token() {
    let folder = Folder::new();
    folder.write("trace.csv", TRACE);
    let info = info(&folder, &["trace.csv", "--cache-tokens", "1600"]);
    assert_eq!(info["schema"], "forerun/trace-info/v1");
    assert_eq!((number(&info, "/requests"), number(&info, "/span_s")), (Some(5.0), Some(500.0)));
    assert_eq!(number(&info, "/prefixes/prompt_tokens"), Some(3900.0));
    // Of the three requests with the common prefix, the second finds 50 blocks. The third asks for another
    // adapter, for which nothing was computed.
    assert_eq!(number(&info, "/prefixes/seen_tokens"), Some(800.0));
    assert_eq!(number(&info, "/prefixes/reuse_s/p50"), Some(30.0));
    assert_eq!(info["tenants"]["top"][0]["name"], "acme");
    assert_eq!(number(&info, "/tenants/top/0/share"), Some(0.6));
    assert_eq!(
        (number(&info, "/adapters/distinct"), number(&info, "/adapters/requests")),
        (Some(2.0), Some(4.0))
    );
    let minute = info["idle_gaps"].as_array().and_then(|all| all.iter().find(|g| g["at_least_s"] == 60.0));
    assert_eq!(number(minute.expect("gaps of a minute"), "/total_s"), Some(400.0));
}

#[test]
fn what_arrives_in_the_warm_up_only_fills_the_cache() {
    let folder = Folder::new();
    folder.write("trace.csv", TRACE);
    let info = info(&folder, &["trace.csv", "--warm-up", "10s"]);
    assert_eq!((number(&info, "/requests"), number(&info, "/warm_up_requests")), (Some(4.0), Some(1.0)));
    assert_eq!(number(&info, "/prefixes/seen_tokens"), Some(800.0));
    assert_eq!(number(&info, "/span_s"), Some(490.0));
}

#[test]
fn presets_are_measured_too_and_all_documents_conform_to_the_schema() {
    let folder = Folder::new();
    folder.write("trace.csv", TRACE);
    let schema = folder.run(&["schema", "trace-info"]).stdout;
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    for args in [
        &["trace.csv"][..],
        &["--preset", "multi-tenant"],
        &["--preset", "azure-conv", "--set", "workload.rate=2"],
    ] {
        let info = info(&folder, args);
        conforms(&schema, &schema, &info).unwrap_or_else(|why| panic!("{args:?}: {why}"));
    }
}

#[test]
fn the_figures_fit_a_terminal_of_80_columns() {
    let folder = Folder::new();
    folder.write("trace.csv", TRACE);
    for args in [["trace.csv", "--warm-up=0s"], ["--preset", "mooncake-conversation"]] {
        let run = folder.run(&[&["trace", "info"], &args[..]].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        for line in run.stdout.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(!run.stdout.contains("NaN") && run.stdout.contains("Seen before"), "{}", run.stdout);
    }
}

#[test]
fn wrong_input_is_refused_with_the_place_and_the_mend() {
    let folder = Folder::new();
    folder.write("trace.csv", TRACE);
    folder.write("broken.csv", "arrival_s,input_tokens,output_tokens\n0,10,5\n1,many,5\n");
    refused(&folder, &["broken.csv"], &["broken.csv:3", "many"]);
    refused(&folder, &["absent.csv"], &["absent.csv"]);
    refused(&folder, &["trace.csv", "--warm-up", "soon"], &["--warm-up", "soon", "30s"]);
    refused(&folder, &["trace.csv", "--block-tokens", "0"], &["a block of 0 tokens"]);
    refused(
        &folder,
        &["trace.csv", "--set", "workload.loop={closed: 5}"],
        &["workload.loop", "leave `loop` out"],
    );
    refused(&folder, &["--preset", "azure-con"], &["azure-conv"]);
    refused(&folder, &[], &["FILE"]);
}
