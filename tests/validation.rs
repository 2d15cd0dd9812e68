//! The validation suite: the engine against recordings and traces that are not part of this repository.
//!
//! It reads the folder named by `FORERUN_SHARED` (default `../shared`) and takes every file that it finds in
//! `golden/traces` there. Where the folder is absent, everything is reported as ignored, never as passed.

mod golden;

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let shared = PathBuf::from(std::env::var_os("FORERUN_SHARED").unwrap_or_else(|| "../shared".into()));
    let trials = goldens(&shared.join("golden/traces"));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn goldens(folder: &Path) -> Vec<Trial> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![Trial::test("golden::folder_is_absent", || Ok(())).with_ignored_flag(true)];
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths.into_iter().map(golden_trial).collect()
}

fn golden_trial(path: PathBuf) -> Trial {
    let name = format!("golden::{}", path.file_stem().unwrap_or_default().to_string_lossy());
    let ignored = std::fs::read_to_string(&path)
        .ok()
        .and_then(|json| golden::unsupported(&json).ok().flatten())
        .is_some();
    let replay = move || {
        let json = std::fs::read_to_string(&path).map_err(|e| Failed::from(e.to_string()))?;
        golden::replay(&json).map(|_| ()).map_err(Failed::from)
    };
    Trial::test(name, replay).with_ignored_flag(ignored)
}
