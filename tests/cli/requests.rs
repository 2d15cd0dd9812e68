//! What becomes of requests: turns, loops, patience, limits, priorities.

use std::collections::BTreeMap;

use super::{SMALL, assert_accounted, fixed, in_flight_most, requests};
use crate::support::{Folder, Outcome, table};

#[test]
fn a_turn_arrives_when_the_turn_before_has_ended_and_its_user_has_thought() {
    let folder = Folder::with_scenario(
        "model: Qwen/Qwen3-8B\nworkload:\n  requests: 60\n  synthetic:\n    arrival: {poisson: {rate: 2}}\n    \
         input_tokens: 300\n    output_tokens: 30\n    sessions: {turns: 4, think: 750ms}\n",
    );
    let outcomes = folder.scenario_outcomes();
    let turns: BTreeMap<_, _> = outcomes.iter().map(|o| ((o.text("session"), o.nanos("turn")), o)).collect();
    let mut later = 0;
    for ((session, turn), outcome) in &turns {
        if *turn > 1 {
            let before = turns[&(*session, turn - 1)];
            assert_eq!(outcome.nanos("arrival_s"), before.nanos("finished_s") + 750_000_000);
            let history = before.nanos("input_tokens") + before.nanos("output_tokens");
            assert!(outcome.nanos("input_tokens") > history, "a prompt contains what was said before");
            assert!(outcome.nanos("cached_tokens") > 0, "and finds it in the cache");
            later += 1;
        }
    }
    assert!(later > 10);
}

#[test]
fn a_closed_loop_keeps_exactly_so_many_requests_in_flight() {
    let folder = Folder::with_scenario(&fixed(60, 1.0, 500, 20));
    for most in [1, 7] {
        let closed = format!("workload.loop={{closed: {most}}}");
        let outcomes = folder.outcomes(&["scenario.yaml", "--set", &closed]);
        assert_eq!(outcomes.len(), 60);
        assert_eq!(in_flight_most(&outcomes), most);
    }
}

#[test]
fn users_send_one_request_after_another_and_think_between() {
    let folder = Folder::with_scenario(&fixed(60, 1.0, 500, 20));
    let outcomes = folder.outcomes(&["scenario.yaml", "--set", "workload.loop={users: 5, think: 2s}"]);
    assert_eq!(outcomes.len(), 60);
    assert!(in_flight_most(&outcomes) <= 5);
    let ends: Vec<i64> = outcomes.iter().map(|o| o.nanos("finished_s")).collect();
    let later = outcomes.iter().filter(|o| o.nanos("arrival_s") > 2_000_000_000);
    for outcome in later {
        let thought = outcome.nanos("arrival_s") - 2_000_000_000;
        assert!(ends.contains(&thought), "{} follows an end by 2 s", outcome.text("arrival_s"));
    }
}

#[test]
fn clients_that_lose_patience_fail_with_the_reason_timeout_after_their_retries() {
    let folder = Folder::with_scenario(&fixed(30, 50.0, 500, 200));
    let timeout = |retries: &str| {
        let client = format!("workload.client={{timeout: 300ms, retries: {retries}}}");
        folder.summary(&["scenario.yaml", "--set", &client, "--outcomes", "outcomes.csv"])
    };
    let summary = timeout("0");
    assert_accounted(&summary);
    assert_eq!(requests(&summary, "failed"), 30);
    assert_eq!(summary["failures"]["timeout"], 30);
    for outcome in table(&folder.read("outcomes.csv")) {
        assert_eq!((outcome.text("status"), outcome.text("reason")), ("failed", "timeout"));
        assert_eq!(outcome.nanos("finished_s") - outcome.nanos("arrival_s"), 300_000_000);
    }
    let summary = timeout("2");
    assert_eq!((requests(&summary, "failed"), requests(&summary, "retries")), (30, 60));
    assert!(table(&folder.read("outcomes.csv")).iter().all(|o| o.text("retries") == "2"));
}

#[test]
fn a_prompt_that_is_too_long_is_rejected_with_that_reason() {
    let folder = Folder::with_scenario(SMALL);
    folder.write("trace.csv", "arrival_s,input_tokens,output_tokens\n0,100,5\n1,1000,5\n2,5000,5\n");
    let args = ["scenario.yaml", "--trace", "trace.csv", "--set", "workload.requests=9"];
    let args = [&args[..], &["--set", "engine.max_model_len=1000", "--outcomes", "outcomes.csv"]].concat();
    let summary = folder.summary(&args);
    assert_accounted(&summary);
    assert_eq!((requests(&summary, "completed"), requests(&summary, "rejected")), (1, 2));
    assert_eq!(summary["failures"]["too_long"], 2);
    let outcomes = table(&folder.read("outcomes.csv"));
    let rejected: Vec<_> = outcomes.iter().filter(|o| o.text("status") == "rejected").collect();
    assert!(rejected.len() == 2 && rejected.iter().all(|o| o.text("reason") == "too_long"));
}

#[test]
fn what_is_in_flight_at_the_horizon_is_unfinished() {
    let folder = Folder::with_scenario(&fixed(40, 10.0, 500, 100));
    let args = ["scenario.yaml", "--set", "run.horizon=2s", "--outcomes", "outcomes.csv"];
    let summary = folder.summary(&args);
    assert_accounted(&summary);
    let unfinished = requests(&summary, "unfinished");
    assert!(unfinished > 0 && requests(&summary, "completed") > 0);
    assert!(requests(&summary, "arrived") < 40, "nothing arrives after the horizon");
    let outcomes = table(&folder.read("outcomes.csv"));
    let open =
        outcomes.iter().filter(|o| o.text("status") == "unfinished" && o.text("finished_s").is_empty());
    assert_eq!(open.count() as u64, unfinished);
}

#[test]
fn requests_of_the_warm_up_are_simulated_and_left_out() {
    let folder = Folder::with_scenario(&fixed(40, 10.0, 500, 10));
    let args = ["scenario.yaml", "--set", "run.warm_up=1500ms", "--outcomes", "outcomes.csv"];
    let summary = folder.summary(&args);
    let outcomes = table(&folder.read("outcomes.csv"));
    let early = outcomes.iter().filter(|o| o.nanos("arrival_s") < 1_500_000_000).count() as u64;
    assert_eq!(requests(&summary, "warm_up"), early);
    assert_eq!(requests(&summary, "arrived"), 40 - early);
    assert!(early > 0 && outcomes.len() == 40);
    let all = folder.summary(&["scenario.yaml", "--set", "run.warm_up=1h"]);
    assert_eq!(requests(&all, "arrived"), 0);
    assert!(all["warnings"].to_string().contains("run.warm_up"), "{}", all["warnings"]);
}

#[test]
fn a_batch_has_at_most_max_loras_adapters() {
    let adapters = format!("{}    adapters: {{count: 6}}\n", fixed(40, 50.0, 300, 40));
    let folder = Folder::with_scenario(&adapters);
    let adapters_at_once = |limit: u32| {
        let limit = format!("engine.max_loras={limit}");
        let outcomes = folder.outcomes(&["scenario.yaml", "--set", &limit]);
        // Adapters that run at the middle of each request's stay.
        let busy = |at: i64| {
            let running =
                outcomes.iter().filter(|o| o.nanos("scheduled_s") <= at && at < o.nanos("finished_s"));
            running.map(|o| o.text("adapter")).collect::<std::collections::BTreeSet<_>>().len()
        };
        let middle = |o: &Outcome| i64::midpoint(o.nanos("first_token_s"), o.nanos("finished_s"));
        let waited = outcomes.iter().any(|o| o.nanos("engine_queue_lora_ms") > 0);
        (outcomes.iter().map(|o| busy(middle(o))).max().expect("requests"), waited)
    };
    assert_eq!(adapters_at_once(1), (1, true));
    assert_eq!(adapters_at_once(2), (2, true));
    assert!(!adapters_at_once(6).1, "nobody waits where every adapter fits");
}

#[test]
fn the_priority_policy_serves_lower_numbers_first() {
    let folder = Folder::with_scenario(SMALL);
    let mut trace = "arrival_s,input_tokens,output_tokens,id,priority\n0,2000,50,running,0\n".to_owned();
    for (number, priority) in [(1, 5), (2, 3), (3, 1), (4, -2)] {
        trace += &format!("0.0{number},300,20,r{number},{priority}\n");
    }
    folder.write("trace.csv", trace);
    let order = |policy: &str| {
        let policy = format!("engine={{max_num_seqs: 1, scheduling_policy: {policy}}}");
        let mut outcomes =
            folder.outcomes(&["scenario.yaml", "--trace", "trace.csv", "--replicas", "1", "--set", &policy]);
        outcomes.sort_by_key(|o| o.nanos("finished_s"));
        outcomes.iter().map(|o| o.text("id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order("fcfs"), ["running", "r1", "r2", "r3", "r4"]);
    assert_eq!(order("priority"), ["running", "r4", "r3", "r2", "r1"]);
}

#[test]
fn requests_go_to_the_pool_of_the_model_that_they_name() {
    let folder = Folder::with_scenario(
        "workload: {trace: trace.csv}\npools:\n  - {name: small, model: Qwen/Qwen3-8B, replicas: 2}\n  \
         - {name: large, model: meta-llama/Llama-3.1-70B, tensor_parallel: 4}\n",
    );
    let (small, large) = ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-70B");
    let mut trace = "arrival_s,input_tokens,output_tokens,model\n".to_owned();
    for number in 0..12 {
        trace += &format!("{number},100,5,{}\n", [small, large, ""][number % 3]);
    }
    folder.write("trace.csv", trace + "12,100,5,gpt-17\n");
    let outcomes = folder.scenario_outcomes();
    for outcome in &outcomes {
        let (status, pool) = match outcome.text("model") {
            "gpt-17" => ("rejected", ""),
            model if model == large => ("completed", "large"),
            _ => ("completed", "small"),
        };
        assert_eq!(outcome.text("status"), status, "{outcome:?}");
        assert!(outcome.text("replica").starts_with(pool), "{outcome:?}");
    }
    assert_eq!(outcomes.len(), 13);
}
