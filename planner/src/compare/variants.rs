//! What is compared: variants of a scenario by router, by file, or by any field.

use std::path::{Path, PathBuf};

use forerun_policies::Preset;
use serde_json::json;

use crate::error::InputError;
use crate::scenario::overrides::Override;
use crate::scenario::read::{Loaded, Origin, read};

/// More variants than this make a table nobody reads.
const VARIANTS_MAX: usize = 32;

/// Name of the scenario itself, when it is compared with a single variant of it.
const AS_GIVEN: &str = "as given";

/// Ends of names that are taken for files.
const FILE_ENDS: [&str; 3] = [".yaml", ".yml", ".json"];

/// The variants that a user names. They are compared in the order of these fields; the first is the baseline.
#[derive(Clone, Debug, Default)]
pub struct VariantNames {
    /// Routing policies: presets, or files of llm-d's EndpointPickerConfig.
    pub routers: Vec<String>,
    /// Scenario files.
    pub scenarios: Vec<PathBuf>,
    /// `NAME=FILE`, or `NAME: PATH=VALUE; PATH=VALUE`.
    pub variants: Vec<String>,
}

/// One variant, ready to be assembled.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its scenario.
    pub loaded: Loaded,
}

/// Reads every variant of the scenario at `origin`, with `overrides` set in all of them. A single variant is compared
/// with the scenario as it is.
///
/// # Errors
/// When a file or an override is wrong, two variants have the same name, or there is nothing to compare.
pub fn candidates(
    origin: Origin<'_>,
    overrides: &[Override],
    names: &VariantNames,
) -> Result<Vec<Candidate>, InputError> {
    let with = |origin, more: Vec<Override>| {
        let all: Vec<Override> = overrides.iter().cloned().chain(more).collect();
        read(origin, &all)
    };
    let mut candidates = Vec::new();
    for router in &names.routers {
        let loaded = with(origin, vec![router_override(router)?])?;
        candidates.push(Candidate { name: short(router), loaded });
    }
    for path in &names.scenarios {
        let name = short(&path.display().to_string());
        candidates.push(Candidate { name, loaded: with(Origin::File(path), Vec::new())? });
    }
    for text in &names.variants {
        let (name, what) = parse(text)?;
        let loaded = match what {
            What::File(path) => with(Origin::File(Path::new(path)), Vec::new())?,
            What::Fields(fields) => with(origin, fields)?,
        };
        candidates.push(Candidate { name: name.to_owned(), loaded });
    }
    if candidates.len() == 1 {
        candidates.insert(0, Candidate { name: AS_GIVEN.to_owned(), loaded: with(origin, Vec::new())? });
    }
    check(&candidates)?;
    Ok(candidates)
}

fn check(candidates: &[Candidate]) -> Result<(), InputError> {
    if candidates.is_empty() {
        return Err(InputError::new(
            "nothing to compare: name variants, for example --router round-robin --router least-requests, or \
             --variant 'eight: pools.0.replicas=8'",
        ));
    }
    if candidates.len() > VARIANTS_MAX {
        return Err(InputError::new(format!(
            "{} variants: at most {VARIANTS_MAX} are compared at once",
            candidates.len()
        )));
    }
    for (index, candidate) in candidates.iter().enumerate() {
        if candidates[..index].iter().any(|other| other.name == candidate.name) {
            return Err(InputError::new(format!(
                "two variants are called `{}`: rename one with --variant 'NAME=FILE' or 'NAME: PATH=VALUE'",
                candidate.name
            )));
        }
    }
    Ok(())
}

/// `router:` of a scenario from one word: a preset, or a file of an EndpointPickerConfig, whose path starts from the
/// current folder.
///
/// # Errors
/// When the path is not UTF-8.
pub fn router_override(text: &str) -> Result<Override, InputError> {
    let is_file = FILE_ENDS.iter().any(|end| text.ends_with(end)) || Path::new(text).is_file();
    if Preset::find(text).is_some() || !is_file {
        return Ok(Override::new("router", json!({"preset": text})));
    }
    let wrong = |why: &str| InputError::new(format!("--router {text}: {why}"));
    let path = std::path::absolute(text).map_err(|e| wrong(&e.to_string()))?;
    let path = path.to_str().ok_or_else(|| wrong("is not UTF-8"))?;
    Ok(Override::new("router", json!({"epp": path})))
}

/// A file's name without folder and end; other words as they are.
fn short(text: &str) -> String {
    let name = FILE_ENDS.iter().find_map(|end| text.strip_suffix(end));
    name.map_or(text, |path| path.rsplit(['/', '\\']).next().unwrap_or(path)).to_owned()
}

enum What<'a> {
    File(&'a str),
    Fields(Vec<Override>),
}

/// A variant as the user writes it: whichever of `=` and `:` comes first ends its name.
fn parse(text: &str) -> Result<(&str, What<'_>), InputError> {
    let wrong = |why: &str| {
        InputError::new(format!(
            "--variant {text}: {why}; write NAME=FILE, or for example 'eight: pools.0.replicas=8; \
             engine.max_num_seqs=256'"
        ))
    };
    let end = text.find(['=', ':']).ok_or_else(|| wrong("it names no file and sets no field"))?;
    let (name, rest) = (text[..end].trim(), text[end + 1..].trim());
    if name.is_empty() || name.chars().count() > 40 || name.chars().any(char::is_control) {
        return Err(wrong("a name has 1 to 40 characters, none of them a control character"));
    }
    if text[end..].starts_with('=') {
        // `pools.0.replicas=8` was meant to be a field.
        return if name.contains('.') { Err(wrong("it has no name")) } else { Ok((name, What::File(rest))) };
    }
    let fields = rest.split(';').map(str::trim).filter(|field| !field.is_empty());
    let fields = fields.map(|field| field.strip_prefix("--set ").unwrap_or(field).trim().parse());
    let fields = fields.collect::<Result<Vec<Override>, InputError>>();
    Ok((name, What::Fields(fields.map_err(|e| e.at(&format!("--variant {name}")))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(routers: &[&str], variants: &[&str]) -> VariantNames {
        VariantNames {
            routers: routers.iter().map(|&name| name.to_owned()).collect(),
            scenarios: Vec::new(),
            variants: variants.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    fn of(names: &VariantNames) -> Result<Vec<Candidate>, InputError> {
        candidates(Origin::BuiltIn, &["pools.0.replicas=2".parse().unwrap()], names)
    }

    #[test]
    fn routers_and_fields_vary_the_scenario_and_common_overrides_hold_for_all() {
        let all =
            of(&names(&["random"], &["big: pools.0.replicas=8; --set engine.max_num_seqs=9", "plain:"]));
        let all = all.unwrap();
        let what = |candidate: &Candidate| {
            let scenario = &candidate.loaded.scenario;
            let pool = &scenario.pools.as_ref().unwrap()[0];
            (candidate.name.clone(), pool.replicas, scenario.engine.as_ref().and_then(|e| e.max_num_seqs))
        };
        let found: Vec<_> = all.iter().map(what).collect();
        let expected = [("random", Some(2), None), ("big", Some(8), Some(9)), ("plain", Some(2), None)];
        assert_eq!(found, expected.map(|(name, replicas, seqs)| (name.to_owned(), replicas, seqs)));
    }

    #[test]
    fn a_single_variant_is_held_against_the_scenario_as_given() {
        let all = of(&names(&["random"], &[])).unwrap();
        assert_eq!(all.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), [AS_GIVEN, "random"]);
    }

    #[test]
    fn a_file_is_called_by_its_stem() {
        assert_eq!(short("configs/epp-a.yaml"), "epp-a");
        assert_eq!(short("least-requests"), "least-requests");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        for (names, part) in [
            (names(&[], &[]), "nothing to compare"),
            (names(&["random", "random"], &[]), "two variants are called `random`"),
            (names(&[], &["pools.0.replicas=8"]), "it has no name"),
            (names(&[], &["eight"]), "names no file and sets no field"),
            (names(&[], &[": a=b"]), "a name has 1 to 40 characters"),
            (names(&[], &["a: pools"]), "--variant a: --set pools: there is no `=`"),
            (names(&[], &["a: pools.0.replicas=x"]), "pools.0.replicas=x"),
            (names(&[], &["a=no-such-file.yaml", "b:"]), "no-such-file.yaml"),
        ] {
            let error = of(&names).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
