//! What plugins read, and the producers that upstream creates when nobody publishes it.
//! Source: llm-d-router pkg/epp/datalayer, `CreateMissingDataProducers`, and the plugins' `Consumes`.

use super::Plugin;
use super::error::{LoadError, Stage};
use crate::epp::plugin::DEFAULT_PREFIX_PRODUCER;

const METRICS: &str = "core-metrics-extractor";
const IN_FLIGHT: &str = "inflight-load-producer";
const LATENCY: &str = "predicted-latency-producer";
const TOKENS: &str = "token-producer";
const EMBEDDINGS: &str = "mm-embeddings-cache-producer";

/// Something that a plugin reads: which data, by whom, and whether upstream can create that producer by itself.
struct Need {
    data: &'static str,
    producer: String,
    creatable: bool,
}

/// Appends the producers that are missing, and theirs in turn.
pub(super) fn create_missing(plugins: &mut Vec<Plugin>) -> Result<(), LoadError> {
    let mut created = true;
    while created {
        created = false;
        let mut missing = Vec::new();
        for plugin in plugins.iter() {
            for need in needs(plugin) {
                if is_produced(plugins, &need) {
                    continue;
                }
                if !need.creatable {
                    let reason = format!(
                        "no default producer found for missing data key {}/{}, consumed by {}",
                        need.data, need.producer, plugin.name
                    );
                    return Err(LoadError::new(Stage::DataProducers, plugin.line, reason));
                }
                missing.push(need.producer);
            }
        }
        for producer in missing {
            if !plugins.iter().any(|plugin| plugin.name == producer) {
                plugins.push(Plugin::created(&producer));
                created = true;
            }
        }
    }
    Ok(())
}

fn is_produced(plugins: &[Plugin], need: &Need) -> bool {
    plugins.iter().any(|plugin| {
        let produces = match plugin.kind.as_str() {
            // Whatever their names, they publish the one tokenized prompt.
            TOKENS | "tokenizer" => return need.data == "TokenizedPromptDataKey",
            kind => kind != METRICS || need.producer == METRICS,
        };
        produces && plugin.name == need.producer
    })
}

fn needs(plugin: &Plugin) -> Vec<Need> {
    let text = |key: &str| plugin.parameters.get(key).and_then(|value| value.as_str()).unwrap_or("");
    let named = |data, name: &str, default: &str| {
        let producer = if name.is_empty() { default } else { name };
        Need { data, producer: producer.to_owned(), creatable: producer == default }
    };
    let metric = |data| Need { data, producer: METRICS.to_owned(), creatable: false };
    let tokens = || named("TokenizedPromptDataKey", "", TOKENS);
    let prefix = || {
        let name = text("prefixMatchInfoProducerName");
        named("PrefixCacheMatchInfoDataKey", name, DEFAULT_PREFIX_PRODUCER)
    };
    let load = || named("InFlightLoadDataKey", text("inFlightLoadProducerName"), IN_FLIGHT);
    let latency = || named("LatencyPredictionInfoDataKey", "", LATENCY);
    match plugin.kind.as_str() {
        "queue-scorer" | "load-aware-scorer" => vec![metric("WaitingQueueSize")],
        "running-requests-size-scorer" => vec![metric("RunningRequestsSize")],
        "kv-cache-utilization-scorer" => vec![metric("KVCacheUsagePercent")],
        "lora-affinity-scorer" => vec![metric("LoraRequestsInfo")],
        "active-request-scorer" | "concurrency-detector" => vec![load()],
        "token-load-scorer" => {
            // The producer publishes it, but is not registered as its default: it must be configured.
            let uncached = "UncachedRequestTokensDataKey";
            vec![Need { data: uncached, producer: IN_FLIGHT.to_owned(), creatable: false }, load()]
        }
        "utilization-filter" if limits_in_flight(plugin) => vec![load()],
        "prefix-cache-scorer" | "no-hit-lru-scorer" => vec![prefix()],
        "prefix-cache-affinity-filter" if text("ttftSource") == "latencyPredictor" => {
            vec![prefix(), latency()]
        }
        "prefix-cache-affinity-filter" => vec![prefix(), load()],
        "latency-scorer" => vec![prefix(), latency()],
        "slo-headroom-tier-filter" | "latency-slo-admitter" => vec![latency()],
        "disagg-profile-handler" => {
            vec![named("PrefixCacheMatchInfoDataKey", "", DEFAULT_PREFIX_PRODUCER), tokens()]
        }
        "mm-embeddings-cache-scorer" => vec![named("EmbeddingsCacheDataKey", "", EMBEDDINGS)],
        "context-length-aware"
        | "approx-prefix-cache-producer"
        | "precise-prefix-cache-producer"
        | "precise-prefix-cache-scorer"
        | "burst-prefix-cache-producer"
        | "inflight-load-producer"
        | "predicted-latency-producer" => vec![tokens()],
        _ => Vec::new(),
    }
}

fn limits_in_flight(plugin: &Plugin) -> bool {
    let conditions = plugin.parameters.get("conditions").and_then(|value| value.as_array());
    conditions.into_iter().flatten().any(|condition| {
        condition.get("metric").and_then(|metric| metric.as_str()) == Some("active-requests")
    })
}
