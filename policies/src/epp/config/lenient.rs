//! Names that other versions of the router use, translated to those of this one.

use serde_json::{Map, Value};

use super::Plugin;
use super::envelope::Envelope;

/// Versions of the file that only a lenient reader accepts.
const OTHER_VERSIONS: [&str; 2] = ["llm-d.ai/v1", "llm-d.ai/v1alpha2"];

/// Parameters that the prefix scorer once took for the producer that it was, and the producer's names for them.
const PRODUCER_PARAMETERS: [(&str, &str); 5] = [
    ("maxPrefixBlocksToMatch", "maxPrefixBlocksToMatch"),
    ("lruCapacityPerServer", "lruCapacityPerServer"),
    ("hashBlockSize", "blockSizeTokens"),
    ("blockSize", "blockSizeTokens"),
    ("autoTune", "autoTune"),
];

/// Takes the version for this one's. Returns a warning for each change.
pub(super) fn translate_version(envelope: &mut Envelope) -> Option<String> {
    OTHER_VERSIONS.contains(&envelope.api_version.as_str()).then(|| {
        let read = format!("apiVersion {} is read as llm-d.ai/v1alpha1", envelope.api_version);
        "llm-d.ai/v1alpha1".clone_into(&mut envelope.api_version);
        read
    })
}

/// Translates plugins. Returns a warning for each change.
pub(super) fn translate_plugins(plugins: &mut Vec<Plugin>) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut producer = Map::new();
    for plugin in plugins.iter_mut() {
        if plugin.kind == "kv-cache-scorer" {
            warnings.push("kv-cache-scorer is read as kv-cache-utilization-scorer".to_owned());
            "kv-cache-utilization-scorer".clone_into(&mut plugin.kind);
        }
        let kind = plugin.kind.clone();
        let Value::Object(parameters) = &mut plugin.parameters else { continue };
        if kind == "prefix-cache-affinity-filter" && parameters.remove("maxTokensInFlightPenalty").is_some() {
            warnings.push("maxTokensInFlightPenalty of prefix-cache-affinity-filter is ignored".to_owned());
        }
        if kind == "prefix-cache-scorer" {
            for (old, new) in PRODUCER_PARAMETERS {
                if let Some(value) = parameters.remove(old) {
                    warnings.push(format!("{old} of prefix-cache-scorer is read as its producer's {new}"));
                    producer.insert(new.to_owned(), value);
                }
            }
            if parameters.remove("mode").is_some() {
                warnings.push("mode of prefix-cache-scorer is ignored: matches are approximate".to_owned());
            }
        }
    }
    let kind = crate::epp::plugin::DEFAULT_PREFIX_PRODUCER;
    if !producer.is_empty() && !plugins.iter().any(|plugin| plugin.name == kind) {
        // A fixed block size was meant to hold.
        let fixes_block = producer.contains_key("blockSizeTokens");
        producer.entry("autoTune").or_insert(Value::Bool(!fixes_block));
        plugins.push(Plugin { parameters: Value::Object(producer), ..Plugin::created(kind) });
    }
    warnings
}
