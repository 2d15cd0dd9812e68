//! The state file of `forerun route`: what an endpoint picker knows at one moment. JSON, or the same in YAML.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::InputError;
use crate::scenario::wording::yaml_error;

/// The oldest metrics that are accepted, in milliseconds: an hour.
pub(super) const AGE_MS_MAX: u64 = 3_600_000;

/// More endpoints than any picker has.
const ENDPOINTS_MAX: usize = 16_384;

/// Larger counts are mistakes, and their sums could leave their types.
const COUNT_MAX: u32 = 1_000_000_000;

/// The longest block, in tokens.
const BLOCK_TOKENS_MAX: u32 = 1 << 20;

/// The most tokens in flight: every JSON reader keeps them.
const TOKENS_MAX: u64 = 1 << 53;

/// What is known, and what is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The pods.
    pub(super) endpoints: Vec<EndpointSpec>,
    /// The request.
    pub(super) request: RequestSpec,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Of vLLM's `cache_config_info`; 0 when it is not published.
    #[serde(default)]
    pub(super) block_size: u32,
    /// Of vLLM's `cache_config_info`; 0 when it is not published.
    #[serde(default)]
    pub(super) num_gpu_blocks: u32,
    /// Its last scrape; absent when it was never scraped.
    #[serde(default)]
    pub(super) metrics: Option<MetricsSpec>,
    /// What the in-flight producer counts on it.
    #[serde(default)]
    pub(super) in_flight: Option<InFlightSpec>,
    /// What it holds of the prompt, by producer.
    #[serde(default)]
    pub(super) prefix: BTreeMap<String, PrefixSpec>,
    /// What the latency predictor says of it.
    #[serde(default)]
    pub(super) latency: Option<LatencySpec>,
    /// Custom metrics.
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, f64>,
}

/// What a scrape said.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MetricsSpec {
    pub(super) waiting: u32,
    pub(super) running: u32,
    /// 0 to 1.
    pub(super) kv_usage: f64,
    pub(super) max_lora: u32,
    pub(super) running_adapters: Vec<String>,
    pub(super) waiting_adapters: Vec<String>,
    pub(super) age_ms: f64,
}

/// Requests in flight, and the tokens that they still have to be prefilled.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlightSpec {
    pub(super) requests: u32,
    #[serde(default)]
    pub(super) tokens: u64,
}

/// A prefix match.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrefixSpec {
    /// Blocks that count as matched, weighted by tier.
    pub(super) matched_blocks: u32,
    /// Blocks in any tier; as many as matched when absent.
    #[serde(default)]
    pub(super) cached_blocks: Option<u32>,
    /// Tokens of a block.
    pub(super) block_tokens: u32,
    /// Blocks of the prompt; those of its tokens, a partial last one included, when absent.
    #[serde(default)]
    total_blocks: Option<u32>,
}

impl PrefixSpec {
    pub(super) fn total_blocks(&self, prompt_tokens: u32) -> u32 {
        self.total_blocks.unwrap_or_else(|| prompt_tokens.div_ceil(self.block_tokens.max(1)))
    }
}

/// A prediction, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LatencySpec {
    pub(super) ttft_ms: f64,
    pub(super) tpot_ms: f64,
    pub(super) ttft_headroom_ms: f64,
    pub(super) tpot_headroom_ms: f64,
    #[serde(default)]
    pub(super) dispatched: u32,
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestSpec {
    pub(super) prompt_tokens: u32,
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) adapter: Option<String>,
    #[serde(default)]
    pub(super) max_tokens: Option<u32>,
    /// In llm-d's sense: higher is served first.
    #[serde(default)]
    pub(super) priority: i32,
    /// By name; names in lower case.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

impl State {
    /// The state in `text`.
    pub(super) fn parse(text: &str) -> Result<Self, InputError> {
        let mut state: Self = serde_saphyr::from_str(text).map_err(|error| yaml_error(&error, text))?;
        let headers = std::mem::take(&mut state.request.headers);
        state.request.headers =
            headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        state.check()?;
        Ok(state)
    }

    fn check(&self) -> Result<(), InputError> {
        match self.endpoints.len() {
            0 => {
                return Err(InputError::new(
                    "`endpoints` is empty: there is nobody to pick; name at least one",
                ));
            }
            1..=ENDPOINTS_MAX => {}
            count => {
                return Err(InputError::new(format!(
                    "{count} endpoints: at most {ENDPOINTS_MAX} are accepted"
                )));
            }
        }
        let mut names = BTreeSet::new();
        for (number, endpoint) in self.endpoints.iter().enumerate() {
            let at = |error: InputError| error.at(&format!("endpoints.{number}"));
            if !names.insert(endpoint.name.as_str()) {
                return Err(at(InputError::new(format!(
                    "two endpoints are called `{}`: rename one",
                    endpoint.name
                ))));
            }
            endpoint.check(self.request.prompt_tokens).map_err(at)?;
        }
        Ok(())
    }
}

impl EndpointSpec {
    fn check(&self, prompt_tokens: u32) -> Result<(), InputError> {
        let within = |name: &str, value: u64, most: u64| match value <= most {
            true => Ok(()),
            false => Err(InputError::new(format!("`{name}` is {value}: at most {most} is possible"))),
        };
        within("block_size", self.block_size.into(), BLOCK_TOKENS_MAX.into())?;
        if let Some(metrics) = &self.metrics {
            within("metrics.waiting", metrics.waiting.into(), COUNT_MAX.into())?;
            within("metrics.running", metrics.running.into(), COUNT_MAX.into())?;
            share("metrics.kv_usage", metrics.kv_usage)?;
            if !(0.0..=AGE_MS_MAX as f64).contains(&metrics.age_ms) {
                let why = format!("it is a number of milliseconds from 0 to {AGE_MS_MAX}");
                return Err(InputError::new(format!("`metrics.age_ms` is {}: {why}", metrics.age_ms)));
            }
        }
        if let Some(load) = self.in_flight {
            within("in_flight.requests", load.requests.into(), COUNT_MAX.into())?;
            within("in_flight.tokens", load.tokens, TOKENS_MAX)?;
        }
        for (producer, prefix) in &self.prefix {
            let name = |field: &str| format!("prefix.{producer}.{field}");
            if prefix.block_tokens == 0 {
                return Err(InputError::new(format!(
                    "`{}` is 0: a block has tokens, for example 64",
                    name("block_tokens")
                )));
            }
            within(&name("block_tokens"), prefix.block_tokens.into(), BLOCK_TOKENS_MAX.into())?;
            let total = prefix.total_blocks(prompt_tokens).into();
            within(&name("matched_blocks"), prefix.matched_blocks.into(), total)?;
            within(&name("cached_blocks"), prefix.cached_blocks.unwrap_or(0).into(), total)?;
        }
        Ok(())
    }
}

fn share(name: &str, value: f64) -> Result<(), InputError> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(InputError::new(format!("`{name}` is {value}: it is a share, from 0 to 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let with = |endpoint: &str| {
            format!("{{\"endpoints\": [{endpoint}], \"request\": {{\"prompt_tokens\": 640}}}}")
        };
        let cases = [
            (with(""), "`endpoints` is empty"),
            (with("{\"name\": \"a\"}, {\"name\": \"a\"}"), "endpoints.1: two endpoints are called `a`"),
            (with("{\"name\": \"a\", \"metrics\": {\"kv_usage\": 1.5}}"), "`metrics.kv_usage` is 1.5"),
            (with("{\"name\": \"a\", \"metrics\": {\"age_ms\": -1}}"), "`metrics.age_ms` is -1"),
            (with("{\"name\": \"a\", \"metrics\": {\"waitin\": 1}}"), "did you mean `waiting`?"),
            (
                with(
                    "{\"name\": \"a\", \"prefix\": {\"p\": {\"matched_blocks\": 11, \"block_tokens\": 64}}}",
                ),
                "`prefix.p.matched_blocks` is 11: at most 10",
            ),
            (
                with("{\"name\": \"a\", \"prefix\": {\"p\": {\"matched_blocks\": 1, \"block_tokens\": 0}}}"),
                "a block has tokens",
            ),
            (with("{\"name\": \"a\", \"in_flight\": {\"requests\": -1}}"), "1:"),
            ("{\"endpoints\": []".to_owned(), "1:"),
        ];
        for (text, part) in cases {
            let error = State::parse(&text).unwrap_err().to_string();
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }

    #[test]
    fn headers_have_no_case_and_a_partial_block_counts() {
        let text = "{\"endpoints\": [{\"name\": \"a\", \"prefix\": {\"p\": {\"matched_blocks\": 0, \"block_tokens\": 64}}}], \
                    \"request\": {\"prompt_tokens\": 65, \"headers\": {\"X-Session-ID\": \"s\"}}}";
        let state = State::parse(text).unwrap();
        assert_eq!(state.request.headers.keys().collect::<Vec<_>>(), ["x-session-id"]);
        assert_eq!(state.endpoints[0].prefix["p"].total_blocks(65), 2);
    }
}
