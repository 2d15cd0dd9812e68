//! Decisions equal recordings of the llm-d router's own code: those that are part of this repository.

use std::path::Path;

use crate::router;

#[test]
fn recorded_scores_filters_picks_loads_and_decisions_are_reproduced() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/router"));
    let mut compared = 0;
    for path in router::recordings(root) {
        compared +=
            router::replay(&path).unwrap_or_else(|difference| panic!("{}: {difference}", path.display()));
    }
    assert!(compared > 1000, "only {compared} values were compared");
}
