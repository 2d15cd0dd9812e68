//! AIConfigurator's kernel tables: one folder for each GPU, kernels by shape, of any model. A model's layer is composed
//! from the kernels of its shapes.
//!
//! `gemm` has matrices by `m` (tokens), `n`, `k`; `context_attention` prompts by heads, batch and length;
//! `generation_attention` decodes by heads, batch and context; `allreduce_vllm` messages by *elements*. Of the 8-bit
//! matrices only those with one scale a tensor are used: `fp8_block` was measured outside CUDA graphs and never takes
//! less than about 60 us.

use std::collections::BTreeMap;
use std::path::Path;

use forerun_sim::catalog::WeightType;

use super::closed::{Decodes, HISTORIES, Prefills};
use super::compose::{Composition, Matrix, Source};
use super::subject::Subject;
use super::{ImportError, Options, rounded};
use crate::profile::{Grids, Op};
use crate::rows::{Table, find};
use crate::smooth::{Scatter, rising};

const SOURCE: Source = Source {
    source: "AIConfigurator's kernel tables (Apache-2.0), composed by the model's shapes",
    engine: "vLLM 0.24 (A100: 0.14)",
};

/// Kernels that are matrix products with weights of the model's type; the LM head stays in 16 bits.
const PRODUCTS: [&str; 4] = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"];

/// Steps at which all-reduces are tabulated, tokens.
const TOKENS: [u32; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];

pub(super) fn import(folder: &Path, options: &Options<'_>) -> Result<crate::profile::Profile, ImportError> {
    let wrong = |why: String| ImportError::new(folder, why);
    let subject = Subject::find(folder, options).map_err(wrong)?;
    let mut composition = Composition::new(subject).map_err(wrong)?;
    let table = Table::read(folder, "gemm")?;
    let wide = Gemms::read(&table, "bfloat16")?.ok_or_else(|| table.error("has no rows of bfloat16"))?;
    let narrow = Gemms::read(&table, "fp8")?;
    let weights = composition.model().shape.weights.linear;
    for name in PRODUCTS.into_iter().chain(["lm_head"]) {
        let Some(matrix) = composition.matrix(name) else { continue };
        let times = match weights {
            _ if name == "lm_head" => wide.times(matrix),
            WeightType::Bf16 | WeightType::Fp16 => wide.times(matrix),
            WeightType::Fp8 => match &narrow {
                Some(narrow) => wide.times(matrix).and_then(|wide| Ok(faster(wide, &narrow.times(matrix)?))),
                None => continue,
            },
            WeightType::Mxfp4 | WeightType::W4a16 | WeightType::W8a8 => continue,
        };
        let times = times.map_err(|why| table.error(format!("{why}, which `{name}` needs")))?;
        if let Some(size) = wide.beyond(matrix) {
            composition.notes.push(format!(
                "`{name}` is {} by {}, and matrices were measured up to {size}: beyond, the last efficiency is held",
                matrix.k, matrix.n
            ));
        }
        composition.measure(name, times).map_err(wrong)?;
    }
    let attention = attention(folder, &mut composition, subject.kv_element_bytes)?;
    let all_reduce = match find(folder, "allreduce_vllm") {
        Some(_) if subject.tensor_parallel > 1 => {
            all_reduce(&Table::read(folder, "allreduce_vllm")?, &subject)?
        }
        _ => None,
    };
    Ok(composition.finish(&SOURCE, attention, all_reduce))
}

/// A server takes the faster kernel of both.
fn faster(wide: Vec<(u32, f64)>, narrow: &[(u32, f64)]) -> Vec<(u32, f64)> {
    let narrow: BTreeMap<u32, f64> = narrow.iter().copied().collect();
    let least = |(tokens, us): (u32, f64)| (tokens, narrow.get(&tokens).map_or(us, |own| own.min(us)));
    wide.into_iter().map(least).collect()
}

/// Times of matrices of one type: by (n, k), then by tokens.
struct Gemms {
    times: BTreeMap<(u32, u32), BTreeMap<u32, f64>>,
    sizes: Vec<u32>,
}

impl Gemms {
    /// The matrices of this type, if there are any.
    fn read(table: &Table, kind: &str) -> Result<Option<Self>, ImportError> {
        let [dtype, m, n, k, us] = table.columns(["gemm_dtype", "m", "n", "k", "latency_us"])?;
        let mut times: BTreeMap<(u32, u32), BTreeMap<u32, f64>> = BTreeMap::new();
        for row in table.rows().filter(|row| row.text(dtype) == kind) {
            let (n, k): (u32, u32) = (row.number(n)?, row.number(k)?);
            if n == 0 || k == 0 {
                return Err(row.error("a matrix of size 0"));
            }
            times.entry((n, k)).or_default().insert(row.number(m)?, row.time(us)?);
        }
        let mut sizes: Vec<u32> = times.keys().flat_map(|(n, k)| [*n, *k]).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Ok((!sizes.is_empty()).then_some(Self { times, sizes }))
    }

    /// The largest size, if a side of the matrix is beyond it.
    fn beyond(&self, matrix: Matrix) -> Option<u32> {
        self.sizes.last().copied().filter(|&last| matrix.n > last || matrix.k > last)
    }

    /// The product with a matrix. Between the sizes of the table the logarithm of time is linear in those of the
    /// sizes; beyond the largest, time grows in proportion.
    fn times(&self, matrix: Matrix) -> Result<Vec<(u32, f64)>, String> {
        let (along_n, beyond_n) = self.between(matrix.n);
        let (along_k, beyond_k) = self.between(matrix.k);
        let mut corners = Vec::new();
        for (n, weight_n) in along_n {
            for (k, weight_k) in along_k {
                if weight_n * weight_k > 0.0 {
                    let times = self.times.get(&(n, k));
                    let times = times.ok_or_else(|| format!("has no matrix of n {n}, k {k}"))?;
                    corners.push((times, weight_n * weight_k));
                }
            }
        }
        let first = corners.first().map(|(times, _)| *times).into_iter().flatten();
        let time = |(&tokens, _): (&u32, &f64)| {
            let mut log = 0.0;
            for (times, weight) in &corners {
                log += weight * libm::log(*times.get(&tokens)?);
            }
            Some((tokens, libm::exp(log) * beyond_n * beyond_k))
        };
        let times: Vec<(u32, f64)> = first.filter_map(time).collect();
        if times.is_empty() {
            return Err(format!(
                "has no number of tokens common to the matrices around n {}, k {}",
                matrix.n, matrix.k
            ));
        }
        Ok(times)
    }

    /// The sizes below and above with their weights, and by how much it exceeds the largest.
    fn between(&self, size: u32) -> ([(u32, f64); 2], f64) {
        let last = self.sizes.len() - 1;
        let above = self.sizes.partition_point(|&own| own < size);
        if above > last {
            return ([(self.sizes[last], 1.0), (0, 0.0)], f64::from(size) / f64::from(self.sizes[last]));
        }
        let upper = self.sizes[above];
        let Some(&lower) = above.checked_sub(1).and_then(|below| self.sizes.get(below)) else {
            return ([(upper, 1.0), (0, 0.0)], 1.0);
        };
        if upper == size {
            return ([(upper, 1.0), (0, 0.0)], 1.0);
        }
        let log = |size: u32| libm::log(f64::from(size));
        let share = (log(size) - log(lower)) / (log(upper) - log(lower));
        ([(lower, 1.0 - share), (upper, share)], 1.0)
    }
}

fn attention(
    folder: &Path,
    composition: &mut Composition<'_>,
    kv_element_bytes: u32,
) -> Result<Grids, ImportError> {
    let generation = Table::read(folder, "generation_attention")?;
    let measured = decodes(&scatter(&generation, "context", composition, kv_element_bytes)?);
    let decodes = measured.unwrap_or_else(|| {
        composition
            .notes
            .push("decode attention is a closed form: the table has no rows of these heads".into());
        composition.closed.decodes()
    });
    let context = Table::read(folder, "context_attention")?;
    let measured = prefills(&scatter(&context, "isl", composition, kv_element_bytes)?);
    let prefills = measured.unwrap_or_else(|| {
        composition
            .notes
            .push("prefill attention is a closed form: the table has no rows of these heads".into());
        composition.closed.prefills()
    });
    composition.notes.push(
        "prompts with a history take as long as one prompt of as many query-key pairs; what batches of prompts and decodes take beyond both is a closed form".into(),
    );
    Ok(composition.closed.grids(decodes, prefills))
}

/// Times of the model's heads in bf16, at `[0, 0, batch, length]`.
fn scatter(
    table: &Table,
    length: &str,
    composition: &Composition<'_>,
    kv_element_bytes: u32,
) -> Result<Scatter, ImportError> {
    let [kind, kv_kind] = table.columns(["attn_dtype", "kv_cache_dtype"])?;
    let heads = table.columns(["num_heads", "num_key_value_heads", "head_dim"])?;
    let [batch, length, us] = table.columns(["batch_size", length, "latency_us"])?;
    let own = composition.heads;
    let wanted = [own.heads, own.kv_heads, own.head_dim].map(|count| count.to_string());
    let cache = if kv_element_bytes == 1 { "fp8" } else { "bfloat16" };
    let mut times = Scatter::default();
    for row in table.rows() {
        let same = heads.iter().zip(&wanted).all(|(&column, wanted)| row.text(column) == wanted);
        if same && row.text(kind) == "bfloat16" && row.text(kv_kind) == cache {
            times.insert([0, 0, row.number(batch)?, row.number(length)?], row.time(us)?);
        }
    }
    Ok(times)
}

/// Decodes: where a context was not measured with so many of them, they read on at the last rate.
fn decodes(measured: &Scatter) -> Option<Decodes> {
    let (decodes, contexts) = (measured.axis(2), measured.axis(3));
    if decodes.is_empty() {
        return None;
    }
    let mut us = Vec::with_capacity(decodes.len() * contexts.len());
    for &count in &decodes {
        let known = contexts.iter().filter_map(|&at| Some((at, measured.get([0, 0, count, at])?)));
        let row: Vec<(u32, f64)> = known.collect();
        us.extend(contexts.iter().map(|&context| along(&row, f64::from(context))));
    }
    Some(Decodes { decodes, contexts, us })
}

/// Prompts alone in their batch, by chunk and history.
fn prefills(measured: &Scatter) -> Option<Prefills> {
    let lengths = measured.axis(3).into_iter();
    let prompts: Vec<(u32, f64)> =
        lengths.filter_map(|length| Some((length, measured.get([0, 0, 1, length])?))).collect();
    let &(first, _) = prompts.first()?;
    let chunks: Vec<u32> = std::iter::once(0).chain(prompts.iter().map(|(length, _)| *length)).collect();
    let mut us = Vec::with_capacity(chunks.len() * HISTORIES.len());
    for &chunk in &chunks {
        // Below the smallest chunk a prefill takes as long as it.
        let chunk = f64::from(chunk.max(first));
        for history in HISTORIES.map(f64::from) {
            // The prompt of so many query-key pairs: L (L + 1) / 2 = chunk history + chunk (chunk + 1) / 2.
            let pairs = chunk * history + chunk * (chunk + 1.0) / 2.0;
            us.push(along(&prompts, ((8.0 * pairs + 1.0).sqrt() - 1.0) / 2.0));
        }
    }
    Some(Prefills { chunks, histories: HISTORIES.to_vec(), us })
}

/// Linear between ascending points; before the first its time, beyond the last with the slope of the two before it.
fn along(points: &[(u32, f64)], at: f64) -> f64 {
    let [(first, first_us), .., _] = *points else { return points.first().map_or(0.0, |point| point.1) };
    if at <= f64::from(first) {
        return first_us;
    }
    let above = points.partition_point(|(own, _)| f64::from(*own) < at).min(points.len() - 1);
    let ((from, from_us), (to, to_us)) = (points[above - 1], points[above]);
    let slope = ((to_us - from_us) / f64::from(to - from)).max(0.0);
    from_us + slope * (at - f64::from(from))
}

/// vLLM's custom all-reduce in a CUDA graph, of the hidden states of a step's tokens. Messages are in elements.
fn all_reduce(table: &Table, subject: &Subject<'_>) -> Result<Option<Op>, ImportError> {
    let [source, kind, count] = table.columns(["kernel_source", "allreduce_dtype", "num_gpus"])?;
    let [size, us] = table.columns(["message_size", "latency_us"])?;
    let mut messages: BTreeMap<u32, f64> = BTreeMap::new();
    for row in table.rows() {
        let used = row.text(source) == "vLLM_custom_graph" && row.text(kind) == "bfloat16";
        if used && row.number::<u32>(count)? == subject.tensor_parallel {
            messages.insert(row.number(size)?, row.time(us)?);
        }
    }
    if messages.is_empty() {
        return Ok(None);
    }
    let messages: Vec<(u32, f64)> = messages.into_iter().collect();
    let elements = |tokens: u32| f64::from(tokens) * f64::from(subject.model.shape.hidden);
    let mut us: Vec<f64> = TOKENS.iter().map(|&tokens| along(&messages, elements(tokens))).collect();
    rising(&mut us, &[TOKENS.len()]);
    Ok(Some(Op { op: "all-reduce".into(), from: None, times: 2.0, at: TOKENS.to_vec(), us: rounded(us) }))
}

#[cfg(test)]
#[path = "aiconfigurator_tests.rs"]
mod tests;
