//! The plugin types that the real router registers, and what the simulator does with each.
//! Source: llm-d-router cmd/epp/runner, `registerInTreePlugins`.

/// What a plugin can do in a scheduling profile or for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Filters.
    Filter,
    /// Scores.
    Scorer,
    /// Filters and scores.
    FilterScorer,
    /// Picks.
    Picker,
    /// Chooses the profiles that run.
    Handler,
    /// Works outside scheduling profiles: producers, deciders, admitters, policies, sources, parsers.
    Other,
}

/// A registered plugin type.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The type's name.
    pub kind: &'static str,
    /// What it does in a profile.
    pub role: Role,
    /// Whether it needs `--allow-experimental-plugins`.
    pub alpha: bool,
    /// Whether the simulator has it, or needs nothing of it.
    pub simulated: bool,
}

/// The entry of a type.
#[must_use]
pub fn find(kind: &str) -> Option<Entry> {
    CATALOG.iter().copied().find(|entry| entry.kind == kind)
}

const fn beta(kind: &'static str, role: Role) -> Entry {
    Entry { kind, role, alpha: false, simulated: true }
}

const fn alpha(kind: &'static str, role: Role) -> Entry {
    Entry { kind, role, alpha: true, simulated: true }
}

const fn unsimulated(entry: Entry) -> Entry {
    Entry { simulated: false, ..entry }
}

use Role::{Filter, FilterScorer, Handler, Other, Picker, Scorer};

/// All types.
pub const CATALOG: [Entry; 79] = [
    beta("label-selector-filter", Filter),
    beta("by-label-selector", Filter),
    beta("by-label", Filter),
    beta("decode-filter", Filter),
    beta("prefill-filter", Filter),
    beta("encode-filter", Filter),
    beta("prefix-cache-affinity-filter", Filter),
    beta("slo-headroom-tier-filter", Filter),
    beta("utilization-detector", Filter),
    beta("concurrency-detector", Filter),
    unsimulated(beta("header-based-testing-filter", Filter)),
    alpha("session-affinity-filter", Filter),
    alpha("endpoint-attribute-filter", Filter),
    alpha("topology-affinity-filter", Filter),
    alpha("utilization-filter", Filter),
    unsimulated(alpha("multicluster-session-affinity-filter", Filter)),
    beta("context-length-aware", FilterScorer),
    beta("queue-scorer", Scorer),
    beta("kv-cache-utilization-scorer", Scorer),
    beta("running-requests-size-scorer", Scorer),
    beta("load-aware-scorer", Scorer),
    beta("active-request-scorer", Scorer),
    beta("token-load-scorer", Scorer),
    beta("prefix-cache-scorer", Scorer),
    beta("precise-prefix-cache-scorer", Scorer),
    beta("no-hit-lru-scorer", Scorer),
    beta("lora-affinity-scorer", Scorer),
    beta("latency-scorer", Scorer),
    unsimulated(beta("mm-embeddings-cache-scorer", Scorer)),
    alpha("session-affinity-scorer", Scorer),
    unsimulated(alpha("header-label-affinity-scorer", Scorer)),
    alpha("endpoint-attribute-scorer", Scorer),
    unsimulated(alpha("topology-affinity-scorer", Scorer)),
    unsimulated(alpha("multicluster-queue-scorer", Scorer)),
    unsimulated(alpha("multicluster-kv-cache-utilization-scorer", Scorer)),
    unsimulated(alpha("multicluster-prefix-cache-scorer", Scorer)),
    beta("max-score-picker", Picker),
    beta("random-picker", Picker),
    beta("weighted-random-picker", Picker),
    beta("single-profile-handler", Handler),
    beta("disagg-profile-handler", Handler),
    unsimulated(beta("data-parallel-profile-handler", Handler)),
    unsimulated(alpha("header-profile-handler", Handler)),
    beta("disagg-headers-handler", Other),
    beta("prefill-header-handler", Other),
    beta("always-disagg-pd-decider", Other),
    beta("prefix-based-pd-decider", Other),
    beta("always-disagg-multimodal-decider", Other),
    beta("approx-prefix-cache-producer", Other),
    beta("precise-prefix-cache-producer", Other),
    beta("inflight-load-producer", Other),
    beta("predicted-latency-producer", Other),
    beta("token-producer", Other),
    beta("tokenizer", Other),
    beta("session-id-producer", Other),
    unsimulated(beta("mm-embeddings-cache-producer", Other)),
    unsimulated(alpha("burst-prefix-cache-producer", Other)),
    unsimulated(alpha("p2p-source-producer", Other)),
    beta("global-strict-fairness-policy", Other),
    beta("round-robin-fairness-policy", Other),
    beta("program-aware-fairness", Other),
    beta("fcfs-ordering-policy", Other),
    beta("edf-ordering-policy", Other),
    beta("slo-deadline-ordering-policy", Other),
    beta("static-usage-limit-policy", Other),
    alpha("priority-holdback-policy", Other),
    alpha("soft-reflective-ceiling-policy", Other),
    beta("latency-slo-admitter", Other),
    beta("probabilistic-admitter", Other),
    beta("metrics-data-source", Other),
    beta("core-metrics-extractor", Other),
    beta("endpoint-notification-source", Other),
    beta("notification-source", Other),
    beta("openai-parser", Other),
    beta("anthropic-parser", Other),
    beta("vllmhttp-parser", Other),
    beta("passthrough-parser", Other),
    beta("vllmgrpc-parser", Other),
    beta("request-attribute-reporter", Other),
];
