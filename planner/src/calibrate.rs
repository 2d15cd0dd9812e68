//! Making the cost model true: profiles from measured tables.

use std::io::Write as _;
use std::path::Path;

pub use forerun_profiles::import::Options as ImportOptions;
use forerun_profiles::import::import as import_tables;
use forerun_profiles::profile::Profile;

use crate::error::InputError;
use crate::output::OutputFile;

/// Makes a profile of the tables in `folder` and writes it to `output`, compressed if that is called `.gz` or `.zst`.
///
/// # Errors
/// When the folder has no usable tables, or the file cannot be written.
pub fn import(folder: &Path, output: &Path, options: &ImportOptions) -> Result<Profile, InputError> {
    let profile = import_tables(folder, options).map_err(|e| InputError::new(e.to_string()))?;
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
