//! What tables are of: the GPU, the model and the split, as far as a folder's name says them.

use std::path::Path;

use forerun_sim::catalog::{self, Gpu, Model};

use super::Options;
use crate::fit::gpu_of;

/// Folders of a path whose names are looked at.
const FOLDERS: usize = 4;

/// What a profile is to be of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) model: &'a Model,
    pub(super) tensor_parallel: u32,
    pub(super) kv_element_bytes: u32,
}

impl<'a> Subject<'a> {
    /// What was asked for, else what the folder's path says, of which `GPU/owner/model/tpN` is read.
    pub(super) fn find(folder: &Path, options: &Options<'a>) -> Result<Self, String> {
        let folder = std::path::absolute(folder).map_err(|e| e.to_string())?;
        let names: Vec<String> =
            folder.iter().rev().take(FOLDERS).map(|name| name.to_string_lossy().into_owned()).collect();
        let gpu = options.gpu.or_else(|| names.iter().find_map(|name| gpu_named(name)));
        let model = options.model.or_else(|| {
            let owned = names.windows(2).map(|pair| format!("{}/{}", pair[1], pair[0]));
            owned.chain(names.iter().cloned()).find_map(|name| catalog::model(&name))
        });
        let split = names.iter().find_map(|name| name.strip_prefix("tp")?.parse().ok());
        Ok(Self {
            gpu: gpu.ok_or("does not say its GPU, or one that the catalog has not: name it with --gpu")?,
            model: model.ok_or("does not say its model, or has kernels of any: name one with --model")?,
            tensor_parallel: options.tensor_parallel.or(split).unwrap_or(1),
            kv_element_bytes: options.kv_element_bytes.unwrap_or(2),
        })
    }
}

/// The GPU that a part of a folder's or file's name means.
pub(super) fn gpu_named(name: &str) -> Option<&'static Gpu> {
    gpu_of(name).or_else(|| catalog::gpu(&name.replace('_', "-")))
}
