//! `forerun gate` as continuous integration runs it: the workflow in `examples/gate`, step by step.

use serde_json::Value;

use crate::support::Folder;

/// The workflow's steps that are commands of the shell.
fn steps() -> Vec<Value> {
    let text = include_str!("../examples/gate/workflow.yaml");
    let workflow: Value = serde_saphyr::from_str(text).expect("the workflow is YAML");
    assert_eq!(workflow["on"], "pull_request");
    workflow["jobs"]["gate"]["steps"].as_array().expect("a job `gate` with steps").clone()
}

/// The arguments of the step that asks the gate, and the file that its answer goes to.
fn asked() -> (Vec<String>, String) {
    let commands = steps().into_iter().filter_map(|step| Some(step["run"].as_str()?.to_owned()));
    let gate = commands.into_iter().find(|command| command.contains("forerun gate")).expect("a gate");
    let (command, file) = gate.split_once('>').expect("its answer goes to a file");
    let arguments = command.split_whitespace().skip(1).map(str::to_owned).collect();
    (arguments, file.trim().to_owned())
}

#[test]
fn the_example_workflow_stops_a_picker_that_forgets_prefixes_and_passes_an_equal_one() {
    let folder = Folder::new();
    for name in ["ci", "deploy"] {
        std::fs::create_dir(folder.path(name)).expect("a folder");
    }
    folder.write("scenario.yaml", include_str!("../examples/gate/scenario.yaml"));
    let own = include_str!("../examples/epp-prefix.yaml");
    folder.write("deploy/epp.yaml", own);
    let record = ["gate", "--record", "ci/base.json", "scenario.yaml", "--replications", "5"];
    let few = ["--set", "workload.duration=60s", "--set", "run.warm_up=15s", "--set"];
    let recorded = folder.run(&[&record[..], &few, &["router={epp: deploy/epp.yaml}"]].concat());
    assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
    let (arguments, answer) = asked();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(steps().iter().any(|step| step["with"]["report_paths"] == "gate.xml"), "the tests are shown");
    assert!(steps().iter().any(|step| step["run"].as_str().is_some_and(|run| run.contains(&answer))));

    let same = folder.run(&arguments);
    assert_eq!(same.code, Some(0), "{}{}", same.stdout, same.stderr);
    assert!(same.stdout.contains("PASS: not worse"), "{}", same.stdout);

    folder.write("deploy/epp.yaml", own.replace("weight: 2", "weight: 0"));
    let worse = folder.run(&arguments);
    assert_eq!(worse.code, Some(1), "{}{}", worse.stdout, worse.stderr);
    assert!(worse.stdout.contains("FAIL: worse than tolerated") && worse.stdout.contains("hit rate"));
    assert!(
        folder.read("gate.xml").contains("<failure message=\"worse than tolerated: "),
        "the reason is told"
    );
}
