//! `EndpointPickerConfig`: reading, checking and completing it as the real loader does.

pub mod catalog;
mod data;
mod envelope;
mod error;
mod flow;
mod lenient;
mod load;
#[cfg(test)]
mod tests;

pub use error::{LoadError, Stage};
pub use flow::{Band, FlowControl};

use serde_json::Value;

/// Which files are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// Those that llm-d-router 0.10 accepts (main at ebab6879, 2026-08-22).
    #[default]
    V0_10,
    /// Also other versions' `apiVersion`s and names, each with a warning.
    Lenient,
}

/// How a configuration is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Which files are accepted.
    pub upstream: Upstream,
    /// Whether plugins that the simulator does not have are left out with a warning instead of refused.
    pub allow_unsimulated: bool,
    /// The router's `--allow-experimental-plugins`.
    pub allow_experimental: bool,
}

/// A configuration that loads: every plugin that upstream would run, its own defaults included.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// All plugins, those that upstream creates by itself included.
    pub plugins: Vec<Plugin>,
    /// Name of the profile handler.
    pub handler: String,
    /// Scheduling profiles, in the order of the file.
    pub profiles: Vec<Profile>,
    /// Flow control, off unless its feature gate is on.
    pub flow_control: FlowControl,
    /// What was read otherwise than it was written, or left out.
    pub warnings: Vec<String>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// What others call it.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its parameters; null when there are none.
    pub parameters: Value,
    /// Where the file names it; `None` when upstream creates it by itself.
    pub line: Option<u32>,
}

/// One scheduling profile: names of plugins by what they do in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Filters, in the order in which they run.
    pub filters: Vec<String>,
    /// Scorers with their weights, in the order in which they run.
    pub scorers: Vec<(String, f64)>,
    /// The picker.
    pub picker: String,
}

impl Config {
    /// The plugin of this name.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.name == name)
    }
}

impl Plugin {
    /// A plugin that upstream creates by itself, named as its type.
    pub(super) fn created(kind: &str) -> Self {
        Self { name: kind.to_owned(), kind: kind.to_owned(), parameters: Value::Null, line: None }
    }

    /// An error about this plugin, with its place.
    pub(super) fn wrong(&self, reason: &str) -> String {
        let place = self.line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{place}plugin '{}' (type: {}): {reason}", self.name, self.kind)
    }
}
