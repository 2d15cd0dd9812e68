//! Hazards of prefix indexes.

use forerun_policies::epp::config::{Config, Plugin};
use forerun_policies::epp::prefix::approx::ApproxConfig;
use serde::Deserialize as _;
use serde_json::Value;

use super::{BLOCK_TOKENS_DEFAULT, Finding, Level, Pods, Surroundings, about, of_kind};

const APPROX: &str = "approx-prefix-cache-producer";
const PRECISE: &str = "precise-prefix-cache-producer";

/// Factors between an index and the cache that it stands for which are reported.
const TOO_LARGE: f64 = 1.1;
const TOO_SMALL: f64 = 0.5;

pub(super) fn check(config: &Config, surroundings: &Surroundings, findings: &mut Vec<Finding>) {
    let approximate: Vec<_> = of_kind(config, APPROX).collect();
    for plugin in &approximate {
        let is_tier = approximate.len() > 1 && plugin.parameters["lruCapacityPerServer"].is_i64();
        findings.extend(approximate_size(plugin, surroundings.pods.as_ref(), is_tier));
    }
    for plugin in of_kind(config, PRECISE) {
        findings.extend(estimated_tokens(config, plugin));
        findings.extend(block_size(plugin, surroundings.pods.as_ref()));
    }
    findings.extend(default_producer(config));
}

/// What an approximate index remembers per pod, against what the pod can hold.
fn approximate_size(plugin: &Plugin, pods: Option<&Pods>, is_tier: bool) -> Option<Finding> {
    let config = match &plugin.parameters {
        Value::Null => ApproxConfig::default(),
        parameters => ApproxConfig::deserialize(parameters).ok()?,
    };
    let engine_block = pods.map_or(BLOCK_TOKENS_DEFAULT, |pods| pods.block_tokens);
    let block_tokens = config.block_tokens(engine_block);
    if is_tier && !config.auto_tune {
        return tier_size(plugin, &config, pods);
    }
    let Some(pods) = pods else {
        let factor = f64::from(block_tokens) / f64::from(engine_block);
        return (config.auto_tune && factor > TOO_LARGE).then(|| {
            let what = format!(
                "the index takes num_gpu_blocks, counted in engine blocks ({engine_block} tokens by default), as its \
                 own blocks of {block_tokens}: it remembers {factor:.1} times what a pod holds, and matches what is long evicted"
            );
            let mend = format!(
                "autoTune: false, blockSizeTokens: {block_tokens}, lruCapacityPerServer: num_gpu_blocks / {factor:.0}; \
                 --scenario gives the numbers"
            );
            about(plugin, Level::Warning, "index-larger-than-cache", what, mend)
        });
    };
    let capacity = config.capacity(pods.num_blocks);
    let remembered = u64::from(capacity) * u64::from(block_tokens);
    let factor = remembered as f64 / pods.tokens() as f64;
    let fitting = pods.tokens() / u64::from(block_tokens);
    let (rule, level, verdict) = match factor {
        factor if factor > TOO_LARGE => {
            ("index-larger-than-cache", Level::Warning, "it matches what is long evicted")
        }
        factor if factor < TOO_SMALL => {
            ("index-smaller-than-cache", Level::Note, "it forgets what is still cached")
        }
        _ => return None,
    };
    let what = format!(
        "the index remembers {capacity} blocks of {block_tokens} tokens per pod, {remembered} tokens; a pod holds {} \
         blocks of {}, {} tokens: {factor:.1} times as much, so {verdict}",
        pods.num_blocks,
        pods.block_tokens,
        pods.tokens()
    );
    let mend = format!("autoTune: false, blockSizeTokens: {block_tokens}, lruCapacityPerServer: {fitting}");
    Some(about(plugin, level, rule, what, mend))
}

/// What an index that stands for a tier remembers: its capacity is written by hand, in blocks of its own.
fn tier_size(plugin: &Plugin, config: &ApproxConfig, pods: Option<&Pods>) -> Option<Finding> {
    let engine_block = pods.map_or(BLOCK_TOKENS_DEFAULT, |pods| pods.block_tokens);
    let block_tokens = config.block_tokens(engine_block);
    let factor = f64::from(block_tokens) / f64::from(engine_block);
    if factor <= TOO_LARGE {
        return None;
    }
    let blocks = config.capacity(0);
    let tokens = u64::from(blocks) * u64::from(block_tokens);
    let bytes = pods.map_or(String::new(), |pods| {
        let gigabytes = tokens as f64 * pods.kv_bytes_per_token as f64 / 1e9;
        format!(", {gigabytes:.1} GB at this model's {} bytes per token", pods.kv_bytes_per_token)
    });
    let what = format!(
        "lruCapacityPerServer {blocks} counts blocks of {block_tokens} tokens, not the engine's of {engine_block}: the \
         index stands for a tier of {tokens} tokens{bytes}, {factor:.1} times what {blocks} engine blocks hold"
    );
    let divisor = pods.map_or_else(
        || format!("{block_tokens} times the KV bytes of a token"),
        |pods| (u64::from(block_tokens) * pods.kv_bytes_per_token).to_string(),
    );
    let mend = format!("lruCapacityPerServer: the tier's bytes per pod, divided by {divisor}");
    Some(about(plugin, Level::Warning, "tier-index-by-hand", what, mend))
}

/// A precise index is asked with the hashes of the router's tokens: those have to be the engine's.
fn estimated_tokens(config: &Config, plugin: &Plugin) -> Option<Finding> {
    let tokenizes = |producer: &Plugin| {
        let backends = ["vllm", "render", "udsTokenizerConfig"];
        backends.iter().any(|backend| producer.parameters.get(backend).is_some_and(|value| !value.is_null()))
    };
    let mut producers =
        config.plugins.iter().filter(|plugin| matches!(plugin.kind.as_str(), "token-producer" | "tokenizer"));
    if producers.any(tokenizes) {
        return None;
    }
    let what = "the token producer has the `estimate` backend, which takes 4 bytes of text for one token: no block of \
                such tokens ever equals one that an engine reports, every lookup finds nothing"
        .to_owned();
    let mend = "add {type: token-producer, parameters: {modelName: MODEL, vllm: {url: http://HOST:8000}}}";
    Some(about(plugin, Level::Error, "estimated-tokens-for-precise-prefixes", what, mend))
}

/// The block size of a precise index has to be the engine's.
fn block_size(plugin: &Plugin, pods: Option<&Pods>) -> Option<Finding> {
    let processor = &plugin.parameters["tokenProcessorConfig"];
    let configured = ["blockSizeTokens", "blockSize"].iter().find_map(|key| processor[*key].as_u64());
    let block = configured.unwrap_or(u64::from(BLOCK_TOKENS_DEFAULT));
    let engine = u64::from(pods.map_or(BLOCK_TOKENS_DEFAULT, |pods| pods.block_tokens));
    if block == engine {
        return None;
    }
    let mend = format!("blockSizeTokens: {engine}, or start vLLM with --block-size {block}");
    Some(match pods {
        Some(_) => {
            let what =
                format!("blocks of {block} tokens here, of {engine} in the engine: their hashes never meet");
            about(plugin, Level::Error, "block-size-mismatch", what, mend)
        }
        None => {
            let what =
                format!("blocks of {block} tokens; vLLM's default is {engine}, and both have to be equal");
            about(plugin, Level::Note, "block-size-mismatch", what, mend)
        }
    })
}

/// Consumers that read the default producer, although another one is configured.
fn default_producer(config: &Config) -> Vec<Finding> {
    let producers: Vec<&Plugin> =
        config.plugins.iter().filter(|plugin| matches!(plugin.kind.as_str(), APPROX | PRECISE)).collect();
    let is_created = producers.iter().any(|plugin| plugin.name == APPROX && plugin.line.is_none());
    let others: Vec<&str> =
        producers.iter().filter(|plugin| plugin.name != APPROX).map(|plugin| plugin.name.as_str()).collect();
    if !is_created || others.is_empty() {
        return Vec::new();
    }
    let reads_default = |plugin: &&Plugin| match plugin.kind.as_str() {
        "no-hit-lru-scorer" | "prefix-cache-scorer" | "prefix-cache-affinity-filter" => {
            plugin.parameters["prefixMatchInfoProducerName"].as_str().unwrap_or("").is_empty()
        }
        "prefix-based-pd-decider" => true,
        _ => false,
    };
    let finding = |plugin: &Plugin| {
        let what = format!(
            "it reads the default producer {APPROX}, which the router therefore creates as one index more, beside {}: \
             what it decides by is not what the other plugins see",
            others.join(" and ")
        );
        let mend = if plugin.kind == "prefix-based-pd-decider" {
            format!(
                "give the producer that it is to read the name {APPROX}: the decider cannot be told another one"
            )
        } else {
            format!("prefixMatchInfoProducerName: {}", others[0])
        };
        about(plugin, Level::Warning, "reads-default-producer", what, mend)
    };
    config.plugins.iter().filter(reads_default).map(finding).collect()
}
