//! How the cost model becomes true: measured kernel tables are imported as profiles, and profiles become the cost
//! model of a replica.
//!
//! A [`profile`] is one JSON file about one GPU. [`import`] makes one from the tables that other tools measured;
//! [`rows`] reads them; [`smooth`] makes their grids whole and monotone, as the simulator demands.
//! [`fit`] fits the constants of the closed forms to such tables.

pub mod fit;
pub mod import;
pub mod profile;
pub mod rows;
pub mod smooth;
