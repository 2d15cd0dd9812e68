//! LLMServingSim's first layout: `GPU/owner/model/tpN/layers.csv` with the kernels of a layer by tokens, in
//! nanoseconds, and `attention.csv` in Vidur's columns.
//!
//! Only its matrix products are used: norms and rotary embedding were measured as separate operations that vLLM does not
//! run, and its decode attention on A6000 and H100 implies several times the GPU's bandwidth.

use std::collections::BTreeMap;
use std::path::Path;

use super::compose::{Composition, Source};
use super::subject::Subject;
use super::{ImportError, Options, cached_attention};
use crate::profile::Profile;
use crate::rows::{Table, find};

const SOURCE: Source =
    Source { source: "LLMServingSim's first profiles (MIT)", engine: "vLLM's kernels, one by one" };

/// Our products, and theirs that together are one of them.
const PRODUCTS: [(&str, &[&str]); 5] = [
    ("qkv_proj", &["q_proj", "k_proj", "v_proj"]),
    ("o_proj", &["o_proj"]),
    ("gate_up_proj", &["gate_proj", "up_proj"]),
    ("down_proj", &["down_proj"]),
    ("lm_head", &["lm_head"]),
];

pub(super) fn import(folder: &Path, options: &Options<'_>) -> Result<Profile, ImportError> {
    let wrong = |why: String| ImportError::new(folder, why);
    let subject = Subject::find(folder, options).map_err(wrong)?;
    let mut composition = Composition::new(subject).map_err(wrong)?;
    let table = Table::read(folder, "layers")?;
    let layers = layers(&table, subject.tensor_parallel)?;
    for (name, parts) in PRODUCTS {
        if composition.matrix(name).is_none() {
            continue;
        }
        let times = together(&layers, parts).ok_or_else(|| {
            let split = subject.tensor_parallel;
            table.error(format!("has no rows of {} with tp_size {split}", parts.join(", ")))
        })?;
        composition.measure(name, times).map_err(wrong)?;
    }
    composition
        .notes
        .push("of layers.csv the matrix products are used: q, k, v and gate, up together as one".into());
    let attention = match find(folder, "attention") {
        Some(_) => Some(Table::read(folder, "attention")?),
        None => None,
    };
    let grids = cached_attention::grids(attention.as_ref(), &mut composition, &subject)?;
    Ok(composition.finish(&SOURCE, grids, None))
}

/// Times by layer and tokens, microseconds.
fn layers(table: &Table, split: u32) -> Result<BTreeMap<String, BTreeMap<u32, f64>>, ImportError> {
    let [name, tokens, tp, time] = table.columns(["layer_name", "input", "tp_size", "latency(ns)"])?;
    let products = PRODUCTS.iter().flat_map(|(_, parts)| parts.iter().copied()).collect::<Vec<_>>();
    let mut layers: BTreeMap<String, BTreeMap<u32, f64>> = BTreeMap::new();
    for row in table.rows().filter(|row| products.contains(&row.text(name))) {
        if row.number::<u32>(tp)? == split {
            let times = layers.entry(row.text(name).to_owned()).or_default();
            times.insert(row.number(tokens)?, row.time(time)? / 1e3);
        }
    }
    Ok(layers)
}

/// The sum of these layers' times, where all of them were measured.
fn together(layers: &BTreeMap<String, BTreeMap<u32, f64>>, parts: &[&str]) -> Option<Vec<(u32, f64)>> {
    let parts: Vec<&BTreeMap<u32, f64>> =
        parts.iter().map(|part| layers.get(*part)).collect::<Option<_>>()?;
    let sum = |&tokens: &u32| {
        let times: Option<Vec<f64>> = parts.iter().map(|times| times.get(&tokens).copied()).collect();
        Some((tokens, times?.iter().sum()))
    };
    let times: Vec<(u32, f64)> = parts.first()?.keys().filter_map(sum).collect();
    (!times.is_empty()).then_some(times)
}

#[cfg(test)]
#[path = "llmservingsim_v0_tests.rs"]
mod tests;
