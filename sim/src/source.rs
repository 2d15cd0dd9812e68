//! What arrives: the trait that workloads implement.

use crate::request::{Labels, Request, Status};
use crate::time::Time;

/// Why a source could not go on: an input error with its file and line, in words for the user.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A stream of requests, some of which depend on the end of earlier ones.
///
/// The fleet calls [`peek`](Self::peek) and [`pop`](Self::pop) in turn with the clock, and tells the source
/// of every end, so that a source can be an open loop, a closed loop, or sessions whose next turn follows the
/// previous answer.
pub trait Source: Send {
    /// When the next request is sent; `None` when none is due before another one ends, or ever.
    /// Never earlier than a time already peeked, unless [`ended`](Self::ended) was called in between.
    ///
    /// # Errors
    /// When the input cannot be read further.
    fn peek(&mut self) -> Result<Option<Time>, SourceError>;

    /// Takes the request that [`peek`](Self::peek) announced.
    ///
    /// # Errors
    /// When the input cannot be read further.
    fn pop(&mut self) -> Result<Option<Request>, SourceError>;

    /// A request of this source ended at `at`.
    fn ended(&mut self, request: &Request, status: Status, at: Time);

    /// The names that requests refer to by label.
    fn labels(&self) -> &Labels;
}
