//! Fairness policies: which flow of a priority is next.

use std::collections::BTreeMap;

use forerun_sim::time::Time;
use serde::Deserialize;

use super::band::Queue;

/// Which flow is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fairness {
    /// `global-strict-fairness-policy`: none; the ordering policy goes over all flows.
    #[default]
    GlobalStrict,
    /// `round-robin-fairness-policy`: each flow in turn, by name.
    RoundRobin,
    /// `program-aware-fairness`: the flow that attained the least service.
    ProgramAware,
}

impl Fairness {
    /// The policy of this name in a configuration.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "global-strict-fairness-policy" => Self::GlobalStrict,
            "round-robin-fairness-policy" => Self::RoundRobin,
            "program-aware-fairness" => Self::ProgramAware,
            _ => return None,
        })
    }
}

/// Parameters of `program-aware-fairness` with its strategy "las" (least attained service).
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LasConfig {
    /// Weight of the least attained service.
    pub weight_service: f64,
    /// Weight of the longest wait of a queue's head.
    pub weight_service_head_wait: f64,
    /// Seconds after which half of the service of an idle flow is forgotten; 0 takes the factor.
    pub service_half_life_seconds: f64,
    /// What remains of an idle flow's service per pick, without a half-life.
    pub service_decay_factor: f64,
}

impl Default for LasConfig {
    fn default() -> Self {
        Self {
            weight_service: 0.8,
            weight_service_head_wait: 0.2,
            service_half_life_seconds: 60.0,
            service_decay_factor: 0.995,
        }
    }
}

/// Prompt and output tokens count so much as service.
const INPUT_TOKEN_COST: f64 = 1.0;
const OUTPUT_TOKEN_COST: f64 = 2.0;

/// What one program (a flow, by its fairness id) has been given.
#[derive(Clone, Copy, Debug, Default)]
struct Program {
    service: f64,
    decayed_at: Option<Time>,
    in_flight: u64,
}

/// The service that programs attained, over all priorities.
///
/// Source: llm-d-router, `plugins/flowcontrol/fairness/program-aware/strategy_las.go`. Upstream breaks ties by the
/// order of a map; here the first name wins.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    config: LasConfig,
    programs: BTreeMap<String, Program>,
}

impl Programs {
    /// Nobody has been served yet.
    #[must_use]
    pub fn new(config: LasConfig) -> Self {
        Self { config, programs: BTreeMap::new() }
    }

    /// A request of `program` is on its way.
    pub fn dispatched(&mut self, program: &str) {
        self.program(program).in_flight += 1;
    }

    /// A request of `program` has ended, after so many tokens.
    pub fn completed(&mut self, now: Time, program: &str, prompt_tokens: u64, output_tokens: u64) {
        let program = self.program(program);
        program.in_flight = program.in_flight.saturating_sub(1);
        program.service += INPUT_TOKEN_COST * prompt_tokens as f64 + OUTPUT_TOKEN_COST * output_tokens as f64;
        program.decayed_at = Some(now);
    }

    /// The service that `program` attained and that is not forgotten, in weighted tokens.
    #[must_use]
    pub fn service(&self, program: &str) -> f64 {
        self.programs.get(program).map_or(0.0, |program| program.service)
    }

    fn program(&mut self, name: &str) -> &mut Program {
        if !self.programs.contains_key(name) {
            self.programs.insert(name.to_owned(), Program::default());
        }
        self.programs.get_mut(name).expect("it was just inserted")
    }

    /// The flow with the highest score: weighted sum of little service and long wait, each scaled to 0..1 between
    /// the waiting flows. Programs that neither wait nor run forget some of theirs.
    pub(super) fn pick(&mut self, now: Time, flows: &BTreeMap<String, Queue>) -> Option<String> {
        let config = self.config;
        for (name, program) in &mut self.programs {
            if program.in_flight == 0 && !flows.contains_key(name) {
                program.decay(now, &config);
            }
        }
        let wait_ms = |queue: &Queue| {
            let (_, head) = queue.first_key_value()?;
            Some((now.saturating_since(head.received).as_nanos() / 1_000_000) as f64)
        };
        let waiting: Vec<(&String, f64, f64)> = flows
            .iter()
            .filter_map(|(name, queue)| Some((name, self.service(name), wait_ms(queue)?)))
            .collect();
        let service = range(waiting.iter().map(|&(_, service, _)| service));
        let wait = range(waiting.iter().map(|&(_, _, wait)| wait));
        let mut best: Option<(f64, &String)> = None;
        for &(name, attained, waited) in &waiting {
            let score = config.weight_service * (1.0 - scaled(attained, service))
                + config.weight_service_head_wait * scaled(waited, wait);
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, name));
            }
        }
        best.map(|(_, name)| name.clone())
    }
}

impl Program {
    fn decay(&mut self, now: Time, config: &LasConfig) {
        if config.service_half_life_seconds <= 0.0 {
            self.service *= config.service_decay_factor;
            return;
        }
        let since = self.decayed_at.replace(now).map_or(0.0, |at| now.saturating_since(at).as_secs_f64());
        if since > 0.0 {
            self.service *= libm::pow(0.5, since / config.service_half_life_seconds);
        }
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// Where `value` lies between the ends of a range, 0 to 1; 0 in one without extent.
fn scaled(value: f64, (low, high): (f64, f64)) -> f64 {
    if high > low { (value - low) / (high - low) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::flow::band::Queued;
    use crate::epp::flow::controller::Waiting;
    use forerun_sim::request::RequestId;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn waiting_since(flows: &[(&str, u64)]) -> BTreeMap<String, Queue> {
        let queue = |&(flow, second): &(&str, u64)| {
            let request = Waiting::new(RequestId(0), flow, 0);
            let queued = Queued { request, received: at(second), deadline: Time::NEVER };
            (flow.to_owned(), Queue::from([((at(second), 0), queued)]))
        };
        flows.iter().map(queue).collect()
    }

    #[test]
    fn the_program_with_the_least_service_is_next() {
        let mut programs = Programs::default();
        programs.completed(at(0), "a", 100, 50);
        programs.completed(at(0), "b", 100, 0);
        assert_eq!([programs.service("a"), programs.service("b")].map(|service| service as u32), [200, 100]);
        assert_eq!(programs.pick(at(9), &waiting_since(&[("a", 0), ("b", 5)])), Some("b".into()));
        assert_eq!(programs.pick(at(9), &waiting_since(&[])), None);
    }

    #[test]
    fn equal_service_leaves_it_to_the_longest_wait() {
        let picked = Programs::default().pick(at(9), &waiting_since(&[("a", 3), ("b", 2), ("c", 4)]));
        assert_eq!(picked, Some("b".into()));
    }

    #[test]
    fn only_what_neither_waits_nor_runs_is_forgotten() {
        let mut programs = Programs::default();
        for name in ["idle", "running", "waiting"] {
            programs.completed(at(0), name, 1_000, 0);
        }
        programs.dispatched("running");
        programs.pick(at(60), &waiting_since(&[("waiting", 0)]));
        let services = ["idle", "running", "waiting"].map(|name| programs.service(name) as u32);
        assert_eq!(services, [500, 1_000, 1_000], "half of it after a half-life");
    }
}
