//! The catalog: GPUs and models by name, one data file each under `sim/catalog/`, every constant with its
//! source. A new GPU or model is one new file.

mod gpu;
mod hf_config;
mod model;
mod weights;

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};

pub use gpu::{AllReduce, DecodeAttention, Gemm, Gpu, Grade, Kernel, MixedBatchTiles, Price, TileOwner};
pub use model::{Attention, Experts, Model, ModelError, Shape, Window};
pub use weights::{WeightType, Weights};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/catalog");

static GPUS: LazyLock<Vec<Gpu>> = LazyLock::new(|| load("gpus"));
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| load("models"));

/// All GPUs, by name.
#[must_use]
pub fn gpus() -> &'static [Gpu] {
    &GPUS
}

/// All models, by name.
#[must_use]
pub fn models() -> &'static [Model] {
    &MODELS
}

/// The GPU of this name or alias, whatever its case.
#[must_use]
pub fn gpu(name: &str) -> Option<&'static Gpu> {
    GPUS.iter().find(|gpu| is_named(name, &gpu.name, &gpu.aliases))
}

/// The model of this name or alias, whatever its case.
#[must_use]
pub fn model(name: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| is_named(name, &model.name, &model.aliases))
}

fn is_named(name: &str, own: &str, aliases: &[String]) -> bool {
    own.eq_ignore_ascii_case(name) || aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
}

/// Parses every file of a folder. They are compiled in, so a mistake in one is a bug that a test finds.
fn load<T: serde::de::DeserializeOwned>(folder: &str) -> Vec<T> {
    let folder = FILES.get_dir(folder).expect("the catalog has this folder");
    let mut files: Vec<_> = folder.files().collect();
    files.sort_by_key(|file| file.path());
    let parse = |file: &&include_dir::File<'_>| {
        serde_json::from_slice(file.contents()).unwrap_or_else(|e| panic!("{}: {e}", file.path().display()))
    };
    files.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_loads_and_stays_physical() {
        assert!(gpus().len() >= 11 && models().len() >= 15);
        for gpu in gpus() {
            gpu.check().unwrap_or_else(|e| panic!("{}: {e}", gpu.name));
        }
    }

    #[test]
    fn names_and_aliases_are_unique_and_found_in_any_case() {
        let mut names: Vec<_> =
            gpus().iter().flat_map(|g| std::iter::once(&g.name).chain(&g.aliases)).collect();
        names.extend(models().iter().flat_map(|m| std::iter::once(&m.name).chain(&m.aliases)));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(gpu("H100").map(|g| g.name.as_str()), Some("h100-sxm"));
        assert_eq!(model("qwen/qwen3-14b").map(|m| m.name.as_str()), Some("Qwen/Qwen3-14B"));
    }
}
