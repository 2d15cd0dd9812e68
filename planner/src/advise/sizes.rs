//! The smallest fleets that hold the SLO, by routing policy.

use forerun_reports::summary::Summary;

use super::Study;
use super::advice::{Gain, Saved};
use crate::trial::{Policy, Setting, Size};
use super::rate::Capacity;
use crate::error::Error;

/// Policies that need nothing but a load balancer, the cheaper to run first.
pub(super) const PLAIN: [Policy; 2] = [Policy::RoundRobin, Policy::LeastRequests];

/// Policies that know the caches: llm-d's default with an approximate index, and its exact index of KV events, which
/// asks more of whoever runs it.
pub(super) const KV_AWARE: [Policy; 2] = [Policy::Approximate, Policy::Precise];

/// The fleets of one policy, one for each seed; `None` where no fleet that was tried holds the SLO.
#[derive(Clone, Debug)]
pub(super) struct Fleets {
    /// How the traffic is served.
    pub setting: Setting,
    sizes: Vec<Option<Size>>,
}

/// The fleets that each policy needs.
pub(super) struct Sizes {
    /// The cheapest policy of those that need no more than a load balancer.
    pub plain: Fleets,
    /// The cheaper of the policies that know the caches; absent where one replica is enough.
    pub kv_aware: Option<Fleets>,
    /// The other of them.
    pub other_aware: Option<Fleets>,
}

impl Sizes {
    /// Searches them.
    pub(super) fn find(study: &Study<'_>, capacity: &Capacity) -> Result<Self, Error> {
        let guess = capacity.replicas_at_least(1.0);
        let plain = PLAIN.map(Setting::plain);
        let mut plain = fleets(study, &plain, guess, study.bench.seeds.len())?.into_iter();
        let first = plain.next().ok_or_else(|| Error::Internal("no policy was tried".into()))?;
        let plain = plain.fold(first, |best, other| if other.cost() < best.cost() { other } else { best });
        let mut aware = match plain.most() {
            Some(1) => Vec::new(),
            most => {
                fleets(study, &KV_AWARE.map(Setting::plain), most.unwrap_or(guess), study.bench.seeds.len())?
            }
        };
        // Stable: of equals the first stays first.
        aware.sort_by(|a, b| a.cost().total_cmp(&b.cost()));
        let mut aware = aware.into_iter();
        Ok(Self { plain, kv_aware: aware.next(), other_aware: aware.next() })
    }
}

/// The smallest fleets of each setting with the first `seeds` seeds.
pub(super) fn fleets(
    study: &Study<'_>,
    settings: &[Setting],
    guess: u32,
    seeds: usize,
) -> Result<Vec<Fleets>, Error> {
    let sizes = study.bench.each(settings, seeds, |setting, seed| study.bench.least(setting, seed, guess))?;
    Ok(settings.iter().zip(sizes).map(|(setting, sizes)| Fleets { setting: setting.clone(), sizes }).collect())
}

impl Fleets {
    /// The routing policy.
    pub(super) fn policy(&self) -> Policy {
        self.setting.policy
    }

    /// Replicas with each seed; `None` when some seed needs more than was tried.
    pub(super) fn replicas(&self) -> Option<Vec<f64>> {
        self.sizes.iter().map(|size| size.as_ref().map(|size| f64::from(size.total()))).collect()
    }

    /// Replicas that hold with every seed.
    pub(super) fn most(&self) -> Option<u32> {
        let all: Option<Vec<u32>> =
            self.sizes.iter().map(|size| size.as_ref().map(Size::total)).collect();
        all?.into_iter().max()
    }

    /// The smallest of the runs' fleets and the largest, in words.
    pub(super) fn range(&self) -> String {
        let sizes: Option<Vec<u32>> =
            self.sizes.iter().map(|size| size.as_ref().map(Size::total)).collect();
        let ends = sizes.and_then(|sizes| Some((*sizes.iter().min()?, *sizes.iter().max()?)));
        match ends {
            Some((low, high)) if low == high => format!("{high}"),
            Some((low, high)) => format!("{low} to {high}"),
            None => "more than was tried".to_owned(),
        }
    }

    /// The runs that held.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.sizes.iter().flatten().map(|size| &size.summary)
    }

    /// Less is cheaper: what was not found is dearest.
    fn cost(&self) -> f64 {
        self.replicas().map_or(f64::INFINITY, |sizes| sizes.iter().sum())
    }

    /// The share of GPUs that `self` saves, where each replica of both has the same number of them: pair by pair.
    /// `None` when either was not found.
    pub(super) fn saves(&self, plain: &Self) -> Option<Gain> {
        self.saves_with(plain, 1.0)
    }

    /// The same when each of our replicas has `weight` times as many GPUs.
    pub(super) fn saves_with(&self, plain: &Self, weight: f64) -> Option<Gain> {
        let shares: Vec<f64> = self
            .replicas()?
            .iter()
            .zip(plain.replicas()?)
            .map(|(own, plain)| 1.0 - own * weight / plain)
            .collect();
        Gain::of_pairs(Saved::Gpus, &shares)
    }
}

/// The mean of what `figure` finds in the summaries that have it.
pub(super) fn mean<'s>(
    summaries: impl Iterator<Item = &'s Summary>,
    figure: impl Fn(&Summary) -> Option<f64>,
) -> Option<f64> {
    let values: Vec<f64> = summaries.filter_map(figure).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
