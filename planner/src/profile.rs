//! Profiles, of measured kernels or of a live server: read from files, turned into the cost model of a pool.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use forerun_profiles::profile::{MEASURED_HERE, Profile};
use forerun_reports::summary::Uncertainty;
use forerun_sim::catalog::{self, Gpu, Grade};
use forerun_sim::cost::scaled::Scaled;
use forerun_sim::cost::tables::{Limits, TableCost};
use forerun_sim::cost::{CostModel, StepShape};
use forerun_sim::time::Span;
use serde::Deserialize;

use crate::assemble::Hardware;
use crate::error::InputError;
use crate::scenario::StepTimeSpec;
use crate::served::constants::Constants;
use crate::served::profile::ServedProfile;
use crate::served::trust;
use crate::validate::StepTimes;

/// Bytes that a profile may have, uncompressed.
const BYTES_MAX: u64 = 256 << 20;

/// A step that takes longer is a mistake, and could leave simulated time.
const STEP_MAX: Span = Span::from_secs(3600);

/// The cost model of a pool.
#[derive(Clone)]
pub(crate) struct StepCost {
    pub(crate) cost: Arc<dyn CostModel>,
    /// How far to trust it, in words.
    pub(crate) trust: String,
    /// The same in a word.
    pub(crate) grade: String,
    /// Where it comes from.
    pub(crate) source: String,
    /// What a reader should know before trusting the figures.
    pub(crate) warnings: Vec<String>,
    /// How far figures were off where servers were measured.
    pub(crate) uncertainty: Option<Uncertainty>,
}

/// Factors beyond these are mistakes.
const FACTORS: std::ops::RangeInclusive<f64> = 0.01..=100.0;

impl StepCost {
    /// The same with the scenario's factors on the GPU's times.
    ///
    /// # Errors
    /// When a factor is out of range.
    pub(crate) fn scaled(self, spec: StepTimeSpec) -> Result<Self, InputError> {
        let (decode, prefill) = (spec.decode.unwrap_or(1.0), spec.prefill.unwrap_or(1.0));
        for (name, factor) in [("decode", decode), ("prefill", prefill)] {
            if !FACTORS.contains(&factor) {
                return Err(InputError::new(format!(
                    "`step_time.{name}` is {factor}: a factor on step times is from {} to {}",
                    FACTORS.start(),
                    FACTORS.end()
                )));
            }
        }
        if spec == StepTimeSpec::default() {
            return Ok(self);
        }
        let trust = format!("{}; scaled by hand: decode x{decode}, prefill x{prefill}", self.trust);
        // What was measured does not hold for factors by hand.
        let cost = Arc::new(Scaled::new(self.cost, decode, prefill));
        Ok(Self { cost, trust, uncertainty: None, ..self })
    }
}

/// Devices of profiles that the catalog does not have, each once: they live as long as the catalog's.
static DEVICES: Mutex<Vec<&'static Gpu>> = Mutex::new(Vec::new());

/// The GPU that the profile at `path` was measured on, when it describes one, and `name` (if given) is its name; that of a
/// live server's profile when no name is given.
///
/// # Errors
/// When the file is no profile, or what it describes is no GPU.
pub(crate) fn device(path: &Path, name: Option<&str>) -> Result<Option<&'static Gpu>, InputError> {
    let wrong = |why: String| InputError::new(format!("profile {}: {why}", path.display()));
    let bytes = read(path).map_err(wrong)?;
    if let Some(served) = served(&bytes).map_err(wrong)? {
        return Ok(catalog::gpu(&served.gpu).filter(|_| name.is_none()));
    }
    let Some(device) = Profile::parse(&bytes).map_err(wrong)?.device else { return Ok(None) };
    if name.is_some_and(|name| !device.name.eq_ignore_ascii_case(name)) {
        return Ok(None);
    }
    if let Some(known) = catalog::gpu(&device.name) {
        return Ok(Some(known));
    }
    device.check().map_err(|why| wrong(format!("`device`: {why}")))?;
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = devices.iter().find(|known| ***known == device) {
        return Ok(Some(known));
    }
    let device: &'static Gpu = Box::leak(Box::new(device));
    devices.push(device);
    Ok(Some(device))
}

/// A profile as it was read: of this GPU, model and split.
pub(crate) enum ReadProfile {
    /// Kernel tables.
    Tables { path: PathBuf },
    /// Constants of the closed forms, fitted to a live server.
    Served { constants: Constants, source: String, uncertainty: Uncertainty },
}

impl ReadProfile {
    /// The profile at `path`, whichever kind it is.
    ///
    /// # Errors
    /// When it is none, or one of other hardware.
    pub(crate) fn open(path: &Path, hardware: &Hardware) -> Result<Self, InputError> {
        let wrong = |why: String| InputError::new(format!("profile {}: {why}", path.display()));
        let bytes = read(path).map_err(wrong)?;
        let Some(served) = served(&bytes).map_err(wrong)? else {
            return Ok(Self::Tables { path: path.to_owned() });
        };
        let Hardware { gpu, model, tensor_parallel, .. } = hardware;
        let constants = served.check(&hardware.placed(), gpu, model, *tensor_parallel).map_err(wrong)?;
        let source = format!("{}, fitted to {}", path.display(), served.source);
        Ok(Self::Served { constants, source, uncertainty: served.uncertainty() })
    }
}

/// The profile of a live server, if the text is one.
fn served(bytes: &[u8]) -> Result<Option<ServedProfile>, String> {
    #[derive(Deserialize)]
    struct Kind {
        schema: Option<String>,
    }
    let kind = serde_json::from_slice::<Kind>(bytes).ok().and_then(|kind| kind.schema);
    if kind.is_none_or(|kind| !kind.starts_with("forerun-served/")) {
        return Ok(None);
    }
    serde_json::from_slice(bytes).map(Some).map_err(|e| format!("is not a profile: {e}"))
}

/// The cost model that closed forms with the fitted constants of `gpu` give a pool.
///
/// # Errors
/// When the closed forms have no figures for the split.
pub(crate) fn served_cost(
    source: &str,
    uncertainty: &Uncertainty,
    hardware: &Hardware,
    gpu: &Gpu,
    limits: &Limits,
) -> Result<StepCost, InputError> {
    Ok(StepCost {
        cost: Arc::new(hardware.closed_form_of(gpu, limits)?),
        trust: format!("step times: closed forms fitted to a live server on {}", gpu.name),
        grade: MEASURED_HERE.to_owned(),
        source: format!("closed forms; {source}"),
        warnings: Vec::new(),
        uncertainty: Some(uncertainty.clone()),
    })
}

/// The cost model that the profile at `path` gives this hardware.
///
/// # Errors
/// When the file is no profile, or one of another GPU, model, split or type.
pub(crate) fn cost(path: &Path, hardware: &Hardware, limits: &Limits) -> Result<StepCost, InputError> {
    let Tables { profile, cost, beyond } = tables(path, hardware, limits)?;
    Ok(StepCost {
        warnings: beyond,
        grade: grade(&profile),
        source: format!("{} ({}), measured under {}", path.display(), profile.grade, profile.engine),
        trust: format!(
            "step times: {}, {}, {} on {} TP {}",
            profile.grade, profile.engine, profile.model, profile.gpu, profile.tensor_parallel
        ),
        uncertainty: trust::uncertainty(hardware.gpu, &hardware.model, StepTimes::Tables.title()),
        cost: Arc::new(cost),
    })
}

/// How far to trust a profile, in a word or two.
pub(crate) fn grade(profile: &Profile) -> String {
    if profile.grade == MEASURED_HERE { profile.grade.clone() } else { Grade::Tables.to_string() }
}

/// A profile as the cost model of a pool.
pub(crate) struct Tables {
    pub(crate) profile: Profile,
    pub(crate) cost: TableCost,
    /// Where the engine may go beyond what was measured.
    pub(crate) beyond: Vec<String>,
}

/// The tables of the profile at `path`.
///
/// # Errors
/// As [`cost`].
pub(crate) fn tables(path: &Path, hardware: &Hardware, limits: &Limits) -> Result<Tables, InputError> {
    let Hardware { gpu, model, tensor_parallel, kv_element_bytes, .. } = hardware;
    let wrong = |why: String| InputError::new(format!("profile {}: {why}", path.display()));
    let profile = Profile::parse(&read(path).map_err(wrong)?).map_err(wrong)?;
    profile.check_types(model, *kv_element_bytes).map_err(wrong)?;
    let kernels = profile.kernels(gpu, model, *tensor_parallel).map_err(wrong)?;
    let beyond =
        kernels.beyond(limits).iter().map(|beyond| format!("profile of {}: {beyond}", profile.gpu)).collect();
    let cost = TableCost::new(kernels, limits);
    let longest = cost.step(&largest(limits)).gpu;
    if longest > STEP_MAX {
        let why = "its times, or the engine's limits, are mistaken";
        return Err(wrong(format!("the largest step would take {:.0} s: {why}", longest.as_secs_f64())));
    }
    Ok(Tables { profile, cost, beyond })
}

/// A step that no step of this engine exceeds.
fn largest(limits: &Limits) -> StepShape {
    let (tokens, length) = (limits.max_num_batched_tokens, u64::from(limits.max_model_len));
    StepShape {
        prefills: 1,
        prefill_tokens: tokens.saturating_sub(limits.max_num_seqs),
        prefill_pairs: u64::from(tokens) * length,
        prefill_context: length,
        prefill_longest: tokens,
        decodes: limits.max_num_seqs,
        decode_context: u64::from(limits.max_num_seqs) * length,
        decode_longest: length,
        sampled: limits.max_num_seqs,
        guesses: 0,
    }
}

/// The bytes of a file, uncompressed if it is gzip or Zstandard.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let said = |e: std::io::Error| e.to_string();
    let file = File::open(path).map_err(said)?;
    if file.metadata().map_err(said)?.is_dir() {
        return Err("is a folder: `forerun calibrate import` makes a profile of it".into());
    }
    let input: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => Box::new(MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).map_err(said)?),
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    input.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(said)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("has more than {} MiB: a profile has at most so many", BYTES_MAX >> 20));
    }
    Ok(bytes)
}
