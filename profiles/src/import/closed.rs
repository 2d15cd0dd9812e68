//! Closed forms tabulated: what a profile takes where nothing was measured.

use forerun_sim::catalog::{Gpu, Model};
use forerun_sim::cost::StepShape;
use forerun_sim::cost::closed_form::{ClosedForm, ClosedFormInput, SKEW};
use forerun_sim::cost::op::{Form, Op as Kernel};
use forerun_sim::time::Span;

use super::rounded;
use super::subject::Subject;
use crate::profile::{Grids, Op, SkewTable};
use crate::smooth::rising;

/// Tokens or sequences at which kernels are tabulated.
const COUNTS: [u32; 22] = [
    1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16_384,
    32_768,
];

/// Axes of the attention grids.
const DECODES: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
const CONTEXTS: [u32; 14] =
    [16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072];
const CHUNKS: [u32; 13] = [0, 16, 64, 128, 256, 512, 1024, 2048, 3072, 4096, 8192, 16_384, 32_768];
/// Tokens computed before a chunk, where a table says nothing of them.
pub(super) const HISTORIES: [u32; 8] = [0, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];

/// Kernels that run once a step, for the requests that sample.
const PER_SEQUENCE: [&str; 3] = ["final norm", "lm_head", "sampler"];

/// Attention of decodes alone: times by their number, then by the context of each.
pub(super) struct Decodes {
    pub(super) decodes: Vec<u32>,
    pub(super) contexts: Vec<u32>,
    pub(super) us: Vec<f64>,
}

/// Attention of prefills alone: times by chunk, the first of them 0, then by history.
pub(super) struct Prefills {
    pub(super) chunks: Vec<u32>,
    pub(super) histories: Vec<u32>,
    pub(super) us: Vec<f64>,
}

/// The closed forms of one model on one GPU's share of it.
pub(super) struct Closed<'a> {
    gpu: &'a Gpu,
    model: &'a Model,
    form: ClosedForm,
}

impl<'a> Closed<'a> {
    pub(super) fn new(subject: &Subject<'a>) -> Result<Self, String> {
        let Subject { gpu, model, tensor_parallel, kv_element_bytes } = *subject;
        let form = ClosedForm::new(&ClosedFormInput {
            gpu,
            model,
            tensor_parallel,
            kv_element_bytes,
            // Without sequences nothing is padded to a CUDA graph: a replica pads itself.
            max_num_seqs: 0,
            max_num_batched_tokens: 0,
            data_parallel: 1,
            cpu_per_step: Span::ZERO,
            cpu_per_request: Span::ZERO,
        })?;
        Ok(Self { gpu, model, form })
    }

    /// Kernels by the tokens of a step, but for attention and all-reduces; how often each runs in a step.
    pub(super) fn by_tokens(&self) -> Vec<Op> {
        let other = |op: &Kernel| !is_attention(op.form) && !matches!(op.form, Form::AllReduce(_));
        tabulated(|tokens| self.form.ops(&prefill(tokens, 0)), other)
    }

    /// Kernels by the sequences that sample.
    pub(super) fn by_sequences(&self) -> Vec<Op> {
        let step = |sampled| self.form.ops(&StepShape { sampled, ..prefill(1, 0) });
        tabulated(step, |op| PER_SEQUENCE.contains(&op.name))
    }

    pub(super) fn decodes(&self) -> Decodes {
        let mut us = Vec::with_capacity(DECODES.len() * CONTEXTS.len());
        for count in DECODES {
            us.extend(CONTEXTS.map(|context| self.attention_us(&decodes(count, context))));
        }
        Decodes { decodes: DECODES.to_vec(), contexts: CONTEXTS.to_vec(), us }
    }

    pub(super) fn prefills(&self) -> Prefills {
        let mut us = Vec::with_capacity(CHUNKS.len() * HISTORIES.len());
        for chunk in CHUNKS {
            us.extend(HISTORIES.map(|history| self.attention_us(&prefill(chunk.max(1), history))));
        }
        Prefills { chunks: CHUNKS.to_vec(), histories: HISTORIES.to_vec(), us }
    }

    /// The grids of a layer. What a batch of both takes beyond both alone is the closed forms', and so is what unequal
    /// lengths do.
    pub(super) fn grids(&self, decodes: Decodes, prefills: Prefills) -> Grids {
        let mixed_us = self.gpu.mixed_batch_tiles.map(|_| rounded(self.mixed_us(&decodes, &prefills)));
        Grids {
            mixed_us,
            decode_us: rounded(risen(decodes.us, &[decodes.decodes.len(), decodes.contexts.len()])),
            decodes: decodes.decodes,
            contexts: decodes.contexts,
            prefill_us: rounded(risen(prefills.us, &[prefills.chunks.len(), prefills.histories.len()])),
            chunks: prefills.chunks,
            histories: prefills.histories,
            skew: Some(SkewTable { decodes: vec![1, 2], alone: vec![0.0, SKEW], mixed: vec![0.0, SKEW] }),
            from: None,
        }
    }

    fn mixed_us(&self, alone: &Decodes, before: &Prefills) -> Vec<f64> {
        let shapes: Vec<StepShape> = alone
            .decodes
            .iter()
            .flat_map(|&count| alone.contexts.iter().map(move |&context| decodes(count, context)))
            .collect();
        let closed_us: Vec<f64> = shapes.iter().map(|shape| self.attention_us(shape)).collect();
        let mut us = Vec::with_capacity(before.us.len() * alone.us.len());
        for (row, &chunk) in before.chunks.iter().enumerate() {
            for (column, &history) in before.histories.iter().enumerate() {
                let first = prefill(chunk, history);
                let (first_us, form_us) =
                    (before.us[row * before.histories.len() + column], self.attention_us(&first));
                for ((&shape, &decode_us), &closed_us) in shapes.iter().zip(&alone.us).zip(&closed_us) {
                    if chunk == 0 {
                        us.push(decode_us);
                        continue;
                    }
                    let both = StepShape {
                        decodes: shape.decodes,
                        decode_context: shape.decode_context,
                        decode_longest: shape.decode_longest,
                        ..first
                    };
                    let more = self.attention_us(&both) - form_us - closed_us;
                    us.push((first_us + decode_us + more).max(first_us.max(decode_us)));
                }
            }
        }
        let axes = [&before.chunks, &before.histories, &alone.decodes, &alone.contexts];
        risen(us, &axes.map(Vec::len))
    }

    /// Attention of one layer.
    fn attention_us(&self, shape: &StepShape) -> f64 {
        let ops = self.form.ops(shape);
        let attention = ops.iter().filter(|op| is_attention(op.form));
        attention.map(Kernel::total_us).sum::<f64>() / f64::from(self.model.shape.layers)
    }
}

fn risen(mut us: Vec<f64>, shape: &[usize]) -> Vec<f64> {
    rising(&mut us, shape);
    us
}

fn is_attention(form: Form) -> bool {
    matches!(
        form,
        Form::PrefillAttention | Form::DecodeBase | Form::DecodeRead | Form::DecodeSkew | Form::MixedTiles
    )
}

fn tabulated(step: impl Fn(u32) -> Vec<Kernel>, keep: impl Fn(&Kernel) -> bool) -> Vec<Op> {
    let mut found: Vec<Op> = Vec::new();
    for count in COUNTS {
        for kernel in step(count).into_iter().filter(&keep) {
            match found.iter_mut().find(|op| op.op == kernel.name) {
                Some(op) => {
                    op.at.push(count);
                    op.us.push(kernel.us);
                }
                None => found.push(Op {
                    op: kernel.name.into(),
                    from: Some("closed form".into()),
                    times: kernel.calls,
                    at: vec![count],
                    us: vec![kernel.us],
                }),
            }
        }
    }
    for op in &mut found {
        let points = op.at.len();
        op.us = rounded(risen(std::mem::take(&mut op.us), &[points]));
    }
    found
}

fn prefill(chunk: u32, history: u32) -> StepShape {
    let (new, before) = (u64::from(chunk), u64::from(history));
    StepShape {
        prefills: 1,
        prefill_tokens: chunk,
        prefill_pairs: new * before + new * (new + 1) / 2,
        prefill_context: before + new,
        prefill_longest: chunk,
        ..StepShape::default()
    }
}

fn decodes(count: u32, context: u32) -> StepShape {
    StepShape {
        decodes: count,
        decode_context: u64::from(count) * u64::from(context),
        decode_longest: context.into(),
        ..StepShape::default()
    }
}
