//! Wrong traces: refused at their row.

use std::io::Write;

use super::{SMALL, refused};
use crate::support::Folder;

const HEADER: &str = "arrival_s,input_tokens,output_tokens\n";
const TURNS: &str = "arrival_s,input_tokens,output_tokens,session,turn,think_s\n";

/// Traces that must be refused: name, content, parts of the message after the file's name.
#[track_caller]
fn traces_refused(cases: &[(&str, &[u8], &[&str])]) {
    let folder = Folder::with_scenario("workload: {trace: to-be-named}\n");
    for (name, content, parts) in cases {
        folder.write(name, content);
        refused(&folder, &["scenario.yaml", "--trace", name], &[&[*name], *parts].concat());
    }
}

fn rows(header: &str, rows: &str) -> Vec<u8> {
    format!("{header}{rows}").into_bytes()
}

#[test]
fn tables_with_a_wrong_row_are_refused_at_its_line() {
    let refused = |cases: &[(&str, &str, &[&str])]| {
        for (header, body, parts) in cases {
            traces_refused(&[("trace.csv", &rows(header, body), parts)]);
        }
    };
    refused(&[
        (HEADER, "0,1,1\n-1,100,5\n", &[":3: `arrival_s`", "not negative"]),
        (HEADER, "0,1,1\n\n0,0,5\n", &[":4: no input tokens", "leave such rows out"]),
        (
            "arrival_s,input_tokens,output_tokens\r\n",
            "0,1,1\r\n\r\n0,1,1\r\n0,0,5\r\n",
            &[":5: no input tokens"],
        ),
        (HEADER, "0,1,1\n0,0,5", &[":3: no input tokens"]),
        (
            "arrival_s,input_tokens,output_tokens,tenant\n",
            "0,1,1,\"a\nb\"\n0,0,1,c\n",
            &[":4: no input tokens"],
        ),
        (HEADER, "0,5,-5\n", &[":2: `output_tokens`", "a whole number of tokens"]),
        (HEADER, "0,5.5,5\n", &[":2: `input_tokens`"]),
        (HEADER, "nan,5,5\n", &[":2: `arrival_s`", "finite"]),
        (HEADER, "inf,5,5\n", &[":2: `arrival_s`", "finite"]),
        (HEADER, "1e400,5,5\n", &[":2: `arrival_s`", "finite"]),
        (HEADER, "soon,5,5\n", &[":2: `arrival_s`", "a number is needed"]),
        (HEADER, "1,99999999999999999999,5\n", &[":2: `input_tokens`", "16777216"]),
        (HEADER, "1,16777217,5\n", &[":2: `input_tokens`", "16777216"]),
        (HEADER, "99999999999999999999,5,5\n", &[":2: `arrival_s`", "units"]),
        (HEADER, "1700000000000,5,5\n", &[":2: `arrival_s`", "is the unit right?"]),
        (HEADER, "0,5,5\n2024-05-10T00:00:00Z,5,5\n", &[":3: `arrival_s`", "use one of them"]),
        (HEADER, "2024-13-40T00:00:00Z,5,5\n", &[":2: `arrival_s`", "2024-05-10T00:00:00.25Z"]),
        (HEADER, "0,5,5\n1,5,5\n2,5", &[":4: 2 fields where the header has 3"]),
        (HEADER, "0,5,5,7\n", &[":2: 4 fields where the header has 3"]),
        (HEADER, ",5,5\n", &[":2: `arrival_s` is empty"]),
        (HEADER, "0,,5\n", &[":2: `input_tokens` is empty"]),
        ("arival_s,input_tokens,output_tokens\n", "0,1,1\n", &[":1: no column `arrival_s`", "did you mean"]),
        ("arrival_s,input_tokens,input_tokens\n", "0,1,1\n", &[":1:", "\"input_tokens\" twice"]),
        (TURNS, "0,5,5,a,1,\n1,5,5,a,1,\n", &[":3: turn 1 of session `a` is there twice"]),
        (TURNS, "0,5,5,a,1,\n,5,5,a,3,2\n", &[":3: turn 3 of session `a`", "which the trace lacks"]),
        (TURNS, "0,5,5,a,0,\n", &[":2: `turn` is 0", "count from 1"]),
        (TURNS, "0,5,5,a,1,\n,5,5,a,2,-2\n", &[":3: `think_s`", "not negative"]),
        ("arrival_s,input_tokens,output_tokens,max_tokens\n", "0,5,5,0\n", &[":2: `max_tokens` is 0"]),
        (
            "arrival_s,input_tokens,output_tokens,prefix_group,prefix_tokens\n",
            "0,5,5,a,10\n",
            &[":2: `prefix_tokens` is 10", "more than"],
        ),
        (
            "arrival_s,input_tokens,output_tokens,block_hashes\n",
            "0,5,5,\"[1]\"\n",
            &[":2:", "`block_tokens`"],
        ),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "x,1,1\n", &[":2: `TIMESTAMP`"]),
    ]);
}

#[test]
fn json_lines_with_a_wrong_row_are_refused_at_its_line() {
    let good = "{\"arrival_s\": 0, \"input_tokens\": 5, \"output_tokens\": 5}\n";
    let deep = format!("{{\"arrival_s\": {}", "[".repeat(100_000));
    let cases: [(&str, &[&str]); 10] = [
        (
            "{\"arrival_s\": 1, \"arrival_s\": 2, \"input_tokens\": 5}\n",
            &[":2: ", "`arrival_s` is there twice"],
        ),
        ("{\"arrival_s\": 1, \"input", &[":2: not a JSON object"]),
        ("5\n", &[":2: not a JSON object"]),
        ("{\"arrival_s\": 1, \"output_tokens\": 5}\n", &[":2: no column `input_tokens`"]),
        ("{\"arrival_s\": 1, \"input_tokens\": \"5\", \"output_tokens\": 5}\n", &[":2: `input_tokens`"]),
        ("{\"arrival_s\": 1, \"input_tokens\": 5e9, \"output_tokens\": 5}\n", &[":2: `input_tokens`"]),
        (
            "{\"arrival_s\": -1, \"input_tokens\": 5, \"output_tokens\": 5}\n",
            &[":2: `arrival_s`", "not negative"],
        ),
        ("{\"arrival_s\": 1e400, \"input_tokens\": 5, \"output_tokens\": 5}\n", &[":2: "]),
        ("{\"arrival_s\": true, \"input_tokens\": 5, \"output_tokens\": 5}\n", &[":2: `arrival_s`"]),
        (&deep, &[":2: not a JSON object"]),
    ];
    for (row, parts) in cases {
        traces_refused(&[("trace.jsonl", &rows(good, row), parts)]);
    }
    traces_refused(&[
        ("array.json", b"[{\"a\": 1}]", &[":1: a JSON array", "one object per line"]),
        (
            "mooncake.jsonl",
            b"{\"timestamp\": 0, \"input_length\": 5000, \"output_length\": 5, \"hash_ids\": [1]}\n",
            &[":1:", "`hash_ids` has 1", "`block_tokens`"],
        ),
        (
            "negative.jsonl",
            b"{\"timestamp\": -5, \"input_length\": 500, \"output_length\": 5, \"hash_ids\": [1]}\n",
            &[":1: `timestamp`", "not negative"],
        ),
    ]);
}

#[test]
fn files_that_are_no_trace_are_refused() {
    traces_refused(&[
        ("empty.csv", b"", &["holds no requests"]),
        ("blank.csv", b"\n\n\n", &["holds no requests"]),
        ("header.csv", HEADER.as_bytes(), &["holds no requests"]),
        ("scenario-as-trace.csv", SMALL.as_bytes(), &[":1: no column `arrival_s`"]),
        ("binary.csv", &[0xde, 0xad, 0xbe, 0xef, 0x00, 0xff, 0x0a, 0x80], &[":1: not UTF-8 text"]),
        ("nul.csv", b"arrival_s,input_tokens,output_tokens\n0,\x005,5\n", &[":2:", "NUL"]),
        ("latin.csv", b"arrival_s,input_tokens,output_tokens,tenant\n0,5,5,M\xfcller\n", &[":2:", "UTF-8"]),
        ("utf16.csv", b"\xff\xfea\x00r\x00", &["UTF-16", "save it as UTF-8"]),
        ("zip.csv", b"PK\x03\x04aaaa", &["zip", "decompress"]),
        ("table.parquet", b"PAR1aaaa", &["Parquet"]),
        ("broken.zst", b"\x28\xb5\x2f\xfd\xff\xff\xff\xff\xff\xff", &["the file is truncated"]),
    ]);
}

fn gzip(parts: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    parts.for_each(|part| encoder.write_all(&part).expect("memory takes it"));
    encoder.finish().expect("memory takes it")
}

#[test]
fn compressed_traces_that_are_cut_off_or_explode_are_refused_in_bounded_memory() {
    let numbers = (0..3000_u32).map(|n| format!("{n},{},5\n", n * 7919 % 3001 + 1).into_bytes());
    let whole = gzip(std::iter::once(HEADER.as_bytes().to_vec()).chain(numbers));
    let garbage = [&whole[..whole.len() / 2], &[0x55; 400]].concat();
    // One line of 2 GiB, and one quoted field of 2 GiB: far more than the process may have.
    let blow = |head: &[u8]| {
        let block = gzip(std::iter::once(vec![b'a'; 64 << 20]));
        let members = std::iter::repeat_n(block, 32).flatten();
        gzip(std::iter::once(head.to_vec())).into_iter().chain(members).collect::<Vec<u8>>()
    };
    let quote = blow(&rows(HEADER, "0,5,5\n\""));
    traces_refused(&[
        ("cut.csv.gz", &whole[..whole.len() / 2], &["the file is truncated", "copy it again"]),
        ("garbage.csv.gz", &garbage, &[]),
        ("bomb.csv.gz", &blow(b""), &[":1: a line longer than 8 MiB"]),
        ("quote.csv.gz", &quote, &[":3: a line longer than 8 MiB", "quote"]),
    ]);
}

#[test]
fn columns_and_units_that_do_not_fit_the_trace_are_refused() {
    let folder = Folder::new();
    folder.write("trace.csv", "send_time_us,input_tokens,output_tokens\n0,5,5\n");
    folder.write("plain.csv", rows(HEADER, "0,5,5\n"));
    folder.write(
        "mooncake.jsonl",
        "{\"timestamp\": 0, \"input_length\": 9, \"output_length\": 5, \"hash_ids\": [1]}\n",
    );
    let cases: [(&str, &[&str]); 9] = [
        ("trace: trace.csv, columns: {arrival_s: send_time_us}", &["`units: {arrival_s: us}`"]),
        ("trace: trace.csv, columns: {arival_s: send_time_us}", &["did you mean `arrival_s`?"]),
        ("trace: plain.csv, columns: {tenant: customer}", &["`customer`", "arrival_s, input_tokens"]),
        ("trace: plain.csv, units: {arrival_s: minutes}", &["`minutes`", "s, ms, us, ns"]),
        ("trace: plain.csv, units: {turn: s}", &["`turn`", "arrival_s and think_s"]),
        ("trace: plain.csv, format: mooncake", &["plain.csv:1", "CSV"]),
        ("trace: mooncake.jsonl, format: azure", &["mooncake.jsonl:1", "JSON"]),
        ("trace: mooncake.jsonl, units: {arrival_s: ms}", &["`units:`", "mooncake"]),
        ("trace: mooncake.jsonl, block_tokens: 0", &["`block_tokens`", "from 1"]),
    ];
    for (workload, parts) in cases {
        folder.write("scenario.yaml", format!("workload: {{{workload}}}\n"));
        refused(&folder, &["scenario.yaml"], parts);
    }
}

#[test]
fn a_trace_of_one_row_and_one_that_is_not_sorted_are_right() {
    let folder = Folder::with_scenario("workload: {trace: trace.csv}\n");
    folder.write("trace.csv", rows(HEADER, "5,100,1"));
    assert_eq!(folder.scenario_outcomes().len(), 1);
    folder.write("trace.csv", rows(HEADER, "5,100,3\n1,100,2\n9,100,1\n"));
    let outcomes = folder.scenario_outcomes();
    let order: Vec<_> = outcomes.iter().map(|o| (o.nanos("arrival_s"), o.nanos("output_tokens"))).collect();
    assert_eq!(order, [(0, 2), (4_000_000_000, 3), (8_000_000_000, 1)]);
}
