//! `forerun validate` as its users run it, on a measured server of a few requests.

use std::fmt::Write as _;

use crate::support::{Folder, Run};

const HEADER: &str =
    "server_input_tokens,output_tokens,send_time_us,first_chunk_time_us,last_chunk_time_us,status\n";

/// Requests that arrive every half second and take 60 ms to their first of 20 tokens, 12 ms apart.
fn measured(row: impl Fn(u64) -> String) -> Folder {
    let folder = Folder::new();
    let text = (0..12).fold(HEADER.to_owned(), |mut text, number| {
        let _ = writeln!(text, "{}", row(number));
        text
    });
    std::fs::create_dir_all(folder.path("servers/vllm-qwen3-14b-h100/slow")).unwrap();
    folder.write("servers/vllm-qwen3-14b-h100/slow/trace.csv", text);
    folder
}

fn row(number: u64) -> String {
    let sent = 1_000_000_000 + number * 500_000;
    let first = sent + 60_000;
    format!("1000,20,{sent},{first},{},ok", first + 19 * 12_000)
}

#[test]
fn a_measured_server_is_simulated_and_every_figure_has_its_error() {
    let folder = measured(row);
    let Run { code, stdout, stderr } = folder.run(&["validate", "servers", "--out", "report"]);
    assert_eq!(code, Some(0), "{stderr}");
    for part in [
        "Qwen3-14B on one H100",
        "| TTFT mean | 60.00 |",
        "| TPOT p99 | 12.00 |",
        "| E2E p90 | 288.0 |",
        " %) |",
    ] {
        assert!(stdout.contains(part), "{part} is not in {stdout}");
    }
    assert!(stdout.contains("Not simulated: its measurements are not in the folder"), "{stdout}");
    assert!(folder.read("report/servers.md").ends_with(&stdout));
    assert!(folder.read("report/vllm-qwen3-14b-h100-slow.svg").starts_with("<svg"));
}

#[test]
fn a_document_is_updated_between_its_markers_and_again_without_change() {
    let folder = measured(row);
    let update = ["validate", "servers", "--only", "vllm-qwen3-14b-h100/slow", "--update", "errors.md"];
    folder.write("errors.md", "before\n");
    let run = folder.run(&update);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.contains("errors.md: has no lines <!-- forerun validate: begin -->"),
        "{}",
        run.stderr
    );
    folder.write(
        "errors.md",
        "before\n<!-- forerun validate: begin -->\nold\n<!-- forerun validate: end -->\nafter\n",
    );
    assert_eq!(folder.run(&update).code, Some(0));
    let text = folder.read("errors.md");
    assert!(
        text.starts_with("before\n<!--") && text.ends_with("end -->\nafter\n") && !text.contains("old"),
        "{text}"
    );
    assert!(text.contains("](errors/vllm-qwen3-14b-h100-slow.svg)"), "{text}");
    assert_eq!(folder.run(&update).code, Some(0));
    assert_eq!(folder.read("errors.md"), text);
}

#[test]
fn wrong_folders_and_measurements_are_refused_in_one_line() {
    let folder = measured(row);
    let text = measured(|number| row(number).replace("1000,20", "1000,many"));
    let failed = measured(|number| row(number).replace(",ok", ",failed"));
    let backwards = measured(|number| row(number).replace(",1000060000,", ",900000000,"));
    for (folder, args, part) in [
        (&folder, vec!["validate", "nowhere"], "nowhere: is not a folder"),
        (&folder, vec!["validate", "servers", "--only", "mine"], "known are vllm-qwen3-14b-h100"),
        (
            &folder,
            vec!["validate", "servers", "--only", "vllm-qwen3-14b-h100/fast"],
            "no such server or load",
        ),
        (&text, vec!["validate", "servers"], "trace.csv:2: `output_tokens` is \"many\""),
        (&failed, vec!["validate", "servers"], "none of its 12 requests was answered"),
        (
            &backwards,
            vec!["validate", "servers"],
            "trace.csv:2: its first token came 100.000000 s before it was sent",
        ),
    ] {
        let Run { code, stderr, .. } = folder.run(&args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(part) && stderr.trim_end().lines().count() == 1, "{args:?}: {stderr}");
    }
}

#[test]
fn a_ladder_that_is_not_the_published_one_is_refused_in_one_line() {
    let cases = [
        ("qps,policy\n3,load-scheduling\n", "missing field `output_tok_s`"),
        ("qps,policy,output_tok_s,ttft_mean_s\n3,kv-scheduling,1,1\n", "`kv-scheduling` is no policy"),
        (
            "qps,policy,output_tok_s,ttft_mean_s\n3,precise-scheduling,0,1\n",
            "of precise at 3 requests/s is not positive",
        ),
        (
            "qps,policy,output_tok_s,ttft_mean_s\n3,load-scheduling,1,1\n",
            "the rates of precise are not those",
        ),
    ];
    for (text, part) in cases {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.path("published/llm-d-policy-ladder")).unwrap();
        folder.write("published/llm-d-policy-ladder/policy-comparison-73pct.csv", text);
        let run = folder.run(&["validate", "published", "--only", "llm-d-policy-ladder"]);
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{}", run.stderr);
    }
    let run = Folder::new().run(&["validate", ".", "--only", "llm-d-policy-ladder"]);
    assert_eq!((run.code, run.stderr.lines().count()), (Some(2), 1), "{}", run.stderr);
}
