//! Flow control: how full a pool is, who is let in, and who waits for how long.

pub mod admission;
mod band;
mod configured;
mod controller;
mod duration;
mod eviction;
mod fairness;
mod ordering;
pub mod saturation;
#[cfg(test)]
mod tests;
pub mod usage_limit;

pub use band::BandConfig;
pub use controller::{CYCLE, FlowConfig, FlowController, Shed, Waiting};
pub use duration::parse_go_duration;
pub use eviction::Evictor;
pub use fairness::{Fairness, LasConfig, Programs};
pub use ordering::Ordering;
