//! Filters: one file each, with rule, parameters, defaults and source.

mod by_label;
mod detectors;
mod endpoint_attribute;
mod label_selector;
mod prefix_affinity;
mod session_affinity;
mod slo_headroom;
mod utilization;

pub use by_label::{PREFILL_ROLES, ROLE_LABEL};

use forerun_sim::rng::Stream;
use serde_json::Value;

use super::context_length::ContextLength;
use super::plugin::{Filter, Names};
use super::topology::TopologyFilter;

/// The filter of type `kind` with these parameters; `None` when there is none of that type. What it draws comes from
/// streams of run `seed`.
///
/// # Errors
/// When the parameters are not valid.
pub fn make(
    kind: &str,
    parameters: &Value,
    names: &mut Names,
    seed: u64,
) -> Result<Option<Box<dyn Filter>>, String> {
    let stream = || Stream::new(seed, kind);
    let filter: Box<dyn Filter> = match kind {
        "decode-filter" => Box::new(by_label::ByLabel::decode()),
        "prefill-filter" => Box::new(by_label::ByLabel::prefill()),
        "encode-filter" => Box::new(by_label::ByLabel::encode()),
        "by-label" => Box::new(by_label::ByLabel::new(parameters)?),
        "label-selector-filter" | "by-label-selector" => {
            Box::new(label_selector::LabelSelector::new(parameters)?)
        }
        "utilization-filter" => Box::new(utilization::Utilization::new(parameters)?),
        "endpoint-attribute-filter" => {
            Box::new(endpoint_attribute::EndpointAttribute::new(parameters, names)?)
        }
        "prefix-cache-affinity-filter" => {
            Box::new(prefix_affinity::PrefixAffinity::new(parameters, names, stream())?)
        }
        "slo-headroom-tier-filter" => Box::new(slo_headroom::SloHeadroom::new(parameters, stream())?),
        "session-affinity-filter" => Box::new(session_affinity::SessionAffinity::new(parameters, names)?),
        "topology-affinity-filter" => Box::new(TopologyFilter::new(parameters)?),
        "context-length-aware" => Box::new(ContextLength::new(parameters)?),
        "utilization-detector" => Box::new(detectors::Utilization::new(parameters)?),
        "concurrency-detector" => Box::new(detectors::Concurrency::new(parameters)?),
        _ => return Ok(None),
    };
    Ok(Some(filter))
}
