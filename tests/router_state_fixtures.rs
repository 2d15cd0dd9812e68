//! The router's state equals recordings of llm-d's: those that are part of this repository.

use crate::router_state;

#[test]
fn every_recorded_value_is_reproduced() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/router_state");
    let mut recordings = 0;
    for kind in std::fs::read_dir(folder).expect("the fixtures are part of the repository") {
        let kind = kind.expect("a readable folder").path();
        for recording in std::fs::read_dir(&kind).expect("a folder of recordings") {
            let path = recording.expect("a readable folder").path();
            let name =
                |path: &std::path::Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let replay =
                router_state::replay_of(&name(&kind), &name(&path)).expect("a replay of each recording");
            let compared = router_state::replay(&path, replay);
            assert!(compared.as_ref().is_ok_and(|&count| count > 0), "{}: {compared:?}", path.display());
            recordings += 1;
        }
    }
    assert_eq!(recordings, 10, "recordings that are part of the repository");
}
