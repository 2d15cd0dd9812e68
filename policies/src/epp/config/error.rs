//! Why a configuration does not load.

use std::fmt;

/// The step of the real loader that refuses a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The YAML, its version and its fields.
    Decode,
    /// `featureGates`.
    FeatureGates,
    /// Types and names of plugins, and references to them.
    Validation,
    /// Parameters of a plugin.
    Instantiation,
    /// Profiles, pickers and the profile handler.
    Scheduler,
    /// Data that a plugin reads and nobody publishes.
    DataProducers,
    /// Plugins that need `--allow-experimental-plugins`.
    Stability,
    /// What the real router would run and the simulator does not.
    Simulation,
}

impl Stage {
    /// The words that the real loader puts in front of its reason.
    #[must_use]
    pub fn upstream_words(self) -> &'static str {
        match self {
            Self::Decode => "failed to decode configuration JSON/YAML",
            Self::FeatureGates => "feature gate validation failed",
            Self::Validation => "configuration validation failed",
            Self::Instantiation => "plugin instantiation failed",
            Self::Scheduler => "scheduler config build failed",
            Self::DataProducers => "failed to create missing data producers",
            Self::Stability => "plugin stability validation failed",
            Self::Simulation => "not simulated",
        }
    }
}

/// A configuration is refused: one line that says where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The step that refuses it.
    pub stage: Stage,
    /// The line of the file, from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong, and where the mend is not plain, the mend.
    pub reason: String,
}

impl LoadError {
    pub(super) fn new(stage: Stage, line: Option<u32>, reason: impl Into<String>) -> Self {
        Self { stage, line, reason: reason.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.stage.upstream_words(), self.reason)
    }
}

impl std::error::Error for LoadError {}
