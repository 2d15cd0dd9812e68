//! llm-d's endpoint picker (EPP): the router that reads an `EndpointPickerConfig`.
//!
//! A decision runs as upstream's does: producers publish what they know of the request, then each scheduling
//! profile filters the endpoints, adds up weighted scores and lets its picker choose.

pub mod config;
mod context_length;
pub mod deciders;
pub mod explain;
pub mod filters;
pub mod flow;
mod gate;
pub mod handlers;
mod in_flight;
mod picker;
pub mod pickers;
pub mod plugin;
mod predictor;
pub mod prefix;
#[cfg(test)]
mod properties;
mod request;
mod router;
mod scheduler;
pub mod scorers;
mod session;
mod state;
mod topology;

pub use in_flight::ProducerOrder;
pub use pickers::TieRule;
pub use request::RequestView;
pub use router::EppRouter;
pub use scheduler::{Decision, NoEndpoints, Options, ProfileRun, SCRAPE_MIN, Scheduler};
pub use state::{EndpointInfo, EndpointState, InFlight, Latency, Metrics, Topology};
