//! Arrival processes on their way through simulated time.

use forerun_sim::rng::Stream;
use forerun_sim::time::{SPAN_MAX, Span, Time};

use super::{Gaps, Kind};

/// A running arrival process.
#[derive(Clone, Debug)]
pub struct Arrivals {
    kind: Kind,
    /// What the stated rates are multiplied by.
    factor: f64,
    stream: Stream,
    now: Time,
    count: u64,
    phase: Phase,
}

/// A time of constant rate: a burst, or a stay in a state.
#[derive(Clone, Copy, Debug)]
struct Phase {
    rate: f64,
    /// [`BURST`] or [`SILENCE`], or the state of an MMPP.
    state: usize,
    end: Time,
}

const SILENCE: usize = 0;
const BURST: usize = 1;

impl Iterator for Arrivals {
    type Item = Time;

    /// The next arrival; `None` when it is beyond simulated time.
    fn next(&mut self) -> Option<Time> {
        if self.now >= Time::ZERO + SPAN_MAX {
            return None;
        }
        let at = match self.kind {
            Kind::Even { rate } => self.after(Time::ZERO, self.count as f64 / (rate * self.factor)),
            Kind::Renewal(gaps, rate) => {
                let gap = gaps.draw(&mut self.stream) / (rate * self.factor);
                self.after(self.now, gap)
            }
            Kind::OnOff { gaps, .. } => self.next_in_phases(gaps),
            Kind::Mmpp { .. } => self.next_in_phases(Gaps::Gamma { shape: 1.0 }),
            Kind::Diurnal { rate, amplitude, period, peak_at } => {
                self.next_thinned(rate * self.factor, amplitude, |seconds| {
                    libm::cos(std::f64::consts::TAU * (seconds - peak_at) / period)
                })
            }
        }?;
        self.now = at;
        self.count += 1;
        Some(at)
    }
}

impl Arrivals {
    pub(super) fn start(kind: Kind, factor: f64, seed: u64) -> Self {
        let mut arrivals = Self {
            kind,
            factor,
            stream: Stream::new(seed, "arrivals"),
            now: Time::ZERO,
            count: 0,
            phase: Phase { rate: 0.0, state: SILENCE, end: Time::ZERO },
        };
        arrivals.enter_first_phase();
        arrivals
    }

    fn after(&self, from: Time, seconds: f64) -> Option<Time> {
        let at = from + Span::from_secs_f64(seconds)?;
        (at < Time::ZERO + SPAN_MAX).then_some(at)
    }

    /// Arrivals of constant rate until the phase ends; a gap that crosses the end is drawn anew.
    fn next_in_phases(&mut self, gaps: Gaps) -> Option<Time> {
        loop {
            let gap = gaps.draw(&mut self.stream) / (self.phase.rate * self.factor);
            match self.after(self.now, gap) {
                Some(at) if at < self.phase.end => return Some(at),
                _ => self.enter_next_phase()?,
            }
        }
    }

    /// Lewis and Shedler (1979): candidates at the highest rate, kept in proportion to the rate of the moment.
    fn next_thinned(&mut self, rate: f64, amplitude: f64, wave: impl Fn(f64) -> f64) -> Option<Time> {
        let highest = 1.0 + amplitude;
        let mut candidate = self.now;
        loop {
            let gap = self.stream.exponential() / (rate * highest);
            candidate = self.after(candidate, gap)?;
            let relative = 1.0 + amplitude * wave(candidate.as_secs_f64());
            if self.stream.uniform() * highest < relative {
                return Some(candidate);
            }
        }
    }

    /// The run starts at a random moment of a burst or a silence, or in a random state.
    fn enter_first_phase(&mut self) {
        let stream = &mut self.stream;
        match &self.kind {
            Kind::Even { .. } | Kind::Renewal(..) | Kind::Diurnal { .. } => {}
            Kind::OnOff { on, off, rate, .. } => {
                let burst = stream.uniform() * (on.mean() + off.mean()) < on.mean();
                let length = if burst { on.draw(stream) } else { off.draw(stream) };
                let left = (length.as_nanos() as f64 * stream.uniform()) as u64;
                let rate = if burst { rate.draw(stream) } else { 0.0 };
                let state = if burst { BURST } else { SILENCE };
                self.phase = Phase { rate, state, end: Time::from_nanos(left) };
            }
            Kind::Mmpp { rates, sojourn, stationary } => {
                let state = stationary.draw(stream);
                let stay = seconds_or_max(stream.exponential() * sojourn[state]);
                self.phase = Phase { rate: rates[state], state, end: Time::ZERO + stay };
            }
        }
    }

    /// The next burst, or the next state. `None` when it lies beyond simulated time.
    fn enter_next_phase(&mut self) -> Option<()> {
        let stream = &mut self.stream;
        self.now = self.phase.end;
        match &self.kind {
            Kind::OnOff { on, off, rate, .. } => {
                // A silence follows every burst; the one that a run may start in is over by now.
                if self.phase.state == BURST {
                    self.now = self.phase.end + off.draw(stream);
                }
                let (rate, end) = (rate.draw(stream), self.now + on.draw(stream));
                self.phase = Phase { rate, state: BURST, end };
            }
            Kind::Mmpp { rates, sojourn, .. } => {
                let step = 1 + stream.below(rates.len() - 1);
                let state = (self.phase.state + step) % rates.len();
                let stay = seconds_or_max(stream.exponential() * sojourn[state]);
                self.phase = Phase { rate: rates[state], state, end: self.now + stay };
            }
            Kind::Even { .. } | Kind::Renewal(..) | Kind::Diurnal { .. } => return None,
        }
        (self.now < Time::ZERO + SPAN_MAX).then_some(())
    }
}

fn seconds_or_max(seconds: f64) -> Span {
    Span::from_secs_f64(seconds).unwrap_or(SPAN_MAX)
}
