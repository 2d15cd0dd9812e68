//! Traffic that is split between backends, and traffic that is mirrored to one: what a gateway (HTTPRoute weights,
//! RequestMirror) or an agent that chooses among models does in front of the routers.
//!
//! A mirrored request is a copy that no client waits for. It loads its backend as any request does; its tokens and its
//! outcome are counted by themselves.

use super::PoolConfig;
use crate::request::{Outcome, Request, RequestId, Status};

/// What decides which backend a request goes to: equal ones go to the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitBy {
    /// Each request by itself.
    Request,
    /// Its session; requests without one by themselves.
    Session,
    /// Its tenant; requests without one by themselves.
    Tenant,
}

/// Pools that serve a share of the traffic; they are alternatives for the same router.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Indices of its pools.
    pub pools: Vec<usize>,
    /// Its share of the traffic, relative to the others'.
    pub weight: f64,
}

/// How traffic is split.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What stays together.
    pub by: SplitBy,
    /// Who gets which share.
    pub backends: Vec<Backend>,
    /// Copies of a share of the requests.
    pub mirror: Option<Mirror>,
}

/// Shadow traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirror {
    /// The backend that gets the copies, and nothing else.
    pub backend: usize,
    /// The share of requests that are copied, 0 to 1.
    pub share: f64,
}

/// What became of mirrored requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorTotals {
    /// Copies that were sent.
    pub sent: u64,
    /// Copies of which all tokens were generated.
    pub completed: u64,
    /// Copies that were accepted and not finished.
    pub failed: u64,
    /// Copies that were turned away.
    pub rejected: u64,
    /// Copies in flight when the run ended.
    pub unfinished: u64,
    /// Tokens that were generated for nobody.
    pub output_tokens: u64,
    /// Time to first token of those completed, summed, in nanoseconds.
    pub ttft_sum_ns: u128,
}

/// Copies have numbers of their own: those of their requests, in the upper half of all numbers.
const COPY: u64 = 1 << 63;

/// Draws of where and whether are independent.
const WHERE: u64 = u64::from_be_bytes(*b"backends");
const WHETHER: u64 = u64::from_be_bytes(*b"mirrored");

impl Split {
    /// The backend of pool `index`.
    pub(super) fn backend_of(&self, index: usize) -> Option<usize> {
        self.backends.iter().position(|backend| backend.pools.contains(&index))
    }

    /// Whether pool `index` gets copies only.
    pub(super) fn is_shadow(&self, index: usize) -> bool {
        self.mirror.is_some_and(|mirror| self.backend_of(index) == Some(mirror.backend))
    }

    /// The backend of a request: a hash of its key picks a place on the line of the weights, the same in every run.
    pub(super) fn choose(&self, request: &Request) -> usize {
        let whole: f64 = self.backends.iter().map(|backend| backend.weight).sum();
        let mut rest = self.draw(request, WHERE) * whole;
        for (place, backend) in self.backends.iter().enumerate() {
            if rest < backend.weight {
                return place;
            }
            rest -= backend.weight;
        }
        // Rounding may leave nothing: whoever has weight last.
        self.backends.iter().rposition(|backend| backend.weight > 0.0).unwrap_or(0)
    }

    /// The copy of a request, if it is one of those that are mirrored.
    pub(super) fn copy_of(&self, request: &Request) -> Option<Request> {
        let mirror = self.mirror?;
        (self.draw(request, WHETHER) < mirror.share).then(|| Request {
            id: RequestId(request.id.0 | COPY),
            name: None,
            // It generates a text of its own: its client never sends it back.
            output: request.output.resalted(COPIES),
            ..request.clone()
        })
    }

    /// Uniform in [0, 1), by the key of the request.
    fn draw(&self, request: &Request, purpose: u64) -> f64 {
        let session =
            request.session.as_ref().map(|session| session.id).filter(|_| self.by == SplitBy::Session);
        let tenant = Some(u64::from(request.tenant.0))
            .filter(|_| self.by == SplitBy::Tenant && request.tenant.is_some());
        let (kind, number) = match (session, tenant) {
            (Some(session), _) => (1, session),
            (_, Some(tenant)) => (2, tenant),
            _ => (0, request.id.0),
        };
        (mixed(mixed(purpose ^ kind) ^ number) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// Texts that copies generate are no requests'.
const COPIES: u64 = 1 << 59;

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
fn mixed(bits: u64) -> u64 {
    let mut bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

impl MirrorTotals {
    /// A copy has ended.
    pub(super) fn ended(&mut self, outcome: &Outcome) {
        self.output_tokens += u64::from(outcome.emitted);
        match outcome.status {
            Status::Completed => {
                self.completed += 1;
                self.ttft_sum_ns += outcome.ttft().map_or(0, |ttft| u128::from(ttft.as_nanos()));
            }
            Status::Failed(_) => self.failed += 1,
            Status::Rejected(_) => self.rejected += 1,
            Status::Unfinished => self.unfinished += 1,
        }
    }
}

/// Which of the router's alternatives pool `index` is one of: those of its model, and of its backend.
pub(super) fn group_key<'a>(
    split: Option<&Split>,
    pool: &'a PoolConfig,
    index: usize,
) -> (&'a [String], Option<usize>) {
    (&pool.model_names, split.and_then(|split| split.backend_of(index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::{Content, Prompt};
    use crate::request::{Label, Session, Stop};
    use crate::time::Time;

    fn request(id: u64, session: u64, tenant: u32) -> Request {
        Request {
            id: RequestId(id),
            name: None,
            arrival: Time::ZERO,
            prompt: Prompt::of(Content::private(id), 10),
            output: Content::generated(id),
            output_tokens: 1,
            stop: Stop::Length,
            max_tokens: None,
            priority: 0,
            tenant: Label(tenant),
            class: Label::NONE,
            model: Label::NONE,
            adapter: Label::NONE,
            session: Some(Session { id: session, name: None, turn: 1 }),
        }
    }

    fn split(by: SplitBy, weights: &[f64], mirror: Option<Mirror>) -> Split {
        let backend = |(pool, &weight): (usize, &f64)| Backend { pools: vec![pool], weight };
        Split { by, backends: weights.iter().enumerate().map(backend).collect(), mirror }
    }

    #[test]
    fn weights_are_shares_and_none_goes_where_the_weight_is_0() {
        let split = split(SplitBy::Request, &[3.0, 0.0, 1.0], None);
        let mut counts = [0; 3];
        (0..10_000).for_each(|id| counts[split.choose(&request(id, 0, 1))] += 1);
        // 5 standard deviations of a binomial with n = 10,000 and p = 1/4.
        assert!((f64::from(counts[2]) - 2500.0).abs() < 5.0 * 43.3 && counts[1] == 0, "{counts:?}");
    }

    #[test]
    fn sessions_and_tenants_stay_together() {
        for (by, key) in [(SplitBy::Session, 0), (SplitBy::Tenant, 1)] {
            let split = split(by, &[1.0, 1.0], None);
            let mut seen = [[0; 2]; 20];
            for id in 0..2_000 {
                let keys = [id % 20, (id / 7) % 20 + 1];
                let chosen = split.choose(&request(id, keys[0], keys[1] as u32));
                seen[(keys[key] - key as u64) as usize][chosen] += 1;
            }
            assert!(seen.iter().all(|counts| counts.contains(&0)), "{by:?}: {seen:?}");
            assert!(seen.iter().any(|counts| counts[0] > 0) && seen.iter().any(|counts| counts[1] > 0));
        }
    }

    #[test]
    fn a_copy_asks_the_same_under_a_number_of_its_own() {
        let mirror = Some(Mirror { backend: 1, share: 0.1 });
        let split = split(SplitBy::Request, &[1.0, 0.0], mirror);
        let copies = (0..10_000).filter_map(|id| split.copy_of(&request(id, 0, 0))).collect::<Vec<_>>();
        // 5 standard deviations of a binomial with n = 10,000 and p = 1/10.
        assert!((copies.len() as f64 - 1000.0).abs() < 5.0 * 30.0, "{}", copies.len());
        let original = request(copies[0].id.0 & !COPY, 0, 0);
        assert_eq!(copies[0].prompt, original.prompt);
        assert!(copies[0].id != original.id && copies[0].output != original.output);
    }
}
