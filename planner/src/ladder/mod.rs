//! The simulator against published ladders of request rates, on 8 pods of 2 H100 with Qwen3-32B: llm-d's comparison of four
//! routing policies ([`policies`]), and its test of a tier of host memory ([`tiers`]).
//!
//! Both are simulated with the same step times. They were fitted on one policy of the first; nothing of the second was
//! looked at for them.

pub mod policies;
pub mod tiers;
mod traffic;

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::json;

use crate::assemble::assemble;
use crate::error::{Error, InputError};
use crate::markers;
use crate::scenario::overrides::Override;
use crate::scenario::read::{Origin, read};
use crate::served::replay;
use traffic::{Request, Traffic};

/// The folder of the published figures.
pub const FOLDER: &str = "llm-d-policy-ladder";

/// The mean TTFT has collapsed where it is so many times that of the lowest rate.
const COLLAPSED: f64 = 5.0;

/// From the picker to the engine: at the lowest rates published TTFTs are so much longer than what is computed.
const API_SERVER: &str = "200ms";

/// Figures of one rung.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Requests/s.
    pub rate: f64,
    /// Tokens of the rung's requests over its length and drain: those of the output, or of prompts and output.
    pub tokens_per_s: f64,
    /// Seconds.
    pub ttft_mean_s: f64,
}

/// The rung at which the mean TTFT has collapsed.
fn collapse(figures: &[Figures]) -> Option<usize> {
    let light = figures.first()?.ttft_mean_s;
    figures.iter().position(|at| at.ttft_mean_s > COLLAPSED * light)
}

/// How many rungs later than published the mean TTFT collapses; none where only one of the two does.
fn collapse_offset(published: &[Figures], simulated: &[Figures]) -> Option<i64> {
    match (collapse(published), collapse(simulated)) {
        (Some(published), Some(simulated)) => Some(simulated as i64 - published as i64),
        (None, None) => Some(0),
        _ => None,
    }
}

/// One climb: a fleet behind a picker under the requests of a draw.
struct Climb<'a> {
    traffic: &'a Traffic,
    fleet: &'a str,
    epp: &'a str,
    draw: u64,
    in_flight_max: Option<usize>,
    /// Tokens of a request that count.
    tokens: u32,
    overrides: Vec<Override>,
}

impl Climb<'_> {
    /// Figures by stage.
    fn simulate(self) -> Result<Vec<Figures>, Error> {
        let scratch = tempfile::tempdir().map_err(|e| InputError::new(format!("temporary files: {e}")))?;
        let requests = self.traffic.requests(self.draw, self.in_flight_max);
        let path = |name: &str| scratch.path().join(name);
        markers::write(&path("fleet.yaml"), self.fleet)?;
        markers::write(&path("epp.yaml"), self.epp)?;
        markers::write(&path("ladder.jsonl"), &self.traffic.trace(&requests))?;
        let mut overrides = self.overrides;
        overrides.push(Override::new("router.epp", json!("epp.yaml")));
        overrides.push(Override::new("run.seed", json!(self.draw)));
        let assembled = assemble(&read(Origin::File(&path("fleet.yaml")), &overrides)?)?;
        let simulated = replay::simulate(&assembled, &mut |_| ControlFlow::Continue(()))?;
        let mut rungs = vec![Rung::default(); self.traffic.stages.len()];
        for (place, times) in simulated.requests {
            let Request { stage, .. } = requests[place as usize];
            rungs[stage].add(times.last_s, times.first_s.unwrap_or(times.last_s) - times.arrival_s);
        }
        let figures = |(stage, rung): (usize, &Rung)| Figures {
            rate: f64::from(self.traffic.stages[stage].rate),
            tokens_per_s: f64::from(rung.requests) * f64::from(self.tokens)
                / (rung.last_s - self.traffic.start_s(stage)),
            ttft_mean_s: rung.ttft_s / f64::from(rung.requests),
        };
        Ok(rungs.iter().enumerate().map(figures).collect())
    }
}

/// What came of a rung's requests so far.
#[derive(Clone, Copy, Debug, Default)]
struct Rung {
    requests: u32,
    last_s: f64,
    ttft_s: f64,
}

impl Rung {
    fn add(&mut self, last_s: f64, ttft_s: f64) {
        self.requests += 1;
        self.last_s = self.last_s.max(last_s);
        self.ttft_s += ttft_s;
    }
}

/// Figures averaged over draws, rung by rung.
fn mean(draws: &[Vec<Figures>]) -> Vec<Figures> {
    let over = |rung: usize, figure: fn(&Figures) -> f64| {
        draws.iter().map(|draw| figure(&draw[rung])).sum::<f64>() / draws.len() as f64
    };
    let at = |rung: usize| Figures {
        rate: draws[0][rung].rate,
        tokens_per_s: over(rung, |at| at.tokens_per_s),
        ttft_mean_s: over(rung, |at| at.ttft_mean_s),
    };
    (0..draws[0].len()).map(at).collect()
}

/// Sorts published figures by rate, and checks that they are positive and those of the stages.
fn checked(mut figures: Vec<Figures>, stages: &[traffic::Stage], what: &str) -> Result<Vec<Figures>, String> {
    for at in &figures {
        if ![at.rate, at.tokens_per_s, at.ttft_mean_s].iter().all(|value| value.is_finite() && *value > 0.0) {
            return Err(format!("a figure of {what} at {} requests/s is not positive", at.rate));
        }
    }
    figures.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    if !figures.iter().map(|at| at.rate).eq(stages.iter().map(|stage| f64::from(stage.rate))) {
        return Err(format!("the rates of {what} are not those of the ladder's stages"));
    }
    Ok(figures)
}

/// Rows of a published table.
fn rows<R: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<R>, InputError> {
    let rows = csv::Reader::from_path(path).and_then(|reader| reader.into_deserialize().collect());
    rows.map_err(|e| InputError::new(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ttfts: &[f64]) -> Vec<Figures> {
        ttfts.iter().map(|&ttft_mean_s| Figures { rate: 1.0, tokens_per_s: 1.0, ttft_mean_s }).collect()
    }

    #[test]
    fn a_collapse_is_the_first_rung_of_five_times_the_light_mean() {
        assert_eq!(collapse(&line(&[0.3, 0.4, 1.4, 1.6, 9.0])), Some(3));
        assert_eq!(collapse(&line(&[0.3, 0.4])), None);
    }

    #[test]
    fn a_collapse_that_only_one_side_has_is_no_offset() {
        let (early, late, never) = (line(&[1.0, 9.0, 9.0]), line(&[1.0, 1.0, 9.0]), line(&[1.0, 1.0, 1.0]));
        assert_eq!(collapse_offset(&late, &early), Some(-1));
        assert_eq!(collapse_offset(&never, &never), Some(0));
        assert_eq!(collapse_offset(&late, &never), None);
    }
}
