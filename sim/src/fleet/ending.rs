//! How requests end: completed, rejected, unfinished, or given up by their clients.

use super::Fleet;
use super::live::{Live, Remote, Seat, Stage};
use crate::kv::Pool;
use crate::request::{Failure, Status};
use crate::router::Endpoint;

impl<P: Pool> Fleet<'_, P> {
    /// The client's patience ends.
    pub(super) fn time_out(&mut self, seat: Seat) {
        if self.live.get_mut(seat).outcome.retries >= self.config.client.retries {
            return self.end(seat, Status::Failed(Failure::Timeout));
        }
        self.withdraw(seat);
        let live = self.live.get_mut(seat);
        let clock = live.replica().map(|replica| &self.replicas[replica.0 as usize].clock);
        live.start_again(self.now, clock.unwrap_or(&Default::default()));
        live.outcome.retries += 1;
        live.patience = None;
        self.send(seat);
    }

    /// Takes a request back from router and engine, whatever they still do for it.
    pub(super) fn withdraw(&mut self, seat: Seat) {
        let live = self.live.get_mut(seat);
        if std::mem::take(&mut live.at_router) {
            let id = live.outcome.request.id;
            self.router.ended(self.now, id);
            self.held.remove(&id);
        }
        let live = self.live.get_mut(seat);
        let (Some(replica), Some(answers)) = (live.replica(), live.outcome.replica) else { return };
        let (index, remote) = (replica.0 as usize, live.remote);
        let handle = live.handle.take();
        if let Some(handle) = handle {
            self.catch_up(index, true);
            self.dissolve(index);
            self.replicas[index].engine.abort(handle);
            self.stir(index);
        }
        match remote {
            Some(Remote { replica, stage: Stage::Prefill }) => {
                self.leave(replica.0 as usize);
            }
            // An engine that has not pulled yet says so, and the blocks are free; without one, the lease must end.
            Some(Remote { stage: Stage::Offered(offer), .. }) if handle.is_some() => {
                self.release_offer(offer);
            }
            _ => {}
        }
        self.leave(answers.0 as usize);
    }

    /// A request that was sent to replica `index` is there no more.
    pub(super) fn leave(&mut self, index: usize) {
        self.endpoint(index).in_flight -= 1;
        if let Some(ranks) = &mut self.ranks {
            ranks.left(index);
        }
    }

    /// What the router sees of a replica.
    pub(super) fn endpoint(&mut self, index: usize) -> &mut Endpoint {
        &mut self.models[self.model_of_pool[self.pool_of[index]]][self.endpoint_of[index]]
    }

    /// A request ends: exactly once.
    pub(super) fn end(&mut self, seat: Seat, status: Status) {
        self.withdraw(seat);
        let live = self.live.get_mut(seat);
        let idle = Default::default();
        let clock = live.replica().map_or(&idle, |replica| &self.replicas[replica.0 as usize].clock);
        let Live { outcome, account, is_copy, .. } = live;
        outcome.status = status;
        // What was loaded for a request that never got to use it does not count.
        outcome.limit_loaded(outcome.cached_tokens);
        outcome.ended = self.now;
        outcome.spent = account.close(self.now, clock);
        debug_assert_eq!(outcome.spent.total(), self.now.since(outcome.request.arrival), "the causes add up");
        if *is_copy {
            self.mirrored.ended(outcome);
        } else {
            self.observer.ended(outcome, self.source.labels());
            self.source.ended(&outcome.request, status, self.now);
            self.arrival_is_stale = true;
        }
        self.live.remove(seat);
    }
}
