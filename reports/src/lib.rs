//! How a run is summarised and shown.
//!
//! A [`collector::Collector`] watches a run and sums it up, in memory that does not grow with the number of
//! requests, into a [`summary::Summary`]: the JSON document that `forerun simulate` prints. For people the
//! summary becomes a [`document::Document`] (see [`summary_document`]), which [`terminal`] renders. An
//! [`outcomes::OutcomeWriter`] writes one CSV line per request.
//!
//! Latencies are over completed requests that arrived after the warm-up; what counts as good is an
//! [`slo::Slo`].

pub mod collector;
pub mod document;
mod groups;
pub mod histogram;
mod layout;
mod numbers;
pub mod outcomes;
pub mod slo;
pub mod summary;
pub mod summary_document;
pub mod terminal;
mod window;

#[cfg(test)]
mod testing;
