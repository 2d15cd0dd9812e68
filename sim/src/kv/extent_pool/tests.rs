use super::*;
use crate::prompt::{Content, Prompt};

const BLOCK: u32 = 16;

/// A pool of `usable` blocks.
fn pool(usable: u32) -> ExtentPool {
    ExtentPool::new(usable + 1, BLOCK)
}

fn source(id: u64, segments: &[(Content, u32)]) -> TokenSource {
    let mut prompt = Prompt::new();
    segments.iter().for_each(|&(content, tokens)| prompt.push(content, tokens));
    TokenSource { prompt, output: Content::generated(id), adapter: None, salt: 0 }
}

/// A chain of the request `id` that has found what there is and holds `blocks` blocks, all registered.
fn admitted(pool: &mut ExtentPool, tokens: &TokenSource, blocks: u32) -> ExtentChain {
    let mut chain = pool.chain(tokens);
    let found = pool.find(&mut chain, blocks, blocks * BLOCK).blocks;
    pool.attach(&mut chain);
    pool.take(&mut chain, blocks - found);
    pool.register(&mut chain, found, blocks, blocks * BLOCK);
    chain
}

/// How many leading blocks of `tokens` are cached.
fn cached(pool: &mut ExtentPool, tokens: &TokenSource) -> u32 {
    let mut chain = pool.chain(tokens);
    pool.find(&mut chain, 1000, 1000 * BLOCK).blocks
}

fn shared(blocks: u32) -> TokenSource {
    source(0, &[(Content::shared(0), blocks * BLOCK)])
}

#[test]
fn unregistered_blocks_are_free_again_without_a_trace() {
    let mut pool = pool(4);
    let mut chain = pool.chain(&shared(3));
    pool.take(&mut chain, 3);
    pool.release(&mut chain);
    assert_eq!((pool.free(), cached(&mut pool, &shared(3))), (4, 0));
}

#[test]
fn the_least_recently_released_run_loses_its_tail_first() {
    let mut pool = pool(8);
    let texts = [0, 1].map(|id| source(id, &[(Content::private(id), 4 * BLOCK)]));
    for tokens in &texts {
        let mut chain = admitted(&mut pool, tokens, 4);
        pool.release(&mut chain);
    }
    pool.reserve(3);
    assert_eq!(texts.each_ref().map(|tokens| cached(&mut pool, tokens)), [1, 4]);
}

#[test]
fn a_part_that_is_used_again_is_evicted_after_the_rest() {
    let mut pool = pool(10);
    let mut first = admitted(&mut pool, &shared(6), 6);
    pool.release(&mut first);
    let mut other = admitted(&mut pool, &source(1, &[(Content::private(1), 4 * BLOCK)]), 4);
    pool.release(&mut other);
    let mut again = admitted(&mut pool, &shared(6), 2);
    pool.release(&mut again);
    pool.reserve(8);
    assert_eq!(cached(&mut pool, &shared(6)), 2, "four of the first text, four of the other, then its head");
    pool.assert_consistent([].iter());
}

#[test]
fn held_blocks_are_found_and_cost_nothing() {
    let mut pool = pool(10);
    let _first = admitted(&mut pool, &shared(6), 6);
    let mut second = pool.chain(&shared(6));
    assert_eq!(pool.find(&mut second, 5, 96), Hit { blocks: 5, unreferenced: 0 });
    pool.attach(&mut second);
    assert_eq!((pool.free(), pool.held(&second)), (4, 5));
}

#[test]
fn texts_part_at_the_block_in_which_they_differ() {
    let mut pool = pool(20);
    let cut = |tokens, id| source(id, &[(Content::shared(0), tokens), (Content::private(id), 200)]);
    let _chain = admitted(&mut pool, &cut(100, 1), 10);
    assert_eq!(cached(&mut pool, &cut(100, 2)), 6, "100 equal tokens are 6 full blocks");
    assert_eq!(cached(&mut pool, &cut(40, 2)), 2);
    assert_eq!(cached(&mut pool, &cut(15, 2)), 0);
    assert_eq!(cached(&mut pool, &cut(100, 1)), 10);
}

#[test]
fn adapters_and_salts_share_nothing() {
    let mut pool = pool(20);
    let _chain = admitted(&mut pool, &shared(4), 4);
    assert_eq!(cached(&mut pool, &TokenSource { adapter: Some(0), ..shared(4) }), 0);
    assert_eq!(cached(&mut pool, &TokenSource { salt: 1, ..shared(4) }), 0);
}

#[test]
fn the_next_turn_finds_what_was_generated_however_late_it_was_registered() {
    let mut pool = pool(40);
    let first = source(7, &[(Content::private(7), 24)]);
    let mut chain = pool.chain(&first);
    pool.take(&mut chain, 20);
    pool.register(&mut chain, 0, 1, 24);
    pool.register(&mut chain, 1, 19, 24 + 290);
    let next =
        source(8, &[(Content::private(7), 24), (Content::generated(7), 290), (Content::private(8), 9)]);
    assert_eq!(cached(&mut pool, &next), 19);
}

#[test]
fn equal_blocks_stay_found_while_any_copy_is_there() {
    let mut pool = pool(6);
    // Both prefill the same prompt at the same time: neither finds the other's blocks.
    let mut chains = [pool.chain(&shared(3)), pool.chain(&shared(3))];
    for chain in &mut chains {
        pool.take(chain, 3);
    }
    for chain in &mut chains {
        pool.register(chain, 0, 3, 48);
    }
    let [mut first, second] = chains;
    pool.release(&mut first);
    assert_eq!((pool.free(), pool.find(&mut first, 3, 48)), (3, Hit { blocks: 3, unreferenced: 3 }));
    pool.reserve(2);
    assert_eq!(
        pool.find(&mut first, 3, 48),
        Hit { blocks: 3, unreferenced: 1 },
        "the second's copies remain"
    );
    pool.assert_consistent([first, second].iter());
}

#[test]
fn copies_of_different_chains_stay_apart_when_they_are_all_that_is_left() {
    let mut pool = pool(12);
    let mut head = pool.chain(&shared(2));
    let mut rival = pool.chain(&shared(4));
    pool.take(&mut head, 2);
    pool.register(&mut head, 0, 2, 32);
    pool.take(&mut rival, 4);
    pool.register(&mut rival, 0, 2, 64);
    let mut late = admitted(&mut pool, &shared(4), 2);
    pool.register(&mut rival, 2, 4, 64);
    pool.take(&mut late, 2);
    pool.register(&mut late, 2, 4, 64);
    for chain in [&mut head, &mut rival] {
        pool.release(chain);
    }
    // Evicts the rival's copies. What is left looks alike, but `late` found one half and made the other.
    pool.reserve(8);
    pool.assert_consistent([&late].into_iter());
    pool.release(&mut late);
    assert_eq!((pool.free(), pool.find(&mut rival, 4, 64)), (4, Hit { blocks: 4, unreferenced: 4 }));
    pool.assert_consistent([].iter());
}

#[test]
fn a_run_stays_cut_where_a_chain_ends() {
    let mut pool = pool(15);
    let mut chains = [pool.chain(&shared(6)), pool.chain(&shared(6))];
    for chain in &mut chains {
        pool.take(chain, 6);
    }
    for chain in &mut chains {
        pool.register(chain, 0, 6, 96);
    }
    let [first, mut second] = chains;
    let head = admitted(&mut pool, &shared(6), 3);
    pool.release(&mut second);
    // Evicts the second's copies: the first's are left, with one reference more on the head.
    pool.reserve(9);
    pool.assert_consistent([&first, &head].into_iter());
    assert_eq!(pool.tree.map.len(), 2);
}

#[test]
fn a_copy_that_goes_block_by_block_leaves_one_run() {
    let mut pool = pool(40);
    let mut chains = [pool.chain(&shared(10)), pool.chain(&shared(10))];
    for chain in &mut chains {
        pool.take(chain, 10);
    }
    for chain in &mut chains {
        pool.register(chain, 0, 10, 160);
    }
    let [mut first, second] = chains;
    pool.release(&mut first);
    pool.reserve(20);
    for left in (0..10).rev() {
        pool.reserve(1);
        assert_eq!(pool.tree.map.len(), if left > 0 { 2 } else { 1 }, "{left} blocks have two copies");
        pool.assert_consistent([&second].into_iter());
    }
}

#[test]
fn other_pools_are_compared_by_text() {
    let mut pools = [pool(20), pool(20)];
    let _held = admitted(&mut pools[1], &shared(8), 8);
    let chain = pools[0].chain(&shared(10));
    let elsewhere = |from, to| pools[1].cached(&chain, from, to);
    assert_eq!((elsewhere(0, 10), elsewhere(3, 10), elsewhere(3, 5), elsewhere(9, 10)), (8, 5, 2, 0));
}

#[test]
fn reserved_blocks_are_granted_later() {
    let mut pool = pool(5);
    let mut chain = pool.chain(&shared(3));
    pool.reserve(4);
    pool.grant(&mut chain, 3);
    assert_eq!((pool.free(), pool.held(&chain)), (1, 3));
    pool.assert_consistent([chain].iter());
}

#[test]
fn nothing_remains_of_what_was_evicted() {
    let mut pool = pool(30);
    for id in 0..1000 {
        let text = source(id, &[(Content::shared(id % 3), 50), (Content::private(id), 200)]);
        let mut chain = admitted(&mut pool, &text, 14);
        pool.release(&mut chain);
        pool.assert_consistent([].iter());
    }
    assert!(pool.tree.nodes.len() < 30, "{} nodes for 30 blocks", pool.tree.nodes.len());
    pool.reserve(30);
    assert_eq!((pool.free(), pool.tree.map.len()), (0, 0));
}

#[test]
fn runs_that_nothing_tells_apart_are_one_again() {
    let mut pool = pool(200);
    let mut prompt = vec![(Content::private(0), 100)];
    for turn in 0..20 {
        // Each turn goes on from the one before: a node is added below, and joined when both are free.
        let text = source(turn, &prompt);
        let blocks = text.prompt.tokens() / BLOCK;
        let mut chain = admitted(&mut pool, &text, blocks);
        pool.release(&mut chain);
        prompt.push((Content::generated(turn), 33));
    }
    assert_eq!(pool.tree.map.len(), 1);
    pool.assert_consistent([].iter());
}
