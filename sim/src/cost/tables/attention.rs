//! Attention of one layer from measured grids.
//!
//! Decodes are measured by their number and the context of each, a prefill by its chunk and history, and batches of
//! both by all four. Measured decodes are equally long; in a batch of unequal ones the longest takes longer than the
//! mean, so that `A = A(mean) + alpha (A(longest) - A(mean))`, with alpha by the number of decodes.
//!
//! Beyond the grids the efficiency of the boundary is held: time grows in proportion to further decodes, and with
//! the last slope along chunk, history and context.

use super::curve::{Axis, Cell, check_times};
use crate::cost::{Piece, StepShape};

/// Times over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    rows: Axis,
    columns: Axis,
    us: Vec<f64>,
}

impl Plane {
    /// Times `us` in microseconds, row by row.
    ///
    /// # Errors
    /// When the axes do not ascend, or there are not as many times as points, or a time falls along an axis.
    pub fn new(rows: Vec<u32>, columns: Vec<u32>, us: Vec<f64>) -> Result<Self, String> {
        let (rows, columns) = (Axis::new(rows)?, Axis::new(columns)?);
        check_times(&us, rows.len() * columns.len())?;
        check_rising(&us, &[rows.len(), columns.len()])?;
        Ok(Self { rows, columns, us })
    }

    /// Time at a point, bilinear; the nearest of the grid for a point outside.
    #[must_use]
    pub fn us(&self, row: f64, column: f64) -> f64 {
        let cell = self.rows.cell(row);
        self.columns.cell(column).mix(|column| self.at(cell, column))
    }

    fn at(&self, row: Cell, column: usize) -> f64 {
        row.mix(|row| self.us[row * self.columns.len() + column])
    }

    /// Bilinear inside; along either axis with the slope of the last cell beyond.
    fn extended(&self, row: f64, column: f64) -> f64 {
        let (held_row, held_column) = (row.min(self.rows.last()), column.min(self.columns.last()));
        let base = self.us(held_row, held_column);
        let mut us = base;
        if row > held_row && self.rows.len() > 1 {
            let before = self.rows.at(self.rows.len() - 2);
            us += (base - self.us(before, held_column)) * (row - held_row) / (held_row - before);
        }
        if column > held_column && self.columns.len() > 1 {
            let before = self.columns.at(self.columns.len() - 2);
            us += (base - self.us(held_row, before)) * (column - held_column) / (held_column - before);
        }
        us
    }
}

/// Times over four axes: prefill chunk, prefill history, number of decodes, context of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Solid {
    chunks: Axis,
    histories: Axis,
    decodes: Axis,
    contexts: usize,
    us: Vec<f64>,
}

impl Solid {
    /// Times `us` in microseconds, the last axis fastest.
    ///
    /// # Errors
    /// As [`Plane::new`].
    pub fn new(axes: [Vec<u32>; 4], us: Vec<f64>) -> Result<Self, String> {
        let [chunks, histories, decodes, contexts] = axes;
        let contexts = Axis::new(contexts)?.len();
        let solid = Self {
            chunks: Axis::new(chunks)?,
            histories: Axis::new(histories)?,
            decodes: Axis::new(decodes)?,
            contexts,
            us: Vec::new(),
        };
        let shape = [solid.chunks.len(), solid.histories.len(), solid.decodes.len(), contexts];
        check_times(&us, shape.iter().product())?;
        check_rising(&us, &shape)?;
        Ok(Self { us, ..solid })
    }

    fn at(&self, chunk: Cell, history: Cell, decodes: Cell, context: usize) -> f64 {
        chunk.mix(|c| {
            history.mix(|h| {
                decodes.mix(|n| {
                    let index = (c * self.histories.len() + h) * self.decodes.len() + n;
                    self.us[index * self.contexts + context]
                })
            })
        })
    }
}

/// More work never takes less time, along every axis.
fn check_rising(us: &[f64], shape: &[usize]) -> Result<(), String> {
    let mut stride = us.len();
    for &points in shape {
        stride /= points;
        for index in 0..us.len() {
            let last = index / stride % points == points - 1;
            if !last && us[index + stride] < us[index] {
                return Err("times fall with more work: they must not decrease along any axis".into());
            }
        }
    }
    Ok(())
}

/// How much of the way to the time at the longest decode's length a batch of unequal decodes takes: by the number of
/// decodes, without and with a prefill beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Skew {
    decodes: Axis,
    alone: Vec<f64>,
    mixed: Vec<f64>,
}

impl Skew {
    /// Shares of the way, each from 0 to 1.
    ///
    /// # Errors
    /// When the axis does not ascend, or a share is not one.
    pub fn new(decodes: Vec<u32>, alone: Vec<f64>, mixed: Vec<f64>) -> Result<Self, String> {
        let decodes = Axis::new(decodes)?;
        for alphas in [&alone, &mixed] {
            check_times(alphas, decodes.len())?;
            if let Some(alpha) = alphas.iter().find(|&&alpha| alpha > 1.0) {
                return Err(format!("alpha {alpha} is more than 1"));
            }
        }
        Ok(Self { decodes, alone, mixed })
    }

    fn alpha(&self, decodes: u32, prefills: bool) -> f64 {
        let alphas = if prefills { &self.mixed } else { &self.alone };
        self.decodes.cell(f64::from(decodes)).mix(|node| alphas[node])
    }
}

/// The grids of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Rows: number of decodes. Columns: context of each.
    decode: Plane,
    /// Rows: chunk. Columns: history.
    prefill: Plane,
    /// Without it a batch of both takes the time of both.
    mixed: Option<Solid>,
    skew: Option<Skew>,
}

/// What a step asks of the grids but for the context of its decodes.
#[derive(Clone, Copy, Debug)]
struct Query {
    chunk: f64,
    history: f64,
    decodes: f64,
}

impl Attention {
    /// The grids `decode` (decodes by context), `prefill` (chunk by history) and, over all four, `mixed`.
    ///
    /// # Errors
    /// When `mixed` has other contexts than `decode`.
    pub fn new(
        decode: Plane,
        prefill: Plane,
        mixed: Option<Solid>,
        skew: Option<Skew>,
    ) -> Result<Self, String> {
        if mixed.as_ref().is_some_and(|mixed| mixed.contexts != decode.columns.len()) {
            return Err("the grids of decodes alone and of mixed batches have other contexts".into());
        }
        Ok(Self { decode, prefill, mixed, skew })
    }

    /// Largest chunk, history, number of decodes and context of a decode that were measured.
    #[must_use]
    pub fn measured(&self) -> [u32; 4] {
        let Plane { rows: chunks, columns: histories, .. } = &self.prefill;
        let Plane { rows: decodes, columns: contexts, .. } = &self.decode;
        [chunks, histories, decodes, contexts].map(|axis| axis.last() as u32)
    }

    /// Time of this attention `layers` times over, in nanoseconds: at the beginning of two pieces, by the context of
    /// all decodes and by that of the longest.
    pub(super) fn prepare(&self, shape: &StepShape, layers: f64) -> (f64, Piece, Piece) {
        let (chunk, history) = single_prefill(shape);
        let query = Query { chunk, history, decodes: f64::from(shape.decodes) };
        let ns = layers * 1e3;
        if shape.decodes == 0 {
            let us = if shape.prefills == 0 { 0.0 } else { self.prefill.extended(chunk, history) };
            return (us * ns, Piece::default(), Piece::default());
        }
        let alpha = self.skew.as_ref().map_or(0.0, |skew| skew.alpha(shape.decodes, shape.prefills > 0));
        let decodes = u64::from(shape.decodes);
        let (mean_ns, mean) = self.piece(&query, shape.decode_context, decodes, ns * (1.0 - alpha));
        if alpha == 0.0 {
            return (mean_ns, mean, Piece::default());
        }
        let (longest_ns, longest) = self.piece(&query, shape.decode_longest, 1, ns * alpha);
        (mean_ns + longest_ns, mean, longest)
    }

    /// The piece in which `tokens` of context, of `sharers` decodes together, lie; and its beginning in nanoseconds.
    fn piece(&self, query: &Query, tokens: u64, sharers: u64, ns: f64) -> (f64, Piece) {
        let contexts = self.decode.columns.points();
        let begins = |node: usize| u64::from(contexts[node]) * sharers;
        let after = contexts.partition_point(|&context| u64::from(context) * sharers <= tokens);
        let last = contexts.len() - 1;
        if after == 0 || last == 0 {
            let until = if last == 0 { u64::MAX } else { begins(0) - 1 };
            return (self.node_us(query, 0) * ns, Piece { from: 0, until, ns_per_token: 0.0 });
        }
        let node = after - 1;
        // Beyond the last context the last slope is held.
        let slope_from = node.min(last - 1);
        let rise = self.node_us(query, slope_from + 1) - self.node_us(query, slope_from);
        let ns_per_token = rise * ns / (begins(slope_from + 1) - begins(slope_from)) as f64;
        let until = if node == last { u64::MAX } else { begins(after) - 1 };
        (self.node_us(query, node) * ns, Piece { from: begins(node), until, ns_per_token })
    }

    /// Time with decodes that all have the context of column `context`.
    fn node_us(&self, query: &Query, context: usize) -> f64 {
        let decodes = self.decode.rows.cell(query.decodes);
        let measured = self.decode.at(decodes, context);
        let decode = measured * (query.decodes / self.decode.rows.last()).max(1.0);
        if query.chunk == 0.0 {
            return decode;
        }
        let prefill = self.prefill.extended(query.chunk, query.history);
        let Some(mixed) = &self.mixed else { return prefill + decode };
        let chunk = query.chunk.min(mixed.chunks.last());
        let history = query.history.min(mixed.histories.last());
        let held = mixed.decodes.cell(query.decodes);
        let inside = mixed.at(mixed.chunks.cell(chunk), mixed.histories.cell(history), held, context);
        let few = self.decode.at(self.decode.rows.cell(query.decodes.min(mixed.decodes.last())), context);
        inside + (prefill - self.prefill.extended(chunk, history)) + (decode - few)
    }
}

/// One prefill with the tokens and query-key pairs of all those of the step: its chunk and its history. Several short
/// prompts have fewer pairs than one of all their tokens; they become a shorter one.
fn single_prefill(shape: &StepShape) -> (f64, f64) {
    let chunk = f64::from(shape.prefill_tokens);
    let pairs = shape.prefill_pairs as f64;
    let own_pairs = chunk * (chunk + 1.0) / 2.0;
    if shape.prefill_tokens == 0 {
        (0.0, 0.0)
    } else if pairs >= own_pairs {
        (chunk, (pairs - own_pairs) / chunk)
    } else {
        (((8.0 * pairs + 1.0).sqrt() - 1.0) / 2.0, 0.0)
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
