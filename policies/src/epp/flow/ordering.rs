//! Ordering policies: which request of a flow is first.

use forerun_sim::time::{Span, Time};

use super::controller::Waiting;

/// Orders the requests of a flow; equals are taken as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// `fcfs-ordering-policy`: by time of arrival.
    #[default]
    Fcfs,
    /// `edf-ordering-policy`: by the end of the request's time to live in the queue.
    Edf,
    /// `slo-deadline-ordering-policy`: by arrival plus the TTFT limit of its header; those without one come last.
    SloDeadline,
}

impl Ordering {
    /// The policy of this name in a configuration.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "fcfs-ordering-policy" => Self::Fcfs,
            "edf-ordering-policy" => Self::Edf,
            "slo-deadline-ordering-policy" => Self::SloDeadline,
            _ => return None,
        })
    }

    /// What a request is ordered by, smallest first.
    pub(super) fn key(self, request: &Waiting, received: Time, deadline: Time) -> Time {
        match self {
            Self::Fcfs => received,
            Self::Edf => deadline,
            Self::SloDeadline => request.ttft_limit.map_or(Time::NEVER, |limit| after(received, limit)),
        }
    }
}

/// `span` after `time`, at the latest never.
pub(super) fn after(time: Time, span: Span) -> Time {
    Time::from_nanos(time.as_nanos().saturating_add(span.as_nanos()))
}
