//! The catalog's constants fitted anew to measured kernels: bounded to what is physical, robust against outliers, and
//! judged on shapes and on GPUs that they were not fitted to.
//!
//! ```text
//! folder/h100_sxm/{gemm,context_attention,generation_attention,allreduce_vllm}.csv[.gz]   [tables]
//!    -> samples of an op: what a kernel was given, and its time
//!    -> constants in their bounds that minimise a soft loss of ln(simulated / measured)   [ops], [simplex]
//!    -> error in sample, on held-out shapes, and on a GPU that the constants have not seen
//! ```

mod ops;
mod simplex;
mod tables;

use std::path::Path;

use forerun_sim::catalog::{self, Gemm, Gpu};
use forerun_sim::cost::kernels::Product;

use crate::import::ImportError;
pub use ops::{Constant, FittedOp};
use ops::{Input, predicted_us};
use simplex::minimise;
use tables::Sample;

/// Folders of AIConfigurator's tables, and the GPUs of the catalog that they are of.
const FOLDERS: [(&str, &str); 5] = [
    ("h100_sxm", "h100-sxm"),
    ("h200_sxm", "h200-sxm"),
    ("a100_sxm", "a100-sxm-80gb"),
    ("b200_sxm", "b200-sxm"),
    ("l40s", "l40s"),
];

/// Parts into which the shapes of an op are divided, each held out once.
const FOLDS: u64 = 5;

/// The soft loss grows as the square of small residuals and linearly beyond this one: `ln(simulated / measured)`.
const SOFT_FROM: f64 = 0.1;

/// Errors of a set of simulated times, relative to the measured ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    /// Mean of the absolute errors.
    pub mean_absolute: f64,
    /// Mean of the errors.
    pub bias: f64,
}

/// What was fitted for one op of one GPU.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The op.
    pub op: FittedOp,
    /// Its constants.
    pub constants: Vec<Constant>,
    /// Measured times.
    pub samples: usize,
    /// On the times fitted to.
    pub in_sample: Errors,
    /// On shapes held out, each fifth of them once.
    pub held_out: Errors,
    /// Of the constants that the catalog has, on the same times.
    pub catalog: Option<Errors>,
    /// Of the constants fitted to all other GPUs together, over this one's peaks; none where no peak is known.
    pub transfer: Option<Errors>,
}

/// All fits of one GPU.
#[derive(Clone, Debug)]
pub struct GpuFits {
    /// Its name in the catalog.
    pub gpu: &'static str,
    /// By op.
    pub fits: Vec<Fit>,
}

/// The samples of one op on one GPU.
struct Measured {
    gpu: &'static Gpu,
    samples: Vec<Sample>,
}

/// The GPU of a folder of this name.
pub(crate) fn gpu_of(folder: &str) -> Option<&'static Gpu> {
    FOLDERS.iter().find(|(name, _)| *name == folder).and_then(|(_, gpu)| catalog::gpu(gpu))
}

/// Fits every op of every GPU that `folder` has tables of.
///
/// # Errors
/// When it has none, or a table is malformed.
pub fn fit(folder: &Path) -> Result<Vec<GpuFits>, ImportError> {
    let known = FOLDERS.iter().filter(|(name, _)| folder.join(name).is_dir());
    let gpus: Vec<_> =
        known.filter_map(|(name, gpu)| Some((folder.join(name), catalog::gpu(gpu)?))).collect();
    if gpus.is_empty() {
        let names = FOLDERS.map(|(name, _)| name).join(", ");
        let why = format!("has none of the folders {names}: give the one with AIConfigurator's tables");
        return Err(ImportError::new(folder, why));
    }
    let mut all: Vec<_> = gpus.iter().map(|(_, gpu)| GpuFits { gpu: &gpu.name, fits: Vec::new() }).collect();
    for op in FittedOp::ALL {
        let mut measured = Vec::new();
        for (folder, gpu) in &gpus {
            measured.push(Measured { gpu, samples: tables::samples(op, folder)? });
        }
        for (index, fits) in all.iter_mut().enumerate() {
            fits.fits.extend(fit_one(op, &measured, index));
        }
    }
    Ok(all)
}

/// The constants of products that took these microseconds, over the peaks that `gpu` states; and their errors.
#[must_use]
pub fn fit_products(gpu: &Gpu, timed: &[(Product, f64)]) -> (Gemm, Errors) {
    let sample = |&(product, us): &(Product, f64)| Sample { input: Input::Product(product), us, group: 0 };
    let samples: Vec<Sample> = timed.iter().map(sample).collect();
    let placed: Vec<_> = samples.iter().map(|sample| (gpu, sample)).collect();
    let values = solve(FittedOp::Gemm, &placed);
    let mut fitted = gpu.clone();
    FittedOp::Gemm.apply(&mut fitted, &values);
    (fitted.gemm, errors(FittedOp::Gemm, &values, &placed))
}

/// The fit of `op` on the GPU at `index`, and what those on the others say about it.
fn fit_one(op: FittedOp, measured: &[Measured], index: usize) -> Option<Fit> {
    let Measured { gpu, samples } = &measured[index];
    if samples.is_empty() || !op.has_peak(gpu) {
        return None;
    }
    let own: Vec<_> = samples.iter().map(|sample| (*gpu, sample)).collect();
    let values = solve(op, &own);
    let others: Vec<_> = measured
        .iter()
        .enumerate()
        .filter(|(other, measured)| *other != index && op.has_peak(measured.gpu))
        .flat_map(|(_, Measured { gpu, samples })| samples.iter().map(move |sample| (*gpu, sample)))
        .collect();
    let transfer = (op.transfers() && !others.is_empty()).then(|| errors(op, &solve(op, &others), &own));
    let mut held_out = Vec::new();
    for fold in 0..FOLDS {
        let (tested, learned): (Vec<_>, Vec<_>) =
            own.iter().copied().partition(|(_, sample)| sample.group % FOLDS == fold);
        if !tested.is_empty() && !learned.is_empty() {
            let values = solve(op, &learned);
            held_out.extend(relative(op, &values, &tested));
        }
    }
    Some(Fit {
        op,
        constants: op.named(&values),
        samples: samples.len(),
        in_sample: errors(op, &values, &own),
        held_out: Errors::of(&held_out),
        catalog: op.values_of(gpu).map(|values| errors(op, &values, &own)),
        transfer,
    })
}

/// A sample and the GPU that it is of.
type Placed<'a> = (&'a Gpu, &'a Sample);

/// The constants of `op` within their bounds for which the mean soft loss `2 s^2 (sqrt(1 + (r / s)^2) - 1)` of the
/// residuals `r = ln(simulated / measured)` is least (s: [`SOFT_FROM`]).
fn solve(op: FittedOp, placed: &[Placed<'_>]) -> Vec<f64> {
    let mut gpus: Vec<(&Gpu, Gpu, Vec<&Sample>)> = Vec::new();
    for (gpu, sample) in placed {
        match gpus.iter_mut().find(|(known, ..)| known.name == gpu.name) {
            Some((.., samples)) => samples.push(sample),
            None => gpus.push((gpu, (*gpu).clone(), vec![sample])),
        }
    }
    let loss = |values: &[f64]| {
        let mut sum = 0.0;
        for (_, gpu, samples) in &mut gpus {
            op.apply(gpu, values);
            for sample in samples.iter() {
                let residual = libm::log(predicted_us(gpu, &sample.input) / sample.us) / SOFT_FROM;
                sum += (1.0 + residual * residual).sqrt() - 1.0;
            }
        }
        sum / placed.len() as f64
    };
    minimise(loss, &op.bounds())
}

fn relative(op: FittedOp, values: &[f64], placed: &[Placed<'_>]) -> Vec<f64> {
    let mut errors = Vec::with_capacity(placed.len());
    let mut with: Option<Gpu> = None;
    for (gpu, sample) in placed {
        let fitted = match &mut with {
            Some(fitted) if fitted.name == gpu.name => fitted,
            other => {
                let mut fitted = (*gpu).clone();
                op.apply(&mut fitted, values);
                other.insert(fitted)
            }
        };
        errors.push(predicted_us(fitted, &sample.input) / sample.us - 1.0);
    }
    errors
}

fn errors(op: FittedOp, values: &[f64], placed: &[Placed<'_>]) -> Errors {
    Errors::of(&relative(op, values, placed))
}

impl Errors {
    fn of(errors: &[f64]) -> Self {
        let count = errors.len().max(1) as f64;
        Self {
            mean_absolute: errors.iter().map(|error| error.abs()).sum::<f64>() / count,
            bias: errors.iter().sum::<f64>() / count,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
