//! KV under way: between replicas, and between a replica and its host memory; and KV that is offered.

use std::collections::BTreeMap;

use super::below::{Below, Written};
use super::config::{Disaggregation, HostTier};
use super::fabric::{Fabric, LinkId, LinkSpec, TransferId};
use super::live::Ticket;
use super::{FleetConfig, PoolConfig};
use crate::engine::connector::below::Promotion;
use crate::engine::connector::{ConnectorConfig, Copy, JobId, KvRole};
use crate::engine::{Engine, Handle};
use crate::event::{EventQueue, Rank};
use crate::kv::Pool;
use crate::observer::TierTotals;
use crate::prompt::BlockHash;
use crate::time::{Span, Time};

/// Number of an offer, in order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OfferId(u64);

/// The blocks of a prompt that its prefill replica holds for the one that will decode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) replica: usize,
    pub(super) handle: Handle,
    /// When its lease ends; `None` while somebody keeps it alive or reads it.
    expires: Option<Time>,
}

/// A request whose KV is pulled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulling {
    pub(super) ticket: Ticket,
    pub(super) offer: OfferId,
    /// Where it is decoded.
    pub(super) replica: usize,
    pub(super) handle: Handle,
    bytes: u64,
}

/// How often the replica that something is for had died when it began.
type Life = u32;

/// What is over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    /// A pull: its KV has arrived.
    Pull(Pulling),
    /// A pull that found its source gone.
    NoPull(Pulling),
    /// A copy between GPU and host memory; the request is that of a load.
    Copy { replica: usize, job: JobId, request: Option<Ticket> },
    /// The lease of an offer.
    Lease(OfferId),
}

#[derive(Clone, Debug)]
enum Due {
    Over(Over),
    /// The two engines of a pull know each other now.
    Start(Pulling),
    /// A copy to host memory, which then goes on to the tiers below.
    Store {
        replica: usize,
        job: JobId,
        keys: Vec<BlockHash>,
    },
    /// A tier below host memory has written something.
    Written(Written),
}

/// The link between the GPUs of a replica and its host memory: one copy at a time in each direction, as vLLM chains
/// them (vllm/v1/kv_offload/worker/cpu_gpu.py).
#[derive(Clone, Copy, Debug)]
struct HostLink {
    link: LinkSpec,
    chunk_bytes: u64,
    loads_until: Time,
    stores_until: Time,
}

/// Everything under way in a fleet.
#[derive(Debug)]
pub(super) struct Moves {
    /// Whether anything ever is.
    pub(super) any: bool,
    config: Disaggregation,
    fabric: Fabric,
    /// When something changes in the fabric next.
    fabric_at: Option<Time>,
    /// By replica: from it and to it. Empty without disaggregation.
    links: Vec<(LinkId, LinkId)>,
    block_bytes: Vec<u64>,
    hosts: Vec<Option<HostLink>>,
    below: Below,
    pulls: BTreeMap<TransferId, Pulling>,
    /// When two replicas have shaken hands, prefill first.
    acquainted: BTreeMap<(usize, usize), Time>,
    offers: BTreeMap<OfferId, Offer>,
    offered: u64,
    /// What is for a replica that has died since is void.
    due: EventQueue<(Life, Due)>,
    /// What will wake each replica.
    under_way: Vec<u32>,
    lives: Vec<Life>,
}

impl Moves {
    pub(super) fn new(config: &FleetConfig) -> Self {
        let mut moves = Self {
            any: config.pools.iter().any(|pool| connector(config, pool).is_some()),
            config: config.disaggregation,
            fabric: Fabric::default(),
            fabric_at: None,
            links: Vec::new(),
            block_bytes: Vec::new(),
            hosts: Vec::new(),
            below: Below::new(config),
            pulls: BTreeMap::new(),
            acquainted: BTreeMap::new(),
            offers: BTreeMap::new(),
            offered: 0,
            due: EventQueue::default(),
            under_way: Vec::new(),
            lives: Vec::new(),
        };
        for pool in &config.pools {
            for _ in 0..pool.replicas {
                if config.is_disaggregated() {
                    let one = LinkSpec {
                        bandwidth: config.disaggregation.link.bandwidth * f64::from(pool.gpus),
                        ..config.disaggregation.link
                    };
                    // A path's latency is that of one crossing.
                    let far = LinkSpec { latency: Span::ZERO, ..one };
                    moves.links.push((moves.fabric.add_link(one), moves.fabric.add_link(far)));
                }
                moves.block_bytes.push(pool.kv_block_bytes);
                moves.hosts.push(pool.host.as_ref().map(|host| HostLink::new(host, pool.kv_block_bytes)));
                moves.under_way.push(0);
                moves.lives.push(0);
            }
        }
        moves
    }

    /// Whether prompts may be computed on other replicas than those that answer.
    pub(super) fn is_disaggregated(&self) -> bool {
        !self.links.is_empty()
    }

    /// Whether the replica waits for something that is under way.
    pub(super) fn awaits(&self, replica: usize) -> bool {
        self.under_way[replica] > 0
    }

    /// When something is over next, or changes on the way there.
    pub(super) fn next(&mut self) -> Option<Time> {
        while let Some((_, Due::Over(Over::Lease(id)))) = self.due.front() {
            let ends = self.offers.get(id).and_then(|offer| offer.expires);
            if ends.is_some() && ends == self.due.peek().map(|(at, _)| at) {
                break;
            }
            self.due.pop();
        }
        let due = self.due.peek().map(|(at, _)| at);
        self.fabric_at.into_iter().chain(due).min()
    }

    /// Takes what is over by `now`.
    pub(super) fn take(&mut self, now: Time, over: &mut Vec<Over>) {
        if self.fabric_at.is_some_and(|at| at <= now) {
            let mut arrived = Vec::new();
            self.fabric.take_arrived(now, &mut arrived);
            for id in arrived {
                let pull = self.pulls.remove(&id).expect("a transfer is a pull");
                self.under_way[pull.replica] -= 1;
                over.push(Over::Pull(pull));
            }
            self.fabric_at = self.fabric.next_change();
        }
        while self.due.peek().is_some_and(|(at, _)| at <= now) {
            if let Some((_, (life, due))) = self.due.pop() {
                self.end(now, life, due, over);
            }
        }
    }

    fn end(&mut self, now: Time, life: Life, due: Due, over: &mut Vec<Over>) {
        if due.replica().is_some_and(|replica| self.lives[replica] != life) {
            if let Due::Start(pull) = due {
                self.abandon(now, pull.offer);
            }
            return;
        }
        match due {
            Due::Start(pull) => self.send(now, pull),
            Due::Over(what) => {
                if let Over::Copy { replica, .. } | Over::NoPull(Pulling { replica, .. }) = what {
                    self.under_way[replica] -= 1;
                }
                over.push(what);
            }
            Due::Store { replica, job, keys } => {
                self.under_way[replica] -= 1;
                let due = &mut self.due;
                self.below.write(now, replica, &keys, |at, written| {
                    due.push(at, Rank::Arrival, (life, Due::Written(written)));
                });
                over.push(Over::Copy { replica, job, request: None });
            }
            Due::Written(written) => self.below.written(&written),
        }
    }

    /// A prompt is computed: its blocks wait to be read, until their lease ends.
    pub(super) fn offer(&mut self, now: Time, replica: usize, handle: Handle) -> OfferId {
        let id = OfferId(self.offered);
        self.offered += 1;
        let expires = now + self.config.lease;
        self.offers.insert(id, Offer { replica, handle, expires: Some(expires) });
        self.under_way[replica] += 1;
        self.plan(expires, replica, Due::Over(Over::Lease(id)));
        id
    }

    fn plan(&mut self, at: Time, replica: usize, due: Due) {
        self.due.push(at, Rank::Arrival, (self.lives[replica], due));
    }

    /// Whoever was to read an offer is gone without a word: its lease runs again.
    pub(super) fn abandon(&mut self, now: Time, id: OfferId) {
        let Some(offer) = self.offers.get_mut(&id) else { return };
        let (expires, replica) = (now + self.config.lease, offer.replica);
        offer.expires = Some(expires);
        self.plan(expires, replica, Due::Over(Over::Lease(id)));
    }

    /// The decoding engine knows of the offer. If it sends heartbeats, the lease is renewed as long as it waits: every
    /// 5 s by 20 s, which outlives the pause between two of them.
    pub(super) fn keep_alive(&mut self, id: OfferId) {
        if self.config.heartbeats
            && let Some(offer) = self.offers.get_mut(&id)
        {
            offer.expires = None;
        }
    }

    /// Takes an offer back, unless it is gone.
    pub(super) fn withdraw_offer(&mut self, id: OfferId) -> Option<Offer> {
        let offer = self.offers.remove(&id)?;
        self.under_way[offer.replica] -= 1;
        Some(offer)
    }

    /// An offer whose lease ended at `now`.
    pub(super) fn expire(&mut self, now: Time, id: OfferId) -> Option<Offer> {
        let ended = self.offers.get(&id)?.expires == Some(now);
        if ended { self.withdraw_offer(id) } else { None }
    }

    /// Starts a pull of so many blocks, once the two engines know each other; it fails at once when there is nothing
    /// to read any more.
    pub(super) fn pull(
        &mut self,
        now: Time,
        (ticket, replica, handle): (Ticket, usize, Handle),
        offer: OfferId,
        blocks: u32,
    ) {
        let bytes = u64::from(blocks) * self.block_bytes[replica];
        let pull = Pulling { ticket, offer, replica, handle, bytes };
        self.under_way[replica] += 1;
        let Some(source) = self.offers.get_mut(&offer) else {
            return self.plan(now, replica, Due::Over(Over::NoPull(pull)));
        };
        source.expires = None;
        let pair = (source.replica, replica);
        let from = *self.acquainted.entry(pair).or_insert(now + self.config.handshake);
        if from > now {
            self.plan(from, replica, Due::Start(pull));
        } else {
            self.send(now, pull);
        }
    }

    fn send(&mut self, now: Time, pull: Pulling) {
        let Some(offer) = self.offers.get(&pull.offer) else {
            return self.plan(now, pull.replica, Due::Over(Over::NoPull(pull)));
        };
        let from = offer.replica;
        let path = [self.links[from].0, self.links[pull.replica].1];
        let transfer = self.fabric.start(now, pull.bytes, &path);
        self.pulls.insert(transfer, pull);
        self.fabric_at = self.fabric.next_change();
    }

    /// Starts a copy from host memory for `request`, or to host memory.
    pub(super) fn copy(&mut self, now: Time, replica: usize, copy: &Copy, request: Option<Ticket>) {
        let host = self.hosts[replica].as_mut().expect("only a replica with host memory copies");
        let done = host.copy(now, copy.places.len() as u64, request.is_some());
        self.under_way[replica] += 1;
        let job = copy.job;
        let due = if copy.keys.is_empty() {
            Due::Over(Over::Copy { replica, job, request })
        } else {
            Due::Store { replica, job, keys: copy.keys.clone() }
        };
        self.plan(done, replica, due);
    }

    /// Starts to bring chunks to host memory from below.
    pub(super) fn promote(&mut self, now: Time, replica: usize, promotion: &Promotion, request: Ticket) {
        let done = self.below.read(now, replica, promotion.chunks);
        self.under_way[replica] += 1;
        let over = Over::Copy { replica, job: promotion.job, request: Some(request) };
        self.plan(done, replica, Due::Over(over));
    }

    /// A replica has died: what it offered is gone, what it pulled is over, and nobody waits for its copies. The engine
    /// with which it starts anew.
    pub(super) fn replica_died<P: Pool>(
        &mut self,
        now: Time,
        config: &FleetConfig,
        pool: &PoolConfig,
        replica: usize,
    ) -> Engine<P> {
        self.lives[replica] += 1;
        self.under_way[replica] = 0;
        self.offers.retain(|_, offer| offer.replica != replica);
        self.acquainted.retain(|&(from, to), _| from != replica && to != replica);
        let offers = &self.offers;
        let is_over = |pull: &Pulling| pull.replica == replica || !offers.contains_key(&pull.offer);
        let over: Vec<(TransferId, Pulling)> =
            self.pulls.iter().filter(|(_, pull)| is_over(pull)).map(|(&id, &pull)| (id, pull)).collect();
        for (transfer, pull) in over {
            self.pulls.remove(&transfer);
            self.fabric.cancel(now, transfer);
            if pull.replica == replica {
                self.abandon(now, pull.offer);
            } else {
                self.plan(now, pull.replica, Due::Over(Over::NoPull(pull)));
            }
        }
        self.fabric_at = self.fabric.next_change();
        if let Some(host) = &mut self.hosts[replica] {
            (host.loads_until, host.stores_until) = (now, now);
        }
        self.engine(config, pool, replica)
    }

    /// From now on the links of a replica carry only this share.
    pub(super) fn set_link_health(&mut self, now: Time, replica: usize, share: f64) {
        if let Some(&(from, to)) = self.links.get(replica) {
            self.fabric.set_health(now, from, share);
            self.fabric.set_health(now, to, share);
            self.fabric_at = self.fabric.next_change();
        }
    }

    /// What the tiers below host memory read and wrote.
    pub(super) fn tiers(&self) -> TierTotals {
        self.below.totals()
    }

    /// The engine of a replica of a pool, connected to whatever it exchanges KV with.
    pub(super) fn engine<P: Pool>(
        &self,
        config: &FleetConfig,
        pool: &PoolConfig,
        replica: usize,
    ) -> Engine<P> {
        let engine = Engine::new(pool.engine.clone());
        let Some(connector) = connector(config, pool) else { return engine };
        let has_host = connector.offload.is_some();
        let engine = engine.connected(&connector);
        if has_host && (self.below.any() || config.below_host.cheapest) {
            engine.above(self.below.of_engine(config, pool, replica))
        } else {
            engine
        }
    }
}

impl Due {
    /// The replica that waits for it.
    fn replica(&self) -> Option<usize> {
        match *self {
            Self::Start(Pulling { replica, .. })
            | Self::Over(Over::NoPull(Pulling { replica, .. }) | Over::Copy { replica, .. })
            | Self::Store { replica, .. } => Some(replica),
            Self::Over(Over::Pull(_) | Over::Lease(_)) | Self::Written(_) => None,
        }
    }
}

impl HostLink {
    fn new(tier: &HostTier, block_bytes: u64) -> Self {
        let chunk_bytes = block_bytes * u64::from(tier.memory.blocks_per_chunk);
        Self { link: tier.link, chunk_bytes, loads_until: Time::ZERO, stores_until: Time::ZERO }
    }

    /// When a copy of so many chunks that is asked for at `now` is over.
    fn copy(&mut self, now: Time, chunks: u64, is_load: bool) -> Time {
        let until = if is_load { &mut self.loads_until } else { &mut self.stores_until };
        // The next one does not wait for the latency of this one.
        *until = (*until).max(now) + (self.link.alone(chunks * self.chunk_bytes) - self.link.latency);
        *until + self.link.latency
    }
}

/// What the engines of a pool exchange with the world outside their GPUs, if anything: in a disaggregated fleet every
/// engine may send and receive, as llm-d sets it (`kv_role: kv_both`).
fn connector(config: &FleetConfig, pool: &PoolConfig) -> Option<ConnectorConfig> {
    let role = config.is_disaggregated().then_some(KvRole::Both);
    let offload = pool.host.as_ref().map(|host| host.memory.clone());
    (role.is_some() || offload.is_some()).then_some(ConnectorConfig { role, offload })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::connector::{Eviction, OffloadConfig};

    #[test]
    fn copies_of_one_direction_follow_one_another_and_the_other_direction_is_free() {
        let memory = OffloadConfig {
            chunks: 10,
            blocks_per_chunk: 2,
            eviction: Eviction::Lru,
            offload_prompt_only: true,
            store_threshold: 0,
        };
        let link = LinkSpec { bandwidth: 1e9, efficiency: 1.0, latency: Span::from_nanos(5) };
        let mut host = HostLink::new(&HostTier { memory, link }, 500);
        let at = Time::from_nanos;
        assert_eq!(
            host.copy(at(100), 3, true),
            at(3105),
            "three chunks of 1000 bytes at a byte per nanosecond"
        );
        assert_eq!(host.copy(at(200), 1, true), at(4105), "after the first one");
        assert_eq!(host.copy(at(200), 1, false), at(1205), "stores do not wait for loads");
    }
}
