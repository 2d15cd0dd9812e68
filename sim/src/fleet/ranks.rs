//! Data parallel servers: several engines (ranks) behind one address, and the server's own balancer between them
//! (vLLM 0.32, v1/engine/core_client.py and core.py `DPEngineCoreProc`). Not checked against recordings.
//!
//! The router sees the server. Ranks of a mixture of experts step together, since every layer needs all of them: those
//! that have nothing to do run a dummy batch, and a step takes as long as that of the slowest rank.

use std::ops::Range;

use super::{Fleet, FleetConfig};
use crate::event::Rank;
use crate::kv::Pool;
use crate::request::ReplicaId;
use crate::router::Metrics;
use crate::time::{Span, Time};

/// How often ranks tell the balancer about themselves.
const STATS_EVERY: Span = Span::from_millis(100);

/// KV memory in use beyond this share counts against a rank that has requests waiting.
const KV_USAGE_FREE: f64 = 0.5;

/// So much for each of them.
const WAITING_WEIGHT: f64 = 6.0;

/// What is known of a rank.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Requests that the balancer has sent there and that have not ended.
    in_flight: u32,
    /// What it said last.
    said: Metrics,
}

impl Known {
    /// What the balancer makes least: requests, and more for those that wait for memory.
    fn load(&self) -> f64 {
        let Metrics { waiting, running, kv_usage } = self.said;
        let requests = f64::from(self.in_flight.max(waiting + running));
        requests + f64::from(waiting) * WAITING_WEIGHT * (kv_usage - KV_USAGE_FREE).max(0.0)
    }
}

/// The ranks of one server.
#[derive(Clone, Debug)]
struct Server {
    first: usize,
    known: Vec<Known>,
    /// When they spoke last.
    heard: Option<Time>,
    /// Among equals the first from here on is taken.
    turn: usize,
    lock_step: bool,
}

impl Server {
    fn ranks(&self) -> Range<usize> {
        self.first..self.first + self.known.len()
    }

    fn choose(&mut self) -> usize {
        let count = self.known.len();
        let from_here = (0..count).map(|step| (self.turn + step) % count);
        let load = |&rank: &usize| self.known[rank].load();
        let least = from_here.min_by(|one, other| load(one).total_cmp(&load(other)));
        let rank = least.expect("a server has ranks");
        self.turn = (rank + 1) % count;
        self.known[rank].in_flight += 1;
        self.first + rank
    }
}

/// The servers of a fleet, in which some have several ranks.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    servers: Vec<Server>,
    server_of: Vec<usize>,
}

impl Ranks {
    /// `None` when every server is one engine.
    pub(super) fn new(config: &FleetConfig) -> Option<Self> {
        let pools = &config.pools;
        if pools.iter().all(|pool| pool.data_parallel.ranks == 1) {
            return None;
        }
        let mut ranks = Self { servers: Vec::new(), server_of: Vec::new() };
        for pool in pools {
            let each = pool.data_parallel.ranks;
            for _ in 0..pool.replicas / each {
                let (server, first) = (ranks.servers.len(), ranks.server_of.len());
                ranks.server_of.resize(first + each as usize, server);
                let known = vec![Known::default(); each as usize];
                let lock_step = pool.data_parallel.lock_step && each > 1;
                ranks.servers.push(Server { first, known, heard: None, turn: 0, lock_step });
            }
        }
        Some(ranks)
    }

    /// The engines of the server that the router knows by this number.
    pub(super) fn engines_of(&self, server: ReplicaId) -> Range<usize> {
        self.servers[server.0 as usize].ranks()
    }

    /// A request that was sent to `engine` has ended.
    pub(super) fn left(&mut self, engine: usize) {
        let server = &mut self.servers[self.server_of[engine]];
        server.known[engine - server.first].in_flight -= 1;
    }

    /// The ranks that step together with `engine`, itself included.
    fn together(&self, engine: usize) -> Option<Range<usize>> {
        let server = &self.servers[self.server_of[engine]];
        server.lock_step.then(|| server.ranks())
    }
}

impl<P: Pool> Fleet<'_, P> {
    /// The engines of the server that the router knows by this number.
    pub(super) fn engines_of(&self, server: ReplicaId) -> Range<usize> {
        let index = server.0 as usize;
        self.ranks.as_ref().map_or(index..index + 1, |ranks| ranks.engines_of(server))
    }

    /// The engine that gets a request sent to this server.
    pub(super) fn engine_for(&mut self, server: ReplicaId) -> ReplicaId {
        let Some(ranks) = &self.ranks else { return server };
        let Server { heard, .. } = ranks.servers[server.0 as usize];
        if heard.is_none_or(|heard| self.now.since(heard) >= STATS_EVERY) {
            let engines = self.engines_of(server);
            let said: Vec<Metrics> = engines
                .map(|engine| {
                    self.catch_up(engine, true);
                    self.replicas[engine].metrics()
                })
                .collect();
            if let Some(ranks) = &mut self.ranks {
                let server = &mut ranks.servers[server.0 as usize];
                let whole = self.now.as_nanos() / STATS_EVERY.as_nanos() * STATS_EVERY.as_nanos();
                server.heard = Some(Time::from_nanos(whole));
                server.known.iter_mut().zip(said).for_each(|(known, said)| known.said = said);
            }
        }
        let ranks = self.ranks.as_mut().expect("just seen");
        ReplicaId(ranks.servers[server.0 as usize].choose() as u32)
    }

    /// What a server of several ranks publishes: their requests together, and their memory on average.
    pub(super) fn server_metrics(&self, server: ReplicaId) -> Metrics {
        let engines = self.engines_of(server);
        let count = engines.len() as f64;
        let said = engines.filter_map(|engine| self.replicas[engine].scraped.map(|(_, metrics)| metrics));
        said.fold(Metrics::default(), |sum, rank| Metrics {
            waiting: sum.waiting + rank.waiting,
            running: sum.running + rank.running,
            kv_usage: sum.kv_usage + rank.kv_usage / count,
        })
    }

    /// Whether engine `index` waits for the step that its server's other ranks run.
    pub(super) fn awaits_others(&self, index: usize) -> bool {
        let together = self.ranks.as_ref().and_then(|ranks| ranks.together(index));
        together.is_some_and(|mut ranks| ranks.any(|rank| self.replicas[rank].is_stepping()))
    }

    /// Starts the oldest batch in flight of engine `index`, and with it those of the ranks that step together; whether
    /// that engine did.
    pub(super) fn start(&mut self, index: usize) -> bool {
        let together = self.ranks.as_ref().and_then(|ranks| ranks.together(index));
        let Some(ranks) = together else {
            let started = self.replicas[index].start_step(self.now);
            self.steps += u64::from(started);
            return started;
        };
        if self.awaits_others(index) {
            return false;
        }
        // Those whose requests came while the others were stepping take part from now on.
        for rank in ranks.clone().filter(|&rank| rank != index) {
            if self.replicas[rank].is_idle() && self.replicas[rank].engine.has_requests() {
                self.replicas[rank].wake = None;
                self.form_batches(ReplicaId(rank as u32), Rank::Wake);
            }
        }
        let spans = ranks.clone().filter_map(|rank| self.replicas[rank].ready_span());
        let Some(longest) = spans.max() else { return false };
        for rank in ranks.clone() {
            self.steps += u64::from(self.replicas[rank].start_step_for(self.now, longest));
        }
        ranks.filter(|&rank| rank != index).for_each(|rank| self.announce(rank));
        self.replicas[index].is_stepping()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(said: &[(u32, u32, f64)]) -> Server {
        let known = |&(waiting, running, kv_usage): &(u32, u32, f64)| Known {
            in_flight: 0,
            said: Metrics { waiting, running, kv_usage },
        };
        let known = said.iter().map(known).collect();
        Server { first: 10, known, heard: None, turn: 0, lock_step: false }
    }

    #[test]
    fn the_rank_with_the_fewest_requests_is_next_and_equals_take_turns() {
        let mut busy_first = server(&[(0, 5, 0.2), (0, 2, 0.2), (0, 2, 0.2)]);
        assert_eq!([(); 4].map(|()| busy_first.choose()), [11, 12, 11, 12]);
        let mut equal = server(&[(0, 0, 0.0); 3]);
        assert_eq!([(); 4].map(|()| equal.choose()), [10, 11, 12, 10]);
    }

    #[test]
    fn what_was_sent_counts_before_a_rank_speaks_of_it() {
        let mut server = server(&[(0, 1, 0.0), (0, 2, 0.0)]);
        assert_eq!([(); 4].map(|()| server.choose()), [10, 10, 11, 10]);
    }

    #[test]
    fn waiting_requests_weigh_more_when_memory_is_short() {
        let load = |said| server(&[said]).known[0].load();
        assert!((load((2, 3, 0.5)) - 5.0).abs() < 1e-12);
        assert!((load((2, 3, 0.9)) - (5.0 + 2.0 * 6.0 * 0.4)).abs() < 1e-12);
        assert!((load((0, 3, 0.9)) - 3.0).abs() < 1e-12, "nobody waits");
    }
}
