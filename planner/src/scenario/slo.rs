//! The `slo:` section.

use std::collections::BTreeMap;
use std::str::FromStr;

use forerun_reports::slo::{AggregateLimit, Limits, Metric, Slo, Statistic};
use forerun_workloads::units::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::InputError;

/// Limits for each request: it is good when it meets every limit given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// Time to first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft: Option<Duration>,
    /// Mean time per output token after the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot: Option<Duration>,
    /// Arrival to last token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e: Option<Duration>,
}

impl From<LimitSpec> for Limits {
    fn from(spec: LimitSpec) -> Self {
        Self { ttft: spec.ttft.map(|d| d.0), tpot: spec.tpot.map(|d| d.0), e2e: spec.e2e.map(|d| d.0) }
    }
}

/// Declares [`SloSpec`] with one field for each latency and statistic of the summary.
macro_rules! slo_spec {
    ($($field:ident: $metric:ident $statistic:ident, $doc:literal;)*) => {
        /// When a request is good, and what the whole run must keep to.
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct SloSpec {
            /// Limit on every request's time to first token.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub ttft: Option<Duration>,
            /// Limit on every request's mean time per output token after the first.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub tpot: Option<Duration>,
            /// Limit on every request's time from arrival to last token.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub e2e: Option<Duration>,
            /// Share of arrived requests that must be good, from 0 to 1.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub attainment: Option<f64>,
            /// Limits that stand in place of the general ones for requests of these classes.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub classes: BTreeMap<String, LimitSpec>,
            $(
                #[doc = $doc]
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<Duration>,
            )*
        }

        impl SloSpec {
            fn aggregate(&self) -> Vec<AggregateLimit> {
                let all = [$((self.$field, Metric::$metric, Statistic::$statistic)),*];
                let given = all.into_iter().filter_map(|(limit, metric, statistic)| {
                    Some(AggregateLimit { metric, statistic, limit: limit?.0 })
                });
                given.collect()
            }
        }
    };
}

slo_spec! {
    ttft_mean: Ttft Mean, "Limit on the run's mean TTFT.";
    ttft_p50: Ttft P50, "Limit on the run's median TTFT.";
    ttft_p90: Ttft P90, "Limit on the 90th percentile of TTFT.";
    ttft_p95: Ttft P95, "Limit on the 95th percentile of TTFT.";
    ttft_p99: Ttft P99, "Limit on the 99th percentile of TTFT.";
    tpot_mean: Tpot Mean, "Limit on the run's mean TPOT.";
    tpot_p50: Tpot P50, "Limit on the run's median TPOT.";
    tpot_p90: Tpot P90, "Limit on the 90th percentile of TPOT.";
    tpot_p95: Tpot P95, "Limit on the 95th percentile of TPOT.";
    tpot_p99: Tpot P99, "Limit on the 99th percentile of TPOT.";
    itl_p99: Itl P99, "Limit on the 99th percentile of the gaps between tokens.";
    e2e_mean: E2e Mean, "Limit on the run's mean end-to-end time.";
    e2e_p50: E2e P50, "Limit on the run's median end-to-end time.";
    e2e_p90: E2e P90, "Limit on the 90th percentile of the end-to-end time.";
    e2e_p95: E2e P95, "Limit on the 95th percentile of the end-to-end time.";
    e2e_p99: E2e P99, "Limit on the 99th percentile of the end-to-end time.";
}

/// `ttft=2s,tpot=50ms,attainment=0.95`: the fields of the section in one word.
impl FromStr for SloSpec {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let wrong = |why: &str| {
            InputError::new(format!("`{text}`: {why}; write for example ttft=2s,tpot=50ms,attainment=0.95"))
        };
        let mut fields = serde_json::Map::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| wrong(&format!("`{part}` has no `=`")))?;
            let value = value.trim();
            let value = value.parse::<f64>().map_or_else(|_| Value::from(value), Value::from);
            fields.insert(key.trim().to_owned(), value);
        }
        if fields.is_empty() {
            return Err(wrong("there is no limit in it"));
        }
        let slo: Self = serde_json::from_value(Value::Object(fields)).map_err(|e| wrong(&e.to_string()))?;
        slo.resolve()?;
        Ok(slo)
    }
}

impl SloSpec {
    /// What is asked of a run.
    ///
    /// # Errors
    /// When the attainment is not a share.
    pub fn resolve(&self) -> Result<Slo, InputError> {
        if let Some(share) = self.attainment.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(InputError::new(format!(
                "`slo.attainment` is {share}: it is a share of requests, from 0 to 1; write for example 0.95"
            )));
        }
        Ok(Slo {
            limits: LimitSpec { ttft: self.ttft, tpot: self.tpot, e2e: self.e2e }.into(),
            by_class: self.classes.iter().map(|(name, &limits)| (name.clone(), limits.into())).collect(),
            aggregate: self.aggregate(),
            attainment: self.attainment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_one_word() {
        let slo: SloSpec = "ttft=2s, tpot=50ms,attainment=0.9,ttft_p99=5s".parse().unwrap();
        assert_eq!((slo.ttft.unwrap().to_string(), slo.attainment), ("2s".to_owned(), Some(0.9)));
        assert!(slo.tpot.is_some() && slo.ttft_p99.is_some());
        for wrong in ["", "ttft", "ttft=soon", "latency=2s", "attainment=95"] {
            assert!(wrong.parse::<SloSpec>().is_err(), "{wrong}");
        }
    }
}
