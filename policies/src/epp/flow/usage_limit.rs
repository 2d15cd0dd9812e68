//! Usage-limit policies: up to which saturation each priority is dispatched.
//!
//! Source: llm-d-router at ebab6879, `plugins/flowcontrol/usagelimits`, and its recordings.

use serde::Deserialize;
use thiserror::Error;

/// What a priority's place is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// Its rank among the priorities.
    #[default]
    Rank,
    /// Its value between the lowest and the highest.
    Value,
}

/// Why upstream refuses the parameters of `priority-holdback-policy`.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("invalid priority holdback policy configuration: {0}")]
pub struct HoldbackError(String);

/// `priority-holdback-policy`: lower priorities stop earlier, so that some of the pool is held back for higher ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Holdback {
    min: f64,
    max: f64,
    domain: Domain,
}

impl Holdback {
    /// The policy with these parameters; `max_ceiling` defaults to 1, `domain` to "rank".
    ///
    /// # Errors
    /// A ceiling that is missing or out of range, or a domain that does not exist.
    pub fn new(
        min_ceiling: Option<f64>,
        max_ceiling: Option<f64>,
        domain: Option<&str>,
    ) -> Result<Self, HoldbackError> {
        let refuse = |reason| Err(HoldbackError(reason));
        let domain = match domain {
            None | Some("rank") => Domain::Rank,
            Some("value") => Domain::Value,
            Some(other) => {
                return refuse(format!("unsupported domain {other:?}, must be one of: \"rank\", \"value\""));
            }
        };
        let Some(min) = min_ceiling else { return refuse("minCeiling is required".into()) };
        let max = max_ceiling.unwrap_or(1.0);
        if !(0.0..1.0).contains(&min) {
            return refuse(format!("minCeiling must be in [0.0, 1.0), got {min:.6}"));
        }
        if !(max > 0.0 && max <= 1.0) {
            return refuse(format!("maxCeiling must be in (0.0, 1.0], got {max:.6}"));
        }
        if min >= max {
            return refuse(format!("minCeiling ({min:.6}) must be strictly less than maxCeiling ({max:.6})"));
        }
        Ok(Self { min, max, domain })
    }

    fn ceilings(&self, priorities: &[i32], ceilings: &mut Vec<f64>) {
        let [first, .., last] = *priorities else {
            ceilings.extend(priorities.iter().map(|_| self.max));
            return;
        };
        let steps = (priorities.len() - 1) as f64;
        let ceiling = |(rank, &priority): (usize, &i32)| match self.domain {
            Domain::Rank => self.max - rank as f64 * (self.max - self.min) / steps,
            Domain::Value => {
                let above = f64::from(priority) - f64::from(last);
                self.min + (above / (f64::from(first) - f64::from(last))) * (self.max - self.min)
            }
        };
        ceilings.extend(priorities.iter().enumerate().map(ceiling));
    }
}

/// `soft-reflective-ceiling-policy`: lower priorities are closed as the pool fills, and opened for some cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftReflective {
    /// Cycles with a saturation from 0.5 to 1, idle ones included.
    ticks: u64,
}

impl SoftReflective {
    /// The duty cycle at a saturation from 0.5 to 1: open in one of so many cycles.
    fn period(saturation: f64) -> u64 {
        libm::round(saturation / (1.0 - saturation + 1e-9)).max(1.0) as u64
    }

    fn counts(saturation: f64) -> bool {
        saturation >= 1.0 - saturation && saturation < 1.0
    }

    fn ceilings(&mut self, saturation: f64, count: usize, ceilings: &mut Vec<f64>) {
        let mut open = false;
        if count > 1 && Self::counts(saturation) {
            self.ticks += 1;
            open = self.ticks.is_multiple_of(Self::period(saturation));
        }
        let steps = count.saturating_sub(1) as f64;
        let ceiling = |rank: usize| match rank {
            0 => 1.0,
            _ if saturation < 1.0 - rank as f64 * saturation / steps => 1.0,
            _ if saturation < 1.0 && open => 1.0,
            _ => 0.0,
        };
        ceilings.extend((0..count).map(ceiling));
    }
}

/// The usage-limit policy of a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UsageLimit {
    /// `static-usage-limit-policy`: one ceiling for all; 1 by default.
    Static {
        /// The ceiling.
        threshold: f64,
    },
    /// `priority-holdback-policy`.
    Holdback(Holdback),
    /// `soft-reflective-ceiling-policy`.
    SoftReflective(SoftReflective),
}

impl Default for UsageLimit {
    fn default() -> Self {
        Self::Static { threshold: 1.0 }
    }
}

impl UsageLimit {
    /// Writes the ceiling of each priority, which come in falling order: it is dispatched while the saturation is
    /// below. Once per dispatch cycle.
    pub fn ceilings(&mut self, saturation: f64, priorities: &[i32], ceilings: &mut Vec<f64>) {
        ceilings.clear();
        match self {
            Self::Static { threshold } => ceilings.extend(priorities.iter().map(|_| *threshold)),
            Self::Holdback(holdback) => holdback.ceilings(priorities, ceilings),
            Self::SoftReflective(policy) => policy.ceilings(saturation, priorities.len(), ceilings),
        }
    }

    /// Takes note of `cycles` dispatch cycles in which nothing waited, without their being run.
    pub fn pass(&mut self, cycles: u64, saturation: f64, priorities: usize) {
        if let Self::SoftReflective(policy) = self
            && priorities > 1
            && SoftReflective::counts(saturation)
        {
            policy.ticks += cycles;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(limit: &mut UsageLimit, saturation: f64, priorities: &[i32]) -> Vec<f64> {
        let mut ceilings = Vec::new();
        limit.ceilings(saturation, priorities, &mut ceilings);
        ceilings
    }

    #[test]
    fn a_holdback_falls_by_rank_or_by_value() {
        let limit = |domain| UsageLimit::Holdback(Holdback::new(Some(0.5), None, Some(domain)).unwrap());
        assert_eq!(ceilings(&mut limit("rank"), 0.0, &[100, 10, 0]), [1.0, 0.75, 0.5]);
        assert_eq!(ceilings(&mut limit("value"), 0.0, &[100, 10, 0]), [1.0, 0.55, 0.5]);
        assert_eq!(
            ceilings(&mut limit("rank"), 0.0, &[0]),
            [1.0],
            "one priority has nobody to hold back for"
        );
    }

    #[test]
    fn soft_ceilings_open_in_one_of_so_many_cycles() {
        let mut limit = UsageLimit::SoftReflective(SoftReflective::default());
        let opened: Vec<f64> = (0..6).map(|_| ceilings(&mut limit, 0.75, &[1, 0])[1]).collect();
        assert_eq!(opened, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0], "0.75 / 0.25 = every third");
        assert_eq!(ceilings(&mut limit, 1.0, &[1, 0]), [1.0, 0.0]);
        assert_eq!(ceilings(&mut limit, 0.9, &[0]), [1.0]);
    }

    #[test]
    fn cycles_that_are_passed_over_count() {
        let (mut run, mut passed) =
            (SoftReflective::default(), UsageLimit::SoftReflective(SoftReflective::default()));
        (0..7).for_each(|_| run.ceilings(0.6, 2, &mut Vec::new()));
        passed.pass(7, 0.6, 2);
        assert_eq!(passed, UsageLimit::SoftReflective(run));
    }
}
