//! What a router sees and says: the trait that policies implement.

use crate::request::{ReplicaId, Request};
use crate::time::Time;

/// What the router knows of one replica when it decides.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Which replica.
    pub replica: ReplicaId,
    /// Requests sent to it and not yet ended: the router's own count, exact.
    pub in_flight: u32,
}

/// Chooses a replica for each request.
pub trait Router: Send {
    /// The index in `endpoints` of the replica that serves `request`. `endpoints` is never empty and lists
    /// the replicas that serve the request's model, in a fixed order.
    fn route(&mut self, now: Time, request: &Request, endpoints: &[Endpoint]) -> usize;
}
