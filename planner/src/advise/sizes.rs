//! The smallest fleets that hold the SLO, by routing policy.

use forerun_reports::summary::Summary;

use super::Study;
use super::advice::{Gain, Saved, Signal};
use super::rate::Capacity;
use crate::error::Error;
use crate::trial::{Policy, Setting, Size};

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
    /// GPUs of a replica of each part.
    each: Vec<u32>,
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

/// A part of llm-d that pays, with the fleets that it needs.
pub(super) struct Offer {
    /// The row that shows it.
    pub signal: Signal,
    /// What it is.
    pub name: &'static str,
    /// The fleets.
    pub fleets: Fleets,
    /// What it saves over the plain fleet.
    pub gain: Gain,
}

impl Sizes {
    /// The cheapest policy of all.
    pub(super) fn best(&self) -> &Fleets {
        match &self.kv_aware {
            Some(aware) if aware.cost() < self.plain.cost() => aware,
            _ => &self.plain,
        }
    }

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
    Ok(settings.iter().zip(sizes).map(|(setting, sizes)| Fleets::of(study, setting, sizes)).collect())
}

impl Fleets {
    /// Fleets of `setting`, one for each seed.
    pub(super) fn of(study: &Study<'_>, setting: &Setting, sizes: Vec<Option<Size>>) -> Self {
        let own = study.subject.tensor_parallel;
        let each = setting.parts.iter().map(|part| part.tensor_parallel.unwrap_or(own)).collect();
        Self { setting: setting.clone(), sizes, each }
    }

    /// The routing policy.
    pub(super) fn policy(&self) -> Policy {
        self.setting.policy
    }

    /// Replicas with each seed; `None` when some seed needs more than was tried.
    pub(super) fn replicas(&self) -> Option<Vec<f64>> {
        self.sizes.iter().map(|size| size.as_ref().map(|size| f64::from(size.total()))).collect()
    }

    /// GPUs with each seed; `None` when some seed needs more than was tried.
    fn gpus(&self) -> Option<Vec<f64>> {
        let gpus = |size: &Size| {
            let each = self.each.iter().zip(&size.replicas);
            each.map(|(gpus, replicas)| f64::from(gpus * replicas)).sum()
        };
        self.sizes.iter().map(|size| size.as_ref().map(gpus)).collect()
    }

    /// GPUs of the fleet that holds with every seed; `None` when there is none.
    pub(super) fn gpus_of_largest(&self) -> Option<u32> {
        let largest = self.largest()?;
        Some(self.each.iter().zip(largest).map(|(gpus, replicas)| gpus * replicas).sum())
    }

    /// Replicas of each part that hold with every seed.
    pub(super) fn largest(&self) -> Option<Vec<u32>> {
        let all: Option<Vec<&Size>> = self.sizes.iter().map(Option::as_ref).collect();
        let all = all?;
        Some(
            (0..self.each.len())
                .map(|part| all.iter().map(|size| size.replicas[part]).max().unwrap_or(1))
                .collect(),
        )
    }

    /// Replicas that hold with every seed.
    pub(super) fn most(&self) -> Option<u32> {
        let all: Option<Vec<u32>> = self.sizes.iter().map(|size| size.as_ref().map(Size::total)).collect();
        all?.into_iter().max()
    }

    /// The smallest of the runs' fleets and the largest, in words.
    pub(super) fn range(&self) -> String {
        let sizes: Option<Vec<u32>> = self.sizes.iter().map(|size| size.as_ref().map(Size::total)).collect();
        let ends = sizes.and_then(|sizes| Some((*sizes.iter().min()?, *sizes.iter().max()?)));
        match ends {
            Some((low, high)) if low == high => format!("{high}"),
            Some((low, high)) => format!("{low} to {high}"),
            None => "more than was tried".to_owned(),
        }
    }

    /// Seeds that were tried.
    pub(super) fn seeds(&self) -> usize {
        self.sizes.len()
    }

    /// The runs that held.
    pub(super) fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.sizes.iter().flatten().map(|size| &size.summary)
    }

    /// Less is cheaper: what was not found is dearest.
    fn cost(&self) -> f64 {
        self.replicas().map_or(f64::INFINITY, |sizes| sizes.iter().sum())
    }

    /// The share of GPUs that `self` saves: pair by pair. `None` when either was not found.
    pub(super) fn saves(&self, plain: &Self) -> Option<Gain> {
        let pairs = self.gpus()?.into_iter().zip(plain.gpus()?);
        let shares: Vec<f64> = pairs.map(|(own, plain)| 1.0 - own / plain).collect();
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
