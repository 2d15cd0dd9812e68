//! From a fleet that was simulated to the verdict that is emitted.

use forerun_sim::kv::sizing::GPU_MEMORY_UTILIZATION;

use super::verdict::{
    Autoscaling, Backend, IMAGE, Lora, Prediction, RouterVerdict, Servers, Serving, Tiers, Verdict,
};
use crate::current::product_of;
use crate::error::{Error, InputError};
use crate::hardware::{DEFAULT_GPU, DEFAULT_MODEL, find_gpu, find_model};
use crate::scenario::read::Loaded;
use crate::scenario::{EngineArgs, LoraSpec, PoolSpec, Role, RouterSpec};
use crate::trial::Setting;

/// File of the endpoint picker's configuration.
pub(super) const PICKER_FILE: &str = "epp-config.yaml";

/// Rank of LoRA adapters, where nobody says: vLLM's default `max_lora_rank`.
const RANK: u32 = 16;

const GIB: f64 = (1u64 << 30) as f64;

/// How the files are to be named, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Name of the release; by default it follows from the model.
    pub name: Option<String>,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Whether the cluster is OpenShift.
    pub openshift: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self { name: None, namespace: "llm-d".to_owned(), openshift: false }
    }
}

/// A fleet that was simulated.
pub(crate) struct Deployment<'a> {
    /// The scenario that it serves.
    pub loaded: &'a Loaded,
    /// How it serves.
    pub setting: &'a Setting,
    /// Replicas of each part, spare ones included.
    pub replicas: &'a [u32],
    /// What is predicted of it.
    pub predicted: Vec<Prediction>,
    /// What can go wrong.
    pub hazards: Vec<String>,
    /// Replicas that follow the load.
    pub autoscaling: Option<Autoscaling>,
    /// What serves today, by name and namespace-local URL.
    pub today: Option<Backend>,
}

impl Deployment<'_> {
    /// The verdict to be emitted.
    ///
    /// # Errors
    /// When the fleet is of a kind that no files are made for.
    pub(crate) fn verdict(self, names: &Names) -> Result<Verdict, Error> {
        let scenario = self.setting.scenario(self.loaded, self.replicas);
        if scenario.scenario.speculative.is_some() {
            return Err(InputError::new(
                "no files are made for `speculative`: which weights the draft has is not known; leave it out and add vLLM's `--speculative-config` to the files",
            )
            .into());
        }
        let pools = scenario.scenario.pools.clone().unwrap_or_default();
        let assembled = self.setting.assemble(self.loaded, self.replicas)?;
        let common = scenario.scenario.engine.clone().unwrap_or_default();
        let serving = serving(&pools, &common)?;
        let first = pools.first().cloned().unwrap_or_default();
        let name = first.model.as_deref().or(scenario.scenario.model.as_deref()).unwrap_or(DEFAULT_MODEL);
        let model = find_model(name, &scenario.base, scenario.scenario.dtype)?;
        let config = self.setting.policy.configuration(&assembled.fleet.pools);
        let router = config.map(|config| RouterVerdict {
            config,
            kv_events: self.setting.policy.follows_kv_events(),
            llmd_min: self.setting.policy.llm_d_min().map(str::to_owned),
        });
        let tiers = scenario.scenario.tiers.clone().unwrap_or_default();
        let engine = first.engine.unwrap_or_default().or(&common);
        Ok(Verdict {
            name: names.name.clone().unwrap_or_else(|| release(name)),
            namespace: names.namespace.clone(),
            scenario: self.loaded.name.clone(),
            predicted: self.predicted,
            hazards: self.hazards,
            model: name.to_owned(),
            weights_gib: Some(model.weight_bytes() / GIB),
            kv_cache_dtype: scenario.scenario.kv_cache_dtype,
            image: IMAGE.to_owned(),
            serving,
            simulated: Some(simulated(&scenario, router.is_some())?),
            tiers: Tiers {
                cpu_gib: tiers.cpu.map(|tier| tier.capacity.0 / GIB),
                files: tiers.disk.is_some() || tiers.shared.is_some(),
            },
            lora: lora(&engine, scenario.scenario.lora.as_ref()),
            autoscaling: self.autoscaling.filter(|_| router.is_some()),
            router,
            today: self.today,
            openshift: names.openshift,
        })
    }
}

/// The adapters, where vLLM's arguments or the scenario speak of any.
fn lora(engine: &EngineArgs, spec: Option<&LoraSpec>) -> Option<Lora> {
    let max_loras = engine.max_loras.or(spec.map(|spec| spec.max_loras.unwrap_or(1)))?;
    let max_cpu_loras = spec.and_then(|spec| spec.max_cpu_loras).unwrap_or(max_loras);
    Some(Lora { max_loras, max_cpu_loras, rank: spec.and_then(|spec| spec.rank).unwrap_or(RANK) })
}

/// What serves, from the pools of the scenario.
fn serving(pools: &[PoolSpec], common: &EngineArgs) -> Result<Serving, Error> {
    match pools {
        [pool] => Ok(Serving::Aggregated(servers(pool, common)?)),
        [prefill, decode] if prefill.role == Some(Role::Prefill) => Ok(Serving::Disaggregated {
            prefill: servers(prefill, common)?,
            decode: servers(decode, common)?,
        }),
        _ => {
            let why = "files are made for one kind of replicas, or for prefill and decode; emit each kind by a plan of \
                       its own GPU";
            Err(InputError::new(format!("--emit: a fleet of two kinds of GPUs: {why}")).into())
        }
    }
}

fn servers(pool: &PoolSpec, common: &EngineArgs) -> Result<Servers, Error> {
    let gpu = find_gpu(pool.gpu.as_deref().unwrap_or(DEFAULT_GPU))?.name.clone();
    let engine = pool.engine.clone().unwrap_or_default().or(common);
    Ok(Servers {
        gpu_product: product_of(&gpu).map(str::to_owned),
        gpu,
        tensor_parallel: pool.tensor_parallel.unwrap_or(1),
        replicas: pool.replicas.unwrap_or(1),
        // vLLM's own default changed between versions: what was simulated is said.
        engine: EngineArgs {
            gpu_memory_utilization: engine.gpu_memory_utilization.or(Some(GPU_MEMORY_UTILIZATION)),
            ..engine
        },
    })
}

/// A DNS label from a model's name: `meta-llama/Llama-3.1-8B` becomes `llama-3-1-8b`.
fn release(model: &str) -> String {
    let last = model.trim_end_matches(".json").rsplit('/').next().unwrap_or(model);
    let label = last.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let label: String = label.take(40).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "llm".to_owned() } else { label.to_owned() }
}

/// The scenario as YAML, with the emitted router configuration beside it: `forerun simulate` runs it again.
fn simulated(loaded: &Loaded, routed: bool) -> Result<String, Error> {
    let mut scenario = loaded.scenario.clone();
    if routed {
        scenario.router = Some(RouterSpec { epp: Some(PICKER_FILE.to_owned()), ..RouterSpec::default() });
    }
    // Other files stay where they are.
    let absolute = |path: &std::path::Path| {
        let path = loaded.base.join(path);
        std::path::absolute(&path).map_err(|e| InputError::new(format!("{}: {e}", path.display())))
    };
    if let Some(trace) = scenario.workload.as_mut().and_then(|workload| workload.trace.as_mut()) {
        *trace = absolute(trace)?;
    }
    if let Some(profile) = scenario.profile.as_mut() {
        *profile = absolute(profile)?;
    }
    if let Some(model) = scenario.model.as_mut().filter(|model| model.ends_with(".json")) {
        *model = absolute(model.as_ref())?.display().to_string();
    }
    serde_saphyr::to_string(&scenario)
        .map_err(|e| Error::Internal(format!("a scenario that cannot be written as YAML: {e}")))
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::assemble::{Assembled, assemble};
    use crate::lint::{Pods, Surroundings, lint_file};
    use crate::scenario::read::{Origin, parse, read};
    use crate::simulate::simulate;
    use crate::trial::Policy;

    #[test]
    fn releases_are_named_after_the_model() {
        assert_eq!(release("meta-llama/Llama-3.1-8B"), "llama-3-1-8b");
        assert_eq!(release("models/own.json"), "own");
        assert_eq!(release("///"), "llm");
    }

    #[test]
    fn what_is_emitted_runs_again_as_it_was_simulated_and_has_no_known_hazard() {
        let folder = tempfile::tempdir().unwrap();
        let loaded =
            |text: &str| Loaded { scenario: parse(text, &[]).unwrap(), base: "".into(), name: "test".into() };
        let scenario = loaded(include_str!("../../scenarios/signals/prefix.yaml"));
        for setting in [
            Setting::plain(Policy::Approximate),
            Setting::plain(Policy::Precise),
            Setting::apart(None, None),
            Setting::plain(Policy::LeastRequests),
        ] {
            let replicas = vec![2; setting.parts.len()];
            let mut scenario = scenario.clone();
            if let Some(workload) = &mut scenario.scenario.workload {
                workload.requests = Some(1500);
            }
            let deployment = Deployment {
                loaded: &scenario,
                setting: &setting,
                replicas: &replicas,
                predicted: Vec::new(),
                hazards: Vec::new(),
                autoscaling: None,
                today: None,
            };
            let verdict = deployment.verdict(&Names::default()).unwrap();
            let paths = super::super::write(&verdict, folder.path()).unwrap();
            let again = read(Origin::File(&folder.path().join("forerun.yaml")), &[]).unwrap();
            let run = |assembled: &Assembled| {
                let mut summary =
                    simulate(assembled, None, &mut |_| ControlFlow::Continue(())).unwrap().without_wall();
                (summary.about, summary.warnings) = (Vec::new(), Vec::new());
                summary
            };
            let first = run(&setting.assemble(&scenario, &replicas).unwrap());
            assert_eq!(first, run(&assemble(&again).unwrap()), "{}", setting.policy);
            if let Some(path) = paths.iter().find(|path| path.ends_with("epp-config.yaml")) {
                let surroundings =
                    Surroundings { pods: Pods::of(&again).unwrap(), ..Surroundings::default() };
                let report = lint_file(path, &surroundings).unwrap();
                assert!(report.findings.is_empty(), "{}: {:?}", setting.policy, report.findings);
            }
        }
    }
}
