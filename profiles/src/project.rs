//! vLLM's kernels on a device that was measured with others.
//!
//! candle has no paged FlashAttention and no CUDA graphs, so what is taken over is the device's ceiling:
//!
//! | kernel of vLLM | time | from |
//! |---|---|---|
//! | products of matrices | as measured: both call the vendor's library | measured here |
//! | norms, activation, sampler | bytes over the memory's ceiling | catalog's constants over measured here |
//! | attention | FLOPs and bytes over the ceilings, times the kernel's efficiency relative to products | measured tables of other GPUs, or of this one |
//! | all-reduce | the catalog's | tables |

use forerun_sim::catalog::{self, DecodeAttention, Gpu, Grade, Kernel, Model};
use forerun_sim::cost::StepShape;
use forerun_sim::cost::closed_form::{ClosedForm, ClosedFormInput};
use forerun_sim::cost::op::{Form, Op as FormOp};
use forerun_sim::time::Span;

use crate::measured::{Ceiling, Device, Place, Sample, TimedOp, at_16_bits, curves, median};
use crate::profile::{Grids, Op};
use crate::smooth::rising;

/// Sizes of the tables.
const TOKENS: [u32; 15] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384];
const SEQUENCES: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
const HISTORIES: [u32; 8] = [0, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072];
const CONTEXTS: [u32; 10] = [16, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072];

/// How attention kernels of vLLM compare with products on the same GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Where the figures come from.
    pub source: String,
    /// Share of peak FLOP/s and of bandwidth that prefill attention reaches, relative to products.
    prefill: [f64; 2],
    /// Share of bandwidth that decode attention reaches, relative to products.
    decode: f64,
    launch_us: [f64; 2],
    us_per_sequence_and_kv_head: f64,
}

impl Reference {
    /// That of a GPU of the catalog whose kernels were measured; otherwise the medians of all such GPUs.
    #[must_use]
    pub fn of(gpu: Option<&Gpu>) -> Self {
        match gpu.filter(is_fitted) {
            Some(gpu) => Self::median_of(&[gpu], ""),
            None => {
                Self::median_of(&catalog::gpus().iter().filter(is_fitted).collect::<Vec<_>>(), "median of ")
            }
        }
    }

    fn median_of(all: &[&Gpu], called: &str) -> Self {
        let middle = |figure: fn(&Gpu) -> f64| {
            let mut figures: Vec<f64> = all.iter().map(|gpu| figure(gpu)).collect();
            figures.sort_by(f64::total_cmp);
            median(&figures).expect("the catalog has GPUs whose kernels were fitted")
        };
        let names: Vec<&str> = all.iter().map(|gpu| gpu.name.as_str()).collect();
        Self {
            source: format!("{called}{}", names.join(", ")),
            prefill: [
                middle(|gpu| gpu.prefill_attention.compute_efficiency / gpu.gemm.compute_efficiency),
                middle(|gpu| gpu.prefill_attention.bandwidth_efficiency / gpu.gemm.bandwidth_efficiency),
            ],
            decode: middle(|gpu| gpu.decode_attention.bandwidth_efficiency / gpu.gemm.bandwidth_efficiency),
            launch_us: [
                middle(|gpu| gpu.prefill_attention.launch_us),
                middle(|gpu| gpu.decode_attention.launch_us),
            ],
            us_per_sequence_and_kv_head: middle(|gpu| gpu.decode_attention.us_per_sequence_and_kv_head),
        }
    }
}

fn is_fitted(gpu: &&Gpu) -> bool {
    gpu.grade != Grade::Datasheet
}

/// The device as an entry of the catalog, called `name`: its ceilings for peaks, attention by `reference`, and what
/// is not measured (memory that a driver keeps, prices, all-reduce) as in the catalog's entry `known`, if there is one.
#[must_use]
pub fn entry(
    name: &str,
    device: &Device,
    ceiling: &Ceiling,
    element_bytes: u32,
    known: Option<&Gpu>,
    reference: &Reference,
) -> Gpu {
    let share = |relative: f64, of: f64| (relative * of).min(1.0);
    let gemm = ceiling.gemm;
    Gpu {
        name: known.map_or_else(|| name.to_owned(), |gpu| gpu.name.clone()),
        aliases: known.map_or_else(Vec::new, |gpu| gpu.aliases.clone()),
        title: device.name.clone(),
        grade: Grade::Fitted,
        memory_gib: known.map_or(device.memory_bytes as f64 / (1u64 << 30) as f64, |gpu| gpu.memory_gib),
        memory_source: known.map_or_else(|| "the device".to_owned(), |gpu| gpu.memory_source.clone()),
        small_batch_class: known.is_some_and(|gpu| gpu.small_batch_class),
        peak_bf16_flops: ceiling.flops,
        peak_fp8_flops: None,
        peak_int8_flops: None,
        memory_bytes_per_s: at_16_bits(ceiling.memory_bytes_per_s, element_bytes),
        peak_source: "the most that was measured here".to_owned(),
        gemm,
        gemm_8bit: None,
        prefill_attention: Kernel {
            launch_us: reference.launch_us[0],
            compute_efficiency: share(reference.prefill[0], gemm.compute_efficiency),
            bandwidth_efficiency: share(reference.prefill[1], gemm.bandwidth_efficiency),
        },
        decode_attention: DecodeAttention {
            launch_us: reference.launch_us[1],
            bandwidth_efficiency: share(reference.decode, gemm.bandwidth_efficiency),
            us_per_sequence_and_kv_head: reference.us_per_sequence_and_kv_head,
        },
        decode_attention_fp8: None,
        mixed_batch_tiles: known.and_then(|gpu| gpu.mixed_batch_tiles),
        all_reduce: known.map_or_else(Vec::new, |gpu| gpu.all_reduce.clone()),
        max_graph_tokens: known.map_or(512, |gpu| gpu.max_graph_tokens),
        kernel_source: format!(
            "products measured here (error of the form {:.0} %); attention relative to them: {}",
            ceiling.gemm_error * 100.0,
            reference.source
        ),
        price: known.and_then(|gpu| gpu.price.clone()),
    }
}

/// The tables of vLLM's kernels.
#[derive(Clone, Debug)]
pub struct Projected {
    /// In each layer.
    pub per_layer: Vec<Op>,
    /// Once in a step.
    pub per_step: Vec<Op>,
    /// Once, by the sequences that sample.
    pub per_sequence: Vec<Op>,
    /// Attention of one layer.
    pub attention: Grids,
}

/// vLLM's kernels of one GPU's share of `model` on the device that `gpu` describes, on which `ops` took the times
/// `samples`. All-reduces are left to the profile's reader.
///
/// # Errors
/// When a product of the model was not measured, or the model cannot be split so.
pub fn vllm(
    ops: &[TimedOp],
    samples: &[Sample],
    gpu: &Gpu,
    model: &Model,
    tensor_parallel: u32,
    reference: &Reference,
) -> Result<Projected, String> {
    // A table says what a number of tokens takes; whoever reads it pads to the sizes of CUDA graphs.
    let gpu = Gpu { max_graph_tokens: 0, ..gpu.clone() };
    let forms = ClosedForm::new(&ClosedFormInput {
        gpu: &gpu,
        model,
        tensor_parallel,
        kv_element_bytes: 2,
        max_num_seqs: 1024,
        max_num_batched_tokens: 16_384,
        data_parallel: 1,
        cpu_per_step: Span::ZERO,
        cpu_per_request: Span::ZERO,
    })?;
    let products: Vec<TimedOp> = ops.iter().filter(|op| op.weights.is_some()).cloned().collect();
    let layers = f64::from(model.shape.layers);
    let mut tables = [Place::Layer, Place::Step, Place::Sequence].map(|place| (place, Vec::new()));
    for (place, table) in &mut tables {
        table.extend(curves(&products, samples, *place, "measured here")?);
        table.extend(elementwise(&forms, *place, layers));
    }
    let [(_, per_layer), (_, per_step), (_, per_sequence)] = tables;
    Ok(Projected { per_layer, per_step, per_sequence, attention: attention(&forms, reference) })
}

fn prefill(tokens: u32, history: u32) -> StepShape {
    let (new, before) = (u64::from(tokens), u64::from(history));
    StepShape {
        prefills: 1,
        prefill_tokens: tokens,
        prefill_pairs: new * before + new * (new + 1) / 2,
        prefill_context: new + before,
        ..StepShape::default()
    }
}

fn decodes(count: u32, context: u32) -> StepShape {
    let context = u64::from(context);
    StepShape {
        decodes: count,
        decode_context: u64::from(count) * context,
        decode_longest: context,
        sampled: count,
        ..StepShape::default()
    }
}

/// The closed forms of what passes over activations and logits at `place`.
fn elementwise(forms: &ClosedForm, place: Place, layers: f64) -> Vec<Op> {
    let (sizes, form): (&[u32], fn(u32) -> StepShape) = match place {
        Place::Layer | Place::Step => (&TOKENS, |count| prefill(count, 0)),
        Place::Sequence => (&SEQUENCES, |count| decodes(count, 1)),
    };
    let is_here = |op: &FormOp| {
        let passes = matches!(op.form, Form::Elementwise | Form::Sampler);
        let head = matches!(op.name, "final norm" | "sampler");
        passes
            && match place {
                Place::Layer => op.calls >= layers && !head,
                Place::Step => op.calls < layers && !head,
                Place::Sequence => head,
            }
    };
    let mut found: Vec<Op> = Vec::new();
    for &count in sizes {
        for op in forms.ops(&form(count)).into_iter().filter(is_here) {
            let per = if place == Place::Layer { layers } else { 1.0 };
            let table = match found.iter_mut().position(|table| table.op == op.name) {
                Some(known) => &mut found[known],
                None => {
                    found.push(Op {
                        op: op.name.to_owned(),
                        from: Some("closed form over the memory's ceiling".to_owned()),
                        times: op.calls / per,
                        at: Vec::new(),
                        us: Vec::new(),
                    });
                    found.last_mut().expect("just added")
                }
            };
            table.at.push(count);
            table.us.push(op.us);
        }
    }
    found
}

/// The closed forms of attention in one layer.
fn attention(forms: &ClosedForm, reference: &Reference) -> Grids {
    let one_layer = |shape: &StepShape| {
        let ops = forms.ops(shape);
        let attends = |op: &&FormOp| {
            matches!(op.form, Form::PrefillAttention | Form::DecodeBase | Form::DecodeRead | Form::DecodeSkew)
        };
        ops.iter().filter(attends).map(|op| op.us).sum::<f64>()
    };
    let grid = |rows: &[u32], columns: &[u32], shape: fn(u32, u32) -> StepShape| {
        let cells = rows.iter().flat_map(|&row| columns.iter().map(move |&column| shape(row, column)));
        let mut us: Vec<f64> = cells.map(|shape| one_layer(&shape)).collect();
        rising(&mut us, &[rows.len(), columns.len()]);
        us
    };
    Grids {
        decodes: SEQUENCES.to_vec(),
        contexts: CONTEXTS.to_vec(),
        decode_us: grid(&SEQUENCES, &CONTEXTS, decodes),
        chunks: TOKENS.to_vec(),
        histories: HISTORIES.to_vec(),
        prefill_us: grid(&TOKENS, &HISTORIES, prefill),
        mixed_us: None,
        skew: None,
        from: Some(format!(
            "closed forms over the ceilings; efficiency relative to products: {}",
            reference.source
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_of_the_catalog_is_its_own_reference_and_others_take_the_median() {
        let l40s = catalog::gpu("l40s").unwrap();
        assert_eq!(Reference::of(Some(l40s)).source, "l40s");
        let any = Reference::of(None);
        assert!(any.source.starts_with("median of ") && any.source.contains("h100-sxm"), "{}", any.source);
        assert!((0.4..1.0).contains(&any.prefill[0]) && (0.7..1.3).contains(&any.decode), "{any:?}");
        assert_eq!(Reference::of(catalog::gpu("mi300x")), any, "a datasheet is no reference");
    }

    /// Attention of `gpu` as it would be taken over if only other GPUs' kernels were known.
    fn by_others(gpu: &Gpu) -> Gpu {
        let others: Vec<&Gpu> =
            catalog::gpus().iter().filter(is_fitted).filter(|other| other.name != gpu.name).collect();
        let reference = Reference::median_of(&others, "median of ");
        let [compute, bandwidth] = [gpu.gemm.compute_efficiency, gpu.gemm.bandwidth_efficiency];
        Gpu {
            prefill_attention: Kernel {
                launch_us: reference.launch_us[0],
                compute_efficiency: (reference.prefill[0] * compute).min(1.0),
                bandwidth_efficiency: (reference.prefill[1] * bandwidth).min(1.0),
            },
            decode_attention: DecodeAttention {
                launch_us: reference.launch_us[1],
                bandwidth_efficiency: (reference.decode * bandwidth).min(1.0),
                us_per_sequence_and_kv_head: reference.us_per_sequence_and_kv_head,
            },
            ..gpu.clone()
        }
    }

    /// How far the times of `shape` are off then: all of it, and its attention.
    fn errors(gpu: &Gpu, shape: &StepShape) -> [f64; 2] {
        let model = catalog::model("meta-llama/Llama-3.1-8B").unwrap();
        let times = |gpu: &Gpu| {
            let forms = ClosedForm::new(&ClosedFormInput {
                gpu,
                model,
                tensor_parallel: 1,
                kv_element_bytes: 2,
                max_num_seqs: 1024,
                max_num_batched_tokens: 16_384,
                data_parallel: 1,
                cpu_per_step: Span::ZERO,
                cpu_per_request: Span::ZERO,
            });
            let ops = forms.unwrap().ops(shape);
            let attends = |op: &&FormOp| {
                matches!(op.form, Form::PrefillAttention | Form::DecodeBase | Form::DecodeRead)
            };
            let attention: f64 = ops.iter().filter(attends).map(|op| op.us * op.calls).sum();
            [ops.iter().map(|op| op.us * op.calls).sum::<f64>(), attention]
        };
        let (own, others) = (times(gpu), times(&by_others(gpu)));
        [others[0] / own[0] - 1.0, others[1] / own[1] - 1.0]
    }

    /// What docs/calibration.md says of a device whose kernels nobody has measured.
    #[test]
    fn steps_of_a_gpu_of_which_only_the_ceilings_are_known_are_near_its_own() {
        let shapes = [
            ("prefill 2048", prefill(2048, 0)),
            ("prefill 2048 after 8192", prefill(2048, 8192)),
            ("64 decodes of 1024", decodes(64, 1024)),
            ("64 decodes of 4096", decodes(64, 4096)),
        ];
        for (name, shape) in &shapes {
            let mut whole: Vec<f64> = Vec::new();
            for gpu in catalog::gpus().iter().filter(is_fitted) {
                let [step, attention] = errors(gpu, shape);
                println!(
                    "{name}: {} {:+.1} % (attention {:+.1} %)",
                    gpu.name,
                    step * 100.0,
                    attention * 100.0
                );
                whole.push(step.abs());
            }
            whole.sort_by(f64::total_cmp);
            let middle = median(&whole).unwrap();
            assert!(middle < 0.1, "{name}: {whole:?}");
        }
    }
}
