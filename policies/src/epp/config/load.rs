//! The loader: the steps of the real one, in its order. Source: llm-d-router pkg/epp/config/loader, and its recordings.

use super::catalog::{self, Role};
use super::data::create_missing;
use super::envelope::{DataLayer, Envelope, PluginSpec, ProfileSpec, decode, normalized};
use super::error::{LoadError, Stage};
use super::flow::{DEFAULT_DETECTOR, DEFAULT_FAIRNESS, DEFAULT_ORDERING, DEFAULT_USAGE_LIMIT, FlowControl};
use super::lenient::{translate_plugins, translate_version};
use super::{Config, LoadOptions, Plugin, Profile, Upstream};
use crate::epp::handlers::Disaggregation;
use crate::epp::scheduler;

/// Versions that this version of the router knows; the second one is deprecated.
const VERSIONS: [&str; 2] = ["llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1"];

/// Feature gates and their defaults.
const FEATURE_GATES: [(&str, bool); 2] = [("flowControl", false), ("haPopulateNonLeaderDatastore", true)];

/// What upstream runs without a file.
const DEFAULT_CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}]
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
";

/// The parsers that are created without a `requestHandler`.
const PARSERS: [&str; 4] = ["openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"];

impl Config {
    /// Reads an `EndpointPickerConfig`; an empty text is upstream's default configuration.
    ///
    /// # Errors
    /// When the real loader would refuse it, or it asks for what the simulator does not have.
    pub fn load(text: &str, options: LoadOptions) -> Result<Self, LoadError> {
        let mut envelope = decode(if text.trim().is_empty() { DEFAULT_CONFIG } else { text })?;
        let mut config = Self::default();
        if options.upstream == Upstream::Lenient {
            config.warnings.extend(translate_version(&mut envelope));
        }
        check_version(&envelope)?;
        let flow_gate = feature_gate(&envelope, "flowControl")?;
        config.plugins = std::mem::take(&mut envelope.plugins).into_iter().map(plugin).collect();
        if options.upstream == Upstream::Lenient {
            config.warnings.extend(translate_plugins(&mut config.plugins));
        }
        check_plugins(&config.plugins)?;
        check_parameters(&config.plugins)?;
        let mut profiles: Vec<_> = std::mem::take(&mut envelope.scheduling_profiles)
            .unwrap_or_default()
            .into_iter()
            .map(|spec| (Some(spec.referenced.line() as u32), spec.value))
            .collect();
        config.complete(&envelope, &mut profiles, flow_gate)?;
        config.check_references(&profiles)?;
        config.build_profiles(&profiles)?;
        create_missing(&mut config.plugins)?;
        config.check_stability(options)?;
        config.check_simulated(options)?;
        config.split_precise_scorers();
        Ok(config)
    }

    /// What upstream adds by itself before it builds anything.
    fn complete(
        &mut self,
        envelope: &Envelope,
        profiles: &mut Vec<(Option<u32>, ProfileSpec)>,
        flow_gate: bool,
    ) -> Result<(), LoadError> {
        if profiles.is_empty() {
            // Upstream's order of plugins is random here; the file's is as good as any.
            let in_profile = |plugin: &&Plugin| !matches!(role(&plugin.kind), Role::Handler | Role::Other);
            let plugins = self.plugins.iter().filter(in_profile).map(|plugin| weighted(&plugin.name));
            profiles.push((None, ProfileSpec { name: "default".to_owned(), plugins: plugins.collect() }));
        }
        if profiles.len() == 1 && !self.plugins.iter().any(|plugin| role(&plugin.kind) == Role::Handler) {
            self.plugins.push(Plugin::created("single-profile-handler"));
        }
        let is_picker = |plugin: &&Plugin| role(&plugin.kind) == Role::Picker;
        let picker = match self.plugins.iter().find(is_picker) {
            Some(plugin) => plugin.name.clone(),
            None => {
                self.plugins.push(Plugin::created("max-score-picker"));
                "max-score-picker".to_owned()
            }
        };
        for (_, profile) in profiles {
            let picks =
                |name: &str| self.plugin(name).is_some_and(|plugin| role(&plugin.kind) == Role::Picker);
            if !profile.plugins.iter().any(|entry| picks(&entry.plugin_ref)) {
                profile.plugins.push(weighted(&picker));
            }
        }
        for name in [DEFAULT_ORDERING, DEFAULT_FAIRNESS, DEFAULT_USAGE_LIMIT] {
            self.ensure(name);
        }
        let parsers = envelope.request_handler.as_ref().and_then(|handler| handler.parsers.as_ref());
        if parsers.is_none_or(Vec::is_empty) && envelope.parser.is_none() {
            PARSERS.iter().for_each(|parser| self.ensure(parser));
        }
        self.flow_control =
            FlowControl::new(envelope.flow_control.as_ref().unwrap_or(&Default::default()), flow_gate)?;
        let configured = envelope.flow_control.as_ref().and_then(|flow| flow.saturation_detector.as_ref());
        if let (None, Some(deprecated)) = (configured, &envelope.saturation_detector)
            && !deprecated.plugin_ref.is_empty()
        {
            self.flow_control.saturation_detector.clone_from(&deprecated.plugin_ref);
        }
        if self.flow_control.saturation_detector == DEFAULT_DETECTOR {
            self.ensure(DEFAULT_DETECTOR);
        }
        if injects_metrics(envelope.data_layer.as_ref()) {
            self.ensure("metrics-data-source");
            self.ensure("core-metrics-extractor");
        }
        Ok(())
    }

    fn ensure(&mut self, kind: &str) {
        if self.plugin(kind).is_none() {
            self.plugins.push(Plugin::created(kind));
        }
    }

    fn check_references(&self, profiles: &[(Option<u32>, ProfileSpec)]) -> Result<(), LoadError> {
        let wrong = |line, reason: String| {
            Err(LoadError::new(
                Stage::Validation,
                line,
                format!("scheduling profile validation failed: {reason}"),
            ))
        };
        for (place, (line, profile)) in profiles.iter().enumerate() {
            let name = &profile.name;
            if name.is_empty() {
                return wrong(*line, format!("schedulingProfiles[{place}] is missing a name"));
            }
            if profiles[..place].iter().any(|(_, earlier)| earlier.name == *name) {
                return wrong(*line, format!("schedulingProfiles[{place}] has duplicate name '{name}'"));
            }
            for (entry, plugin) in profile.plugins.iter().enumerate() {
                if plugin.plugin_ref.is_empty() {
                    let reason =
                        format!("schedulingProfiles[{name}].plugins[{entry}] is missing a 'pluginRef'");
                    return wrong(*line, reason);
                }
                if self.plugin(&plugin.plugin_ref).is_none() {
                    let missing = &plugin.plugin_ref;
                    return wrong(
                        *line,
                        format!("schedulingProfiles[{name}] references undefined plugin '{missing}'"),
                    );
                }
            }
        }
        // The detector guards admission with and without flow control; the rest only works with it.
        let flow = &self.flow_control;
        let detector = ("saturationDetector".to_owned(), flow.saturation_detector.as_str());
        let references = if flow.enabled { flow.references() } else { vec![detector] };
        for (place, name) in references {
            if self.plugin(name).is_none() {
                let reason = format!("flowControl: {place} references undefined plugin '{name}'");
                return Err(LoadError::new(Stage::Validation, None, reason));
            }
        }
        Ok(())
    }

    fn build_profiles(&mut self, specs: &[(Option<u32>, ProfileSpec)]) -> Result<(), LoadError> {
        for (line, spec) in specs {
            let mut profile = Profile { name: spec.name.clone(), ..Profile::default() };
            for entry in &spec.plugins {
                let name = entry.plugin_ref.clone();
                let Some(plugin) = self.plugin(&name) else { continue };
                let weight = entry.weight.unwrap_or(1.0);
                match role(&plugin.kind) {
                    Role::Filter => profile.filters.push(name),
                    Role::Scorer => profile.scorers.push((name, weight)),
                    Role::FilterScorer => {
                        profile.filters.push(name.clone());
                        profile.scorers.push((name, weight));
                    }
                    Role::Picker if profile.picker.is_empty() => profile.picker = name,
                    Role::Picker => {
                        let reason = format!(
                            "failed to add plugin '{name}' to profile '{}': failed to set '{name}/{}' as picker, \
                             already have a registered picker plugin '{}'",
                            spec.name, plugin.kind, profile.picker
                        );
                        return Err(LoadError::new(Stage::Scheduler, *line, reason));
                    }
                    // Upstream takes note of request hooks of such plugins; a profile does nothing with them.
                    Role::Handler | Role::Other => {}
                }
            }
            self.profiles.push(profile);
        }
        let handlers: Vec<_> =
            self.plugins.iter().filter(|plugin| role(&plugin.kind) == Role::Handler).collect();
        let wrong = |line, reason: String| Err(LoadError::new(Stage::Scheduler, line, reason));
        let handler = match handlers.as_slice() {
            [] => return wrong(None, "no profile handler configured".to_owned()),
            [handler] => *handler,
            [first, second, ..] => {
                return wrong(
                    second.line,
                    format!(
                        "multiple profile handlers found ('{}', '{}'); only one is allowed",
                        first.name, second.name
                    ),
                );
            }
        };
        if handler.kind == "single-profile-handler" && self.profiles.len() > 1 {
            let reason = "SingleProfileHandler cannot support multiple scheduling profiles";
            return wrong(handler.line, reason.to_owned());
        }
        self.handler.clone_from(&handler.name);
        Ok(())
    }

    fn check_stability(&self, options: LoadOptions) -> Result<(), LoadError> {
        let is_alpha = |plugin: &&Plugin| catalog::find(&plugin.kind).is_some_and(|entry| entry.alpha);
        match self.plugins.iter().find(is_alpha) {
            Some(plugin) if !options.allow_experimental => Err(LoadError::new(
                Stage::Stability,
                plugin.line,
                format!(
                    "plugin '{}' (type: '{}') has Alpha stability level, but command line flag \
                     --allow-experimental-plugins is not set",
                    plugin.name, plugin.kind
                ),
            )),
            _ => Ok(()),
        }
    }

    fn check_simulated(&mut self, options: LoadOptions) -> Result<(), LoadError> {
        for plugin in &self.plugins {
            if catalog::find(&plugin.kind).is_some_and(|entry| entry.simulated) {
                continue;
            }
            let reason = format!("plugin '{}' (type: {})", plugin.name, plugin.kind);
            if !options.allow_unsimulated || plugin.name == self.handler {
                return Err(LoadError::new(Stage::Simulation, plugin.line, reason));
            }
            self.warnings.push(format!("not simulated, and left out: {reason}"));
        }
        let unsimulated = |name: &String| {
            let kind = self.plugins.iter().find(|plugin| plugin.name == *name).map(|plugin| &plugin.kind);
            kind.and_then(|kind| catalog::find(kind)).is_none_or(|entry| !entry.simulated)
        };
        for profile in &mut self.profiles {
            profile.filters.retain(|name| !unsimulated(name));
            profile.scorers.retain(|(name, _)| !unsimulated(name));
        }
        Ok(())
    }

    /// `precise-prefix-cache-scorer` is a precise producer and a prefix scorer that reads it.
    fn split_precise_scorers(&mut self) {
        let is_precise = |plugin: &&Plugin| plugin.kind == "precise-prefix-cache-scorer";
        let precise: Vec<_> =
            self.plugins.iter().filter(is_precise).map(|plugin| plugin.name.clone()).collect();
        for name in precise {
            let scorer = format!("{name}/prefix-cache-scorer");
            for profile in &mut self.profiles {
                let entries = profile.scorers.iter_mut().filter(|(entry, _)| *entry == name);
                entries.for_each(|(entry, _)| entry.clone_from(&scorer));
            }
            let mut plugin = Plugin::created("prefix-cache-scorer");
            plugin.name = scorer;
            plugin.parameters = serde_json::json!({"prefixMatchInfoProducerName": name});
            self.plugins.push(plugin);
        }
    }
}

fn weighted(name: &str) -> super::envelope::Weighted {
    super::envelope::Weighted { plugin_ref: name.to_owned(), weight: None }
}

fn role(kind: &str) -> Role {
    catalog::find(kind).map_or(Role::Other, |entry| entry.role)
}

fn plugin(spec: serde_saphyr::Spanned<PluginSpec>) -> Plugin {
    let line = Some(spec.referenced.line() as u32);
    let PluginSpec { name, r#type: kind, parameters } = spec.value;
    let name = if name.is_empty() { kind.clone() } else { name };
    Plugin { name, kind, parameters: normalized(parameters), line }
}

fn check_version(envelope: &Envelope) -> Result<(), LoadError> {
    let Envelope { api_version, kind, .. } = envelope;
    if VERSIONS.contains(&api_version.as_str()) && kind == "EndpointPickerConfig" {
        return Ok(());
    }
    let reason = format!("no kind \"{kind}\" is registered for version \"{api_version}\"");
    Err(LoadError::new(Stage::Decode, None, reason))
}

/// Whether a feature gate is on; all gates are checked.
fn feature_gate(envelope: &Envelope, wanted: &str) -> Result<bool, LoadError> {
    let default = FEATURE_GATES.iter().find(|(name, _)| *name == wanted);
    let mut on = default.is_some_and(|&(_, default)| default);
    for gate in envelope.feature_gates.iter().flatten() {
        let (name, value) = gate.split_once('=').unwrap_or((gate, "true"));
        let wrong = |reason| Err(LoadError::new(Stage::FeatureGates, None, reason));
        if !FEATURE_GATES.iter().any(|(known, _)| *known == name) {
            return wrong(format!("feature gate '{name}' is unknown or unregistered"));
        }
        // What Go's ParseBool accepts.
        let value = match value.trim().to_lowercase().as_str() {
            "1" | "t" | "true" => true,
            "0" | "f" | "false" => false,
            other => return wrong(format!("feature gate '{name}' must be true or false, got '{other}'")),
        };
        if name == wanted {
            on = value;
        }
    }
    Ok(on)
}

fn check_plugins(plugins: &[Plugin]) -> Result<(), LoadError> {
    for (place, plugin) in plugins.iter().enumerate() {
        let wrong = |reason| Err(LoadError::new(Stage::Validation, plugin.line, reason));
        if plugin.kind.is_empty() {
            return wrong(format!("plugins[{place}] is missing a type"));
        }
        if catalog::find(&plugin.kind).is_none() {
            return wrong(format!("plugin type '{}' is not registered{}", plugin.kind, hint(&plugin.kind)));
        }
        if plugins[..place].iter().any(|earlier| earlier.name == plugin.name) {
            return wrong(format!("duplicate plugin name '{}'", plugin.name));
        }
    }
    Ok(())
}

fn hint(kind: &str) -> String {
    let nearest = catalog::CATALOG
        .iter()
        .map(|entry| (strsim::damerau_levenshtein(kind, entry.kind), entry.kind))
        .min_by_key(|&(distance, _)| distance);
    match nearest {
        Some((distance, known)) if distance <= 3 => format!("; did you mean '{known}'?"),
        _ if kind == "kv-cache-scorer" => "; it is now 'kv-cache-utilization-scorer'".to_owned(),
        _ => String::new(),
    }
}

fn check_parameters(plugins: &[Plugin]) -> Result<(), LoadError> {
    for plugin in plugins {
        let checked = match plugin.kind.as_str() {
            "disagg-profile-handler" => Disaggregation::new(&plugin.parameters).map(Some),
            kind => scheduler::check(kind, &plugin.parameters).map(|()| None),
        };
        let handler = checked.map_err(|reason| {
            let reason =
                format!("failed to create plugin '{}' (type: {}): {reason}", plugin.name, plugin.kind);
            LoadError::new(Stage::Instantiation, plugin.line, reason)
        })?;
        let deciders = handler.iter().flat_map(|handler| [&handler.prefill_decider, &handler.encode_decider]);
        for decider in deciders.flatten() {
            if !plugins.iter().any(|plugin| plugin.name == *decider) {
                let reason = format!("a plugin has a dependency on the unregistered plugin {decider}");
                return Err(LoadError::new(Stage::Instantiation, plugin.line, reason));
            }
        }
    }
    Ok(())
}

fn injects_metrics(data: Option<&DataLayer>) -> bool {
    let Some(data) = data else { return true };
    let has_source = data.sources.iter().flatten().any(|source| source.plugin_ref == "metrics-data-source");
    data.inject_defaults != Some(false) && !has_source
}
