//! `forerun calibrate run` and the profiles that it writes.

use std::fs;
#[cfg(unix)]
use std::path::Path;
#[cfg(unix)]
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::Folder;

/// A copy of `forerun` alone in a folder, so that nothing is beside it but what a test puts there.
#[cfg(unix)]
fn alone(folder: &Folder) {
    let (built, copy) = (env!("CARGO_BIN_EXE_forerun"), folder.path("forerun"));
    if fs::hard_link(built, &copy).is_err() {
        fs::copy(built, &copy).expect("room for a copy");
    }
}

#[cfg(unix)]
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a writable folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("an own file");
}

/// Runs the copy; `path` is searched before the system's own programs.
#[cfg(unix)]
fn calibrate(folder: &Folder, path: &Path, options: &[&str]) -> Output {
    let path = format!("{}:/usr/bin:/bin", path.display());
    let mut command = Command::new(folder.path("forerun"));
    command.args(["calibrate", "run"]).args(options).env("PATH", path).output().expect("it starts")
}

#[cfg(unix)]
fn refusal(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[cfg(unix)]
#[test]
fn without_the_binary_the_command_that_builds_it_is_named() {
    let folder = Folder::new();
    alone(&folder);
    let said = refusal(&calibrate(&folder, &folder.path(""), &["--device", "cpu"]));
    assert!(said.contains("cargo build --release -p forerun-calibration"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_missing_driver_is_explained_in_a_sentence() {
    let folder = Folder::new();
    alone(&folder);
    let loader = "echo 'forerun-calibrate: error while loading shared libraries: libcuda.so.1: cannot open' >&2; exit 127";
    script(&folder.path("forerun-calibrate"), loader);
    let said = refusal(&calibrate(&folder, Path::new("/usr/bin"), &["--device", "cuda:0"]));
    assert!(said.contains("libcuda.so.1 is missing, which NVIDIA's driver brings"), "{said}");
    script(&folder.path("forerun-calibrate"), "echo >&2; echo 'Illegal instruction' >&2; exit 132");
    let said = refusal(&calibrate(&folder, Path::new("/usr/bin"), &[]));
    assert!(said.contains("does not start: Illegal instruction"), "{said}");
}

#[cfg(unix)]
#[test]
fn options_and_exit_code_are_passed_on_and_the_binary_beside_goes_before_the_one_on_path() {
    let folder = Folder::new();
    alone(&folder);
    let elsewhere = Folder::new();
    script(&elsewhere.path("forerun-calibrate"), "echo elsewhere \"$@\"; [ \"$1\" = --version ] || exit 7");
    let ran = calibrate(&folder, &elsewhere.path(""), &["--help", "--budget", "5 m"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "elsewhere --help --budget 5 m\n");
    assert_eq!(ran.status.code(), Some(7));
    script(&folder.path("forerun-calibrate"), "echo beside");
    let ran = calibrate(&folder, &elsewhere.path(""), &[]);
    assert_eq!((String::from_utf8_lossy(&ran.stdout).as_ref(), ran.status.code()), ("beside\n", Some(0)));
}

/// A profile of a device that no catalog has: 1 ms for every token, 1 ms for every sequence.
fn profile() -> Value {
    let gpu = fs::read_to_string("sim/catalog/gpus/rtx4090.json").expect("the catalog");
    let mut device: Value = serde_json::from_str(&gpu).expect("JSON");
    device["name"] = json!("my-cpu");
    device["aliases"] = json!([]);
    device["title"] = json!("The CPU of a laptop");
    let op = |op: &str| json!({"op": op, "times": 1.0, "at": [1, 1000], "us": [1e3, 1e6]});
    json!({
        "schema": "forerun-profile/1",
        "time_unit": "us",
        "grade": "measured here",
        "source": "forerun calibrate run",
        "engine": "candle 0.11.1",
        "gpu": "my-cpu",
        "model": "meta-llama/Llama-3.1-8B",
        "tensor_parallel": 1,
        "dtype": "bf16",
        "notes": [],
        "per_layer": [],
        "per_step": [op("all of it")],
        "per_sequence": [op("lm_head")],
        "moe": null,
        "attention": {
            "decodes": [1], "contexts": [1], "decode_us": [0.0],
            "chunks": [1], "histories": [0], "prefill_us": [0.0],
            "mixed_us": null, "skew": null,
        },
        "largest_graph": 0,
        "device": device,
    })
}

const SCENARIO: &str = "\
profile: mine.json
workload: {synthetic: {arrival: {poisson: {rate: 1}}, input_tokens: 100, output_tokens: 11}, requests: 1}
run: {warm_up: 0s}
overhead: {gateway: 0s, api_server: 0s, tokenize_per_1k_tokens: 0s, engine_per_step: 0s, engine_per_request: 0s}
engine: {async_scheduling: false, num_gpu_blocks: 1000, max_model_len: 1024}
";

#[test]
fn a_profile_makes_its_device_known_and_its_steps_are_not_padded_where_it_has_no_graphs() {
    let folder = Folder::with_scenario(SCENARIO);
    folder.write("mine.json", profile().to_string());
    let run = folder.run(&["simulate", "scenario.yaml", "--format", "json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert!(run.stdout.contains("\"grade\": \"measured here\""), "{report:#}");
    assert!(run.stdout.contains("\"gpu\": \"my-cpu\""), "{report:#}");
    // 100 ms for the prompt and 1 ms for its sample; then ten steps of 2 ms.
    assert_eq!(report["ttft_ms"]["mean"], json!(101.0));
    assert_eq!(report["e2e_ms"]["mean"], json!(121.0));
}

#[test]
fn a_profile_of_another_device_does_not_make_a_name_known() {
    let folder = Folder::with_scenario(&format!("{SCENARIO}pools: [{{gpu: your-cpu}}]\n"));
    let mut wrong = profile();
    folder.write("mine.json", wrong.to_string());
    let run = folder.run(&["simulate", "scenario.yaml"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("`gpu: your-cpu` is not in the catalog"), "{}", run.stderr);
    folder.write("scenario.yaml", SCENARIO);
    wrong["device"]["memory_gib"] = json!(-1.0);
    folder.write("mine.json", wrong.to_string());
    let run = folder.run(&["simulate", "scenario.yaml"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("`device`: a peak of -1 is not positive"), "{}", run.stderr);
}
