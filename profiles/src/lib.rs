//! How the cost model becomes true: measured kernel tables are imported as profiles, and profiles become the cost
//! model of a replica.
//!
//! A [`profile`] is one JSON file about one GPU. [`import`] makes one from the tables that other tools measured;
//! [`rows`] reads them; [`smooth`] makes their grids whole and monotone, as the simulator demands.
//! [`fit`] fits the constants of the closed forms to such tables. [`measured`] is what was timed on a device at hand:
//! its ceilings, which [`project`] turns into the times of vLLM's kernels there, and the tables of the timed kernels.

pub mod fit;
pub mod import;
pub mod measured;
pub mod profile;
pub mod project;
pub mod rows;
pub mod smooth;
