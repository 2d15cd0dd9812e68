//! Why a run did not end.

use crate::source::SourceError;

/// Why a run did not end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The source failed.
    #[error("{0}")]
    Source(SourceError),
    /// The observer asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// Requests wait and nothing can happen: a bug.
    #[error("replica {replica} holds {waiting} requests that can never run")]
    Stuck {
        /// Which replica.
        replica: String,
        /// How many requests.
        waiting: u32,
    },
}
