//! Scorers: one file each, with formula, parameters, defaults and source.

mod active_request;
mod endpoint_attribute;
mod header_label;
mod kv_cache;
mod latency;
mod load_aware;
mod lora_affinity;
mod mm_embeddings;
mod no_hit_lru;
mod prefix_cache;
mod queue;
mod session_affinity;
mod token_load;

use serde_json::Value;

use super::context_length::ContextLength;
use super::plugin::{Names, Scorer};
use super::topology::TopologyScorer;

/// The scorer of type `kind` with these parameters; `None` when there is none of that type.
///
/// # Errors
/// When the parameters are not valid.
pub fn make(kind: &str, parameters: &Value, names: &mut Names) -> Result<Option<Box<dyn Scorer>>, String> {
    let scorer: Box<dyn Scorer> = match kind {
        "queue-scorer" => Box::new(queue::FewestRequests { count: |metrics| metrics.waiting }),
        "running-requests-size-scorer" => {
            Box::new(queue::FewestRequests { count: |metrics| metrics.running })
        }
        "kv-cache-utilization-scorer" => Box::new(kv_cache::KvCacheUtilization),
        "load-aware-scorer" => Box::new(load_aware::LoadAware::new(parameters)?),
        "active-request-scorer" => Box::new(active_request::ActiveRequest::new(parameters)?),
        "token-load-scorer" => Box::new(token_load::TokenLoad::new(parameters)?),
        "prefix-cache-scorer" => Box::new(prefix_cache::PrefixCache::new(parameters, names)?),
        "no-hit-lru-scorer" => Box::new(no_hit_lru::NoHitLru::new(parameters, names)?),
        "lora-affinity-scorer" => Box::new(lora_affinity::LoraAffinity),
        "session-affinity-scorer" => Box::new(session_affinity::SessionAffinity::new(parameters, names)?),
        "context-length-aware" => Box::new(ContextLength::new(parameters)?),
        "latency-scorer" => Box::new(latency::LatencyScorer::new(parameters, names)?),
        "topology-affinity-scorer" => Box::new(TopologyScorer),
        "header-label-affinity-scorer" => Box::new(header_label::HeaderLabel::new(parameters)?),
        "endpoint-attribute-scorer" => {
            Box::new(endpoint_attribute::EndpointAttribute::new(parameters, names)?)
        }
        "mm-embeddings-cache-scorer" => Box::new(mm_embeddings::EmbeddingsCache),
        _ => return Ok(None),
    };
    Ok(Some(scorer))
}
