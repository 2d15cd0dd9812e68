//! Throughput: the work done between the end of the warm-up and the last arrival.

use std::ops::AddAssign;

use forerun_sim::time::{Span, Time};

/// Work done by the engines, for whichever request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Requests completed.
    pub(crate) completed: u64,
    /// Those of them that are good.
    pub(crate) good: u64,
    /// Prompt tokens computed.
    pub(crate) input_tokens: u64,
    /// Output tokens delivered.
    pub(crate) output_tokens: u64,
}

/// Splits the work after the warm-up at the last arrival, which is known only when no other follows.
///
/// Exact as long as observers keep their promise that nothing is reported ahead of the clock: work reported
/// before the last arrival is taken to be done by then.
#[derive(Debug)]
pub(crate) struct Window {
    start: Time,
    last_arrival: Time,
    until_last_arrival: Work,
    later: Work,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.completed += other.completed;
        self.good += other.good;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
    }
}

impl Window {
    /// A window that opens at `start`.
    pub(crate) fn new(start: Time) -> Self {
        Self { start, last_arrival: Time::ZERO, until_last_arrival: Work::default(), later: Work::default() }
    }

    /// A request arrived, no earlier than those before it: all work so far belongs to the window.
    pub(crate) fn arrived(&mut self, at: Time) {
        self.until_last_arrival += std::mem::take(&mut self.later);
        self.last_arrival = at;
    }

    /// `work` was finished at `at`. It may be reported after later arrivals.
    pub(crate) fn done(&mut self, at: Time, work: Work) {
        if at < self.start {
            return;
        }
        if at <= self.last_arrival {
            self.until_last_arrival += work;
        } else {
            self.later += work;
        }
    }

    /// Where another period begins after `first` and not after `last`: work before it counts otherwise.
    pub(crate) fn edge_between(&self, first: Time, last: Time) -> Option<Time> {
        let after_arrival = self.last_arrival + Span::from_nanos(1);
        [self.start, after_arrival].into_iter().find(|&edge| first < edge && edge <= last)
    }

    /// The work from the warm-up to the last arrival, and the length of that period.
    pub(crate) fn without_drain(&self) -> (Work, Span) {
        (self.until_last_arrival, self.last_arrival.saturating_since(self.start))
    }

    /// The work from the warm-up to `end`, and the length of that period.
    pub(crate) fn with_drain(&self, end: Time) -> (Work, Span) {
        let mut all = self.until_last_arrival;
        all += self.later;
        (all, end.saturating_since(self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Span::from_secs(seconds)
    }

    fn tokens(output_tokens: u64) -> Work {
        Work { output_tokens, ..Work::default() }
    }

    #[test]
    fn work_counts_from_the_warm_up_to_the_last_arrival_both_included() {
        let mut window = Window::new(at(10));
        window.arrived(at(1));
        window.done(at(9), tokens(1));
        window.done(at(10), tokens(2));
        window.arrived(at(20));
        window.done(at(20), tokens(4));
        window.done(at(21), tokens(8));
        assert_eq!(window.without_drain(), (tokens(6), Span::from_secs(10)));
        assert_eq!(window.with_drain(at(30)), (tokens(14), Span::from_secs(20)));
    }

    #[test]
    fn work_reported_late_counts_when_it_was_done() {
        let mut window = Window::new(at(0));
        window.arrived(at(20));
        window.done(at(15), tokens(1));
        assert_eq!(window.without_drain().0, tokens(1));
    }
}
