//! What arrives: trace readers, synthetic generators, and the loops that drive them.

pub mod arrival;
pub mod choice;
pub mod driver;
pub mod error;
pub mod law;
pub mod measure;
mod one_of;
pub mod open;
pub mod preset;
pub mod record;
pub mod sampler;
pub mod scale;
pub mod sessions;
pub mod spec;
pub mod synthetic;
pub mod trace;
pub mod units;
