//! From the rows to what to deploy, what that takes, and what to mind.

use super::Study;
use super::advice::{Answer, Kind, Part, Row, Signal, Verdict};
use super::sizes::{Fleets, Sizes};
use crate::words::{number, percent, plural, seconds};

/// The verdict.
pub(super) fn of(study: &Study<'_>, sizes: &Sizes, rows: &[Row]) -> Verdict {
    let yes = |signal: Signal| rows.iter().find(|row| row.signal == signal && row.answer == Answer::Yes);
    let aware = sizes.kv_aware.as_ref().filter(|_| yes(Signal::Prefixes).is_some());
    let fleet: &Fleets = aware.unwrap_or(&sizes.plain);
    let tensor_parallel = study.subject.tensor_parallel;
    let replicas = fleet.most();
    let mut parts = Vec::new();
    let candidates = [
        (Signal::Prefixes, "prefix-cache-aware routing by llm-d's endpoint picker"),
        (
            Signal::Adapters,
            "affinity of LoRA adapters to replicas (lora-affinity-scorer), or a larger max_loras",
        ),
        (Signal::Bursts, "scale to zero between the bursts (KEDA on the endpoint picker's queue)"),
    ];
    for (signal, name) in candidates {
        if let Some(row) = yes(signal) {
            parts.push(Part { name: name.to_owned(), gain: row.gain });
        }
    }
    parts.sort_by(|a, b| share(b).total_cmp(&share(a)));
    let kind = match replicas {
        None => Kind::Unreachable,
        Some(_) if !parts.is_empty() => Kind::LlmD,
        Some(1) => Kind::OneVllm,
        Some(_) => Kind::PlainReplicas,
    };
    let mut verdict = Verdict {
        kind,
        headline: String::new(),
        replicas,
        gpus: replicas.map(|replicas| replicas * tensor_parallel),
        tensor_parallel,
        router: fleet.policy().name().to_owned(),
        lift: lift(kind, yes(Signal::Bursts).is_some()),
        parts,
    };
    verdict.headline = headline(study, &verdict);
    verdict
}

fn share(part: &Part) -> f64 {
    part.gain.map_or(1.0, |gain| gain.share)
}

/// The verdict in a sentence or two.
pub(super) fn headline(study: &Study<'_>, verdict: &Verdict) -> String {
    let each = match verdict.tensor_parallel {
        1 => String::new(),
        gpus => format!(" of {gpus} GPUs each (tensor parallel)"),
    };
    let count = plural(verdict.replicas.unwrap_or(0), "replica");
    match verdict.kind {
        Kind::OneVllm => match verdict.tensor_parallel {
            1 => "Stay on one vLLM: none of llm-d's features would pay for this traffic.".to_owned(),
            gpus => format!(
                "Stay on one vLLM, over {gpus} GPUs (tensor parallel): none of llm-d's features would pay for this \
                 traffic."
            ),
        },
        Kind::PlainReplicas => format!(
            "Add plain replicas: {count}{each} behind a {} load balancer. None of llm-d's features saves {}.",
            verdict.router,
            percent(study.thresholds.min_gain)
        ),
        Kind::LlmD => {
            let routed = if verdict.replicas == Some(1) {
                String::new()
            } else {
                format!(", {} routing", verdict.router)
            };
            let first = verdict.parts.first().map_or("", |part| part.name.as_str());
            format!("llm-d pays: {first}. {count}{each}{routed}.")
        }
        Kind::Unreachable => format!(
            "The SLO is out of reach: {} replicas{each} do not hold it. Relax the SLO, or take a faster GPU or a wider \
             split.",
            study.bench.replicas_max
        ),
    }
}

/// What has to be run besides the model servers.
fn lift(kind: Kind, scaled: bool) -> Vec<String> {
    let mut lift: Vec<&str> = match kind {
        Kind::OneVllm | Kind::Unreachable => return Vec::new(),
        Kind::PlainReplicas => vec!["a load balancer (a Service is enough for round-robin)"],
        Kind::LlmD => vec![
            "the endpoint picker (a Deployment)",
            "a gateway that asks it for every request",
            "InferencePool and HTTPRoute objects",
        ],
    };
    if scaled {
        lift.extend(["KEDA with a ScaledObject", "Prometheus, which KEDA asks"]);
    }
    lift.into_iter().map(str::to_owned).collect()
}

/// What can go wrong in operation.
pub(super) fn hazards(study: &Study<'_>, rows: &[Row]) -> Vec<String> {
    let mut hazards = Vec::new();
    let yes = |signal: Signal| rows.iter().any(|row| row.signal == signal && row.answer == Answer::Yes);
    let thresholds = &study.thresholds;
    if yes(Signal::Bursts) {
        // The endpoint picker's noEndpointRequestTTL; the gateway's usual route timeout.
        if thresholds.queue_ttl_s < thresholds.cold_start_s {
            hazards.push(format!(
                "the endpoint picker gives a request up after {} without a replica (noEndpointRequestTTL), and a cold \
                 start takes {}: raise it",
                seconds(thresholds.queue_ttl_s),
                seconds(thresholds.cold_start_s)
            ));
        }
        hazards.push(
            "a gateway's route timeout (often 300 s) counts from the client's request, cold start included"
                .to_owned(),
        );
    }
    // The index of a replica, 31250 blocks of 64 tokens unless it is told the replica's size: spec of the producer.
    let index = 31_250 * 64;
    if yes(Signal::Prefixes) && index > study.subject.kv_tokens {
        hazards.push(format!(
            "without autoTune the approximate index keeps {} tokens of each replica, {} x what its cache holds: it \
             would promise hits that are gone",
            number(f64::from(index as u32)),
            number(index as f64 / study.subject.kv_tokens as f64)
        ));
    }
    if yes(Signal::Adapters) {
        hazards.push(
            "lora-affinity-scorer gives a replica that has never stepped a score of 0: freshly started ones are shunned"
                .to_owned(),
        );
    }
    hazards
}

/// What could change the answer and was left out.
pub(super) fn not_simulated(study: &Study<'_>) -> Vec<String> {
    let mut left = vec![
        "prefill and decode on replicas of their own".to_owned(),
        "KV cache in host memory, on disk or shared".to_owned(),
        "autoscaling".to_owned(),
        "the CPU of endpoint picker and gateway".to_owned(),
    ];
    if study.measures.adapters.distinct > 0 {
        left.push("the time that loading an adapter takes".to_owned());
    }
    left
}
