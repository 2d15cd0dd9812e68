//! The integration tests: one binary.

mod bad_input;
mod calibrate;
mod cli;
mod compare;
mod curious;
mod disaggregation;
mod faults;
mod golden;
mod golden_fixtures;
mod harness;
mod live_server;
mod lora;
mod plan;
mod properties;
mod queueing;
mod route;
mod router;
mod router_fixtures;
mod router_state;
mod router_state_fixtures;
mod split;
mod support;
mod tiers;
mod trace_info;
mod transfers;
mod validate;
