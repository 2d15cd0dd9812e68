//! The batches in flight: one, and with asynchronous scheduling a second one behind it.

use super::step_span;
use super::timer::StepTimer;
use crate::cost::StepShape;
use crate::engine::Batch;
use crate::engine::adapters::AdapterLoads;
use crate::time::{Span, Time};

/// A batch in flight.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    pub(crate) batch: Batch,
    pub(crate) shape: StepShape,
    /// Formed while another batch was in flight: its CPU time overlaps.
    pub(super) overlapped: bool,
    /// Whether copies to host memory wait for it, or it for them.
    pub(super) moves: bool,
    /// LoRA adapters that it brings before it computes.
    pub(super) loads: AdapterLoads,
    /// What its computation takes, once that was asked.
    span: Option<Span>,
    /// Duration and end, once it has started on the GPU.
    pub(super) running: Option<(Span, Time)>,
}

impl Flight {
    /// Whether it has not started, and no copy to host memory keeps it from it.
    pub(super) fn may_start(&self) -> bool {
        self.running.is_none() && self.batch.transfers.flush.is_empty()
    }

    /// Whether it computes nothing but decodes in lockstep, and nothing waits for it.
    pub(super) fn is_lockstep(&self) -> bool {
        self.batch.cohort.decodes > 0 && self.batch.scheduled.is_empty() && !self.moves
    }

    /// Notes what the batch computes.
    pub(super) fn measure(&mut self) {
        self.span = None;
        self.shape = StepShape::default();
        self.batch.scheduled.iter().for_each(|part| self.shape.add(part));
        self.shape.add_cohort(self.batch.cohort);
    }

    /// What its computation takes.
    pub(super) fn span(&mut self, timer: &mut StepTimer) -> Span {
        let (shape, overlapped) = (&self.shape, self.overlapped);
        *self.span.get_or_insert_with(|| step_span(timer.step(shape), overlapped))
    }
}

/// At most two batches, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flights {
    front: Option<Box<Flight>>,
    behind: Option<Box<Flight>>,
}

impl Flights {
    pub(super) fn len(&self) -> usize {
        usize::from(self.front.is_some()) + usize::from(self.behind.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    /// The oldest: it runs, or is about to.
    pub(super) fn front(&self) -> Option<&Flight> {
        self.front.as_deref()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Flight> {
        self.front.as_deref_mut()
    }

    /// The one that comes after the oldest.
    pub(super) fn behind(&self) -> Option<&Flight> {
        self.behind.as_deref()
    }

    pub(super) fn behind_mut(&mut self) -> Option<&mut Flight> {
        self.behind.as_deref_mut()
    }

    /// When the running one ends, and how long it takes in all.
    pub(super) fn running(&self) -> Option<(Span, Time)> {
        self.front()?.running
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.front.as_deref_mut().into_iter().chain(self.behind.as_deref_mut())
    }

    /// Puts one behind those that are.
    pub(super) fn push(&mut self, flight: Box<Flight>) {
        debug_assert!(self.behind.is_none(), "there are at most two batches");
        if self.front.is_none() { self.front = Some(flight) } else { self.behind = Some(flight) }
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<Box<Flight>> {
        std::mem::replace(&mut self.front, self.behind.take())
    }

    pub(super) fn clear(&mut self) {
        (self.front, self.behind) = (None, None);
    }
}
