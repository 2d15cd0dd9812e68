//! Asks the questions: reads a scenario, assembles what it describes, runs it, and returns what to report.
//!
//! | step | file |
//! |---|---|
//! | YAML, flags and `--set` to a [`scenario::Scenario`] | `scenario/read`, `scenario/overrides` |
//! | names and defaults to a fleet that could exist | `assemble`, `engine` |
//! | the parts of split traffic | `split` |
//! | GPU, model, types; what fits, what it costs | `hardware` |
//! | KV that moves: links, host memory; LoRA adapters; drafts; faults | `kv`, `lora`, `speculative`, `faults` |
//! | one run to a summary and an outcomes file | `simulate` |
//! | measured tables to a profile, a profile to a cost model | `calibrate`, `profile` |
//! | the catalog's constants fitted to tables | `fits` |
//! | many runs at once, and replications of one scenario | `replicate` |
//! | variants on the same traffic, held against each other | `compare` |
//! | one step's time, op by op | `explain` |
//! | hazards of a router configuration | `lint` |
//! | one decision of a router: without a run, within one | `route`, `decision` |
//! | whether a change made anything worse | `gate` |
//! | which of llm-d's features would pay | `advise` |
//! | the cheapest fleet | `plan` |
//! | the simulator against measured servers | `validate/` |
//! | a live server's measured runs: predicted, and fitted to | `served/` |
//! | how far figures were off where servers were measured | `served/trust` |
//! | what scenarios can name | `catalog` |
//! | generated parts of documents, files as a whole | `markers`, `output` |
//! | what a workload is like, in figures | `trace_info` |
//! | today's manifests to a fleet | `current` |
//! | trial runs of other fleets, searches over them | `trial` |
//! | a verdict to files that deploy it | `emit` |

pub mod advise;
pub mod assemble;
pub mod calibrate;
pub mod catalog;
pub mod compare;
pub mod current;
pub mod decision;
pub mod emit;
mod engine;
pub mod error;
pub mod explain;
mod faults;
pub mod fits;
mod forms;
pub mod gate;
mod hardware;
mod kv;
pub mod ladder;
pub mod lint;
mod lora;
mod markers;
mod output;
pub mod plan;
mod profile;
pub mod replicate;
pub mod route;
pub mod routing;
pub mod scenario;
pub mod schema;
pub mod served;
pub mod simulate;
mod speculative;
mod split;
pub mod trace_info;
mod trial;
pub mod validate;
mod words;
