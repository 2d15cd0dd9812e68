//! What is wrong with a file is said in one clear error, and nothing panics.

use proptest::prelude::*;

use super::*;

/// The error without the path.
pub(super) fn refusal(bytes: impl AsRef<[u8]>) -> String {
    refusal_with(bytes, &TraceOptions::default())
}

fn refusal_with(bytes: impl AsRef<[u8]>, options: &TraceOptions) -> String {
    let file = file(bytes);
    let error = open(file.path(), options).unwrap_err().to_string();
    error.replace(&file.path().display().to_string(), "")
}

#[test]
fn every_wrong_file_has_one_clear_error() {
    let table = "arrival_s,input_tokens,output_tokens\n";
    let row = |row: &str| format!("{table}{row}\n").into_bytes();
    let long = [table.as_bytes(), b"\"", &vec![b'1'; 2 * input::LINE_MAX]].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"", "holds no requests"),
        (b"\n\n", "holds no requests"),
        (table.as_bytes(), "holds no requests"),
        (b"[{}]", "a JSON array"),
        (b"{\"a\": 1", "not a JSON object: EOF"),
        (b"{}", "no column `arrival_s`"),
        (b"a\0b", "NUL"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"\x80\x81", "not UTF-8"),
        (b"PK\x03\x04", "zip"),
        (b"arrival_s,input_tokens,input_tokens\n", "twice"),
        (&row("0,1"), ":2: 2 fields where the header has 3"),
        (&row("0,1,2,3"), ":2: 4 fields"),
        (&row("x,1,1"), "`arrival_s` is \"x\""),
        (&row(",1,1"), "`arrival_s` is empty"),
        (&row("-1,1,1"), "not negative"),
        (&row("nan,1,1"), "finite"),
        (&row("1e30,1,1"), "146 years"),
        (&row("1,1.5,1"), "`input_tokens` is \"1.5\""),
        (&row("1,0,1"), ":2: no input tokens"),
        (&row("1,99999999,1"), "from 0 to 16777216"),
        (&row("1,1,-1"), "`output_tokens` is \"-1\""),
        (&row("1,1,\0"), "NUL"),
        (&row("0,1,1\n2024-01-01T00:00:00Z,1,1"), ":3: `arrival_s` is a number in some rows"),
        (&[table.as_bytes(), b"\xff,1,1"].concat(), "not UTF-8"),
        (&long, "longer than 8 MiB"),
        (br#"{"arrival_s": 0, "input_tokens": "5", "output_tokens": 1}"#, "`input_tokens` is \"\\\"5\\\"\""),
        (br#"{"timestamp": -5, "input_length": 1, "output_length": 1}"#, "`timestamp` is \"-5\""),
        (br#"{"timestamp": 5, "input_length": 1.5, "output_length": 1}"#, "not a Mooncake row"),
        (br#"{"timestamp": 5, "input_length": 99999999999, "output_length": 1}"#, "at most 16777216"),
    ];
    for (bytes, expected) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        let error = refusal(bytes);
        assert!(error.contains(expected), "{shown:?}: {error}");
        assert!(error.len() < 500, "{shown:?}: {error}");
    }
}

#[test]
fn every_wrong_conversation_has_one_clear_error() {
    let cases = [
        ("0,1,1,s,1,,,\n0,1,1,s,1,,,", "turn 1 of session `s` is there twice"),
        ("0,1,1,s,0,,,", "turns count from 1"),
        ("0,1,1,s,1,,,\n,1,1,s,2,,,", "needs its arrival, or `think_s`"),
        (",1,1,s,1,2,,", "`arrival_s` is empty"),
        ("0,1,1,s,1,,,\n,1,1,s,3,2,,", ":3: turn 3 of session `s`"),
        ("0,1,1,,,,g,", "`prefix_tokens` is empty"),
        ("0,1,1,,,,g,5", "more than the prompt's 1"),
    ];
    for (rows, expected) in cases {
        let header = "arrival_s,input_tokens,output_tokens,session,turn,think_s,prefix_group,prefix_tokens";
        let error = refusal(format!("{header}\n{rows}\n"));
        assert!(error.contains(expected), "{rows}: {error}");
    }
}

#[test]
fn what_is_no_file_and_what_options_do_not_apply_is_said() {
    let options = TraceOptions::default();
    let here = tempfile::tempdir().unwrap();
    let open_error = |path: &Path| open(path, &options).unwrap_err().to_string();
    assert!(open_error(here.path()).contains("is a directory"));
    assert!(open_error(&here.path().join("no")).contains("No such file"));

    let azure = |options: TraceOptions| refusal_with(AZURE, &options);
    let units = columns(&[("arrival_s", "ms")]);
    assert!(azure(TraceOptions { units, ..options.clone() }).contains("`units:` means nothing"));
    assert!(azure(TraceOptions { block_tokens: Some(0), ..options.clone() }).contains("from 1 to"));
    let format = Some(TraceFormat::Mooncake);
    assert!(azure(TraceOptions { format, ..options.clone() }).contains("this is CSV"));
    let columns = columns(&[("tenant", "org")]);
    assert!(azure(TraceOptions { columns, ..options }).contains("no column `arrival_s`"));
}

/// Opens and replays whatever `bytes` are: an error or records, never a panic.
fn survives(bytes: &[u8]) {
    let file = file(bytes);
    for format in [None, Some(TraceFormat::Mooncake), Some(TraceFormat::Azure), Some(TraceFormat::Table)] {
        let options = TraceOptions { format, ..TraceOptions::default() };
        if let Ok(trace) = open(file.path(), &options) {
            let mut labels = Labels::default();
            let mut records = trace.records(1).unwrap();
            let mut count = 0;
            while records.next(&mut labels).unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, trace.info().rows);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes);
    }

    #[test]
    fn damaged_files_never_panic(
        which in 0..4usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        let zstd = zstd::encode_all(AZURE.as_bytes(), 0).unwrap();
        let mut bytes = [MOONCAKE.as_bytes(), AZURE.as_bytes(), TABLE.as_bytes(), &zstd][which].to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        survives(&bytes);
        survives(&bytes[..end.index(bytes.len())]);
    }
}
