//! From a verdict to the files that put it into practice: `--emit DIR`.
//!
//! Every file is built from typed values and begins with a comment that names the
//! scenario and the predicted figures. The types hold the fields that are written here and no more: of these
//! objects `k8s-openapi`, a large crate, has only the Deployment, `gateway-api` only the route (and needs a
//! newer compiler), and no crate has InferencePool, KEDA's or the charts' types.

pub(crate) mod arguments;
pub(crate) mod deployment;
pub mod objects;
pub mod ogx;
pub mod scaled_object;
pub mod values;
pub mod verdict;

use std::io::Write as _;
use std::path::{Path, PathBuf};

pub use deployment::Names;
use serde::Serialize;

use crate::error::InputError;
use crate::output::OutputFile;
use crate::scenario::Role;
use verdict::{Serving, Verdict};

/// A file to be written: its name in the folder, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub text: String,
}

/// Writes the files of `verdict` into `folder`, which is made if it does not exist, and returns their paths.
///
/// # Errors
/// When the verdict names something impossible, or a file cannot be written. Each file is complete or absent.
pub fn write(verdict: &Verdict, folder: &Path) -> Result<Vec<PathBuf>, InputError> {
    let files = files(verdict)?;
    let wrong = |path: &Path, e: std::io::Error| {
        InputError::new(format!("{}: cannot be written: {e}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|e| wrong(folder, e))?;
    let mut paths = Vec::new();
    for Emitted { name, text } in files {
        let path = folder.join(name);
        let mut file = OutputFile::create(&path)?;
        file.write_all(text.as_bytes()).map_err(|e| wrong(&path, e))?;
        file.finish()?;
        paths.push(path);
    }
    Ok(paths)
}

/// The files of `verdict`.
///
/// # Errors
/// When the verdict names something impossible.
pub fn files(verdict: &Verdict) -> Result<Vec<Emitted>, InputError> {
    verdict.check()?;
    let mut files = vec![
        Emitted { name: "vllm-args.txt", text: vllm_arguments(verdict) },
        yaml("ogx-run-config.yaml", verdict, OGX, &[ogx::Ogx::of(verdict)])?,
    ];
    if let Some(scenario) = &verdict.simulated {
        files.push(Emitted { name: "forerun.yaml", text: header(verdict, SIMULATED) + scenario });
    }
    if verdict.openshift {
        let patches: Vec<_> =
            verdict.serving.roles().map(|(role, _)| objects::EmptyDirPatch::of(verdict, role)).collect();
        files.push(yaml("openshift-emptydirs-patch.yaml", verdict, OPENSHIFT, &patches)?);
    }
    if let Some(autoscaling) = &verdict.autoscaling {
        let scaled: Vec<_> = verdict
            .serving
            .roles()
            .map(|(role, servers)| scaled_object::ScaledObject::of(verdict, role, servers, autoscaling))
            .collect();
        files.push(yaml("scaledobject.yaml", verdict, KEDA, &scaled)?);
    }
    if let Some(router) = &verdict.router {
        let header = header(verdict, "The endpoint picker's configuration, as it was simulated.");
        files.push(Emitted { name: deployment::PICKER_FILE, text: header + &router.config });
        files.push(yaml(
            "modelservice-values.yaml",
            verdict,
            MODELSERVICE,
            &[values::ModelService::of(verdict)],
        )?);
        let router_values = values::RouterValues::of(verdict, router);
        files.push(yaml("router-values.yaml", verdict, ROUTER, &[router_values])?);
        files.push(yaml("inferencepool.yaml", verdict, POOL, &[objects::InferencePool::of(verdict)])?);
        files.push(yaml("httproute.yaml", verdict, ROUTE, &[objects::HttpRoute::of(verdict)])?);
    }
    files.sort_by_key(|file| file.name);
    Ok(files)
}

const SIMULATED: &str = "The scenario that was simulated: `forerun simulate` runs it again.";
const MODELSERVICE: &str = "Values of the llm-d-modelservice chart.";
const ROUTER: &str = "Values of the llm-d-router-gateway chart.";
const POOL: &str = "The InferencePool that the router chart creates from router-values.yaml: apply it only without the chart.";
const ROUTE: &str = "Traffic between the old backend and the new pool: shift it by the weights.";
const KEDA: &str = "KEDA scales on the endpoint picker's metrics. Set serverAddress to your Prometheus.";
const OPENSHIFT: &str = "OpenShift's restricted SCC runs vLLM as an arbitrary user who cannot write to /: emptyDirs for its caches.";
const OGX: &str = "OGX: the provider and its models, by which agents choose a backend.";

/// Documents of one type as a file of YAML.
fn yaml<T: Serialize>(
    name: &'static str,
    verdict: &Verdict,
    what: &str,
    documents: &[T],
) -> Result<Emitted, InputError> {
    let mut text = header(verdict, what);
    for (number, document) in documents.iter().enumerate() {
        if number > 0 {
            text += "---\n";
        }
        let document = serde_saphyr::to_string(document)
            .map_err(|e| InputError::new(format!("{name}: cannot be written as YAML: {e}")))?;
        text += &document;
    }
    Ok(Emitted { name, text })
}

/// The comment with which every file begins.
fn header(verdict: &Verdict, what: &str) -> String {
    let mut header = format!("# {what}\n# Written by Forerun from scenario {}.\n", line(&verdict.scenario));
    for figure in &verdict.predicted {
        header += &format!("# Predicted {}: {}\n", line(&figure.name), line(&figure.value));
    }
    if let Some(version) = verdict.router.as_ref().and_then(|router| router.llmd_min.as_deref()) {
        header += &format!("# Needs llm-d {} or newer.\n", line(version));
    }
    for hazard in &verdict.hazards {
        header += &format!("# Mind: {}\n", line(hazard));
    }
    header
}

/// What a user wrote stays within its line of comment.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One `vllm serve` command for each role.
fn vllm_arguments(verdict: &Verdict) -> String {
    let mut text = header(verdict, "vLLM's arguments.");
    for (role, servers) in verdict.serving.roles() {
        let (gpus, gpu) = (servers.tensor_parallel, &servers.gpu);
        text += &format!(
            "\n# {}: {} replicas, each on {gpus} x {}\n",
            role.deployed_as(),
            servers.replicas,
            line(gpu)
        );
        text += &format!("vllm serve {}", verdict.model);
        for argument in arguments::of(verdict, role, servers, true) {
            text += &format!(" \\\n  {}", shell_quoted(&argument));
        }
        text.push('\n');
    }
    text
}

/// An argument as a POSIX shell takes it.
fn shell_quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:@,+".contains(c);
    if argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

impl Role {
    /// The word in names and labels; a server of both roles is deployed as decode.
    pub(crate) fn deployed_as(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Both | Self::Decode => "decode",
        }
    }
}

impl Serving {
    /// The servers of each role.
    pub fn roles(&self) -> impl Iterator<Item = (Role, &verdict::Servers)> {
        let (first, second) = match self {
            Self::Aggregated(servers) => ((Role::Both, servers), None),
            Self::Disaggregated { prefill, decode } => {
                ((Role::Prefill, prefill), Some((Role::Decode, decode)))
            }
        };
        std::iter::once(first).chain(second)
    }
}

#[cfg(test)]
mod tests;
