//! The claim of the fast form: while no key is forgotten by age, nobody can tell it from the definition.

use forerun_sim::prompt::Content;
use proptest::prelude::*;

use super::{BlockKvIndex, ExtentKvIndex, Found, Kind, KvIndex, KvIndexConfig, Text, TierWeights};

const PODS: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    Add { pod: u32, kind: usize, text: usize, from: u32, to: u32 },
    Evict { pod: u32, kind: usize, text: usize, from: u32, to: u32 },
    Clear { pod: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0..PODS, 0..3usize, 0..50usize, 0..20u32, 0..25u32);
    prop_oneof![
        6 => range().prop_map(|(pod, kind, text, from, to)| Op::Add { pod, kind, text, from, to }),
        4 => range().prop_map(|(pod, kind, text, from, to)| Op::Evict { pod, kind, text, from, to }),
        1 => (0..PODS).prop_map(|pod| Op::Clear { pod }),
    ]
}

fn apply(index: &mut impl KvIndex, texts: &[Text], op: &Op) {
    let kinds = [Kind::GPU, Kind::CPU, Kind::SPECULATIVE];
    // A range of blocks within the text, to its cut end.
    let cut = |text: usize, from: u32, to: u32| {
        let text = texts[text % texts.len()].clone().capped(to);
        let from = from.min(text.blocks());
        (text, from)
    };
    match *op {
        Op::Add { pod, kind, text, from, to } => {
            let (text, from) = cut(text, from, to);
            index.add(pod, kinds[kind], &text, from);
        }
        Op::Evict { pod, kind, text, from, to } => {
            let (text, from) = cut(text, from, to);
            index.evict(pod, kinds[kind], &text, from);
        }
        Op::Clear { pod } => index.clear(pod),
    }
}

fn found(index: &mut impl KvIndex, texts: &[Text]) -> Vec<[Found; PODS as usize]> {
    let find = |text: &Text| {
        let mut found = [Found::default(); PODS as usize];
        index.find(text, &TierWeights::default(), &mut found);
        found
    };
    texts.iter().map(find).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn runs_of_blocks_are_as_good_as_blocks(
        texts in proptest::collection::vec(proptest::collection::vec((0..3u64, 1..30u32), 1..4), 1..8),
        ops in proptest::collection::vec(op(), 1..50),
        pod_cache_size in 1..6usize,
    ) {
        let text = |pieces: &Vec<(u64, u32)>| {
            let mut text = Text::new(1, 4);
            pieces.iter().for_each(|&(content, tokens)| text.push(Content::shared(content), 0, tokens));
            text.full_blocks()
        };
        let texts: Vec<Text> = texts.iter().map(text).collect();
        let config = KvIndexConfig { pod_cache_size, ..KvIndexConfig::default() };
        let (mut blocks, mut extents) = (BlockKvIndex::new(config), ExtentKvIndex::new(config));
        for op in &ops {
            apply(&mut blocks, &texts, op);
            apply(&mut extents, &texts, op);
            prop_assert_eq!(found(&mut blocks, &texts), found(&mut extents, &texts), "after {:?}", op);
        }
        (0..PODS).for_each(|pod| extents.clear(pod));
        prop_assert_eq!(extents.runs(), 0, "without pods nothing is remembered");
    }
}
