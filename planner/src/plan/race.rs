//! The race: every kind of fleet on a short part of the traffic, fewer of them on a longer one, the best on all of it.
//! All of them see the same requests. What cannot be cheaper than the best by much is not run.

use super::runs::{Runs, Trial};
use super::shapes::Shape;
use crate::error::Error;
use crate::trial::Bench;
use crate::words::number;

/// Kinds that are sized at a time, below the same budget: the answer does not depend on threads.
const ROUND: usize = 4;

/// A round of the race: its share of the traffic, how much dearer than the best goes on to the next round, and how
/// many kinds do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    /// The runs are this part of the whole traffic.
    pub part: u64,
    /// Dearer than this multiple of the best is left out.
    pub keep: f64,
    /// The most kinds that go on.
    pub most: usize,
}

/// Rounds: a sixteenth, a quarter, all of the traffic.
pub(super) const RUNGS: [Rung; 3] = [
    Rung { part: 16, keep: 1.5, most: 12 },
    Rung { part: 4, keep: 1.25, most: 6 },
    Rung { part: 1, keep: 1.25, most: 6 },
];

/// No round's runs are shorter.
pub(super) const REQUESTS_MIN: u64 = 1000;

/// A kind with the numbers that hold.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Its kind.
    pub shape: Shape,
    /// Replicas of each part.
    pub replicas: Vec<u32>,
    /// The run that held.
    pub trial: Trial,
}

impl Candidate {
    /// US dollars an hour.
    pub(super) fn cost(&self) -> f64 {
        self.shape.space.cost(&self.replicas)
    }
}

/// A kind that was left out.
#[derive(Clone, Debug)]
pub(super) struct Beaten {
    /// Its kind.
    pub shape: Shape,
    /// Only fleets of it from this price on are left that could hold.
    pub from: f64,
    /// The fleet that decided, in words: the cheapest that held, or else the dearest that did not.
    pub tried: Option<String>,
    /// Whether it held.
    pub held: bool,
    /// Its price.
    pub usd_per_hour: Option<f64>,
    /// Why.
    pub why: String,
}

/// What a race leaves.
#[derive(Debug, Default)]
pub(super) struct Standings {
    /// What went through all rounds, the cheapest first.
    pub sized: Vec<Candidate>,
    /// The others.
    pub beaten: Vec<Beaten>,
    /// Fleets that held in the last round, whatever they cost.
    pub held: Vec<Candidate>,
}

/// Runs the race of `shapes` over `benches`, one for each rung.
///
/// # Errors
/// As those of the simulation.
pub(super) fn race(
    benches: &[(Rung, Bench<'_>)],
    runs: &Runs,
    shapes: Vec<Shape>,
) -> Result<Standings, Error> {
    let mut standings = Standings::default();
    let mut going = shapes;
    for (place, (rung, bench)) in benches.iter().enumerate() {
        let last = place + 1 == benches.len();
        let part = match rung.part {
            1 => "of the whole traffic".to_owned(),
            part => format!("on 1/{part} of the traffic"),
        };
        let mut sized = round(bench, runs, &going, rung.keep, f64::INFINITY, &mut standings, last)?;
        sized.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
        let best = sized.first().map_or(f64::INFINITY, Candidate::cost);
        let mut kept = Vec::new();
        for (rank, candidate) in sized.into_iter().enumerate() {
            if rank < rung.most && candidate.cost() <= best * rung.keep {
                kept.push(candidate);
            } else {
                standings.beaten.push(Beaten {
                    from: candidate.cost(),
                    tried: Some(candidate.shape.name(&candidate.replicas)),
                    held: true,
                    usd_per_hour: Some(candidate.cost()),
                    why: format!("dearer {part} than {} USD/h", number(best)),
                    shape: guess_from(candidate),
                });
            }
        }
        runs.keep()?;
        if last {
            kept.extend(taken_up_again(bench, runs, best, &mut standings)?);
            kept.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
            standings.sized = kept;
            return Ok(standings);
        }
        going = kept.into_iter().map(guess_from).collect();
    }
    Ok(standings)
}

/// Short runs flatter: queues have no time to grow. Kinds that were left out against a price that nothing holds the
/// whole traffic for are sized on it after all, below the `best` that does.
///
/// # Errors
/// As those of the simulation.
fn taken_up_again(
    bench: &Bench<'_>,
    runs: &Runs,
    best: f64,
    standings: &mut Standings,
) -> Result<Vec<Candidate>, Error> {
    let (mut again, left): (Vec<Beaten>, Vec<Beaten>) =
        standings.beaten.drain(..).partition(|beaten| beaten.from < best);
    standings.beaten = left;
    again.sort_by(|a, b| a.from.total_cmp(&b.from));
    let shapes: Vec<Shape> = again.into_iter().map(|beaten| beaten.shape).collect();
    round(bench, runs, &shapes, 1.0, best, standings, true)
}

/// A longer run mostly needs what a shorter one did.
fn guess_from(sized: Candidate) -> Shape {
    let mut shape = sized.shape;
    shape.space.guess = sized.replicas;
    shape
}

/// Sizes `shapes` in the order given; those that would cost more than `keep` times the best so far are left out.
///
/// # Errors
/// As those of the simulation.
pub(super) fn round(
    bench: &Bench<'_>,
    runs: &Runs,
    shapes: &[Shape],
    keep: f64,
    best: f64,
    standings: &mut Standings,
    last: bool,
) -> Result<Vec<Candidate>, Error> {
    let mut best = best;
    let mut all = Vec::new();
    for group in shapes.chunks(ROUND) {
        let budget = best * keep;
        let sized = bench.in_parallel(group.len(), |index| size(bench, runs, &group[index], budget))?;
        for (shape, sized) in group.iter().zip(sized) {
            if last {
                standings.held.extend(sized.held);
            }
            match sized.found {
                Ok(found) => {
                    best = best.min(found.cost());
                    all.push(found);
                }
                Err((tried, why)) => standings.beaten.push(Beaten {
                    shape: shape.clone(),
                    from: budget,
                    usd_per_hour: tried.as_ref().map(|(_, cost)| *cost),
                    tried: tried.map(|(name, _)| name),
                    held: false,
                    why,
                }),
            }
        }
    }
    Ok(all)
}

/// What sizing one kind found.
struct Sizing {
    /// Or the dearest fleet that missed, with its price, and why there is none.
    found: Result<Candidate, (Option<(String, f64)>, String)>,
    held: Vec<Candidate>,
}

/// The cheapest fleet of `shape` below `budget`, or why there is none.
fn size(bench: &Bench<'_>, runs: &Runs, shape: &Shape, budget: f64) -> Result<Sizing, Error> {
    let least = shape.least_cost();
    if least >= budget {
        let why = format!(
            "by closed form not below {} USD/h, and {} USD/h would be too much",
            number(least),
            number(budget)
        );
        return Ok(Sizing { found: Err((None, why)), held: Vec::new() });
    }
    let (mut dearest_miss, mut held): (Option<(f64, Vec<u32>, Trial)>, _) = (None, Vec::new());
    let found = shape.space.cheapest(budget, &|others| shape.range(others), &mut |replicas| {
        let trial = runs.run(bench, shape, replicas, bench.seeds[0])?;
        if trial.holds {
            held.push(Candidate { shape: shape.clone(), replicas: replicas.into(), trial: trial.clone() });
            return Ok(Some(trial));
        }
        let cost = shape.space.cost(replicas);
        if dearest_miss.as_ref().is_none_or(|(most, ..)| cost > *most) {
            dearest_miss = Some((cost, replicas.to_vec(), trial));
        }
        Ok(None)
    })?;
    let found = match (found, dearest_miss) {
        (Some((replicas, trial)), _) => Ok(Candidate { shape: shape.clone(), replicas, trial }),
        (None, Some((cost, replicas, trial))) => Err((Some((shape.name(&replicas), cost)), trial.tightest())),
        (None, None) => {
            Err((None, format!("no number of its replicas costs less than {} USD/h", number(budget))))
        }
    };
    Ok(Sizing { found, held })
}
