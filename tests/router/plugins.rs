//! Recordings of single plugins.

use forerun_policies::epp::plugin::{Context, Dispatch, Filter, Names, Notes, Scorer};
use forerun_policies::epp::{EndpointState, TieRule, deciders, filters, pickers, scorers};
use forerun_sim::request::Labels;
use serde_json::{Value, json};

use super::{
    Compared, Request, expect, info, list, now, places, prefix, real, same_reason, state, text, topology,
};

/// A scene for one recorded case: what a context borrows.
struct Scene {
    request: Request,
    endpoints: Vec<EndpointState>,
    matches: Vec<Vec<Option<forerun_policies::epp::prefix::PrefixMatch>>>,
    peer: Option<forerun_policies::epp::Topology>,
}

impl Scene {
    fn new(case: &Value, endpoints: &[Value], names: &Names) -> Self {
        let labels = &mut Labels::default();
        let states = endpoints.iter().map(|endpoint| state(endpoint, names.attributes(), labels)).collect();
        Self {
            endpoints: states,
            matches: vec![endpoints.iter().map(|endpoint| prefix(&endpoint["prefix"])).collect()],
            peer: topology(&case["req"]["peer_topo"], labels),
            request: Request::new(&case["req"], labels),
        }
    }

    fn with<R>(&self, look: impl FnOnce(&Context<'_>) -> R) -> R {
        self.request.view(|request| {
            look(&Context {
                now: now(),
                request,
                endpoints: &self.endpoints,
                matches: &self.matches,
                peer_topology: self.peer,
            })
        })
    }
}

/// The parameters that the constructor refuses, and those that it does not.
fn constructors(recording: &Value, make: impl Fn(&Value) -> Result<(), String>) -> Compared {
    for refused in list(recording, "rejected_params") {
        let recorded = text(&refused["error"]);
        match make(&refused["params"]) {
            Ok(()) if recorded.is_empty() => {}
            Ok(()) => return Err(format!("{} is accepted: {recorded}", refused["params"])),
            Err(ours) if same_reason(&ours, &recorded) => {}
            Err(ours) => return Err(format!("{}: ours {ours}, recorded {recorded}", refused["params"])),
        }
    }
    Ok(list(recording, "rejected_params").len())
}

fn scorer_of(kind: &str, parameters: &Value, names: &mut Names) -> Result<Box<dyn Scorer>, String> {
    scorers::make(kind, parameters, names)?.ok_or_else(|| format!("there is no scorer {kind}"))
}

fn filter_of(kind: &str, parameters: &Value, names: &mut Names) -> Result<Box<dyn Filter>, String> {
    filters::make(kind, parameters, names, 1)?.ok_or_else(|| format!("there is no filter {kind}"))
}

pub(super) fn scorer(recording: &Value) -> Compared {
    let kind = text(&recording["plugin"]);
    let mut compared =
        constructors(recording, |value| scorer_of(&kind, value, &mut Names::default()).map(|_| ()))?;
    for case in list(recording, "cases") {
        let endpoints = list(case, "eps");
        let mut names = Names::default();
        let mut scorer = scorer_of(&kind, &case["params"], &mut names)?;
        endpoints.iter().for_each(|endpoint| scorer.add_endpoint(&info(endpoint)));
        let candidates: Vec<u32> = (0..endpoints.len() as u32).collect();
        let mut scores = vec![0.0; candidates.len()];
        let scene = Scene::new(case, endpoints, &names);
        scene.with(|context| scorer.score(context, &candidates, &mut scores, &mut Notes::default()));
        let recorded: Vec<f64> = list(case, "scores").iter().map(real).collect();
        expect(&scores, &recorded, || case.to_string())?;
        compared += scores.len();
    }
    Ok(compared)
}

pub(super) fn filter(recording: &Value) -> Compared {
    let kind = text(&recording["plugin"]);
    let mut compared =
        constructors(recording, |value| filter_of(&kind, value, &mut Names::default()).map(|_| ()))?;
    for case in list(recording, "cases") {
        let endpoints = list(case, "eps");
        let mut names = Names::default();
        let mut filter = filter_of(&kind, &case["params"], &mut names)?;
        endpoints.iter().for_each(|endpoint| filter.add_endpoint(&info(endpoint)));
        let mut candidates: Vec<u32> = (0..endpoints.len() as u32).collect();
        let scene = Scene::new(case, endpoints, &names);
        scene.with(|context| filter.filter(context, &mut candidates, &mut Notes::default()));
        expect(&candidates, &places(case, "kept"), || case.to_string())?;
        compared += 1;
    }
    Ok(compared)
}

pub(super) fn deciders(recording: &Value) -> Compared {
    let make = |kind: &str, value: &Value| {
        deciders::make(kind, value, &mut Names::default())?
            .ok_or_else(|| format!("there is no decider {kind}"))
    };
    let mut compared = constructors(recording, |value| make("prefix-based-pd-decider", value).map(|_| ()))?;
    for case in list(recording, "cases") {
        let decider = make(case["decider"].as_str().unwrap_or(""), &case["params"])?;
        let scene = Scene::new(case, std::slice::from_ref(&case["ep"]), &Names::default());
        let disaggregates = scene.with(|context| decider.disaggregates(context, 0));
        expect(&disaggregates, &(case["disaggregate"] == true), || case.to_string())?;
        compared += 1;
    }
    Ok(compared)
}

/// The pick that a recorded step commits.
fn dispatch(context: &Context<'_>, step: &Value, notes: Notes, commit: impl FnOnce(&Dispatch<'_>)) {
    let place = |key: &str| step[key].as_u64().map(|place| place as u32);
    let (primary, prefill) = (place("pick").unwrap_or(0), place("prefill_pick"));
    let picks = [Some(primary), prefill];
    commit(&Dispatch { now: context.now, request: context.request, primary, prefill, picks: &picks, notes });
}

/// A step's candidates are numbers of pods; its requests carry headers and may hit one pod.
fn step_scene(case: &Value, step: &Value) -> Scene {
    let pods: Vec<Value> = (0..case["n"].as_u64().unwrap_or(0))
        .map(|pod| {
            let blocks = u32::from(step["hit"].as_u64() == Some(pod));
            json!({"id": format!("p{pod}"), "prefix": [blocks, 1, 64, blocks]})
        })
        .collect();
    Scene::new(&json!({"req": {"headers": step["headers"]}}), &pods, &Names::default())
}

pub(super) fn no_hit_sequences(recording: &Value) -> Compared {
    let mut compared = 0;
    for case in list(recording, "cases") {
        let mut scorer = scorer_of("no-hit-lru-scorer", &case["params"], &mut Names::default())?;
        for step in list(case, "steps") {
            let (candidates, mut notes) = (places(step, "cand"), Notes::default());
            let mut scores = vec![0.0; candidates.len()];
            step_scene(case, step).with(|context| {
                scorer.score(context, &candidates, &mut scores, &mut notes);
                if step["no_prerequest"] != true {
                    dispatch(context, step, notes, |dispatch| scorer.pre_request(dispatch));
                }
            });
            let recorded: Vec<f64> = list(step, "scores").iter().map(real).collect();
            expect(&scores, &recorded, || step.to_string())?;
            compared += scores.len();
        }
    }
    Ok(compared)
}

pub(super) fn sessions(recording: &Value) -> Compared {
    let kind = text(&recording["plugin"]);
    let mut compared = 0;
    for case in list(recording, "cases") {
        let names = &mut Names::new(vec!["decode".to_owned(), "prefill".to_owned()]);
        let mut scorer = scorers::make(&kind, &case["params"], names)?;
        let mut filter = filters::make(&kind, &case["params"], names, 1)?;
        for step in list(case, "steps") {
            let (mut candidates, mut notes) = (places(step, "cand"), Notes::default());
            let mut scores = vec![0.0; candidates.len()];
            step_scene(case, step).with(|context| {
                if let Some(scorer) = &mut scorer {
                    scorer.score(context, &candidates, &mut scores, &mut notes);
                    dispatch(context, step, notes, |dispatch| scorer.pre_request(dispatch));
                }
                if let Some(filter) = &mut filter {
                    filter.filter(context, &mut candidates, &mut notes);
                    dispatch(context, step, notes, |dispatch| filter.pre_request(dispatch));
                }
            });
            if scorer.is_some() {
                let recorded: Vec<f64> = list(step, "scores").iter().map(real).collect();
                expect(&scores, &recorded, || step.to_string())?;
            } else {
                expect(&candidates, &places(step, "kept"), || step.to_string())?;
            }
            compared += 1;
        }
    }
    Ok(compared)
}

/// Under both tie rules the picks are among the recorded ones, and all of the recorded ones occur.
pub(super) fn max_score_picker(recording: &Value) -> Compared {
    let mut compared = 0;
    for case in list(recording, "cases") {
        let totals: Vec<f64> = list(case, "scores").iter().map(real).collect();
        let candidates: Vec<u32> = (0..totals.len() as u32).collect();
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(|a, b| b.total_cmp(a));
            values
        };
        let picks = case["max"].as_i64().map_or(1, |max| max.max(1)) as usize;
        let mut best_totals = sorted(totals.clone());
        best_totals.truncate(picks);
        for tie_rule in [TieRule::Shuffle, TieRule::Rotate] {
            let parameters = json!({"maxNumOfEndpoints": case["max"]});
            let made = pickers::make("max-score-picker", &parameters, tie_rule, 1)?;
            let mut picker = made.ok_or("there is no max-score-picker")?;
            let mut firsts = std::collections::BTreeSet::new();
            for _ in 0..500 {
                let mut picked = Vec::new();
                picker.pick(&candidates, &totals, &mut picked);
                firsts.insert(picked[0]);
                let picked_totals = sorted(picked.iter().map(|&place| totals[place as usize]).collect());
                expect(&picked_totals, &best_totals, || case.to_string())?;
            }
            expect(&firsts.into_iter().collect(), &places(case, "first_pick_set"), || case.to_string())?;
            compared += 1;
        }
    }
    Ok(compared)
}

/// How often each candidate is picked first agrees with the recorded counts: within 5 standard deviations.
pub(super) fn random_picker(recording: &Value) -> Compared {
    let kind = text(&recording["plugin"]);
    let mut compared = 0;
    for (seed, case) in list(recording, "cases").iter().enumerate() {
        let totals: Vec<f64> = list(case, "scores").iter().map(real).collect();
        let candidates: Vec<u32> = (0..totals.len() as u32).collect();
        let parameters = json!({"maxNumOfEndpoints": case["max"]});
        let made = pickers::make(&kind, &parameters, TieRule::Shuffle, seed as u64)?;
        let mut picker = made.ok_or_else(|| format!("there is no picker {kind}"))?;
        let draws = case["draws"].as_u64().unwrap_or(0);
        let mut counts = vec![0u32; totals.len()];
        for _ in 0..draws {
            let mut picked = Vec::new();
            picker.pick(&candidates, &totals, &mut picked);
            counts[picked[0] as usize] += 1;
        }
        for (&ours, recorded) in counts.iter().zip(list(case, "first_pick_counts").iter().map(real)) {
            let (ours, draws) = (f64::from(ours), draws as f64);
            let share = (ours + recorded) / (2.0 * draws);
            let deviation = (2.0 * draws * share * (1.0 - share)).sqrt();
            if (ours - recorded).abs() > 5.0 * deviation + 1e-9 {
                return Err(format!("{case}: ours {counts:?}"));
            }
            compared += 1;
        }
    }
    Ok(compared)
}
