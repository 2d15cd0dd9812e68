//! What happens: the simulation core of Forerun.
//!
//! A run takes requests from a [`source::Source`], lets a [`router::Router`] choose a replica for each, steps
//! the replicas' vLLM [`engine`]s, and tells an [`observer::Observer`] what became of every request. It has no
//! files, no wall clock, no threads and no I/O, and is a pure function of its inputs.
//!
//! The life of a request: [`fleet`] receives it and routes it; a replica hands it to its [`engine`], whose
//! scheduler admits it to a batch when [`kv`] has blocks for it; [`cost`] says how long the batch takes; when
//! it ends, the fleet writes its [`request::Outcome`].

mod agenda;
pub mod catalog;
pub mod cost;
pub mod engine;
pub mod event;
pub mod fleet;
pub mod kv;
mod ledger;
pub mod observer;
pub mod prompt;
mod replica;
pub mod request;
pub mod rng;
pub mod router;
pub mod source;
pub mod time;
