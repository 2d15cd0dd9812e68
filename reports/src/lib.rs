//! How a run is summarised and shown.
//!
//! A [`collector::Collector`] watches a run and sums it up, in memory that does not grow with the number of
//! requests, into a [`summary::Summary`]: the JSON document that `forerun simulate` prints. For people the
//! summary becomes a [`document::Document`] (see [`summary_document`]), which [`terminal`] and [`markdown`] render. An
//! [`outcomes::OutcomeWriter`] writes one CSV line per request.
//!
//! [`figures`] names what runs are judged by. Over several runs, [`replications`] gives their means and intervals,
//! by [`statistics`]; [`compare`] holds variants against each other.
//!
//! Latencies are over completed requests that arrived after the warm-up; what counts as good is an
//! [`slo::Slo`].

pub mod capacity;
mod cells;
pub mod collector;
pub mod compare;
pub mod document;
pub mod figures;
mod groups;
pub mod histogram;
mod layout;
pub mod markdown;
mod numbers;
pub mod outcomes;
pub mod replications;
pub mod slo;
pub mod statistics;
pub mod summary;
pub mod summary_document;
pub mod terminal;
mod window;

#[cfg(test)]
mod testing;
