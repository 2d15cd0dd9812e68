//! Recordings of whole decisions, step by step: what the producers know, the scores, the ties, the picks.

use std::collections::BTreeMap;
use std::path::Path;

use forerun_policies::epp::config::Config;
use forerun_policies::epp::prefix::PrefixMatch;
use forerun_policies::epp::{
    EndpointState, InFlight, Metrics, Options, ProducerOrder, RequestView, Scheduler,
};
use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Labels, RequestId};
use serde_json::{Value, json};

use super::loads::{AS_UPSTREAM, config_text};
use super::{Compared, expect, info, latency, list, metrics, now, prefix, real, text, whole};

pub(super) fn replay(recording: &Value, path: &Path) -> Compared {
    let name = text(&recording["config"]);
    let loads = path.with_file_name("_loads.json");
    let loads = std::fs::read_to_string(loads).map_err(|e| e.to_string())?;
    let loads: Value = serde_json::from_str(&loads).map_err(|e| e.to_string())?;
    let case = list(&loads, "cases").iter().find(|case| case["config"] == recording["config"]);
    let case = case.ok_or_else(|| format!("{name} is not among the loads"))?;
    let text = config_text(case, path).ok_or_else(|| format!("{name} is missing"))?;
    let config = Config::load(&text, AS_UPSTREAM).map_err(|error| error.to_string())?;
    let mut compared = 0;
    for run in list(recording, "cases") {
        compared += replay_run(&config, run, recording["random_picker"] == true)?;
    }
    Ok(compared)
}

/// Where a filter explores at random, a step may agree with it exploring or not: one scheduler for each.
fn schedulers(config: &Config, run: &Value) -> Result<Vec<Scheduler>, String> {
    let order = list(run, "producer_order");
    let position = |name: &str| order.iter().position(|producer| producer == name);
    let prefix_first = position("approx-prefix-cache-producer") < position("inflight-load-producer");
    let producer_order = if prefix_first { ProducerOrder::PrefixFirst } else { ProducerOrder::InFlightFirst };
    let explores = config.plugins.iter().any(|plugin| plugin.kind == "slo-headroom-tier-filter");
    let variants: &[f64] = if explores { &[0.0, 1.0] } else { &[0.0] };
    let make = |&epsilon: &f64| {
        let mut config = config.clone();
        for plugin in config.plugins.iter_mut().filter(|plugin| plugin.kind == "slo-headroom-tier-filter") {
            plugin.parameters = json!({"epsilonExploreNeg": epsilon});
        }
        let mut scheduler = Scheduler::new(&config, Options { producer_order, ..Options::default() })?;
        for endpoint in list(run, "endpoints") {
            scheduler.add_endpoint(info(endpoint));
        }
        Ok(scheduler)
    };
    variants.iter().map(make).collect()
}

fn replay_run(config: &Config, run: &Value, random: bool) -> Compared {
    let mut schedulers = schedulers(config, run)?;
    let mut ids: BTreeMap<String, RequestId> = BTreeMap::new();
    let labels = &mut Labels::default();
    for step in list(run, "steps") {
        let mut id = |name: &Value| {
            let next = RequestId(ids.len() as u64);
            *ids.entry(text(name)).or_insert(next)
        };
        for event in list(step, "events") {
            let (kind, request) = (text(&event[0]), id(&event[1]));
            for scheduler in &mut schedulers {
                if kind.starts_with("first") {
                    scheduler.first_chunk(request);
                }
                if kind.ends_with("end") {
                    scheduler.ended(request);
                }
            }
        }
        let recorded = &step["req"];
        let mut prompt = Prompt::new();
        for segment in list(recorded, "prompt") {
            prompt.push(Content::shared(whole(&segment[0])), whole(&segment[2]) as u32);
        }
        let request = RequestView {
            id: id(&recorded["id"]),
            model: labels.intern(recorded["model"].as_str().unwrap_or("")),
            prompt: &prompt,
            max_tokens: recorded["max_out"].as_u64().map(|tokens| tokens as u32),
            priority: 0,
            headers: &[],
        };
        let outcomes: Vec<_> = schedulers
            .iter_mut()
            .map(|scheduler| {
                observe(scheduler, run, step, labels);
                decide(scheduler, &request, step, random)
            })
            .collect();
        if !outcomes.iter().any(Result::is_ok) {
            let difference = outcomes.into_iter().find_map(Result::err).unwrap_or_default();
            return Err(format!("{difference} in {step}"));
        }
    }
    Ok(list(run, "steps").len())
}

/// Gives the scheduler what was scraped and what producers published at this step.
fn observe(scheduler: &mut Scheduler, run: &Value, step: &Value, labels: &mut Labels) {
    for (number, endpoint) in list(run, "endpoints").iter().enumerate() {
        let scraped = &step["m"][number];
        let Metrics { max_lora, active_adapters, waiting_adapters, .. } = metrics(endpoint, labels);
        let metrics = Metrics {
            waiting: whole(&scraped[0]) as u32,
            running: whole(&scraped[1]) as u32,
            kv_usage: real(&scraped[2]),
            max_lora,
            active_adapters,
            waiting_adapters,
        };
        scheduler.scrape(now(), number as u32, metrics);
    }
    for (producer, values) in step["injected"].as_object().into_iter().flatten() {
        for (number, value) in values.as_array().into_iter().flatten().enumerate() {
            if producer.starts_with("predicted") {
                scheduler.set_latency(number as u32, latency(value));
            } else {
                scheduler.set_match(producer, number as u32, prefix(value));
            }
        }
    }
}

/// Schedules the step with its recorded picks, compares everything, and commits it.
fn decide(
    scheduler: &mut Scheduler,
    request: &RequestView<'_>,
    step: &Value,
    random: bool,
) -> Result<(), String> {
    let count = list(step, "m").len() as u32;
    let known = |scheduler: &Scheduler, read: fn(&EndpointState) -> Value| -> Vec<Value> {
        (0..count).map(|endpoint| read(scheduler.endpoint(endpoint))).collect()
    };
    let mut same = Ok(());
    let mut compare = |outcome: Result<(), String>| {
        if same.is_ok() {
            same = outcome;
        }
    };
    if step["inflight"].is_array() {
        let load = known(scheduler, |state| {
            let InFlight { requests, tokens } = state.in_flight.unwrap_or_default();
            json!([requests, tokens])
        });
        compare(expect(&load.as_slice(), &list(step, "inflight"), || "in flight".to_owned()));
    }
    let names: Vec<String> = scheduler.runs().map(|(name, _)| name.to_owned()).collect();
    let pick = |name: &String| step["profiles"][name]["pick"][0].as_u64().map(|place| place as u32);
    let recorded: Vec<Option<u32>> = names.iter().map(pick).collect();
    let decision = scheduler.schedule_as(now(), request, &recorded);
    if step["uncached"].is_array() {
        let uncached = known(scheduler, |state| json!(state.uncached_tokens));
        compare(expect(&uncached.as_slice(), &list(step, "uncached"), || "uncached".to_owned()));
    }
    for (producer, matches) in step["match"].as_object().into_iter().flatten() {
        let (total, block) = (whole(&matches[1]) as u32, whole(&matches[2]) as u32);
        for (number, matched) in matches[0].as_array().into_iter().flatten().enumerate() {
            let matched_blocks = whole(matched) as u32;
            let recorded = PrefixMatch {
                matched_blocks,
                cached_blocks: matched_blocks,
                total_blocks: total,
                block_tokens: block,
            };
            let ours = scheduler.prefix(producer, number as u32);
            compare(expect(&ours, &Some(recorded), || format!("match of {producer}")));
        }
    }
    compare(expect(&decision.is_err(), &step["error"].is_string(), || "failure".to_owned()));
    let Ok(decision) = decision else { return same };
    for (name, run) in scheduler.runs() {
        let recorded = &step["profiles"][name];
        let ran = run.ran && !run.candidates.is_empty();
        compare(expect(&ran, &recorded.is_object(), || format!("profile {name} runs")));
        if !ran || !recorded.is_object() {
            continue;
        }
        let mut totals = vec![None; count as usize];
        for (&endpoint, &total) in run.candidates.iter().zip(&run.totals) {
            totals[endpoint as usize] = Some(total);
        }
        let theirs: Vec<Option<f64>> = list(recorded, "scores").iter().map(Value::as_f64).collect();
        compare(expect(&totals, &theirs, || format!("totals of {name}")));
        let mut tied = run.tied();
        tied.sort_unstable();
        compare(expect(&tied, &super::places(recorded, "tied"), || format!("ties of {name}")));
        if !random && !tied.contains(&run.picked[0]) {
            compare(Err(format!("{} is not among the best of {name}", run.picked[0])));
        }
    }
    scheduler.pre_request(now(), request, &decision);
    same
}
