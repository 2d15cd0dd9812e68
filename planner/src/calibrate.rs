//! Making the cost model true: profiles from measured tables.

use std::io::Write as _;
use std::path::Path;

use forerun_profiles::import::{Options, import as import_tables};
use forerun_profiles::profile::Profile;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::InputError;
use crate::hardware::{find_gpu, find_model, kv_element_bytes};
use crate::output::OutputFile;
use crate::scenario::{Dtype, KvCacheDtype};

/// What a folder of tables does not say itself, in the words of a scenario.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Use `skew_fit` even where `meta.yaml` says that it is of another run.
    pub foreign_skew: bool,
    /// The GPU, a name of the catalog.
    pub gpu: Option<String>,
    /// The model, a name of the catalog or the path of a config.json.
    pub model: Option<String>,
    /// Type of the model's weights.
    pub dtype: Option<String>,
    /// Type of the KV cache.
    pub kv_cache_dtype: Option<String>,
    /// GPUs that the model is split over.
    pub tensor_parallel: Option<u32>,
}

/// A value of the scenario's field of this name.
fn field<T: DeserializeOwned>(name: &str, value: Option<&String>) -> Result<Option<T>, InputError> {
    let read = |text: &String| {
        serde_json::from_value(json!(text)).map_err(|e| InputError::new(format!("`{name}: {text}`: {e}")))
    };
    value.map(read).transpose()
}

/// Makes a profile of the tables in `folder` and writes it to `output`, compressed if that is called `.gz` or `.zst`.
///
/// # Errors
/// When the folder has no usable tables, or the file cannot be written.
pub fn import(folder: &Path, output: &Path, options: &ImportOptions) -> Result<Profile, InputError> {
    let gpu = options.gpu.as_deref().map(find_gpu).transpose()?;
    let dtype = field::<Dtype>("dtype", options.dtype.as_ref())?;
    let model = match &options.model {
        Some(name) => Some(find_model(name, Path::new("."), dtype)?),
        None => None,
    };
    let cache = field::<KvCacheDtype>("kv_cache_dtype", options.kv_cache_dtype.as_ref())?;
    let options = Options {
        foreign_skew: options.foreign_skew,
        gpu,
        model: model.as_ref(),
        tensor_parallel: options.tensor_parallel,
        kv_element_bytes: cache.map(|cache| kv_element_bytes(Some(cache))),
    };
    let profile = import_tables(folder, &options).map_err(|e| InputError::new(e.to_string()))?;
    let wrong = |e: std::io::Error| InputError::new(format!("{}: cannot be written: {e}", output.display()));
    let json = profile.to_json().into_bytes();
    let bytes = match output.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(&json).and_then(|()| writer.finish()).map_err(wrong)?
        }
        Some("zst") => zstd::encode_all(json.as_slice(), 0).map_err(wrong)?,
        _ => json,
    };
    let mut file = OutputFile::create(output)?;
    file.write_all(&bytes).map_err(wrong)?;
    file.finish()?;
    Ok(profile)
}

/// What a profile has, in words.
#[must_use]
pub fn about(profile: &Profile) -> Vec<String> {
    let mut about = vec![format!(
        "{} on {} TP {} ({}), {} kernels; {}",
        profile.model,
        profile.gpu,
        profile.tensor_parallel,
        profile.engine,
        profile.per_layer.len() + profile.per_step.len() + profile.per_sequence.len(),
        profile.source,
    )];
    about.extend(profile.notes.clone());
    about
}
