//! The kernels with what they are given: inputs that stay in place, weights that do not.
//!
//! A real step reads each matrix once: weights and caches are rotated, so that no cache of the device holds them from
//! one call to the next.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use candle_core::{DType, Device, Result, Tensor};

use crate::args::Subject;
use crate::device::{Kind, Target, first_line};
use crate::layers::{self, Cache, Dimensions, Part};
use crate::transformer::Transformer;

/// Bytes over which weights are rotated on a CPU and on a GPU: several times what last-level caches hold (32 MiB a
/// die of an EPYC, 50 MiB of an H100, 126 MiB of a B200).
const ROTATED_BYTES: [usize; 2] = [192 << 20, 512 << 20];
/// The largest copies that are timed, at most this share of the device's memory.
const COPY_BYTES_MAX: u64 = 64 << 20;
const COPY_SHARE: u64 = 64;
/// Bytes that are read of the disk, in pieces of a MiB.
pub(crate) const DISK_BYTES: u32 = 64 << 20;
const DISK_PIECE: usize = 1 << 20;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The product of this index.
    Product(usize),
    Embedding,
    /// A norm after a residual addition.
    Norms,
    /// Queries, keys and values by head, turned.
    Rope,
    Activation,
    FinalNorm,
    Sampler,
    /// Attention of one prefill.
    Prefill,
    /// Attention of decodes of one length.
    Decode,
    Copy,
    Launch,
    ToDevice,
    ToHost,
    Disk,
    /// A step of the real transformer: the plan's list has it at this index.
    Step(usize),
}

/// One call of a kernel.
pub(crate) type Call<'b> = Box<dyn FnMut() -> Result<()> + 'b>;

/// Weights and caches of all kernels.
pub(crate) struct Bench {
    device: Device,
    dtype: DType,
    dimensions: Dimensions,
    /// Copies of the weights of each product.
    weights: Vec<Vec<Tensor>>,
    norm_weights: Tensor,
    head_norm: Option<Tensor>,
    embedding: Tensor,
    caches: Vec<Cache>,
    disk: Option<File>,
    /// Calls so far: decides whose turn it is among copies.
    turn: Cell<usize>,
    pub(crate) transformer: Transformer,
}

impl Bench {
    /// Allocates everything.
    ///
    /// # Errors
    /// When the device has not the memory, or the folder `disk` cannot be written.
    pub(crate) fn new(
        target: &Target,
        subject: &Subject,
        disk: Option<&Path>,
        transformer: Transformer,
    ) -> anyhow::Result<Self> {
        let disk = disk.map(scratch).transpose()?;
        Self::allocate(target, subject, disk, transformer).map_err(first_line).with_context(|| {
            format!(
                "{} cannot hold what is to be timed of {}: take a smaller --model, --max-tokens or --max-context",
                target.name, subject.model.name
            )
        })
    }

    fn allocate(
        target: &Target,
        subject: &Subject,
        disk: Option<File>,
        transformer: Transformer,
    ) -> Result<Self> {
        let (device, dtype) = (target.device.clone(), subject.dtype);
        let dimensions = Dimensions::new(&subject.model, subject.tensor_parallel);
        let element = dtype.size_in_bytes();
        let layers = subject.model.shape.layers as usize;
        let rotated = ROTATED_BYTES[usize::from(target.kind != Kind::Cpu)];
        let mut weights = Vec::new();
        for (_, n, k) in dimensions.products() {
            // No more copies than a real model has layers: one that fits a cache is served from it.
            let copies = (rotated / (n * k * element)).clamp(1, layers);
            let copy = |_| layers::noise((n, k), 0.02, dtype, &device);
            weights.push((0..copies).map(copy).collect::<Result<_>>()?);
        }
        let capacity = (subject.max_tokens + subject.max_context) as usize;
        let cache_bytes = 2 * dimensions.kv_heads * capacity * dimensions.head_dim * element;
        let caches = (2 * rotated / cache_bytes).clamp(1, layers.max(subject.max_sequences as usize));
        let caches = (0..caches).map(|_| Cache::new(&dimensions, capacity, dtype, &device));
        Ok(Self {
            weights,
            norm_weights: Tensor::ones(dimensions.hidden, dtype, &device)?,
            head_norm: dimensions.head_norm(dtype, &device)?,
            embedding: layers::noise((dimensions.vocabulary, dimensions.hidden), 0.02, dtype, &device)?,
            caches: caches.collect::<Result<_>>()?,
            disk,
            turn: Cell::new(0),
            device,
            dtype,
            dimensions,
            transformer,
        })
    }

    /// Makes the inputs of `kernel` at a size; what comes back calls it once each time.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn prepare(&self, kernel: Kernel, at: [u32; 2]) -> Result<Call<'_>> {
        let rows = at[0] as usize;
        let Dimensions { hidden, mlp, vocabulary, .. } = self.dimensions;
        let weights = &self.norm_weights;
        let input = |width: usize| layers::noise((rows, width), 1.0, self.dtype, &self.device);
        Ok(match kernel {
            Kernel::Product(index) => {
                let (_, _, k) = self.dimensions.products()[index];
                let (x, copies) = (input(k)?, &self.weights[index]);
                Box::new(move || {
                    let turn = self.turns(1);
                    layers::product(&x, &copies[turn % copies.len()]).map(drop)
                })
            }
            Kernel::Embedding => {
                let positions: Vec<u32> = (0..at[0]).collect();
                let ids = layers::ids(&positions, vocabulary, &self.device)?;
                Box::new(move || self.embedding.index_select(&ids, 0).map(drop))
            }
            Kernel::Norms => {
                let (stream, x) = (input(hidden)?, input(hidden)?);
                Box::new(move || layers::add_norm(&stream, &x, weights).map(drop))
            }
            Kernel::FinalNorm => {
                let x = input(hidden)?;
                Box::new(move || layers::norm(&x, weights).map(drop))
            }
            Kernel::Rope => {
                let x = input(self.dimensions.qkv())?;
                let tables = layers::rope_tables(&self.dimensions, rows, self.dtype, &self.device)?;
                let (dimensions, head_norm) = (&self.dimensions, self.head_norm.as_ref());
                Box::new(move || layers::split_rope(&x, dimensions, &tables, head_norm).map(drop))
            }
            Kernel::Activation => {
                let x = input(2 * mlp)?;
                Box::new(move || layers::activation(&x).map(drop))
            }
            Kernel::Sampler => {
                let x = input(vocabulary)?;
                Box::new(move || layers::sample(&x).map(drop))
            }
            Kernel::Prefill | Kernel::Decode => self.attention(kernel == Kernel::Prefill, at)?,
            Kernel::Copy | Kernel::Launch | Kernel::ToDevice | Kernel::ToHost => {
                transfer(kernel, rows / 4, &self.device)?
            }
            Kernel::Disk => Box::new(move || self.disk.as_ref().map_or(Ok(()), read)),
            Kernel::Step(index) => Box::new(move || self.transformer.step(index).map(drop)),
        })
    }

    /// A prefill of `at[0]` tokens after `at[1]`, or `at[0]` decodes whose context is `at[1]`.
    fn attention(&self, prefill: bool, at: [u32; 2]) -> Result<Call<'_>> {
        let [rows, length] = at.map(|size| size as usize);
        let parts: Vec<Part> = if prefill {
            let mask = layers::causal_mask(rows, length, self.dtype, &self.device)?;
            vec![Part { start: 0, tokens: rows, past: length, mask }]
        } else {
            let decode = |start| Part { start, tokens: 1, past: length.max(1) - 1, mask: None };
            (0..rows).map(decode).collect()
        };
        let Dimensions { heads, kv_heads, head_dim, .. } = self.dimensions;
        let by_head = |heads| layers::noise((heads, rows, head_dim), 1.0, self.dtype, &self.device);
        let tensors = [by_head(heads)?, by_head(kv_heads)?, by_head(kv_heads)?];
        let caches = &self.caches;
        Ok(Box::new(move || {
            let first = self.turns(parts.len());
            let cache = |i: usize| &caches[(first + i) % caches.len()];
            let with_caches: Vec<_> = parts.iter().enumerate().map(|(i, part)| (part, cache(i))).collect();
            layers::attend(&tensors, &with_caches).map(drop)
        }))
    }

    /// The first of so many turns.
    fn turns(&self, count: usize) -> usize {
        self.turn.replace(self.turn.get().wrapping_add(count))
    }

    /// Whether there is a file to read.
    pub(crate) fn has_disk(&self) -> bool {
        self.disk.is_some()
    }
}

/// Bytes of the largest copy on `target`.
pub(crate) fn copy_bytes(target: &Target) -> u32 {
    let bytes = COPY_BYTES_MAX.min(target.memory_bytes / COPY_SHARE) & !3;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Copies of so many 32-bit elements, into buffers that exist where candle can; or next to no work.
fn transfer<'b>(kernel: Kernel, elements: usize, device: &Device) -> Result<Call<'b>> {
    let elements = elements.max(1);
    let (from, device) = (Tensor::ones(elements, DType::F32, device)?, device.clone());
    Ok(match kernel {
        Kernel::Copy => {
            let to = from.zeros_like()?;
            Box::new(move || to.slice_set(&from, 0, 0))
        }
        Kernel::ToDevice => {
            let host = vec![1f32; elements];
            Box::new(move || Tensor::from_slice(&host, elements, &device).map(drop))
        }
        Kernel::ToHost => Box::new(move || from.to_vec1::<f32>().map(drop)),
        _ => Box::new(move || from.affine(1.0, 1.0).map(drop)),
    })
}

/// A file without a name in `folder`, written to the disk.
fn scratch(folder: &Path) -> anyhow::Result<File> {
    let written = || {
        let mut file = tempfile::tempfile_in(folder)?;
        let piece: Vec<u8> = (0..DISK_PIECE).map(|i| (i * 31 % 251) as u8).collect();
        for _ in 0..DISK_BYTES as usize / DISK_PIECE {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        Ok(file)
    };
    written().map_err(|e: std::io::Error| anyhow::anyhow!("--disk {}: {e}", folder.display()))
}

/// Reads the file from its beginning, from the disk itself where the system lets its cache be dropped.
fn read(mut file: &File) -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).map_err(std::io::Error::from)?;
    file.rewind()?;
    let mut piece = vec![0; DISK_PIECE];
    while file.read(&mut piece)? > 0 {}
    Ok(())
}
