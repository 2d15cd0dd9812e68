//! What is read before and after a kernel.

use std::time::{Duration, Instant};

/// A clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// The CPU time of this process: what others do on the machine does not count. For one computing thread.
    Cpu,
    /// The wall clock.
    Wall,
}

/// When a measurement began.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Started {
    Cpu(Duration),
    Wall(Instant),
}

impl Clock {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU time of the process",
            Self::Wall => "wall clock",
        }
    }

    /// Starts a measurement.
    pub(crate) fn start(self) -> Started {
        match self {
            Self::Cpu => Started::Cpu(process_time()),
            Self::Wall => Started::Wall(Instant::now()),
        }
    }
}

impl Started {
    /// Microseconds since then.
    pub(crate) fn us(self) -> f64 {
        let passed = match self {
            Self::Cpu(since) => process_time().saturating_sub(since),
            Self::Wall(since) => since.elapsed(),
        };
        passed.as_secs_f64() * 1e6
    }
}

/// Whether the system tells a process its CPU time.
pub(crate) const HAS_PROCESS_TIME: bool = cfg!(unix);

#[cfg(unix)]
fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(unix))]
fn process_time() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_time_by_either_clock() {
        for clock in [Clock::Cpu, Clock::Wall] {
            let started = clock.start();
            let mut sum = 0u64;
            while started.us() < 50.0 && sum < u64::MAX / 2 {
                sum = std::hint::black_box(sum + 1);
            }
            assert!(started.us() >= 50.0, "{clock:?}");
        }
    }
}
