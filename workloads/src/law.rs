//! Laws: what may stand wherever a number of tokens, a length of time or a rate does.
//!
//! This file is the notation; [`Sampler`] is the law made ready to draw from.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use forerun_sim::time::SPAN_MAX;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::error::WorkloadError;
use crate::one_of::{self, Bare, OneOf};
use crate::record::TOKENS_MAX;
use crate::sampler::Sampler;
use crate::units::Duration;

/// What the numbers of a law count.
pub trait Unit: Copy + fmt::Debug + PartialEq + Send + Sync + JsonSchema + 'static {
    /// In words: "a number of tokens".
    const WHAT: &'static str;
    /// The largest value that makes sense.
    const MAX: f64;
    /// The smallest mean that makes sense.
    const MEAN_MIN: f64 = 0.0;
    /// How a law of it is written.
    const EXAMPLE: &'static str;

    /// The value that `text` stands for, if texts may stand for values.
    fn parse(text: &str) -> Option<Result<f64, WorkloadError>>;
}

/// A number of tokens: at least 1.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
pub struct Tokens;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
pub struct Seconds;

/// Events per second.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
pub struct Rate;

impl Unit for Tokens {
    const WHAT: &'static str = "a number of tokens";
    const MAX: f64 = TOKENS_MAX as f64;
    const MEAN_MIN: f64 = 0.5;
    const EXAMPLE: &'static str = "900 or {lognormal: {median: 900, sigma: 0.8}}";

    fn parse(_: &str) -> Option<Result<f64, WorkloadError>> {
        None
    }
}

impl Unit for Seconds {
    const WHAT: &'static str = "a length of time";
    const MAX: f64 = (SPAN_MAX.as_nanos() / 1_000_000_000) as f64;
    const EXAMPLE: &'static str = "30s or {lognormal: {median: 30s, sigma: 1}}";

    fn parse(text: &str) -> Option<Result<f64, WorkloadError>> {
        Some(text.parse::<Duration>().map(|duration| duration.span().as_secs_f64()))
    }
}

impl Unit for Rate {
    const WHAT: &'static str = "a rate per second";
    const MAX: f64 = 1e6;
    const EXAMPLE: &'static str = "20 or {lognormal: {median: 20, sigma: 0.4}}";

    fn parse(_: &str) -> Option<Result<f64, WorkloadError>> {
        None
    }
}

/// A number in unit `U`; lengths of time may be written with their unit (`30s`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount<U> {
    /// The number: tokens, seconds or events per second.
    pub value: f64,
    unit: PhantomData<U>,
}

/// A number, or the law of a random one.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields, bound = "")]
#[schemars(bound = "U: Unit", rename = "Law_of_{U}")]
pub enum Law<U: Unit> {
    /// exp(normal): half of the values lie below the median; sigma is the deviation of the logarithm.
    Lognormal {
        /// Half of the values lie below it.
        median: Amount<U>,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// Gamma with this mean and coefficient of variation.
    Gamma {
        /// Mean.
        mean: Amount<U>,
        /// Standard deviation divided by the mean.
        cv: f64,
    },
    /// Exponential: a gamma law of cv 1.
    Exponential {
        /// Mean.
        mean: Amount<U>,
    },
    /// Every value between the two is equally likely.
    Uniform {
        /// Smallest value.
        min: Amount<U>,
        /// Largest value.
        max: Amount<U>,
    },
    /// Weibull: shape below 1 has a heavy tail, 1 is exponential.
    Weibull {
        /// Shape.
        shape: f64,
        /// Scale: 63 % of the values lie below it.
        scale: Amount<U>,
    },
    /// Observed values, each equally likely.
    Empirical(Observed<U>),
    /// One of several laws, chosen anew for each value.
    Mix(Vec<Part<U>>),
    /// The sum of one value from each.
    Sum(Vec<Law<U>>),
    /// A law whose values are moved to the nearest bound when they fall outside.
    Clip {
        /// The law.
        law: Box<Law<U>>,
        /// Lower bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<Amount<U>>,
        /// Upper bound.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<Amount<U>>,
    },
    /// Always the same.
    #[schemars(untagged)]
    Constant(Amount<U>),
}

/// One law of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, bound = "")]
#[schemars(bound = "U: Unit", rename = "Part_of_{U}")]
pub struct Part<U: Unit> {
    /// How often it is chosen, relative to the other weights.
    pub weight: f64,
    /// The law.
    pub law: Law<U>,
}

/// Observed values: a file, or a list.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged, bound = "")]
#[schemars(bound = "U: Unit", rename = "Observed_{U}")]
pub enum Observed<U: Unit> {
    /// A file of one number per line, with or without a header; relative to the scenario's directory.
    File(PathBuf),
    /// The values themselves.
    Values(Vec<Amount<U>>),
}

impl<U: Unit> Law<U> {
    /// The law that is always `value`.
    #[must_use]
    pub fn constant(value: f64) -> Self {
        Self::Constant(Amount::new(value))
    }

    /// Checks the law and makes it ready to draw from. `field` is what errors call it; files are relative
    /// to `base`.
    ///
    /// # Errors
    /// When a parameter is impossible, the mean is beyond [`Unit::MAX`], or a file cannot be read.
    pub fn sampler(&self, field: &str, base: &Path) -> Result<Sampler<U>, WorkloadError> {
        Sampler::new(self, field, base)
    }
}

impl<U: Unit> Serialize for Law<U> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Constant(amount) => amount.serialize(serializer),
            named => Self::serialize(named, serializer),
        }
    }
}

impl<'de, U: Unit> Deserialize<'de> for Law<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of::deserialize(deserializer)
    }
}

impl<U: Unit> OneOf for Law<U> {
    const WHAT: &'static str = "a law";
    const NAMES: &'static [&'static str] =
        &["lognormal", "gamma", "exponential", "uniform", "weibull", "empirical", "mix", "sum", "clip"];
    const EXAMPLE: &'static str = U::EXAMPLE;

    fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn bare(value: &Bare<'_>) -> Option<Result<Self, String>> {
        Some(Amount::read(value).map(Self::Constant))
    }
}

impl<U: Unit> Amount<U> {
    /// The amount `value`.
    #[must_use]
    pub fn new(value: f64) -> Self {
        Self { value, unit: PhantomData }
    }

    fn read(value: &Bare<'_>) -> Result<Self, String> {
        let refused = |given: &dyn fmt::Display| {
            format!("`{given}` is not {}: write for example {}", U::WHAT, U::EXAMPLE)
        };
        let value = match value {
            Bare::Number(value) => *value,
            Bare::Text(text) => match U::parse(text) {
                Some(parsed) => parsed.map_err(|error| error.to_string())?,
                None => return Err(refused(text)),
            },
        };
        if (0.0..=U::MAX).contains(&value) { Ok(Self::new(value)) } else { Err(refused(&value)) }
    }
}

impl<U: Unit> Serialize for Amount<U> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, U: Unit> Deserialize<'de> for Amount<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of::deserialize::<Plain<U>, D>(deserializer).map(|plain| plain.0)
    }
}

/// An amount read where no law may stand.
struct Plain<U>(Amount<U>);

impl<U: Unit> OneOf for Plain<U> {
    const WHAT: &'static str = U::WHAT;
    const NAMES: &'static [&'static str] = &[];
    const EXAMPLE: &'static str = U::EXAMPLE;

    fn named<'de, D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom(format!("only {} may stand here", U::WHAT)))
    }

    fn bare(value: &Bare<'_>) -> Option<Result<Self, String>> {
        Some(Amount::read(value).map(Self))
    }
}

impl<U: Unit> JsonSchema for Amount<U> {
    fn schema_name() -> Cow<'static, str> {
        format!("Amount_of_{}", U::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        match U::parse("1s") {
            Some(_) => Duration::json_schema(generator),
            None => json_schema!({"description": U::WHAT, "type": "number", "minimum": 0, "maximum": U::MAX}),
        }
    }
}

impl<'de, U: Unit> Deserialize<'de> for Observed<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ObservedVisitor(PhantomData))
    }
}

struct ObservedVisitor<U>(PhantomData<U>);

impl<'de, U: Unit> Visitor<'de> for ObservedVisitor<U> {
    type Value = Observed<U>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file of one number per line, or a list of numbers")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<Observed<U>, E> {
        Ok(Observed::File(path.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Observed<U>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Observed::Values(values))
    }
}

#[cfg(test)]
mod tests;
