//! What would happen to requests if all replicas were stopped in idle time: arithmetic on arrivals, no simulation.

use forerun_sim::time::{Span, Time};
use schemars::JsonSchema;
use serde::Serialize;

/// When replicas stop and how they come back. All replicas stop and start together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleToZero {
    /// Time without arrivals after which they are stopped.
    pub cooldown: Span,
    /// From the request that starts them to their first token.
    pub cold_start: Span,
    /// How long a request is held without a replica.
    pub queue_ttl: Span,
}

/// Cold starts, and what they do to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ColdStarts {
    /// Times at which a request finds no replica.
    pub starts: u64,
    /// The same in a day of such traffic.
    pub per_day: Option<f64>,
    /// Time for which replicas are stopped.
    pub stopped_s: f64,
    /// Its share of the whole span.
    pub stopped_share: Option<f64>,
    /// Requests that arrive before the replicas are back.
    pub waiting: u64,
    /// Of these, requests that would wait longer than they are held.
    pub lost: u64,
    /// How long the others wait, on average.
    pub wait_mean_s: Option<f64>,
}

/// Counts them from arrivals.
#[derive(Clone, Debug)]
pub(super) struct Restarts {
    rule: ScaleToZero,
    last: Option<Time>,
    /// When the replicas that are being started will answer.
    back_at: Time,
    starts: u64,
    stopped: Span,
    waiting: u64,
    lost: u64,
    waited: Span,
}

impl Restarts {
    /// Replicas that run before the first arrival.
    pub(super) fn new(rule: ScaleToZero) -> Self {
        Self {
            rule,
            last: None,
            back_at: Time::ZERO,
            starts: 0,
            stopped: Span::ZERO,
            waiting: 0,
            lost: 0,
            waited: Span::ZERO,
        }
    }

    /// A request arrives at `at`, never before an earlier one.
    pub(super) fn record(&mut self, at: Time) {
        // Replicas that are on their way are not stopped before they have answered.
        let idle_from = self.last.map(|last| last.max(self.back_at));
        let idle = idle_from.map_or(Span::ZERO, |from| at.saturating_since(from));
        if self.last.is_some() && idle > self.rule.cooldown {
            self.starts += 1;
            self.stopped += idle - self.rule.cooldown;
            self.back_at = at + self.rule.cold_start;
        }
        self.last = Some(at);
        let wait = self.back_at.saturating_since(at);
        if wait > Span::ZERO {
            self.waiting += 1;
            if wait > self.rule.queue_ttl {
                self.lost += 1;
            } else {
                self.waited += wait;
            }
        }
    }

    /// What was counted in `span`.
    pub(super) fn figures(&self, span: Span) -> ColdStarts {
        let span_s = span.as_secs_f64();
        let stopped_s = self.stopped.as_secs_f64();
        let held = self.waiting - self.lost;
        ColdStarts {
            starts: self.starts,
            per_day: (span_s > 0.0).then(|| self.starts as f64 * 86_400.0 / span_s),
            stopped_s,
            stopped_share: (span_s > 0.0).then(|| stopped_s / span_s),
            waiting: self.waiting,
            lost: self.lost,
            wait_mean_s: (held > 0).then(|| self.waited.as_secs_f64() / held as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Span::from_secs(seconds)
    }

    fn counted(arrivals: &[u64]) -> ColdStarts {
        let rule = ScaleToZero {
            cooldown: Span::from_secs(100),
            cold_start: Span::from_secs(50),
            queue_ttl: Span::from_secs(20),
        };
        let mut restarts = Restarts::new(rule);
        arrivals.iter().for_each(|&second| restarts.record(at(second)));
        restarts.figures(at(arrivals[arrivals.len() - 1]).since(at(arrivals[0])))
    }

    #[test]
    fn the_first_requests_after_a_silence_wait_and_the_very_first_are_lost() {
        // Stopped from 110 to 400; back at 450: 50 and 30 s are too long to wait, 20 and 10 s are not.
        let starts = counted(&[0, 10, 400, 420, 430, 440, 450, 500]);
        assert_eq!((starts.starts, starts.stopped_s), (1, 290.0));
        assert_eq!((starts.waiting, starts.lost, starts.wait_mean_s), (4, 2, Some(15.0)));
        assert_eq!((starts.per_day, starts.stopped_share), (Some(86_400.0 / 500.0), Some(0.58)));
    }

    #[test]
    fn replicas_that_come_back_are_idle_from_then_on() {
        // Back at 250 from the start at 200: a gap of 140 s until 340 leaves them 90 s idle.
        assert_eq!(counted(&[0, 200, 340]).starts, 1);
        assert_eq!(counted(&[0, 200, 351]).starts, 2);
        assert_eq!(
            counted(&[0, 100, 200]),
            ColdStarts { per_day: Some(0.0), stopped_share: Some(0.0), ..ColdStarts::default() }
        );
    }
}
