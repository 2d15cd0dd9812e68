//! Session affinity: which endpoint a session is bound to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forerun_sim::time::{Span, Time};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::Value;

use super::plugin::{Context, Dispatch, Names, Notes, parameters};
use super::{EndpointInfo, RequestView};

/// Parameters of the session affinity scorer and filter.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// `encoded_endpoint_header` (default) or `session_id`.
    strategy: String,
    encoded_endpoint_header_config: HeaderConfig,
    session_id_config: SessionIdConfig,
    /// With `session_id`: the profile whose pick is bound; empty for the primary one.
    profile_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct HeaderConfig {
    /// Default `x-session-token`.
    header: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct SessionIdConfig {
    /// Where the session's id stands; the first that is not blank. Default: the header `x-session-id`.
    sources: Vec<Source>,
    /// How long a binding lives unused; 0 stands for 300 s.
    eviction_ttl_seconds: f64,
    /// How often expired bindings are swept; 0 stands for 10 s.
    eviction_sweep_seconds: f64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Source {
    header: String,
    attribute: String,
}

/// The endpoint of a session, by one of two strategies.
///
/// - `encoded_endpoint_header`: the client sends back the token that its last answer carried, the base64 of
///   "namespace/pod".
/// - `session_id`: the first pick for an id binds it. A binding moves only when its endpoint was no candidate.
///   Bindings that were unused for longer than the TTL are dropped by a periodic sweep.
///
/// Source: llm-d-router util/sessionaffinity.
pub(super) enum Affinity {
    /// The token names the pod.
    Token {
        /// The header, in lower case.
        header: String,
        /// Pods by number, as "namespace/pod".
        pods: Vec<String>,
    },
    /// The router remembers.
    Bindings(Bindings),
}

/// Bindings of session ids to endpoints.
pub(super) struct Bindings {
    headers: Vec<String>,
    /// The profile whose pick is bound; `None` is the primary one.
    profile: Option<usize>,
    ttl: Span,
    sweep_interval: Span,
    next_sweep: Time,
    bound: FxHashMap<Box<str>, Binding>,
}

struct Binding {
    endpoint: u32,
    last_seen: Time,
}

impl Affinity {
    pub(super) fn new(slot: &str, value: &Value, names: &Names) -> Result<Self, String> {
        let wrong =
            |reason: String| format!("invalid parameters of the 'session-affinity-{slot}' {slot} - {reason}");
        let parameters: Parameters = parameters(value)?;
        let config = parameters.session_id_config;
        for (place, source) in config.sources.iter().enumerate() {
            if source.header.is_empty() == source.attribute.is_empty() {
                return Err(wrong(format!(
                    "sources[{place}]: exactly one of header or attribute must be set"
                )));
            }
        }
        let seconds = |name: &str, value: f64, default: f64| {
            if value < 0.0 || !value.is_finite() {
                return Err(wrong(format!("{name} must be > 0, got {value}")));
            }
            let seconds = if value == 0.0 { default } else { value };
            Span::from_secs_f64(seconds).ok_or_else(|| wrong(format!("{name} is too long: {value} s")))
        };
        let ttl = seconds("evictionTtlSeconds", config.eviction_ttl_seconds, 300.0)?;
        let sweep_interval = seconds("evictionSweepSeconds", config.eviction_sweep_seconds, 10.0)?;
        match parameters.strategy.as_str() {
            "" | "encoded_endpoint_header" => {
                let header =
                    header_name(&parameters.encoded_endpoint_header_config.header, "x-session-token");
                Ok(Self::Token { header, pods: Vec::new() })
            }
            "session_id" => {
                let headers = config.sources.iter().filter(|source| !source.header.is_empty());
                let mut headers: Vec<_> = headers.map(|source| header_name(&source.header, "")).collect();
                if config.sources.is_empty() {
                    headers.push("x-session-id".to_owned());
                }
                let profile = match parameters.profile_name.as_str() {
                    "" => None,
                    // A profile that does not exist is never picked for: nothing is ever bound.
                    name => Some(names.profile(name).unwrap_or(usize::MAX)),
                };
                Ok(Self::Bindings(Bindings {
                    headers,
                    profile,
                    ttl,
                    sweep_interval,
                    next_sweep: Time::ZERO + sweep_interval,
                    bound: FxHashMap::default(),
                }))
            }
            other => Err(wrong(format!(
                "strategy must be \"encoded_endpoint_header\" or \"session_id\", got {other:?}"
            ))),
        }
    }

    pub(super) fn add_endpoint(&mut self, info: &EndpointInfo) {
        if let Self::Token { pods, .. } = self {
            pods.push(format!("{}/{}", info.namespace, info.name));
        }
    }

    /// The endpoint that the request's session is bound to, if it is among `candidates`.
    pub(super) fn bound(
        &mut self,
        context: &Context<'_>,
        candidates: &[u32],
        notes: &mut Notes,
    ) -> Option<u32> {
        match self {
            Self::Token { header, pods } => {
                let pod = decode_token(context.request.header(header)?)?;
                candidates.iter().copied().find(|&endpoint| pods[endpoint as usize] == pod)
            }
            Self::Bindings(bindings) => {
                bindings.sweep(context.now);
                let endpoint = bindings.bound.get(bindings.session(context.request)?)?.endpoint;
                notes.bound_absent = !candidates.contains(&endpoint);
                (!notes.bound_absent).then_some(endpoint)
            }
        }
    }

    /// Binds the session to what was picked for it.
    pub(super) fn bind(&mut self, dispatch: &Dispatch<'_>) {
        let Self::Bindings(bindings) = self else { return };
        let picked = match bindings.profile {
            None => Some(dispatch.primary),
            Some(profile) => dispatch.picks.get(profile).copied().flatten(),
        };
        let (Some(session), Some(endpoint)) = (bindings.session(dispatch.request), picked) else { return };
        let fresh = Binding { endpoint, last_seen: dispatch.now };
        match bindings.bound.get_mut(session) {
            None => {
                bindings.bound.insert(session.into(), fresh);
            }
            Some(binding) if binding.endpoint == endpoint || dispatch.notes.bound_absent => *binding = fresh,
            Some(_) => {}
        }
    }
}

impl Bindings {
    /// The session's id in the first header that is not blank.
    fn session<'a>(&self, request: &RequestView<'a>) -> Option<&'a str> {
        self.headers
            .iter()
            .find_map(|header| request.header(header).map(str::trim).filter(|id| !id.is_empty()))
    }

    fn sweep(&mut self, now: Time) {
        if now < self.next_sweep {
            return;
        }
        // The last tick before now: what had expired by then is gone.
        let ticks = now.as_nanos() / self.sweep_interval.as_nanos().max(1);
        let tick = Time::from_nanos(ticks * self.sweep_interval.as_nanos().max(1));
        let ttl = self.ttl;
        self.bound.retain(|_, binding| binding.last_seen + ttl >= tick);
        self.next_sweep = tick + self.sweep_interval;
    }
}

fn header_name(name: &str, default: &str) -> String {
    match name.trim() {
        "" => default.to_owned(),
        name => name.to_lowercase(),
    }
}

/// The pod in a session token: base64 (RFC 4648, padded) of "namespace/pod".
fn decode_token(token: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(token).ok()?).ok()
}

/// The session token of a pod.
pub(super) fn encode_token(namespace: &str, pod: &str) -> String {
    STANDARD.encode(format!("{namespace}/{pod}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epp::plugin::testing::Scene;
    use serde_json::json;

    fn dispatch(affinity: &mut Affinity, scene: &Scene, primary: u32, notes: Notes) {
        scene.with(|context| {
            affinity.bind(&Dispatch {
                now: context.now,
                request: context.request,
                primary,
                prefill: None,
                picks: &[Some(primary)],
                notes,
            });
        });
    }

    fn bound(affinity: &mut Affinity, scene: &Scene, candidates: &[u32]) -> (Option<u32>, Notes) {
        let mut notes = Notes::default();
        (scene.with(|context| affinity.bound(context, candidates, &mut notes)), notes)
    }

    #[test]
    fn a_token_names_its_pod() {
        let mut affinity = Affinity::new("scorer", &Value::Null, &Names::default()).unwrap();
        for name in ["p0", "p1"] {
            let (namespace, name) = ("ns".to_owned(), name.to_owned());
            affinity.add_endpoint(&EndpointInfo { namespace, name, ..EndpointInfo::default() });
        }
        let mut scene = Scene::of(&[(), ()], |_, ()| ());
        let cases = [
            ("bnMvcDE=", Some(1)),  // ns/p1
            ("bnMvcDA=", Some(0)),  // ns/p0
            ("cDE=", None),         // p1
            ("b3RoZXIvcDA=", None), // other/p0
            ("bnMvcDE", None),      // padding is missing
            ("!!!!", None),
            ("", None),
        ];
        for (token, endpoint) in cases {
            scene.headers = vec![("x-session-token", token)];
            assert_eq!(bound(&mut affinity, &scene, &[0, 1]).0, endpoint, "{token}");
        }
    }

    #[test]
    fn a_binding_moves_only_when_its_endpoint_was_absent_and_dies_unused() {
        let parameters = json!({"strategy": "session_id"});
        let mut affinity = Affinity::new("scorer", &parameters, &Names::default()).unwrap();
        let mut scene = Scene::of(&[(); 3], |_, ()| ());
        scene.headers = vec![("x-session-id", " s ")];
        assert_eq!(bound(&mut affinity, &scene, &[0, 1, 2]).0, None);
        dispatch(&mut affinity, &scene, 1, Notes::default());
        assert_eq!(bound(&mut affinity, &scene, &[0, 1, 2]).0, Some(1));
        dispatch(&mut affinity, &scene, 2, Notes::default());
        assert_eq!(bound(&mut affinity, &scene, &[0, 1, 2]).0, Some(1), "the picker chose another");
        let (none, notes) = bound(&mut affinity, &scene, &[0, 2]);
        assert_eq!((none, notes.bound_absent), (None, true));
        dispatch(&mut affinity, &scene, 2, notes);
        assert_eq!(bound(&mut affinity, &scene, &[0, 1, 2]).0, Some(2));
        scene.now = Time::ZERO + Span::from_secs(300);
        assert_eq!(bound(&mut affinity, &scene, &[0, 1, 2]).0, Some(2));
        scene.now = Time::ZERO + Span::from_secs(310);
        assert_eq!(bound(&mut affinity, &scene, &[0, 1, 2]).0, None, "unused for longer than 300 s");
    }

    #[test]
    fn wrong_parameters_are_named() {
        let error = |value| Affinity::new("scorer", &value, &Names::default()).err().unwrap();
        assert!(error(json!({"strategy": "foo"})).contains("got \"foo\""));
        assert!(error(json!({"sessionIdConfig": {"sources": [{}]}})).contains("sources[0]"));
        assert!(error(json!({"sessionIdConfig": {"evictionTtlSeconds": -1}})).contains("got -1"));
    }
}
