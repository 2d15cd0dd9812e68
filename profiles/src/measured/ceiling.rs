//! What a device reaches, from its times.

use forerun_sim::catalog::{Gpu, WeightType};
use forerun_sim::cost::kernels::{ACTIVATION_BYTES, Product};

use super::{COPY, Ceiling, DISK, LAUNCH, Measured, Sample, TO_DEVICE, TO_HOST, TimedOp, typical};
use crate::fit::fit_products;

/// Smaller copies may be served by a cache.
const COPY_FROM_BYTES: u32 = 32 << 20;

impl Ceiling {
    /// The ceilings of a device on which `ops` took the times `samples`, with elements of so many bytes. `template`
    /// is any GPU: only its peaks are replaced.
    ///
    /// # Errors
    /// When no product was timed.
    pub fn of(
        ops: &[TimedOp],
        samples: &[Sample],
        element_bytes: u32,
        template: &Gpu,
    ) -> Result<Self, String> {
        let products: Vec<(Product, f64)> = products(ops, samples).collect();
        let rate = |work: fn(&Product, f64) -> f64| {
            let rates =
                products.iter().map(|(product, us)| work(product, f64::from(element_bytes)) / us * 1e6);
            rates.fold(0.0, f64::max)
        };
        let flops = rate(|product, _| 2.0 * product.tokens * product.n * product.k);
        if flops <= 0.0 {
            return Err("no product of matrices was timed: give more time (`--budget`)".into());
        }
        let read =
            rate(|product, bytes| bytes * (product.n * product.k + product.tokens * (product.n + product.k)));
        // A copy reads and writes.
        let copied = 2.0 * fastest(samples, COPY, COPY_FROM_BYTES).unwrap_or(0.0);
        let memory_bytes_per_s = read.max(copied);
        let gpu = Gpu {
            peak_bf16_flops: flops,
            memory_bytes_per_s: at_16_bits(memory_bytes_per_s, element_bytes),
            ..template.clone()
        };
        let (gemm, errors) = fit_products(&gpu, &products);
        let launch = samples.iter().find(|sample| sample.op == LAUNCH);
        Ok(Self {
            flops,
            memory_bytes_per_s,
            gemm,
            gemm_error: errors.mean_absolute,
            launch_us: launch.and_then(|sample| typical(&sample.us)),
            to_device_bytes_per_s: fastest(samples, TO_DEVICE, 0),
            to_host_bytes_per_s: fastest(samples, TO_HOST, 0),
            disk_bytes_per_s: fastest(samples, DISK, 0),
        })
    }
}

/// Bandwidth as the closed forms count it, who take every element for one of 16 bits.
pub(crate) fn at_16_bits(bytes_per_s: f64, element_bytes: u32) -> f64 {
    bytes_per_s * ACTIVATION_BYTES / f64::from(element_bytes)
}

/// The products among `ops` at their sizes, with their times.
fn products<'a>(ops: &'a [TimedOp], samples: &'a [Sample]) -> impl Iterator<Item = (Product, f64)> + 'a {
    samples.iter().filter_map(|sample| {
        let [n, k] = ops.iter().find(|op| op.op == sample.op)?.weights?;
        let [tokens, n, k] = [sample.at[0], n, k].map(f64::from);
        Some((Product { tokens, k, n, matrices: 1.0, weights: WeightType::Bf16 }, typical(&sample.us)?))
    })
}

/// The most bytes/s of the samples of `op` with at least `from` bytes.
fn fastest(samples: &[Sample], op: &str, from: u32) -> Option<f64> {
    let of_op = samples.iter().filter(|sample| sample.op == op && sample.at[0] >= from);
    let rates = of_op.filter_map(|sample| Some(f64::from(sample.at[0]) / typical(&sample.us)? * 1e6));
    rates.reduce(f64::max)
}

impl Measured {
    /// The typical time of `op` at a size, microseconds.
    #[must_use]
    pub fn us(&self, op: &str, at: [u32; 2]) -> Option<f64> {
        let sample = self.samples.iter().find(|sample| sample.op == op && sample.at == at)?;
        typical(&sample.us)
    }
}
