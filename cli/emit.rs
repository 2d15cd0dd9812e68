//! The flags of commands whose answer becomes files.

use std::path::PathBuf;

use forerun_planner::emit::Names;

/// Where an answer goes as files.
#[derive(clap::Args)]
pub(crate) struct EmitArgs {
    /// Write the files that deploy the answer into this folder: values of llm-d's charts, the endpoint picker's
    /// configuration, routes, vLLM's arguments, and the scenario that was simulated.
    #[arg(long = "emit", value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Name of the release in these files; without it the model's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Kubernetes namespace in these files.
    #[arg(long, value_name = "NAME", default_value_t = Names::default().namespace)]
    namespace: String,
    /// Write what OpenShift's restricted SCC needs, too.
    #[arg(long)]
    openshift: bool,
}

impl EmitArgs {
    /// How the files are to be named.
    pub(crate) fn names(&self) -> Names {
        Names { name: self.name.clone(), namespace: self.namespace.clone(), openshift: self.openshift }
    }

    /// Says on stderr which files were written.
    pub(crate) fn tell(&self, paths: &[PathBuf]) {
        for path in paths {
            eprintln!("wrote {}", path.display());
        }
    }
}
