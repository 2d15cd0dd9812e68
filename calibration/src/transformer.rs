//! A real transformer: all layers, batches of prefills and decodes, a KV cache for each sequence.
//!
//! Its weights are noise, which takes the same time as a trained model's.

use candle_core::{DType, Device, Result, Tensor};

use crate::args::Subject;
use crate::layers::{self, Cache, Dimensions, Part};

/// Bytes that weights and caches may take, as a share of the device's memory.
const MEMORY_SHARE: f64 = 0.4;

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The cache that it has.
    pub(crate) slot: usize,
    /// Tokens in it.
    pub(crate) past: usize,
    /// Tokens that the step computes.
    pub(crate) tokens: usize,
    /// Whether a token is sampled after them.
    pub(crate) samples: bool,
}

/// A layer's weights.
struct Layer {
    /// In the order of [`Dimensions::products`], the LM head left out.
    products: [Tensor; 4],
    norms: [Tensor; 2],
}

/// The model.
pub(crate) struct Transformer {
    dimensions: Dimensions,
    dtype: DType,
    device: Device,
    layers: Vec<Layer>,
    embedding: Tensor,
    /// None where it is the embedding.
    head: Option<Tensor>,
    final_norm: Tensor,
    head_norm: Option<Tensor>,
    rope: [Tensor; 2],
    /// By layer, then by slot.
    caches: Vec<Vec<Cache>>,
    /// The steps that are timed by themselves.
    steps: Vec<Vec<Chunk>>,
}

impl Transformer {
    /// The model of `subject` with as many of its layers as fit, and `slots` caches of `capacity` tokens in each;
    /// `steps` are those that it is asked for by number.
    ///
    /// # Errors
    /// When the device has not the memory.
    pub(crate) fn new(
        subject: &Subject,
        device: &Device,
        memory_bytes: u64,
        slots: usize,
        capacity: usize,
        steps: Vec<Vec<Chunk>>,
    ) -> Result<Self> {
        let dtype = subject.dtype;
        let dimensions = Dimensions::new(&subject.model, subject.tensor_parallel);
        let layer_weights: usize = dimensions.products()[..4].iter().map(|(_, n, k)| n * k).sum();
        let cached = slots * 2 * dimensions.kv_heads * capacity * dimensions.head_dim;
        let room = memory_bytes as f64 * MEMORY_SHARE / dtype.size_in_bytes() as f64;
        let fitting = room / (layer_weights + cached) as f64;
        let layers = (subject.model.shape.layers as usize).min((fitting as usize).max(1));
        let noise = |n: usize, k: usize| layers::noise((n, k), 0.02, dtype, device);
        let ones = || Tensor::ones(dimensions.hidden, dtype, device);
        let layer = |_| {
            let [qkv, o, gate_up, down, _] = dimensions.products().map(|(_, n, k)| (n, k));
            let products = [
                noise(qkv.0, qkv.1)?,
                noise(o.0, o.1)?,
                noise(gate_up.0, gate_up.1)?,
                noise(down.0, down.1)?,
            ];
            Ok(Layer { products, norms: [ones()?, ones()?] })
        };
        let caches = |_| {
            let cache = |_| Cache::new(&dimensions, capacity, dtype, device);
            (0..slots).map(cache).collect::<Result<Vec<_>>>()
        };
        let tied = subject.model.shape.tied_embeddings;
        Ok(Self {
            layers: (0..layers).map(layer).collect::<Result<_>>()?,
            embedding: noise(dimensions.vocabulary, dimensions.hidden)?,
            head: (!tied).then(|| noise(dimensions.vocabulary, dimensions.hidden)).transpose()?,
            final_norm: ones()?,
            head_norm: dimensions.head_norm(dtype, device)?,
            rope: layers::rope_tables(&dimensions, capacity, dtype, device)?,
            caches: (0..layers).map(caches).collect::<Result<_>>()?,
            steps,
            device: device.clone(),
            dtype,
            dimensions,
        })
    }

    /// Layers that fit.
    pub(crate) fn layers(&self) -> u32 {
        u32::try_from(self.layers.len()).unwrap_or(u32::MAX)
    }

    /// Computes the step of this index.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn step(&self, index: usize) -> Result<Vec<u32>> {
        self.forward(&self.steps[index])
    }

    /// Computes one step: the tokens sampled.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn forward(&self, chunks: &[Chunk]) -> Result<Vec<u32>> {
        let positions = chunks.iter().flat_map(|chunk| chunk.past..chunk.past + chunk.tokens);
        let positions: Vec<u32> = positions.map(|at| at as u32).collect();
        let ids = layers::ids(&positions, self.dimensions.vocabulary, &self.device)?;
        let (parts, rope) = (self.parts(chunks)?, self.rope_at(&positions)?);
        let mut stream = self.embedding.index_select(&ids, 0)?;
        let mut x = stream.zeros_like()?;
        for (layer, caches) in self.layers.iter().zip(&self.caches) {
            let [qkv, o, gate_up, down] = &layer.products;
            let (added, normed) = layers::add_norm(&stream, &x, &layer.norms[0])?;
            let by_head = layers::split_rope(
                &layers::product(&normed, qkv)?,
                &self.dimensions,
                &rope,
                self.head_norm.as_ref(),
            )?;
            let with_caches: Vec<_> =
                parts.iter().zip(chunks).map(|(part, chunk)| (part, &caches[chunk.slot])).collect();
            let attended = layers::product(&layers::attend(&by_head, &with_caches)?, o)?;
            let (added, normed) = layers::add_norm(&added, &attended, &layer.norms[1])?;
            x = layers::product(&layers::activation(&layers::product(&normed, gate_up)?)?, down)?;
            stream = added;
        }
        self.sampled(&(stream + x)?, chunks)
    }

    fn parts(&self, chunks: &[Chunk]) -> Result<Vec<Part>> {
        let mut start = 0;
        let mut parts = Vec::with_capacity(chunks.len());
        for &Chunk { past, tokens, .. } in chunks {
            let mask = layers::causal_mask(tokens, past, self.dtype, &self.device)?;
            parts.push(Part { start, tokens, past, mask });
            start += tokens;
        }
        Ok(parts)
    }

    /// The rows of the rotary tables at these positions.
    fn rope_at(&self, positions: &[u32]) -> Result<[Tensor; 2]> {
        let positions = Tensor::new(positions, &self.device)?;
        let [cos, sin] = &self.rope;
        Ok([cos.index_select(&positions, 0)?, sin.index_select(&positions, 0)?])
    }

    fn sampled(&self, stream: &Tensor, chunks: &[Chunk]) -> Result<Vec<u32>> {
        let mut last = Vec::new();
        let mut end = 0;
        for chunk in chunks {
            end += chunk.tokens;
            if chunk.samples {
                last.push((end - 1) as u32);
            }
        }
        if last.is_empty() {
            return Ok(last);
        }
        let rows = stream.index_select(&Tensor::new(last.as_slice(), &self.device)?, 0)?;
        let normed = layers::norm(&rows, &self.final_norm)?;
        let logits = layers::product(&normed, self.head.as_ref().unwrap_or(&self.embedding))?;
        layers::sample(&logits)?.to_vec1()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Args;
    use crate::device::Target;

    fn model() -> Transformer {
        let target = Target::open("cpu", 1).unwrap();
        let mut subject = Args::parse_from(["forerun-calibrate"]).subject(&target).unwrap();
        let shape = &mut subject.model.shape;
        (shape.hidden, shape.layers, shape.vocabulary, shape.mlp, shape.heads) = (48, 3, 500, 64, 6);
        shape.qk_norm = true;
        shape.attention = forerun_sim::catalog::Attention::Grouped { kv_heads: 3, head_dim: 8 };
        Transformer::new(&subject, &Device::Cpu, 1 << 30, 3, 40, Vec::new()).unwrap()
    }

    fn chunk(slot: usize, past: usize, tokens: usize) -> Chunk {
        Chunk { slot, past, tokens, samples: true }
    }

    #[test]
    fn a_prompt_in_chunks_beside_others_samples_what_it_samples_alone_and_whole() {
        let model = model();
        let whole = model.forward(&[chunk(0, 0, 21)]).unwrap();
        model.forward(&[chunk(1, 0, 7), chunk(2, 0, 5)]).unwrap();
        model.forward(&[chunk(2, 5, 1), chunk(1, 7, 13)]).unwrap();
        let last = model.forward(&[chunk(2, 6, 1), chunk(1, 20, 1)]).unwrap();
        assert_eq!(last[1..], whole[..]);
        let other = model.forward(&[chunk(0, 0, 7)]).unwrap();
        assert_eq!(last[..1], other[..], "and so does the one beside it");
    }

    #[test]
    fn what_does_not_sample_gives_no_token_and_a_device_that_is_full_takes_fewer_layers() {
        let model = model();
        assert!(model.forward(&[Chunk { samples: false, ..chunk(0, 0, 4) }]).unwrap().is_empty());
        assert_eq!((model.layers(), model.embedding.dims()), (3, [500, 48].as_slice()));
        let target = Target::open("cpu", 1).unwrap();
        let subject = Args::parse_from(["forerun-calibrate"]).subject(&target).unwrap();
        let few = Transformer::new(&subject, &Device::Cpu, 100 << 20, 1, 16, Vec::new()).unwrap();
        assert!((1..10).contains(&few.layers()), "{} layers", few.layers());
    }
}
