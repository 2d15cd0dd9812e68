//! Wrong flags, overrides, and files that cannot be read or written.

use std::fs;

use super::{SMALL, refused};
use crate::support::Folder;

#[test]
fn overrides_that_lead_nowhere_are_refused_by_their_text() {
    let folder = Folder::with_scenario(SMALL);
    let cases: [(&str, &[&str]); 20] = [
        ("model", &["there is no `=`", "write for example"]),
        ("=x", &["a part of the path is empty"]),
        ("a..b=1", &["a part of the path is empty"]),
        ("modle=x", &["unknown key `modle`", "did you mean `model`?"]),
        ("pools.0.replica=3", &["did you mean `replicas`?"]),
        ("autoscaling={}", &["`autoscaling` is not modelled by this version"]),
        ("model.name=x", &["expected a string"]),
        ("pools.5.gpu=x", &["`5` is not an index"]),
        ("pools.x=1", &["expected a list"]),
        ("pools.0.replicas=-1", &["expected a whole number from 0"]),
        ("pools.0.replicas=many", &["expected a whole number from 0"]),
        ("model=[1", &["the value cannot be read"]),
        ("model=[1, 2]", &["expected a string"]),
        ("workload.duration=5x", &["`5x` is not a length of time"]),
        ("workload.rate=.nan", &["the value cannot be read"]),
        ("workload.rate=1e400", &["the value cannot be read"]),
        ("run.seed=99999999999999999999", &["expected a whole number from 0"]),
        ("workload.loop={closed: 0}", &["expected a whole number from 1"]),
        ("workload.synthetic={}", &["missing field `arrival`"]),
        ("pools.18446744073709551616.gpu=x", &["--set"]),
    ];
    for (text, parts) in cases {
        refused(&folder, &["scenario.yaml", "--set", text], &[&["--set ", text], parts].concat());
    }
    refused(&folder, &["scenario.yaml", "--set", "workload="], &["there is no `workload`"]);
    refused(
        &folder,
        &["scenario.yaml", "--set", "workload.preset=azure-cov"],
        &["did you mean `azure-conv`?"],
    );
}

#[test]
fn flags_that_are_wrong_or_contradict_each_other_are_refused() {
    let folder = Folder::with_scenario(SMALL);
    let cases: [(&[&str], &[&str]); 18] = [
        (&["--trace", "x.csv", "--preset", "y"], &["--trace", "--preset"]),
        (&["--replicas", "0"], &["`replicas` is 0"]),
        (&["--replicas", "x"], &["--replicas"]),
        (&["--replicas", "-1"], &["-1"]),
        (&["--rate", "nan"], &["--rate", "finite"]),
        (&["--rate", "inf"], &["--rate", "finite"]),
        (&["--rate", "-1"], &["`workload.rate` is -1"]),
        (&["--rate", "0"], &["`workload.rate` is 0"]),
        (&["--seed", "1.5"], &["--seed"]),
        (&["--nonsense"], &["--nonsense"]),
        (&["second.yaml"], &["second.yaml"]),
        (&["--router", "least"], &["did you mean `least-requests`?"]),
        (&["--gpu", "h100-smx"], &["did you mean `h100-sxm`?"]),
        (&["--model", "none.json"], &["none.json"]),
        (&["--model", "."], &["`model: .`", "config.json"]),
        (&["--preset", "azure-cov"], &["did you mean `azure-conv`?"]),
        (&["--trace", "none.csv"], &["none.csv"]),
        (&["--assert-slo"], &["--assert-slo", "attainment"]),
    ];
    for (args, parts) in cases {
        refused(&folder, &[&["scenario.yaml"], args].concat(), parts);
    }
    for args in
        [&["nonsense"][..], &["schema", "nonsense"], &["catalog", "--format", "xml"], &["simulate", ""], &[]]
    {
        assert_eq!(folder.run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = Folder::with_scenario(SMALL);
    fs::create_dir(folder.path("folder")).expect("a writable folder");
    refused(&folder, &["none.yaml"], &["none.yaml: "]);
    refused(&folder, &["folder"], &["folder: is a folder"]);
    refused(&folder, &["none/none.yaml"], &["none/none.yaml: "]);
    refused(&folder, &["scenario.yaml", "--trace", "folder"], &["folder", "is a directory"]);
    refused(&folder, &["scenario.yaml", "--trace", "scenario.yaml/x"], &["scenario.yaml/x"]);
    for (config, parts) in [
        ("", &["config.json"][..]),
        ("{", &["config.json"]),
        ("[]", &["config.json"]),
        ("{}", &["config.json"]),
        ("{\"hidden_size\": -1}", &["config.json"]),
        (
            "{\"architectures\": [\"MambaForCausalLM\"], \"model_type\": \"mamba\"}",
            &["config.json", "`model_type: mamba`", "llama"],
        ),
    ] {
        folder.write("config.json", config);
        refused(&folder, &["scenario.yaml", "--model", "config.json"], parts);
    }
    folder.write("config.json", [0xff; 100]);
    refused(&folder, &["scenario.yaml", "--model", "config.json"], &["config.json"]);
    folder.write("config.json", "x".repeat(2 << 20));
    refused(&folder, &["scenario.yaml", "--model", "config.json"], &["at most 1 MiB"]);
    if cfg!(unix) {
        refused(&folder, &["scenario.yaml", "--trace", "/dev/zero"], &["/dev/zero", "not a regular file"]);
    }
}

#[cfg(unix)]
#[test]
fn a_file_without_permission_is_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::with_scenario(SMALL);
    fs::set_permissions(folder.path("scenario.yaml"), fs::Permissions::from_mode(0o0)).expect("our own file");
    // The superuser reads everything.
    if fs::read(folder.path("scenario.yaml")).is_err() {
        refused(&folder, &["scenario.yaml"], &["scenario.yaml: "]);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused_and_nothing_is_left() {
    let folder = Folder::with_scenario(SMALL);
    fs::create_dir(folder.path("folder")).expect("a writable folder");
    let before = folder.names();
    let cases = [
        ("none/out.csv", "the folder none does not exist: make it first"),
        ("folder", "is a folder"),
        (".", "is a folder"),
    ];
    for (path, why) in cases {
        let run = folder.run(&["simulate", "scenario.yaml", "--outcomes", path]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{path}");
        assert!(run.stderr.contains(path) && run.stderr.contains(why), "{}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert_eq!(folder.names(), before);
    }
}
