//! What [`open`] promises, on small files written here.

mod refusals;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use forerun_sim::prompt::{Content, Segment};
use forerun_sim::request::Labels;
use tempfile::NamedTempFile;

use super::*;
use crate::record::{Record, Start};
use refusals::refusal;

const MOONCAKE: &str = r#"{"timestamp": 27, "input_length": 1000, "output_length": 5, "hash_ids": [7, 8]}
{"timestamp": 1027, "input_length": 1024, "output_length": 0, "hash_ids": [7, 9]}
"#;
const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 18:17:03.9799600,4808,10\r\n\
    2023-11-16 18:17:04.0319600,3180,8\r\n";
const TABLE: &str = "arrival_s,input_tokens,output_tokens,tenant,session,turn,think_s\n\
    5,100,10,a,s,1,\n\
    1,50,5,,,,\n\
    ,200,10,a,s,2,1.5\n";

fn file(bytes: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes.as_ref()).unwrap();
    file
}

/// A trace and the file that it needs as long as it is read.
pub(crate) struct Recorded {
    trace: Trace,
    _file: NamedTempFile,
}

impl std::ops::Deref for Recorded {
    type Target = Trace;

    fn deref(&self) -> &Trace {
        &self.trace
    }
}

pub(crate) fn read(bytes: impl AsRef<[u8]>) -> Recorded {
    let file = file(bytes);
    let trace = open(file.path(), &TraceOptions::default()).unwrap();
    Recorded { trace, _file: file }
}

fn opened(bytes: impl AsRef<[u8]>) -> Result<Trace, WorkloadError> {
    open(file(bytes).path(), &TraceOptions::default())
}

pub(crate) fn collect(records: &mut dyn Records) -> Vec<Record> {
    let mut labels = Labels::default();
    std::iter::from_fn(|| records.next(&mut labels).unwrap()).collect()
}

fn records(bytes: impl AsRef<[u8]>) -> Vec<Record> {
    records_with(bytes, &TraceOptions::default())
}

fn records_with(bytes: impl AsRef<[u8]>, options: &TraceOptions) -> Vec<Record> {
    let file = file(bytes);
    let trace = open(file.path(), options).unwrap();
    collect(&mut *trace.records(1).unwrap())
}

fn seconds(seconds: f64) -> Start {
    Start::At(Time::ZERO + Span::from_secs_f64(seconds).unwrap())
}

fn segments(record: &Record) -> Vec<(Content, u32)> {
    let segments = record.prompt.segments().iter();
    segments.map(|&Segment { content, tokens }| (content, tokens)).collect()
}

fn columns(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs.map(|&(ours, theirs)| (ours.to_owned(), theirs.to_owned())).collect()
}

#[test]
fn mooncake_blocks_are_segments_and_the_last_is_partial() {
    let records = records(MOONCAKE);
    assert_eq!(segments(&records[0]), [(Content::recorded(7), 512), (Content::recorded(8), 488)]);
    assert_eq!(records[1].start, seconds(1.0), "counted from the first arrival");
}

#[test]
fn an_answer_of_no_tokens_becomes_one_and_is_counted() {
    assert_eq!(records(MOONCAKE)[1].output_tokens, 1);
    let info = opened(MOONCAKE).unwrap().info().clone();
    assert_eq!((info.rows, info.input_tokens, info.output_tokens), (2, 2024, 6));
    assert!(info.warnings[0].starts_with("1 request has no output tokens"), "{:?}", info.warnings);
}

#[test]
fn another_block_size_is_suggested_when_the_count_is_wrong() {
    let row = r#"{"timestamp": 0, "input_length": 33, "output_length": 1, "hash_ids": [1, 2, 3]}"#;
    let error = refusal(row);
    assert!(error.starts_with(":1: 33 input tokens are 1 blocks of 512, but `hash_ids` has 3"), "{error}");
    assert!(error.contains("`block_tokens`"), "{error}");
    let options = TraceOptions { block_tokens: Some(16), ..TraceOptions::default() };
    assert_eq!(records_with(row, &options)[0].prompt.segments().len(), 3);
}

#[test]
fn a_bailian_trace_is_told_from_a_mooncake_trace() {
    let row =
        r#"{"chat_id": 1, "timestamp": 61.1, "input_length": 33, "output_length": 1, "hash_ids": [1, 2, 3]}"#;
    assert!(refusal(row).contains("`format: table`"));
    let options = TraceOptions {
        format: Some(TraceFormat::Table),
        columns: columns(&[
            ("arrival_s", "timestamp"),
            ("input_tokens", "input_length"),
            ("output_tokens", "output_length"),
            ("block_hashes", "hash_ids"),
        ]),
        block_tokens: Some(16),
        ..TraceOptions::default()
    };
    assert_eq!(records_with(row, &options)[0].prompt.segments().len(), 3);
}

fn gridded() -> String {
    let row = |row: u64| {
        let at = row / 10 * 3000;
        format!("{{\"timestamp\": {at}, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [{row}]}}\n")
    };
    (0..100).map(row).collect()
}

#[test]
fn arrivals_on_a_coarse_grid_are_spread_over_it() {
    let trace = read(gridded());
    assert_eq!(trace.info().grid, Some(Span::from_secs(3)));
    assert!(trace.info().warnings[0].contains("grid of 3.00 s"), "{:?}", trace.info().warnings);
    let times = |seed| {
        let records = collect(&mut *trace.records(seed).unwrap());
        records.iter().map(|record| (record.start, record.number)).collect::<Vec<_>>()
    };
    assert_eq!(times(1), times(1));
    assert_ne!(times(1), times(2));
    let at = |start| match start {
        Start::At(at) => at,
        Start::AfterPrevious(_) => unreachable!(),
    };
    let times = times(1);
    assert_eq!(times[0].0, seconds(0.0));
    assert!(times.is_sorted_by_key(|&(start, _)| at(start)), "{times:?}");
    let mut numbers: Vec<u64> = times.iter().map(|&(_, number)| number / 10).collect();
    assert!(numbers.is_sorted(), "groups stay apart");
    numbers.dedup();
    assert_eq!(numbers.len(), 10);
}

#[test]
fn unsorted_rows_are_replayed_in_order_of_time() {
    let (first, second) = MOONCAKE.split_once('\n').unwrap();
    let records = records(format!("{second}{first}"));
    assert_eq!(records.iter().map(|record| record.number).collect::<Vec<_>>(), [1, 0]);
    let shuffled: String = gridded().lines().rev().map(|line| format!("{line}\n")).collect();
    assert_eq!(read(shuffled).info().grid, Some(Span::from_secs(3)));
}

#[test]
fn azure_times_keep_their_seven_decimals() {
    let records = records(AZURE);
    assert_eq!(records[1].start, seconds(0.052));
    assert_eq!(segments(&records[1]), [(Content::private(1), 3180)]);
}

#[test]
fn azure_of_2024_has_zones_and_any_number_of_decimals() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
        2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,10,5\n";
    assert_eq!(records(text)[1].start, seconds(0.99007));
}

#[test]
fn a_turn_with_think_time_follows_its_previous_turn() {
    let records = records(TABLE);
    let starts: Vec<_> = records.iter().map(|record| record.start).collect();
    let think = Start::AfterPrevious(Span::from_millis(1500));
    assert_eq!(starts, [seconds(0.0), seconds(4.0), think]);
}

#[test]
fn a_later_turn_contains_what_was_said_before() {
    let records = records(TABLE);
    assert_eq!(
        segments(&records[2]),
        [(Content::private(0), 100), (Content::generated(0), 10), (Content::private(2), 90)]
    );
    assert_eq!(records[2].session.as_ref().unwrap().name.as_deref(), Some("s"));
}

#[test]
fn a_history_longer_than_the_prompt_is_cut() {
    let text = "arrival_s,input_tokens,output_tokens,session,turn\n0,100,10,s,1\n9,60,10,s,2\n";
    assert_eq!(segments(&records(text)[1]), [(Content::private(0), 60)]);
    assert!(opened(text).unwrap().info().warnings[0].contains("fewer input tokens"));
}

#[test]
fn a_session_whose_first_turn_was_not_recorded_starts_anew() {
    let text = "arrival_s,input_tokens,output_tokens,session,turn\n0,100,10,s,3\n9,200,10,s,4\n";
    let records = records(text);
    assert_eq!(segments(&records[0]), [(Content::private(0), 100)]);
    assert_eq!(records[1].prompt.segments().len(), 3);
}

#[test]
fn turns_without_numbers_are_counted() {
    let text = "arrival_s,input_tokens,output_tokens,session\n0,100,10,s\n9,200,10,s\n";
    let turns = records(text).into_iter().map(|record| record.session.unwrap().turn);
    assert_eq!(turns.collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn prefix_groups_and_block_hashes_share_what_they_say() {
    let text = r#"{"arrival_s": 0, "input_tokens": 40, "output_tokens": 1, "prefix_group": "rag", "prefix_tokens": 30}
{"arrival_s": 1, "input_tokens": 40, "output_tokens": 1, "block_hashes": ["x", 5], "block_tokens": 16}
"#;
    let records = records(text);
    let group = Content::shared(cell::name_hash("rag"));
    assert_eq!(segments(&records[0]), [(group, 30), (Content::private(0), 10)]);
    assert_eq!(segments(&records[1])[1..], [(Content::recorded(5), 16), (Content::private(1), 8)]);
}

#[test]
fn columns_and_units_can_be_named() {
    let text = "send_time_us,server_input_tokens,output_tokens\n1000000,5,1\n2500000,5,1\n";
    let options = TraceOptions {
        columns: columns(&[("arrival_s", "send_time_us"), ("input_tokens", "server_input_tokens")]),
        units: columns(&[("arrival_s", "us")]),
        ..TraceOptions::default()
    };
    assert_eq!(records_with(text, &options)[1].start, seconds(1.5));
}

#[test]
fn outcome_files_can_be_read_back() {
    let text = "id,arrival_s,tenant,session,turn,input_tokens,output_tokens,cached_tokens,prefill_replica,\
        replica,model,adapter,class,scheduled_s,first_token_s,finished_s,ttft_ms,tpot_ms,e2e_ms,status,reason\n\
        0,0.250000000,acme,,,100,10,0,,pool-0,m,,gold,0.26,0.3,0.5,50,20,250,completed,\n";
    let mut labels = Labels::default();
    let trace = read(text);
    let record = trace.records(0).unwrap().next(&mut labels).unwrap().unwrap();
    assert_eq!((labels.name(record.tenant), labels.name(record.class)), ("acme", "gold"));
    assert_eq!((record.name.as_deref(), record.session), (Some("0"), None));
}

#[test]
fn compressed_files_and_byte_order_marks_are_read() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(AZURE.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(AZURE.as_bytes(), 0).unwrap();
    let marked = [b"\xef\xbb\xbf", AZURE.as_bytes()].concat();
    for bytes in [&gzip, &zstd, &marked] {
        assert_eq!(records(bytes).len(), 2);
    }
    for whole in [gzip, zstd] {
        for end in [whole.len() / 2, whole.len() - 1] {
            let error = refusal(&whole[..end]);
            assert!(error.contains("truncated"), "{end}: {error}");
        }
    }
}
