//! Against an LRU list of block hashes, kept block by block.

use forerun_sim::prompt::{BlockHash, HashChain, Prompt};
use proptest::prelude::*;

use super::*;

const BASE: Served = Served { model: Label::NONE, adapter: Label::NONE };
/// No block was seen before.
const NONE: [u64; 0] = [];

fn prompt(segments: &[(Content, u32)]) -> Prompt {
    let mut prompt = Prompt::new();
    segments.iter().for_each(|&(content, tokens)| prompt.push(content, tokens));
    prompt
}

fn path(prompt: &Prompt) -> impl Iterator<Item = (Content, u32)> + Clone {
    prompt.segments().iter().map(|segment| (segment.content, segment.tokens))
}

/// Depth in the stack, from 1, of every reused block of `prompt`, in order.
fn depths(texts: &mut Texts, served: Served, prompt: &Prompt) -> Vec<u64> {
    let mut depths = Vec::new();
    texts.touch(served, path(prompt), u32::MAX, Time::ZERO, |reuse| {
        depths.extend((1..=u64::from(reuse.blocks)).map(|k| reuse.above + k));
    });
    depths
}

/// Block hashes, most recently used first.
#[derive(Default)]
struct NaiveLru(Vec<BlockHash>);

impl NaiveLru {
    fn depths(&mut self, block_tokens: u32, adapter: Option<u32>, prompt: &Prompt) -> Vec<u64> {
        let mut hashes = Vec::new();
        let mut chain = HashChain::new(block_tokens, adapter, 0);
        chain.extend(&mut hashes, prompt, Content::generated(0), prompt.tokens());
        let depth = |hash| self.0.iter().position(|known| known == hash).map(|place| place as u64 + 1);
        let depths = hashes.iter().map_while(depth).collect();
        self.0.retain(|known| !hashes.contains(known));
        self.0.splice(0..0, hashes);
        depths
    }
}

#[test]
fn depths_of_a_hand_made_sequence() {
    let (a, b) = (Content::shared(1), Content::shared(2));
    let mut texts = Texts::new(10, usize::MAX);
    let mut touch = |segments: &[(Content, u32)]| depths(&mut texts, BASE, &prompt(segments));
    assert_eq!(touch(&[(a, 30)]), NONE, "nothing was seen before");
    assert_eq!(touch(&[(b, 25)]), NONE, "two full blocks of something else");
    assert_eq!(touch(&[(a, 30)]), [3, 4, 5], "below the two blocks of b");
    assert_eq!(touch(&[(a, 10), (b, 20)]), [1], "only the first block is the same");
    // The stack is now: a1, a+b 1, a+b 2, a2, a3, b1, b2.
    assert_eq!(touch(&[(a, 39)]), [1, 4, 5], "three full blocks");
    assert_eq!(touch(&[(b, 20)]), [6, 7]);
}

#[test]
fn only_full_blocks_are_shared_and_texts_agree_token_by_token() {
    let (system, question) = (Content::shared(1), Content::private);
    let mut texts = Texts::new(16, usize::MAX);
    let mut touch = |segments: &[(Content, u32)]| depths(&mut texts, BASE, &prompt(segments)).len();
    touch(&[(system, 50), (question(1), 50)]);
    assert_eq!(touch(&[(system, 50), (question(2), 50)]), 3, "50 shared tokens are 3 full blocks");
    assert_eq!(touch(&[(system, 40), (question(1), 60)]), 2, "a shorter cut of the same text");
    assert_eq!(touch(&[(system, 50), (question(1), 50)]), 6, "all of it");
    assert_eq!(touch(&[(system, 15)]), 0, "less than a block");
}

#[test]
fn another_adapter_or_model_shares_nothing() {
    let asked = prompt(&[(Content::shared(1), 64)]);
    let mut texts = Texts::new(16, usize::MAX);
    for served in [
        BASE,
        Served { adapter: Label(1), ..BASE },
        Served { model: Label(1), ..BASE },
        Served { model: Label(1), adapter: Label(1) },
    ] {
        assert_eq!(depths(&mut texts, served, &asked), NONE, "{served:?}");
    }
    assert_eq!(depths(&mut texts, BASE, &asked), [13, 14, 15, 16]);
}

#[test]
fn the_top_prefix_is_the_one_whose_reuse_saves_most() {
    let mut texts = Texts::new(10, usize::MAX);
    for request in 0..20 {
        let system = Content::shared(request % 2);
        let document = Content::shared(10 + request % 4);
        let asked = prompt(&[(system, 30), (document, 40), (Content::private(request), 25)]);
        depths(&mut texts, BASE, &asked);
    }
    // Each of two system prompts (3 blocks) was reused 9 times, each of four documents (4 blocks) 4 times.
    let top = texts.top(10);
    let system = SharedPrefix { from_blocks: 0, to_blocks: 3, requests: 10, reused_blocks: 27 };
    let document = SharedPrefix { from_blocks: 3, to_blocks: 7, requests: 5, reused_blocks: 16 };
    assert_eq!(top, [system, system, document, document, document, document]);
    assert_eq!(texts.top(1).len(), 1);
}

#[test]
fn consecutive_texts_of_the_same_requests_are_one_prefix() {
    let mut texts = Texts::new(10, usize::MAX);
    let recorded = prompt(&[1, 2, 3, 4].map(|hash| (Content::recorded(hash), 10)));
    for _ in 0..5 {
        depths(&mut texts, BASE, &recorded);
    }
    let all = SharedPrefix { from_blocks: 0, to_blocks: 4, requests: 5, reused_blocks: 16 };
    assert_eq!(texts.top(9), [all]);
}

#[test]
fn a_bounded_tree_forgets_the_least_recent_and_says_from_where_on() {
    let mut texts = Texts::new(10, 8);
    let single = |number| prompt(&[(Content::private(number), 10)]);
    for number in 0..100 {
        assert_eq!(depths(&mut texts, BASE, &single(number)), NONE);
        assert!(texts.index.len() <= 8);
    }
    assert_eq!(texts.exact_blocks(), Some(7), "seven texts and their root");
    assert_eq!(depths(&mut texts, BASE, &single(95)), [5]);
    assert_eq!(depths(&mut texts, BASE, &single(90)), NONE, "forgotten");
}

/// Prompts over few texts of few lengths, so that much is shared at odd places.
fn prompts() -> impl Strategy<Value = Vec<(u32, Prompt)>> {
    let segment = (0_u64..4, 1_u32..24).prop_map(|(id, tokens)| (Content::shared(id), tokens));
    let prompt = prop::collection::vec(segment, 1..6).prop_map(|segments| prompt(&segments));
    prop::collection::vec((0_u32..2, prompt), 1..60)
}

proptest! {
    #[test]
    fn every_depth_is_that_of_a_list_of_blocks(requests in prompts(), block_tokens in 1_u32..9) {
        let mut texts = Texts::new(block_tokens, usize::MAX);
        let mut naive = NaiveLru::default();
        for (adapter, asked) in &requests {
            let served = Served { adapter: Label(*adapter), ..BASE };
            let expected = naive.depths(block_tokens, Some(*adapter), asked);
            prop_assert_eq!(depths(&mut texts, served, asked), expected);
        }
        prop_assert_eq!(texts.recency.total(), naive.0.len() as u64);
    }

    #[test]
    fn a_bounded_tree_is_exact_as_deep_as_it_says(requests in prompts(), texts_max in 4_usize..20) {
        let mut texts = Texts::new(4, texts_max);
        let mut naive = NaiveLru::default();
        for (_, asked) in &requests {
            let mut expected = naive.depths(4, None, asked);
            let exact = texts.exact_blocks().unwrap_or(u64::MAX);
            expected.retain(|&depth| depth <= exact);
            let mut found = depths(&mut texts, BASE, asked);
            found.retain(|&depth| depth <= exact);
            prop_assert_eq!(found, expected);
        }
    }
}
