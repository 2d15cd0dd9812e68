//! What generated requests contain, and what leaves what unmoved.

use super::*;

fn records(text: &str, count: usize) -> (Vec<Record>, Labels) {
    let spec: SyntheticSpec = serde_saphyr::from_str(text).unwrap();
    let mut generator = spec.check(Path::new(".")).unwrap().records(9, None).unwrap();
    let mut labels = Labels::default();
    let records = (0..count).map(|_| generator.next(&mut labels).unwrap().unwrap()).collect();
    (records, labels)
}

const PLAIN: &str =
    "{arrival: {poisson: {rate: 20}}, input_tokens: {gamma: {mean: 900, cv: 1}}, output_tokens: 200";

fn plain(extra: &str, count: usize) -> (Vec<Record>, Labels) {
    records(&format!("{PLAIN}{extra}}}"), count)
}

const SESSIONS: &str = ", sessions: {turns: {geometric: {mean: 3}}, think: {exponential: {mean: 9s}}}";

#[test]
fn changing_the_output_law_moves_neither_arrivals_nor_prompts() {
    let (left, _) = plain(SESSIONS, 500);
    let other = PLAIN.replace("output_tokens: 200", "output_tokens: {lognormal: {median: 7, sigma: 1}}");
    let (right, _) = records(&format!("{other}{SESSIONS}}}"), 500);
    let firsts = |records: &[Record]| -> Vec<(Start, u32)> {
        let first = |r: &&Record| r.session.as_ref().is_some_and(|s| s.turn == 1);
        records.iter().filter(first).map(|r| (r.start, r.prompt.tokens())).collect()
    };
    assert_eq!(firsts(&left), firsts(&right));
    let thinks = |records: &[Record]| records.iter().map(|r| r.start).collect::<Vec<_>>();
    assert_eq!(thinks(&left), thinks(&right));
    assert!(left.iter().zip(&right).any(|(l, r)| l.output_tokens != r.output_tokens));
}

#[test]
fn adding_tenants_adapters_or_sessions_moves_no_first_turn() {
    let (bare, _) = plain("", 50);
    for extra in [", tenants: {count: 5}", ", adapters: {count: 64, zipf: 1.2}", SESSIONS] {
        let (more, _) = plain(extra, 500);
        let firsts = more.iter().filter(|r| matches!(r.start, Start::At(_)));
        for (left, right) in bare.iter().zip(firsts) {
            assert_eq!((left.start, left.prompt.tokens()), (right.start, right.prompt.tokens()), "{extra}");
        }
    }
}

#[test]
fn a_later_turn_contains_the_turn_before_and_its_answer() {
    let (records, _) = plain(SESSIONS, 300);
    let mut followed = 0;
    for pair in records.windows(2) {
        if matches!(pair[1].start, Start::At(_)) {
            continue;
        }
        let before = pair[0].prompt.segments();
        let (kept, added) = pair[1].prompt.segments().split_at(before.len());
        assert_eq!(kept, before);
        assert_eq!(added[0].content, Content::generated(pair[0].number));
        assert_eq!(added[0].tokens, pair[0].output_tokens);
        assert_eq!(added.len(), 2, "the answer, then a new question");
        followed += 1;
    }
    assert!(followed > 100, "{followed} later turns");
}

#[test]
fn a_stripped_answer_is_new_text_that_later_turns_share() {
    let extra = ", sessions: {turns: 3, think: 1s, new_tokens: 7, retained_output: 0.25}";
    let (records, _) = plain(extra, 3);
    let second = records[1].prompt.segments();
    assert_ne!(second[1].content, Content::generated(0), "its positions moved: no KV block fits");
    assert_eq!((second[1].tokens, second[2].tokens), (50, 7));
    assert_eq!(&records[2].prompt.segments()[..3], second);
}

#[test]
fn a_group_shares_its_prefix_and_is_a_tenant() {
    let extra = ", shared_prefix: {groups: 3, tokens: {uniform: {min: 100, max: 900}}, zipf: 1}";
    let (records, labels) = plain(extra, 2_000);
    let mut counts = [0; 3];
    for record in &records {
        let prefix = record.prompt.segments()[0];
        let group = (0..3).find(|&g| prefix.content == Content::shared(g)).unwrap();
        assert_eq!(labels.name(record.tenant), format!("tenant-{group}"));
        counts[group as usize] += 1;
    }
    assert!(counts[0] > counts[1] && counts[1] > counts[2], "{counts:?} by popularity");
    let lengths = |group| {
        let of_group = |r: &&Record| r.prompt.segments()[0].content == Content::shared(group);
        records.iter().filter(of_group).map(|r| r.prompt.segments()[0].tokens).collect::<Vec<_>>()
    };
    assert!(lengths(1).windows(2).all(|pair| pair[0] == pair[1]), "one length per group");
}

#[test]
fn contradictions_are_refused() {
    for (extra, part) in [
        (", tenants: {count: 2}, shared_prefix: {groups: 2, tokens: 9}", "keep one"),
        (", adapters: {count: 0}", "`adapters`: nothing to choose from"),
        (", adapters: {count: 4, zipf: -1}", "`zipf` is -1"),
        (", shared_prefix: {groups: 2, tokens: 9, users_per_group: 0}", "at least one user"),
        (", sessions: {turns: 2, think: 1s, retained_output: 2}", "`sessions.retained_output` is 2"),
    ] {
        let spec: SyntheticSpec = serde_saphyr::from_str(&format!("{PLAIN}{extra}}}")).unwrap();
        let error = spec.check(Path::new(".")).unwrap_err().to_string();
        assert!(error.contains(part), "{extra}: {error}");
    }
}

#[test]
fn a_rate_counts_every_turn() {
    let spec: SyntheticSpec = serde_saphyr::from_str(&format!("{PLAIN}{SESSIONS}}}")).unwrap();
    let synthetic = spec.check(Path::new(".")).unwrap();
    assert_eq!(synthetic.mean_rate(), Some(60.0), "20 sessions of 3 turns");
    let mut generator = synthetic.records(1, Some(60.0)).unwrap();
    let mut unchanged = synthetic.records(1, None).unwrap();
    let mut labels = Labels::default();
    for _ in 0..50 {
        let (left, right) = (generator.next(&mut labels).unwrap(), unchanged.next(&mut labels).unwrap());
        assert_eq!(left.unwrap().start, right.unwrap().start);
    }
}
