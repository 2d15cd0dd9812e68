//! The claim of this pool: nothing that the engine can do tells it from the id-exact one.

use proptest::prelude::*;

use super::ExtentPool;
use crate::kv::block_pool::BlockPool;
use crate::kv::manager::{Demand, Holding, KvManager};
use crate::kv::{Hit, Pool, TokenSource};
use crate::prompt::{Content, Prompt};

/// Two replicas with one kind of pool.
struct Side<P: Pool> {
    managers: [KvManager<P>; 2],
    /// By request.
    holdings: Vec<Holding<P>>,
}

/// A request, as its engine sees it.
struct Request {
    replica: usize,
    tokens: TokenSource,
    known: u32,
    computed: u32,
    /// Tokens of which async scheduling does not know yet which they are.
    placeholders: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waiting,
    Running,
    Gone,
}

/// One operation; the numbers choose among what is possible.
#[derive(Clone, Debug)]
enum Op {
    Add {
        replica: usize,
        adapter: bool,
        salt: bool,
        from: Option<(usize, u32, u32)>,
        segments: Vec<(u64, u32)>,
    },
    Admit {
        which: usize,
        chunk: u32,
        full_sequence: bool,
        spare: u32,
    },
    Step {
        which: usize,
        chunk: u32,
        ahead: bool,
    },
    Preempt {
        which: usize,
    },
    End {
        which: usize,
    },
    Elsewhere {
        which: usize,
        from: u32,
        to: u32,
    },
    Drain,
}

#[derive(Clone, Debug)]
struct Scene {
    block_tokens: u32,
    blocks: u32,
    max_model_len: u32,
    /// How many different contents there are: with few of them, requests often compute the same blocks at once.
    contents: u64,
    ops: Vec<Op>,
}

struct Player {
    scene: Scene,
    exact: Side<BlockPool>,
    runs: Side<ExtentPool>,
    requests: Vec<Request>,
}

impl<P: Pool> Side<P> {
    fn new(scene: &Scene) -> Self {
        let manager = || KvManager::new(scene.blocks, scene.block_tokens, true, scene.max_model_len);
        Self { managers: [manager(), manager()], holdings: Vec::new() }
    }

    fn admit(&mut self, which: usize, request: &Request, op: &Op, blocks: u32) -> (u32, Option<u32>) {
        let &Op::Admit { chunk, full_sequence, spare, .. } = op else { unreachable!() };
        let (manager, holding) = (&mut self.managers[request.replica], &mut self.holdings[which]);
        let hit = manager.find_prefix(holding, request.known);
        let new = (request.known - hit).min(chunk);
        let spare_blocks = spare.min(blocks / 4);
        let demand =
            Demand { computed: 0, new, known: request.known, lookahead: 0, full_sequence, spare_blocks };
        (hit, manager.allocate(holding, &demand).then_some(hit + new))
    }

    fn step(&mut self, which: usize, request: &Request, new: u32) -> bool {
        let manager = &mut self.managers[request.replica];
        manager.no_prefix();
        let (computed, known) = (request.computed, request.known);
        let demand = Demand { computed, new, known, lookahead: 0, full_sequence: false, spare_blocks: 0 };
        manager.allocate(&mut self.holdings[which], &demand)
    }

    fn release(&mut self, which: usize, request: &Request) {
        self.managers[request.replica].release(&mut self.holdings[which]);
    }

    fn elsewhere(&self, which: usize, request: &Request, from: u32, to: u32) -> u32 {
        self.managers[1 - request.replica].pool().cached(self.holdings[which].chain(), from, to)
    }

    fn free(&self) -> [u32; 2] {
        [self.managers[0].pool().free(), self.managers[1].pool().free()]
    }

    fn held(&self) -> Vec<u32> {
        let pool = self.managers[0].pool();
        self.holdings.iter().map(|holding| pool.held(holding.chain())).collect()
    }

    fn check(&self, requests: &[Request]) {
        for (replica, manager) in self.managers.iter().enumerate() {
            let of_replica = self.holdings.iter().zip(requests).filter(|(_, r)| r.replica == replica);
            manager.pool().assert_consistent(of_replica.map(|(holding, _)| holding.chain()));
        }
    }
}

impl<P: Pool + Clone> Side<P> {
    /// What a lookup of each request's whole text, cut as its engine would, finds.
    fn finds(pool: &mut P, requests: &[Request], block_tokens: u32) -> Vec<Hit> {
        let find = |request: &Request| {
            let mut chain = pool.chain(&request.tokens);
            pool.find(&mut chain, (request.known - 1) / block_tokens, request.known)
        };
        requests.iter().map(find).collect()
    }

    /// What remains to be found as all free blocks are taken, one by one.
    fn drain(&self, requests: &[Request], block_tokens: u32) -> Vec<Vec<Hit>> {
        let drain = |manager: &KvManager<P>| {
            let mut pool = manager.pool().clone();
            let mut taker = pool.chain(&requests[0].tokens);
            let mut found = vec![Self::finds(&mut pool, requests, block_tokens)];
            while pool.free() > 0 {
                pool.take(&mut taker, 1);
                found.push(Self::finds(&mut pool, requests, block_tokens));
            }
            found
        };
        self.managers.iter().flat_map(drain).collect()
    }
}

impl Player {
    fn new(scene: Scene) -> Self {
        let (exact, runs) = (Side::new(&scene), Side::new(&scene));
        Self { scene, exact, runs, requests: Vec::new() }
    }

    fn play(mut self) {
        for op in self.scene.ops.clone() {
            self.apply(&op);
            assert_eq!(self.exact.free(), self.runs.free(), "free blocks after {op:?}");
            assert_eq!(self.exact.held(), self.runs.held(), "held blocks after {op:?}");
            self.exact.check(&self.requests);
            self.runs.check(&self.requests);
        }
        self.compare_contents();
    }

    fn compare_contents(&self) {
        if !self.requests.is_empty() {
            let block_tokens = self.scene.block_tokens;
            let exact = self.exact.drain(&self.requests, block_tokens);
            assert_eq!(exact, self.runs.drain(&self.requests, block_tokens), "cached blocks, as they go");
        }
    }

    /// The request that `which` chooses among those in `state`.
    fn choose(&self, which: usize, state: State) -> Option<usize> {
        let all: Vec<usize> = (0..self.requests.len()).filter(|&i| self.requests[i].state == state).collect();
        (!all.is_empty()).then(|| all[which % all.len()])
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Add { .. } => self.add(op),
            Op::Admit { which, .. } => {
                let Some(which) = self.choose(which, State::Waiting) else { return };
                let (request, blocks) = (&mut self.requests[which], self.scene.blocks);
                let exact = self.exact.admit(which, request, op, blocks);
                assert_eq!(
                    exact,
                    self.runs.admit(which, request, op, blocks),
                    "hit and allocation of {op:?}"
                );
                if let Some(computed) = exact.1 {
                    request.state = State::Running;
                    request.computed = computed;
                }
            }
            Op::Step { which, chunk, ahead } => {
                let Some(which) = self.choose(which, State::Running) else { return };
                self.step(which, chunk, ahead);
            }
            Op::Preempt { which } => {
                let Some(which) = self.choose(which, State::Running) else { return };
                self.release(which, State::Waiting);
            }
            Op::End { which } => {
                let Some(which) = self.choose(which, State::Running) else { return };
                self.release(which, State::Gone);
            }
            Op::Elsewhere { which, from, to } => {
                let Some(which) = self.choose(which, State::Running) else { return };
                let request = &self.requests[which];
                let exact = self.exact.elsewhere(which, request, from, to);
                assert_eq!(exact, self.runs.elsewhere(which, request, from, to), "blocks elsewhere, {op:?}");
            }
            Op::Drain => self.compare_contents(),
        }
    }

    fn add(&mut self, op: &Op) {
        let Op::Add { replica, adapter, salt, from, segments } = op else { unreachable!() };
        let mut prompt = Prompt::new();
        // A request may go on from an earlier one, running or not: a part of its prompt, a part of its answer.
        if let Some((which, cut, answer)) = *from
            && !self.requests.is_empty()
        {
            let earlier = &self.requests[which % self.requests.len()].tokens;
            let mut left = cut;
            for segment in earlier.prompt.segments() {
                prompt.push(segment.content, segment.tokens.min(left));
                left -= segment.tokens.min(left);
            }
            if left > 0 {
                prompt.push(earlier.output, answer);
            }
        }
        for &(content, tokens) in segments {
            prompt.push(Content::shared(content % self.scene.contents), tokens);
        }
        if prompt.tokens() == 0 || prompt.tokens() >= self.scene.max_model_len {
            return;
        }
        let tokens = TokenSource {
            output: Content::generated(self.requests.len() as u64),
            adapter: adapter.then_some(0),
            salt: u64::from(*salt),
            prompt,
        };
        self.exact.holdings.push(self.exact.managers[*replica].holding(&tokens));
        self.runs.holdings.push(self.runs.managers[*replica].holding(&tokens));
        let known = tokens.prompt.tokens();
        let state = State::Waiting;
        self.requests.push(Request { replica: *replica, tokens, known, computed: 0, placeholders: 0, state });
    }

    /// One step of a running request, which preempts others until it fits.
    fn step(&mut self, which: usize, chunk: u32, ahead: bool) {
        let request = &mut self.requests[which];
        if request.computed == request.known + request.placeholders {
            if ahead && request.placeholders == 0 {
                request.placeholders = 1;
            } else {
                // A token arrives; async scheduling names the block that it completes only now.
                request.known += 1;
                if request.placeholders > 0 {
                    request.placeholders -= 1;
                    let computed = request.computed - request.placeholders;
                    let (replica, known) = (request.replica, request.known);
                    self.exact.managers[replica].register(&mut self.exact.holdings[which], computed, known);
                    self.runs.managers[replica].register(&mut self.runs.holdings[which], computed, known);
                }
            }
        }
        let wanted = request.known + request.placeholders - request.computed;
        let room = (self.scene.max_model_len - 1).saturating_sub(request.computed);
        let new = wanted.min(room).min(chunk);
        loop {
            if new == 0 {
                return;
            }
            let request = &self.requests[which];
            let fits = self.exact.step(which, request, new);
            assert_eq!(fits, self.runs.step(which, request, new), "allocation of a running request");
            if fits {
                self.requests[which].computed += new;
                return;
            }
            let same_replica = |&i: &usize| {
                self.requests[i].state == State::Running
                    && self.requests[i].replica == self.requests[which].replica
            };
            let victim = (0..self.requests.len()).rev().find(same_replica).expect("itself at least");
            self.release(victim, State::Waiting);
            if victim == which {
                return;
            }
        }
    }

    fn release(&mut self, which: usize, state: State) {
        let request = &mut self.requests[which];
        self.exact.release(which, request);
        self.runs.release(which, request);
        request.state = state;
        (request.computed, request.placeholders) = (0, 0);
    }
}

fn op() -> impl Strategy<Value = Op> {
    let which = || any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let tokens = || prop_oneof![3 => 1u32..40, 1 => (1u32..8).prop_map(|blocks| blocks * 16), 1 => 1u32..200];
    let chunk = || prop_oneof![Just(u32::MAX), 1u32..60, (1u32..4).prop_map(|blocks| blocks * 16)];
    let few = || prop::bool::weighted(0.1);
    let from = prop::option::weighted(0.6, (which(), prop_oneof![Just(u32::MAX), 0u32..200], 0u32..80));
    let segments = prop::collection::vec((0u64..4, tokens()), 0..4);
    let add = (prop::bool::weighted(0.25), few(), few(), from, segments).prop_map(
        |(replica, adapter, salt, from, segments)| Op::Add {
            replica: replica.into(),
            adapter,
            salt,
            from,
            segments,
        },
    );
    let admit = (which(), chunk(), any::<bool>(), 0u32..3)
        .prop_map(|(which, chunk, full_sequence, spare)| Op::Admit { which, chunk, full_sequence, spare });
    let step =
        (which(), chunk(), any::<bool>()).prop_map(|(which, chunk, ahead)| Op::Step { which, chunk, ahead });
    let elsewhere =
        (which(), 0u32..10, 0u32..30).prop_map(|(which, from, to)| Op::Elsewhere { which, from, to });
    prop_oneof![
        3 => add,
        4 => admit,
        12 => step,
        1 => which().prop_map(|which| Op::Preempt { which }),
        3 => which().prop_map(|which| Op::End { which }),
        1 => elsewhere,
        1 => Just(Op::Drain),
    ]
}

fn scene() -> impl Strategy<Value = Scene> {
    let blocks = prop_oneof![2u32..12, 8u32..40, 30u32..200];
    let sizes = (prop_oneof![3 => Just(16u32), 1 => Just(4u32), 1 => Just(1u32)], blocks);
    let lengths = (prop_oneof![3 => Just(100_000u32), 1 => 20u32..300], 1u64..4);
    (sizes, lengths, prop::collection::vec(op(), 1..120)).prop_map(
        |((block_tokens, blocks), (max_model_len, contents), ops)| Scene {
            block_tokens,
            blocks,
            max_model_len,
            contents,
            ops,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nothing_the_engine_does_tells_it_from_the_id_exact_pool(scene in scene()) {
        Player::new(scene).play();
    }
}
