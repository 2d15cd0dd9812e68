//! The claim of the fast form: nobody can tell it from the definition.

use forerun_sim::prompt::Content;
use proptest::prelude::*;

use super::extents::ExtentIndex;
use super::reference::BlockIndex;
use super::{PrefixIndex, Text};

const SERVERS: u32 = 4;

#[derive(Clone, Debug)]
enum Op {
    Insert { server: u32, text: usize },
    Remove { server: u32 },
}

#[derive(Clone, Debug)]
struct Scene {
    capacities: [u32; SERVERS as usize],
    texts: Vec<Vec<(u64, u32)>>,
    ops: Vec<Op>,
}

fn scene() -> impl Strategy<Value = Scene> {
    // Few contents and short texts: they often go on from each other, and often end within a run.
    let pieces = proptest::collection::vec((0..3u64, 1..40u32), 1..5);
    let texts = proptest::collection::vec(pieces, 1..12);
    let op = prop_oneof![
        12 => (0..SERVERS, 0..100usize).prop_map(|(server, text)| Op::Insert { server, text }),
        1 => (0..SERVERS).prop_map(|server| Op::Remove { server }),
    ];
    let ops = proptest::collection::vec(op, 1..60);
    (prop::array::uniform4(1..40u32), texts, ops).prop_map(|(capacities, texts, ops)| Scene {
        capacities,
        texts,
        ops,
    })
}

fn texts(scene: &Scene) -> Vec<Text> {
    let text = |pieces: &Vec<(u64, u32)>| {
        let mut text = Text::new(1, 4);
        pieces.iter().for_each(|&(content, tokens)| text.push(Content::shared(content), 0, tokens));
        text
    };
    scene.texts.iter().map(text).collect()
}

/// What can be seen of an index: sizes, and the matches of all texts.
fn visible(index: &impl PrefixIndex, texts: &[Text]) -> (Vec<Option<u32>>, Vec<Vec<u32>>) {
    let matches = |text: &Text| {
        let mut counts = vec![0; SERVERS as usize];
        index.count_matches(text, &mut counts);
        counts
    };
    ((0..SERVERS).map(|server| index.size(server)).collect(), texts.iter().map(matches).collect())
}

fn play(scene: &Scene) {
    let texts = texts(scene);
    let (mut blocks, mut extents) = (BlockIndex::default(), ExtentIndex::default());
    for op in &scene.ops {
        match *op {
            Op::Insert { server, text } => {
                let (text, capacity) = (&texts[text % texts.len()], scene.capacities[server as usize]);
                blocks.insert(server, capacity, text);
                extents.insert(server, capacity, text);
            }
            Op::Remove { server } => {
                blocks.remove(server);
                extents.remove(server);
            }
        }
        assert_eq!(visible(&blocks, &texts), visible(&extents, &texts), "after {op:?}");
    }
    (0..SERVERS).for_each(|server| extents.remove(server));
    assert_eq!(extents.runs(), 0, "without servers nothing is remembered");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn runs_of_blocks_are_as_good_as_blocks(scene in scene()) {
        play(&scene);
    }
}
