use forerun_sim::prompt::Content;

use super::*;
use crate::trace::tests::{Recorded, collect, read};

/// 1000 requests in 500 sessions over 1000 s, one per second.
fn sessions() -> Recorded {
    let header = "arrival_s,input_tokens,output_tokens,session,turn,prefix_group,prefix_tokens\n";
    let row = |row: u32| {
        let (session, turn) = (row / 2, row % 2 + 1);
        format!("{row},{},10,s{session},{turn},common,50\n", 100 * turn)
    };
    read(header.to_owned() + &(0..=1000).map(row).collect::<String>())
}

/// `trace` at `factor` times its rate.
fn scaled(trace: &Trace, factor: f64, mode: Option<ScaleMode>) -> Vec<Record> {
    let rate = trace.info().mean_rate().unwrap() * factor;
    let plan = ScalePlan::new(trace.info(), rate, mode).unwrap();
    let records = collect(&mut *plan.apply(trace, 7).unwrap());
    let again = collect(&mut *plan.apply(trace, 7).unwrap());
    assert_eq!(format!("{records:?}"), format!("{again:?}"), "the same seed, the same records");
    records
}

fn time(record: &Record) -> Time {
    match record.start {
        Start::At(at) => at,
        Start::AfterPrevious(_) => panic!("{record:?} has no time"),
    }
}

fn contents(record: &Record) -> Vec<Content> {
    record.prompt.segments().iter().map(|segment| segment.content).collect()
}

#[test]
fn thinning_keeps_sessions_whole() {
    let records = scaled(&sessions(), 0.3, None);
    assert!((250..350).contains(&records.len()), "{}", records.len());
    let whole = records.chunks(2).filter(|turns| {
        turns.len() == 2
            && turns[0].session.as_ref().unwrap().session == turns[1].session.as_ref().unwrap().session
    });
    assert!(whole.count() + 1 >= records.len() / 2);
}

#[test]
fn a_higher_rate_keeps_what_a_lower_one_keeps() {
    let trace = sessions();
    let numbers =
        |factor| scaled(&trace, factor, None).iter().map(|record| record.number).collect::<Vec<_>>();
    let more = numbers(0.6);
    assert!(numbers(0.3).iter().all(|number| more.contains(number)));
}

#[test]
fn superposing_reaches_fractional_rates_in_order_of_time() {
    let records = scaled(&sessions(), 2.5, None);
    assert!((2400..2600).contains(&records.len()), "{}", records.len());
    assert!(records.is_sorted_by_key(time));
    assert!(records.iter().all(|record| time(record) <= Time::ZERO + Span::from_secs(1001)));
    let mut numbers: Vec<u64> = records.iter().map(|record| record.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), records.len(), "numbers are unique");
}

#[test]
fn copies_share_the_common_prefix_and_nothing_else() {
    let records = scaled(&sessions(), 2.0, None);
    let (own, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| record.number < 1 << 40);
    assert_eq!((own.len(), others.len()), (1001, 1001));
    let mut own: Vec<Content> = own.iter().flat_map(|record| contents(record)).collect();
    own.sort_unstable();
    own.dedup();
    for record in others {
        let shared = contents(record).into_iter().filter(|content| own.binary_search(content).is_ok());
        assert!(shared.count() <= 1, "only the common prefix");
        assert_eq!(contents(record).last(), Some(&Content::private(record.number)));
    }
}

#[test]
fn a_later_turn_of_a_copy_contains_what_the_copy_generated() {
    let records = scaled(&sessions(), 2.0, None);
    let second = |record: &&Record| record.number > 1 << 40 && record.session.as_ref().unwrap().turn == 2;
    let mut seconds = records.iter().filter(second).peekable();
    assert!(seconds.peek().is_some());
    for record in seconds {
        assert_eq!(contents(record)[2], Content::generated(record.number - 1));
    }
}

#[test]
fn turns_by_think_time_stay_behind_their_first_turn() {
    let header = "arrival_s,input_tokens,output_tokens,session,turn,think_s\n";
    let row = |row: u32| format!("{row},10,1,{row},1,\n,30,1,{row},2,4\n");
    let trace = read(header.to_owned() + &(0..=100).map(row).collect::<String>());
    let records = scaled(&trace, 3.5, None);
    for turns in records.chunks(2) {
        let [first, second] = turns else { panic!("an odd turn") };
        assert_eq!(first.session.as_ref().unwrap().session, second.session.as_ref().unwrap().session);
        assert_eq!(second.start, Start::AfterPrevious(Span::from_secs(4)));
    }
}

#[test]
fn compressing_divides_times_and_warns() {
    let trace = sessions();
    let plan = ScalePlan::new(trace.info(), 4.004, Some(ScaleMode::Compress)).unwrap();
    assert!(plan.warnings()[0].contains("divided by 4.000"), "{:?}", plan.warnings());
    let records = scaled(&trace, 4.0, Some(ScaleMode::Compress));
    assert_eq!(time(&records[1000]), Time::ZERO + Span::from_secs(250));
}

#[test]
fn the_recorded_rate_changes_nothing() {
    let trace = sessions();
    let plan = ScalePlan::new(trace.info(), trace.info().mean_rate().unwrap(), None).unwrap();
    assert_eq!(plan.warnings(), [""; 0]);
    let records = collect(&mut *plan.apply(&trace, 1).unwrap());
    let recorded = collect(&mut *trace.records(1).unwrap());
    let seen =
        |records: &[Record]| records.iter().map(|record| (record.number, record.start)).collect::<Vec<_>>();
    assert_eq!(seen(&records), seen(&recorded));
}

#[test]
fn rates_out_of_reach_are_refused_with_a_mend() {
    let trace = sessions();
    let refusal = |rate, mode| ScalePlan::new(trace.info(), rate, mode).unwrap_err().to_string();
    assert!(refusal(2.0, Some(ScaleMode::Thin)).contains("use `superpose`"));
    assert!(refusal(1e6, None).contains("at most 256"));
    assert!(refusal(1e-300, Some(ScaleMode::Compress)).contains("146 years"));
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(refusal(rate, None).contains("above 0"), "{rate}");
    }
    let single = read("arrival_s,input_tokens,output_tokens\n1,1,1\n");
    assert!(ScalePlan::new(single.info(), 1.0, None).is_err());
}
