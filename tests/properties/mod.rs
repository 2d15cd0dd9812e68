//! Laws that hold for every run, over random scenarios.
//!
//! Scenarios are drawn from a fixed seed, so a build is green or red for good; `PROPTEST_RNG_SEED` and
//! `PROPTEST_CASES` draw others.

mod engines;
mod laws;
mod scenarios;

use std::collections::BTreeMap;

use forerun_policies::PRESETS;
use forerun_sim::request::{Cause, Status};
use forerun_sim::time::Span;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngSeed, TestRunner};

pub(crate) use self::laws::every_request_ends_exactly_once;
use self::laws::{
    answers_are_complete, causes_add_up, replicas_add_up, statuses_have_their_reasons, times_are_in_order,
    tokens_add_up,
};
pub(crate) use self::scenarios::{Scenario, draft_slots, scenario, speculation};
use self::scenarios::{labels, lines};
use crate::harness::{Run, Script, play};

/// So many cases from a fixed seed, unless the environment says otherwise.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    let drawn = |name| std::env::var_os(name).is_some();
    ProptestConfig {
        cases: if drawn("PROPTEST_CASES") { asked.cases } else { cases },
        rng_seed: if drawn("PROPTEST_RNG_SEED") { asked.rng_seed } else { RngSeed::Fixed(20_261_122) },
        failure_persistence: None,
        max_shrink_time: 10_000,
        ..asked
    }
}

fn outcomes_text(run: &Run) -> String {
    format!("{:?}", run.record.outcomes)
}

/// A law that never has a case is no law: the scenarios reach every ending, every cause and every turn of a life.
#[test]
fn the_scenarios_reach_everything() {
    let mut runner = TestRunner::new(cases(300));
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..300 {
        let scenario = scenario().new_tree(&mut runner).expect("no filters").current();
        for outcome in scenario.run().record.outcomes {
            let turns = [
                ("preempted", outcome.preemptions > 0),
                ("preempted often", outcome.preemptions > 2),
                ("sent again and served", outcome.retries > 0 && outcome.status == Status::Completed),
                (
                    "cut",
                    outcome.status == Status::Completed && outcome.emitted < outcome.request.output_tokens,
                ),
                ("cached", outcome.cached_tokens > 0),
                ("cached elsewhere", outcome.duplicate_tokens > 0),
            ];
            let causes = Cause::ALL.map(|cause| (cause.key(), outcome.spent.get(cause) > Span::ZERO));
            let met = turns.into_iter().chain(causes).filter(|&(_, met)| met).map(|(key, _)| key.to_owned());
            let ending = format!("{} {}", outcome.status.word(), outcome.status.reason());
            for key in met.chain([ending]) {
                *seen.entry(key).or_default() += 1;
            }
        }
    }
    let endings = [
        "completed ",
        "failed timeout",
        "rejected too_long",
        "rejected queue_full",
        "rejected no_such_model",
        "unfinished ",
    ];
    let turns =
        ["preempted", "preempted often", "sent again and served", "cut", "cached", "cached elsewhere"];
    let causes =
        Cause::ALL.into_iter().filter(|cause| !matches!(cause, Cause::RouterQueue | Cause::Transfer));
    for key in endings.into_iter().chain(turns).chain(causes.map(Cause::key)) {
        let count = seen.get(key).copied().unwrap_or(0);
        assert!(count >= 10, "{key} occurs {count} times: {seen:?}");
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn every_run_obeys_the_laws(scenario in scenario()) {
        let run = scenario.run();
        every_request_ends_exactly_once(&run);
        for outcome in &run.record.outcomes {
            statuses_have_their_reasons(&scenario, outcome);
            answers_are_complete(&scenario, outcome);
            times_are_in_order(outcome);
            causes_add_up(&scenario, outcome);
        }
        tokens_add_up(&scenario, &run);
        replicas_add_up(&scenario, &run);
        prop_assert_eq!(run.left_over, 0, "the router's counts return to zero");
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn the_same_scenario_gives_the_same_run(scenario in scenario()) {
        let (one, two) = (scenario.run(), scenario.run());
        prop_assert_eq!(outcomes_text(&one), outcomes_text(&two));
        prop_assert_eq!(format!("{:?}", one.totals), format!("{:?}", two.totals));
    }

    #[test]
    fn another_router_leaves_an_open_loop_s_arrivals_alone(mut scenario in scenario()) {
        scenario.asks.iter_mut().for_each(|ask| ask.follows = None);
        scenario.fleet.horizon = None;
        let arrivals = PRESETS.map(|preset| {
            let lines = lines(&scenario.asks);
            play(&scenario.fleet, Script::new(lines, labels(), Vec::new()), preset.name).record.arrived
        });
        prop_assert_eq!(&arrivals[0], &arrivals[1]);
        prop_assert_eq!(&arrivals[0], &arrivals[2]);
    }

    #[test]
    fn the_router_of_a_single_replica_is_irrelevant(scenario in scenario()) {
        let scenario = scenario.alone();
        let runs = PRESETS.map(|preset| outcomes_text(&Scenario { policy: preset.name, ..scenario.clone() }.run()));
        prop_assert_eq!(&runs[0], &runs[1]);
        prop_assert_eq!(&runs[0], &runs[2]);
    }

    #[test]
    fn with_memory_for_everything_nothing_is_preempted_or_waits_for_blocks(scenario in scenario()) {
        let run = scenario.with_ample_memory().run();
        for outcome in &run.record.outcomes {
            prop_assert_eq!(outcome.preemptions, 0);
            prop_assert_eq!(outcome.spent.get(Cause::EngineQueueKv), Span::ZERO);
        }
    }

    /// On one replica: with several the pace decides who goes where, and that who is too long for it.
    #[test]
    fn a_cache_that_never_evicts_only_saves_prefill(scenario in scenario()) {
        let scenario = Scenario { policy: "round-robin", ..scenario.patient().with_ample_memory().alone() };
        let prefill = |caching| {
            let scenario = scenario.clone().with_engines(|engine| engine.prefix_caching = caching);
            scenario.run().record.prefill_tokens
        };
        prop_assert!(prefill(true) <= prefill(false));
    }

    #[test]
    fn sync_and_async_scheduling_deliver_the_same_answers(scenario in scenario()) {
        // A router that looks at the load may shed at one pace what it lets in at another.
        let scenario = Scenario { policy: "round-robin", ..scenario.patient().alone() };
        let answers = |is_async| {
            let scenario = scenario.clone().with_engines(|engine| engine.async_scheduling = is_async);
            let outcomes = scenario.run().record.outcomes;
            outcomes.iter().map(|o| (o.request.id, (o.status, o.emitted))).collect::<BTreeMap<_, _>>()
        };
        prop_assert_eq!(answers(false), answers(true));
    }
}
