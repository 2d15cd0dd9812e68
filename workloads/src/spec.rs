//! The `workload:` section of a scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;

use forerun_sim::request::Stop;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::error::WorkloadError;
use crate::law::{Law, Seconds};
use crate::scale::ScaleMode;
use crate::synthetic::SyntheticSpec;
use crate::trace::TraceFormat;
use crate::units::Duration;

/// How many requests a preset or synthetic workload sends when neither `duration` nor `requests` is given.
pub const REQUESTS_DEFAULT: u64 = 10_000;

/// The most users or requests in flight of a loop.
const LOOP_MAX: u32 = 1_000_000;

/// The most times that a request is sent again: one that never fits its timeout would go on for ever.
const RETRIES_MAX: u32 = 100;

/// What arrives: a recorded trace, a preset, or a synthetic workload; exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    /// A recorded trace; `.gz` and `.zst` are read as they are. Relative to the scenario's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<PathBuf>,
    /// A workload that comes with the tool, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// A workload drawn from laws.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<Box<SyntheticSpec>>,
    /// Format of the trace; guessed from its content when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TraceFormat>,
    /// For traces of format `table`: the file's name for each of our columns, where it differs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// For traces of format `table`: the unit (s, ms, us, ns) of `arrival_s` and `think_s`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, String>,
    /// For traces: tokens per hashed block, where the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<u32>,
    /// Mean requests per second, every turn of a session counted. A trace is scaled to it, a preset or
    /// synthetic workload generated at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// How a trace is brought to `rate`. Default: `thin` to go down, `superpose` to go up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleMode>,
    /// Nothing is sent at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// No more requests are sent than this. Default for presets and synthetic workloads without a
    /// `duration`: 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Whether requests are sent at their own times, or when earlier ones end.
    #[serde(default, rename = "loop", skip_serializing_if = "Loop::is_open")]
    pub pacing: Loop,
    /// What clients do when they wait too long.
    #[serde(default, skip_serializing_if = "Client::is_patient")]
    pub client: Client,
    /// What ends an answer. Default: `eos` for traces, `length` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopRule>,
}

/// When requests are sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loop {
    /// At their own times, whatever the system does.
    #[default]
    Open,
    /// At their own times, or as soon after them as fewer than this many are in flight: the client's limit.
    AtMost(NonZeroU32),
    /// As soon as fewer than this many are in flight; their own times are ignored.
    Closed(NonZeroU32),
    /// By users: each sends one session (or single request) after another, and thinks in between.
    #[serde(untagged)]
    Users {
        /// How many users there are.
        users: NonZeroU32,
        /// From the end of a user's session to the next one.
        think: Law<Seconds>,
    },
}

/// What clients do when they wait too long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// A request that takes longer is cancelled. Default: clients wait for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How often a cancelled request is sent again.
    #[serde(default)]
    pub retries: u32,
}

/// What ends an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopRule {
    /// The client's `max_tokens`: benchmarks that force the length.
    Length,
    /// An end-of-sequence token that the engine cannot foresee: recorded traffic.
    Eos,
}

/// Where a workload comes from.
pub(crate) enum Origin<'a> {
    Trace(&'a PathBuf),
    Preset(&'a str),
    Synthetic(&'a SyntheticSpec),
}

impl WorkloadSpec {
    /// Checks that the parts fit together, and says where the workload comes from.
    pub(crate) fn origin(&self) -> Result<Origin<'_>, WorkloadError> {
        let origin = match (&self.trace, self.preset.as_deref(), self.synthetic.as_deref()) {
            (Some(trace), None, None) => Origin::Trace(trace),
            (None, Some(preset), None) => Origin::Preset(preset),
            (None, None, Some(synthetic)) => Origin::Synthetic(synthetic),
            (None, None, None) => {
                return wrong("`workload` names nothing to run: give `trace`, `preset` or `synthetic`");
            }
            (Some(_), Some(_), _) => return wrong("`workload` names both a trace and a preset: keep one"),
            (Some(_), None, Some(_)) => {
                return wrong("`workload` names both a trace and a synthetic workload: keep one");
            }
            (None, Some(_), Some(_)) => {
                return wrong("`workload` names both a preset and a synthetic workload: keep one");
            }
        };
        match origin {
            Origin::Trace(_) => {}
            Origin::Preset(_) | Origin::Synthetic(_) => self.check_no_trace_options()?,
        }
        self.check_rate()?;
        self.check_cut()?;
        Ok(origin)
    }

    fn check_no_trace_options(&self) -> Result<(), WorkloadError> {
        let given = [
            ("format", self.format.is_some()),
            ("columns", !self.columns.is_empty()),
            ("units", !self.units.is_empty()),
            ("block_tokens", self.block_tokens.is_some()),
            ("scale", self.scale.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                wrong(&format!("`workload.{name}` is for traces, and there is none: remove it"))
            }
            None => Ok(()),
        }
    }

    fn check_rate(&self) -> Result<(), WorkloadError> {
        let Some(rate) = self.rate else {
            return match self.scale {
                Some(_) => wrong("`workload.scale` says how to reach a `rate`, and none is given"),
                None => Ok(()),
            };
        };
        if !(rate > 0.0 && rate <= 1e6) {
            return wrong(&format!(
                "`workload.rate` is {rate}, must be above 0 and at most 1000000 per second"
            ));
        }
        match self.pacing {
            Loop::Open | Loop::AtMost(_) => Ok(()),
            Loop::Closed(_) | Loop::Users { .. } => wrong(
                "`workload.rate` has no effect in a closed loop, where ends of requests set the pace: \
                 remove it, or `loop`",
            ),
        }
    }

    fn check_cut(&self) -> Result<(), WorkloadError> {
        if self.requests == Some(0) {
            return wrong("`workload.requests` is 0: nothing would be sent");
        }
        if self.duration.is_some_and(|duration| duration == Duration::default()) {
            return wrong("`workload.duration` is 0: nothing would be sent");
        }
        if self.client.retries > 0 && self.client.timeout.is_none() {
            return wrong("`client.retries` follow timeouts, and there is no `client.timeout`");
        }
        if self.client.retries > RETRIES_MAX {
            let retries = self.client.retries;
            return wrong(&format!("`client.retries` is {retries}: at most {RETRIES_MAX} are possible"));
        }
        if self.client.timeout == Some(Duration::default()) {
            return wrong("`client.timeout` is 0: every request would be cancelled");
        }
        let size = match self.pacing {
            Loop::Open => 0,
            Loop::AtMost(size) | Loop::Closed(size) | Loop::Users { users: size, .. } => size.get(),
        };
        if size > LOOP_MAX {
            return wrong(&format!("`workload.loop` is of {size}: at most {LOOP_MAX} are possible"));
        }
        Ok(())
    }
}

fn wrong<T>(what: &str) -> Result<T, WorkloadError> {
    Err(WorkloadError::Spec(what.into()))
}

impl Loop {
    fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

impl Client {
    fn is_patient(&self) -> bool {
        *self == Self::default()
    }
}

impl From<StopRule> for Stop {
    fn from(rule: StopRule) -> Self {
        match rule {
            StopRule::Length => Self::Length,
            StopRule::Eos => Self::Eos,
        }
    }
}

impl<'de> Deserialize<'de> for Loop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LoopVisitor)
    }
}

struct LoopVisitor;

/// The map form of a loop.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoopFields {
    at_most: Option<NonZeroU32>,
    closed: Option<NonZeroU32>,
    users: Option<NonZeroU32>,
    think: Option<Law<Seconds>>,
}

impl<'de> Visitor<'de> for LoopVisitor {
    type Value = Loop;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a loop: open, {at_most: 256}, {closed: 256} or {users: 500, think: 20s}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Loop, E> {
        match text {
            "open" => Ok(Loop::Open),
            _ => Err(E::custom(format!(
                "`{text}` is not a loop: write open, {{at_most: 256}}, {{closed: 256}} or {{users: 500, think: 20s}}"
            ))),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loop, A::Error> {
        let fields = LoopFields::deserialize(MapAccessDeserializer::new(map))?;
        match fields {
            LoopFields { at_most: Some(most), closed: None, users: None, think: None } => {
                Ok(Loop::AtMost(most))
            }
            LoopFields { at_most: None, closed: Some(most), users: None, think: None } => {
                Ok(Loop::Closed(most))
            }
            LoopFields { at_most: None, closed: None, users: Some(users), think: Some(think) } => {
                Ok(Loop::Users { users, think })
            }
            _ => Err(de::Error::custom(
                "a loop is open, {at_most: 256}, {closed: 256} or {users: 500, think: 20s}, with just these keys",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Result<WorkloadSpec, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_spec_survives_being_written_and_read() {
        for text in [
            "trace: a.jsonl\nformat: mooncake\nrate: 20\nscale: thin\nduration: 1h",
            "preset: azure-conv\nloop: {closed: 256}\nstop: eos",
            "preset: azure-conv\nloop: {users: 500, think: {exponential: {mean: 20s}}}",
            "preset: azure-conv\nloop: open\nclient: {timeout: 300s, retries: 2}",
            "synthetic: {arrival: {poisson: {rate: 20}}, input_tokens: 1000, output_tokens: 200, \
             shared_prefix: {groups: 150, tokens: 6000, users_per_group: 5, zipf: 0}, \
             sessions: {turns: {beta_geometric: [3.39, 1.01]}, think: {lognormal: {median: 30s, sigma: 1}}}, \
             adapters: {count: 64, zipf: 1.2}}\nrequests: 100000",
        ] {
            let spec = yaml(text).unwrap();
            let written = serde_json::to_value(&spec).unwrap();
            assert_eq!(serde_json::from_value::<WorkloadSpec>(written).unwrap(), spec, "{text}");
            let written = serde_saphyr::to_string(&spec).unwrap();
            assert_eq!(yaml(&written).unwrap(), spec, "{text}");
            spec.origin().unwrap();
        }
    }

    #[test]
    fn contradictions_are_told_with_their_mend() {
        for (text, part) in [
            ("trace: a\npreset: b", "`workload` names both a trace and a preset: keep one"),
            ("rate: 5", "give `trace`, `preset` or `synthetic`"),
            ("preset: b\nscale: thin\nrate: 2", "`workload.scale` is for traces"),
            ("preset: b\ncolumns: {a: b}", "`workload.columns` is for traces"),
            ("trace: a\nscale: thin", "and none is given"),
            ("trace: a\nrate: 0", "`workload.rate` is 0"),
            ("trace: a\nrate: .nan", "rate"),
            ("trace: a\nrate: 5\nloop: {closed: 2}", "has no effect in a closed loop"),
            ("trace: a\nrequests: 0", "nothing would be sent"),
            ("trace: a\nduration: 0", "nothing would be sent"),
            ("trace: a\nclient: {retries: 2}", "there is no `client.timeout`"),
            ("trace: a\nloop: {closed: 2000000}", "at most 1000000"),
        ] {
            let error = match yaml(text) {
                Ok(spec) => spec.origin().err().expect(text).to_string(),
                Err(error) => error,
            };
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn wrong_keys_and_values_are_found_at_their_place() {
        for (text, part) in [
            ("preset: a\nlop: open", "lop"),
            ("preset: a\nloop: closed", "`closed` is not a loop: write open, {at_most: 256}, {closed: 256}"),
            ("preset: a\nloop: {closed: 0}", "line 2"),
            ("preset: a\nloop: {closed: 2, users: 3}", "with just these keys"),
            ("preset: a\nloop: {users: 3}", "with just these keys"),
            ("preset: a\nduration: 5 parsecs", "line 2 column 11: `5 parsecs` is not a length of time"),
            ("preset: a\nsynthetic: {arrival: {poison: {rate: 1}}}", "did you mean `poisson`?"),
        ] {
            let error = yaml(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
