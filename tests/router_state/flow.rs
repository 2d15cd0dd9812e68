//! Saturation, admission and dispatch.

use std::collections::BTreeMap;

use forerun_policies::epp::flow::admission::{ProbabilisticAdmitter, keeps_latency_slo};
use forerun_policies::epp::flow::saturation::{ConcurrencyDetector, UtilizationDetector, stages};
use forerun_policies::epp::flow::usage_limit::{Holdback, SoftReflective, UsageLimit};
use forerun_policies::epp::flow::{BandConfig, Fairness, FlowConfig, FlowController, Ordering, Waiting};
use forerun_policies::epp::{EndpointState, InFlight, Latency, Metrics, RequestView};
use forerun_sim::prompt::Prompt;
use forerun_sim::request::{Label, RequestId};
use forerun_sim::time::{Span, Time};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Compared, expect, list, number, whole};

/// The instant of every decision: metrics have an age before it.
const NOW: Time = Time::from_nanos(1_000_000_000_000);

fn endpoints(values: &[Value]) -> Vec<EndpointState> {
    values.iter().map(endpoint).collect()
}

fn endpoint(value: &Value) -> EndpointState {
    let metrics = Metrics {
        waiting: whole(value, "q"),
        running: whole(value, "r"),
        kv_usage: number(value, "kv", 0.0),
        ..Metrics::default()
    };
    let age = Span::from_millis(u64::from(whole(value, "age_ms")));
    let scraped_at = Time::from_nanos(NOW.as_nanos() - age.as_nanos());
    let latency = |[ttft_headroom, tpot_headroom, ttft, tpot, dispatched]: [f64; 5]| Latency {
        ttft_headroom,
        tpot_headroom,
        ttft,
        tpot,
        dispatched: dispatched as u32,
    };
    EndpointState {
        metrics,
        scraped_at: (value["no_metrics"] != true).then_some(scraped_at),
        in_flight: read::<(u32, u64)>(&value["inflight"])
            .map(|(requests, tokens)| InFlight { requests, tokens }),
        latency: read(&value["lat"]).map(latency),
        ..EndpointState::default()
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Parameters as YAML has them; absent ones are the defaults.
fn parameters<P: DeserializeOwned + Default>(value: &Value) -> Result<P, String> {
    if value.is_null() { Ok(P::default()) } else { P::deserialize(value).map_err(|e| e.to_string()) }
}

fn each_case(recording: &Value, compare: impl Fn(&Value) -> Result<(), String>) -> Compared {
    for (number, case) in list(recording, "cases").iter().enumerate() {
        compare(case).map_err(|e| format!("case {number}: {e}"))?;
    }
    Ok(list(recording, "cases").len())
}

pub(super) fn utilization_saturation(recording: &Value) -> Compared {
    each_case(recording, |case| {
        let detector: UtilizationDetector = parameters(&case["params"])?;
        let saturation = detector.saturation(NOW, &endpoints(list(case, "eps")));
        expect(&Some(saturation), &case["saturation"].as_f64(), || "saturation".into())
    })
}

pub(super) fn concurrency_saturation(recording: &Value) -> Compared {
    each_case(recording, |case| {
        let detector: ConcurrencyDetector = parameters(&case["params"])?;
        let saturation = detector.saturation(&endpoints(list(case, "eps")));
        expect(&Some(saturation), &case["saturation"].as_f64(), || "saturation".into())
    })
}

/// Which endpoints the detector is asked about, what it says of them, and what the ceilings are compared with.
pub(super) fn pool_partition(recording: &Value) -> Compared {
    each_case(recording, |case| {
        let values = list(case, "eps");
        let states = endpoints(values);
        let labels = values.iter().map(|value| parameters::<BTreeMap<String, String>>(&value["labels"]));
        let labels: Vec<_> = labels.collect::<Result<_, _>>()?;
        let stages = stages(&labels);
        let name = |&endpoint: &u32| values[endpoint as usize]["id"].as_str().unwrap_or("").to_owned();
        let names: Vec<Vec<String>> = stages.iter().map(|stage| stage.iter().map(name).collect()).collect();
        expect(&Some(names), &read(&case["calls"]), || "stages".into())?;
        let detector = UtilizationDetector::default();
        let of_stage =
            |stage: &Vec<u32>| detector.saturation(NOW, stage.iter().map(|&i| &states[i as usize]));
        let saturations: Vec<f64> = stages.iter().map(of_stage).collect();
        expect(&Some(&saturations), &read(&case["values"]).as_ref(), || "saturations".into())?;
        let effective = saturations.into_iter().reduce(f64::max);
        expect(&effective, &case["effective"].as_f64(), || "effective saturation".into())
    })
}

pub(super) fn probabilistic_admitter(recording: &Value) -> Compared {
    for refused in list(recording, "rejected_params") {
        let admitter: ProbabilisticAdmitter = parameters(&refused["params"])?;
        let error = admitter.check().err().map(|e| e.to_string());
        expect(&error.as_deref(), &refused["error"].as_str(), || refused["params"].to_string())?;
    }
    each_case(recording, |case| {
        let admitter: ProbabilisticAdmitter = parameters(&case["params"])?;
        let priority = case["prio"].as_i64().unwrap_or(0) as i32;
        let probability = admitter.reject_probability(priority, &endpoints(list(case, "eps")));
        let recorded = number(case, "reject_probability", f64::NAN);
        // Go's pow differs from libm's in the last bit.
        let is_equal = (probability - recorded).abs() <= 1e-12;
        expect(&is_equal, &true, || format!("probability {probability}, recorded {recorded}"))
    })
}

pub(super) fn latency_slo_admitter(recording: &Value) -> Compared {
    each_case(recording, |case| {
        let headers: BTreeMap<String, String> = parameters(&case["req"]["headers"])?;
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let request = RequestView {
            id: RequestId(0),
            model: Label::NONE,
            prompt: &Prompt::new(),
            max_tokens: None,
            priority: case["req"]["prio"].as_i64().unwrap_or(0) as i32,
            headers: &headers,
        };
        let admitted = keeps_latency_slo(&request, &endpoints(list(case, "eps")));
        expect(&Some(admitted), &case["admitted"].as_bool(), || "admitted".into())
    })
}

/// The usage-limit policy of this name.
fn usage_limit(name: &str, params: &Value) -> Result<UsageLimit, String> {
    Ok(match name {
        "static-usage-limit-policy" => UsageLimit::Static { threshold: number(params, "threshold", 1.0) },
        "priority-holdback-policy" => {
            let ceiling = |key: &str| params[key].as_f64();
            let holdback =
                Holdback::new(ceiling("minCeiling"), ceiling("maxCeiling"), params["domain"].as_str());
            UsageLimit::Holdback(holdback.map_err(|e| e.to_string())?)
        }
        "soft-reflective-ceiling-policy" => UsageLimit::SoftReflective(SoftReflective::default()),
        other => return Err(format!("no policy is called {other}")),
    })
}

pub(super) fn usage_limits(recording: &Value) -> Compared {
    // Unknown fields are the configuration reader's business.
    for refused in list(recording, "rejected_params") {
        let reason = refused["error"].as_str().unwrap_or("");
        if reason.starts_with("invalid priority holdback") {
            let error = usage_limit("priority-holdback-policy", &refused["params"]).err();
            expect(&error.as_deref(), &Some(reason), || refused["params"].to_string())?;
        }
    }
    each_case(recording, |case| {
        let mut limit = usage_limit(case["plugin"].as_str().unwrap_or(""), &case["params"])?;
        for (at, step) in list(case, "steps").iter().enumerate() {
            let mut ceilings = Vec::new();
            let priorities: Vec<i32> = parameters(&step["priorities"])?;
            limit.ceilings(number(step, "saturation", 0.0), &priorities, &mut ceilings);
            expect(&Some(ceilings), &read(&step["ceilings"]), || format!("ceilings of step {at}"))?;
        }
        Ok(())
    })
}

/// Who is dispatched in every cycle.
pub(super) fn dispatch(recording: &Value) -> Compared {
    each_case(recording, |case| {
        let mut controller = FlowController::new(flow_config(case)?);
        for (at_ms, request) in (0..).zip(list(case, "requests")) {
            let span = |key: &str| request[key].as_u64().map(Span::from_millis);
            let flow = request["flow"].as_str().unwrap_or("");
            let priority = request["prio"].as_i64().unwrap_or(0) as i32;
            let waiting = Waiting {
                ttl: span("ttl_ms"),
                ttft_limit: span("slo_ttft_ms"),
                ..Waiting::new(RequestId(at_ms), flow, priority)
            };
            let now = Time::from_nanos(at_ms * 1_000_000);
            controller.enqueue(now, waiting, true).map_err(|shed| format!("request {at_ms}: {shed:?}"))?;
        }
        for (number, cycle) in list(case, "cycles").iter().enumerate() {
            let now = Time::from_nanos((1_000 + number as u64) * 1_000_000);
            let gone =
                controller.cycle(now, cycle[0].as_f64().unwrap_or(0.0)).map(|request| request.id.0 as usize);
            let name = gone.and_then(|at| list(case, "requests")[at]["id"].as_str());
            expect(&name, &cycle[1].as_str(), || format!("cycle {number}"))?;
        }
        Ok(())
    })
}

fn flow_config(case: &Value) -> Result<FlowConfig, String> {
    let policy = |key: &str| case[key].as_str().unwrap_or("");
    let band = BandConfig {
        fairness: Fairness::find(policy("fairness")).ok_or("an unknown fairness policy")?,
        ordering: Ordering::find(policy("ordering")).ok_or("an unknown ordering policy")?,
        ..BandConfig::default()
    };
    let priorities: Vec<i32> = parameters(&case["bands"])?;
    let bands = priorities.into_iter().map(|priority| (priority, band)).collect();
    let params = flow_mapping(case["usage_limit_params"].as_str().unwrap_or("{}"))?;
    let usage_limit = usage_limit(policy("usage_limit"), &params)?;
    Ok(FlowConfig { bands, usage_limit, ..FlowConfig::default() })
}

/// A YAML mapping in one line of scalars, `{a: 1, b: word}`, as the recordings have it.
fn flow_mapping(text: &str) -> Result<Value, String> {
    let inner =
        text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or("not a mapping")?;
    let entries = inner.split(',').filter(|entry| !entry.trim().is_empty()).map(|entry| {
        let (key, value) = entry.split_once(':').ok_or("an entry without a value")?;
        let value = value.trim();
        Ok((key.trim().to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
    });
    Ok(Value::Object(entries.collect::<Result<_, String>>()?))
}
