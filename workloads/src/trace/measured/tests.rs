//! Every format becomes the same run, and what is wrong in it is told with its place.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::*;

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn read(text: &str) -> Vec<MeasuredRun> {
    let (_folder, path) = file("run", text);
    open(&path, &BTreeMap::new()).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(text: &str) -> String {
    let (_folder, path) = file("run", text);
    open(&path, &BTreeMap::new()).expect_err(text).to_string()
}

/// The same two requests: sent 1.5 s apart, first tokens after 0.1 and 0.2 s, last after 0.5 and 0.6 s.
fn assert_same(run: &MeasuredRun) {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} for {b} in {run:?}");
    let [first, second] = run.requests.as_slice() else { panic!("two requests: {run:?}") };
    near(first.sent_s, 0.0);
    near(second.sent_s, 1.5);
    near(first.first_s.unwrap(), 0.1);
    near(second.first_s.unwrap(), 1.7);
    near(first.last_s, 0.5);
    near(second.last_s, 2.1);
    assert_eq!((first.input_tokens, first.output_tokens), (100, 3));
    assert_eq!((second.input_tokens, second.output_tokens), (200, 3));
    assert_eq!(run.unanswered, 1);
}

const BENCH: &str = r#"{"input_lens":[200,100,50],"output_lens":[3,3,0],"ttfts":[0.2,0.1,0.0],
 "itls":[[0.2,0.2],[0.1,0.3],[]],"latencies":[0.6,0.5,0.0],"start_times":[11.5,10.0,12.0],"errors":["","","lost"],
 "request_rate":2.0,"max_concurrency":null,"generated_texts":["a","b",""]}"#;

#[test]
fn all_formats_of_the_same_run_are_the_same_run() {
    let bench = read(BENCH).remove(0);
    assert_same(&bench);
    assert_eq!(bench.format, MeasuredFormat::VllmBench);
    assert_eq!(bench.gaps_ms.len(), 4);

    let guidellm = read(
        r#"{"benchmarks":[{"requests":{"errored":[{}],"incomplete":[],"successful":[
        {"prompt_tokens":100,"output_tokens":3,"info":{"timings":{"request_start":10.0,"first_token_iteration":10.1,
         "last_token_iteration":10.5,"request_end":10.6}}},
        {"prompt_tokens":200,"output_tokens":3,"info":{"timings":{"request_start":11.5,"first_token_iteration":11.7,
         "last_token_iteration":12.1,"request_end":12.1}}}]}}]}"#,
    );
    assert_same(&guidellm[0]);
    assert_eq!(guidellm[0].format, MeasuredFormat::Guidellm);

    let inference_perf = read(
        r#"[{"start_time":11.5,"end_time":12.2,"request":"q","response":"a","error":null,
          "info":{"input_tokens":200,"output_tokens":3,"output_token_times":[11.7,11.9,12.1]}},
         {"start_time":10.0,"end_time":10.5,"error":null,
          "info":{"input_tokens":100,"output_tokens":3,"output_token_times":[10.1,10.3,10.5]}},
         {"start_time":13.0,"end_time":13.1,"info":null,"error":{"error_type":"x","error_msg":"y"}}]"#,
    );
    assert_same(&inference_perf[0]);
    assert_eq!(inference_perf[0].format, MeasuredFormat::InferencePerf);

    let outcomes = read(
        "id,arrival_s,input_tokens,output_tokens,first_token_s,finished_s,status\n\
         a,10.0,100,3,10.1,10.5,completed\nb,11.5,200,3,11.7,12.1,completed\nc,12.0,9,3,,,failed\n",
    );
    assert_same(&outcomes[0]);
    assert_eq!(outcomes[0].format, MeasuredFormat::Table);

    let spans = read(
        "{\"arrival_s\": 10, \"input_tokens\": 100, \"output_tokens\": 3, \"ttft_ms\": 100, \"e2e_ms\": 500}\n\
         {\"arrival_s\": 11.5, \"input_tokens\": 200, \"output_tokens\": 3, \"ttft_ms\": 200, \"e2e_ms\": 600}\n\
         {\"arrival_s\": 12, \"input_tokens\": 200, \"output_tokens\": 0}\n",
    );
    assert_same(&spans[0]);

    let trace_v2 = read(
        "request_id,prefix_group,prefix_length,input_tokens,output_tokens,server_input_tokens,arrival_time_us,\
         send_time_us,first_chunk_time_us,last_chunk_time_us,status\n\
         0,g,500,128,3,100,0,1782183938000000,1782183938100000,1782183938500000,ok\n\
         1,,0,128,3,200,1500000,1782183939500000,1782183939700000,1782183940100000,ok\n\
         2,,0,128,3,200,1600000,1782183939600000,0,0,error\n",
    );
    assert_same(&trace_v2[0]);
    assert_eq!(trace_v2[0].format, MeasuredFormat::TraceV2);
    assert_eq!(trace_v2[0].requests[0].prefix, Some(("g".into(), 100)), "no more than the prompt");
}

#[test]
fn columns_of_other_names_are_mapped_with_their_units() {
    let (_folder, path) = file(
        "run.csv",
        "sent_us,in,out,first_us,last_us\n10000000,100,3,10100000,10500000\n11500000,200,3,11700000,12100000\n1,1,0,,\n",
    );
    let columns = [
        ("arrival_s", "sent_us"),
        ("input_tokens", "in"),
        ("output_tokens", "out"),
        ("first_token_s", "first_us"),
        ("finished_s", "last_us"),
    ];
    let columns = columns.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())).into();
    assert_same(&open(&path, &columns).unwrap()[0]);
    let wrong = [("arival_s".to_owned(), "sent_us".to_owned())].into();
    assert!(open(&path, &wrong).unwrap_err().to_string().contains("did you mean `arrival_s`?"));
}

#[test]
fn a_client_held_back_by_the_number_in_flight_alone_is_a_closed_loop() {
    let unpaced = BENCH.replace(
        "\"request_rate\":2.0,\"max_concurrency\":null",
        "\"request_rate\":\"inf\",\"max_concurrency\":16",
    );
    let most = NonZeroU32::new(16).unwrap();
    assert_eq!(read(&unpaced)[0].pacing, Loop::Closed(most));
    let paced = BENCH.replace("\"max_concurrency\":null", "\"max_concurrency\":16");
    assert_eq!(read(&paced)[0].pacing, Loop::AtMost(most));
    let clockless = unpaced.replace("start_times", "other_times");
    assert_eq!(read(&clockless)[0].requests.len(), 2, "its own times are of no account");
}

#[test]
fn several_results_in_a_file_are_several_runs() {
    let runs = read(&format!("{BENCH}\n{BENCH}"));
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].name, "run[1]");
}

#[test]
fn a_stage_has_percentiles_and_no_requests() {
    let spread = |mean: f64| format!(r#"{{"mean":{mean},"median":{mean},"p90":{mean},"p99":{mean}}}"#);
    let stage = format!(
        r#"{{"load_summary":{{"count":10,"requested_rate":2.5}},"successes":{{"count":9,"latency":
        {{"request_latency":{},"time_to_first_token":{}}},"throughput":{{"requests_per_sec":2.4}},
        "prompt_len":{{"mean":200.0}},"output_len":{{"mean":62.5}}}},"failures":{{"count":1}}}}"#,
        spread(0.5),
        spread(0.03)
    );
    let run = read(&stage).remove(0);
    assert_eq!((run.requests.len(), run.unanswered), (0, 1));
    let found = run.stage.unwrap();
    assert!((found.e2e_s.p90 - 0.5).abs() < 1e-12 && (found.rate - 2.5).abs() < 1e-12);
    assert!(refusal(&stage.replace("2.5", "0")).contains("`load_summary.requested_rate` is 0"));
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_mend() {
    for (text, part) in [
        ("", "holds no requests"),
        ("{}", "is empty: every request"),
        ("{\"ttfts\": [0.1}", "is no result that can be read"),
        ("[{\"start_time\": 1}]", "missing field `end_time`"),
        ("[]", "holds no requests"),
        ("{\"mean_ttft_ms\": 3}", "--save-detailed"),
        (&BENCH.replace("\"start_times\":[11.5,10.0,12.0]", "\"start_times\":[11.5]"), "has 1 entries where"),
        (&BENCH.replace("\"start_times\"", "\"times\""), "has no `start_times`"),
        (&BENCH.replace("[0.2,0.1,0.0]", "[-0.2,0.1,0.0]"), "request 0: its first token came 0.2"),
        (
            &BENCH.replace("[200,100,50]", "[99999999,100,50]"),
            "request 0: `input_lens` is not a number of tokens",
        ),
        (&BENCH.replace("[200,100,50]", "[-2,100,50]"), "is no result that can be read"),
        (&BENCH.replace("[200,100,50]", "[NaN,100,50]"), "run:1: is no result"),
        (
            &BENCH.replace("\"errors\":[\"\",\"\"", "\"errors\":[\"x\",\"x\""),
            "none of its 3 requests was answered",
        ),
        ("arrival_s,input_tokens,output_tokens\n1,2,3\n", "no column `finished_s` (or `e2e_ms`)"),
        ("arrival,input_tokens,output_tokens,e2e_ms\n1,2,3,4\n", "did you mean `arrival`?"),
        ("arrival_s,input_tokens,output_tokens,e2e_ms\n1,2,3,\n", "run:2: `finished_s` is empty"),
        ("arrival_s,input_tokens,output_tokens,e2e_ms\n1,2,3,x\n", "run:2: `e2e_ms` is \"x\""),
        ("arrival_s,input_tokens,output_tokens,e2e_ms,ttft_ms\n1,2,3,4,5\n", "its last token came"),
        ("{\"benchmarks\": [{}]}", "benchmark 0: has no `requests`"),
        (
            "{\"benchmarks\": [{\"requests\": {\"successful\": [{\"info\": {\"timings\": {}}, \"output_tokens\": 2}]}}]}",
            "successful request 0: has no `info.timings.request_start`",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(part), "{text}: {error}");
        assert!(error.contains("run"), "{text}: {error}");
    }
}

#[test]
fn damaged_files_end_in_an_error_and_never_in_a_panic() {
    for cut in 1..BENCH.len() {
        let _ = refusal(&BENCH[..cut]);
    }
    let (_folder, path) = file("run", BENCH);
    let columns = [("arrival_s".to_owned(), "t".to_owned())].into();
    assert!(open(&path, &columns).unwrap_err().to_string().contains("columns are for tables"));
    assert!(open(path.parent().unwrap(), &BTreeMap::new()).is_err());
}

#[test]
fn what_a_client_meant_to_send_when_is_on_the_clock_of_its_sending() {
    let held_back = BENCH.replace("\"errors\"", "\"queue_times\":[0.4,0.0,0.0],\"errors\"");
    let requests = read(&held_back).remove(0).requests;
    assert!((requests[0].due_s).abs() < 1e-9 && (requests[1].due_s - 1.1).abs() < 1e-9, "{requests:?}");
    let other_clock =
        read("due_s,arrival_s,input_tokens,output_tokens,e2e_ms\n100,10,5,5,500\n101,12,5,5,500\n");
    let due: Vec<f64> = other_clock[0].requests.iter().map(|request| request.due_s).collect();
    assert!(due[0].abs() < 1e-9 && (due[1] - 1.0).abs() < 1e-9, "sent a second late: {due:?}");
}
