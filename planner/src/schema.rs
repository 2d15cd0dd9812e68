//! The published JSON Schemas.

use serde_json::Value;

use crate::scenario::Scenario;
use crate::trace_info::TraceInfo;

/// JSON Schema of the scenario file.
#[must_use]
pub fn scenario() -> Value {
    let mut schema = schemars::schema_for!(Scenario).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("$id".into(), "forerun/scenario/v1".into());
    }
    schema
}

/// JSON Schema of the answer that `forerun gate --format json` prints.
#[must_use]
pub fn gate() -> Value {
    schemars::schema_for!(crate::gate::Gate).to_value()
}

/// JSON Schema of the answer that `forerun advise --format json` prints.
#[must_use]
pub fn advise() -> Value {
    schemars::schema_for!(crate::advise::Advice).to_value()
}

/// JSON Schema of the answer that `forerun plan --format json` prints.
#[must_use]
pub fn plan() -> Value {
    schemars::schema_for!(crate::plan::Plan).to_value()
}

/// JSON Schema of the comparison that `forerun compare --format json` prints.
#[must_use]
pub fn compare() -> Value {
    forerun_reports::compare::Comparison::schema()
}

/// JSON Schema of the summary that `forerun simulate --format json` prints.
#[must_use]
pub fn summary() -> Value {
    forerun_reports::summary::Summary::schema()
}

/// JSON Schema of what `forerun trace info --format json` prints.
#[must_use]
pub fn trace_info() -> Value {
    let mut schema = schemars::schema_for!(TraceInfo).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("$id".into(), "forerun/trace-info/v1".into());
    }
    schema
}
