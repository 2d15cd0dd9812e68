//! Workloads that come with the tool: each file of `presets/` is one, named by its file.

use std::path::Path;

use include_dir::{Dir, include_dir};
use serde::Deserialize;

use crate::error::WorkloadError;
use crate::one_of::suggestion;
use crate::synthetic::SyntheticSpec;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/presets");

/// What a preset is and how far it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresetInfo {
    /// The name that scenarios use.
    pub name: &'static str,
    /// What it describes and what it leaves out.
    pub about: String,
    /// Where its numbers come from.
    pub source: String,
}

/// A preset file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetFile {
    about: String,
    source: String,
    synthetic: SyntheticSpec,
}

/// All presets, by name.
///
/// # Errors
/// When a preset file is wrong, which is a defect of this program and named as such.
pub fn list() -> Result<Vec<PresetInfo>, WorkloadError> {
    let info = |name| {
        let PresetFile { about, source, .. } = read(name)?;
        Ok(PresetInfo { name, about: about.trim().into(), source: source.trim().into() })
    };
    names().into_iter().map(info).collect()
}

/// The workload of the preset `name`.
///
/// # Errors
/// When there is none of this name: the error tells the nearest one.
pub fn get(name: &str) -> Result<SyntheticSpec, WorkloadError> {
    match names().into_iter().find(|known| *known == name) {
        Some(known) => read(known).map(|file| file.synthetic),
        None => {
            let hint = suggestion(name, names().into_iter());
            Err(WorkloadError::Spec(format!("`{name}` is not a preset: {hint}")))
        }
    }
}

fn names() -> Vec<&'static str> {
    let stem = |path: &'static Path| path.file_stem()?.to_str();
    let mut names: Vec<_> = FILES.files().filter_map(|file| stem(file.path())).collect();
    names.sort_unstable();
    names
}

fn read(name: &str) -> Result<PresetFile, WorkloadError> {
    let text = FILES.get_file(format!("{name}.yaml")).and_then(|file| file.contents_utf8());
    serde_saphyr::from_str(text.unwrap_or_default())
        .map_err(|error| WorkloadError::Spec(format!("built-in preset {name} (please report this): {error}")))
}

#[cfg(test)]
mod tests {
    use forerun_sim::request::Labels;

    use super::*;
    use crate::record::{Record, Records, Start};

    /// What a sample of `count` requests of a preset shows.
    struct Sample {
        rate: f64,
        input: f64,
        output: f64,
        records: Vec<Record>,
    }

    fn sample(name: &str, count: usize) -> Sample {
        // No preset may read a file: its base is a directory that does not exist.
        let synthetic = get(name).unwrap().check(Path::new("/nonexistent")).unwrap();
        let mut generator = synthetic.records(1, None).unwrap();
        let mut labels = Labels::default();
        let records: Vec<Record> =
            (0..count).map(|_| generator.next(&mut labels).unwrap().unwrap()).collect();
        let mean = |of: fn(&Record) -> u32| {
            records.iter().map(|record| f64::from(of(record))).sum::<f64>() / count as f64
        };
        let last = records.iter().rev().find_map(|record| match record.start {
            Start::At(at) => Some(at.as_secs_f64()),
            Start::AfterPrevious(_) => None,
        });
        Sample {
            rate: count as f64 / last.unwrap(),
            input: mean(|record| record.prompt.tokens()),
            output: mean(|record| record.output_tokens),
            records,
        }
    }

    #[track_caller]
    fn near(what: &str, sampled: f64, recorded: f64, tolerance: f64) {
        let error = sampled / recorded - 1.0;
        assert!(
            error.abs() < tolerance,
            "{what}: {sampled:.3}, recorded {recorded} ({:+.1} %)",
            100.0 * error
        );
    }

    #[test]
    fn every_preset_reads_and_says_where_it_comes_from() {
        let presets = list().unwrap();
        assert!(presets.len() >= 6);
        for preset in presets {
            assert!(preset.about.len() > 40 && preset.source.len() > 20, "{preset:?}");
            assert!(sample(preset.name, 100).rate > 0.0);
        }
    }

    #[test]
    fn azure_conv_is_near_its_recording() {
        let sample = sample("azure-conv", 200_000);
        near("rate", sample.rate, 5.53, 0.05);
        near("input", sample.input, 1155.0, 0.02);
        near("output", sample.output, 211.0, 0.05);
    }

    #[test]
    fn azure_code_is_near_its_recording() {
        let sample = sample("azure-code", 400_000);
        near("rate", sample.rate, 2.566, 0.10);
        near("input", sample.input, 2048.0, 0.06);
        near("output", sample.output, 27.9, 0.06);
    }

    #[test]
    fn mooncake_conversation_is_near_its_recording() {
        let sample = sample("mooncake-conversation", 200_000);
        near("rate", sample.rate, 3.401, 0.03);
        near("output", sample.output, 343.0, 0.06);
        near("input", sample.input, 12_035.0, 0.15);
        let firsts = sample.records.iter().filter(|r| matches!(r.start, Start::At(_))).count();
        near("turns", sample.records.len() as f64 / firsts as f64, 1.42, 0.02);
    }

    #[test]
    fn deepseek_r1_is_near_its_fit() {
        let sample = sample("deepseek-r1-reasoning", 200_000);
        near("rate", sample.rate, 16.0, 0.03);
        near("output", sample.output, 1527.0, 0.15);
        near("input", sample.input, 1268.0, 0.25);
    }

    #[test]
    fn the_multi_tenant_profile_has_the_lengths_of_the_benchmark() {
        let sample = sample("multi-tenant-system-prompt", 1_000);
        assert!(sample.records.iter().all(|r| r.prompt.tokens() == 7_200 && r.output_tokens == 1_000));
    }

    #[test]
    fn an_unknown_preset_is_told_the_nearest() {
        let error = get("azure-cov").unwrap_err().to_string();
        assert_eq!(error, "`azure-cov` is not a preset: did you mean `azure-conv`?");
        let error = get("zzz").unwrap_err().to_string();
        assert!(error.contains("known are azure-code, azure-conv"), "{error}");
    }
}
