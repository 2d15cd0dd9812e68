//! The binary end to end, with a model of a few thousand weights: a profile that the simulator reads, from tables to
//! whole steps; and what it refuses.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use forerun_profiles::measured::DISK;
use forerun_profiles::profile::{MEASURED_HERE, Profile};
use forerun_sim::catalog::Model;

const CONFIG: &str = r#"{"model_type": "qwen3", "torch_dtype": "bfloat16", "tie_word_embeddings": false,
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 64, "vocab_size": 96, "max_position_embeddings": 512}"#;

fn calibrate(folder: &Path, options: &[&str]) -> Output {
    fs::write(folder.join("tiny.json"), CONFIG).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_forerun-calibrate"));
    let small = ["--model", "tiny.json", "--max-tokens", "16", "--max-context", "64", "--budget", "1s"];
    command.current_dir(folder).args(small).args(options).output().unwrap()
}

fn profile(folder: &Path, options: &[&str]) -> (Profile, String) {
    let output = calibrate(folder, &[&["--output", "out.json"], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = Profile::parse(&fs::read(folder.join("out.json")).unwrap()).unwrap();
    (profile, String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_run_leaves_a_profile_that_the_simulator_reads_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, report) = profile(folder.path(), &["--disk", "."]);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the model and the profile: {names:?}");
    assert_eq!((profile.grade.as_str(), profile.largest_graph), (MEASURED_HERE, Some(0)));
    let device = profile.device.clone().unwrap();
    device.check().unwrap();
    let model = Model::from_hf_config("tiny.json", CONFIG).unwrap();
    profile.kernels(&device, &model, 1).unwrap();
    let measured = profile.measured.unwrap();
    assert_eq!(measured.device.threads, 1);
    assert!(measured.samples.iter().all(|sample| !sample.us.is_empty()));
    assert!(measured.samples.iter().any(|sample| sample.op == DISK));
    let ops = ["qkv_proj", "lm_head", "prefill attention", "decode attention"];
    assert!(ops.iter().all(|op| measured.residuals.iter().any(|residual| residual.op == *op)));
    let check = measured.check.unwrap();
    assert_eq!((check.layers, check.steps.len()), (2, 12));
    assert!(check.steps.iter().all(|step| step.predicted_us > 0.0 && step.us.iter().all(|&us| us > 0.0)));
    let serving = check.serving.unwrap();
    assert!(serving.seconds.values().flatten().all(|&seconds| seconds > 0.0), "{serving:?}");
    for part in ["Ceilings of the device", "kernels of candle", "measured here: ", "requests served"] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

#[test]
fn vllm_is_projected_where_it_is_asked_for_and_the_report_says_what_is_whose() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, report) =
        profile(folder.path(), &["--kernels", "vllm", "--gpu", "h100", "--dtype", "bf16"]);
    assert_eq!((profile.gpu.as_str(), profile.largest_graph), ("h100-sxm", None));
    let from = |op: &str| {
        let mut ops = profile.per_layer.iter().chain(&profile.per_sequence);
        ops.find(|own| own.op == op).and_then(|own| own.from.clone()).unwrap()
    };
    assert_eq!(from("qkv_proj"), "measured here");
    assert!(from("norms").contains("memory's ceiling") && from("sampler").contains("memory's ceiling"));
    assert!(report.contains("efficiency relative to products: h100-sxm: attention"), "{report}");
}

#[test]
fn an_interrupted_run_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = profile(folder.path(), &[]);
    let (device, clock) =
        first.measured.map(|measured| (measured.device.name, measured.device.clock)).unwrap();
    let header = format!(
        r#"{{"journal":"forerun-calibrate/1 candle 0.11.1","device":{device:?},"clock":{clock:?},"model":"tiny.json","dtype":"f32","tensor_parallel":1,"most":[16,64]}}"#
    );
    let entry = r#"{"op":"o_proj","at":[16,0],"us":123456.0}"#;
    fs::write(folder.path().join("out.journal"), format!("{header}\n{entry}\n")).unwrap();
    let (second, _) = profile(folder.path(), &[]);
    let samples = second.measured.unwrap().samples;
    let sample = samples.iter().find(|sample| sample.op == "o_proj" && sample.at == [16, 0]).unwrap();
    assert!((sample.us[0] - 123_456.0).abs() < 1e-9, "{sample:?}");
    fs::write(folder.path().join("out.journal"), "of something else\n").unwrap();
    let refused = calibrate(folder.path(), &["--output", "out.json"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--restart"));
    profile(folder.path(), &["--restart"]);
}

#[test]
fn what_cannot_be_measured_is_refused_in_one_line_before_anything_is() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["--device", "tpu"], "`cpu`, `cuda:N` or `metal`"),
        (&["--model", "mixtral-8x7b"], "experts"),
        (&["--model", "none.json"], "neither in the catalog"),
        (&["--gpu", "h1000"], "not in the catalog"),
        (&["--tensor-parallel", "3"], "does not split"),
        (&["--output", "missing/out.json"], "cannot be written"),
    ];
    for (options, why) in cases {
        // The last of an option given twice would win, were it allowed.
        let mut command = Command::new(env!("CARGO_BIN_EXE_forerun-calibrate"));
        fs::write(folder.path().join("tiny.json"), CONFIG).unwrap();
        let own = options.contains(&"--model");
        let model: &[&str] = if own { &[] } else { &["--model", "tiny.json"] };
        let output = command.current_dir(folder.path()).args(model).args(options).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{options:?}: {said}");
    }
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 1, "nothing is left but the model");
}
