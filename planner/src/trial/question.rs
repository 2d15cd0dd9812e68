//! What is asked of a fleet: traffic with a rate of its own, and limits on the whole run.

use forerun_workloads::spec::Loop;

use crate::error::InputError;
use crate::scenario::SloSpec;
use crate::scenario::read::Loaded;
use crate::words::percent;

/// The SLO of a scenario that has none: what interactive chat is usually asked for.
const SLO: &str = "ttft=2s,tpot=50ms,attainment=0.95";

/// Share of requests that must be good where the scenario does not say.
const ATTAINMENT: f64 = 0.95;

/// Traffic that waits for answers has no rate of its own.
///
/// # Errors
/// When the traffic is of that kind.
pub(crate) fn check_open(loaded: &Loaded) -> Result<(), InputError> {
    let closed = loaded.scenario.workload.as_ref().is_some_and(|spec| !matches!(spec.pacing, Loop::Open));
    if closed {
        let why = "`workload.loop`: such traffic is paced by the answers, so it has no rate that a fleet could be too \
                   small for; leave `loop` out";
        return Err(InputError::new(why).at(&loaded.name));
    }
    Ok(())
}

/// Without limits on the whole run every fleet would do.
pub(crate) fn complete_slo(loaded: &mut Loaded, notes: &mut Vec<String>) {
    let slo = loaded.scenario.slo.get_or_insert_default();
    if *slo == SloSpec::default() {
        notes.push(format!("the scenario has no SLO: {SLO} is assumed"));
        *slo = SLO.parse().unwrap_or_default();
    }
    let whole = slo.attainment.is_some() || slo.resolve().is_ok_and(|slo| !slo.aggregate.is_empty());
    if !whole {
        notes
            .push(format!("the SLO has no attainment: {} of the requests must be good", percent(ATTAINMENT)));
        slo.attainment = Some(ATTAINMENT);
    }
}

/// The SLO in words, as `--slo` takes it.
pub(crate) fn slo_words(slo: Option<&SloSpec>) -> String {
    let Ok(serde_json::Value::Object(map)) = serde_json::to_value(slo) else { return "none".to_owned() };
    let words = map.iter().map(|(key, value)| match value {
        serde_json::Value::String(text) => format!("{key} {text}"),
        serde_json::Value::Number(number) if key == "attainment" => {
            format!("{key} {}", percent(number.as_f64().unwrap_or(0.0)))
        }
        other => format!("{key} {other}"),
    });
    words.collect::<Vec<_>>().join(", ")
}
