//! Who is let in, and when: flow control behind its feature gate, else upstream's plain shedding.

use std::collections::VecDeque;

use forerun_sim::request::{Refusal, Rejection, RequestId};
use forerun_sim::rng::Stream;
use forerun_sim::router::{Admission, Release};
use forerun_sim::time::Time;

use super::config::{Config, Plugin};
use super::flow::admission::{ProbabilisticAdmitter, is_shed, keeps_latency_slo};
use super::flow::saturation::{ConcurrencyDetector, Detector, UtilizationDetector, stages};
use super::flow::{CYCLE, Evictor, FlowConfig, FlowController, Waiting};
use super::plugin::parameters;
use super::{EndpointInfo, EndpointState, RequestView};

/// A plugin that may deny a request when it is scheduled.
enum Admitter {
    Probabilistic(ProbabilisticAdmitter),
    LatencySlo,
}

/// The gate in front of the scheduler.
pub(super) struct Gate {
    detector: Detector,
    stages: Vec<Vec<u32>>,
    flow: Option<FlowController>,
    /// Who makes room for others, where that is enabled.
    evictor: Option<Evictor>,
    /// Those who are to, of the last decision.
    revoked: VecDeque<RequestId>,
    admitters: Vec<Admitter>,
    /// Dispatch cycles that arrivals have asked for.
    cycles_due: u32,
    /// When the last cycle ran.
    last_cycle: Time,
    stream: Stream,
}

impl Gate {
    /// The gate that `config` asks for.
    ///
    /// # Errors
    /// When it names what the simulator does not have, or parameters that are not valid.
    pub(super) fn new(config: &Config, seed: u64) -> Result<Self, String> {
        let flow = if config.flow_control.enabled {
            Some(FlowController::new(FlowConfig::of(config)?))
        } else {
            None
        };
        let admitters = config.plugins.iter().filter_map(|plugin| admitter(plugin).transpose());
        Ok(Self {
            detector: detector(config)?,
            stages: Vec::new(),
            evictor: (flow.is_some() && config.flow_control.enable_eviction).then(Evictor::default),
            revoked: VecDeque::new(),
            flow,
            admitters: admitters.collect::<Result<_, _>>()?,
            cycles_due: 0,
            last_cycle: Time::ZERO,
            stream: Stream::new(seed, "router admission"),
        })
    }

    /// The endpoints, which make the stages of the pool.
    pub(super) fn start(&mut self, infos: &[EndpointInfo]) {
        self.stages = stages(infos.iter().map(|info| &info.labels));
    }

    /// Whether requests may have to wait here.
    pub(super) fn holds(&self) -> bool {
        self.flow.is_some()
    }

    /// The fullest stage's saturation.
    fn saturation(&self, now: Time, endpoints: &[EndpointState]) -> f64 {
        let of = |stage: &Vec<u32>| {
            self.detector.saturation(now, stage.iter().map(|&endpoint| &endpoints[endpoint as usize]))
        };
        self.stages.iter().map(of).fold(0.0, f64::max)
    }

    /// A request arrives.
    pub(super) fn admit(
        &mut self,
        now: Time,
        request: &RequestView<'_>,
        flow_id: &str,
        endpoints: &[EndpointState],
    ) -> Admission {
        let refused = |refusal| Admission::Refuse(Rejection::Router(refusal));
        let saturation =
            if self.flow.is_some() || request.priority < 0 { self.saturation(now, endpoints) } else { 0.0 };
        let Some(flow) = &mut self.flow else {
            return if is_shed(request.priority, saturation) {
                refused(Refusal::Saturated)
            } else {
                Admission::Pass
            };
        };
        if flow.is_empty() {
            let cycles = now.saturating_since(self.last_cycle).as_nanos() / CYCLE.as_nanos();
            flow.idle(now, cycles, saturation);
        }
        let limit = |name| request.header(name).and_then(|value| value.parse::<u64>().ok());
        let waiting = Waiting {
            id: request.id,
            flow: flow_id.to_owned(),
            priority: request.priority,
            bytes: request.prompt_tokens() * BYTES_PER_TOKEN,
            ttl: None,
            ttft_limit: limit("x-llm-d-slo-ttft-ms").map(forerun_sim::time::Span::from_millis),
        };
        match flow.enqueue(now, waiting, !endpoints.is_empty()) {
            Ok(()) => {
                self.cycles_due += 1;
                Admission::Hold
            }
            Err(_) => refused(Refusal::BandFull),
        }
    }

    /// The next request that leaves the queue: overdue ones first, then one for each dispatch cycle that is due; or one
    /// in flight that makes room for those that wait.
    pub(super) fn release(&mut self, now: Time, endpoints: &[EndpointState]) -> Option<Release> {
        let refused = |request, why| Release { request, refused: Some(Rejection::Router(why)) };
        if let Some(request) = self.revoked.pop_front() {
            return Some(refused(request, Refusal::Evicted));
        }
        let saturation = self.flow.is_some().then(|| self.saturation(now, endpoints))?;
        let flow = self.flow.as_mut()?;
        if flow.next_deadline().is_some_and(|deadline| deadline <= now) {
            // One at a time: the rest is still overdue when asked again.
            if let Some(waiting) = flow.expire_first(now) {
                return Some(refused(waiting.id, Refusal::Expired));
            }
        }
        if self.cycles_due == 0 && now >= next_cycle(self.last_cycle) {
            self.cycles_due = 1;
        }
        while self.cycles_due > 0 {
            self.cycles_due -= 1;
            self.last_cycle = now;
            if let Some(waiting) = flow.cycle(now, saturation) {
                flow.dispatched(&waiting.flow);
                return Some(Release { request: waiting.id, refused: None });
            }
            if let Some((evictor, priority)) = self.evictor.as_mut().zip(flow.highest_waiting()) {
                self.revoked.extend(evictor.revoke(now, priority));
            }
        }
        Some(refused(self.revoked.pop_front()?, Refusal::Evicted))
    }

    /// A request was sent to an endpoint.
    pub(super) fn sent(&mut self, now: Time, request: RequestId, priority: i32) {
        if let Some(evictor) = &mut self.evictor {
            evictor.sent(now, request, priority);
        }
    }

    /// A request that was sent has ended.
    pub(super) fn ended(&mut self, request: RequestId) {
        if let Some(evictor) = &mut self.evictor {
            evictor.ended(request);
            self.revoked.retain(|&revoked| revoked != request);
        }
    }

    /// When the queue is to be looked at again: at the next cycle, while something waits.
    pub(super) fn next_release(&self, now: Time) -> Option<Time> {
        self.flow.as_ref().filter(|flow| !flow.is_empty()).map(|_| next_cycle(now))
    }

    /// Whether an admission plugin denies a request that is about to be scheduled.
    pub(super) fn denies(&mut self, request: &RequestView<'_>, endpoints: &[EndpointState]) -> bool {
        let stream = &mut self.stream;
        self.admitters.iter().any(|admitter| match admitter {
            Admitter::Probabilistic(admitter) => {
                let probability = admitter.reject_probability(request.priority, endpoints);
                probability > 0.0 && stream.uniform() < probability
            }
            Admitter::LatencySlo => !keeps_latency_slo(request, endpoints),
        })
    }

    /// A request of `flow_id` that was dispatched has ended.
    pub(super) fn completed(&mut self, now: Time, flow_id: &str, prompt_tokens: u64, output_tokens: u64) {
        if let Some(flow) = &mut self.flow {
            flow.completed(now, flow_id, prompt_tokens, output_tokens);
        }
    }

    /// The client of a request that waits has gone.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(flow) = &mut self.flow {
            flow.remove(request);
        }
    }
}

/// Size of a prompt's token in the body of a request, as llm-d's estimate has it.
const BYTES_PER_TOKEN: u64 = 4;

/// Cycles without arrivals run at whole milliseconds.
fn next_cycle(now: Time) -> Time {
    Time::from_nanos((now.as_nanos() / CYCLE.as_nanos() + 1).saturating_mul(CYCLE.as_nanos()))
}

fn admitter(plugin: &Plugin) -> Result<Option<Admitter>, String> {
    match plugin.kind.as_str() {
        "probabilistic-admitter" => {
            let admitter: ProbabilisticAdmitter =
                parameters(&plugin.parameters).map_err(|reason| plugin.wrong(&reason))?;
            admitter.check().map_err(|error| plugin.wrong(&error.to_string()))?;
            Ok(Some(Admitter::Probabilistic(admitter)))
        }
        "latency-slo-admitter" => Ok(Some(Admitter::LatencySlo)),
        _ => Ok(None),
    }
}

fn detector(config: &Config) -> Result<Detector, String> {
    let Some(plugin) = config.plugin(&config.flow_control.saturation_detector) else {
        return Ok(Detector::default());
    };
    let wrong = |reason: String| plugin.wrong(&reason);
    match plugin.kind.as_str() {
        "concurrency-detector" => {
            parameters::<ConcurrencyDetector>(&plugin.parameters).map(Detector::Concurrency).map_err(wrong)
        }
        "utilization-detector" => {
            parameters::<UtilizationDetector>(&plugin.parameters).map(Detector::Utilization).map_err(wrong)
        }
        _ => Err(plugin.wrong("is no saturation detector")),
    }
}
