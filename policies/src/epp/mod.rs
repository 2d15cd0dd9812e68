//! llm-d's endpoint picker (EPP): the router that reads an `EndpointPickerConfig`.
//!
//! A decision runs as upstream's does: producers publish what they know of the request, then each scheduling
//! profile filters the endpoints, adds up weighted scores and lets its picker choose.

pub mod flow;
pub mod prefix;
mod request;
mod state;

pub use request::RequestView;
pub use state::{EndpointInfo, EndpointState, InFlight, Latency, Metrics, Topology};
