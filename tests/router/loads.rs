//! The recording of the real loader: what each configuration becomes, or why it is refused.

use std::path::Path;

use forerun_policies::epp::config::{Config, LoadError, LoadOptions, Stage, Upstream};
use serde_json::Value;

use super::{Compared, expect, list, real, same_reason, text};

/// Reads as the real router does, with experimental plugins and those that are not simulated.
pub(super) const AS_UPSTREAM: LoadOptions =
    LoadOptions { upstream: Upstream::V0_10, allow_unsimulated: true, allow_experimental: true };

/// The text of a recorded configuration: in the case itself, or a file beside the recordings; none for "(none)".
pub(super) fn config_text(case: &Value, path: &Path) -> Option<String> {
    case["text"].as_str().map(str::to_owned).or_else(|| original(case, path))
}

/// The configuration's own file, before it was adapted.
fn original(case: &Value, path: &Path) -> Option<String> {
    let name = case["config"].as_str()?;
    let root = path.ancestors().nth(4)?;
    if name == "(none)" {
        Some(String::new())
    } else {
        std::fs::read_to_string(root.join("epp-configs").join(name)).ok()
    }
}

pub(super) fn replay(recording: &Value, path: &Path) -> Compared {
    let mut compared = 0;
    for case in list(recording, "cases") {
        let name = text(&case["config"]);
        let adapted = !case["adapted"].is_null();
        if case["not_driven"] == true {
            continue;
        }
        let differs = |difference: String| format!("{name}: {difference}");
        if let Some(error) = case["error"].as_str() {
            let text = if adapted { original(case, path) } else { config_text(case, path) };
            if let Some(text) = text {
                refused(&text, AS_UPSTREAM, error).map_err(differs)?;
                compared += 1;
            }
        }
        if case["profiles"].is_array() {
            let text = config_text(case, path).ok_or_else(|| format!("{name} is missing"))?;
            if let Some(error) = case["alpha_error"].as_str() {
                let options = LoadOptions { allow_experimental: false, ..AS_UPSTREAM };
                refused(&text, options, error).map_err(differs)?;
            }
            let config = Config::load(&text, AS_UPSTREAM).map_err(|error| differs(error.to_string()))?;
            loaded(&config, case, text.contains("schedulingProfiles")).map_err(differs)?;
            compared += 1;
        }
    }
    Ok(compared)
}

fn refused(text: &str, options: LoadOptions, recorded: &str) -> Result<(), String> {
    let Err(LoadError { stage, reason, .. }) = Config::load(text, options) else {
        return Err(format!("loads, recorded {recorded}"));
    };
    // These two steps come without words of their own in the recordings.
    let unnamed = matches!(stage, Stage::DataProducers | Stage::Stability);
    let same_stage = unnamed || recorded.starts_with(stage.upstream_words());
    if same_stage && same_reason(&reason, recorded) {
        Ok(())
    } else {
        Err(format!("ours {stage:?}: {reason}, recorded {recorded}"))
    }
}

/// The type under which upstream lists a plugin, where that is not the registered one.
fn listed_type(kind: &str) -> &str {
    match kind {
        "decode-filter" | "prefill-filter" | "encode-filter" => "by-label",
        "static-usage-limit-policy" => "static-usage-limit-policy-type",
        kind => kind,
    }
}

fn loaded(config: &Config, case: &Value, has_profiles: bool) -> Result<(), String> {
    let mut plugins: Vec<String> = config
        .plugins
        .iter()
        .map(|plugin| format!("{}|{}", listed_type(&plugin.kind), plugin.name))
        .collect();
    plugins.sort();
    let mut recorded: Vec<String> = list(case, "plugins").iter().map(text).collect();
    recorded.sort();
    expect(&plugins, &recorded, || "plugins".to_owned())?;
    let handler = config.plugin(&config.handler).map_or("", |plugin| &plugin.kind);
    expect(&handler.to_owned(), &text(&case["handler"]), || "handler".to_owned())?;
    let recorded = list(case, "profiles");
    expect(&config.profiles.len(), &recorded.len(), || "number of profiles".to_owned())?;
    for (profile, recorded) in config.profiles.iter().zip(recorded) {
        expect(&profile.name, &text(&recorded["name"]), || "profile".to_owned())?;
        let filters: Vec<String> = list(recorded, "filters").iter().map(text).collect();
        expect(&profile.filters, &filters, || format!("filters of {}", profile.name))?;
        expect(&profile.picker, &text(&recorded["picker"]), || format!("picker of {}", profile.name))?;
        let scorer = |entry: &Value| (text(&entry[0]), real(&entry[1]));
        let mut theirs: Vec<(String, f64)> = list(recorded, "scorers").iter().map(scorer).collect();
        let mut ours = profile.scorers.clone();
        if !has_profiles {
            // Without profiles upstream's order of plugins is random.
            theirs.sort_by(|a, b| a.0.cmp(&b.0));
            ours.sort_by(|a, b| a.0.cmp(&b.0));
        }
        expect(&ours, &theirs, || format!("scorers of {}", profile.name))?;
    }
    Ok(())
}
