//! What serves today: `--current FILE` reads Kubernetes manifests as the baseline of a comparison.
//!
//! Understood are Deployments and StatefulSets that run vLLM, and KServe's InferenceService with its
//! ServingRuntime, as files or as `kubectl get ... -o yaml` prints them. What they say and Forerun does not
//! model becomes a note, never a silent guess.

mod command;
mod gpus;
mod kinds;
mod object;
mod vllm;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::InputError;
use crate::scenario::read::{Loaded, read_text};
use crate::scenario::wording::yaml_error;
use crate::scenario::{Dtype, KvCacheDtype, PoolSpec, Scenario};
pub(crate) use gpus::product_of;
use kinds::Server;
use object::Object;
use vllm::Understood;

/// More objects in one file are a mistake.
const OBJECTS_MAX: usize = 10_000;

/// The fleet that the manifests describe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Current {
    /// The model that all its pools serve, by the name that vLLM is given.
    pub model: Option<String>,
    /// Type of the weights, where vLLM is told one.
    pub dtype: Option<Dtype>,
    /// Type of the KV cache, where vLLM is told one.
    pub kv_cache_dtype: Option<KvCacheDtype>,
    /// One pool for each server.
    pub pools: Vec<PoolSpec>,
    /// What was not understood or not said, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the manifests at `path`.
///
/// # Errors
/// When the file cannot be read, is not YAML, has no server that runs vLLM, or one with a malformed argument.
pub fn read(path: &Path) -> Result<Current, InputError> {
    parse(&read_text(path, "manifest")?).map_err(|error| error.at(&path.display().to_string()))
}

/// The same, from text.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str) -> Result<Current, InputError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| yaml_error(&e, text))?;
    let mut objects = Vec::new();
    documents.iter().for_each(|document| flatten(document, &mut objects));
    if objects.len() > OBJECTS_MAX {
        let why = format!("{} objects: name the file of one service", objects.len());
        return Err(InputError::new(why));
    }
    let mut current = Current::default();
    let servers = kinds::servers(&objects, &mut current.notes)?;
    if servers.is_empty() {
        return Err(nothing_found(&objects));
    }
    for server in servers {
        current.add(server)?;
    }
    Ok(current)
}

/// The objects of a document: itself, or those of a list.
fn flatten<'a>(document: &'a Value, objects: &mut Vec<Object<'a>>) {
    match document.get("items").and_then(Value::as_array) {
        Some(items) => objects.extend(items.iter().map(Object::new)),
        None if document.is_null() => {}
        None => objects.push(Object::new(document)),
    }
}

fn nothing_found(objects: &[Object<'_>]) -> InputError {
    let mut kinds: Vec<&str> = objects.iter().map(|object| object.kind()).collect();
    kinds.dedup();
    kinds.truncate(8);
    let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
    InputError::new(format!(
        "no server that runs vLLM (found: {found}): name a file with a Deployment or a KServe InferenceService"
    ))
}

impl Current {
    /// Adds a server as a pool.
    fn add(&mut self, server: Server) -> Result<(), InputError> {
        let place = server.place.clone();
        let understood = vllm::understand(&server.command).map_err(|error| error.at(&place))?;
        let Understood { tensor_parallel, pipeline_parallel, data_parallel, notes, .. } = understood;
        let mut note = |text: String| self.notes.push(format!("{place}: {text}"));
        notes.into_iter().for_each(&mut note);
        server.notes.iter().cloned().for_each(&mut note);
        let engines = tensor_parallel * pipeline_parallel * data_parallel;
        if let Some(gpus) = server.gpus.filter(|&gpus| gpus != engines) {
            note(format!("{gpus} GPUs are reserved and vLLM uses {engines}: {engines} are counted"));
        }
        if pipeline_parallel > 1 {
            note(format!("pipeline parallelism of {pipeline_parallel} is not modelled and left out"));
        }
        if data_parallel > 1 {
            note(format!("{data_parallel} data-parallel engines in each pod are counted as replicas"));
        }
        let replicas = server.replicas.unwrap_or(1).checked_mul(data_parallel);
        let replicas = replicas.ok_or_else(|| {
            InputError::new(format!("{place}: replicas times data parallelism are more than any fleet has"))
        })?;
        let pool = PoolSpec {
            name: Some(server.name),
            role: server.role,
            gpu: server.gpu,
            tensor_parallel: Some(tensor_parallel),
            replicas: Some(replicas),
            engine: Some(understood.engine),
            ..PoolSpec::default()
        };
        self.pools.push(pool);
        self.same_model(understood.model.or(server.model), understood.model_place, &place);
        self.same_dtype(understood.dtype, &place);
        if self.pools.len() > 1 && self.kv_cache_dtype != understood.kv_cache_dtype {
            self.notes
                .push(format!("{place}: another --kv-cache-dtype than the first server's: the first counts"));
        } else {
            self.kv_cache_dtype = understood.kv_cache_dtype;
        }
        Ok(())
    }

    /// One model is the scenario's; others are their pools' own.
    fn same_model(&mut self, model: Option<String>, at: Option<String>, place: &str) {
        match (&self.model, model) {
            (_, None) => {
                let at = at.map_or("is not named".to_owned(), |at| format!("is at `{at}`, which is no name"));
                self.notes.push(format!("{place}: the model {at}: name it with --model"));
            }
            (None, found) => self.model = found,
            (Some(first), Some(found)) => {
                if let Some(pool) = self.pools.last_mut().filter(|_| *first != found) {
                    pool.model = Some(found);
                }
            }
        }
    }

    fn same_dtype(&mut self, dtype: Option<Dtype>, place: &str) {
        match (self.dtype, dtype) {
            (None, found) => self.dtype = found,
            (Some(first), Some(found)) if first != found => {
                self.notes.push(format!("{place}: another dtype than the first server's: the first counts"));
            }
            _ => {}
        }
    }

    /// `loaded` with this fleet in place of its own.
    #[must_use]
    pub fn in_place_of(&self, loaded: &Loaded) -> Loaded {
        let mut loaded = loaded.clone();
        let scenario = &mut loaded.scenario;
        scenario.model = self.model.clone().or(scenario.model.take());
        scenario.dtype = self.dtype.or(scenario.dtype);
        scenario.kv_cache_dtype = self.kv_cache_dtype.or(scenario.kv_cache_dtype);
        scenario.pools = Some(self.pools.clone());
        loaded
    }

    /// The fleet as a scenario without a workload; `base` is where relative paths start.
    #[must_use]
    pub fn to_scenario(&self, base: &Path) -> Loaded {
        let scenario = Scenario {
            model: self.model.clone(),
            dtype: self.dtype,
            kv_cache_dtype: self.kv_cache_dtype,
            pools: Some(self.pools.clone()),
            ..Scenario::default()
        };
        Loaded { scenario, base: PathBuf::from(base), name: "current fleet".to_owned() }
    }
}

#[cfg(test)]
mod tests;
