//! Hazards of load, roles, queues and adapters.

use forerun_policies::epp::config::{Config, LoadError, Plugin, Stage};
use forerun_policies::epp::filters::{PREFILL_ROLES, ROLE_LABEL};
use forerun_sim::time::Span;

use super::{Finding, Level, PUBLISHED_COLD_START, Pods, ROUTE_TIMEOUT, Surroundings, about, of_kind};

/// What a queue lives for where the configuration does not say.
const TTL_DEFAULT: Span = Span::from_secs(60);

/// Types whose decisions rest on counts of the picker itself.
const COUNTING: [&str; 6] = [
    "active-request-scorer",
    "token-load-scorer",
    "concurrency-detector",
    "prefix-cache-affinity-filter",
    "approx-prefix-cache-producer",
    "no-hit-lru-scorer",
];

pub(super) fn check(config: &Config, surroundings: &Surroundings, findings: &mut Vec<Finding>) {
    time_to_live(config, surroundings, findings);
    prefill_labels(config, surroundings.pods.as_ref(), findings);
    if surroundings.epp_replicas > 1 {
        local_state(config, surroundings.epp_replicas, findings);
    }
    producer_order(config, findings);
    for plugin in of_kind(config, "lora-affinity-scorer") {
        let what = "a pod that has not run a step publishes no max_lora, which is read as 0 slots: it scores 0.0 where \
                    an idle pod that ran scores 0.8. New replicas are shunned while others have room"
            .to_owned();
        let mend = "send each new pod one request before it is ready (a startup probe can), or weigh the scorer below \
                    the load scorers";
        findings.push(about(plugin, Level::Warning, "lora-shuns-new-pods", what, mend));
    }
}

/// Requests that wait for the first replica have to outlive its start.
fn time_to_live(config: &Config, surroundings: &Surroundings, findings: &mut Vec<Finding>) {
    let flow = &config.flow_control;
    if !flow.enabled {
        return;
    }
    let cold_start = surroundings.cold_start.unwrap_or(PUBLISHED_COLD_START);
    let source = match surroundings.cold_start {
        Some(_) => "given",
        None => "published for Qwen3-32B on an H100; --cold-start takes yours",
    };
    let ttl = flow.no_endpoint_request_ttl.or(flow.default_request_ttl).unwrap_or(TTL_DEFAULT);
    let seconds = |span: Span| span.as_secs_f64();
    let mut push = |rule, what: String, mend: String| {
        findings.push(Finding { level: Level::Warning, rule, plugin: None, line: None, what, mend });
    };
    // A time to live of zero is for ever.
    if ttl != Span::ZERO && ttl < cold_start {
        push(
            "ttl-below-cold-start",
            format!(
                "a request waits {:.0} s for the first endpoint and is then answered 503; a cold start takes {:.1} s \
                 ({source}): scaled to zero, nobody ever waits long enough",
                seconds(ttl),
                seconds(cold_start)
            ),
            format!("flowControl: {{noEndpointRequestTTL: {:.0}s}}", (1.5 * seconds(cold_start)).ceil()),
        );
    }
    let route = surroundings.route_timeout.unwrap_or(ROUTE_TIMEOUT);
    if route < cold_start {
        push(
            "route-timeout-below-cold-start",
            format!(
                "the gateway gives up after {:.0} s; a cold start takes {:.1} s ({source})",
                seconds(route),
                seconds(cold_start)
            ),
            format!("a timeout of at least {:.0} s in the HTTPRoute", (1.5 * seconds(cold_start)).ceil()),
        );
    }
}

/// The prefill filter rejects pods without a role; the decode filter takes them.
fn prefill_labels(config: &Config, pods: Option<&Pods>, findings: &mut Vec<Finding>) {
    let is_used =
        |filter: &&Plugin| config.profiles.iter().any(|profile| profile.filters.contains(&filter.name));
    for plugin in of_kind(config, "prefill-filter").filter(is_used) {
        let Some((level, which)) = unlabelled(pods) else { continue };
        let what = format!(
            "{which} rejected here, while decode-filter takes pods without the label {ROLE_LABEL}: those serve whole \
             requests, and nothing is disaggregated to them, without an error"
        );
        let mend = format!("label the pods {ROLE_LABEL}: prefill and {ROLE_LABEL}: decode");
        findings.push(about(plugin, level, "unlabelled-pods-with-prefill", what, mend));
    }
}

/// Which pods the prefill filter rejects for want of a label, and how bad that is; `None` when it is not.
fn unlabelled(pods: Option<&Pods>) -> Option<(Level, String)> {
    let Some(pods) = pods else { return Some((Level::Note, "pods without a role are".to_owned())) };
    let prefills = |role: &str| PREFILL_ROLES.contains(&role);
    if !pods.roles.iter().any(|(_, role)| role.as_deref().is_some_and(prefills)) {
        return Some((Level::Error, "all pools of the scenario are".to_owned()));
    }
    let unlabelled: Vec<_> =
        pods.roles.iter().filter(|(_, role)| role.is_none()).map(|(name, _)| format!("`{name}`")).collect();
    (!unlabelled.is_empty()).then(|| (Level::Warning, format!("the pods of {} are", unlabelled.join(", "))))
}

/// Counts and indexes live in one picker; others do not see what it sent.
fn local_state(config: &Config, replicas: u32, findings: &mut Vec<Finding>) {
    for plugin in config.plugins.iter().filter(|plugin| COUNTING.contains(&plugin.kind.as_str())) {
        let what = format!(
            "{replicas} pickers count by themselves: each sees about 1/{replicas} of the requests in flight and of the \
             prompts that were sent, and all send the next ones to the same pods"
        );
        let mend = "one replica of the picker, or dataLayer.crossReplicaSyncerPluginRef";
        findings.push(about(plugin, Level::Warning, "local-state-in-several-pickers", what, mend));
    }
}

/// The order of producers without a required dependency differs from start to start.
fn producer_order(config: &Config, findings: &mut Vec<Finding>) {
    let has_prefixes = config.plugins.iter().any(|plugin| plugin.kind.ends_with("prefix-cache-producer"));
    let reads = config.plugins.iter().find(|plugin| plugin.kind == "token-load-scorer");
    if let Some(plugin) = reads
        && has_prefixes
    {
        let what = "the in-flight producer only optionally reads prefix matches, so their order is drawn at each start: \
                    in 26 to 75 % of starts matches come first, otherwise every pod's uncached tokens are the whole \
                    prompt for this scorer, whatever is cached"
            .to_owned();
        let mend = "do not let this scorer stand for prefix affinity: weigh prefix-cache-scorer beside it, and compare \
                    both orders";
        findings.push(about(plugin, Level::Warning, "random-producer-order", what, mend));
    }
}

/// The refusal of a token-load scorer whose producer is not configured, as a finding.
pub(super) fn missing_producer(error: &LoadError) -> Option<Finding> {
    let known = error.stage == Stage::DataProducers && error.reason.contains("UncachedRequestTokensDataKey");
    known.then(|| Finding {
        level: Level::Error,
        rule: "token-load-without-producer",
        plugin: Some("token-load-scorer".to_owned()),
        line: error.line,
        what: format!("the router refuses to start: {}", error.reason),
        mend: "add {type: inflight-load-producer} to the plugins".to_owned(),
    })
}
