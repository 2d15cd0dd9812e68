//! The `router:` of a scenario: a policy by name, or llm-d's endpoint picker from its own file.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use forerun_policies::epp::config::{Config, LoadOptions, Upstream};
use forerun_policies::epp::{EppRouter, Options, ProducerOrder, SCRAPE_MIN, TieRule};
use forerun_policies::{PRESETS, Preset};
use forerun_sim::router::Router;
use forerun_sim::time::Span;
use forerun_workloads::units::Duration;

use crate::error::{InputError, hint};
use crate::scenario::{ProducerOrderSpec, RouterSpec, TieRuleSpec, UpstreamSpec};

/// Largest file that is read: real ones have a few kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most replicas of an endpoint picker: each keeps indexes of its own.
const REPLICAS_MAX: u32 = 64;

/// Longest interval between scrapes: a longer one would be a mistake.
const SCRAPE_MAX: Span = Span::from_secs(3600);

/// Longest delay of KV events: a longer one would be a mistake.
const KV_EVENT_DELAY_MAX: Span = Span::from_secs(60);

/// The routing policy of a run.
#[derive(Clone, Debug)]
pub enum Routing {
    /// One of the catalog.
    Preset(Preset),
    /// One endpoint picker, as llm-d-router 0.10 runs it.
    EndpointPicker {
        /// The path as the scenario has it.
        path: String,
        /// What it says.
        config: Arc<Config>,
    },
    /// Endpoint pickers about which the scenario says more than their file.
    Pickers {
        /// The path as the scenario has it, or the name in the catalog.
        name: String,
        /// What the file says.
        config: Arc<Config>,
        /// What it leaves open; the seed is that of each run.
        options: Options,
        /// How many of them share the requests.
        replicas: u32,
    },
}

impl Routing {
    /// The policy that `spec` names; paths start from `base`.
    ///
    /// # Errors
    /// When there is none of that name, or the file is wrong or asks for what is not simulated.
    pub fn of(spec: Option<&RouterSpec>, base: &Path) -> Result<Self, InputError> {
        let default = RouterSpec::default();
        let spec = spec.unwrap_or(&default);
        let routing = match (&spec.preset, &spec.epp) {
            (Some(_), Some(_)) => {
                return Err(InputError::new(
                    "`router` has both `preset` and `epp`: they exclude each other; keep one",
                ));
            }
            (preset, None) => Self::Preset(preset_of(preset.as_deref().unwrap_or("round-robin"))?),
            (None, Some(path)) => {
                let config = load(&base.join(path), spec)?;
                Self::EndpointPicker { path: path.clone(), config: Arc::new(config) }
            }
        };
        routing.with(spec)
    }

    /// The same with what the scenario says about its pickers.
    fn with(self, spec: &RouterSpec) -> Result<Self, InputError> {
        let given = [
            ("replicas", spec.replicas.is_some()),
            ("tie_rule", spec.tie_rule.is_some()),
            ("producer_order", spec.producer_order.is_some()),
            ("refresh_metrics_interval", spec.refresh_metrics_interval.is_some()),
            ("kv_event_delay", spec.kv_event_delay.is_some()),
        ];
        let Some((key, _)) = given.into_iter().find(|(_, is_given)| *is_given) else { return Ok(self) };
        let name = self.name().to_owned();
        let config = self.config().ok_or_else(|| {
            InputError::new(format!(
                "`router.{key}` belongs to an endpoint picker, and `{name}` is none: remove it, or name `epp` or an llm-d preset"
            ))
        })?;
        let replicas = spec.replicas.unwrap_or(1);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(InputError::new(format!(
                "`router.replicas` is {replicas}: it is a number from 1 to {REPLICAS_MAX}"
            )));
        }
        let scrape = spec.refresh_metrics_interval.map_or(SCRAPE_MIN, |interval| interval.0);
        if !(SCRAPE_MIN..=SCRAPE_MAX).contains(&scrape) {
            return Err(InputError::new(format!(
                "`router.refresh_metrics_interval` is {}: 50ms, below which the endpoint picker does not go, to 1h are possible",
                Duration(scrape)
            )));
        }
        let kv_event_delay = spec.kv_event_delay.map_or(Span::ZERO, |delay| delay.0);
        if kv_event_delay > KV_EVENT_DELAY_MAX {
            return Err(InputError::new(format!(
                "`router.kv_event_delay` is {}: at most 1min is possible",
                Duration(kv_event_delay)
            )));
        }
        let options = Options {
            seed: 0,
            scrape,
            kv_event_delay,
            tie_rule: match spec.tie_rule {
                Some(TieRuleSpec::Rotate) => TieRule::Rotate,
                Some(TieRuleSpec::Shuffle) | None => TieRule::Shuffle,
            },
            producer_order: match spec.producer_order {
                Some(ProducerOrderSpec::InFlightFirst) => ProducerOrder::InFlightFirst,
                Some(ProducerOrderSpec::PrefixFirst) | None => ProducerOrder::PrefixFirst,
            },
        };
        Ok(Self::Pickers { name, config, options, replicas })
    }

    /// The configuration of an endpoint picker.
    fn config(&self) -> Option<Arc<Config>> {
        match self {
            Self::Preset(preset) => preset.endpoint_picker().map(Arc::new),
            Self::EndpointPicker { config, .. } | Self::Pickers { config, .. } => Some(config.clone()),
        }
    }

    /// What a reader calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Preset(preset) => preset.name,
            Self::EndpointPicker { path: name, .. } | Self::Pickers { name, .. } => name,
        }
    }

    /// What was read otherwise than it was written, or left out.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        match self {
            Self::Preset(_) => &[],
            Self::EndpointPicker { config, .. } | Self::Pickers { config, .. } => &config.warnings,
        }
    }

    /// A router of this policy, for a fleet in which some replicas only prefill if it `is_disaggregated`. Random
    /// choices come from a stream of their own: they never move the arrivals.
    #[must_use]
    pub fn router(&self, seed: u64, is_disaggregated: bool) -> Box<dyn Router> {
        match self {
            Self::Preset(preset) if is_disaggregated => preset.disaggregated_router(seed),
            Self::Preset(preset) => preset.router(seed),
            Self::EndpointPicker { config, .. } => Box::new(pickers(config, Options::default(), 1, seed)),
            Self::Pickers { config, options, replicas, .. } => {
                Box::new(pickers(config, *options, *replicas, seed))
            }
        }
    }

    /// The policy as an endpoint picker, if it is one.
    #[must_use]
    pub fn endpoint_picker(&self, seed: u64) -> Option<EppRouter> {
        let (options, replicas) = match self {
            Self::Pickers { options, replicas, .. } => (*options, *replicas),
            _ => (Options::default(), 1),
        };
        Some(pickers(&self.config()?, options, replicas, seed))
    }
}

/// Endpoint pickers of a configuration that was tried when it was read.
fn pickers(config: &Arc<Config>, options: Options, replicas: u32, seed: u64) -> EppRouter {
    let router = EppRouter::new(config.clone(), Options { seed, ..options });
    router.expect("it was made when it was read").with_replicas(replicas)
}

fn preset_of(name: &str) -> Result<Preset, InputError> {
    Preset::find(name).ok_or_else(|| {
        let known = PRESETS.map(|preset| preset.name);
        InputError::new(format!(
            "`router.preset: {name}` is not a policy of this version{}; known: {}; an EndpointPickerConfig is named by `router.epp`",
            hint(name, known),
            known.join(", ")
        ))
    })
}

/// Reads an EndpointPickerConfig, and makes sure that it can be simulated.
pub(crate) fn load(path: &Path, spec: &RouterSpec) -> Result<Config, InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
    let size = fs::metadata(path).map_err(|e| wrong(format!("cannot be read: {e}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("has {size} bytes: an EndpointPickerConfig has at most 1 MiB")));
    }
    let text = fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let options = LoadOptions {
        upstream: match spec.upstream {
            Some(UpstreamSpec::Lenient) => Upstream::Lenient,
            Some(UpstreamSpec::V0_10) | None => Upstream::V0_10,
        },
        allow_unsimulated: spec.allow_unsimulated.unwrap_or(false),
        allow_experimental: spec.allow_experimental.unwrap_or(false),
    };
    let config = Config::load(&text, options).map_err(|e| wrong(e.to_string()))?;
    EppRouter::new(Arc::new(config.clone()), Options::default()).map_err(wrong)?;
    Ok(config)
}
