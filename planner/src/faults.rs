//! From `faults:` to what happens to which replica, and when.

use forerun_sim::fleet::{Fault, Faults, Lost, PoolConfig};
use forerun_sim::time::{Span, Time};
use forerun_workloads::units::Duration;

use crate::error::InputError;
use crate::scenario::{FaultsSpec, LostSpec, RolloutSpec};

/// A published cold start: Qwen3-32B on one H100, vLLM 0.26 in GKE, from the image to the first request.
const RESTART: Span = Span::from_millis(277_800);
/// Kubernetes' `terminationGracePeriodSeconds`.
const DRAIN: Span = Span::from_secs(30);
const RETRIES: u32 = 3;
/// More would be mistakes.
const RETRIES_MAX: u32 = 100;
const RESTART_MAX: Span = Span::from_secs(86_400);
/// Bounds memory.
const EVENTS_MAX: usize = 100_000;

/// What `spec` does to these pools.
///
/// # Errors
/// When it names what is not there, or a value is out of range.
pub(crate) fn faults(spec: Option<&FaultsSpec>, pools: &[PoolConfig]) -> Result<Faults, InputError> {
    let Some(spec) = spec else { return Ok(Faults::default()) };
    let retries = spec.retries.unwrap_or(RETRIES);
    if retries > RETRIES_MAX {
        return Err(InputError::new(format!(
            "`faults.retries` is {retries}: at most {RETRIES_MAX} are possible"
        )));
    }
    let mut plan = Plan { pools, restart: RESTART, faults: Faults::default() };
    plan.restart = plan.restart("faults", spec.restart)?;
    plan.faults.lost = match spec.requests {
        None | Some(LostSpec::Fail) => Lost::Fail,
        Some(LostSpec::Retry) => Lost::Retry { most: retries },
    };
    plan.crashes(spec)?;
    plan.chances(spec)?;
    plan.slow_links(spec)?;
    for (number, rollout) in spec.rollouts.iter().enumerate() {
        plan.roll_out(&format!("faults.rollouts.{number}"), rollout)?;
    }
    if plan.faults.planned.len() > EVENTS_MAX {
        return Err(InputError::new(format!("`faults` plans more than {EVENTS_MAX} events: plan fewer")));
    }
    Ok(plan.faults)
}

struct Plan<'a> {
    pools: &'a [PoolConfig],
    restart: Span,
    faults: Faults,
}

impl Plan<'_> {
    fn crashes(&mut self, spec: &FaultsSpec) -> Result<(), InputError> {
        for (number, crash) in spec.crashes.iter().enumerate() {
            let key = format!("faults.crashes.{number}");
            let back_in = self.restart(&key, crash.restart)?;
            for replica in self.replicas(&key, crash.pool.as_deref(), &crash.replicas)? {
                self.faults.planned.push((Time::ZERO + crash.at.0, Fault::Die { replica, back_in }));
            }
        }
        Ok(())
    }

    fn chances(&mut self, spec: &FaultsSpec) -> Result<(), InputError> {
        for (number, random) in spec.random.iter().enumerate() {
            let key = format!("faults.random.{number}");
            if random.mtbf.0 < Span::from_secs(1) {
                return Err(InputError::new(format!(
                    "`{key}.mtbf` is {}: at least 1s is possible",
                    random.mtbf
                )));
            }
            let (pool, restart) =
                (self.pool(&key, random.pool.as_deref())?, self.restart(&key, random.restart)?);
            self.faults.by_chance.resize(self.pools.len(), None);
            self.faults.by_chance[pool] = Some((random.mtbf.0, restart));
        }
        Ok(())
    }

    fn slow_links(&mut self, spec: &FaultsSpec) -> Result<(), InputError> {
        for (number, link) in spec.links.iter().enumerate() {
            let key = format!("faults.links.{number}");
            if !(link.share > 0.0 && link.share <= 1.0) {
                let share = link.share;
                return Err(InputError::new(format!(
                    "`{key}.share` is {share}: it is what is left of the throughput, above 0 and at most 1"
                )));
            }
            let at = Time::ZERO + link.at.0;
            for replica in self.replicas(&key, link.pool.as_deref(), &link.replicas)? {
                self.faults.planned.push((at, Fault::Link { replica, share: link.share }));
                self.faults.planned.push((at + link.lasts.0, Fault::Link { replica, share: 1.0 }));
            }
        }
        Ok(())
    }

    /// In waves: as many new replicas start as may be more or missing. Those that take the place of missing ones have
    /// killed them before; the others do so when they are ready.
    fn roll_out(&mut self, key: &str, rollout: &RolloutSpec) -> Result<(), InputError> {
        let pool = self.pool(key, rollout.pool.as_deref())?;
        let replicas = self.pools[pool].replicas;
        let surge = rollout.max_surge.unwrap_or(replicas.div_ceil(4));
        let missing = rollout.max_unavailable.unwrap_or(replicas / 4).min(replicas);
        if surge.saturating_add(missing) == 0 {
            return Err(InputError::new(format!(
                "`{key}` allows neither a replica more nor one less: set `max_surge` or `max_unavailable`"
            )));
        }
        let (drain, start) =
            (rollout.drain.map_or(DRAIN, |drain| drain.0), self.restart(key, rollout.restart)?);
        within(&format!("{key}.drain"), drain)?;
        let first = self.first_replica(pool);
        let (mut at, mut replaced) = (Time::ZERO + rollout.at.0, 0);
        while replaced < replicas {
            for place in 0..surge.saturating_add(missing).min(replicas - replaced) {
                let replica = first + (replaced + place) as usize;
                let fault = |back_in| Fault::Replace { replica, drain, back_in };
                let missing = place < missing;
                let planned = if missing { (at, fault(start)) } else { (at + start, fault(Span::ZERO)) };
                self.faults.planned.push(planned);
            }
            replaced += surge.saturating_add(missing).min(replicas - replaced);
            at = at + drain + start;
        }
        Ok(())
    }

    fn restart(&self, key: &str, given: Option<Duration>) -> Result<Span, InputError> {
        let span = given.map_or(self.restart, |given| given.0);
        within(&format!("{key}.restart"), span)?;
        Ok(span)
    }

    fn pool(&self, key: &str, name: Option<&str>) -> Result<usize, InputError> {
        match name {
            None if self.pools.len() == 1 => Ok(0),
            None => Err(InputError::new(format!("`{key}` names no `pool`, and there are several: add one"))),
            Some(name) => self.pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
                let known: Vec<_> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
                InputError::new(format!("`{key}.pool` is `{name}`: the pools are {}", known.join(", ")))
            }),
        }
    }

    fn first_replica(&self, pool: usize) -> usize {
        self.pools[..pool].iter().map(|pool| pool.replicas as usize).sum()
    }

    /// The indices in the fleet of replicas `numbers` of a pool.
    fn replicas(&self, key: &str, pool: Option<&str>, numbers: &[u32]) -> Result<Vec<usize>, InputError> {
        let pool = self.pool(key, pool)?;
        let (name, count) = (&self.pools[pool].name, self.pools[pool].replicas);
        if let Some(number) = numbers.iter().find(|&&number| number >= count) {
            return Err(InputError::new(format!(
                "`{key}.replicas` names {number}: pool `{name}` has the replicas 0 to {}",
                count - 1
            )));
        }
        Ok(numbers.iter().map(|&number| self.first_replica(pool) + number as usize).collect())
    }
}

fn within(key: &str, span: Span) -> Result<(), InputError> {
    if span <= RESTART_MAX {
        return Ok(());
    }
    Err(InputError::new(format!("`{key}` is {}: at most 1d is possible", Duration(span))))
}
