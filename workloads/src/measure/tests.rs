//! Whole workloads whose figures are known beforehand.

use std::path::Path;

use super::*;
use crate::open::open;
use crate::spec::WorkloadSpec;

fn measured(yaml: &str, options: &Options) -> Measures {
    let spec: WorkloadSpec = serde_saphyr::from_str(yaml).expect("a workload");
    let workload = open(&spec, Path::new("")).expect("a workload that exists");
    measure(&mut workload.source(1).expect("a source"), options).expect("requests")
}

fn near(found: Option<f64>, expected: f64, within: f64) {
    let found = found.expect("a figure");
    assert!((found - expected).abs() <= within, "{found} instead of {expected} ± {within}");
}

const TENANTS: &str = "
requests: 20000
synthetic:
  arrival: {poisson: {rate: 5}}
  input_tokens: 400
  output_tokens: 100
  shared_prefix: {groups: 50, tokens: 1600, zipf: 1}
  adapters: {count: 8}
";

#[test]
fn a_poisson_process_has_the_burstiness_of_one() {
    let rates = measured(TENANTS, &Options::default()).rates;
    near(rates.mean_per_s, 5.0, 0.1);
    near(rates.gap_cv, 1.0, 0.02);
    rates.bins.iter().for_each(|bins| near(bins.dispersion, 1.0, 0.35));
    // The 95th percentile of a Poisson count of 300 is about 300 + 1.645 sqrt(300).
    near(rates.sustained_per_s, (300.0 + 1.645 * 17.3) / 60.0, 0.2);
}

#[test]
fn shared_prefixes_are_all_that_is_seen_before() {
    let Measures { prefixes, tenants, adapters, adapters_together, .. } =
        measured(TENANTS, &Options::default());
    // Each of 50 x 8 prefixes (adapters share nothing) is computed once, 80 % of the rest is seen before.
    near(prefixes.seen_share, 0.8 * (1.0 - 400.0 / 20_000.0), 0.003);
    assert_eq!(prefixes.by_cache.last().unwrap().hit_tokens, prefixes.seen_tokens);
    near(prefixes.request_percent.p50, 80.0, 0.1);
    assert_eq!((prefixes.top[0].from_tokens, prefixes.top[0].to_tokens), (0, 1600));
    near(tenants.zipf_exponent, 1.0, 0.05);
    near(adapters.zipf_exponent, 0.0, 0.05);
    assert_eq!((tenants.distinct, adapters.distinct), (50, 8));
    near(adapters_together[2].mean, 8.0, 0.01);
}

#[test]
fn a_round_of_prompts_hits_only_in_a_cache_that_holds_the_whole_round() {
    // Ten prompts in turn: LRU is either large enough for all of them, or hits nothing.
    let mut meter =
        Meter::new(&Options { answers: false, cache_tokens: vec![900 * 16, 999 * 16], ..Options::default() });
    for number in 0..100 {
        let request = example(number, forerun_sim::prompt::Content::shared(number % 10), 1600);
        meter.record(&request);
    }
    let prefixes = meter.finish(&Labels::default()).prefixes;
    // The last of the 100 blocks of a prompt is computed again, for its last token.
    assert_eq!(prefixes.seen_tokens, 90 * 99 * 16);
    assert_eq!(prefixes.hit_share(900 * 16), Some(0.0));
    near(prefixes.hit_share(999 * 16), 0.9 * 0.99, 1e-12);
    near(prefixes.hit_share(1 << 40), 0.9 * 0.99, 1e-12);
    near(prefixes.cache_tokens_for(1.0), 15_984.0, 16.0);
}

#[test]
fn the_next_turn_reuses_the_answer_unless_answers_are_left_out() {
    let yaml = "
requests: 3000
synthetic:
  arrival: {poisson: {rate: 1}}
  input_tokens: 160
  output_tokens: 321
  sessions: {turns: 2, think: 30}
";
    let with = measured(yaml, &Options::default());
    // Second turns: 160 + 321 + 160 tokens, of which 480 lie in full blocks of what was computed.
    near(with.prefixes.seen_share, 480.0 / (160.0 + 641.0), 0.01);
    near(with.sessions.gap_s.mean, 30.0, 1e-6);
    near(with.sessions.turns.p50, 2.0, 0.0);
    near(with.sessions.new_tokens.mean, 160.0, 0.0);
    let without = measured(yaml, &Options { answers: false, ..Options::default() });
    near(without.prefixes.seen_share, 160.0 / (160.0 + 641.0), 0.01);
}

#[test]
fn a_warm_up_fills_the_cache_and_counts_nowhere_else() {
    let warm = Options { warm_up: Time::ZERO + Span::from_secs(1000), ..Options::default() };
    let all = measured(TENANTS, &Options::default());
    let late = measured(TENANTS, &warm);
    assert_eq!(late.requests + late.warm_up_requests, all.requests);
    assert!(late.warm_up_requests > 4000);
    near(late.prefixes.seen_share, 0.8, 0.001);
    near(late.rates.mean_per_s, 5.0, 0.15);
}

#[test]
fn the_same_workload_has_the_same_figures_to_the_bit() {
    assert_eq!(measured(TENANTS, &Options::default()), measured(TENANTS, &Options::default()));
}

#[test]
fn no_requests_have_no_figures() {
    let none = Meter::new(&Options::default()).finish(&Labels::default());
    assert_eq!((none.requests, none.prefixes.seen_share, none.rates.mean_per_s), (0, None, None));
    assert_eq!(none.prefixes.hit_share(1000), None);
}

fn example(number: u64, content: forerun_sim::prompt::Content, tokens: u32) -> Request {
    use forerun_sim::prompt::{Content, Prompt};
    use forerun_sim::request::{Label, RequestId, Stop};
    Request {
        id: RequestId(number),
        name: None,
        arrival: Time::ZERO + Span::from_secs(number),
        prompt: Prompt::of(content, tokens),
        output: Content::generated(number),
        output_tokens: 50,
        stop: Stop::Eos,
        max_tokens: None,
        priority: 0,
        tenant: Label::NONE,
        class: Label::NONE,
        model: Label::NONE,
        adapter: Label::NONE,
        session: None,
    }
}
