//! Requests drawn from laws: an endless stream in constant memory.
//!
//! Each thing that is drawn has a stream of its own, so that changing one law never moves what the others
//! give: two runs that differ in their output lengths have the same arrivals and the same prompts.

use std::path::Path;
use std::sync::Arc;

use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::request::{Label, Labels};
use forerun_sim::rng::Stream;
use forerun_sim::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arrival::{Arrival, Arrivals, Process};
use crate::choice::Choice;
use crate::error::WorkloadError;
use crate::law::{Law, Tokens};
use crate::record::{Record, Records, SessionTurn, Start, TOKENS_MAX};
use crate::sampler::Sampler;
use crate::sessions::{Conversation, SessionLaw, SessionStreams, Sessions, question};

/// A workload drawn from laws. A law may stand wherever a number does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticSpec {
    /// When requests arrive; with `sessions`, when their first turns do.
    pub arrival: Arrival,
    /// Length of a prompt; with `shared_prefix`, of what follows the prefix.
    pub input_tokens: Law<Tokens>,
    /// Length of an answer.
    pub output_tokens: Law<Tokens>,
    /// System prompts that many requests begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_prefix: Option<SharedPrefix>,
    /// Conversations of several turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
    /// LoRA adapters that requests ask for: `adapter-0` is the most popular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapters: Option<Popularity>,
    /// Tenants that send the requests: `tenant-0` sends the most. With `shared_prefix`, each group is a
    /// tenant instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Popularity>,
}

/// System prompts: each group of users has one, and is a tenant, `tenant-<group>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedPrefix {
    /// How many different prefixes.
    pub groups: u32,
    /// Length of a prefix, drawn once per group.
    pub tokens: Law<Tokens>,
    /// Users of each group, as benchmark profiles state them. Every question is new to its request, so the
    /// number of users changes no prompt.
    #[serde(default = "one_user")]
    pub users_per_group: u32,
    /// Zipf exponent of the groups' popularity; 0 makes all alike.
    #[serde(default)]
    pub zipf: f64,
}

fn one_user() -> u32 {
    1
}

/// So many things, of unequal popularity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Popularity {
    /// How many there are.
    pub count: u32,
    /// Zipf exponent of their popularity; 0 makes all alike.
    #[serde(default)]
    pub zipf: f64,
}

impl Popularity {
    fn choice(&self, field: &str) -> Result<Choice, WorkloadError> {
        Choice::zipf(self.count, self.zipf).map_err(|what| WorkloadError::Spec(format!("`{field}`: {what}")))
    }
}

/// A checked synthetic workload, ready to be generated. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Synthetic(Arc<Laws>);

#[derive(Debug)]
struct Laws {
    arrival: Process,
    input: Sampler<Tokens>,
    output: Sampler<Tokens>,
    prefix: Option<(Choice, Sampler<Tokens>)>,
    sessions: Option<SessionLaw>,
    adapters: Option<Choice>,
    tenants: Option<Choice>,
}

impl SyntheticSpec {
    /// Checks the workload; files of laws are relative to `base`.
    ///
    /// # Errors
    /// When a law is impossible, or parts contradict each other.
    pub fn check(&self, base: &Path) -> Result<Synthetic, WorkloadError> {
        let wrong = |what: &str| Err(WorkloadError::Spec(what.into()));
        if self.shared_prefix.is_some() && self.tenants.is_some() {
            return wrong(
                "`tenants` and `shared_prefix` both name tenants (each prefix group is one): keep one",
            );
        }
        let input = self.input_tokens.sampler("input_tokens", base)?;
        let prefix = match &self.shared_prefix {
            Some(prefix) if prefix.users_per_group == 0 => {
                return wrong("`shared_prefix.users_per_group` is 0: a group has at least one user");
            }
            Some(prefix) => {
                let popularity = Popularity { count: prefix.groups, zipf: prefix.zipf };
                let choice = popularity.choice("shared_prefix.groups")?;
                Some((choice, prefix.tokens.sampler("shared_prefix.tokens", base)?))
            }
            None => None,
        };
        let sessions = self.sessions.as_ref();
        let popularity = |field: &str, value: &Option<Popularity>| {
            value.as_ref().map(|popularity| popularity.choice(field)).transpose()
        };
        Ok(Synthetic(Arc::new(Laws {
            arrival: self.arrival.process(base)?,
            sessions: sessions.map(|spec| SessionLaw::new(spec, &input, base)).transpose()?,
            output: self.output_tokens.sampler("output_tokens", base)?,
            adapters: popularity("adapters", &self.adapters)?,
            tenants: popularity("tenants", &self.tenants)?,
            input,
            prefix,
        })))
    }
}

impl Synthetic {
    /// The endless stream of run `seed`. With `rate`, so many *requests* arrive per second on average:
    /// sessions count once per turn.
    ///
    /// # Errors
    /// When `rate` is impossible, or the law of turns has no mean to divide it by.
    pub fn records(&self, seed: u64, rate: Option<f64>) -> Result<Generator, WorkloadError> {
        let laws = &self.0;
        let arrivals = match rate {
            Some(rate) => Some(rate / self.mean_turns()?),
            None => None,
        };
        let prefix_tokens = match &laws.prefix {
            Some((choice, tokens)) => {
                let mut stream = Stream::new(seed, "prefix lengths");
                (0..choice.count()).map(|_| tokens.draw(&mut stream)).collect()
            }
            None => Vec::new(),
        };
        Ok(Generator {
            arrivals: laws.arrival.start(seed, arrivals)?,
            laws: laws.clone(),
            prefix_tokens,
            streams: Streams::new(seed),
            open: None,
            records: 0,
            sessions: 0,
        })
    }

    /// Mean requests per second as specified, every turn counted; `None` when turns have no finite mean.
    #[must_use]
    pub fn mean_rate(&self) -> Option<f64> {
        Some(self.0.arrival.mean_rate() * self.mean_turns().ok()?)
    }

    /// Mean prompt length of first turns, shared prefix included.
    #[must_use]
    pub fn mean_input_tokens(&self) -> f64 {
        let prefix = self.0.prefix.as_ref().map_or(0.0, |(_, tokens)| tokens.mean());
        self.0.input.mean() + prefix
    }

    /// Mean answer length.
    #[must_use]
    pub fn mean_output_tokens(&self) -> f64 {
        self.0.output.mean()
    }

    /// Whether requests belong to sessions.
    #[must_use]
    pub fn has_sessions(&self) -> bool {
        self.0.sessions.is_some()
    }

    fn mean_turns(&self) -> Result<f64, WorkloadError> {
        let endless = || {
            let what = "`rate` counts requests, but this law of turns has no finite mean: give `beta_geometric` \
                        an alpha above 1, or set the rate in `arrival`";
            WorkloadError::Spec(what.into())
        };
        match &self.0.sessions {
            Some(sessions) => sessions.mean_turns().ok_or_else(endless),
            None => Ok(1.0),
        }
    }
}

/// One stream for each thing that is drawn for a first turn.
#[derive(Clone, Debug)]
struct Streams {
    input: Stream,
    output: Stream,
    prefixes: Stream,
    adapters: Stream,
    tenants: Stream,
    session: SessionStreams,
}

impl Streams {
    fn new(seed: u64) -> Self {
        Self {
            input: Stream::new(seed, "input lengths"),
            output: Stream::new(seed, "output lengths"),
            prefixes: Stream::new(seed, "prefixes"),
            adapters: Stream::new(seed, "adapters"),
            tenants: Stream::new(seed, "tenants"),
            session: SessionStreams::new(seed),
        }
    }
}

/// A running synthetic workload: endless, until simulated time itself ends.
#[derive(Debug)]
pub struct Generator {
    laws: Arc<Laws>,
    arrivals: Arrivals,
    prefix_tokens: Vec<u32>,
    streams: Streams,
    open: Option<Open>,
    records: u64,
    sessions: u64,
}

/// The conversation whose turns are being emitted.
#[derive(Debug)]
struct Open {
    conversation: Conversation,
    session: u64,
    tenant: Label,
    adapter: Label,
}

impl Records for Generator {
    fn next(&mut self, labels: &mut Labels) -> Result<Option<Record>, WorkloadError> {
        if let Some(turn) = self.next_turn() {
            return Ok(Some(turn));
        }
        Ok(self.arrivals.next().map(|at| self.first_turn(at, labels)))
    }
}

impl Generator {
    fn first_turn(&mut self, at: Time, labels: &mut Labels) -> Record {
        let (laws, streams) = (self.laws.clone(), &mut self.streams);
        let number = self.records;
        self.records += 1;
        let mut prompt = Prompt::new();
        let mut tenant = Label::NONE;
        if let Some((choice, _)) = &laws.prefix {
            let group = choice.draw(&mut streams.prefixes);
            prompt.push(Content::shared(group as u64), self.prefix_tokens[group]);
            tenant = labels.intern(&format!("tenant-{group}"));
        }
        if let Some(choice) = &laws.tenants {
            tenant = labels.intern(&format!("tenant-{}", choice.draw(&mut streams.tenants)));
        }
        let adapter = match &laws.adapters {
            Some(choice) => labels.intern(&format!("adapter-{}", choice.draw(&mut streams.adapters))),
            None => Label::NONE,
        };
        let asked = laws.input.draw(&mut streams.input);
        prompt.push(question(number), asked.min(TOKENS_MAX - prompt.tokens()));
        let output_tokens = laws.output.draw(&mut streams.output);
        let session = laws.sessions.as_ref().map(|sessions| {
            let session = self.sessions;
            self.sessions += 1;
            let conversation = sessions.open(&mut streams.session, number, &prompt, output_tokens);
            self.open = Some(Open { conversation, session, tenant, adapter });
            SessionTurn { session, name: None, turn: 1 }
        });
        record(number, Start::At(at), prompt, output_tokens, (tenant, adapter), session)
    }

    /// The next turn of the open conversation.
    fn next_turn(&mut self) -> Option<Record> {
        let open = self.open.as_mut()?;
        let sessions = self.laws.sessions.as_ref()?;
        let streams = &mut self.streams.session;
        let number = self.records;
        let Some(next) = sessions.next(&mut open.conversation, streams, &self.laws.output, number) else {
            self.open = None;
            return None;
        };
        self.records += 1;
        let session = Some(SessionTurn { session: open.session, name: None, turn: next.turn });
        let (start, who) = (Start::AfterPrevious(next.think), (open.tenant, open.adapter));
        Some(record(number, start, next.prompt, next.output_tokens, who, session))
    }
}

fn record(
    number: u64,
    start: Start,
    prompt: Prompt,
    output_tokens: u32,
    (tenant, adapter): (Label, Label),
    session: Option<SessionTurn>,
) -> Record {
    Record {
        number,
        name: None,
        start,
        prompt,
        output_tokens,
        max_tokens: None,
        priority: 0,
        tenant,
        class: Label::NONE,
        model: Label::NONE,
        adapter,
        session,
    }
}

#[cfg(test)]
mod tests;
