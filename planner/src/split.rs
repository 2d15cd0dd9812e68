//! The `split:` of a scenario: names of pools or models to backends of the fleet.

use forerun_sim::fleet::{Backend, Mirror, PoolConfig, Role, Split, SplitBy};

use crate::error::{InputError, hint};
use crate::scenario::{SplitBySpec, SplitSpec};

/// How the traffic of these pools is split.
///
/// # Errors
/// When a name is neither a pool's nor a model's, weights or shares make no sense, or a pool would be in two parts.
pub(crate) fn split(spec: &SplitSpec, pools: &[PoolConfig]) -> Result<Split, InputError> {
    let mut backends = Vec::new();
    for (name, &weight) in &spec.weights {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(InputError::new(format!(
                "`split.weights.{name}` is {weight}: a weight is a number from 0 up"
            )));
        }
        backends.push(Backend { pools: pools_of(name, pools)?, weight });
    }
    for (index, pool) in pools.iter().enumerate() {
        if backends.iter().filter(|backend| backend.pools.contains(&index)).count() > 1 {
            return Err(InputError::new(format!(
                "`split.weights` names pool `{}` twice, by itself and by its model: keep one of them",
                pool.name
            )));
        }
    }
    if backends.len() < 2 || backends.iter().all(|backend| backend.weight <= 0.0) {
        return Err(InputError::new(
            "`split.weights` leaves nothing to split: name at least two pools or models, one of them with a weight above 0",
        ));
    }
    let by = match spec.by {
        None | Some(SplitBySpec::Request) => SplitBy::Request,
        Some(SplitBySpec::Session) => SplitBy::Session,
        Some(SplitBySpec::Tenant) => SplitBy::Tenant,
    };
    let mirror = spec.mirror.map(|share| mirror(share, &backends)).transpose()?;
    Ok(Split { by, backends, mirror })
}

/// The pools of a name: one pool, or all that serve a model.
fn pools_of(name: &str, pools: &[PoolConfig]) -> Result<Vec<usize>, InputError> {
    if let Some(index) = pools.iter().position(|pool| pool.name == name) {
        if pools[index].role != Role::Both {
            return Err(InputError::new(format!(
                "`split.weights.{name}`: this pool only prefills or decodes; name the model of its pools instead"
            )));
        }
        return Ok(vec![index]);
    }
    let serves = |pool: &PoolConfig| pool.model_names.iter().any(|own| own.eq_ignore_ascii_case(name));
    let serving: Vec<usize> = (0..pools.len()).filter(|&index| serves(&pools[index])).collect();
    if serving.is_empty() {
        let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        return Err(InputError::new(format!(
            "`split.weights.{name}` is neither a pool nor a model that a pool serves{}; pools: {}",
            hint(name, known.iter().copied()),
            known.join(", ")
        )));
    }
    Ok(serving)
}

fn mirror(share: f64, backends: &[Backend]) -> Result<Mirror, InputError> {
    if !(0.0..=1.0).contains(&share) {
        return Err(InputError::new(format!("`split.mirror` is {share}: it is a share, from 0 to 1")));
    }
    let idle: Vec<usize> = (0..backends.len()).filter(|&index| backends[index].weight <= 0.0).collect();
    match idle[..] {
        [backend] => Ok(Mirror { backend, share }),
        _ => Err(InputError::new(format!(
            "`split.mirror` sends copies to the one of weight 0, and {} have that: give exactly one weight 0",
            idle.len()
        ))),
    }
}
