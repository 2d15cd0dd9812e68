//! LLMServingSim 2.0's profiles: one layer of a model, kernel time only, measured in vLLM with one folder for each
//! GPU, model, type and split: `GPU/model/bf16/tp1/{dense,per_sequence,attention,skew_fit,moe}.csv`, and `meta.yaml`
//! one level up.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{ImportError, Options, rounded};
use crate::profile::{Grids, Moe, Op, Profile, SCHEMA, SkewTable};
use crate::rows::{Table, find};
use crate::smooth::{Scatter, rising};

/// Kernels that run once a step and not once a layer.
const PER_STEP: [&str; 2] = ["embedding", "final_layernorm"];

/// Points of one axis, and of a whole grid, that are taken.
const AXIS_MAX: usize = 1 << 12;
const GRID_MAX: usize = 1 << 20;

/// What is needed of meta.yaml.
#[derive(Deserialize)]
struct Meta {
    vllm_version: String,
    hardware: String,
    model: String,
    variant: String,
    tp_degrees: Vec<u32>,
    skew_fit: Option<Enabled>,
}

/// Whether a part was measured in the same run.
#[derive(Deserialize)]
struct Enabled {
    enabled: bool,
}

pub(super) fn import(folder: &Path, options: &Options<'_>) -> Result<Profile, ImportError> {
    if options.names_subject() {
        let why = "says itself what it is of: leave out --gpu, --model, --tensor-parallel, --dtype and --kv-cache-dtype";
        return Err(ImportError::new(folder, why));
    }
    let (meta, tensor_parallel) = describe(folder)?;
    let (mut per_layer, mut per_step) = (Vec::new(), Vec::new());
    for mut op in ops(&Table::read(folder, "dense")?, "tokens")? {
        if PER_STEP.contains(&op.op.as_str()) {
            per_step.push(op);
        } else {
            // The norms before attention and before the MLP are one row.
            op.times = if op.op == "layernorm" { 2.0 } else { 1.0 };
            per_layer.push(op);
        }
    }
    let mut notes = Vec::new();
    let mut attention = attention(&Table::read(folder, "attention")?)?;
    let equal = "unequal decodes take as long as equal ones";
    let fitted = meta.skew_fit.as_ref().is_none_or(|fit| fit.enabled) || options.foreign_skew;
    if find(folder, "skew_fit").is_none() {
        notes.push(format!("no skew_fit.csv: {equal}"));
    } else if fitted {
        attention.skew = Some(skew(&Table::read(folder, "skew_fit")?)?);
    } else {
        notes.push(format!("skew_fit.csv is of another run, says meta.yaml, and not used: {equal}"));
    }
    let moe = match find(folder, "moe") {
        Some(_) => Some(moe(&Table::read(folder, "moe")?)?),
        None => None,
    };
    Ok(Profile {
        schema: SCHEMA.into(),
        time_unit: "us".into(),
        grade: "measured tables".into(),
        source: "LLMServingSim 2.0 profile (MIT)".into(),
        engine: format!("vLLM {}", meta.vllm_version),
        gpu: meta.hardware,
        model: meta.model,
        tensor_parallel,
        dtype: meta.variant,
        kv_cache_dtype: "auto".into(),
        notes,
        per_layer,
        per_step,
        per_sequence: ops(&Table::read(folder, "per_sequence")?, "sequences")?,
        moe,
        all_reduce: None,
        attention,
        largest_graph: None,
        device: None,
        measured: None,
    })
}

/// The meta.yaml beside or above, and the split that the folder's name states.
fn describe(folder: &Path) -> Result<(Meta, u32), ImportError> {
    let folder = std::path::absolute(folder).map_err(|e| ImportError::new(folder, e.to_string()))?;
    let candidates = [Some(folder.as_path()), folder.parent()].into_iter().flatten();
    let path = candidates.map(|folder| folder.join("meta.yaml")).find(|path| path.is_file());
    let path = path.ok_or_else(|| ImportError::new(&folder, "has no meta.yaml, nor has the folder above"))?;
    let wrong = |why: String| ImportError::new(&path, why.lines().next().unwrap_or_default());
    let size = fs::metadata(&path).map_err(|e| wrong(e.to_string()))?.len();
    if size > 1 << 20 {
        return Err(wrong(format!("has {size} bytes: at most 1 MiB is read")));
    }
    let text = fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
    let meta: Meta = serde_saphyr::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let tensor_parallel = name.strip_prefix("tp").and_then(|tp| tp.parse().ok());
    let tensor_parallel = match (tensor_parallel, meta.tp_degrees.as_slice()) {
        (Some(tp), _) | (None, &[tp]) => tp,
        _ => return Err(ImportError::new(&folder, "is not called tp1, tp2, ...: its split is not known")),
    };
    Ok((meta, tensor_parallel))
}

/// A table of (`layer`, count, time): one op for each layer name.
fn ops(table: &Table, count: &str) -> Result<Vec<Op>, ImportError> {
    let [layer, count, time] = table.columns(["layer", count, "time_us"])?;
    let mut by_name: BTreeMap<String, BTreeMap<u32, f64>> = BTreeMap::new();
    for row in table.rows() {
        by_name.entry(row.text(layer).to_owned()).or_default().insert(row.number(count)?, row.time(time)?);
    }
    if by_name.is_empty() {
        return Err(table.error("has no rows"));
    }
    let op = |(op, times): (String, BTreeMap<u32, f64>)| {
        let (at, mut us): (Vec<u32>, Vec<f64>) = times.into_iter().unzip();
        rising(&mut us, &[at.len()]);
        Op { op, from: None, times: 1.0, at, us: rounded(us) }
    };
    Ok(by_name.into_iter().map(op).collect())
}

fn attention(table: &Table) -> Result<Grids, ImportError> {
    let columns = table.columns(["prefill_chunk", "kv_prefill", "n_decode", "kv_decode"])?;
    let time = table.column("time_us")?;
    let mut all = Scatter::default();
    for row in table.rows() {
        let mut at = [0; 4];
        for (value, column) in at.iter_mut().zip(columns) {
            *value = row.number(column)?;
        }
        all.insert(at, row.time(time)?);
    }
    let decode = all.only(|at| at[0] == 0 && at[1] == 0 && at[2] > 0);
    let prefill = all.only(|at| at[0] > 0 && at[2] == 0);
    let mixed = all.only(|at| at[0] > 0 && at[2] > 0);
    check_size(table, &all)?;
    if decode.axis(2).is_empty() || prefill.axis(0).is_empty() {
        return Err(table.error("has no rows of decodes alone, or none of prefills alone"));
    }
    let mut decode = decode.fill();
    let shape = decode.shape();
    rising(&mut decode.us, &shape);
    let mut prefill = prefill.fill();
    let shape = prefill.shape();
    rising(&mut prefill.us, &shape);
    let [.., decodes, contexts] = decode.axes;
    let [chunks, histories, ..] = prefill.axes;
    // Below the smallest chunk a prefill takes as long as it.
    let mut prefill_us = prefill.us[..histories.len()].to_vec();
    prefill_us.extend(prefill.us);
    let chunks: Vec<u32> = std::iter::once(0).chain(chunks).collect();
    let axes = [&chunks, &histories, &decodes, &contexts];
    let mixed_us = whole(&mixed, axes, &decode.us);
    Ok(Grids {
        decode_us: rounded(decode.us),
        prefill_us: rounded(prefill_us),
        mixed_us: Some(rounded(mixed_us)),
        decodes,
        contexts,
        chunks,
        histories,
        skew: None,
        from: None,
    })
}

/// The product of the axes bounds the memory of a grid.
fn check_size(table: &Table, scatter: &Scatter) -> Result<(), ImportError> {
    let points = [0, 1, 2, 3].map(|dimension| scatter.axis(dimension).len());
    if points.iter().any(|&points| points > AXIS_MAX) || points.iter().product::<usize>() > GRID_MAX {
        return Err(table.error(format!("spans a grid of {points:?} points: at most {GRID_MAX} are taken")));
    }
    Ok(())
}

/// The times of mixed batches on these axes. Without a chunk they are those of the decodes alone; for more decodes
/// than were measured beside a prefill, the decodes alone say how much longer they take.
fn whole(mixed: &Scatter, axes: [&Vec<u32>; 4], decode_us: &[f64]) -> Vec<f64> {
    let [chunks, histories, decodes, contexts] = axes;
    let measured = mixed.only(|at| histories.contains(&at[1]) && contexts.contains(&at[3])).fill();
    let place = |axis: &[u32], value: u32| axis.binary_search(&value).ok();
    let [_, rows, counts, columns] = measured.shape();
    let mut us = Vec::with_capacity(chunks.len() * histories.len() * decode_us.len());
    for &chunk in chunks {
        for &history in histories {
            for (n, &decode) in decodes.iter().enumerate() {
                for (kv, &context) in contexts.iter().enumerate() {
                    let alone = |n: usize| decode_us[n * contexts.len() + kv];
                    let at = place(&measured.axes[0], chunk)
                        .zip(place(&measured.axes[1], history))
                        .zip(place(&measured.axes[3], context));
                    let Some(((c, h), k)) = at else {
                        us.push(alone(n));
                        continue;
                    };
                    let held = place(&measured.axes[2], decode).unwrap_or(counts - 1);
                    let base = measured.us[((c * rows + h) * counts + held) * columns + k];
                    let few = place(decodes, measured.axes[2][held]).unwrap_or(n);
                    us.push(base + alone(n) - alone(few));
                }
            }
        }
    }
    rising(&mut us, &[chunks.len(), histories.len(), decodes.len(), contexts.len()]);
    us
}

/// The median of the fitted shares by the number of decodes, each weighted by its samples. Shares outside 0 to 1
/// are differences of nearly equal times and count as the nearer bound.
fn skew(table: &Table) -> Result<SkewTable, ImportError> {
    let [chunk, label, alpha, samples] = table.columns(["pc", "n_label", "alpha", "n_samples"])?;
    let mut shares: BTreeMap<u32, [Vec<(f64, f64)>; 2]> = BTreeMap::new();
    for row in table.rows() {
        let Some(decodes) = row.text(label).strip_prefix("n<=").and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let (share, weight): (f64, f64) = (row.number(alpha)?, row.number(samples)?);
        if share.is_finite() && weight > 0.0 {
            let mixed = usize::from(row.number::<u32>(chunk)? > 0);
            shares.entry(decodes).or_default()[mixed].push((share.clamp(0.0, 1.0), weight));
        }
    }
    if shares.is_empty() {
        return Err(table.error("has no buckets `n<=...`"));
    }
    let median = |shares: &[(f64, f64)]| {
        let mut sorted = shares.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let half = sorted.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
        let mut sum = 0.0;
        let middle = sorted.iter().find(|(_, weight)| {
            sum += weight;
            sum >= half
        });
        middle.map_or(0.0, |(share, _)| *share)
    };
    let mut skew = SkewTable { decodes: vec![1], alone: vec![0.0], mixed: vec![0.0] };
    for (decodes, [alone, mixed]) in shares {
        skew.decodes.push(decodes);
        skew.alone.push(median(&alone));
        skew.mixed.push(median(&mixed));
    }
    // A bucket that was measured on one side only takes the other's share.
    let last = skew.decodes.len() - 1;
    if skew.mixed[last] == 0.0 {
        skew.mixed[last] = skew.alone[last];
    }
    Ok(skew)
}

/// Experts of a layer. The largest measured number of activated experts is all of them; what one token activates is
/// measured at one token.
fn moe(table: &Table) -> Result<Moe, ImportError> {
    let [tokens, activated, time] = table.columns(["tokens", "activated_experts", "time_us"])?;
    let mut scatter = Scatter::default();
    let mut per_token = u32::MAX;
    for row in table.rows() {
        let (tokens, activated): (u32, u32) = (row.number(tokens)?, row.number(activated)?);
        scatter.insert([0, 0, tokens, activated], row.time(time)?);
        if tokens == 1 {
            per_token = per_token.min(activated);
        }
    }
    if per_token == u32::MAX {
        return Err(table.error("has no row of one token"));
    }
    check_size(table, &scatter)?;
    let mut filled = scatter.fill();
    let shape = filled.shape();
    rising(&mut filled.us, &shape);
    let [.., tokens, activated] = filled.axes;
    let experts = activated.last().copied().unwrap_or(per_token);
    Ok(Moe { experts, experts_per_token: per_token, tokens, activated, us: rounded(filled.us) })
}

#[cfg(test)]
#[path = "llmservingsim_tests.rs"]
mod tests;
