use std::collections::BTreeMap;
use std::ops::ControlFlow;

use forerun_reports::markdown;
use forerun_reports::terminal::Terminal;

use super::shapes::Shape;
use super::*;
use crate::replicate::RunsProgress;
use crate::scenario::read::parse;

/// Unrelated questions to an 8B model.
const CHAT: &str = "
model: meta-llama/Llama-3.1-8B
workload:
  requests: 3000
  synthetic:
    arrival: {poisson: {rate: 80}}
    input_tokens: {lognormal: {median: 500, sigma: 0.6}}
    output_tokens: {lognormal: {median: 120, sigma: 0.5}}
slo: {ttft: 1s, tpot: 30ms, attainment: 0.95}
";

fn carry_on(_: RunsProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn loaded(text: &str) -> Loaded {
    Loaded { scenario: parse(text, &[]).unwrap(), base: "".into(), name: "test".into() }
}

fn asked(gpus: &[&str], splits: &[u32]) -> Asked {
    let gpus = gpus.iter().map(|&gpu| gpu.to_owned()).collect();
    Asked { gpus, splits: splits.into(), batch_tokens: Vec::new(), replicas_max: 32, ..Asked::default() }
}

fn planned(text: &str, asked: &Asked) -> Plan {
    plan(&loaded(text), asked, &carry_on).unwrap()
}

/// Every fleet of a grid, run with every seed of the confirmation's first look: the cheapest that holds, how many
/// requests it took, and the fleets that are not decided.
struct BruteForce {
    best: Option<(f64, String)>,
    fleets: u64,
    requests: u64,
    open: BTreeMap<String, f64>,
}

/// Runs the grid. What is dearer than the best so far is counted and not run: it could not be the best.
fn brute_force(text: &str, asked: &Asked) -> BruteForce {
    let question = Question::new(&loaded(text)).unwrap();
    let load = Load::of(&question.measures, question.tpot_s);
    let shapes = shapes::shapes(&question.loaded, asked, &load, &question.measures).unwrap().shapes;
    let runs = Runs::open(None, String::new()).unwrap();
    let mut benches = question.benches(asked, &carry_on);
    let (_, bench) = benches.pop().unwrap();
    let fresh = seeds(bench.seeds[0], confirm::SEEDS + 1).split_off(1);
    let seeds = &fresh[..3];
    let mut brute = BruteForce { best: None, fleets: 0, requests: 0, open: BTreeMap::new() };
    for shape in &shapes {
        for replicas in grid(shape, asked.replicas_max) {
            brute.fleets += 1;
            brute.requests += seeds.len() as u64 * bench.traffic.requests;
            let cost = shape.space.cost(&replicas);
            if brute.best.as_ref().is_some_and(|(best, _)| cost >= *best) {
                continue;
            }
            let fleet =
                Candidate { shape: shape.clone(), trial: trial(&runs, &bench, shape, &replicas), replicas };
            let trials: Vec<Trial> =
                seeds.iter().map(|&seed| runs.run(&bench, shape, &fleet.replicas, seed).unwrap()).collect();
            let least = |trial: &Trial| trial.margins().into_iter().fold(f64::INFINITY, f64::min);
            let mean = trials.iter().map(least).sum::<f64>() / trials.len() as f64;
            let name = shape.name(&fleet.replicas);
            if mean >= 0.0 {
                brute.best = Some((cost, name.clone()));
            }
            if mean.abs() < 0.03 {
                brute.open.insert(name, cost);
            }
        }
    }
    brute
}

fn trial(runs: &Runs, bench: &Bench<'_>, shape: &Shape, replicas: &[u32]) -> Trial {
    runs.run(bench, shape, replicas, bench.seeds[0]).unwrap()
}

/// All numbers of replicas of a kind.
fn grid(shape: &Shape, most: u32) -> Vec<Vec<u32>> {
    match shape.setting.parts.len() {
        1 => (1..=most).map(|count| vec![count]).collect(),
        _ => (1..=most).flat_map(|first| (1..=most).map(move |last| vec![first, last])).collect(),
    }
}

/// The plan costs what brute force finds, or its difference is one that the seeds leave open.
fn agrees(text: &str, asked: &Asked) {
    let brute = brute_force(text, asked);
    let plan = planned(text, asked);
    let (best, name) = brute.best.expect("some fleet of the grid holds");
    let fleet = plan.fleet.expect("a plan");
    let open = brute
        .open
        .values()
        .any(|cost| (cost - best).abs() < 1e-9 || (cost - fleet.usd_per_hour).abs() < 1e-9);
    assert!(
        (fleet.usd_per_hour - best).abs() < 1e-9 || open,
        "{} at {} USD/h, and brute force finds {name} at {best}",
        fleet.name,
        fleet.usd_per_hour
    );
    let share = plan.simulation.search_requests as f64 / brute.requests as f64;
    println!("| {} | {name} | {} | {} | {:.1} % |", fleet.name, brute.fleets, brute.requests, share * 100.0);
    assert!(share <= 0.1, "{} of {} requests", plan.simulation.search_requests, brute.requests);
}

/// A scenario of unrelated questions at this rate, with these lengths.
fn questions(model: &str, rate: u32, input: u32, output: u32, slo: &str) -> String {
    format!(
        "model: {model}\nworkload:\n  requests: 6000\n  synthetic:\n    arrival: {{poisson: {{rate: {rate}}}}}\n    \
         input_tokens: {{lognormal: {{median: {input}, sigma: 0.6}}}}\n    output_tokens: {{lognormal: {{median: \
         {output}, sigma: 0.5}}}}\nslo: {{{slo}, attainment: 0.95}}\nengine: {{max_model_len: 8192}}\n"
    )
}

#[test]
fn the_cheapest_of_a_grid_is_found_in_a_tenth_of_its_requests() {
    let together = Asked { roles: Roles::Together, ..asked(&["h100-sxm", "l40s"], &[1, 2]) };
    agrees(&questions("meta-llama/Llama-3.1-8B", 60, 500, 120, "ttft: 1s, tpot: 30ms"), &together);
}

#[test]
#[ignore = "brute force over ten grids takes minutes"]
fn the_cheapest_of_ten_grids_is_found_in_a_tenth_of_their_requests() {
    let chat = |model, rate| questions(model, rate, 500, 120, "ttft: 1s, tpot: 30ms");
    let long = |model, rate| questions(model, rate, 3000, 60, "ttft: 2s, tpot: 60ms");
    let together = |gpus: &[&str], splits: &[u32]| Asked { roles: Roles::Together, ..asked(gpus, splits) };
    let any = |gpus: &[&str], splits: &[u32]| Asked { replicas_max: 8, ..asked(gpus, splits) };
    let (llama, qwen) = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-14B");
    agrees(&chat(llama, 60), &together(&["h100-sxm", "l40s"], &[1, 2]));
    agrees(&chat(llama, 400), &together(&["h100-sxm", "a100-sxm-80gb"], &[1, 2]));
    agrees(&chat(qwen, 120), &together(&["h100-sxm", "h200-sxm"], &[1, 2]));
    agrees(&long(llama, 15), &together(&["h100-sxm", "a100-sxm-80gb", "l40s"], &[1]));
    agrees(&long(qwen, 10), &together(&["h100-sxm", "a100-sxm-80gb"], &[1, 2]));
    agrees(&chat(llama, 60), &any(&["h100-sxm"], &[1, 2]));
    agrees(&chat(qwen, 40), &any(&["h100-sxm"], &[1, 2]));
    agrees(&long(llama, 30), &any(&["h100-sxm"], &[1, 2]));
    agrees(&long(qwen, 10), &any(&["h200-sxm"], &[1, 2]));
    agrees(&long(llama, 20), &any(&["a100-sxm-80gb"], &[1, 2]));
}

#[test]
fn a_plan_says_how_sure_it_is_what_was_close_and_why_the_rest_was_left_out() {
    let plan = planned(CHAT, &asked(&["h100-sxm", "a100-sxm-80gb"], &[1, 2]));
    let fleet = plan.fleet.as_ref().unwrap();
    assert!(plan.confirmation.shown && plan.confirmation.margin.unwrap().low >= 0.0);
    assert!(plan.confirmation.seeds >= 3 && plan.headroom.unwrap() > 0.5);
    let probability = plan.step_times.slo_holds.unwrap();
    assert!((0.0..=1.0).contains(&probability));
    assert!(plan.pareto.iter().all(|other| other.usd_per_hour >= fleet.usd_per_hour - 1e-9));
    assert_eq!(plan.by_roles.len(), 2);
    assert!(plan.rejected.iter().all(|one| !one.why.is_empty()) && !plan.rejected.is_empty());
    assert!(plan.sensitivity.iter().any(|one| one.change == "20 % more traffic"));
    let screen = Terminal::default().render(&plan.to_document());
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    for word in ["P(SLO holds)", "Left out", "USD an hour", "Runner-up"] {
        assert!(screen.contains(word), "{word}: {screen}");
    }
    assert!(markdown::render(&plan.to_document()).contains("| 20 % more traffic |"));
    assert!(!plan.to_json().contains("NaN"));
}

#[test]
fn windows_of_a_recorded_trace_say_how_sure_the_plan_is() {
    let folder = tempfile::tempdir().unwrap();
    let traced = |requests: u32| {
        let path = folder.path().join(format!("{requests}.csv"));
        let lines = (0..requests)
            .map(|n| format!("{},{},{}\n", f64::from(n) * 0.05, 300 + n * 37 % 900, 20 + n * 13 % 90));
        std::fs::write(
            &path,
            "arrival_s,input_tokens,output_tokens\n".to_owned() + &lines.collect::<String>(),
        )
        .unwrap();
        let slo = "slo: {ttft: 1s, tpot: 50ms, attainment: 0.95, ttft_p99: 2s}";
        let text =
            format!("model: meta-llama/Llama-3.1-8B\nworkload: {{trace: {}}}\n{slo}\n", path.display());
        planned(&text, &Asked { roles: Roles::Together, ..asked(&["h100-sxm"], &[1]) })
    };
    let sure = traced(2000).confirmation;
    let margin = sure.margin.expect("an interval");
    assert!(sure.shown && sure.seeds == 1 && margin.low >= 0.0 && margin.low <= margin.high, "{sure:?}");
    assert!(sure.windows.unwrap() >= 8);
    let screen = Terminal::default().render(&traced(2000).to_document());
    assert!(screen.contains("windows of"), "{screen}");
    let short = traced(200).confirmation;
    assert!(short.shown && short.windows.is_some() && traced(200).runner_up.is_none());
}

#[test]
fn spare_replicas_and_stock_are_kept_to() {
    let few = Asked { roles: Roles::Together, ..asked(&["h100-sxm", "a100-sxm-80gb"], &[1]) };
    let plain = planned(CHAT, &few).fleet.unwrap();
    let spare = planned(CHAT, &Asked { survive: 1, ..few.clone() }).fleet.unwrap();
    assert_eq!(spare.parts[0].spare, 1);
    assert!(spare.usd_per_hour > plain.usd_per_hour);
    let gpu = plain.parts[0].gpu.clone();
    let stock = BTreeMap::from([(gpu.clone(), plain.gpus - 1)]);
    let other = planned(CHAT, &Asked { stock, ..few }).fleet.unwrap();
    assert!(other.parts.iter().all(|part| part.gpu != gpu), "{}", other.name);
}

#[test]
fn two_kinds_of_gpus_share_the_work_where_the_stock_of_one_is_not_enough() {
    let few = Asked { roles: Roles::Together, ..asked(&["h100-sxm", "h200-sxm"], &[1]) };
    let plain = planned(CHAT, &Asked { gpus: vec!["h100-sxm".to_owned()], ..few.clone() }).fleet.unwrap();
    let stock = BTreeMap::from([("h100-sxm".to_owned(), plain.gpus - 1), ("h200-sxm".to_owned(), 1)]);
    let mixed = planned(CHAT, &Asked { stock, mixed: true, ..few }).fleet.unwrap();
    let gpus: Vec<&str> = mixed.parts.iter().map(|part| part.gpu.as_str()).collect();
    assert_eq!(gpus, ["h100-sxm", "h200-sxm"], "{}", mixed.name);
}

#[test]
fn a_plan_that_is_taken_up_again_runs_nothing_twice_and_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.json");
    let few = Asked {
        roles: Roles::Together,
        requests: Some(600),
        resume: Some(path.clone()),
        ..asked(&["h100-sxm"], &[1, 2])
    };
    let answer = |plan: &Plan| {
        let mut plan = plan.clone();
        (plan.simulation.wall_s, plan.simulation.runs, plan.simulation.requests) = (None, 0, 0);
        plan.simulation.search_requests = 0;
        plan.to_json()
    };
    let first = planned(CHAT, &few);
    let again = planned(CHAT, &few);
    assert!(first.simulation.runs > 0 && again.simulation.runs == 0);
    assert_eq!(answer(&first), answer(&again));
    std::fs::write(&path, "{}").unwrap();
    let error = plan(&loaded(CHAT), &few, &carry_on).unwrap_err().to_string();
    assert!(error.contains("runs.json") && error.contains("--resume"), "{error}");
}

#[test]
fn what_cannot_be_is_refused_or_answered_with_none() {
    let refused = |text: &str, asked: &Asked| plan(&loaded(text), asked, &carry_on).unwrap_err().to_string();
    let plain = asked(&["h100-sxm"], &[1]);
    assert!(refused(CHAT, &asked(&["h100-sxn"], &[1])).contains("did you mean"));
    assert!(refused(CHAT, &asked(&["mi300x"], &[1])).contains("cost.gpu_hour_usd"));
    assert!(refused(CHAT, &asked(&["h100-sxm"], &[3])).contains("tensor_parallel"));
    assert!(refused(CHAT, &Asked { confidence: 95.0, ..plain.clone() }).contains("--confidence"));
    assert!(refused(CHAT, &Asked { policies: vec!["best".into()], ..plain.clone() }).contains("--policies"));
    let closed = "workload: {preset: azure-conv, requests: 200, loop: {closed: 4}}";
    assert!(refused(closed, &plain).contains("workload.loop"));
    let never = CHAT.replace("ttft: 1s", "ttft: 1ms");
    let few = Asked { requests: Some(200), replicas_max: 4, roles: Roles::Together, ..plain };
    let plan = planned(&never, &few);
    assert!(plan.fleet.is_none() && plan.to_document().title.contains("cheapest"));
}
