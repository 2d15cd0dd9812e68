//! Vidur's profiles: kernels of a layer by tokens and split (`mlp`), and attention by batch, chunk and cache, each a
//! table of many splits. Times are milliseconds; rows come in any order.
//!
//! Its all-reduces are not used: they were measured outside CUDA graphs (60 us for 2 KB over 8 GPUs, where the
//! catalog's take 6), and neither is its addition of the residual, which vLLM does in the norms.

use std::collections::BTreeMap;
use std::path::Path;

use super::compose::{Composition, Source};
use super::subject::{Subject, gpu_named};
use super::{ImportError, Options, cached_attention};
use crate::profile::Profile;
use crate::rows::{self, Table};

const SOURCE: Source =
    Source { source: "Vidur's profiles (MIT)", engine: "Vidur's kernels of vLLM and FlashAttention 2" };

/// Vidur's kernels and ours.
const KERNELS: [(&str, &str); 7] = [
    ("attn_pre_proj", "qkv_proj"),
    ("attn_post_proj", "o_proj"),
    ("mlp_up_proj", "gate_up_proj"),
    ("mlp_down_proj", "down_proj"),
    ("mlp_act", "activation"),
    ("attn_rope", "rope"),
    ("emb", "embedding"),
];

/// Both norms of a layer, which a profile has as one kernel that runs twice.
const NORMS: [&str; 2] = ["input_layernorm", "post_attention_layernorm"];

/// The tables of a folder in this layout: kernels, and attention.
pub(super) struct Tables {
    kernels: Vec<String>,
    attention: Vec<String>,
}

impl Tables {
    /// By the columns of every table.
    pub(super) fn find(folder: &Path) -> Result<Self, ImportError> {
        let mut found = Self { kernels: Vec::new(), attention: Vec::new() };
        for name in rows::names(folder)? {
            let columns = rows::columns(folder, &name)?;
            let has = |wanted: &str| columns.iter().any(|own| own == wanted);
            let timed = |kernel: &str| has(&format!("{kernel}_ms")) || has(&median(kernel));
            if has("num_tokens") && timed("attn_pre_proj") {
                found.kernels.push(name);
            } else if has("prefill_chunk_size") && has("kv_cache_size") {
                found.attention.push(name);
            }
        }
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kernels.is_empty()
    }

    /// The GPUs that names of tables mean.
    fn gpus(&self) -> Vec<&'static forerun_sim::catalog::Gpu> {
        let mut gpus: Vec<_> = self.kernels.iter().filter_map(|name| gpu_in(name)).collect();
        gpus.sort_by(|a, b| a.name.cmp(&b.name));
        gpus.dedup_by(|a, b| a.name == b.name);
        gpus
    }
}

fn gpu_in(table: &str) -> Option<&'static forerun_sim::catalog::Gpu> {
    table.split('_').find_map(gpu_named)
}

pub(super) fn import(folder: &Path, tables: &Tables, options: &Options<'_>) -> Result<Profile, ImportError> {
    let wrong = |why: String| ImportError::new(folder, why);
    let gpus = tables.gpus();
    let gpu = match (options.gpu, gpus.as_slice()) {
        (Some(gpu), _) => Some(gpu),
        (None, &[gpu]) => Some(gpu),
        (None, []) => None,
        (None, several) => {
            let names: Vec<_> = several.iter().map(|gpu| gpu.name.as_str()).collect();
            return Err(wrong(format!("has tables of {}: choose one with --gpu", names.join(", "))));
        }
    };
    let subject = Subject::find(folder, &Options { gpu, ..*options }).map_err(wrong)?;
    let mut composition = Composition::new(subject).map_err(wrong)?;
    let own = |name: &&String| gpu_in(name).is_none_or(|gpu| gpu.name == subject.gpu.name);
    let mut times = BTreeMap::new();
    for name in tables.kernels.iter().filter(own) {
        times = kernels(&Table::read(folder, name)?, &subject, &composition)?;
        if !times.is_empty() {
            break;
        }
    }
    if times.is_empty() {
        let shape = &subject.model.shape;
        return Err(wrong(format!(
            "has no rows of {} on {} with tp {}: n_embd {}, n_head {}, n_expanded_embd {}",
            subject.model.name,
            subject.gpu.name,
            subject.tensor_parallel,
            shape.hidden,
            shape.heads,
            shape.mlp
        )));
    }
    for (name, times) in times {
        composition.measure(name, times.into_iter().collect()).map_err(wrong)?;
    }
    let attention = match tables.attention.iter().find(own) {
        Some(name) => Some(Table::read(folder, name)?),
        None => None,
    };
    let grids = cached_attention::grids(attention.as_ref(), &mut composition, &subject)?;
    Ok(composition.finish(&SOURCE, grids, None))
}

/// Times by kernel and tokens, of this model and split, microseconds.
fn kernels(
    table: &Table,
    subject: &Subject<'_>,
    composition: &Composition<'_>,
) -> Result<BTreeMap<&'static str, BTreeMap<u32, f64>>, ImportError> {
    let identity = table.columns(["n_head", "n_kv_head", "n_embd", "n_expanded_embd"])?;
    let split = table.column("num_tensor_parallel_workers").or_else(|_| table.column("tp"))?;
    let tokens = table.column("num_tokens")?;
    let norms = [timed(table, NORMS[0])?, timed(table, NORMS[1])?];
    let mut columns = Vec::new();
    for (theirs, ours) in KERNELS {
        columns.push((timed(table, theirs)?, ours));
    }
    let shape = &subject.model.shape;
    let kv_heads = composition.heads.kv_heads * subject.tensor_parallel;
    let wanted = [shape.heads, kv_heads, shape.hidden, shape.mlp, subject.tensor_parallel];
    let mut times: BTreeMap<&'static str, BTreeMap<u32, f64>> = BTreeMap::new();
    for row in table.rows() {
        let own = identity.into_iter().chain([split]).zip(wanted);
        if own.into_iter().any(|(column, wanted)| row.text(column).parse() != Ok(wanted)) {
            continue;
        }
        let count: u32 = row.number(tokens)?;
        for &(column, name) in &columns {
            times.entry(name).or_default().insert(count, row.time(column)? * 1e3);
        }
        let both_ms = row.time(norms[0])? + row.time(norms[1])?;
        times.entry("norms").or_default().insert(count, both_ms / 2.0 * 1e3);
    }
    Ok(times)
}

/// The column of a kernel's time: the compact form, or the median of Vidur's own files.
fn timed(table: &Table, kernel: &str) -> Result<usize, ImportError> {
    table.column(&median(kernel)).or_else(|_| table.column(&format!("{kernel}_ms")))
}

fn median(kernel: &str) -> String {
    format!("time_stats.{kernel}.median")
}

#[cfg(test)]
#[path = "vidur_tests.rs"]
mod tests;
