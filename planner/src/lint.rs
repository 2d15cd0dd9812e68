//! What a router configuration does that its author may not expect: known hazards, with numbers and the mend.
//!
//! Sources: llm-d-router at ebab6879, its recordings, and llm-d's guides.

mod prefix;
mod report;
mod rest;

use std::path::Path;

use forerun_policies::epp::config::{Config, LoadError, LoadOptions, Plugin, Upstream};
use forerun_policies::epp::filters::ROLE_LABEL;
use forerun_sim::time::Span;
use serde::Serialize;

use crate::assemble::{Hardware, assemble};
use crate::error::InputError;
use crate::scenario::PoolSpec;
use crate::scenario::read::{Loaded, read_text};

pub use forerun_workloads::units::Duration;
pub use report::Report;

/// A cold start as published: Qwen3-32B on one H100 under vLLM 0.26 on GKE, from the decision to the first answer.
const PUBLISHED_COLD_START: Span = Span::from_millis(277_800);

/// How long gateways wait for an answer in llm-d's guides.
const ROUTE_TIMEOUT: Span = Span::from_secs(300);

/// vLLM's default block, where no scenario says otherwise.
const BLOCK_TOKENS_DEFAULT: u32 = 16;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It cannot work as it is written.
    Error,
    /// It works worse than it looks.
    Warning,
    /// Worth knowing.
    Note,
}

/// One hazard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The hazard's name: stable, for filters of machines.
    pub rule: &'static str,
    /// The plugin that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Where the file has that plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What happens, with numbers.
    pub what: String,
    /// What to write instead.
    pub mend: String,
}

/// What is known of the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pods {
    /// vLLM's block size on the smallest replica, in tokens.
    pub block_tokens: u32,
    /// KV blocks of the smallest replica.
    pub num_blocks: u32,
    /// Bytes of KV cache per token, over all GPUs of the smallest replica.
    pub kv_bytes_per_token: u64,
    /// The pools with the role of their pods; `None` when those have no such label.
    pub roles: Vec<(String, Option<String>)>,
}

/// What a configuration is judged against.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The pods, where a scenario describes them.
    pub pods: Option<Pods>,
    /// Replicas of the endpoint picker.
    pub epp_replicas: u32,
    /// How long a new replica takes to its first answer; a published one where it is not given.
    pub cold_start: Option<Span>,
    /// How long the gateway waits for an answer; llm-d's guides' where it is not given.
    pub route_timeout: Option<Span>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { pods: None, epp_replicas: 1, cold_start: None, route_timeout: None }
    }
}

impl Pods {
    /// The pods of a scenario; `None` when it has none.
    ///
    /// # Errors
    /// When the scenario describes no fleet that could exist.
    pub fn of(loaded: &Loaded) -> Result<Option<Self>, InputError> {
        let fleet = assemble(loaded)?.fleet;
        let default = [PoolSpec::default()];
        let specs = loaded.scenario.pools.as_deref().unwrap_or(&default);
        let mut smallest: Option<Self> = None;
        let mut roles = Vec::new();
        for (spec, pool) in specs.iter().zip(&fleet.pools) {
            let Hardware { model, tensor_parallel, kv_element_bytes, .. } =
                Hardware::new(&loaded.scenario, spec, &loaded.base)?;
            let per_gpu = model.kv_bytes_per_token(tensor_parallel, kv_element_bytes);
            let pods = Self {
                block_tokens: pool.engine.block_size,
                num_blocks: pool.engine.num_gpu_blocks,
                kv_bytes_per_token: per_gpu * u64::from(tensor_parallel),
                roles: Vec::new(),
            };
            if smallest.as_ref().is_none_or(|smallest| pods.tokens() < smallest.tokens()) {
                smallest = Some(pods);
            }
            roles.push((pool.name.clone(), pool.labels.get(ROLE_LABEL).cloned()));
        }
        Ok(smallest.map(|smallest| Self { roles, ..smallest }))
    }

    fn tokens(&self) -> u64 {
        u64::from(self.block_tokens) * u64::from(self.num_blocks)
    }
}

/// Judges the configuration in the file `path`.
///
/// # Errors
/// When the file cannot be read, or the router would refuse it for a reason that is no known hazard.
pub fn lint_file(path: &Path, surroundings: &Surroundings) -> Result<Report, InputError> {
    let place = path.display().to_string();
    let text = read_text(path, "router configuration")?;
    let findings =
        lint(&text, surroundings).map_err(|error| InputError::new(error.to_string()).at(&place))?;
    Ok(Report::new(place, findings))
}

/// Judges a configuration. The worst findings come first.
///
/// # Errors
/// When the router would refuse it for a reason that is no known hazard.
pub fn lint(text: &str, surroundings: &Surroundings) -> Result<Vec<Finding>, LoadError> {
    let options =
        LoadOptions { upstream: Upstream::Lenient, allow_unsimulated: true, allow_experimental: true };
    let config = match Config::load(text, options) {
        Ok(config) => config,
        Err(error) => return rest::missing_producer(&error).map(|finding| vec![finding]).ok_or(error),
    };
    let mut findings = Vec::new();
    prefix::check(&config, surroundings, &mut findings);
    rest::check(&config, surroundings, &mut findings);
    findings.extend(config.warnings.iter().map(|warning| Finding {
        level: Level::Note,
        rule: "read-leniently",
        plugin: None,
        line: None,
        what: warning.clone(),
        mend: "write it as the router version that you roll out has it".to_owned(),
    }));
    findings.sort_by_key(|finding| finding.level);
    Ok(findings)
}

/// The plugins of a type.
fn of_kind<'a>(config: &'a Config, kind: &'a str) -> impl Iterator<Item = &'a Plugin> {
    config.plugins.iter().filter(move |plugin| plugin.kind == kind)
}

/// A finding about a plugin.
fn about(
    plugin: &Plugin,
    level: Level,
    rule: &'static str,
    what: String,
    mend: impl Into<String>,
) -> Finding {
    Finding { level, rule, plugin: Some(plugin.name.clone()), line: plugin.line, what, mend: mend.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration of these plugins, each in the profile that `profiles` names them in.
    fn config(plugins: &str, profiles: &str) -> String {
        format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}\nschedulingProfiles:\n{profiles}\n"
        )
    }

    fn one_profile(plugins: &str, scorer: &str) -> String {
        config(plugins, &format!("- name: default\n  plugins:\n  - pluginRef: {scorer}"))
    }

    fn rules(text: &str, surroundings: &Surroundings) -> Vec<(Level, &'static str)> {
        let findings = lint(text, surroundings).expect("a configuration that loads");
        findings.iter().map(|finding| (finding.level, finding.rule)).collect()
    }

    fn pods(block_tokens: u32, num_blocks: u32) -> Surroundings {
        let pods = Pods { block_tokens, num_blocks, kv_bytes_per_token: 163_840, roles: Vec::new() };
        Surroundings { pods: Some(pods), ..Surroundings::default() }
    }

    #[test]
    fn an_index_of_larger_blocks_remembers_several_times_the_cache() {
        let findings = lint("", &pods(16, 27_000)).expect("the default configuration loads");
        let finding =
            findings.iter().find(|finding| finding.rule == "index-larger-than-cache").expect("a finding");
        assert!(finding.what.contains("4.0 times"), "{}", finding.what);
        assert!(finding.mend.contains("lruCapacityPerServer: 6750"), "{}", finding.mend);
        assert!(!rules("", &pods(64, 6_750)).iter().any(|finding| finding.1 == "index-larger-than-cache"));
    }

    #[test]
    fn precise_routing_needs_real_tokens_and_the_engines_block_size() {
        let producer = "- type: precise-prefix-cache-producer\n  parameters: {tokenProcessorConfig: {blockSize: 64}}\n\
                        - type: prefix-cache-scorer\n  parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}";
        let found = rules(&one_profile(producer, "prefix-cache-scorer"), &pods(16, 1_000));
        assert!(found.contains(&(Level::Error, "estimated-tokens-for-precise-prefixes")), "{found:?}");
        assert!(found.contains(&(Level::Error, "block-size-mismatch")), "{found:?}");
        let found = rules(&one_profile(producer, "prefix-cache-scorer"), &pods(64, 1_000));
        assert!(!found.iter().any(|finding| finding.1 == "block-size-mismatch"), "{found:?}");
    }

    #[test]
    fn a_queue_that_gives_up_before_a_replica_is_up_is_reported() {
        let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\n\
                    plugins: [{type: queue-scorer}]\n";
        let with =
            |seconds| Surroundings { cold_start: Some(Span::from_secs(seconds)), ..Surroundings::default() };
        let reported =
            |seconds| rules(text, &with(seconds)).iter().any(|finding| finding.1 == "ttl-below-cold-start");
        assert!(reported(61) && !reported(59));
    }

    #[test]
    fn token_load_without_its_producer_is_an_error_with_a_mend() {
        let findings =
            lint(&one_profile("- type: token-load-scorer", "token-load-scorer"), &Surroundings::default())
                .expect("a known hazard");
        assert_eq!((findings[0].level, findings[0].rule), (Level::Error, "token-load-without-producer"));
        assert!(findings[0].mend.contains("inflight-load-producer"));
    }

    #[test]
    fn a_tier_counts_the_blocks_of_its_index() {
        let producers = "- type: approx-prefix-cache-producer\n  name: gpu\n\
                         - type: approx-prefix-cache-producer\n  name: cpu\n\
                         \x20 parameters: {autoTune: false, lruCapacityPerServer: 82000}\n\
                         - type: prefix-cache-scorer\n  parameters: {prefixMatchInfoProducerName: cpu}";
        let text = one_profile(producers, "prefix-cache-scorer");
        let tier = |surroundings: &Surroundings| {
            let findings = lint(&text, surroundings).expect("a configuration that loads");
            findings.into_iter().find(|finding| finding.rule == "tier-index-by-hand")
        };
        let what = tier(&pods(16, 10_000)).expect("a finding").what;
        assert!(what.contains("859.8 GB") && what.contains("4.0 times"), "{what}");
        assert_eq!(tier(&pods(64, 2_500)), None, "the engine's blocks are the index's");
        assert!(tier(&Surroundings::default()).is_some());
    }

    #[test]
    fn pools_that_cannot_prefill_are_named() {
        let text = config(
            "- type: prefill-filter\n- type: decode-filter\n- type: disagg-profile-handler",
            "- name: prefill\n  plugins:\n  - pluginRef: prefill-filter\n\
             - name: decode\n  plugins:\n  - pluginRef: decode-filter",
        );
        let level = |roles: &[Option<&str>]| {
            let pool = |role: &Option<&str>| ("pool".to_owned(), role.map(str::to_owned));
            let mut surroundings = pods(64, 1_000);
            surroundings.pods.as_mut().expect("pods").roles = roles.iter().map(pool).collect();
            let found = rules(&text, &surroundings);
            found.iter().find(|finding| finding.1 == "unlabelled-pods-with-prefill").map(|finding| finding.0)
        };
        assert_eq!(level(&[Some("prefill"), Some("decode")]), None);
        assert_eq!(level(&[Some("prefill"), None]), Some(Level::Warning));
        assert_eq!(level(&[None]), Some(Level::Error));
        assert_eq!(level(&[Some("decode")]), Some(Level::Error));
        let found = rules(&text, &Surroundings::default());
        assert!(found.contains(&(Level::Note, "unlabelled-pods-with-prefill")), "{found:?}");
    }

    #[test]
    fn several_pickers_that_count_by_themselves_are_reported() {
        let text = one_profile("- type: active-request-scorer", "active-request-scorer");
        let with = |epp_replicas| Surroundings { epp_replicas, ..Surroundings::default() };
        assert!(rules(&text, &with(2)).contains(&(Level::Warning, "local-state-in-several-pickers")));
        assert!(rules(&text, &with(1)).is_empty());
    }

    #[test]
    fn a_lora_scorer_shuns_new_pods() {
        let text = one_profile("- type: lora-affinity-scorer", "lora-affinity-scorer");
        assert_eq!(rules(&text, &Surroundings::default()), [(Level::Warning, "lora-shuns-new-pods")]);
    }
}
