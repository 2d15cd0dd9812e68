//! Which fleets could be: kinds of replicas, by GPU, split, role and policy, in numbers yet to be found.

use std::collections::BTreeMap;

use forerun_workloads::measure::Measures;

use super::asked::{Asked, Roles, policy};
use super::bound::{Load, Work};
use crate::error::{Error, InputError};
use crate::hardware::{find_gpu, prices};
use crate::scenario::Role;
use crate::scenario::read::Loaded;
use crate::trial::{Part, Policy, Setting, Space};

/// From this share of prompt tokens seen before, policies that know the caches are tried.
const SHARING: f64 = 0.05;

/// A kind of fleet, in numbers yet to be found.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// How it serves.
    pub setting: Setting,
    /// Where its numbers are looked for.
    pub space: Space,
    /// What the traffic asks of its parts.
    works: Vec<Work>,
    /// GPUs that two parts of the same GPU share, if they are limited.
    stock: Option<u32>,
    /// What is changed of vLLM's arguments and tiers, in words; empty for nothing.
    pub changes: String,
}

impl Shape {
    /// Whether prefill and decode are apart.
    pub(super) fn is_apart(&self) -> bool {
        self.setting.parts.iter().any(|part| part.role == Some(Role::Prefill))
    }

    /// Replicas of the last part that there must be at least, and may be at most, with these of the first.
    pub(super) fn range(&self, others: &[u32]) -> (u32, u32) {
        (self.least(others), self.most(others))
    }

    /// What the stock leaves for the last part.
    fn most(&self, others: &[u32]) -> u32 {
        let most = self.space.most.last().copied().unwrap_or(0);
        let (Some(stock), [first]) = (self.stock, others) else { return most };
        let each = |place: usize| self.setting.parts[place].tensor_parallel.unwrap_or(1);
        let left = stock.saturating_sub((first + self.space.spare) * each(0)) / each(1);
        most.min(left.saturating_sub(self.space.spare))
    }

    fn least(&self, others: &[u32]) -> u32 {
        let up = |busy: f64| busy.ceil().max(1.0).min(f64::from(u32::MAX)) as u32;
        match (others, self.works.as_slice()) {
            ([], [work]) => up(work.both()),
            ([_], [_, decode]) if self.is_apart() => up(decode.decode),
            // Two kinds that do everything share it.
            ([first], [own, other]) => {
                up((1.0 - f64::from(*first) / own.both().max(1e-9)).max(0.0) * other.both())
            }
            _ => 1,
        }
    }

    /// Below this price nothing of this kind can serve the traffic.
    pub(super) fn least_cost(&self) -> f64 {
        let Space { prices, .. } = &self.space;
        match self.works.as_slice() {
            [work] => self.space.cost(&[work.both().ceil().max(1.0) as u32]),
            [prefill, decode] if self.is_apart() => {
                let least = [prefill.prefill, decode.decode].map(|busy| busy.ceil().max(1.0) as u32);
                self.space.cost(&least)
            }
            works => {
                let each = works.iter().zip(prices).map(|(work, price)| work.both() * price);
                each.fold(f64::INFINITY, f64::min)
            }
        }
    }

    /// About what it will cost: shapes are tried in this order.
    pub(super) fn guessed_cost(&self) -> f64 {
        self.space.cost(&self.space.guess)
    }

    /// A fleet of this kind in words.
    pub(super) fn name(&self, replicas: &[u32]) -> String {
        let counts: Vec<String> =
            replicas.iter().map(|count| format!("{} ", count + self.space.spare)).collect();
        self.words(&counts)
    }

    /// The kind in words, without numbers.
    pub(super) fn kind(&self) -> String {
        self.words(&vec![String::new(); self.setting.parts.len()])
    }

    fn words(&self, counts: &[String]) -> String {
        let parts = &self.setting.parts;
        let role = |part: &Part| match part.role {
            Some(Role::Prefill) => "prefill ",
            Some(Role::Decode) => "decode ",
            _ => "",
        };
        let gpu = |part: &Part| part.gpu.clone().unwrap_or_default();
        let split = |part: &Part| match part.tensor_parallel.unwrap_or(1) {
            1 => String::new(),
            gpus => format!("TP {gpus} "),
        };
        let fleet = match (parts.as_slice(), counts) {
            // What both have in common is said once.
            ([one, other], [first, last]) if self.is_apart() && one.gpu == other.gpu => {
                let same = one.tensor_parallel == other.tensor_parallel;
                let each = |part: &Part| if same { String::new() } else { split(part) };
                let common = if same { split(one) } else { String::new() };
                format!(
                    "{first}{}{}+ {last}{}{}x {} {common}",
                    role(one),
                    each(one),
                    role(other),
                    each(other),
                    gpu(one)
                )
            }
            _ => {
                let each = parts.iter().zip(counts).map(|(part, count)| {
                    let times = if count.is_empty() && role(part).is_empty() { "" } else { "x " };
                    format!("{count}{}{times}{} {}", role(part), gpu(part), split(part))
                });
                each.collect::<Vec<_>>().join("+ ")
            }
        };
        let mut words = fleet.trim_end().to_owned();
        if !self.is_apart() {
            words += &format!(", {}", self.setting.policy);
        }
        if !self.changes.is_empty() {
            words += &format!(", {}", self.changes);
        }
        words
    }

    /// GPUs of so many replicas, spare ones included.
    pub(super) fn gpus(&self, replicas: &[u32]) -> u32 {
        let each = self.setting.parts.iter().zip(replicas);
        each.map(|(part, count)| part.tensor_parallel.unwrap_or(1) * (count + self.space.spare)).sum()
    }

    /// The same kind with other vLLM arguments or tiers.
    pub(super) fn changed(&self, setting: Setting, changes: String) -> Self {
        Self { setting, changes, ..self.clone() }
    }
}

/// What is chosen from, and what was left out with the reason.
pub(super) struct Shapes {
    /// Kinds of fleets, the cheapest guess first.
    pub shapes: Vec<Shape>,
    /// Kinds that could not exist, each with the reason.
    pub impossible: Vec<(String, String)>,
    /// US dollars of a GPU hour, by GPU.
    pub prices: BTreeMap<String, f64>,
    /// Where prices come from that the scenario does not say.
    pub price_sources: Vec<String>,
}

/// One GPU and split that the model fits.
struct Kind {
    part: Part,
    price: f64,
    most: u32,
    /// GPUs in stock, if they are limited.
    stock: Option<u32>,
    work: Work,
}

/// All kinds of fleets that were asked for.
///
/// # Errors
/// When a GPU has no price, or nothing that was asked for could exist.
pub(super) fn shapes(
    loaded: &Loaded,
    asked: &Asked,
    load: &Load,
    measures: &Measures,
) -> Result<Shapes, Error> {
    let gpus = gpus(loaded, asked);
    let mut found = Shapes {
        shapes: Vec::new(),
        impossible: Vec::new(),
        prices: BTreeMap::new(),
        price_sources: Vec::new(),
    };
    let mut kinds = Vec::new();
    for gpu in &gpus {
        let entry = find_gpu(gpu)?;
        let price = prices(&loaded.scenario, &[(gpu, gpu, entry)])?;
        let Some(usd) = price.by_pool.and_then(|by_pool| by_pool.get(gpu).copied()) else {
            let why = "it has no list price in the catalog, and a plan needs one: set cost.gpu_hour_usd";
            return Err(InputError::new(format!("`gpu: {gpu}`: {why}")).into());
        };
        found.prices.insert(gpu.clone(), usd);
        found.price_sources.extend(price.source);
        for &gpus in &asked.splits {
            match kind(loaded, asked, load, gpu, usd, gpus) {
                Ok(kind) => kinds.push(kind),
                Err(Error::Input(error)) => {
                    found.impossible.push((format!("{gpu} TP {gpus}"), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    }
    if kinds.is_empty() {
        let why = found.impossible.first().map_or("nothing was asked for", |(_, why)| why);
        return Err(InputError::new(format!("no fleet could exist: {why}")).into());
    }
    let policies = policies(asked, measures)?;
    if asked.roles != Roles::Apart {
        for kind in &kinds {
            found.shapes.extend(policies.iter().map(|&policy| together(asked, &[kind], policy)));
        }
        if asked.mixed {
            found.shapes.extend(pairs(&kinds).flat_map(|(one, other)| {
                policies.iter().map(move |&policy| together(asked, &[one, other], policy))
            }));
        }
    }
    if asked.roles != Roles::Together {
        for (prefill, decode) in kinds.iter().flat_map(|one| kinds.iter().map(move |other| (one, other))) {
            if asked.mixed || prefill.part.gpu == decode.part.gpu {
                found.shapes.push(apart(asked, prefill, decode));
            }
        }
    }
    found.shapes.sort_by(|a, b| a.guessed_cost().total_cmp(&b.guessed_cost()));
    Ok(found)
}

/// The GPUs to choose from.
fn gpus(loaded: &Loaded, asked: &Asked) -> Vec<String> {
    let own = loaded.scenario.pools.as_ref().and_then(|pools| pools.first()?.gpu.clone());
    let names = match (asked.gpus.is_empty(), own) {
        (false, _) => asked.gpus.clone(),
        (true, Some(own)) => vec![own],
        (true, None) => super::asked::GPUS.map(str::to_owned).into(),
    };
    // By the catalog's own names, each once.
    let mut all: Vec<String> = Vec::new();
    for name in names {
        let name = find_gpu(&name).map_or(name, |gpu| gpu.name.clone());
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn kind(loaded: &Loaded, asked: &Asked, load: &Load, gpu: &str, usd: f64, gpus: u32) -> Result<Kind, Error> {
    let part = Part { role: None, gpu: Some(gpu.to_owned()), tensor_parallel: Some(gpus) };
    let setting = Setting { parts: vec![part.clone()], ..Setting::plain(Policy::RoundRobin) };
    let assembled = setting.assemble(loaded, &[1])?;
    let pool = assembled.fleet.pools.into_iter().next();
    let pool = pool.ok_or_else(|| Error::Internal("a fleet without a pool".into()))?;
    let stock = asked.stock.iter().find(|(name, _)| find_gpu(name).is_ok_and(|entry| entry.name == gpu));
    let stock = stock.map(|(_, &count)| count);
    let most = stock.map_or(asked.replicas_max, |count| (count / gpus).min(asked.replicas_max));
    if most <= asked.survive {
        let why = format!("the stock of {gpu} is not enough for {} replicas of {gpus}", asked.survive + 1);
        return Err(InputError::new(why).into());
    }
    let work = Work::of(load, &pool);
    Ok(Kind { part, price: usd * f64::from(gpus), most: most - asked.survive, stock, work })
}

/// Policies that may matter: the plain one, and those that know the caches where prompts share prefixes.
fn policies(asked: &Asked, measures: &Measures) -> Result<Vec<Policy>, Error> {
    if !asked.policies.is_empty() {
        let named: Result<Vec<Policy>, InputError> = asked.policies.iter().map(|name| policy(name)).collect();
        return Ok(named?.into_iter().filter(|policy| *policy != Policy::Disaggregated).collect());
    }
    let mut policies = vec![Policy::LeastRequests];
    if measures.prefixes.seen_share.unwrap_or(0.0) >= SHARING {
        policies.extend([Policy::Approximate, Policy::Precise]);
    }
    if measures.adapters.distinct > 1 {
        policies.push(Policy::Adapters);
    }
    Ok(policies)
}

/// Replicas that do everything, of one kind or two.
fn together(asked: &Asked, kinds: &[&Kind], policy: Policy) -> Shape {
    let share = kinds.len() as f64;
    let guess = |kind: &&Kind| (kind.work.both_guess() / share).ceil().clamp(1.0, 1e6) as u32;
    Shape {
        setting: Setting {
            parts: kinds.iter().map(|kind| kind.part.clone()).collect(),
            ..Setting::plain(policy)
        },
        space: Space {
            prices: kinds.iter().map(|kind| kind.price).collect(),
            spare: asked.survive,
            most: kinds.iter().map(|kind| kind.most).collect(),
            guess: kinds.iter().map(guess).collect(),
            least_first: 1,
        },
        works: kinds.iter().map(|kind| kind.work).collect(),
        stock: None,
        changes: String::new(),
    }
}

/// Prefill and decode on replicas of their own.
fn apart(asked: &Asked, prefill: &Kind, decode: &Kind) -> Shape {
    let part = |kind: &Kind, role| Part { role: Some(role), ..kind.part.clone() };
    let up = |busy: f64| busy.ceil().clamp(1.0, 1e6) as u32;
    Shape {
        setting: Setting {
            parts: vec![part(prefill, Role::Prefill), part(decode, Role::Decode)],
            ..Setting::plain(Policy::Disaggregated)
        },
        space: Space {
            prices: vec![prefill.price, decode.price],
            spare: asked.survive,
            most: vec![prefill.most, decode.most],
            guess: vec![up(prefill.work.prefill_guess), up(decode.work.decode_guess)],
            least_first: up(prefill.work.prefill),
        },
        works: vec![prefill.work, decode.work],
        stock: prefill.stock.filter(|_| prefill.part.gpu == decode.part.gpu),
        changes: String::new(),
    }
}

/// Kinds of different GPUs, two by two.
fn pairs(kinds: &[Kind]) -> impl Iterator<Item = (&Kind, &Kind)> {
    kinds.iter().enumerate().flat_map(move |(place, one)| {
        kinds[place + 1..]
            .iter()
            .filter(|other| other.part.gpu != one.part.gpu)
            .map(move |other| (one, other))
    })
}
