//! What plugins see and say: the interfaces of filters, scorers and pickers, and the names they refer to.

use forerun_sim::time::Time;
use serde::de::DeserializeOwned;
use serde_json::Value;
use smallvec::SmallVec;

use super::prefix::PrefixMatch;
use super::{EndpointInfo, EndpointState, RequestView, Topology};

/// What a plugin may look at while one request is scheduled.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The instant of the decision.
    pub now: Time,
    /// The request.
    pub request: &'a RequestView<'a>,
    /// All endpoints, by number.
    pub endpoints: &'a [EndpointState],
    /// Prefix matches: by the producer's slot, then by endpoint.
    pub matches: &'a [Vec<Option<PrefixMatch>>],
    /// Where the endpoint is that an earlier profile picked for this request.
    pub peer_topology: Option<Topology>,
}

impl Context<'_> {
    /// The match that the producer of `slot` published for `endpoint`.
    #[must_use]
    pub fn prefix(&self, slot: usize, endpoint: u32) -> Option<PrefixMatch> {
        self.matches.get(slot).and_then(|matches| matches.get(endpoint as usize).copied().flatten())
    }

    /// One endpoint.
    #[must_use]
    pub fn endpoint(&self, endpoint: u32) -> &EndpointState {
        &self.endpoints[endpoint as usize]
    }
}

/// What plugins note while a request is scheduled, for their own hook after the pick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// No endpoint held any of the prompt: noted by the no-hit-lru scorer; the last profile run decides.
    pub cold: bool,
    /// The endpoint that the session is bound to was not among the candidates.
    pub bound_absent: bool,
}

/// The picks of one request: by profile, in the order of the configuration.
pub type Picks = SmallVec<[Option<u32>; 3]>;

/// A request on its way to the endpoints that were picked for it.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch<'a> {
    /// When.
    pub now: Time,
    /// The request.
    pub request: &'a RequestView<'a>,
    /// The endpoint that answers the client.
    pub primary: u32,
    /// The pick of the profile named "prefill", if it ran.
    pub prefill: Option<u32>,
    /// All picks, by profile.
    pub picks: &'a [Option<u32>],
    /// What the plugins noted while they scheduled it.
    pub notes: Notes,
}

/// Drops the endpoints that must not serve a request.
pub trait Filter: Send {
    /// A new endpoint: the next number. What depends on its labels alone is decided here.
    fn add_endpoint(&mut self, _info: &EndpointInfo) {}

    /// Keeps some of `candidates`, in the order in which upstream returns them.
    fn filter(&mut self, context: &Context<'_>, candidates: &mut Vec<u32>, notes: &mut Notes);

    /// The picks are made.
    fn pre_request(&mut self, _dispatch: &Dispatch<'_>) {}
}

/// Rates endpoints. Upstream clamps what it says to 0..1 before it weighs it.
pub trait Scorer: Send {
    /// A new endpoint: the next number. What depends on its labels alone is decided here.
    fn add_endpoint(&mut self, _info: &EndpointInfo) {}

    /// Writes the score of each candidate, in their order. `scores` comes with their number of zeros.
    fn score(&mut self, context: &Context<'_>, candidates: &[u32], scores: &mut [f64], notes: &mut Notes);

    /// The picks are made.
    fn pre_request(&mut self, _dispatch: &Dispatch<'_>) {}
}

/// Chooses among scored candidates.
pub trait Picker: Send {
    /// Appends the chosen endpoints to `picked`, the best first; at least one of a nonempty list.
    fn pick(&mut self, candidates: &[u32], totals: &[f64], picked: &mut Vec<u32>);
}

/// The names that parameters refer to, each with a slot of its own. Names are turned into slots once, when a
/// configuration is built: no decision compares text.
#[derive(Clone, Debug, Default)]
pub struct Names {
    producers: Vec<String>,
    attributes: Vec<String>,
    profiles: Vec<String>,
}

/// The approximate producer's default name: what consumers read unless they are told otherwise.
pub const DEFAULT_PREFIX_PRODUCER: &str = "approx-prefix-cache-producer";

impl Names {
    /// Names of a configuration with these scheduling profiles.
    #[must_use]
    pub fn new(profiles: Vec<String>) -> Self {
        Self { profiles, ..Self::default() }
    }

    /// The slot of a prefix producer's matches; an empty name stands for the default producer.
    pub fn producer(&mut self, name: &str) -> usize {
        slot(&mut self.producers, if name.is_empty() { DEFAULT_PREFIX_PRODUCER } else { name })
    }

    /// The slot of a custom metric in [`EndpointState::attributes`].
    pub fn attribute(&mut self, name: &str) -> usize {
        slot(&mut self.attributes, name)
    }

    /// The place of a scheduling profile.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<usize> {
        self.profiles.iter().position(|profile| profile == name)
    }

    /// All prefix producers that are referred to, by slot.
    #[must_use]
    pub fn producers(&self) -> &[String] {
        &self.producers
    }

    /// All custom metrics that are referred to, by slot.
    #[must_use]
    pub fn attributes(&self) -> &[String] {
        &self.attributes
    }
}

fn slot(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// The parameters of a plugin from its part of the configuration; absent ones are the defaults.
///
/// # Errors
/// When a field is unknown or of another type.
pub(super) fn parameters<P: DeserializeOwned + Default>(value: &Value) -> Result<P, String> {
    match value {
        Value::Null => Ok(P::default()),
        value => P::deserialize(value).map_err(|error| error.to_string()),
    }
}

/// Minimum and maximum of what is not empty.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

#[cfg(test)]
pub(super) mod testing {
    //! A context made by hand, for the tests of one plugin.

    use super::*;
    use forerun_sim::prompt::{Content, Prompt};
    use forerun_sim::request::{Label, RequestId};

    /// Endpoints and a request.
    #[derive(Default)]
    pub(crate) struct Scene {
        pub(crate) endpoints: Vec<EndpointState>,
        pub(crate) infos: Vec<EndpointInfo>,
        pub(crate) matches: Vec<Vec<Option<PrefixMatch>>>,
        pub(crate) peer_topology: Option<Topology>,
        pub(crate) prompt: Prompt,
        pub(crate) model: Option<Label>,
        pub(crate) headers: Vec<(&'static str, &'static str)>,
        pub(crate) now: Time,
    }

    impl Scene {
        /// Endpoints that each differ by what `change` does with a value.
        pub(crate) fn of<T: Copy>(values: &[T], change: impl Fn(&mut EndpointState, T)) -> Self {
            let endpoint = |&value: &T| {
                let mut state = EndpointState { scraped_at: Some(Time::ZERO), ..EndpointState::default() };
                change(&mut state, value);
                state
            };
            Self { endpoints: values.iter().map(endpoint).collect(), ..Self::default() }
        }

        /// Endpoints with these labels, `key` each with its value.
        pub(crate) fn labelled(key: &str, values: &[Option<&str>]) -> Self {
            let info = |value: &Option<&str>| EndpointInfo {
                labels: value.iter().map(|value| (key.to_owned(), (*value).to_owned())).collect(),
                ..EndpointInfo::default()
            };
            let mut scene = Self::of(values, |_, _| ());
            scene.infos = values.iter().map(info).collect();
            scene
        }

        /// A prompt of so many tokens.
        pub(crate) fn tokens(mut self, tokens: u32) -> Self {
            self.prompt = Prompt::of(Content::private(0), tokens);
            self
        }

        pub(crate) fn with<R>(&self, look: impl FnOnce(&Context<'_>) -> R) -> R {
            let request = RequestView {
                id: RequestId(0),
                model: self.model.unwrap_or(Label::NONE),
                prompt: &self.prompt,
                max_tokens: None,
                priority: 0,
                headers: &self.headers,
            };
            look(&Context {
                now: self.now,
                request: &request,
                endpoints: &self.endpoints,
                matches: &self.matches,
                peer_topology: self.peer_topology,
            })
        }

        /// The scores that the plugin `kind` gives to all endpoints.
        pub(crate) fn scores(&self, kind: &str, parameters: &Value) -> Vec<f64> {
            let mut names = Names::default();
            let mut scorer = super::super::scorers::make(kind, parameters, &mut names).unwrap().unwrap();
            self.infos.iter().for_each(|info| scorer.add_endpoint(info));
            let candidates: Vec<u32> = (0..self.endpoints.len() as u32).collect();
            let mut scores = vec![0.0; candidates.len()];
            self.with(|context| scorer.score(context, &candidates, &mut scores, &mut Notes::default()));
            scores
        }

        /// The endpoints that the plugin `kind` keeps of all.
        pub(crate) fn kept(&self, kind: &str, parameters: &Value) -> Vec<u32> {
            let mut names = Names::default();
            let mut filter = super::super::filters::make(kind, parameters, &mut names, 1).unwrap().unwrap();
            self.infos.iter().for_each(|info| filter.add_endpoint(info));
            let mut candidates: Vec<u32> = (0..self.endpoints.len() as u32).collect();
            self.with(|context| filter.filter(context, &mut candidates, &mut Notes::default()));
            candidates
        }
    }
}
