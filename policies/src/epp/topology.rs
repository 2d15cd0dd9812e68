//! How close two endpoints are: `topology-affinity-scorer` and `topology-affinity-filter`.

use serde::Deserialize;
use serde_json::Value;

use super::Topology;
use super::plugin::{Context, Filter, Notes, Scorer, parameters};

/// The number of levels: host, rack, zone, region.
const LEVELS: [&str; 4] = ["host", "rack", "zone", "region"];

/// Scores by the closest level that is shared; 0 for none.
const SCORES: [f64; 4] = [1.0, 0.2, 0.05, 0.02];

/// The closest level that both share: 0 is the host, 3 the region.
fn shared_level(a: Topology, b: Topology) -> Option<usize> {
    (0..LEVELS.len()).find(|&level| a[level].is_some() && a[level] == b[level])
}

/// By the closest level shared with the endpoint that an earlier profile picked: host 1, rack 0.2, zone 0.05,
/// region 0.02, none 0. No parameters. Source: llm-d-router scorer/topologyaffinity.
pub(super) struct TopologyScorer;

impl Scorer for TopologyScorer {
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], _: &mut Notes) {
        let Some(peer) = context.peer_topology else { return };
        for (score, &endpoint) in scores.iter_mut().zip(candidates) {
            let level = context.endpoint(endpoint).topology.and_then(|own| shared_level(peer, own));
            *score = level.map_or(0.0, |level| SCORES[level]);
        }
    }
}

/// Parameters of `topology-affinity-filter`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// The loosest level that still counts: host (default), rack, zone or region.
    min_affinity: String,
}

/// Keeps the endpoints that share at least `minAffinity` with the endpoint that an earlier profile picked; all, when
/// there are none, or no such endpoint. Source: llm-d-router filter/topologyaffinity.
pub(super) struct TopologyFilter {
    loosest: usize,
}

impl TopologyFilter {
    pub(super) fn new(value: &Value) -> Result<Self, String> {
        let parameters: Parameters = parameters(value)?;
        let level = if parameters.min_affinity.is_empty() { LEVELS[0] } else { &parameters.min_affinity };
        let loosest = LEVELS.iter().position(|known| *known == level).ok_or_else(|| {
            format!(
                "invalid configuration for 'topology-affinity-filter' filter: invalid topology level {level:?}, \
                 must be one of host, rack, zone, region"
            )
        })?;
        Ok(Self { loosest })
    }
}

impl Filter for TopologyFilter {
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, _: &mut Notes) {
        let Some(peer) = context.peer_topology else { return };
        let near = |&endpoint: &u32| {
            let level = context.endpoint(endpoint).topology.and_then(|own| shared_level(peer, own));
            level.is_some_and(|level| level <= self.loosest)
        };
        if candidates.iter().any(near) {
            candidates.retain(near);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::epp::plugin::testing::Scene;
    use forerun_sim::request::Label;
    use serde_json::json;

    fn scene() -> Scene {
        let place = |names: [u32; 4]| names.map(Label);
        let values = [Some([1, 2, 3, 4]), Some([9, 2, 3, 4]), Some([9, 9, 9, 4]), Some([0, 0, 0, 0]), None];
        let mut scene = Scene::of(&values, |state, names| state.topology = names.map(place));
        scene.peer_topology = Some(place([1, 2, 3, 4]));
        scene
    }

    #[test]
    fn the_closest_shared_level_decides_the_score() {
        assert_eq!(scene().scores("topology-affinity-scorer", &json!(null)), [1.0, 0.2, 0.02, 0.0, 0.0]);
        let alone = Scene { peer_topology: None, ..scene() };
        assert_eq!(alone.scores("topology-affinity-scorer", &json!(null)), [0.0; 5]);
    }

    #[test]
    fn the_filter_keeps_what_is_near_enough_and_fails_open() {
        let kept = |level| scene().kept("topology-affinity-filter", &json!({"minAffinity": level}));
        assert_eq!(kept(""), [0]);
        assert_eq!(kept("zone"), [0, 1]);
        assert_eq!(kept("region"), [0, 1, 2]);
        let elsewhere = Scene { peer_topology: Some([Label(7); 4]), ..scene() };
        assert_eq!(elsewhere.kept("topology-affinity-filter", &json!(null)), [0, 1, 2, 3, 4]);
    }
}
