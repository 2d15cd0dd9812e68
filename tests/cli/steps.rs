//! `forerun explain step`.

use serde_json::Value;

use super::SMALL;
use crate::support::Folder;

/// The figures of `explain step --format json` with these further arguments.
fn explained(args: &[&str]) -> Value {
    let run = Folder::new().run(&[&["explain", "step", "--format", "json"], args].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_str(&run.stdout).expect("one JSON document")
}

#[test]
fn the_ops_of_an_explained_step_add_up_to_the_nanosecond() {
    for model in ["qwen3-14b", "gpt-oss-20b", "qwen3-30b-a3b", "mixtral-8x7b"] {
        for step in [
            &["--prefill", "512"][..],
            &["--decode", "64", "--kv", "4000"],
            &["--prefill", "300", "--decode", "7"],
        ] {
            let step = explained(&[&["--model", model, "--gpu", "h200"], step].concat());
            let ops = step["ops"].as_array().expect("a list of ops");
            let sum: u64 = ops.iter().map(|op| op["total_ns"].as_u64().expect("whole nanoseconds")).sum();
            assert_eq!(step["gpu_ns"].as_u64(), Some(sum), "{model}");
            for form in step["forms"].as_array().expect("a list of forms") {
                for part in ["formula", "constants", "source"] {
                    assert!(form[part].as_str().is_some_and(|text| text.len() > 5), "{model} {form}");
                }
            }
        }
    }
}

#[test]
fn an_explained_step_is_that_of_the_scenario() {
    let folder = Folder::with_scenario(SMALL);
    let args = ["explain", "step", "--scenario", "scenario.yaml", "--decode", "8", "--kv", "1000"];
    let of = |more: &[&str]| {
        let run = folder.run(&[&args[..], &["--format", "json"], more].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        serde_json::from_str::<Value>(&run.stdout).expect("one JSON document")
    };
    let plain = of(&[]);
    assert_eq!(plain["model"], "Qwen/Qwen3-8B");
    let narrow = of(&["--dtype", "fp8", "--kv-cache-dtype", "fp8"]);
    assert!(narrow["gpu_ns"].as_u64() < plain["gpu_ns"].as_u64());
    let table = folder.run(&args);
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    assert!(table.stdout.lines().all(|line| line.chars().count() <= 80), "{}", table.stdout);
    assert!(table.stdout.contains("qkv_proj") && table.stdout.contains("Source:"), "{}", table.stdout);
}

#[test]
fn a_step_that_the_engine_could_not_form_is_refused() {
    let folder = Folder::new();
    for (args, part) in [
        (&[][..], "computes nothing"),
        (&["--prefill", "4000000000"], "max_num_batched_tokens"),
        (&["--decode", "5000"], "max_num_seqs"),
        (&["--decode", "1", "--kv", "4000000000"], "max_model_len"),
        (&["--decode", "1", "--pool", "x"], "no pool is called `x`"),
        (&["--decode", "1", "--model", "deepseek-v3"], "does not fit"),
    ] {
        let run = folder.run(&[&["explain", "step"], args].concat());
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(part) && run.stderr.lines().count() == 1, "{args:?}: {}", run.stderr);
    }
}
