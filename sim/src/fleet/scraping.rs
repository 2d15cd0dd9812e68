//! What the router sees of the replicas: their metrics as of the last scrape, their caches as they are.

use super::Fleet;
use super::ranks::Ranks;
use crate::engine::EngineRequest;
use crate::engine::connector::below::chunk_names;
use crate::kv::Pool;
use crate::observer::Observer;
use crate::prompt::BlockHash;
use crate::replica::Replica;
use crate::request::{Label, ReplicaId, Request, RequestId};
use crate::router::{Adapters, Caches, Endpoint, Metrics};
use crate::time::Time;

impl<P: Pool> Fleet<'_, P> {
    /// When the replicas were scraped last before this moment, if the router wants them scraped: at whole multiples
    /// of the interval. What happens just now was not seen.
    pub(super) fn last_scrape(&self) -> Option<Time> {
        let interval = self.needs.scrape?.as_nanos().max(1);
        let before = self.now.as_nanos().checked_sub(1)?;
        Some(Time::from_nanos(before / interval * interval))
    }

    /// Brings what the router sees of the replicas up to the last scrape.
    pub(super) fn scrape(&mut self) {
        let Some(at) = self.last_scrape().filter(|&at| self.scraped != Some(at)) else { return };
        self.scraped = Some(at);
        for index in 0..self.replicas.len() {
            self.scrape_replica(index, at);
        }
        if self.ranks.is_some() {
            return self.gather_from_ranks();
        }
        for (endpoints, adapters) in self.models.iter_mut().zip(&mut self.adapters) {
            for (endpoint, adapters) in endpoints.iter_mut().zip(adapters) {
                let replica = &self.replicas[endpoint.replica.0 as usize];
                endpoint.metrics = replica.scraped.map_or(Metrics::default(), |(_, metrics)| metrics);
                if self.needs.adapters {
                    adapters.published = replica.has_published();
                    replica.engine.adapters(&mut adapters.running, &mut adapters.waiting);
                }
            }
        }
    }

    /// The same where servers have several ranks.
    fn gather_from_ranks(&mut self) {
        for model in 0..self.models.len() {
            for place in 0..self.models[model].len() {
                let server = self.models[model][place].replica;
                self.models[model][place].metrics = self.server_metrics(server);
                if self.needs.adapters {
                    let engines = self.engines_of(server);
                    let adapters = &mut self.adapters[model][place];
                    *adapters = Adapters::default();
                    for engine in engines {
                        let replica = &self.replicas[engine];
                        adapters.published |= replica.has_published();
                        let (mut running, mut waiting) = (Vec::new(), Vec::new());
                        replica.engine.adapters(&mut running, &mut waiting);
                        join(&mut adapters.running, running);
                        join(&mut adapters.waiting, waiting);
                    }
                }
            }
        }
    }

    /// Takes a replica's quiet steps that end before `until`, or at it. Nobody watches those of copies.
    pub(super) fn run_quiet(&mut self, index: usize, until: Time, inclusive: bool) {
        let (id, replica) = (ReplicaId(index as u32), &mut self.replicas[index]);
        self.steps += match self.shadow[index] {
            false => replica.run_quiet(id, until, inclusive, self.observer),
            true => replica.run_quiet(id, until, inclusive, &mut ()),
        };
    }

    /// What a replica had published at `at`, noted before it goes on from there.
    pub(super) fn scrape_replica(&mut self, index: usize, at: Time) {
        if self.replicas[index].scraped.is_none_or(|(scraped, _)| scraped < at) {
            self.run_quiet(index, at, true);
            let replica = &mut self.replicas[index];
            replica.scraped = Some((at, replica.metrics()));
        }
    }
}

/// Adds the adapters that are not there yet.
fn join(adapters: &mut Vec<Label>, others: Vec<Label>) {
    let new: Vec<_> = others.into_iter().filter(|other| !adapters.contains(other)).collect();
    adapters.extend(new);
}

/// Looks a request up in the replicas' caches.
pub(super) struct Lookup<'a, P: Pool> {
    pub(super) replicas: &'a mut [Replica<P>],
    pub(super) shadow: &'a [bool],
    pub(super) endpoints: &'a [Endpoint],
    /// Where endpoints are servers of several replicas.
    pub(super) ranks: Option<&'a Ranks>,
    pub(super) request: &'a Request,
    /// The request's chain, once it is needed.
    pub(super) chain: Option<P::Chain>,
    /// The names of its chunks in host memory, by the tokens of a chunk, once they are needed.
    pub(super) chunks: Option<(u32, Vec<BlockHash>)>,
    pub(super) now: Time,
    pub(super) steps: &'a mut u64,
    pub(super) observer: &'a mut dyn Observer,
}

impl<P: Pool> Lookup<'_, P> {
    fn cached_on(&mut self, id: ReplicaId) -> u32 {
        let replica = &mut self.replicas[id.0 as usize];
        // The steps that end just now have ended: a request arrives after them.
        *self.steps += match self.shadow[id.0 as usize] {
            false => replica.run_quiet(id, self.now, true, self.observer),
            true => replica.run_quiet(id, self.now, true, &mut ()),
        };
        if self.request.prompt.has_answers() {
            replica.engine.expose(&self.request.prompt, false);
        }
        let chain = self.chain.get_or_insert_with(|| {
            replica.engine.chain_of(&EngineRequest::new(RequestId(0), self.request, u32::MAX))
        });
        let cached = replica.engine.cached_tokens(chain, self.request.prompt.tokens());
        let block_tokens = replica.engine.config().block_size;
        let events = replica.kv_events.as_ref();
        events.map_or(cached, |events| events.known(self.now, self.request, cached, block_tokens))
    }

    fn in_host_memory(&mut self, id: ReplicaId, gpu_tokens: u32) -> u32 {
        let engine = &self.replicas[id.0 as usize].engine;
        let Some(chunk_tokens) = engine.host_chunk_tokens() else { return 0 };
        if self.chunks.as_ref().is_none_or(|(tokens, _)| *tokens != chunk_tokens) {
            let request = EngineRequest::new(RequestId(0), self.request, u32::MAX);
            self.chunks = Some((chunk_tokens, chunk_names(chunk_tokens, &request)));
        }
        self.chunks.as_ref().map_or(0, |(_, chunks)| engine.host_tokens(chunks, gpu_tokens))
    }
}

/// Of a server's ranks, the one that has most counts.
impl<P: Pool> Caches for Lookup<'_, P> {
    fn cached_tokens(&mut self, endpoint: usize) -> u32 {
        let id = self.endpoints[endpoint].replica;
        match self.ranks {
            None => self.cached_on(id),
            Some(ranks) => {
                ranks.engines_of(id).map(|engine| self.cached_on(ReplicaId(engine as u32))).max().unwrap_or(0)
            }
        }
    }

    fn host_tokens(&mut self, endpoint: usize, gpu_tokens: u32) -> u32 {
        let id = self.endpoints[endpoint].replica;
        match self.ranks {
            None => self.in_host_memory(id, gpu_tokens),
            Some(ranks) => {
                let each = |engine| self.in_host_memory(ReplicaId(engine as u32), gpu_tokens);
                ranks.engines_of(id).map(each).max().unwrap_or(0)
            }
        }
    }
}
