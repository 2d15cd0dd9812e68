//! The engine equals recordings of vLLM's real scheduler: those that are part of this repository.

use crate::golden;

#[test]
fn every_recorded_field_of_every_step_is_reproduced() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden");
    let mut steps = 0;
    for entry in std::fs::read_dir(folder).expect("the fixtures are part of the repository") {
        let path = entry.expect("a readable folder").path();
        let json = std::fs::read_to_string(&path).expect("a readable recording");
        for replay in golden::FORMS {
            steps += replay(&json).unwrap_or_else(|difference| panic!("{}: {difference}", path.display()));
        }
    }
    assert!(steps > 1000, "only {steps} steps were compared");
}
