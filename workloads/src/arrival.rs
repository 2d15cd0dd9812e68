//! When requests (or sessions) arrive.
//!
//! All randomness of an arrival process comes from the stream "arrivals": what the requests contain never
//! moves their times.

mod running;

use std::path::Path;

use forerun_sim::rng::Stream;
use forerun_sim::time::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::choice::Choice;
use crate::error::WorkloadError;
use crate::law::{Law, Rate, Seconds, Unit as _};
use crate::one_of::{self, OneOf};
use crate::sampler::{CV_MAX, Sampler};
use crate::units::Duration;

pub use running::Arrivals;

/// The fewest arrivals expected in a burst or a state, so that drawing always makes progress.
const BURST_MIN: f64 = 1e-3;

/// When requests arrive; with sessions, when their first turns do. Rates are per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrival {
    /// Evenly spaced, the first at 0.
    Constant {
        /// Arrivals per second.
        rate: f64,
    },
    /// Independent of each other: exponential gaps.
    Poisson {
        /// Arrivals per second.
        rate: f64,
    },
    /// Independent gaps with a gamma law.
    Gamma {
        /// Arrivals per second.
        rate: f64,
        /// Coefficient of variation of the gaps: 1 is Poisson, more is bursty.
        cv: f64,
    },
    /// Independent gaps with a Weibull law.
    Weibull {
        /// Arrivals per second.
        rate: f64,
        /// Coefficient of variation of the gaps.
        cv: f64,
    },
    /// Bursts and silences.
    OnOff {
        /// Length of a burst.
        on: Law<Seconds>,
        /// Length of a silence.
        off: Law<Seconds>,
        /// Arrivals per second within a burst, drawn once per burst.
        rate: Law<Rate>,
        /// Coefficient of variation of the gaps within a burst (gamma).
        #[serde(default = "one")]
        cv: f64,
    },
    /// Markov-modulated Poisson: exponential stays in states of constant rate; the next state is any other
    /// one with equal chance.
    Mmpp {
        /// Arrivals per second in each state.
        rates: Vec<f64>,
        /// Mean stay in each state.
        sojourn: Vec<Duration>,
    },
    /// Poisson whose rate follows a cosine: a day with a peak.
    Diurnal {
        /// Mean arrivals per second.
        rate: f64,
        /// How far the rate swings about its mean, from 0 to 1.
        amplitude: f64,
        /// Length of one swing.
        #[serde(default = "day")]
        period: Duration,
        /// When the rate is highest, from the start of the run.
        #[serde(default)]
        peak_at: Duration,
    },
}

fn one() -> f64 {
    1.0
}

fn day() -> Duration {
    Duration(Span::from_secs(86_400))
}

impl Serialize for Arrival {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Arrival {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of::deserialize(deserializer)
    }
}

impl OneOf for Arrival {
    const WHAT: &'static str = "an arrival process";
    const NAMES: &'static [&'static str] =
        &["constant", "poisson", "gamma", "weibull", "on_off", "mmpp", "diurnal"];
    const EXAMPLE: &'static str = "{poisson: {rate: 20}}";

    fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// A checked arrival process, ready to start.
#[derive(Clone, Debug)]
pub struct Process {
    kind: Kind,
    mean_rate: f64,
}

#[derive(Clone, Debug)]
enum Kind {
    Even { rate: f64 },
    Renewal(Gaps, f64),
    OnOff { on: Sampler<Seconds>, off: Sampler<Seconds>, rate: Sampler<Rate>, gaps: Gaps },
    Mmpp { rates: Vec<f64>, sojourn: Vec<f64>, stationary: Choice },
    Diurnal { rate: f64, amplitude: f64, period: f64, peak_at: f64 },
}

/// The law of a gap of mean 1.
#[derive(Clone, Copy, Debug)]
enum Gaps {
    Exponential,
    Gamma { shape: f64 },
    Weibull { inverse_shape: f64, scale: f64 },
}

impl Arrival {
    /// Checks the process and makes it ready to start. Files of laws are relative to `base`.
    ///
    /// # Errors
    /// When a parameter is impossible.
    pub fn process(&self, base: &Path) -> Result<Process, WorkloadError> {
        let kind = match self {
            Self::Constant { rate } => Kind::Even { rate: checked_rate(*rate)? },
            Self::Poisson { rate } => Kind::Renewal(Gaps::Exponential, checked_rate(*rate)?),
            Self::Gamma { rate, cv } => Kind::Renewal(Gaps::gamma(*cv)?, checked_rate(*rate)?),
            Self::Weibull { rate, cv } => Kind::Renewal(Gaps::weibull(*cv)?, checked_rate(*rate)?),
            Self::OnOff { on, off, rate, cv } => Kind::OnOff {
                on: on.sampler("arrival.on_off.on", base)?,
                off: off.sampler("arrival.on_off.off", base)?,
                rate: rate.sampler("arrival.on_off.rate", base)?,
                gaps: Gaps::gamma(*cv)?,
            },
            Self::Mmpp { rates, sojourn } => Kind::mmpp(rates, sojourn)?,
            Self::Diurnal { rate, amplitude, period, peak_at } => {
                if !(0.0..=1.0).contains(amplitude) {
                    return Err(wrong(format!("`amplitude` is {amplitude}, must be between 0 and 1")));
                }
                if period.span() == Span::ZERO {
                    return Err(wrong("`period` must be above 0"));
                }
                Kind::Diurnal {
                    rate: checked_rate(*rate)?,
                    amplitude: *amplitude,
                    period: period.span().as_secs_f64(),
                    peak_at: peak_at.span().as_secs_f64(),
                }
            }
        };
        let process = Process { mean_rate: kind.mean_rate(), kind };
        process.check_progress(1.0)?;
        Ok(process)
    }
}

fn wrong(what: impl AsRef<str>) -> WorkloadError {
    WorkloadError::Spec(format!("`arrival`: {}", what.as_ref()))
}

fn checked_rate(rate: f64) -> Result<f64, WorkloadError> {
    if rate > 0.0 && rate <= Rate::MAX {
        Ok(rate)
    } else {
        Err(wrong(format!("`rate` is {rate}, must be above 0 and at most {} per second", Rate::MAX)))
    }
}

impl Kind {
    fn mmpp(rates: &[f64], sojourn: &[Duration]) -> Result<Self, WorkloadError> {
        if rates.len() != sojourn.len() || rates.len() < 2 {
            let (r, s) = (rates.len(), sojourn.len());
            let what =
                format!("`mmpp` has {r} rates and {s} sojourn times: give as many of each, and two or more");
            return Err(wrong(what));
        }
        if let Some(rate) = rates.iter().find(|rate| !(0.0..=Rate::MAX).contains(*rate)) {
            return Err(wrong(format!("`mmpp`: a rate of {rate} per second")));
        }
        let sojourn: Vec<f64> = sojourn.iter().map(|stay| stay.span().as_secs_f64()).collect();
        // Every state is entered equally often, so time is shared in proportion to the stays.
        let stationary =
            Choice::new(sojourn.iter().copied()).map_err(|_| wrong("`mmpp`: a sojourn time of 0"))?;
        Ok(Self::Mmpp { rates: rates.to_vec(), sojourn, stationary })
    }

    fn mean_rate(&self) -> f64 {
        match self {
            Self::Even { rate } | Self::Renewal(_, rate) | Self::Diurnal { rate, .. } => *rate,
            Self::OnOff { on, off, rate, .. } => rate.mean() * on.mean() / (on.mean() + off.mean()),
            Self::Mmpp { rates, sojourn, .. } => {
                let arrivals: f64 = rates.iter().zip(sojourn).map(|(rate, stay)| rate * stay).sum();
                arrivals / sojourn.iter().sum::<f64>()
            }
        }
    }

    /// Expected arrivals between two changes of rate; infinite where the rate never changes.
    fn arrivals_per_phase(&self) -> f64 {
        match self {
            Self::Even { .. } | Self::Renewal(..) | Self::Diurnal { .. } => f64::INFINITY,
            Self::OnOff { on, rate, .. } => rate.mean() * on.mean(),
            Self::Mmpp { sojourn, .. } => {
                self.mean_rate() * sojourn.iter().sum::<f64>() / sojourn.len() as f64
            }
        }
    }
}

impl Gaps {
    fn gamma(cv: f64) -> Result<Self, WorkloadError> {
        Ok(Self::Gamma { shape: 1.0 / libm::pow(checked_cv(cv, 0.0, CV_MAX)?, 2.0) })
    }

    /// The Weibull law of this coefficient of variation: it falls as the shape grows, so bisection finds it.
    fn weibull(cv: f64) -> Result<Self, WorkloadError> {
        let (mut low, mut high) = (0.1, 100.0);
        let log_moment = |order: f64, shape: f64| libm::lgamma(1.0 + order / shape);
        let cv_of =
            |shape: f64| libm::sqrt(libm::exp(log_moment(2.0, shape) - 2.0 * log_moment(1.0, shape)) - 1.0);
        let cv = checked_cv(cv, cv_of(high), cv_of(low))?;
        for _ in 0..100 {
            let middle = (low + high) / 2.0;
            if cv_of(middle) > cv { low = middle } else { high = middle }
        }
        Ok(Self::Weibull { inverse_shape: 1.0 / low, scale: libm::exp(-log_moment(1.0, low)) })
    }

    fn draw(self, stream: &mut Stream) -> f64 {
        match self {
            Self::Exponential => stream.exponential(),
            Self::Gamma { shape } => stream.gamma(shape) / shape,
            Self::Weibull { inverse_shape, scale } => scale * libm::pow(stream.exponential(), inverse_shape),
        }
    }
}

fn checked_cv(cv: f64, above: f64, max: f64) -> Result<f64, WorkloadError> {
    if cv > above && cv <= max {
        Ok(cv)
    } else {
        let constant = "; for even spacing write {constant: {rate: ..}}";
        Err(wrong(format!("`cv` is {cv}, must be above {above:.3} and at most {max:.0}{constant}")))
    }
}

impl Process {
    /// Mean arrivals per second.
    #[must_use]
    pub fn mean_rate(&self) -> f64 {
        self.mean_rate
    }

    /// Starts the process of run `seed`, with all rates multiplied so that their mean is `rate`, if given.
    ///
    /// # Errors
    /// When the rate is impossible for this process.
    pub fn start(&self, seed: u64, rate: Option<f64>) -> Result<Arrivals, WorkloadError> {
        let factor = match rate {
            Some(rate) => checked_rate(rate)? / self.mean_rate,
            None => 1.0,
        };
        self.check_progress(factor)?;
        Ok(Arrivals::start(self.kind.clone(), factor, seed))
    }

    fn check_progress(&self, factor: f64) -> Result<(), WorkloadError> {
        if self.kind.arrivals_per_phase() * factor >= BURST_MIN {
            return Ok(());
        }
        let what = "less than one arrival in a thousand bursts: raise the rate or the length of the bursts";
        Err(wrong(what))
    }
}

#[cfg(test)]
mod tests;
