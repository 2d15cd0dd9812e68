//! What the router decides: one policy per file, and the registry that makes them by name.

mod disaggregated;
pub mod epp;
mod least_requests;
mod random;
mod round_robin;
mod turns;

pub use disaggregated::Disaggregated;
pub use least_requests::LeastRequests;
pub use random::Random;
pub use round_robin::RoundRobin;

use std::sync::Arc;

use epp::config::{Config, LoadOptions};
use epp::{EppRouter, Options};
use forerun_sim::router::Router;

/// A policy that scenarios can name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    kind: Kind,
}

/// What a preset is made of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A policy of this crate.
    Plain(fn(seed: u64) -> Box<dyn Router>),
    /// llm-d's endpoint picker with this configuration.
    EndpointPicker(&'static str),
}

/// All policies. A new one is a file of its own and a line here.
pub const PRESETS: [Preset; 5] = [
    Preset {
        name: "round-robin",
        about: "each replica in turn",
        kind: Kind::Plain(|_| Box::<RoundRobin>::default()),
    },
    Preset {
        name: "random",
        about: "any replica, uniformly",
        kind: Kind::Plain(|seed| Box::new(Random::new(seed))),
    },
    Preset {
        name: "least-requests",
        about: "the replica with the fewest requests in flight; equals in turn",
        kind: Kind::Plain(|_| Box::<LeastRequests>::default()),
    },
    Preset {
        name: "llm-d-default",
        about: "llm-d's endpoint picker without a file: queue 2, KV usage 2, approximate prefixes 3",
        kind: Kind::EndpointPicker(""),
    },
    Preset {
        name: "llm-d-precise",
        about: "llm-d's endpoint picker with an exact index of KV blocks: KV usage 2, queue 2, prefixes 3, cold prompts 2",
        kind: Kind::EndpointPicker(include_str!("../presets/llm-d-precise.yaml")),
    },
];

impl Preset {
    /// The policy of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        PRESETS.into_iter().find(|preset| preset.name == name)
    }

    /// A router of this policy. Random choices come from a stream of their own: they never move the arrivals.
    #[must_use]
    pub fn router(self, seed: u64) -> Box<dyn Router> {
        match self.kind {
            Kind::Plain(make) => make(seed),
            Kind::EndpointPicker(text) => {
                let config = Config::load(text, LoadOptions::default()).expect("a preset loads");
                let options = Options { seed, ..Options::default() };
                Box::new(EppRouter::new(Arc::new(config), options).expect("a preset is simulated"))
            }
        }
    }

    /// The policy's router for a fleet in which some replicas only prefill for others.
    #[must_use]
    pub fn disaggregated_router(self, seed: u64) -> Box<dyn Router> {
        /// Random choices of the two are independent.
        const PREFILL: u64 = u64::from_be_bytes(*b"prefills");
        match self.kind {
            Kind::Plain(make) => Box::new(Disaggregated::new(make(seed), make(seed ^ PREFILL))),
            // An endpoint picker knows the roles by itself.
            Kind::EndpointPicker(_) => self.router(seed),
        }
    }

    /// The configuration of the endpoint picker that the policy is, if it is one.
    ///
    /// # Panics
    /// Never: presets load.
    #[must_use]
    pub fn endpoint_picker(self) -> Option<Config> {
        match self.kind {
            Kind::Plain(_) => None,
            Kind::EndpointPicker(text) => {
                Some(Config::load(text, LoadOptions::default()).expect("a preset loads"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::cost::{CostModel, Prepared, StepShape};
    use forerun_sim::prompt::{Content, Prompt};
    use forerun_sim::request::{Label, ReplicaId, Request, RequestId, Stop};
    use forerun_sim::router::{Admission, Caches, Endpoint, EndpointInfo, Metrics, View};
    use forerun_sim::time::Time;
    use std::collections::BTreeMap;

    /// Steps of a fixed time.
    #[derive(Debug)]
    struct Steady;

    impl CostModel for Steady {
        fn prepare(&self, _: &StepShape) -> Prepared {
            Prepared { fixed_ns: 1e6, ..Prepared::default() }
        }
    }

    fn info(replica: ReplicaId) -> EndpointInfo {
        EndpointInfo {
            replica,
            name: format!("pod-{}", replica.0),
            model: 0,
            labels: BTreeMap::new(),
            role: forerun_sim::fleet::Role::Both,
            block_tokens: 16,
            num_gpu_blocks: 1000,
            max_loras: 1,
            cost: Arc::new(Steady),
        }
    }

    /// Replicas whose caches hold nothing.
    struct NoCaches;

    impl Caches for NoCaches {
        fn cached_tokens(&mut self, _: usize) -> u32 {
            0
        }
    }

    /// The choices of a policy for `count` requests over replicas with these requests in flight; what it
    /// chooses is added to them.
    pub(crate) fn choices(router: &mut dyn Router, in_flight: &[u32], count: usize) -> Vec<usize> {
        let endpoint = |(index, &in_flight): (usize, &u32)| Endpoint {
            replica: ReplicaId(index as u32),
            ready: true,
            in_flight,
            metrics: Metrics::default(),
        };
        let mut endpoints: Vec<_> = in_flight.iter().enumerate().map(endpoint).collect();
        let request = Request {
            id: RequestId(0),
            name: None,
            arrival: Time::ZERO,
            prompt: Prompt::of(Content::private(0), 1),
            output: Content::generated(0),
            output_tokens: 1,
            stop: Stop::Length,
            max_tokens: None,
            priority: 0,
            tenant: Label::NONE,
            class: Label::NONE,
            model: Label::NONE,
            adapter: Label::NONE,
            session: None,
        };
        router.start(&endpoints.iter().map(|endpoint| info(endpoint.replica)).collect::<Vec<_>>());
        let mut choose = || {
            assert!(matches!(router.admit(Time::ZERO, &request, &endpoints), Admission::Pass));
            let mut view = View { endpoints: &endpoints, adapters: &[], caches: &mut NoCaches };
            let choice = router.place(Time::ZERO, &request, &mut view).expect("a replica").endpoint;
            endpoints[choice].in_flight += 1;
            choice
        };
        (0..count).map(|_| choose()).collect()
    }

    #[test]
    fn every_policy_is_found_by_its_name_and_chooses_an_endpoint() {
        for preset in PRESETS {
            let mut router = Preset::find(preset.name).expect("its own name").router(1);
            assert!(
                choices(router.as_mut(), &[0, 5, 2], 20).iter().all(|&choice| choice < 3),
                "{}",
                preset.name
            );
        }
        assert!(Preset::find("nonsense").is_none());
    }
}
