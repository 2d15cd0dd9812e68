//! Attention measured by batch, chunk and KV cache: Vidur's layout, which LLMServingSim's first one shares. Times are
//! milliseconds.

use super::ImportError;
use super::closed::{Decodes, Prefills};
use super::compose::{ABOVE_PEAK, Composition};
use super::subject::Subject;
use crate::profile::Grids;
use crate::rows::{Row, Table};
use crate::smooth::Scatter;

/// Each point of an axis that is kept is at least so much larger than the one before.
const SPACING: f64 = 1.4;

/// Reads of more KV cache than this come from memory, not from a GPU's last-level cache (50 to 126 MB), bytes.
const FROM_MEMORY: f64 = 256e6;

/// The columns of a table.
struct Columns {
    model: [usize; 4],
    shape: [usize; 3],
    prefill_ms: usize,
    decode_ms: usize,
}

impl Columns {
    fn find(table: &Table) -> Result<Self, ImportError> {
        let [hidden, heads, kv_heads] = table.columns(["n_embd", "n_q_head", "n_kv_head"])?;
        let split = table.column("num_tensor_parallel_workers").or_else(|_| table.column("tp"))?;
        let (prefill_ms, decode_ms) = match table.column("attn_ms") {
            Ok(both) => (both, both),
            Err(_) => {
                let [prefill, decode] =
                    table.columns(["time_stats.attn_prefill.median", "time_stats.attn_decode.median"])?;
                (prefill, decode)
            }
        };
        let shape = table.columns(["batch_size", "prefill_chunk_size", "kv_cache_size"])?;
        Ok(Self { model: [hidden, heads, kv_heads, split], shape, prefill_ms, decode_ms })
    }
}

/// The grids of the model's heads. What the table has not, or what no GPU could do, is a closed form, and noted.
pub(super) fn grids(
    table: Option<&Table>,
    composition: &mut Composition<'_>,
    subject: &Subject<'_>,
) -> Result<Grids, ImportError> {
    let all = table.map(|table| read(table, composition, subject)).transpose()?.unwrap_or_default();
    let decode = sound(&all.only(|at| at[0] == 0), "decode attention", composition, subject);
    let prefill = sound(&all.only(|at| at[0] > 0 && at[2] == 1), "prefill attention", composition, subject);
    let decodes = match decode {
        Some(measured) => {
            let filled = measured.fill();
            let [_, _, decodes, contexts] = filled.axes;
            Decodes { decodes, contexts, us: filled.us }
        }
        None => composition.closed.decodes(),
    };
    let prefills = match prefill {
        Some(measured) => {
            let filled = measured.only(|at| at[2] == 1).fill();
            let [chunks, _, _, histories] = filled.axes;
            // Below the smallest chunk a prefill takes as long as it.
            let us = [&filled.us[..histories.len()], &filled.us].concat();
            Prefills { chunks: std::iter::once(0).chain(chunks).collect(), histories, us }
        }
        None => composition.closed.prefills(),
    };
    Ok(composition.closed.grids(decodes, prefills))
}

/// Times of this model and split, microseconds, at `[chunk, 0, batch, tokens in the cache]`.
fn read(table: &Table, composition: &Composition<'_>, subject: &Subject<'_>) -> Result<Scatter, ImportError> {
    let columns = Columns::find(table)?;
    let shape = &composition.model().shape;
    let kv_heads = composition.heads.kv_heads * subject.tensor_parallel;
    let wanted =
        [shape.hidden, shape.heads, kv_heads, subject.tensor_parallel].map(|count| count.to_string());
    let mut times = Scatter::default();
    for row in table.rows() {
        if columns.model.iter().zip(&wanted).any(|(&column, wanted)| row.text(column) != wanted) {
            continue;
        }
        let [batch, chunk, cached] = numbers(&row, columns.shape)?;
        let ms = row.time(if chunk > 0 { columns.prefill_ms } else { columns.decode_ms })?;
        times.insert([chunk, 0, batch, cached], ms * 1e3);
    }
    Ok(times)
}

fn numbers<const N: usize>(row: &Row<'_>, columns: [usize; N]) -> Result<[u32; N], ImportError> {
    let mut values = [0; N];
    for (value, column) in values.iter_mut().zip(columns) {
        *value = row.number(column)?;
    }
    Ok(values)
}

/// The times, thinned out; none where there are none, or where one of them is faster than the GPU can be.
fn sound(
    times: &Scatter,
    what: &str,
    composition: &mut Composition<'_>,
    subject: &Subject<'_>,
) -> Option<Scatter> {
    if times.axis(2).is_empty() {
        composition.notes.push(format!("{what} is a closed form: no rows of this model and split"));
        return None;
    }
    let gpu = subject.gpu;
    let excess = |at: [u32; 4], us: f64| rate(at, us, composition, subject).map(|rate| rate.excess(gpu));
    let fastest = times.points().filter_map(|(at, us)| excess(at, us)).fold(0.0, f64::max);
    if fastest > ABOVE_PEAK {
        let (rate, unit, peak) = match times.axis(0).as_slice() {
            [0] => (fastest * gpu.memory_bytes_per_s, "TB/s", gpu.memory_bytes_per_s),
            _ => (fastest * gpu.peak_bf16_flops, "TFLOP/s", gpu.peak_bf16_flops),
        };
        composition.notes.push(format!(
            "{what} is not used: it implies up to {:.1} {unit}, and {} has {:.1}; closed forms stand in its place",
            rate / 1e12,
            gpu.name,
            peak / 1e12
        ));
        return None;
    }
    let axes = [0, 2, 3].map(|dimension| spaced(&times.axis(dimension)));
    Some(times.only(|at| axes[0].contains(&at[0]) && axes[1].contains(&at[2]) && axes[2].contains(&at[3])))
}

/// What a time says of a GPU.
enum Rate {
    BytesPerSecond(f64),
    FlopsPerSecond(f64),
}

impl Rate {
    /// As a multiple of the GPU's peak.
    fn excess(&self, gpu: &forerun_sim::catalog::Gpu) -> f64 {
        match self {
            Self::BytesPerSecond(rate) => rate / gpu.memory_bytes_per_s,
            Self::FlopsPerSecond(rate) => rate / gpu.peak_bf16_flops,
        }
    }
}

/// Of decodes that read much, their bandwidth; of prefills, their FLOP/s.
fn rate(at: [u32; 4], us: f64, composition: &Composition<'_>, subject: &Subject<'_>) -> Option<Rate> {
    let [chunk, _, batch, cached] = at.map(f64::from);
    let heads = composition.heads;
    if chunk > 0.0 {
        let pairs = chunk * cached + chunk * (chunk + 1.0) / 2.0;
        let flops = 4.0 * f64::from(heads.heads * heads.head_dim) * batch * pairs;
        return Some(Rate::FlopsPerSecond(flops / us * 1e6));
    }
    let elements = 2.0 * f64::from(heads.kv_heads * heads.head_dim) * batch * cached;
    let bytes = elements * f64::from(subject.kv_element_bytes);
    (bytes > FROM_MEMORY).then(|| Rate::BytesPerSecond(bytes / us * 1e6))
}

/// The first and last points of an axis, and those between them that are well apart.
fn spaced(axis: &[u32]) -> Vec<u32> {
    let mut kept: Vec<u32> = Vec::new();
    for (index, &point) in axis.iter().enumerate() {
        let apart = kept.last().is_none_or(|&last| f64::from(point) >= f64::from(last) * SPACING);
        if apart || index + 1 == axis.len() {
            kept.push(point);
        }
    }
    kept
}
