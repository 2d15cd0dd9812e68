//! The `router:` of a scenario: a policy by name, or llm-d's endpoint picker from its own file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use forerun_policies::epp::config::{Config, LoadOptions, Upstream};
use forerun_policies::epp::{EppRouter, Options};
use forerun_policies::{PRESETS, Preset};
use forerun_sim::router::Router;

use crate::error::{InputError, hint};
use crate::scenario::{RouterSpec, UpstreamSpec};

/// Largest file that is read: real ones have a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The routing policy of a run.
#[derive(Clone, Debug)]
pub enum Routing {
    /// One of the catalog.
    Preset(Preset),
    /// An endpoint picker.
    EndpointPicker {
        /// The path as the scenario has it.
        path: String,
        /// What it says.
        config: Arc<Config>,
    },
}

impl Routing {
    /// The policy that `spec` names; paths start from `base`.
    ///
    /// # Errors
    /// When there is none of that name, or the file is wrong or asks for what is not simulated.
    pub fn of(spec: Option<&RouterSpec>, base: &Path) -> Result<Self, InputError> {
        let default = RouterSpec::default();
        let spec = spec.unwrap_or(&default);
        match (&spec.preset, &spec.epp) {
            (Some(_), Some(_)) => Err(InputError::new(
                "`router` has both `preset` and `epp`: they exclude each other; keep one",
            )),
            (preset, None) => preset_of(preset.as_deref().unwrap_or("round-robin")),
            (None, Some(path)) => {
                let config = load(&base.join(path), spec)?;
                Ok(Self::EndpointPicker { path: path.clone(), config: Arc::new(config) })
            }
        }
    }

    /// What a reader calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Preset(preset) => preset.name,
            Self::EndpointPicker { path, .. } => path,
        }
    }

    /// What was read otherwise than it was written, or left out.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Preset(_) => &[],
            Self::EndpointPicker { config, .. } => &config.warnings,
        }
    }

    /// A router of this policy, for a fleet in which some replicas only prefill if it `is_disaggregated`. Random
    /// choices come from a stream of their own: they never move the arrivals.
    #[must_use]
    pub fn router(&self, seed: u64, is_disaggregated: bool) -> Box<dyn Router> {
        match self {
            Self::Preset(preset) if is_disaggregated => preset.disaggregated_router(seed),
            Self::Preset(preset) => preset.router(seed),
            Self::EndpointPicker { config, .. } => Box::new(picker(config, seed)),
        }
    }

    /// The policy as an endpoint picker, if it is one.
    #[must_use]
    pub fn endpoint_picker(&self, seed: u64) -> Option<EppRouter> {
        match self {
            Self::Preset(preset) => preset.endpoint_picker(seed),
            Self::EndpointPicker { config, .. } => Some(picker(config, seed)),
        }
    }
}

fn picker(config: &Arc<Config>, seed: u64) -> EppRouter {
    let options = Options { seed, ..Options::default() };
    EppRouter::new(config.clone(), options).expect("it was made when it was read")
}

fn preset_of(name: &str) -> Result<Routing, InputError> {
    Preset::find(name).map(Routing::Preset).ok_or_else(|| {
        let known = PRESETS.map(|preset| preset.name);
        InputError::new(format!(
            "`router.preset: {name}` is not a policy of this version{}; known: {}; an EndpointPickerConfig is named by `router.epp`",
            hint(name, known),
            known.join(", ")
        ))
    })
}

/// Reads an EndpointPickerConfig, and makes sure that it can be simulated.
pub(crate) fn load(path: &Path, spec: &RouterSpec) -> Result<Config, InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
    let size = fs::metadata(path).map_err(|e| wrong(format!("cannot be read: {e}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("has {size} bytes: an EndpointPickerConfig has at most 1 MiB")));
    }
    let text = fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let options = LoadOptions {
        upstream: match spec.upstream {
            Some(UpstreamSpec::Lenient) => Upstream::Lenient,
            Some(UpstreamSpec::V0_10) | None => Upstream::V0_10,
        },
        allow_unsimulated: spec.allow_unsimulated.unwrap_or(false),
        allow_experimental: spec.allow_experimental.unwrap_or(false),
    };
    let config = Config::load(&text, options).map_err(|e| wrong(e.to_string()))?;
    EppRouter::new(Arc::new(config.clone()), Options::default()).map_err(wrong)?;
    Ok(config)
}
