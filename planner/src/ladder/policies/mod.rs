//! The policies: `policy-comparison-73pct.csv`, with the benchmark's and the policies' configurations in
//! `73-capacity.md` beside it.
//!
//! Two readings of the publication are simulated. The first takes it at its word and fits no more than the step
//! times. The second adds what the published figures themselves say of the set-up: how long a request is on its way
//! to an idle engine, how old the metrics are that the pickers decide on, how many requests were in flight at most.

mod chart;
mod published;
mod render;

use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use super::traffic::{Stage, Traffic, stage};
use super::{API_SERVER, Climb, FOLDER, Figures, collapse_offset, mean};
use crate::error::{Error, InputError};
use crate::markers;
use crate::scenario::overrides::Override;

const FIGURES: &str = "policy-comparison-73pct.csv";

/// The warm-up, and the ladder.
const STAGES: [Stage; 17] = [
    stage(15, 50),
    stage(3, 20),
    stage(10, 20),
    stage(15, 20),
    stage(20, 38),
    stage(22, 34),
    stage(25, 30),
    stage(30, 25),
    stage(35, 21),
    stage(40, 38),
    stage(43, 36),
    stage(46, 33),
    stage(49, 30),
    stage(52, 29),
    stage(55, 27),
    stage(57, 26),
    stage(60, 25),
];

const TRAFFIC: Traffic = Traffic {
    stages: &STAGES,
    groups: 150,
    users_per_group: 5,
    shared_tokens: 6000,
    own_tokens: 1200,
    output_tokens: 1000,
};

/// From this rate on the policies are ranked, requests/s: below, no pod is short of anything.
const RANKED_FROM: f64 = 20.0;
/// Published figures that differ by less are not ranked.
const RANKED_GAP: f64 = 0.2;
/// Draws of users and arrivals over which simulated figures are averaged; one was published.
const DRAWS: u64 = 5;
/// A policy and its configuration.
#[derive(Debug)]
pub struct Policy {
    /// Its name in the publication, without `-scheduling`.
    pub name: &'static str,
    epp: &'static str,
}

/// The policies, best first.
pub const POLICIES: [Policy; 4] = [
    Policy { name: "precise", epp: include_str!("../../../ladder/precise.yaml") },
    Policy { name: "estimated", epp: include_str!("../../../ladder/estimated.yaml") },
    Policy { name: "random", epp: include_str!("../../../ladder/random.yaml") },
    Policy { name: "load", epp: include_str!("../../../ladder/load.yaml") },
];

const FLEET: &str = include_str!("../../../ladder/fleet.yaml");

/// How the publication is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// What a reader calls it.
    pub name: &'static str,
    /// From the picker to the engine; the simulator's default where none is given.
    api_server: Option<&'static str>,
    /// How old metrics get; the picker's default where none is given.
    metrics: Option<&'static str>,
    /// Most requests in flight; more are refused.
    in_flight_max: Option<usize>,
}

/// At its word, and with what its figures say.
pub const READINGS: [Reading; 2] = [
    Reading { name: "step times", api_server: None, metrics: None, in_flight_max: None },
    Reading {
        name: "step times, delay, age of metrics and limit",
        api_server: Some(API_SERVER),
        metrics: Some("1s"),
        // The default `max_requests` of Envoy's circuit breaker.
        in_flight_max: Some(1024),
    },
];

/// What came of one reading.
#[derive(Clone, Debug)]
pub struct Climbed {
    /// How the publication was read.
    pub reading: Reading,
    /// By policy, in the order of [`POLICIES`], then by rate.
    pub simulated: Vec<Vec<Figures>>,
}

/// The ladder as it was published and as it is simulated.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// By policy, in the order of [`POLICIES`], then by rate.
    pub published: Vec<Vec<Figures>>,
    /// In the order of [`READINGS`].
    pub climbed: Vec<Climbed>,
}

/// Pairs of policies whose published figures differ, and how many of them rank as published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    /// All pairs, at all rates.
    pub pairs: usize,
    /// Those in the same order.
    pub right: usize,
}

impl Ladder {
    /// Simulates every policy under every reading.
    ///
    /// # Errors
    /// When the published figures cannot be read.
    pub fn climb(folder: &Path) -> Result<Self, Error> {
        let published = published::read(&folder.join(FOLDER).join(FIGURES))?;
        let policies =
            READINGS.iter().flat_map(|reading| POLICIES.iter().map(move |policy| (reading, policy)));
        let runs: Vec<_> = policies.flat_map(|run| (1..=DRAWS).map(move |draw| (run, draw))).collect();
        let simulated: Result<Vec<_>, Error> =
            runs.par_iter().map(|((reading, policy), draw)| simulate(reading, policy, *draw)).collect();
        let simulated = simulated?;
        let mut means = simulated.chunks(DRAWS as usize).map(mean);
        let climbed = READINGS
            .map(|reading| Climbed { reading, simulated: means.by_ref().take(POLICIES.len()).collect() });
        Ok(Self { published, climbed: climbed.into() })
    }

    /// How the policies rank by `figure` at the rates that count.
    #[must_use]
    pub fn ranks(&self, climbed: &Climbed, figure: fn(&Figures) -> f64) -> Ranks {
        let mut ranks = Ranks::default();
        for rung in 0..self.published[0].len() {
            let at = |all: &[Vec<Figures>], policy: usize| figure(&all[policy][rung]);
            for (one, other) in pairs() {
                let published = at(&self.published, one) / at(&self.published, other);
                let differ = published.max(1.0 / published) > 1.0 + RANKED_GAP;
                if differ && self.published[0][rung].rate >= RANKED_FROM {
                    let simulated = at(&climbed.simulated, one) / at(&climbed.simulated, other);
                    ranks.pairs += 1;
                    ranks.right += usize::from((simulated > 1.0) == (published > 1.0));
                }
            }
        }
        ranks
    }

    /// How far the output rate of the highest rung is off, by policy.
    #[must_use]
    pub fn top_errors(&self, climbed: &Climbed) -> Vec<f64> {
        let top = |all: &[Figures]| all.last().map_or(f64::NAN, |figures| figures.tokens_per_s);
        self.published.iter().zip(&climbed.simulated).map(|(p, s)| top(s) / top(p) - 1.0).collect()
    }

    /// How many rungs later than published the mean TTFT collapses, by policy; none where only one of the two does.
    #[must_use]
    pub fn collapse_offsets(&self, climbed: &Climbed) -> Vec<Option<i64>> {
        let offset =
            |(published, simulated): (&Vec<Figures>, &Vec<Figures>)| collapse_offset(published, simulated);
        self.published.iter().zip(&climbed.simulated).map(offset).collect()
    }

    /// The report, for `docs/validation.md`; its chart begins with `charts_at`.
    #[must_use]
    pub fn report(&self, charts_at: &str) -> String {
        render::markdown(self, charts_at)
    }

    /// Puts the report between the markers of a document, and its chart into the folder beside it that has its name.
    ///
    /// # Errors
    /// When the document has no markers, or cannot be written.
    pub fn update(&self, document: &Path) -> Result<(), Error> {
        let folder = document.with_extension("");
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        markers::replace(document, "forerun validate: ladder", &self.report(&format!("{name}/")))?;
        self.write_chart(&folder)
    }

    fn write_chart(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder)
            .map_err(|e| InputError::new(format!("{}: cannot be made: {e}", folder.display())))?;
        Ok(markers::write(&folder.join(render::CHART), &chart::ladder(self)?)?)
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..POLICIES.len()).flat_map(|one| (one + 1..POLICIES.len()).map(move |other| (one, other)))
}

/// One policy on all rungs but the first stage, which warms the caches up and was not published.
fn simulate(reading: &Reading, policy: &Policy, draw: u64) -> Result<Vec<Figures>, Error> {
    let mut overrides = Vec::new();
    overrides.extend(reading.api_server.map(|delay| Override::new("overhead.api_server", json!(delay))));
    overrides.extend(reading.metrics.map(|age| Override::new("router.refresh_metrics_interval", json!(age))));
    let climb = Climb {
        traffic: &TRAFFIC,
        fleet: FLEET,
        epp: policy.epp,
        draw,
        in_flight_max: reading.in_flight_max,
        tokens: TRAFFIC.output_tokens,
        overrides,
    };
    Ok(climb.simulate()?.split_off(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ttfts: &[f64]) -> Vec<Figures> {
        let at = |(rung, &ttft_mean_s): (usize, &f64)| Figures {
            rate: 20.0 + rung as f64,
            tokens_per_s: 100.0 * ttft_mean_s,
            ttft_mean_s,
        };
        ttfts.iter().enumerate().map(at).collect()
    }

    fn ladder(published: [&[f64]; 4], simulated: [&[f64]; 4]) -> Ladder {
        let climbed = Climbed { reading: READINGS[0], simulated: simulated.map(line).into() };
        Ladder { published: published.map(line).into(), climbed: vec![climbed] }
    }

    #[test]
    fn only_pairs_that_differ_are_ranked() {
        let ladder = ladder([&[1.0], &[1.1], &[2.0], &[4.0]], [&[1.0], &[0.9], &[3.0], &[2.0]]);
        let ranks = ladder.ranks(&ladder.climbed[0], |figures| figures.ttft_mean_s);
        assert_eq!(
            ranks,
            Ranks { pairs: 5, right: 4 },
            "1.0 and 1.1 are equals; the last two changed places"
        );
    }

    #[test]
    fn errors_are_those_of_the_highest_rung() {
        let ladder = ladder([&[1.0, 9.0]; 4], [&[1.0, 9.0], &[9.0, 9.0], &[9.0, 4.5], &[9.0, 18.0]]);
        assert_eq!(ladder.top_errors(&ladder.climbed[0]), [0.0, 0.0, -0.5, 1.0]);
    }
}
