//! Speculative decoding in a fleet: how many tokens a step gives, what it costs, and when it pays.

use serde_json::Value;

use crate::support::Folder;

/// A server whose clients are so many at a time, with these further settings.
fn server(clients: u32, settings: &str) -> Value {
    let workload = "{synthetic: {arrival: {constant: {rate: 1000}}, input_tokens: 500, output_tokens: 300}";
    let requests = 4 * clients;
    let loops = format!("loop: {{closed: {clients}}}, requests: {requests}}}");
    let folder = Folder::with_scenario(&format!("workload: {workload}, {loops}\n{settings}\n"));
    folder.summary(&["scenario.yaml"])
}

fn number(summary: &Value, pointer: &str) -> f64 {
    summary.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {summary}"))
}

#[test]
fn a_decode_gives_as_many_tokens_in_a_step_as_the_formula_says() {
    for (tokens, acceptance, expected) in [(1, 0.5, 1.5), (3, 0.7, 2.533), (5, 0.9, 4.68559), (4, 0.0, 1.0)] {
        let settings = format!("speculative: {{tokens: {tokens}, acceptance: {acceptance}}}");
        let summary = server(16, &settings);
        let mean = number(&summary, "/speculative/tokens_per_step");
        // An answer's last step is cut short: 2 % of so many steps.
        assert!((mean / expected - 1.0).abs() < 0.03, "{mean} tokens a step, expected {expected}");
        let steps = number(&summary, "/speculative/verified_tokens") / f64::from(tokens);
        let accepted = number(&summary, "/speculative/accepted_tokens");
        assert!((accepted / steps + 1.0 - mean).abs() < 0.01, "every step verifies {tokens}");
    }
}

#[test]
fn it_pays_for_few_requests_and_loses_when_the_gpu_computes_all_it_can() {
    let tpot = |clients, settings| number(&server(clients, settings), "/tpot_ms/mean");
    let drafted = "speculative: {tokens: 4, acceptance: 0.6}";
    let few = tpot(2, drafted) / tpot(2, "");
    assert!(few < 0.75, "2 clients: {few}");
    let many = tpot(512, drafted) / tpot(512, "");
    assert!(many > 1.0, "512 clients: {many}");
}

#[test]
fn a_hopeless_draft_only_costs() {
    let tpot = |settings| number(&server(8, settings), "/tpot_ms/mean");
    let (plain, hopeless) = (tpot(""), tpot("speculative: {tokens: 4, acceptance: 0}"));
    assert!(hopeless > 1.05 * plain, "{hopeless} ms, {plain} ms without");
}

#[test]
fn a_larger_draft_takes_longer_and_leaves_less_memory() {
    let settings = |draft| format!("speculative: {{tokens: 3, acceptance: 0.7, draft: {draft}}}");
    let of = |draft| server(8, &settings(draft));
    let [ngram, eagle, model] = ["ngram", "eagle", "smollm2-135m"].map(of);
    let tpot = |summary| number(summary, "/tpot_ms/mean");
    assert!(tpot(&ngram) < tpot(&eagle) && tpot(&eagle) < tpot(&model));
    let usage = |summary| number(summary, "/replicas/0/kv_usage_mean");
    assert!(usage(&model) > usage(&ngram), "the same requests fill more of what is left");
}

#[test]
fn what_cannot_be_is_refused_and_the_report_says_how_far_to_trust_it() {
    let folder = Folder::new();
    let simulate = |settings: &[&str]| {
        let sets = settings.iter().flat_map(|setting| ["--set", setting]);
        let base = ["simulate", "--preset", "azure-conv", "--set", "workload.requests=20"];
        folder.run(&base.into_iter().chain(sets).collect::<Vec<_>>())
    };
    let ngram = "speculative={tokens: 3, acceptance: 0.5, draft: ngram}";
    let cases: [(&[&str], &str); 5] = [
        (&["speculative={tokens: 0, acceptance: 0.5}"], "`speculative.tokens` is 0"),
        (&["speculative={tokens: 3, acceptance: 1.5}"], "`speculative.acceptance` is 1.5"),
        (
            &["speculative={tokens: 3, acceptance: 0.5, draft: medusa}"],
            "`model: medusa` is not in the catalog",
        ),
        (&["speculative={tokens: 3}"], "acceptance"),
        (&[ngram, "engine.async_scheduling=true"], "exclude each other"),
    ];
    for (settings, expected) in cases {
        let run = simulate(settings);
        assert!(run.code == Some(2) && run.stderr.contains(expected), "{settings:?}: {}", run.stderr);
    }
    let run = simulate(&["speculative={tokens: 3, acceptance: 0.5}"]);
    assert!(
        run.stdout.contains("3 guesses by eagle") && run.stdout.contains("not golden-tested"),
        "{}",
        run.stdout
    );
}
