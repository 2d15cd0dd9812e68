//! From the rows to what to deploy, what that takes, and what to mind.

use super::Study;
use super::advice::{Answer, Chosen, Kind, Part, Row, Signal, Verdict};
use super::sizes::{Fleets, Offer, Sizes};
use crate::emit::arguments::hazard;
use crate::trial::Policy;
use crate::words::{number, percent, plural, seconds};

/// The verdict: of the parts that pay, the one that needs the fewest GPUs, or the plain fleet.
pub(super) fn of(study: &Study<'_>, sizes: &Sizes, rows: &[Row], offers: &[Offer]) -> Verdict {
    let yes = |signal: Signal| rows.iter().find(|row| row.signal == signal && row.answer == Answer::Yes);
    let gpus = |offer: &&Offer| offer.fleets.gpus_of_largest().unwrap_or(u32::MAX);
    let fleet: &Fleets = offers.iter().min_by_key(gpus).map_or(&sizes.plain, |offer| &offer.fleets);
    let replicas = fleet.largest();
    let mut parts: Vec<Part> = offers.iter().map(part).collect();
    if let Some(row) = yes(Signal::Adapters).filter(|_| !offers.iter().any(|o| o.signal == Signal::Adapters))
    {
        parts.push(Part {
            name: "a larger max_loras on each replica".to_owned(),
            gain: row.gain,
            needs: None,
        });
    }
    if let Some(row) = yes(Signal::Bursts) {
        let name = "scale to zero between the bursts (KEDA on the endpoint picker's queue)".to_owned();
        parts.push(Part { name, gain: row.gain, needs: Some(SCALE_TO_ZERO.to_owned()) });
    }
    parts.sort_by(|a, b| share(b).total_cmp(&share(a)));
    let total = replicas.as_ref().map(|replicas| replicas.iter().sum());
    let kind = match total {
        None => Kind::Unreachable,
        Some(_) if parts.iter().any(|part| part.needs.is_some()) => Kind::LlmD,
        Some(1) => Kind::OneVllm,
        Some(_) => Kind::PlainReplicas,
    };
    let mut verdict = Verdict {
        kind,
        headline: String::new(),
        replicas: total,
        gpus: fleet.gpus_of_largest(),
        tensor_parallel: study.subject.tensor_parallel,
        router: fleet.policy().name().to_owned(),
        lift: lift(kind, yes(Signal::Bursts).is_some(), fleet.policy()),
        parts,
        chosen: replicas.map(|replicas| Chosen { setting: fleet.setting.clone(), replicas }),
    };
    verdict.headline = headline(study, &verdict);
    verdict
}

/// Flow control, which holds requests while there is no replica, came to llm-d's router with this version.
const SCALE_TO_ZERO: &str = "router 0.10";

fn part(offer: &Offer) -> Part {
    Part {
        name: offer.name.to_owned(),
        gain: Some(offer.gain),
        needs: offer.fleets.policy().llm_d_min().map(str::to_owned),
    }
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
            let first =
                verdict.parts.iter().find(|part| part.needs.is_some()).map_or("", |part| part.name.as_str());
            let count = match verdict.chosen.as_ref().map(|chosen| chosen.replicas.as_slice()) {
                Some([prefill, decode]) => format!("{prefill} prefill and {decode} decode replicas"),
                _ => count,
            };
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
fn lift(kind: Kind, scaled: bool, policy: Policy) -> Vec<String> {
    let mut lift: Vec<&str> = match kind {
        Kind::OneVllm | Kind::Unreachable => return Vec::new(),
        Kind::PlainReplicas => vec!["a load balancer (a Service is enough for round-robin)"],
        Kind::LlmD => vec![
            "the endpoint picker (a Deployment)",
            "a gateway that asks it for every request",
            "InferencePool and HTTPRoute objects",
        ],
    };
    if policy.follows_kv_events() {
        lift.push("KV events from every vLLM to the endpoint picker");
    }
    if policy == Policy::Disaggregated {
        lift.push("a second Deployment, for prefill, and a routing sidecar in every decode pod");
    }
    if scaled {
        lift.extend(["KEDA with a ScaledObject", "Prometheus, which KEDA asks"]);
    }
    lift.into_iter().map(str::to_owned).collect()
}

/// How long gateways wait for an answer in llm-d's guides.
const ROUTE_TIMEOUT_S: f64 = 300.0;

/// What can go wrong in operation.
pub(super) fn hazards(study: &Study<'_>, rows: &[Row], verdict: &Verdict) -> Vec<String> {
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
    if yes(Signal::Rate) && thresholds.cold_start_s > ROUTE_TIMEOUT_S {
        hazards.push(format!(
            "a new replica takes {} to its first token, longer than a gateway's usual route timeout of {}",
            seconds(thresholds.cold_start_s),
            seconds(ROUTE_TIMEOUT_S)
        ));
    }
    // The index of a replica, 31250 blocks of 64 tokens unless it is told the replica's size: spec of the producer.
    let index = 31_250 * 64;
    if yes(Signal::Prefixes) && index > study.subject.kv_tokens {
        hazards.push(format!(
            "without autoTune the approximate index keeps {} tokens of each replica, {} x what its cache holds: it \
             would promise hits that are gone (the emitted configuration fixes its size)",
            number(f64::from(index as u32)),
            number(index as f64 / study.subject.kv_tokens as f64)
        ));
    }
    let tiers = verdict.chosen.as_ref().and_then(|chosen| chosen.setting.tiers.as_ref());
    hazards.extend(tiers.and_then(hazard));
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
        "autoscaling (row 5 is arithmetic)".to_owned(),
        "the CPU of endpoint picker and gateway beyond their fixed latencies".to_owned(),
        "failures and rollouts".to_owned(),
        "other GPUs and mixed fleets (forerun plan)".to_owned(),
    ];
    if study.subject.offered.shared.is_none() {
        left.push(
            "a store of KV that replicas share (offer one in the scenario's `tiers.shared`)".to_owned(),
        );
    }
    if study.measures.adapters.distinct > 0 {
        left.push("ranks of adapters".to_owned());
    }
    left
}
