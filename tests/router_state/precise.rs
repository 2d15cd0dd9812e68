//! The precise producer's index.

use std::collections::BTreeMap;

use forerun_policies::epp::prefix::Text;
use forerun_policies::epp::prefix::precise::{
    BlockKvIndex, ExtentKvIndex, Found, Kind, KvIndex, KvIndexConfig, TierWeights,
};
use forerun_sim::prompt::Content;
use serde::Deserialize as _;
use serde_json::Value;

use super::{Compared, expect, list, whole};

const BLOCK_TOKENS: u32 = 16;

/// Every lookup of every sequence: scores, matches and counts by tier. The form over runs of blocks takes part where
/// the index is never full.
pub(super) fn sequences(recording: &Value) -> Compared {
    let mut compared = 0;
    for (number, case) in list(recording, "cases").iter().enumerate() {
        compared += sequence::<BlockKvIndex>(case).map_err(|e| format!("blocks, case {number}, {e}"))?;
        if whole(case, "index_size") > 1_000_000 {
            compared += sequence::<ExtentKvIndex>(case).map_err(|e| format!("runs, case {number}, {e}"))?;
        }
    }
    Ok(compared)
}

fn sequence<I: KvIndex>(case: &Value) -> Compared {
    let mut weights = match &case["weights"] {
        Value::Null => TierWeights::default(),
        named => {
            let named = BTreeMap::<String, f64>::deserialize(named).map_err(|e| e.to_string())?;
            let backends = named.iter().map(|(name, &weight)| (name.as_str(), weight));
            TierWeights::of_backends(backends).map_err(|e| e.to_string())?
        }
    };
    let size = u64::from(whole(case, "index_size"));
    let mut index = I::new(KvIndexConfig { size, pod_cache_size: whole(case, "pod_cache_size") as usize });
    let mut found = vec![Found::default(); whole(case, "pods") as usize];
    let mut lookups = 0;
    for (number, op) in list(case, "ops").iter().enumerate() {
        let pod = whole(op, "pod");
        match op["op"].as_str().unwrap_or("") {
            "add" => {
                let kind = kind(op, &mut weights)?;
                index.add(pod, kind, &text(op, whole(op, "to")), whole(op, "from"));
            }
            "evict" => {
                let kind = kind(op, &mut weights)?;
                index.evict(pod, kind, &text(op, whole(op, "i") + 1), whole(op, "i"));
            }
            "clear" => index.clear(pod),
            "lookup" => {
                index.find(&text(op, whole(op, "n")), &weights, &mut found);
                compare(op, &found, &mut weights).map_err(|e| format!("operation {number}: {e}"))?;
                lookups += 1;
            }
            other => return Err(format!("operation {number}: nobody knows {other:?}")),
        }
    }
    Ok(lookups)
}

/// The first `blocks` blocks of the operation's chain.
fn text(op: &Value, blocks: u32) -> Text {
    let mut text = Text::new(0, BLOCK_TOKENS);
    text.push(Content::shared(u64::from(whole(op, "chain"))), 0, blocks * BLOCK_TOKENS);
    text
}

fn kind(op: &Value, weights: &mut TierWeights) -> Result<Kind, String> {
    if op["speculative"] == true {
        return Ok(Kind::SPECULATIVE);
    }
    weights.kind(op["tier"].as_str().unwrap_or("")).map_err(|e| e.to_string())
}

fn compare(op: &Value, found: &[Found], weights: &mut TierWeights) -> Result<(), String> {
    for (place, pod) in list(op, "cand").iter().enumerate() {
        let found = &found[pod.as_u64().unwrap_or(0) as usize];
        let what = |name: &'static str| move || format!("{name} of pod {pod}");
        expect(&Some(found.score), &op["score"][place].as_f64(), what("score"))?;
        expect(&Some(u64::from(found.matched())), &op["match"][place].as_u64(), what("match"))?;
        expect(&Some(u64::from(found.cached)), &op["cached"][place].as_u64(), what("cached blocks"))?;
        let recorded =
            BTreeMap::<String, u32>::deserialize(&op["tiers"][place]).map_err(|e| e.to_string())?;
        for tier in ["gpu", "cpu", "disk", "speculative"] {
            let kind = if tier == "speculative" {
                Kind::SPECULATIVE
            } else {
                weights.kind(tier).map_err(|e| e.to_string())?
            };
            expect(&found.leading(kind), &recorded.get(tier).copied().unwrap_or(0), what("tier"))?;
        }
    }
    Ok(())
}
