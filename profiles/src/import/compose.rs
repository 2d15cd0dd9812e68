//! A layer composed from kernels: measured ones as far as a table has them, closed forms for the others.

use forerun_sim::catalog::{Attention, Model};

use super::closed::Closed;
use super::rounded;
use super::subject::Subject;
use crate::profile::{Grids, Op, Profile, SCHEMA};
use crate::smooth::rising;

/// GPUs that run above the clock of their datasheet's peak exceed it by a little.
pub(super) const ABOVE_PEAK: f64 = 1.05;

/// The matrix `k x n` of a kernel on one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub(super) k: u32,
    pub(super) n: u32,
}

/// Heads and their width on one GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadShare {
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_dim: u32,
}

/// Where tables come from.
pub(super) struct Source {
    pub(super) source: &'static str,
    pub(super) engine: &'static str,
}

/// A profile in the making.
pub(super) struct Composition<'a> {
    subject: Subject<'a>,
    pub(super) closed: Closed<'a>,
    pub(super) heads: HeadShare,
    measured: Vec<Op>,
    /// What of the source was not used, and why.
    pub(super) notes: Vec<String>,
}

impl<'a> Composition<'a> {
    pub(super) fn new(subject: Subject<'a>) -> Result<Self, String> {
        let (model, split) = (subject.model, subject.tensor_parallel);
        let Attention::Grouped { kv_heads, head_dim } = model.shape.attention else {
            return Err(format!("{} has latent attention, which profiles do not have", model.name));
        };
        if model.shape.window.is_some() {
            return Err(format!("{} has layers with a window, which profiles do not have", model.name));
        }
        let closed = Closed::new(&subject)?;
        let heads =
            HeadShare { heads: model.shape.heads / split, kv_heads: (kv_heads / split).max(1), head_dim };
        Ok(Self { subject, closed, heads, measured: Vec::new(), notes: Vec::new() })
    }

    pub(super) fn model(&self) -> &'a Model {
        self.subject.model
    }

    /// The matrix of a kernel, if the model has it.
    pub(super) fn matrix(&self, name: &str) -> Option<Matrix> {
        let shape = &self.subject.model.shape;
        let HeadShare { heads, kv_heads, head_dim } = self.heads;
        let (hidden, query, key) = (shape.hidden, heads * head_dim, kv_heads * head_dim);
        let mlp = (shape.dense_layers > 0).then(|| shape.mlp.div_ceil(self.subject.tensor_parallel));
        let (k, n) = match name {
            "qkv_proj" => (hidden, query + 2 * key),
            "o_proj" => (query, hidden),
            "gate_up_proj" => (hidden, 2 * mlp?),
            "down_proj" => (mlp?, hidden),
            "lm_head" => (hidden, shape.vocabulary.div_ceil(self.subject.tensor_parallel)),
            _ => return None,
        };
        Some(Matrix { k, n })
    }

    /// Takes a kernel's times at ascending counts of tokens or sequences.
    ///
    /// # Errors
    /// When they are faster than the GPU can be.
    pub(super) fn measure(&mut self, name: &str, times: Vec<(u32, f64)>) -> Result<(), String> {
        if times.is_empty() {
            return Err(format!("no time of `{name}`"));
        }
        if let Some(Matrix { k, n }) = self.matrix(name) {
            let gpu = self.subject.gpu;
            let peak = gpu.peak_fp8_flops.unwrap_or(gpu.peak_bf16_flops).max(gpu.peak_bf16_flops);
            let rate = |&(count, us): &(u32, f64)| {
                2.0 * f64::from(count) * f64::from(k) * f64::from(n) / (us * 1e-6)
            };
            if let Some((count, us)) = times.iter().find(|time| rate(time) > peak * ABOVE_PEAK) {
                return Err(format!(
                    "`{name}` of {count} tokens takes {us:.3} us, more FLOP/s than {} has: the times, their unit or the GPU are mistaken",
                    gpu.name
                ));
            }
        }
        let (at, mut us): (Vec<u32>, Vec<f64>) = times.into_iter().unzip();
        rising(&mut us, &[at.len()]);
        self.measured.push(Op { op: name.to_owned(), from: None, times: 1.0, at, us: rounded(us) });
        Ok(())
    }

    /// The profile with this attention.
    pub(super) fn finish(mut self, source: &Source, attention: Grids, all_reduce: Option<Op>) -> Profile {
        let Subject { gpu, model, tensor_parallel, kv_element_bytes } = self.subject;
        let mut unmeasured = Vec::new();
        let mut chosen = |op: Op| match self.measured.iter().find(|measured| measured.op == op.op) {
            Some(measured) => Op { times: op.times, ..measured.clone() },
            None => {
                unmeasured.push(op.op.clone());
                op
            }
        };
        let layers = f64::from(model.shape.layers);
        let (mut per_layer, mut per_step) = (Vec::new(), Vec::new());
        for op in self.closed.by_tokens() {
            let op = chosen(op);
            if op.op == "embedding" {
                per_step.push(op);
            } else {
                per_layer.push(Op { times: op.times / layers, ..op });
            }
        }
        let per_sequence = self.closed.by_sequences().into_iter().map(&mut chosen).collect();
        if !unmeasured.is_empty() {
            self.notes.push(format!("closed forms, not in the tables: {}", unmeasured.join(", ")));
        }
        Profile {
            schema: SCHEMA.into(),
            time_unit: "us".into(),
            grade: "measured tables".into(),
            source: source.source.into(),
            engine: source.engine.into(),
            gpu: gpu.name.clone(),
            model: model.name.clone(),
            tensor_parallel,
            dtype: model.shape.weights.linear.to_string(),
            kv_cache_dtype: if kv_element_bytes == 1 { "fp8" } else { "auto" }.into(),
            notes: self.notes,
            per_layer,
            per_step,
            per_sequence,
            moe: None,
            all_reduce,
            attention,
            largest_graph: Some(gpu.max_graph_tokens),
            device: None,
            measured: None,
        }
    }
}
