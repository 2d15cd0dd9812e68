//! Conversations: how many turns, how long the user thinks, and what a turn keeps of the one before.

use std::path::Path;

use forerun_sim::prompt::{Content, Prompt};
use forerun_sim::rng::Stream;
use forerun_sim::time::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::WorkloadError;
use crate::law::{Law, Seconds, Tokens};
use crate::one_of::{self, Bare, OneOf};
use crate::record::TOKENS_MAX;
use crate::sampler::Sampler;

/// The longest conversation; the law of turns is cut here. No recorded one comes near.
pub const TURNS_MAX: u32 = 1_000;

/// Conversations of several turns. `arrival` is then when first turns arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Number of turns.
    pub turns: Turns,
    /// From the end of an answer to the next turn.
    pub think: Law<Seconds>,
    /// Tokens that the user adds in turns after the first. Default: the law of `input_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_tokens: Option<Law<Tokens>>,
    /// Share of an answer that the next prompt contains, from 0 to 1. Less than 1 is an answer whose
    /// reasoning is stripped: what remains stands at other positions than it was generated at, so the next
    /// turn computes it once more.
    #[serde(default = "all")]
    pub retained_output: f64,
}

fn all() -> f64 {
    1.0
}

/// How many turns a conversation has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum Turns {
    /// After each turn the conversation ends with the same probability.
    Geometric {
        /// Mean number of turns, at least 1.
        mean: f64,
    },
    /// `[alpha, beta]`: each conversation has its own probability of ending after a turn, drawn from
    /// Beta(alpha, beta). A share alpha / (alpha + beta) has a single turn.
    BetaGeometric([f64; 2]),
    /// Every number between the two is equally likely.
    Uniform {
        /// Fewest turns.
        min: u32,
        /// Most turns.
        max: u32,
    },
    /// Always the same number.
    #[schemars(untagged)]
    Constant(u32),
}

impl Serialize for Turns {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Constant(turns) => serializer.serialize_u32(*turns),
            named => Self::serialize(named, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Turns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_of::deserialize(deserializer)
    }
}

impl OneOf for Turns {
    const WHAT: &'static str = "a law of turns";
    const NAMES: &'static [&'static str] = &["geometric", "beta_geometric", "uniform"];
    const EXAMPLE: &'static str = "5 or {geometric: {mean: 5}}";

    fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn bare(value: &Bare<'_>) -> Option<Result<Self, String>> {
        match *value {
            Bare::Number(turns) if (1.0..=f64::from(TURNS_MAX)).contains(&turns) && turns.fract() == 0.0 => {
                Some(Ok(Self::Constant(turns as u32)))
            }
            Bare::Number(turns) => {
                Some(Err(format!("`{turns}` turns: a whole number from 1 to {TURNS_MAX} is expected")))
            }
            Bare::Text(_) => None,
        }
    }
}

impl Turns {
    fn check(&self) -> Result<(), WorkloadError> {
        let wrong = |what: String| Err(WorkloadError::Spec(format!("`sessions.turns`: {what}")));
        let most = f64::from(TURNS_MAX);
        match *self {
            Self::Geometric { mean } if !(1.0..=most).contains(&mean) => {
                wrong(format!("a `mean` of {mean}, must be between 1 and {most}"))
            }
            Self::BetaGeometric(shapes) if !shapes.iter().all(|s| (0.1..=1e6).contains(s)) => {
                wrong(format!("`beta_geometric` is {shapes:?}, must be [alpha, beta], both at least 0.1"))
            }
            Self::Uniform { min, max } if min == 0 || min > max || max > TURNS_MAX => {
                wrong(format!("from {min} to {max}: must be 1 or more, at most {TURNS_MAX}, and in order"))
            }
            Self::Constant(turns) if !(1..=TURNS_MAX).contains(&turns) => {
                wrong(format!("{turns}, must be between 1 and {TURNS_MAX}"))
            }
            _ => Ok(()),
        }
    }

    /// Mean number of turns, if it is finite.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        match *self {
            Self::Geometric { mean } => Some(mean),
            Self::BetaGeometric([alpha, beta]) => (alpha > 1.0).then(|| (alpha + beta - 1.0) / (alpha - 1.0)),
            Self::Uniform { min, max } => Some((f64::from(min) + f64::from(max)) / 2.0),
            Self::Constant(turns) => Some(f64::from(turns)),
        }
    }

    fn draw(&self, stream: &mut Stream) -> u32 {
        match *self {
            Self::Geometric { mean } => geometric(1.0 / mean, stream),
            Self::BetaGeometric([alpha, beta]) => {
                let (ends, goes_on) = (stream.gamma(alpha), stream.gamma(beta));
                geometric(ends / (ends + goes_on), stream)
            }
            Self::Uniform { min, max } => min + stream.below((max - min) as usize + 1) as u32,
            Self::Constant(turns) => turns,
        }
    }
}

/// Trials up to the first success of probability `success`, by inversion; at most [`TURNS_MAX`].
fn geometric(success: f64, stream: &mut Stream) -> u32 {
    let failures = libm::log(stream.uniform_open()) / libm::log1p(-success);
    // Certain success is a division by minus infinity: no failure. Impossible success is infinite.
    (failures.min(f64::from(TURNS_MAX - 1)) as u32) + 1
}

/// Checked sessions, ready to draw from.
#[derive(Clone, Debug)]
pub(crate) struct SessionLaw {
    turns: Turns,
    think: Sampler<Seconds>,
    new_tokens: Sampler<Tokens>,
    retained_output: f64,
}

/// One stream for each thing that is drawn for later turns, so that none moves another.
#[derive(Clone, Debug)]
pub(crate) struct SessionStreams {
    turns: Stream,
    think: Stream,
    input: Stream,
    output: Stream,
}

impl SessionStreams {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            turns: Stream::new(seed, "turns"),
            think: Stream::new(seed, "think"),
            input: Stream::new(seed, "later input lengths"),
            output: Stream::new(seed, "later output lengths"),
        }
    }
}

impl SessionLaw {
    pub(crate) fn new(spec: &Sessions, input: &Sampler<Tokens>, base: &Path) -> Result<Self, WorkloadError> {
        spec.turns.check()?;
        if !(0.0..=1.0).contains(&spec.retained_output) {
            let what =
                format!("`sessions.retained_output` is {}, must be between 0 and 1", spec.retained_output);
            return Err(WorkloadError::Spec(what));
        }
        let new_tokens = match &spec.new_tokens {
            Some(law) => law.sampler("sessions.new_tokens", base)?,
            None => input.clone(),
        };
        Ok(Self {
            turns: spec.turns.clone(),
            think: spec.think.sampler("sessions.think", base)?,
            new_tokens,
            retained_output: spec.retained_output,
        })
    }

    pub(crate) fn mean_turns(&self) -> Option<f64> {
        self.turns.mean()
    }

    /// Opens a conversation whose first turn asks `prompt` and is answered by record `number` with
    /// `output` tokens.
    pub(crate) fn open(
        &self,
        streams: &mut SessionStreams,
        number: u64,
        prompt: &Prompt,
        output: u32,
    ) -> Conversation {
        Conversation {
            turn: 1,
            turns: self.turns.draw(&mut streams.turns),
            prompt: prompt.clone(),
            answer: (number, output),
        }
    }

    /// The next turn of `conversation`, as record `number`; `None` when it is over, or its prompt would
    /// exceed [`TOKENS_MAX`].
    pub(crate) fn next(
        &self,
        conversation: &mut Conversation,
        streams: &mut SessionStreams,
        output: &Sampler<Tokens>,
        number: u64,
    ) -> Option<NextTurn> {
        if conversation.turn == conversation.turns {
            return None;
        }
        let added = self.new_tokens.draw(&mut streams.input);
        let output_tokens = output.draw(&mut streams.output);
        let think = self.think.draw(&mut streams.think);
        let (answered, generated) = conversation.answer;
        let (content, kept) = self.kept(answered, generated);
        let total = u64::from(conversation.prompt.tokens()) + u64::from(kept) + u64::from(added);
        if total > u64::from(TOKENS_MAX) {
            return None;
        }
        conversation.prompt.push(content, kept);
        conversation.prompt.push(question(number), added);
        conversation.turn += 1;
        conversation.answer = (number, output_tokens);
        Some(NextTurn { think, prompt: conversation.prompt.clone(), output_tokens, turn: conversation.turn })
    }

    /// What the next prompt contains of the answer of record `number`.
    fn kept(&self, number: u64, generated: u32) -> (Content, u32) {
        let kept = (f64::from(generated) * self.retained_output).round() as u32;
        let content = if kept == generated { Content::generated(number) } else { remainder(number) };
        (content, kept)
    }
}

/// The question that record `number` asks.
pub(crate) fn question(number: u64) -> Content {
    Content::private(2 * number)
}

/// What is left of the answer of record `number` when a part was stripped.
fn remainder(number: u64) -> Content {
    Content::private(2 * number + 1)
}

/// A conversation between two of its turns.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    turn: u32,
    turns: u32,
    prompt: Prompt,
    /// Record that answered last, and its tokens.
    answer: (u64, u32),
}

/// What a later turn of a conversation asks.
#[derive(Clone, Debug)]
pub(crate) struct NextTurn {
    pub(crate) think: Span,
    pub(crate) prompt: Prompt,
    pub(crate) output_tokens: u32,
    pub(crate) turn: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 200_000;

    fn turns(text: &str) -> Turns {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn mean_turns_agree_with_the_stated_mean() {
        for text in ["3", "{geometric: {mean: 5}}", "{uniform: {min: 2, max: 6}}", "{geometric: {mean: 1}}"] {
            let law = turns(text);
            let mut stream = Stream::new(1, "turns");
            let mean = (0..DRAWS).map(|_| f64::from(law.draw(&mut stream))).sum::<f64>() / f64::from(DRAWS);
            assert!((mean - law.mean().unwrap()).abs() < 0.05, "{text}: {mean}");
        }
    }

    #[test]
    fn the_beta_geometric_fit_of_the_mooncake_trace_has_its_turns() {
        let law = turns("{beta_geometric: [3.387, 1.007]}");
        let mut stream = Stream::new(1, "turns");
        let drawn: Vec<u32> = (0..DRAWS).map(|_| law.draw(&mut stream)).collect();
        let mean = drawn.iter().map(|&t| f64::from(t)).sum::<f64>() / f64::from(DRAWS);
        let single = drawn.iter().filter(|&&t| t == 1).count() as f64 / f64::from(DRAWS);
        assert!((mean - 1.42).abs() < 0.02, "mean {mean}");
        assert!((law.mean().unwrap() - 1.42).abs() < 0.005, "{:?}", law.mean());
        assert!((single - 0.77).abs() < 0.005, "single {single}");
    }

    #[test]
    fn impossible_turns_are_refused() {
        for text in ["{geometric: {mean: 0.5}}", "{beta_geometric: [0, 1]}", "{uniform: {min: 5, max: 2}}"] {
            assert!(turns(text).check().is_err(), "{text}");
        }
        for text in ["0", "1.5", "many", "{geom: {mean: 2}}"] {
            assert!(serde_saphyr::from_str::<Turns>(text).is_err(), "{text}");
        }
    }
}
