//! The catalog's constants fitted anew: the report of `forerun calibrate fit`.

use std::fmt::Write as _;
use std::path::Path;

pub use forerun_profiles::fit::GpuFits;
use forerun_profiles::fit::{Errors, Fit, FittedOp, fit as fit_tables};

use crate::error::InputError;
use crate::markers;

/// Fits every op of every GPU that the tables in `folder` are of.
///
/// # Errors
/// When there are none, or one is malformed.
pub fn fit(folder: &Path) -> Result<Vec<GpuFits>, InputError> {
    fit_tables(folder).map_err(|e| InputError::new(e.to_string()))
}

/// Puts the report between the markers of a document.
///
/// # Errors
/// When the document has no markers, or cannot be written.
pub fn update(all: &[GpuFits], document: &Path) -> Result<(), InputError> {
    markers::replace(document, "forerun calibrate fit", &report(all))
}

/// The report as Markdown: what each GPU's constants are worth, what they predict of another, and the constants.
#[must_use]
pub fn report(all: &[GpuFits]) -> String {
    let mut text = String::from(
        "Mean absolute error, and the mean error in brackets where it says more. *Fitted*: on the times fitted to. \
         *Held out*: on matrices, heads or message sizes not fitted to, each fifth once. *Catalog*: of the constants \
         in use. *Transfer*: of constants fitted to all other GPUs together, over this one's peaks.\n",
    );
    for op in FittedOp::ALL {
        errors(&mut text, op, all);
    }
    text.push_str("\nTransfer over all GPUs, the mean of their errors and the largest:\n\n| op | mean | largest |\n|---|---|---|\n");
    for op in FittedOp::ALL {
        let transfers: Vec<f64> =
            of(op, all).filter_map(|(_, fit)| Some(fit.transfer?.mean_absolute)).collect();
        if !transfers.is_empty() {
            let mean = transfers.iter().sum::<f64>() / transfers.len() as f64;
            let most = transfers.iter().copied().fold(0.0, f64::max);
            let _ = writeln!(text, "| {} | {} | {} |", op.title(), percent(mean), percent(most));
        }
    }
    constants(&mut text, all);
    text
}

fn of(op: FittedOp, all: &[GpuFits]) -> impl Iterator<Item = (&'static str, &Fit)> {
    all.iter().flat_map(move |gpu| gpu.fits.iter().filter(move |fit| fit.op == op).map(|fit| (gpu.gpu, fit)))
}

fn errors(text: &mut String, op: FittedOp, all: &[GpuFits]) {
    if of(op, all).next().is_none() {
        return;
    }
    // A write to a string cannot fail.
    let _ = write!(
        text,
        "\n| {} | times | fitted | held out | catalog | transfer |\n|---|---|---|---|---|---|\n",
        op.title()
    );
    for (gpu, fit) in of(op, all) {
        let with_bias = |errors: Option<Errors>| {
            errors.map_or_else(String::new, |Errors { mean_absolute, bias }| {
                format!("{} ({:+.1} %)", percent(mean_absolute), bias * 100.0)
            })
        };
        let _ = writeln!(
            text,
            "| {gpu} | {} | {} | {} | {} | {} |",
            fit.samples,
            percent(fit.in_sample.mean_absolute),
            percent(fit.held_out.mean_absolute),
            with_bias(fit.catalog),
            with_bias(fit.transfer)
        );
    }
}

fn constants(text: &mut String, all: &[GpuFits]) {
    text.push_str(
        "\nThe constants. Those in italics are held by a bound: the tables alone would have them beyond what is \
         physical, or say nothing about them.\n\n| GPU | op | constants |\n|---|---|---|\n",
    );
    for gpu in all {
        for fit in &gpu.fits {
            let constants: Vec<String> = fit
                .constants
                .iter()
                .map(|constant| {
                    let value = format!("{} {:.3}", constant.name, constant.value);
                    if constant.at_bound { format!("*{value}*") } else { value }
                })
                .collect();
            let _ = writeln!(text, "| {} | {} | {} |", gpu.gpu, fit.op.title(), constants.join(", "));
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
