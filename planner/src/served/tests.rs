//! Runs of a server that is the simulator itself, with constants that are known.

use std::ops::ControlFlow;

use forerun_sim::rng::Stream;
use forerun_workloads::spec::Loop;
use forerun_workloads::trace::measured::{MeasuredFormat, MeasuredRequest, MeasuredRun};

use super::constants::{Constant, Constants};
use super::fit::{ServedFit, fit_runs};
use super::replay::simulate;
use crate::assemble::{assemble, assemble_with};
use crate::replicate::RunsProgress;
use crate::scenario::read::{Loaded, parse};

const SERVER: &str = "
model: meta-llama/Llama-3.1-8B
engine: {max_num_seqs: 64, max_num_batched_tokens: 2048, max_model_len: 8192, num_gpu_blocks: 8000}
overhead: {gateway: 0s}
";

fn server(text: &str) -> Loaded {
    Loaded { scenario: parse(text, &[]).unwrap(), base: "".into(), name: "server".into() }
}

fn carry_on(_: RunsProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A run of the server with these constants; times are off by 4 % (first token) and 2 % (the others), at random.
fn measured(workload: &str, constants: &Constants, seed: u64) -> MeasuredRun {
    let loaded = server(&format!("{SERVER}workload: {workload}\nrun: {{seed: {seed}}}\n"));
    let assembled = assemble_with(&loaded, constants).unwrap();
    let source = assembled.workload.source(seed).unwrap();
    let prompts = prompts(source);
    let simulated = simulate(&assembled, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut noise = Stream::new(seed, "noise");
    let request = |(place, times): (u64, crate::validate::measured::Times)| {
        let first_s = times.first_s.unwrap();
        let mut off = |deviation: f64| libm::exp(deviation * noise.normal());
        let ttft = (first_s - times.arrival_s) * off(0.04);
        let decoding = (times.last_s - first_s) * off(0.02);
        MeasuredRequest {
            sent_s: times.arrival_s,
            due_s: times.arrival_s,
            first_s: Some(times.arrival_s + ttft),
            last_s: times.arrival_s + ttft + decoding,
            input_tokens: prompts[place as usize],
            output_tokens: times.tokens,
            prefix: None,
        }
    };
    MeasuredRun {
        name: format!("run {seed}"),
        format: MeasuredFormat::Table,
        requests: simulated.requests.into_iter().map(request).collect(),
        unanswered: 0,
        gaps_ms: Vec::new(),
        pacing: Loop::Open,
        stage: None,
    }
}

/// Lengths of all prompts, in the order of sending.
fn prompts(mut source: impl forerun_sim::source::Source) -> Vec<u32> {
    let mut prompts = Vec::new();
    while source.peek().unwrap().is_some() {
        prompts.extend(source.pop().unwrap().map(|request| request.prompt.tokens()));
    }
    prompts
}

fn varied(rate: u32) -> String {
    format!(
        "{{synthetic: {{arrival: {{poisson: {{rate: {rate}}}}}, input_tokens: {{lognormal: {{median: 700, sigma: 0.9}}}}, \
         output_tokens: {{uniform: {{min: 20, max: 40}}}}}}, requests: 200}}"
    )
}

fn fitted(runs: Vec<MeasuredRun>) -> ServedFit {
    fit_runs(runs, &server(SERVER), &carry_on).unwrap()
}

#[test]
fn planted_constants_lie_in_their_intervals_as_often_as_these_say() {
    let (mut told, mut within, mut close) = (0, 0, 0);
    for draw in 0..20 {
        let mut stream = Stream::new(draw, "truth");
        let mut planted = |constant, usual: f64, spread: f64, most: f64| {
            (constant, (usual * libm::exp(spread * stream.normal())).min(most))
        };
        let truth = Constants::from([
            planted(Constant::ApiServerMs, 6.0, 0.4, 60.0),
            planted(Constant::GemmComputeEfficiency, 0.75, 0.1, 0.98),
            planted(Constant::GemmBandwidthEfficiency, 0.8, 0.1, 0.98),
        ]);
        let runs = vec![measured(&varied(2), &truth, 100 + draw), measured(&varied(14), &truth, 200 + draw)];
        let profile = fitted(runs).profile;
        for (constant, planted) in &truth {
            let Some(fitted) = profile.constants.get(constant) else { continue };
            let [low, high] = fitted.interval;
            told += 1;
            within += u32::from((low..=high).contains(planted));
            close += u32::from((fitted.value / planted - 1.0).abs() < 0.1);
        }
    }
    let share = f64::from(within) / f64::from(told);
    assert!(told >= 50, "most of the 60 planted constants are told: {told}");
    assert!((0.8..=0.98).contains(&share), "{within} of {told} within their 90 % intervals");
    assert!(close * 10 >= told * 8, "{close} of {told} within 10 %");
}

#[test]
fn one_rate_and_one_length_leave_doubts_that_are_named() {
    let workload =
        "{synthetic: {arrival: {poisson: {rate: 1}}, input_tokens: 600, output_tokens: 30}, requests: 200}";
    let fit = fitted(vec![measured(workload, &Constants::new(), 3)]);
    let refused = &fit.profile.refused;
    for constant in
        [Constant::TokenizeMsPer1kTokens, Constant::PrefillComputeEfficiency, Constant::EngineUsPerStep]
    {
        assert!(refused.contains_key(&constant), "{constant:?}: {refused:?}");
    }
    let why = &refused[&Constant::TokenizeMsPer1kTokens];
    assert!(why.contains("several lengths"), "{why}");
    assert!(fit.profile.constants.contains_key(&Constant::GemmBandwidthEfficiency), "decodes tell it");
    assert!(fit.about[0].contains("prompts of one length"), "{:?}", fit.about);
}

#[test]
fn a_profile_is_used_by_the_scenario_that_names_it() {
    let truth = Constants::from([(Constant::GemmBandwidthEfficiency, 0.5)]);
    let fit = fitted(vec![measured(&varied(2), &truth, 5)]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("served.json");
    std::fs::write(&path, fit.profile.to_json()).unwrap();
    let scenario = format!("{SERVER}workload: {}\n", varied(2));
    let with = |profile: &str| assemble(&server(&format!("{scenario}{profile}")));
    let profile = format!("profile: {}\n", path.display());
    let assembled = with(&profile).unwrap();
    assert_eq!(assembled.cost_models[0].grade, "measured here");
    let tpot = |assembled: &crate::assemble::Assembled| {
        simulate(assembled, &mut |_| ControlFlow::Continue(())).unwrap().summary.tpot_ms.mean.unwrap()
    };
    let (served, catalog) = (tpot(&assembled), tpot(&with("").unwrap()));
    assert!(
        served > 1.4 * catalog,
        "{served} ms with half of the bandwidth, {catalog} ms with the catalog's"
    );
    let other = with(&format!("{profile}pools: [{{gpu: a100-sxm-80gb}}]\n")).unwrap_err().to_string();
    assert!(other.contains("was measured on h100-sxm, not on a100-sxm-80gb"), "{other}");
}

#[test]
fn what_cannot_be_fitted_is_refused_with_the_mend() {
    let run = measured(&varied(2), &Constants::new(), 5);
    let refusal = |text: &str, runs: Vec<MeasuredRun>| {
        fit_runs(runs, &server(&format!("{SERVER}{text}")), &carry_on).unwrap_err().to_string()
    };
    let few = MeasuredRun { requests: run.requests[..20].to_vec(), ..run.clone() };
    assert!(refusal("", vec![few]).contains("20 requests were answered: at least 50"));
    assert!(refusal("pools: [{}, {}]\n", vec![run.clone()]).contains("keep the pool that was measured"));
    assert!(refusal("step_time: {decode: 2}\n", vec![run]).contains("remove them"));
}
