//! Conversations: how many turns are seen, how long a user waits, what each turn adds.

use forerun_sim::request::Session;
use forerun_sim::time::Time;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;

use super::lengths::{Distribution, Figures};

/// Turns that are told apart; longer conversations count as so long.
const TURNS_MAX: usize = 1024;

/// Conversations as the workload names them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Sessions {
    /// Sessions seen.
    pub sessions: u64,
    /// Requests that belong to one.
    pub requests: u64,
    /// Turns seen of each: fewer than there were where the trace begins or ends within a session.
    pub turns: Figures,
    /// Share of sessions of which one turn was seen.
    pub single_share: Option<f64>,
    /// From a turn's arrival to the next one's. Where the workload gives think times, answers are taken to
    /// come at once, and this is the think time.
    pub gap_s: Figures,
    /// Tokens of a prompt beyond the prompt and the answer of the turn before.
    pub new_tokens: Figures,
}

/// Follows sessions. Of the most recent ones at least half of `sessions_max` are remembered; a session that
/// comes back after that counts as a new one.
#[derive(Clone, Debug)]
pub(super) struct Conversations {
    recent: FxHashMap<u64, Seen>,
    before: FxHashMap<u64, Seen>,
    generation_max: usize,
    /// Sessions by the turns seen so far.
    by_turns: Vec<u64>,
    requests: u64,
    gaps: Distribution,
    new_tokens: Distribution,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    turns: u32,
    at: Time,
    /// Prompt and answer.
    tokens: u64,
}

impl Conversations {
    pub(super) fn new(sessions_max: usize) -> Self {
        Self {
            recent: FxHashMap::default(),
            before: FxHashMap::default(),
            generation_max: (sessions_max / 2).max(1),
            by_turns: vec![0; TURNS_MAX + 1],
            requests: 0,
            gaps: Distribution::new(),
            new_tokens: Distribution::new(),
        }
    }

    /// A turn arrives at `at`; only `measured` ones count in the figures.
    pub(super) fn record(&mut self, session: &Session, at: Time, prompt: u32, output: u32, measured: bool) {
        let earlier = self.recent.get(&session.id).or_else(|| self.before.get(&session.id)).copied();
        let turns = earlier.map_or(0, |seen| seen.turns);
        if measured {
            self.requests += 1;
            let place = (turns as usize).min(TURNS_MAX);
            if turns > 0 {
                self.by_turns[place] -= 1;
            }
            self.by_turns[(place + 1).min(TURNS_MAX)] += 1;
        }
        if let Some(seen) = earlier.filter(|_| measured) {
            self.gaps.record(at.saturating_since(seen.at).as_nanos() / 1000);
            self.new_tokens.record(u64::from(prompt).saturating_sub(seen.tokens));
        }
        let tokens = u64::from(prompt) + u64::from(output);
        // Turns of the warm-up are not counted, so they must not be taken back either.
        let turns = if measured { turns + 1 } else { 0 };
        self.remember(session.id, Seen { turns, at, tokens });
    }

    fn remember(&mut self, session: u64, seen: Seen) {
        if self.recent.len() >= self.generation_max && !self.recent.contains_key(&session) {
            self.before = std::mem::take(&mut self.recent);
        }
        self.recent.insert(session, seen);
    }

    pub(super) fn figures(&self) -> Sessions {
        let mut turns = Distribution::new();
        for (number, &sessions) in self.by_turns.iter().enumerate() {
            turns.record_n(number as u64, sessions);
        }
        Sessions {
            sessions: turns.count(),
            requests: self.requests,
            single_share: turns.share_up_to(1),
            turns: turns.figures(1.0),
            gap_s: self.gaps.figures(1e6),
            new_tokens: self.new_tokens.figures(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::time::Span;

    fn turn(followed: &mut Conversations, id: u64, second: u64, prompt: u32, measured: bool) {
        let session = Session { id, name: None, turn: 1 };
        followed.record(&session, Time::ZERO + Span::from_secs(second), prompt, 10, measured);
    }

    #[test]
    fn turns_gaps_and_new_tokens_of_two_conversations() {
        let mut followed = Conversations::new(100);
        turn(&mut followed, 1, 0, 100, true);
        turn(&mut followed, 2, 5, 50, true);
        turn(&mut followed, 1, 20, 130, true);
        turn(&mut followed, 1, 60, 200, true);
        let figures = followed.figures();
        assert_eq!((figures.sessions, figures.requests, figures.single_share), (2, 4, Some(0.5)));
        assert_eq!((figures.turns.mean, figures.turns.max), (Some(2.0), Some(3.0)));
        assert_eq!((figures.gap_s.mean, figures.gap_s.max), (Some(30.0), Some(40.0)));
        assert_eq!((figures.new_tokens.p50, figures.new_tokens.max), (Some(20.0), Some(60.0)));
    }

    #[test]
    fn turns_of_the_warm_up_only_prepare() {
        let mut followed = Conversations::new(100);
        turn(&mut followed, 1, 0, 100, false);
        turn(&mut followed, 1, 30, 115, true);
        turn(&mut followed, 1, 60, 140, true);
        let figures = followed.figures();
        assert_eq!((figures.sessions, figures.requests, figures.turns.max), (1, 2, Some(2.0)));
        assert_eq!((figures.gap_s.mean, figures.new_tokens.max), (Some(30.0), Some(15.0)));
    }

    #[test]
    fn memory_is_bounded_and_recent_sessions_are_kept() {
        let mut followed = Conversations::new(20);
        for id in 0..1000 {
            turn(&mut followed, id, id, 10, true);
            assert!(followed.recent.len() <= 10 && followed.before.len() <= 10);
        }
        turn(&mut followed, 991, 1001, 10, true);
        assert_eq!(followed.figures().sessions, 1000, "a recent one goes on");
        turn(&mut followed, 5, 1002, 10, true);
        assert_eq!(followed.figures().sessions, 1001, "a forgotten one counts as new");
    }
}
