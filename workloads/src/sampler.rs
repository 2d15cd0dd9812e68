//! Laws made ready to draw from. Every draw comes from a [`Stream`]; transcendental functions from `libm`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use forerun_sim::rng::Stream;
use forerun_sim::time::{SPAN_MAX, Span};

use crate::choice::Choice;
use crate::error::WorkloadError;
use crate::law::{Amount, Law, Observed, Rate, Seconds, Tokens, Unit};
use crate::record::TOKENS_MAX;

/// Values of one empirical file: 80 MB.
const OBSERVED_MAX: usize = 10_000_000;

/// Draws behind the mean of a law that has no closed form.
const MEAN_DRAWS: u32 = 1 << 18;

/// Coefficients of variation beyond this describe nothing that is measured, and overflow.
pub(crate) const CV_MAX: f64 = 1e3;

/// A checked law. Cheap to clone; drawing needs only a shared reference.
#[derive(Clone, Debug)]
pub struct Sampler<U> {
    shape: Shape,
    mean: f64,
    unit: PhantomData<U>,
}

#[derive(Clone, Debug)]
enum Shape {
    Constant(f64),
    Lognormal {
        mu: f64,
        sigma: f64,
    },
    Gamma {
        shape: f64,
        scale: f64,
    },
    Uniform {
        min: f64,
        width: f64,
    },
    Weibull {
        inverse_shape: f64,
        scale: f64,
    },
    /// Sorted.
    Empirical(Arc<[f64]>),
    Mix(Choice, Vec<Shape>),
    Sum(Vec<Shape>),
    Clip {
        law: Box<Shape>,
        min: f64,
        max: f64,
    },
}

impl<U: Unit> Sampler<U> {
    pub(crate) fn new(law: &Law<U>, field: &str, base: &Path) -> Result<Self, WorkloadError> {
        let shape = Shape::new(law, field, base)?;
        let mean = shape.mean();
        if !(mean.is_finite() && mean <= U::MAX) {
            return Err(impossible(field, format!("its mean of {mean:.3e} is beyond {}", U::MAX)));
        }
        if mean < U::MEAN_MIN {
            let what = format!("its mean of {mean} is less than {}", U::MEAN_MIN);
            return Err(impossible(field, what));
        }
        Ok(Self { shape, mean, unit: PhantomData })
    }

    /// The mean: closed where there is a formula, otherwise of 262,144 draws.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }
}

impl Sampler<Tokens> {
    /// A number of tokens: rounded, and at least 1.
    pub fn draw(&self, stream: &mut Stream) -> u32 {
        let value = self.shape.draw(stream).round();
        value.clamp(1.0, f64::from(TOKENS_MAX)) as u32
    }
}

impl Sampler<Seconds> {
    /// A length of time.
    pub fn draw(&self, stream: &mut Stream) -> Span {
        Span::from_secs_f64(self.shape.draw(stream)).unwrap_or(SPAN_MAX)
    }
}

impl Sampler<Rate> {
    /// A rate per second.
    pub fn draw(&self, stream: &mut Stream) -> f64 {
        self.shape.draw(stream).clamp(0.0, Rate::MAX)
    }
}

impl Shape {
    fn new<U: Unit>(law: &Law<U>, field: &str, base: &Path) -> Result<Self, WorkloadError> {
        let positive = |name: &str, value: f64, max: f64| match value > 0.0 && value <= max {
            true => Ok(value),
            false => {
                Err(impossible(field, format!("`{name}` is {value}, must be above 0 and at most {max}")))
            }
        };
        let part = |law: &Law<U>| Self::new(law, field, base);
        Ok(match law {
            Law::Constant(amount) => Self::Constant(amount.value),
            Law::Lognormal { median, sigma } => Self::Lognormal {
                mu: libm::log(positive("median", median.value, U::MAX)?),
                sigma: positive("sigma", *sigma, 20.0)?,
            },
            Law::Gamma { mean, cv } => {
                let variance = libm::pow(positive("cv", *cv, CV_MAX)?, 2.0);
                let scale = positive("mean", mean.value, U::MAX)? * variance;
                Self::Gamma { shape: 1.0 / variance, scale }
            }
            Law::Exponential { mean } => {
                Self::Gamma { shape: 1.0, scale: positive("mean", mean.value, U::MAX)? }
            }
            Law::Uniform { min, max } => {
                let (min, max) = ordered(field, min.value, max.value)?;
                Self::Uniform { min, width: max - min }
            }
            Law::Weibull { shape, scale } => Self::Weibull {
                inverse_shape: 1.0 / positive("shape", *shape, 1e3)?,
                scale: positive("scale", scale.value, U::MAX)?,
            },
            Law::Empirical(Observed::File(path)) => Self::empirical(read_column::<U>(&base.join(path))?),
            Law::Empirical(Observed::Values(values)) if values.is_empty() => {
                return Err(impossible(field, "`empirical` lists no value"));
            }
            Law::Empirical(Observed::Values(values)) => {
                Self::empirical(values.iter().map(|amount: &Amount<U>| amount.value).collect())
            }
            Law::Mix(parts) => {
                let weights = parts.iter().map(|part| part.weight);
                let choice =
                    Choice::new(weights).map_err(|what| impossible(field, format!("`mix`: {what}")))?;
                Self::Mix(choice, parts.iter().map(|p| part(&p.law)).collect::<Result<_, _>>()?)
            }
            Law::Sum(laws) if laws.is_empty() => return Err(impossible(field, "`sum` lists no law")),
            Law::Sum(laws) => Self::Sum(laws.iter().map(part).collect::<Result<_, _>>()?),
            Law::Clip { law, min, max } => {
                let (min, max) = (min.map_or(0.0, |a| a.value), max.map_or(U::MAX, |a| a.value));
                let (min, max) = ordered(field, min, max)?;
                Self::Clip { law: Box::new(part(law)?), min, max }
            }
        })
    }

    fn empirical(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self::Empirical(values.into())
    }

    fn draw(&self, stream: &mut Stream) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Lognormal { mu, sigma } => libm::exp(mu + sigma * stream.normal()),
            Self::Gamma { shape, scale } => stream.gamma(*shape) * scale,
            Self::Uniform { min, width } => min + width * stream.uniform(),
            Self::Weibull { inverse_shape, scale } => scale * libm::pow(stream.exponential(), *inverse_shape),
            Self::Empirical(values) => values[stream.below(values.len())],
            Self::Mix(choice, parts) => parts[choice.draw(stream)].draw(stream),
            Self::Sum(parts) => parts.iter().map(|part| part.draw(stream)).sum(),
            Self::Clip { law, min, max } => law.draw(stream).clamp(*min, *max),
        }
    }

    fn mean(&self) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Lognormal { mu, sigma } => libm::exp(mu + sigma * sigma / 2.0),
            Self::Gamma { shape, scale } => shape * scale,
            Self::Uniform { min, width } => min + width / 2.0,
            Self::Weibull { inverse_shape, scale } => scale * libm::tgamma(1.0 + inverse_shape),
            Self::Empirical(values) => values.iter().sum::<f64>() / values.len() as f64,
            Self::Mix(choice, parts) => {
                parts.iter().enumerate().map(|(k, part)| choice.probability(k) * part.mean()).sum()
            }
            Self::Sum(parts) => parts.iter().map(Self::mean).sum(),
            Self::Clip { .. } => {
                let mut stream = Stream::new(0, "mean");
                let total: f64 = (0..MEAN_DRAWS).map(|_| self.draw(&mut stream)).sum();
                total / f64::from(MEAN_DRAWS)
            }
        }
    }
}

fn impossible(field: &str, what: impl AsRef<str>) -> WorkloadError {
    WorkloadError::Spec(format!("`{field}`: {}", what.as_ref()))
}

fn ordered(field: &str, min: f64, max: f64) -> Result<(f64, f64), WorkloadError> {
    if min <= max {
        Ok((min, max))
    } else {
        Err(impossible(field, format!("`min` {min} is above `max` {max}")))
    }
}

/// A column of more bytes than this is no sample of lengths.
const COLUMN_BYTES_MAX: u64 = 64 << 20;

/// The numbers of a file of one column; a first line that is not a number is its header.
fn read_column<U: Unit>(path: &Path) -> Result<Vec<f64>, WorkloadError> {
    let metadata = std::fs::metadata(path).map_err(|error| WorkloadError::io(path, error.to_string()))?;
    if !metadata.is_file() || metadata.len() > COLUMN_BYTES_MAX {
        let what =
            format!("is not a file of at most {} MiB: name a column of numbers", COLUMN_BYTES_MAX >> 20);
        return Err(WorkloadError::io(path, what));
    }
    let file = File::open(path).map_err(|error| WorkloadError::io(path, error.to_string()))?;
    let mut values = Vec::new();
    for (line, text) in (1..).zip(BufReader::new(file).lines()) {
        let text = text.map_err(|error| WorkloadError::io(path, error.to_string()))?;
        let text = text.trim().trim_start_matches('\u{feff}');
        match text.parse::<f64>() {
            _ if text.is_empty() => {}
            Ok(value) if (0.0..=U::MAX).contains(&value) => values.push(value),
            Err(_) if line == 1 => {}
            _ => {
                let what = format!("`{text}` is not {}: one number per line is expected", U::WHAT);
                return Err(WorkloadError::row(path, line, what));
            }
        }
        if values.len() > OBSERVED_MAX {
            let what = format!("more than {OBSERVED_MAX} values: keep a sample of them");
            return Err(WorkloadError::row(path, line, what));
        }
    }
    if values.is_empty() {
        return Err(WorkloadError::io(path, "holds no number: one per line is expected"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
